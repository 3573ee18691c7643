//! Builds the transcript from a platform's turns. Roles, words and times are taken over and none is added.

use crate::domain::ProviderTurn;
use crate::domain::Segment;
use crate::domain::SourceCall;
use crate::domain::Transcript;
use crate::domain::spoken::has_redaction_tags;
use crate::domain::transcript::TRANSCRIPT_SCHEMA;
use crate::domain::transcript::TextSource;
use crate::domain::transcript::Turn;
use crate::domain::transcript::Utterance;
use crate::domain::transcript::Word;

use super::turns;
use super::voice::Voice;
use super::voice::speakers;

/// `reason` without words: the platform sent none, and no engine recognised any.
pub const NO_ENGINE: &str = "no_engine";
/// `reason` without words: the recording has no speech.
pub const NO_SPEECH: &str = "no_speech";
/// `reason` without words: an engine is available, but the language of the call is unknown.
pub const LANGUAGE_UNKNOWN: &str = "language_unknown";
/// `reason` without words: the engine failed.
pub const ENGINE_FAILED: &str = "engine_failed";
/// `reason` without words: the service refuses the key, or the key has no credit.
pub const KEY_REFUSED: &str = "key_refused";
/// `reason` without words: the cost would exceed the budget.
pub const OVER_BUDGET: &str = "over_budget";
/// `reason` of a text that does not match the recording. Its words have no times.
pub const TEXT_MISFIT: &str = "text_misfit";
/// `reason` of times that do not match the recording. Words that no engine aligned have no times.
pub const TIMES_MISFIT: &str = "times_misfit";
/// `reason` of a text without any times.
pub const NO_TIMES: &str = "no_times";
/// `reason` of a text with a missing start or end.
pub const INCOMPLETE_TIMES: &str = "incomplete_times";
/// `reason` of times from a wall clock or from the length of the words, not from the audio.
pub const APPROXIMATE_TIMES: &str = "approximate_times";

/// The transcript of a call with the words of its source, or [`without_text`] if it has none.
#[must_use]
pub fn from_source(call: &SourceCall) -> Transcript {
    from_turns(&call.turns, call.language.as_deref())
}

/// The transcript of a platform's turns. Each turn with words becomes one utterance, in the given order.
#[must_use]
pub fn from_turns(turns: &[ProviderTurn], language: Option<&str>) -> Transcript {
    let given = turns.iter().map(|turn| (Voice::of(turn.role), turn.clone())).collect();
    from_voices(given, language)
}

/// The transcript of a call without words. Its text source is the provider, where words were looked for.
#[must_use]
pub fn without_text(language: Option<&str>) -> Transcript {
    from_voices(Vec::new(), language)
}

/// Like [`from_turns`], for sources that also number speakers. The role inside a turn is ignored.
pub(super) fn from_voices(given: Vec<(Voice, ProviderTurn)>, language: Option<&str>) -> Transcript {
    let approximate = given.iter().any(|(_, turn)| turn.approximate);
    let (spoken, voices): (Vec<_>, Vec<_>) =
        given.into_iter().filter_map(|(voice, turn)| spoken(turn).map(|turn| (turn, voice))).unzip();
    let (table, ids) = speakers(&voices);
    let turns = segments(&spoken, &ids);
    let utterances: Vec<Utterance> = spoken.into_iter().zip(&ids).map(|(turn, id)| utterance(turn, *id)).collect();
    Transcript {
        schema: TRANSCRIPT_SCHEMA.to_owned(),
        language: language.map(str::to_owned),
        source: TextSource::Provider,
        engine: None,
        speakers: table,
        turns,
        redacted: utterances.iter().any(|utterance| has_redaction_tags(&utterance.text)),
        reason: reason(&utterances, approximate).map(str::to_owned),
        utterances,
    }
}

/// The turn without content that cannot be stored: U+0000, which PostgreSQL and WebVTT reject, and times that end
/// before they start. `None` for a turn without words.
fn spoken(mut turn: ProviderTurn) -> Option<ProviderTurn> {
    for word in &mut turn.words {
        word.text.retain(|c| c != '\0');
        (word.start_ms, word.end_ms) = forwards(word.start_ms, word.end_ms);
    }
    turn.words.retain(|word| !word.text.trim().is_empty());
    turn.text.retain(|c| c != '\0');
    if turn.text.trim().is_empty() {
        let words: Vec<&str> = turn.words.iter().map(|word| word.text.trim()).collect();
        turn.text = words.join(" ");
    }
    turn.start_ms = turn.start_ms.or_else(|| turn.words.iter().filter_map(|word| word.start_ms).min());
    turn.end_ms = turn.end_ms.or_else(|| turn.words.iter().filter_map(|word| word.end_ms).max());
    (turn.start_ms, turn.end_ms) = forwards(turn.start_ms, turn.end_ms);
    (!turn.text.is_empty()).then_some(turn)
}

/// Both times, or none if the end lies before the start.
fn forwards(start_ms: Option<u64>, end_ms: Option<u64>) -> (Option<u64>, Option<u64>) {
    match (start_ms, end_ms) {
        (Some(start), Some(end)) if end < start => (None, None),
        pair => pair,
    }
}

fn utterance(turn: ProviderTurn, speaker: u32) -> Utterance {
    let words = turn.words.into_iter().map(|word| Word {
        text: word.text,
        start_ms: word.start_ms,
        end_ms: word.end_ms,
        confidence: None,
        heard: None,
    });
    Utterance {
        speaker,
        start_ms: turn.start_ms,
        end_ms: turn.end_ms,
        text: turn.text,
        confidence: None,
        heard: None,
        words: words.collect(),
        by: None,
    }
}

/// The turns of each speaker, split at pauses, from word times or else from the times of the provider's turn.
/// Wall-clock times are left out, because talk and response figures use these turns.
fn segments(spoken: &[ProviderTurn], ids: &[u32]) -> Vec<Turn> {
    let mut heard: Vec<(u32, Segment)> = Vec::new();
    let segment = |(start_ms, end_ms)| Segment { start_ms, end_ms };
    for (turn, id) in spoken.iter().zip(ids).filter(|(turn, _)| !turn.approximate) {
        let timed = turn.words.iter().filter_map(|word| word.start_ms.zip(word.end_ms));
        let before = heard.len();
        heard.extend(timed.map(|times| (*id, segment(times))));
        if heard.len() == before {
            heard.extend(turn.start_ms.zip(turn.end_ms).map(|times| (*id, segment(times))));
        }
    }
    heard.sort_by_key(|(_, segment)| *segment);
    let mut turns = turns::of_words(heard);
    turns.retain(|turn| !turn.segment().is_empty());
    turns
}

fn reason(utterances: &[Utterance], approximate: bool) -> Option<&'static str> {
    let untimed = |utterance: &Utterance| utterance.start_ms.is_none() && utterance.end_ms.is_none();
    let timed = |utterance: &Utterance| utterance.start_ms.is_some() && utterance.end_ms.is_some();
    if utterances.is_empty() {
        Some(NO_ENGINE)
    } else if utterances.iter().all(untimed) {
        Some(NO_TIMES)
    } else if !utterances.iter().all(timed) {
        Some(INCOMPLETE_TIMES)
    } else {
        approximate.then_some(APPROXIMATE_TIMES)
    }
}
