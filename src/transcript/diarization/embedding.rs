//! The speaker embedding of a whole voice.

use super::Frames;
use super::PIECE;
use super::begins;
use super::frames;
use super::groups;
use super::network::DIMENSIONS;
use super::pieces;
use super::points;
use crate::audio::AudioError;
use crate::audio::speech::Pcm16k;
use crate::domain::Segment;
use crate::domain::SpeakerEmbedding;
use crate::domain::segment::total_ms;

/// Increment this whenever the embedding changes: new network weights, another pitch tracker, other bands.
pub const EMBEDDING_VERSION: u32 = 1;

/// Least speech for a meaningful mean, in milliseconds.
const LEAST_MS: u64 = 2_000;

/// The voice in some segments of a leg.
#[derive(Debug)]
pub struct VoiceEmbedding {
    /// The speaker embedding, valid if the segments have one speaker.
    pub embedding: SpeakerEmbedding,
    /// Log odds of two speakers against one. `None` if there is too little speech.
    pub two: Option<f64>,
}

/// The speaker embedding of these segments of a leg. `None` if they have too little speech.
///
/// # Errors
/// [`AudioError`] if the spool cannot be read.
pub fn embedding(samples: &Pcm16k, segments: &[Segment]) -> Result<Option<VoiceEmbedding>, AudioError> {
    let speech_ms = total_ms(segments);
    if speech_ms < LEAST_MS {
        return Ok(None);
    }
    let frames: Frames = frames(samples, segments)?;
    let pieces = pieces(&frames);
    let points = points(&frames, &pieces);
    // A shorter segment has less weight.
    let weights: Vec<f64> = points.iter().map(|point| point.weight.min(PIECE as f64)).collect();
    let whole: f64 = weights.iter().sum();
    let mean = |n: usize| points.iter().zip(&weights).map(|(point, weight)| weight * point.at[n]).sum::<f64>() / whole;
    let at = (0..DIMENSIONS).map(mean).collect();
    let embedding = SpeakerEmbedding { version: EMBEDDING_VERSION, at, speech_ms };
    let two = groups::two(&points, &begins(&frames, &pieces)).map(|split| split.odds);
    Ok((whole > 0.0).then_some(VoiceEmbedding { embedding, two }))
}
