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

    /// Largest magnitude; infinite when a sample is not a finite number.
    #[must_use]
    pub fn peak(&self) -> f32 {
        let finite = self.planes.iter().all(|plane| all_finite(plane));
        if finite { self.planes.iter().map(|plane| peak(plane)).fold(0.0, f32::max) } else { f32::INFINITY }
    }
}

/// Lanes of the loops below: one accumulator is a serial chain, eight are two vectors.
const LANES: usize = 8;

/// Largest magnitude of finite samples.
#[must_use]
pub fn peak(samples: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = samples.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &sample) in lanes.iter_mut().zip(chunk) {
            let magnitude = sample.abs();
            *lane = if magnitude > *lane { magnitude } else { *lane };
        }
    }
    rest.iter().map(|sample| sample.abs()).chain(lanes).fold(0.0, f32::max)
}

fn all_finite(samples: &[f32]) -> bool {
    // Zero times anything finite is zero, times anything else not a number, and that sticks.
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = samples.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &sample) in lanes.iter_mut().zip(chunk) {
            *lane += sample * 0.0;
        }
    }
    rest.iter().map(|sample| sample * 0.0).chain(lanes).all(|product| !product.is_nan())
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
    fn peak_sees_every_lane_and_what_is_no_number() {
        for n in 0..19 {
            let mut samples = vec![0.25f32; 19];
            samples[n] = -0.75;
            let block = |samples: &[f32]| Block { rate_hz: 8000, planes: vec![samples.to_vec()] };
            assert!((peak(&samples) - 0.75).abs() < 1e-9, "{n}");
            assert!((block(&samples).peak() - 0.75).abs() < 1e-9, "{n}");
            for bad in [f32::NAN, f32::INFINITY] {
                samples[n] = bad;
                assert!(block(&samples).peak().is_infinite(), "{n}");
            }
        }
        assert!(peak(&[]) < 1e-9);
    }
}
