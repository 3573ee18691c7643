//! Gaussian mixture with diagonal covariances: the distribution of one speaker's frames.

use super::frame::CEPSTRA;
use super::frame::VoiceFrame;

const PARTS: usize = 8;
const ROUNDS: usize = 8;
/// Least frames per component.
const FRAMES_PER_PART: usize = 12;
/// Least variance of a component, as a share of the total variance.
const NARROWEST: f32 = 0.1;

#[derive(Debug, Clone)]
struct Component {
    /// Logarithm of its weight and normalisation.
    offset: f32,
    mean: [f32; CEPSTRA],
    /// Half of the inverse variance.
    precision: [f32; CEPSTRA],
}

/// The distribution of one speaker's frames.
#[derive(Debug)]
pub(super) struct Mixture {
    parts: Vec<Component>,
}

impl Mixture {
    /// Trains by expectation maximisation, starting from evenly spaced frames. `None` if there are too few frames.
    pub(super) fn fit(frames: &[&VoiceFrame]) -> Option<Self> {
        let parts = (frames.len() / FRAMES_PER_PART).min(PARTS);
        if parts == 0 {
            return None;
        }
        let whole = Component::of(frames.iter().map(|frame| (*frame, 1.0)), &[0.0; CEPSTRA], 1.0)?;
        let floor = whole.precision.map(|precision| NARROWEST * 0.5 / precision);
        let seeds = (0..parts).map(|n| frames[(2 * n + 1) * frames.len() / (2 * parts)]);
        let parts = seeds.map(|seed| Component { mean: seed.cepstra, ..whole.clone() }).collect();
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
                Component::of(own, &floor, frames.len() as f32)
            };
            let next: Vec<Component> = (0..count).filter_map(part).collect();
            if next.len() < count {
                break;
            }
            mixture.parts = next;
        }
        Some(mixture)
    }

    /// Log likelihood of a frame (natural logarithm).
    pub(super) fn likelihood(&self, frame: &VoiceFrame) -> f32 {
        let each: Vec<f32> = self.parts.iter().map(|part| part.likelihood(frame)).collect();
        let most = each.iter().copied().fold(f32::MIN, f32::max);
        most + each.iter().map(|value| (value - most).exp()).sum::<f32>().ln()
    }
}

impl Component {
    /// `None` if nearly no frame belongs to the component.
    fn of<'a>(frames: impl Iterator<Item = (&'a VoiceFrame, f32)>, floor: &[f32; CEPSTRA], all: f32) -> Option<Self> {
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

    fn likelihood(&self, frame: &VoiceFrame) -> f32 {
        let mut sum = self.offset;
        for n in 0..CEPSTRA {
            let away = frame.cepstra[n] - self.mean[n];
            sum -= away * away * self.precision[n];
        }
        sum
    }
}
