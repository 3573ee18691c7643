//! What the steps know of a recording: the measurement, or the reason why there is none.

use serde::{Deserialize, Serialize};

use super::remote_stt::Kept;
use crate::domain::quality::Flag;
use crate::domain::{Artifact, Enrolled, Outcome, Quality, SourceCall, Transcript};
use crate::transcript;

/// The result of steps 2 to 6.
pub(crate) enum Media {
    Measured(Box<Measured>),
    /// There are no measurements, for this reason. The original is kept if there is one.
    Ended {
        outcome: Outcome,
        reason: Option<String>,
        original: Option<Artifact>,
        flags: Vec<Flag>,
    },
}

impl Media {
    /// The result for a call without a recording.
    pub(crate) const fn without_recording(outcome: Outcome, reason: Option<String>) -> Self {
        Self::Ended { outcome, reason, original: None, flags: Vec::new() }
    }

    /// The transcript with the speakers found in the audio, or the platform's own if the recording was not measured.
    pub(crate) fn transcript_of(&self, call: &SourceCall) -> Transcript {
        match self {
            Self::Measured(measured) => measured.transcript.clone(),
            Self::Ended { .. } => transcript::from_source(call),
        }
    }
}

/// A measured recording. All its derived artifacts are stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub original: Artifact,
    pub derived: Vec<Artifact>,
    pub quality: Quality,
    /// The attributed transcript: words, speakers and roles, from the platform or a speech engine.
    pub transcript: Transcript,
    /// Remote STT answers that are not yet part of a transcript.
    #[serde(default)]
    pub kept: Kept,
    /// The newest transcript version when the measurement began. Later corrections are not in this result.
    #[serde(default)]
    pub after_version: u32,
    /// The speaker embedding that the call contributes to its agent's enrolled voice.
    #[serde(default, rename = "learnt")]
    pub enrolled: Option<Enrolled>,
}
