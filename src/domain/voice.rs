//! What a voice sounds like, in figures: all that is ever kept of one, and only of agents that are declared synthetic.

use serde::{Deserialize, Serialize};

/// The mean of a voice's stretches in one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VoiceFigures {
    /// Figures of different versions mean different things and are never compared.
    pub version: u32,
    pub at: Vec<f64>,
    /// The speech that they are the mean of.
    pub speech_ms: u64,
}

/// What a call has taught about the voice of a synthetic agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Learnt {
    /// The platform's id of the agent.
    pub agent_id: String,
    pub figures: VoiceFigures,
}
