//! A mixture of Gaussians with diagonal covariances: what one voice's frames look like.

use super::summary::CEPSTRA;
use super::summary::Sound;

const PARTS: usize = 8;
const ROUNDS: usize = 8;
/// Frames that make a part worth having.
const FRAMES_PER_PART: usize = 12;
/// No part may be narrower than this share of the whole spread.
const NARROWEST: f32 = 0.1;

#[derive(Debug, Clone)]
struct Part {
    /// Logarithm of its weight and of its normalisation.
    offset: f32,
    mean: [f32; CEPSTRA],
    /// Half of the inverse variance.
    precision: [f32; CEPSTRA],
}

/// What one voice's frames look like.
#[derive(Debug)]
pub struct Mixture {
    parts: Vec<Part>,
}

impl Mixture {
    /// By expectation and maximisation from evenly spread frames; `None` where there are too few.
    pub fn learn(frames: &[&Sound]) -> Option<Self> {
        let parts = (frames.len() / FRAMES_PER_PART).min(PARTS);
        if parts == 0 {
            return None;
        }
        let whole = Part::of(frames.iter().map(|frame| (*frame, 1.0)), &[0.0; CEPSTRA], 1.0)?;
        let floor = whole.precision.map(|precision| NARROWEST * 0.5 / precision);
        let seeds = (0..parts).map(|n| frames[(2 * n + 1) * frames.len() / (2 * parts)]);
        let parts = seeds.map(|seed| Part { mean: seed.cepstra, ..whole.clone() }).collect();
        let mut mixture = Self { parts };
        let mut shares = vec![0.0_f32; frames.len() * mixture.parts.len()];
        for _ in 0..ROUNDS {
            let count = mixture.parts.len();
            for (frame, shares) in frames.iter().zip(shares.chunks_exact_mut(count)) {
                for (share, part) in shares.iter_mut().zip(&mixture.parts) {
                    *share = part.likelihood(frame);
                }
                let most = shares.iter().copied().fold(f32::MIN, f32::max);
                let sum: f32 = shares.iter().map(|share| (share - most).exp()).sum();
                for share in shares {
                    *share = (*share - most).exp() / sum;
                }
            }
            let part = |n: usize| {
                let own = frames.iter().zip(shares.chunks_exact(count)).map(|(frame, shares)| (*frame, shares[n]));
                Part::of(own, &floor, frames.len() as f32)
            };
            let next: Vec<Part> = (0..count).filter_map(part).collect();
            if next.len() < count {
                break;
            }
            mixture.parts = next;
        }
        Some(mixture)
    }

    /// Natural logarithm of how likely a frame is.
    pub fn likelihood(&self, frame: &Sound) -> f32 {
        let each: Vec<f32> = self.parts.iter().map(|part| part.likelihood(frame)).collect();
        let most = each.iter().copied().fold(f32::MIN, f32::max);
        most + each.iter().map(|value| (value - most).exp()).sum::<f32>().ln()
    }
}

impl Part {
    /// `None` where nearly nothing belongs to it.
    fn of<'a>(frames: impl Iterator<Item = (&'a Sound, f32)>, floor: &[f32; CEPSTRA], all: f32) -> Option<Self> {
        let (mut weight, mut sum, mut squares) = (0.0_f32, [0.0_f32; CEPSTRA], [0.0_f32; CEPSTRA]);
        for (frame, share) in frames {
            weight += share;
            for n in 0..CEPSTRA {
                sum[n] += share * frame.cepstra[n];
                squares[n] += share * frame.cepstra[n] * frame.cepstra[n];
            }
        }
        if weight < 1.0 {
            return None;
        }
        let mean = sum.map(|sum| sum / weight);
        let mut precision = [0.0; CEPSTRA];
        let mut offset = (weight / all).ln();
        for n in 0..CEPSTRA {
            let variance = (squares[n] / weight - mean[n] * mean[n]).max(floor[n]).max(1e-3);
            precision[n] = 0.5 / variance;
            offset -= 0.5 * variance.ln();
        }
        Some(Self { offset, mean, precision })
    }

    fn likelihood(&self, frame: &Sound) -> f32 {
        let mut sum = self.offset;
        for n in 0..CEPSTRA {
            let away = frame.cepstra[n] - self.mean[n];
            sum -= away * away * self.precision[n];
        }
        sum
    }
}
