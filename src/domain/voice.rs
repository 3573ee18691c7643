//! Voice profiles. Nothing else of a voice is stored, and only for agents that are declared synthetic.

use serde::{Deserialize, Serialize};

/// The mean of a voice's segments in one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpeakerEmbedding {
    /// Figures of different versions are never compared, because they mean different things.
    pub version: u32,
    pub at: Vec<f64>,
    /// The amount of speech behind the mean, milliseconds.
    pub speech_ms: u64,
}

/// The enrolled voice profile of a synthetic agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The platform's id of the agent.
    pub agent_id: String,
    #[serde(rename = "figures")]
    pub embedding: SpeakerEmbedding,
}
