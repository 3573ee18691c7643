//! Speech stretches as RTTM (NIST Rich Transcription evaluation plan, 2009), the form diarization scorers read.

use std::fmt::Write as _;

use crate::domain::Transcript;

use super::voice::Labels;

/// One `SPEAKER` line for each stretch; `recording` is the file column, its white space written as `_`. Empty when the
/// transcript has no stretches.
#[must_use]
pub fn rttm(transcript: &Transcript, recording: &str) -> String {
    let labels = Labels::of(transcript);
    let file = column(recording);
    let mut out = String::new();
    for turn in &transcript.turns {
        let name = column(&labels.get(turn.speaker).unwrap_or("Speaker 1").to_lowercase());
        let start = seconds(turn.start_ms);
        let length = seconds(turn.end_ms.saturating_sub(turn.start_ms));
        let _ = writeln!(out, "SPEAKER {file} 1 {start} {length} <NA> <NA> {name} <NA> <NA>");
    }
    out
}

/// A value that cannot be taken for two columns, or for none.
fn column(value: &str) -> String {
    if value.is_empty() {
        return "<NA>".to_owned();
    }
    value.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect()
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}
