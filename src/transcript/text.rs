//! The platform's own text form, byte for byte: one turn per line, `[Agent]: text`.

use crate::domain::ProviderTurn;
use crate::domain::Role;
use crate::domain::Transcript;
use crate::domain::spoken::folded;
use crate::domain::spoken::is_line_break;

use super::provider::from_voices;
use super::voice::Labels;
use super::voice::Voice;

/// `transcript.txt` and the record's `transcript`: one turn per line. Line breaks inside a turn are folded to one
/// space, consecutive turns of a speaker are joined, and the last line has no line break. Text of a single nameless
/// speaker has no label. `None` if the transcript has no words.
#[must_use]
pub fn text(transcript: &Transcript) -> Option<String> {
    let labels = Labels::of(transcript);
    let mut lines: Vec<String> = Vec::new();
    let mut last: Option<(u32, Option<&str>)> = None;
    for utterance in &transcript.utterances {
        let words = folded(&utterance.text);
        if words.is_empty() {
            continue;
        }
        let label = labels.of_words(utterance, transcript.role(utterance.speaker));
        match lines.last_mut() {
            Some(line) if last == Some((utterance.speaker, label)) => {
                line.push(' ');
                line.push_str(&words);
            }
            _ => lines.push(label.map_or_else(|| words.clone(), |label| format!("[{label}]: {words}"))),
        }
        last = Some((utterance.speaker, label));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Reads the text form, and the looser forms of platforms: `[Agent]:`, `Agent:`, `User:`, `[Speaker 2]:`, with
/// continuation lines. Text without any label is kept word for word as one utterance of an unknown speaker.
#[must_use]
pub fn parse_text(text: &str, language: Option<&str>) -> Transcript {
    let mut turns: Vec<(Voice, ProviderTurn)> = Vec::new();
    let mut labelled = false;
    for line in text.split(is_line_break).map(str::trim).filter(|line| !line.is_empty()) {
        match (opening(line), turns.last_mut()) {
            (Some((voice, words)), _) => {
                labelled = true;
                turns.push((voice, turn(words)));
            }
            (None, Some((_, open))) => {
                if !open.text.is_empty() {
                    open.text.push(' ');
                }
                open.text.push_str(line);
            }
            (None, None) => turns.push((Voice::Unlabelled, turn(line))),
        }
    }
    if !labelled {
        turns = vec![(Voice::Unlabelled, turn(text.trim()))];
    }
    from_voices(turns, language)
}

/// The label of a line and the text after it. `None` for a line that continues the previous turn.
pub(super) fn opening(line: &str) -> Option<(Voice, &str)> {
    let bracketed = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    if let Some((label, words)) =
        bracketed.and_then(|(label, rest)| Some((label, rest.trim_start().strip_prefix(':')?)))
    {
        // An unknown bracketed name is a different speaker than the previous turn's. Its text is kept, without a role.
        let unknown = (Voice::Unlabelled, line);
        return Some(Voice::from_label(label).map_or(unknown, |voice| (voice, words.trim())));
    }
    let (label, words) = line.split_once(':')?;
    let voice = Voice::from_label(label)?;
    // Without brackets these labels are ordinary words ("System: restarted").
    let ordinary = matches!(voice, Voice::Unlabelled | Voice::Role(Role::System));
    (!ordinary).then_some((voice, words.trim()))
}

/// A turn with only a text.
pub(super) fn turn(words: &str) -> ProviderTurn {
    ProviderTurn {
        role: Role::Unknown,
        text: words.to_owned(),
        start_ms: None,
        end_ms: None,
        words: Vec::new(),
        approximate: false,
    }
}
