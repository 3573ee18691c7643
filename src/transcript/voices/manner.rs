//! What one voice sounds like as a whole.

use super::Frames;
use super::PIECE;
use super::begins;
use super::frames;
use super::groups;
use super::pieces;
use super::points;
use super::summary;
use crate::audio::AudioError;
use crate::audio::speech::Pcm16k;
use crate::audio::speech::Region;
use crate::domain::VoiceFigures;

/// One more whenever the figures change their meaning: with other weights of the network, another pitch, other bands.
pub const FIGURES_VERSION: u32 = 1;

/// Speech without which a mean says little, ms.
const LEAST_MS: u64 = 2_000;

/// What is heard in some stretches of a leg.
#[derive(Debug)]
pub struct Manner {
    /// The figures of the voice, if it is one.
    pub figures: VoiceFigures,
    /// Log odds of its being two voices; none where too little is heard to say.
    pub two: Option<f64>,
}

/// What these stretches of a leg sound like; none where they hold too little.
///
/// # Errors
/// The spool could not be read.
pub fn manner(samples: &Pcm16k, stretches: &[Region]) -> Result<Option<Manner>, AudioError> {
    let speech_ms = stretches.iter().map(Region::duration_ms).sum();
    if speech_ms < LEAST_MS {
        return Ok(None);
    }
    let frames: Frames = frames(samples, stretches)?;
    let pieces = pieces(&frames);
    let points = points(&frames, &pieces);
    // A piece that is shorter than the others says less.
    let weights: Vec<f64> = points.iter().map(|point| point.weight.min(PIECE as f64)).collect();
    let whole: f64 = weights.iter().sum();
    let mean = |n: usize| points.iter().zip(&weights).map(|(point, weight)| weight * point.at[n]).sum::<f64>() / whole;
    let at = (0..summary::DIMENSIONS).map(mean).collect();
    let figures = VoiceFigures { version: FIGURES_VERSION, at, speech_ms };
    let two = groups::two(&points, &begins(&frames, &pieces)).map(|split| split.odds);
    Ok((whole > 0.0).then_some(Manner { figures, two }))
}
