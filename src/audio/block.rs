//! The unit of the audio pipeline: a short block of decoded samples, one plane per channel.

use std::ops::Range;

use super::layout::Layout;

/// Limits on the sample rate: 8 kHz telephone to 192 kHz studio, with room below.
pub const RATES_HZ: std::ops::RangeInclusive<u32> = 4_000..=192_000;
/// Sample rate of all output.
pub const OUTPUT_RATE_HZ: u32 = 48_000;

/// A block of samples, full scale 1.0. All planes have the same length.
#[derive(Debug, Clone, Default)]
pub struct Block {
    pub rate_hz: u32,
    pub planes: Vec<Vec<f32>>,
    /// Speaker positions of the planes.
    pub layout: Layout,
}

impl Block {
    /// Samples per channel.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.planes.first().map_or(0, Vec::len)
    }

    /// Makes this block `frames` samples of silence. The channels get no position.
    pub fn set_silence(&mut self, rate_hz: u32, channels: u16, frames: usize) {
        self.rate_hz = rate_hz;
        self.layout = Layout::default();
        self.planes.resize_with(usize::from(channels.max(1)), Vec::new);
        for plane in &mut self.planes {
            plane.clear();
            plane.resize(frames, 0.0);
        }
    }

    /// Appends the downmix of the planes to `out`. The speaker positions give the shares.
    pub fn mix_onto(&self, out: &mut Vec<f32>) {
        let start = out.len();
        out.resize(start + self.frames(), 0.0);
        for (plane, share) in self.planes.iter().zip(self.layout.shares(self.planes.len())) {
            for (sum, sample) in out[start..].iter_mut().zip(plane) {
                *sum += share * sample;
            }
        }
    }

    /// Removes the LFE channels, which carry no voice.
    pub fn drop_low_frequency(&mut self) {
        self.layout.drop_low_frequency(&mut self.planes);
    }

    /// Whether all samples are numbers with a magnitude of at most `most`.
    #[must_use]
    pub fn within(&self, most: f32) -> bool {
        self.part_within(0..self.frames(), most)
    }

    /// As [`Self::within`], for a part of the block.
    #[must_use]
    pub fn part_within(&self, part: Range<usize>, most: f32) -> bool {
        let level = fearless_simd::Level::new();
        let part = |plane: &Vec<f32>| within(plane.get(part.clone()).unwrap_or_default(), most);
        fearless_simd::dispatch!(level, _simd => self.planes.iter().all(&part))
    }
}

/// Lanes of the loops below. One accumulator is a serial chain, eight are two vectors.
const LANES: usize = 8;

/// Largest magnitude. NaN samples are ignored.
// Compiled for each instruction set, because it is inlined under `dispatch!`.
#[allow(clippy::inline_always)]
#[inline(always)]
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

#[allow(clippy::inline_always)]
#[inline(always)]
fn within(samples: &[f32], most: f32) -> bool {
    let (groups, rest) = samples.as_chunks::<LANES>();
    let mut beyond = [false; LANES];
    for group in groups {
        for (beyond, sample) in beyond.iter_mut().zip(group) {
            let magnitude = sample.abs();
            *beyond |= magnitude > most || magnitude.is_nan();
        }
    }
    !beyond.contains(&true) && rest.iter().all(|sample| sample.abs() <= most)
}

/// Samples in a step, the unit of the levels and of the limiter (a third of a millisecond at 48 kHz).
pub const STEP: usize = 16;

/// Levels of one step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepLevels {
    /// Largest magnitude.
    pub peak: f32,
    /// Sum of squares.
    pub energy: f32,
}

/// Appends the levels of each complete step of `samples`.
pub fn measure_steps(samples: &[f32], steps: &mut Vec<StepLevels>) {
    let level = fearless_simd::Level::new();
    fearless_simd::dispatch!(level, _simd => steps.extend(samples.as_chunks::<STEP>().0.iter().map(StepLevels::of)));
}

impl StepLevels {
    // Compiled for each instruction set only where it is inlined under `dispatch!`.
    #[allow(clippy::inline_always)]
    #[inline(always)]
    fn of(samples: &[f32; STEP]) -> Self {
        let (mut peaks, mut energies) = ([0.0f32; LANES], [0.0f32; LANES]);
        for half in samples.as_chunks::<LANES>().0 {
            for ((peak, energy), sample) in peaks.iter_mut().zip(&mut energies).zip(half) {
                let magnitude = sample.abs();
                *peak = if magnitude > *peak { magnitude } else { *peak };
                *energy += sample * sample;
            }
        }
        let larger = |a: f32, b: f32| if a > b { a } else { b };
        let peak = |n: usize| larger(peaks[n], peaks[n + LANES / 2]);
        let energy = |n: usize| energies[n] + energies[n + LANES / 2];
        Self {
            peak: larger(larger(peak(0), peak(2)), larger(peak(1), peak(3))),
            energy: (energy(0) + energy(2)) + (energy(1) + energy(3)),
        }
    }
}

/// A meter that gets the recording on the first pass, before any gain.
pub trait BlockSink {
    /// The recording as decoded and repaired, at its own rate and with its own channels.
    fn recorded(&mut self, block: &Block);
    /// The same audio, mixed to one channel at 48 kHz.
    fn mono(&mut self, samples: &[f32]);
    /// Levels of the mix, step by step from its start, for meters that need nothing else. Silence completes the last
    /// step.
    fn steps(&mut self, _steps: &[StepLevels]) {}
    /// The encoder sent nothing here, from and to in seconds of the recording's time. The call comes before the silence
    /// itself.
    fn pause(&mut self, _seconds: Range<f64>) {}
    /// The recording has a DC offset and is decoded again without it. The meter discards everything except what the
    /// offset itself affects, for example the mean.
    fn restart(&mut self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_sees_every_lane_and_what_is_no_number() {
        for n in 0..19 {
            let mut samples = vec![0.25f32; 19];
            samples[n] = -0.75;
            let block = |samples: &[f32]| Block { rate_hz: 8000, planes: vec![samples.to_vec()], ..Block::default() };
            assert!((peak(&samples) - 0.75).abs() < 1e-9, "{n}");
            assert!(block(&samples).within(0.75) && !block(&samples).within(0.74), "{n}");
            for bad in [f32::NAN, f32::INFINITY] {
                samples[n] = bad;
                assert!(!block(&samples).within(4.0), "{n}");
            }
        }
        assert!(peak(&[]) < 1e-9);
    }

    #[test]
    fn levels_of_steps() {
        let mut samples = [0.5f32; 3 * STEP];
        samples[STEP + 3] = -0.75;
        let mut steps = Vec::new();
        measure_steps(&samples, &mut steps);
        assert_eq!(steps.iter().map(|step| step.peak).collect::<Vec<_>>(), [0.5, 0.75, 0.5]);
        assert!((steps[0].energy - 4.0).abs() < 1e-6 && (steps[1].energy - 4.3125).abs() < 1e-6);
    }
}
