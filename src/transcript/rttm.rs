//! Speaker turns as RTTM (NIST Rich Transcription evaluation plan, 2009), the input format of diarization scorers.

use std::fmt::Write as _;

use crate::domain::Transcript;

use super::voice::Labels;

/// One `SPEAKER` line per turn. `recording` is the file column, with white space written as `_`. Empty if the
/// transcript has no turns.
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

/// Makes a value exactly one column: not empty, without white space.
fn column(value: &str) -> String {
    if value.is_empty() {
        return "<NA>".to_owned();
    }
    value.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect()
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}
