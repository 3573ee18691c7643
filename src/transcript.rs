//! The [`Transcript`](crate::domain::Transcript) of a call: words, speakers and roles, and its output formats.
//!
//! ```text
//! provider turns ─┐                                    ┌─► txt   [Agent]: … (the platform's own form)
//!                 ├─► speakers ─► Transcript document ─┼─► json  the document itself
//! a given file ───┘                                    ├─► vtt, srt  where the text has times
//!                                                      └─► rttm  speaker turns
//! ```
//!
//! No word is lost or changed, except for folded line breaks in the line-based forms. A role from the source is never
//! overruled. An estimated role is written only with its evidence.

mod agent_voice;
mod attributed;
mod captions;
mod confidence;
mod correction;
mod cues;
pub mod diarization;
#[cfg(feature = "diarizer")]
pub mod diarizer;
pub mod engine;
pub mod engines;
mod file;
mod fit;
mod forms;
mod heard;
pub mod known_model;
pub mod models;
mod numbering;
mod provider;
mod recognise;
pub mod remote;
mod roles;
mod rttm;
pub mod score;
mod speakers;
mod text;
mod times;
mod turns;
mod viterbi;
mod voice;
mod voice_table;

#[cfg(test)]
mod tests;

pub use agent_voice::{AgentVoice, VOICE_VERSION, enroll};
pub use attributed::Attributed;
pub use correction::{Correction, CorrectionError, corrected, is_corrected};
pub use file::parse_file;
pub use fit::fit;
pub use forms::{Form, TranscriptError, render};
pub use heard::{HeardLeg, from_engine, speaker_at};
pub use provider::{
    APPROXIMATE_TIMES, ENGINE_FAILED, INCOMPLETE_TIMES, KEY_REFUSED, LANGUAGE_UNKNOWN, NO_ENGINE, NO_SPEECH, NO_TIMES,
    OVER_BUDGET, TEXT_MISFIT, TIMES_MISFIT, from_source, from_turns, without_text,
};
pub use recognise::{from_audio, recognise, recognise_with, wants_engine};
pub use rttm::rttm;
pub use speakers::{Hints, attribute};
pub use text::{parse_text, text};
pub use times::within;
