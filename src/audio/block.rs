//! The unit that flows through the pipeline: a short stretch of decoded samples, one plane per channel.

/// More channels than this are refused: a call has two legs, a conference recording a few more.
pub const MAX_CHANNELS: usize = 8;
/// Sample rates outside of this are refused (8 kHz telephone to 192 kHz studio, with room below).
pub const RATES_HZ: std::ops::RangeInclusive<u32> = 4_000..=192_000;
/// Rate of everything written.
pub const OUTPUT_RATE_HZ: u32 = 48_000;

/// A stretch of samples, full scale 1.0. All planes are equally long.
#[derive(Debug, Clone, Default)]
pub struct Block {
    pub rate_hz: u32,
    pub planes: Vec<Vec<f32>>,
}

impl Block {
    /// Samples per channel.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.planes.first().map_or(0, Vec::len)
    }

    /// Makes this block `frames` of silence in the given form.
    pub fn set_silence(&mut self, rate_hz: u32, channels: u16, frames: usize) {
        self.rate_hz = rate_hz;
        self.planes.resize_with(usize::from(channels.max(1)), Vec::new);
        for plane in &mut self.planes {
            plane.clear();
            plane.resize(frames, 0.0);
        }
    }

    /// Largest magnitude; infinite when a sample is not a number.
    #[must_use]
    pub fn peak(&self) -> f32 {
        self.planes.iter().map(|plane| peak(plane)).fold(0.0, f32::max)
    }
}

/// Largest magnitude of a slice; infinite when a sample is not a number.
#[must_use]
pub fn peak(samples: &[f32]) -> f32 {
    // Eight lanes so that the compiler can use vector instructions: `max` over one accumulator is a serial chain.
    let mut lanes = [0.0f32; 8];
    let mut chunks = samples.chunks_exact(8);
    let mut ordered = true;
    for chunk in &mut chunks {
        for (lane, &sample) in lanes.iter_mut().zip(chunk) {
            let magnitude = sample.abs();
            ordered &= magnitude <= f32::MAX;
            *lane = if magnitude > *lane { magnitude } else { *lane };
        }
    }
    for &sample in chunks.remainder() {
        ordered &= sample.abs() <= f32::MAX;
        lanes[0] = lanes[0].max(sample.abs());
    }
    if ordered { lanes.iter().copied().fold(0.0, f32::max) } else { f32::INFINITY }
}

/// A meter that listens on the first pass, before any gain.
pub trait BlockSink {
    /// The recording as decoded and repaired: its own rate and channels.
    fn recorded(&mut self, block: &Block);
    /// The same, mixed to one channel at 48 kHz.
    fn mono(&mut self, samples: &[f32]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_sees_every_lane_and_refuses_nan() {
        for n in 0..19 {
            let mut samples = vec![0.25f32; 19];
            samples[n] = -0.75;
            assert!((peak(&samples) - 0.75).abs() < 1e-9, "{n}");
            samples[n] = f32::NAN;
            assert!(peak(&samples).is_infinite(), "{n}");
        }
        assert!(peak(&[]) < 1e-9);
    }
}
