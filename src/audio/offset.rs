//! Measures and removes the DC offset of each channel. A cheap sound card or a wrong conversion causes it. A gain would
//! raise it with the sound into the limiter. The first pass measures it. Where it matters, the recording is decoded
//! again and the offset is removed. All other recordings stay bit-exact.

use super::block::Block;

/// Limits after the gain, full scale 1: a mean, or a spread of the means, above its limit is removed.
const WRITTEN: f64 = 0.003;
const WANDERING: f64 = 0.01;
/// An offset below this comes from the coding and stays. Silence in A-law is 0.00024. 8-bit samples are rounded to
/// within 0.004.
const CODED: f64 = 5e-4;
/// Window of the means, seconds. In a shorter window a low voice would show.
const WINDOW_SECONDS: f64 = 1.0;
/// Start of a recording from which the filter takes its first offset, seconds.
const START_SECONDS: f64 = 0.2;
/// Corner of the high-pass, Hz. Anything slower is not sound.
const SLOWEST_HZ: f64 = 5.0;

#[derive(Debug, Default)]
pub(super) struct OffsetMeter {
    channels: Vec<Channel>,
}

#[derive(Debug, Default)]
struct Channel {
    sum: f64,
    samples: u64,
    /// Mean of the first [`START_SECONDS`].
    start: Option<f64>,
    /// Sum and number of the samples in the current window.
    window: (f64, u64),
    /// Sum and sum of squares of the means of complete windows.
    means: f64,
    squares: f64,
    windows: u64,
}

impl Channel {
    fn push(&mut self, rate_hz: u32, samples: &[f32]) {
        let level = fearless_simd::Level::new();
        let (sum, loud) = fearless_simd::dispatch!(level, _simd => sum(samples));
        // Digital silence has no offset. It fills the gaps and pauses of recordings that have one.
        if !loud {
            return;
        }
        self.sum += f64::from(sum);
        self.samples += samples.len() as u64;
        let (window, count) = (&mut self.window.0, &mut self.window.1);
        *window += f64::from(sum);
        *count += samples.len() as u64;
        let (mean, seconds) = (*window / *count as f64, *count as f64 / f64::from(rate_hz.max(1)));
        if self.start.is_none() && seconds >= START_SECONDS {
            self.start = Some(mean);
        }
        if seconds >= WINDOW_SECONDS {
            self.means += mean;
            self.squares += mean * mean;
            self.windows += 1;
            self.window = (0.0, 0);
        }
    }

    fn mean(&self) -> f64 {
        self.sum / self.samples.max(1) as f64
    }

    /// Standard deviation of the means of the windows.
    fn spread(&self) -> f64 {
        let count = self.windows.max(1) as f64;
        (self.squares / count - (self.means / count).powi(2)).max(0.0).sqrt()
    }

    /// How to treat this channel when it is raised by the factor `gain`.
    fn removal(&self, gain: f64) -> Removal {
        let matters = |offset: f64, limit: f64| offset > CODED && offset * gain > limit;
        let (mean, spread) = (self.mean(), self.spread());
        if matters(spread, WANDERING) {
            Removal::Follow { level: self.start.unwrap_or(mean), rest: 0.0 }
        } else if matters(mean.abs(), WRITTEN) {
            Removal::Constant(mean as f32)
        } else {
            Removal::Nothing
        }
    }
}

/// Sum of the samples, and whether any sample is not zero.
// Compiled for each instruction set, because it is inlined under `dispatch!`.
#[allow(clippy::inline_always)]
#[inline(always)]
fn sum(samples: &[f32]) -> (f32, bool) {
    const LANES: usize = 16;
    let (groups, rest) = samples.as_chunks::<LANES>();
    let (mut sums, mut bits) = ([0.0f32; LANES], [0u32; LANES]);
    for group in groups {
        for (sum, sample) in sums.iter_mut().zip(group) {
            *sum += sample;
        }
        for (bits, sample) in bits.iter_mut().zip(group) {
            *bits |= sample.to_bits() << 1;
        }
    }
    let loud = bits.iter().any(|bits| *bits != 0) || rest.iter().any(|sample| sample.to_bits() << 1 != 0);
    (sums.iter().chain(rest).sum(), loud)
}

impl OffsetMeter {
    pub(super) fn push(&mut self, block: &Block) {
        if self.channels.len() < block.planes.len() {
            self.channels.resize_with(block.planes.len(), Channel::default);
        }
        for (channel, plane) in self.channels.iter_mut().zip(&block.planes) {
            channel.push(block.rate_hz, plane);
        }
    }

    /// What removes the offsets of a recording that is then raised by a factor of amplitude, `gain_of` each channel.
    /// `None` where no channel has an offset that matters.
    #[must_use]
    pub(super) fn remover(&self, gain_of: impl Fn(usize) -> f64) -> Option<Remover> {
        let channels = self.channels.iter().enumerate().map(|(index, channel)| channel.removal(gain_of(index)));
        let channels: Vec<Removal> = channels.collect();
        channels.iter().any(|removal| *removal != Removal::Nothing).then_some(Remover { channels })
    }
}

