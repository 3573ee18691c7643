//! How far a transcript is from a reference: diarization error, word error, roles. Pure functions on what was said when.

mod diarization;
mod words;

pub use diarization::{DiarizationError, Stretch, diarization};
pub use words::{WordErrors, normalise, word_errors};
