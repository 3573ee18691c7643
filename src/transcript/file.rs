//! Reads an existing transcript from a file: `process --transcript FILE`.

use serde::Deserialize;
use serde_json::Value;

use crate::domain::ProviderTurn;
use crate::domain::ProviderWord;
use crate::domain::Transcript;
use crate::domain::spoken::has_redaction_tags;
use crate::domain::transcript::TRANSCRIPT_SCHEMA;

use super::cues;
use super::forms::TranscriptError;
use super::provider::from_voices;
use super::text::opening;
use super::text::parse_text;
use super::text::turn;
use super::voice::Voice;

/// Roles of turns without speech (from Retell's `transcript_with_tool_calls` and similar formats).
const NOT_SPOKEN: [&str; 9] = [
    "tool",
    "function",
    "tool_call",
    "tool_call_invocation",
    "tool_call_result",
    "node_transition",
    "dtmf",
    "sms",
    "injected",
];

/// One turn of a JSON list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum GivenTurn {
    Line(String),
    Turn(GivenObject),
}

#[derive(Debug, Deserialize)]
struct GivenObject {
    role: Option<String>,
    #[serde(default, alias = "content")]
    text: String,
    start_ms: Option<u64>,
    end_ms: Option<u64>,
    #[serde(default)]
    words: Vec<GivenWord>,
    #[serde(default)]
    approximate: bool,
}

#[derive(Debug, Deserialize)]
struct GivenWord {
    #[serde(alias = "word")]
    text: String,
    start_ms: Option<u64>,
    end_ms: Option<u64>,
}

/// Reads a transcript file: captions (WebVTT or SubRip), text with or without labels, a JSON list of turns (`role`,
/// `text` or `content`, optional `start_ms`, `end_ms`, `words`) or of strings, or a document of this program.
/// `language` is the default for a file without one.
///
/// # Errors
/// [`TranscriptError`] with the position of the error. It never repeats words of the file.
pub fn parse_file(bytes: &[u8], language: Option<&str>) -> Result<Transcript, TranscriptError> {
    let text = std::str::from_utf8(bytes).map_err(|_| TranscriptError::NotUtf8)?;
    let text = text.trim_start_matches('\u{feff}');
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(turns)) => from_list(turns, language),
        Ok(document @ Value::Object(_)) => from_document(document, language),
        Err(error) if looks_like_json(text) => {
            Err(not_turns(format!("line {} column {}", error.line(), error.column())))
        }
        // A single word or number is valid JSON, but is read as text.
        Ok(_) | Err(_) => Ok(cues::parse(text, language).unwrap_or_else(|| parse_text(text, language))),
    }
}

/// Text does not begin with `{`. After `[`, a label or a note continues with a word.
fn looks_like_json(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with('{') || text.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(['{', '"']))
}

fn from_list(turns: Vec<Value>, language: Option<&str>) -> Result<Transcript, TranscriptError> {
    let mut given = Vec::with_capacity(turns.len());
    for (number, value) in (1..).zip(turns) {
        match serde_json::from_value(value).map_err(|_| not_turns(format!("turn {number}")))? {
            GivenTurn::Line(line) => given.push(match opening(line.trim()) {
                Some((voice, words)) => (voice, turn(words)),
                None => (Voice::Unlabelled, turn(&line)),
            }),
            GivenTurn::Turn(object) => given.extend(from_object(object)),
        }
    }
    Ok(from_voices(given, language))
}

/// `None` for a turn without speech.
fn from_object(object: GivenObject) -> Option<(Voice, ProviderTurn)> {
    let role = object.role.unwrap_or_default();
    if NOT_SPOKEN.contains(&role.trim().to_ascii_lowercase().as_str()) {
        return None;
    }
    let words = object.words.into_iter().map(|word| ProviderWord {
        text: word.text,
        start_ms: word.start_ms,
        end_ms: word.end_ms,
    });
    let spoken = ProviderTurn {
        start_ms: object.start_ms,
        end_ms: object.end_ms,
        words: words.collect(),
        approximate: object.approximate,
        ..turn(&object.text)
    };
    Some((Voice::from_label(&role).unwrap_or(Voice::Unlabelled), spoken))
}

fn from_document(document: Value, language: Option<&str>) -> Result<Transcript, TranscriptError> {
    if document.get("schema").and_then(Value::as_str) != Some(TRANSCRIPT_SCHEMA) {
        return Err(TranscriptError::Schema);
    }
    let mut transcript: Transcript =
        serde_json::from_value(document).map_err(|_| not_turns("its fields".to_owned()))?;
    let listed = |id: u32| transcript.speakers.iter().any(|speaker| speaker.id == id);
    let named = transcript.utterances.iter().map(|u| u.speaker).chain(transcript.turns.iter().map(|t| t.speaker));
    if let Some(stranger) = named.into_iter().find(|id| !listed(*id)) {
        return Err(TranscriptError::Speaker(stranger));
    }
    transcript.redacted |= transcript.utterances.iter().any(|utterance| has_redaction_tags(&utterance.text));
    transcript.language = transcript.language.or_else(|| language.map(str::to_owned));
    Ok(transcript)
}

/// The parser's message may quote the file, so that only the position is reported.
const fn not_turns(at: String) -> TranscriptError {
    TranscriptError::NotTurns { at }
}
