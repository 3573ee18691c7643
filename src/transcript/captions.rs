//! Captions as WebVTT (W3C Recommendation) and SubRip, one cue for each utterance.

use std::fmt::Write as _;

use crate::domain::Transcript;
use crate::domain::spoken::folded;
use crate::domain::transcript::Utterance;

use super::provider::INCOMPLETE_TIMES;
use super::provider::NO_ENGINE;
use super::provider::NO_TIMES;
use super::voice::Labels;

/// One caption on screen, times in milliseconds.
#[derive(Debug)]
pub(super) struct Cue {
    start_ms: u64,
    end_ms: u64,
    label: Option<String>,
    text: String,
}

/// The cues in the order of their starts, as WebVTT requires. Captions contain the complete text or are not made: an
/// utterance without times gives an error with the reason word.
pub(super) fn cues(transcript: &Transcript) -> Result<Vec<Cue>, &'static str> {
    let labels = Labels::of(transcript);
    let spoken: Vec<_> = transcript.utterances.iter().filter(|u| !folded(&u.text).is_empty()).collect();
    if spoken.is_empty() {
        return Err(NO_ENGINE);
    }
    if spoken.iter().all(|utterance| utterance.start_ms.is_none() && utterance.end_ms.is_none()) {
        return Err(NO_TIMES);
    }
    let cue = |utterance: &&Utterance| {
        let (start_ms, end_ms) = utterance.start_ms.zip(utterance.end_ms)?;
        Some(Cue {
            start_ms,
            // A cue must end after it starts (WebVTT 4.1).
            end_ms: end_ms.max(start_ms.saturating_add(1)),
            label: labels.of_words(utterance, transcript.role(utterance.speaker)).map(str::to_owned),
            text: folded(&utterance.text),
        })
    };
    let mut cues: Vec<Cue> = spoken.iter().map(cue).collect::<Option<_>>().ok_or(INCOMPLETE_TIMES)?;
    cues.sort_by_key(|cue| cue.start_ms);
    Ok(cues)
}

/// WebVTT with voice spans. A span that is the whole cue needs no end tag.
pub(super) fn vtt(cues: &[Cue]) -> String {
    let mut out = String::from("WEBVTT\n");
    for cue in cues {
        let voice = cue.label.as_ref().map(|label| format!("<v {label}>")).unwrap_or_default();
        // The syntax has only these three. Escaping `>` also removes `-->`.
        let text = cue.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let (start, end) = (clock(cue.start_ms, '.'), clock(cue.end_ms, '.'));
        let _ = write!(out, "\n{start} --> {end}\n{voice}{text}\n");
    }
    out
}

/// SubRip. The format has no escapes and needs none here: a cue's text is one line that is not empty, so that it cannot
/// end the cue.
pub(super) fn srt(cues: &[Cue]) -> String {
    let mut out = String::new();
    for (number, cue) in (1..).zip(cues) {
        let label = cue.label.as_ref().map(|label| format!("[{label}]: ")).unwrap_or_default();
        let (start, end) = (clock(cue.start_ms, ','), clock(cue.end_ms, ','));
        let gap = if number == 1 { "" } else { "\n" };
        let _ = write!(out, "{gap}{number}\n{start} --> {end}\n{label}{}\n", cue.text);
    }
    out
}

/// `hh:mm:ss.mmm`. The hours have at least two digits.
fn clock(ms: u64, point: char) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    format!("{:02}:{:02}:{seconds:02}{point}{ms:03}", minutes / 60, minutes % 60)
}
