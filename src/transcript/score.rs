//! Scores of a transcript against a reference: diarization error, word error and roles.

mod diarization;
mod judge;
mod reference;
mod words;

pub use diarization::{DiarizationError, diarization};
pub use judge::{CONFIDENT, RoleScore, Score, judge};
pub use reference::{Reference, ReferenceError, SpokenWord, read};
pub use words::{WordErrors, normalise, word_errors};