/// Removes offsets.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Remover {
    channels: Vec<Removal>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Removal {
    Nothing,
    Constant(f32),
    /// Two first-order high-passes in series, which also remove a steady rise. The fields are the states of both.
    Follow {
        level: f64,
        rest: f64,
    },
}

impl Remover {
    pub(super) fn apply(&mut self, block: &mut Block) {
        for (removal, plane) in self.channels.iter_mut().zip(&mut block.planes) {
            if *removal == Removal::Nothing || plane.iter().all(|sample| sample.to_bits() << 1 == 0) {
                continue;
            }
            match removal {
                Removal::Nothing => {}
                Removal::Constant(offset) => plane.iter_mut().for_each(|sample| *sample -= *offset),
                Removal::Follow { level, rest } => {
                    let smoothing = 1.0 - (-std::f64::consts::TAU * SLOWEST_HZ / f64::from(block.rate_hz.max(1))).exp();
                    for sample in plane {
                        let above = f64::from(*sample) - *level;
                        *level += smoothing * above;
                        let moved = above - *rest;
                        *rest += smoothing * moved;
                        *sample = moved as f32;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 8_000;

    /// A tone of 200 Hz plus a slow component.
    fn wave(seconds: f64, slow: impl Fn(f64) -> f64) -> Vec<f32> {
        (0..(seconds * f64::from(RATE)) as usize)
            .map(|n| {
                let at = n as f64 / f64::from(RATE);
                (0.1 * (std::f64::consts::TAU * 200.0 * at).sin() + slow(at)) as f32
            })
            .collect()
    }

    fn blocks(planes: &[Vec<f32>]) -> Vec<Block> {
        let starts = (0..planes[0].len()).step_by(400);
        let cut = |start: usize| planes.iter().map(|p| p[start..(start + 400).min(p.len())].to_vec()).collect();
        starts.map(|start| Block { rate_hz: RATE, planes: cut(start), ..Block::default() }).collect()
    }

    /// The planes after removal. `None` when there was nothing to remove.
    fn removed(planes: &[Vec<f32>], gain: f64) -> Option<Vec<Vec<f32>>> {
        let mut meter = OffsetMeter::default();
        let mut blocks = blocks(planes);
        for block in &blocks {
            meter.push(block);
        }
        let mut remover = meter.remover(|_| gain)?;
        let mut left = vec![Vec::new(); planes.len()];
        for block in &mut blocks {
            remover.apply(block);
            left.iter_mut().zip(&block.planes).for_each(|(all, plane)| all.extend_from_slice(plane));
        }
        Some(left)
    }

    fn mean(samples: &[f32]) -> f64 {
        samples.iter().map(|sample| f64::from(*sample)).sum::<f64>() / samples.len() as f64
    }

    #[test]
    fn a_constant_offset_is_taken_out_of_the_channel_that_has_it() {
        let (shifted, plain) = (wave(4.0, |_| -0.05), wave(4.0, |_| 0.0));
        let left = removed(&[shifted, plain.clone()], 1.0).unwrap();
        assert!(mean(&left[0]).abs() < 1e-5, "{}", mean(&left[0]));
        assert_eq!(left[1], plain, "not a bit is changed");
        assert!(left[0].iter().zip(&plain).all(|(left, plain)| (left - plain).abs() < 1e-5));
    }

    #[test]
    fn a_wandering_offset_is_followed() {
        for slow in
            [|at: f64| 0.05 * (0.3 * at).sin(), |at: f64| 0.01 * at, |at: f64| if at < 5.0 { 0.0 } else { 0.08 }]
        {
            let left = removed(&[wave(10.0, slow)], 1.0).unwrap();
            assert!(mean(&left[0]).abs() < 2e-3, "{}", mean(&left[0]));
            for second in [0.5, 2.5, 4.5, 6.5, 9.0] {
                let from = (second * f64::from(RATE)) as usize;
                let local = mean(&left[0][from..from + 4_000]);
                assert!(local.abs() < 4e-3, "{second}: {local}");
            }
        }
    }

    #[test]
    fn what_does_not_matter_is_left_alone() {
        assert_eq!(removed(&[wave(3.0, |_| 0.0)], 100.0), None);
        assert_eq!(removed(&[wave(3.0, |_| 0.000_244)], 100.0), None, "silence in A-law");
        assert_eq!(removed(&[wave(3.0, |_| 0.002)], 1.0), None);
        assert!(removed(&[wave(3.0, |_| 0.002)], 10.0).is_some(), "a gain makes it matter");
        // Breath and wind at a close microphone: 3 Hz.
        assert_eq!(removed(&[wave(6.0, |at| 0.02 * (3.0 * std::f64::consts::TAU * at).sin())], 1.0), None);
    }

    #[test]
    fn digital_silence_stays_silent() {
        let mut plane = wave(4.0, |_| 0.1);
        plane[8_000..16_000].fill(0.0);
        let left = removed(&[plane], 1.0).unwrap();
        assert!(left[0][8_000..16_000].iter().all(|sample| sample.to_bits() == 0));
        assert!(mean(&left[0][..8_000]).abs() < 1e-4, "holes have no part in the mean");
    }
}
