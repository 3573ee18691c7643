//! True peak: the peak of the continuous signal, estimated at four times the rate (ITU-R BS.1770-4 annex 2).

use fearless_simd::{SimdBase, SimdFloat, f32x16};

use super::block::{STEP, peak};

/// Taps of each of the four phases.
const TAPS: usize = 16;
/// Samples on each side of the point between two samples.
pub(super) const REACH: usize = TAPS / 2;
/// Samples per check of the bound.
const BLOCK: usize = 64;
/// A bound this close above the sample peak replaces the true peak (0.04 dB).
const CLOSE: f32 = 1.005;

/// The three fractional phases of a windowed sinc. Phase 0 is the sample itself.
///
/// Each phase is a sum of three parts: the straight line between the two samples around its point, a part that depends
/// on the curvature alone (the second difference), and a small part that depends on the slope. The samples and the
/// curvature around a point therefore bound its peak, and a slow signal needs no interpolation.
#[derive(Debug, Clone)]
pub(super) struct Phases {
    taps: [[f32; TAPS]; 3],
    /// The largest value of any phase for samples of magnitude 1.
    bound: f32,
    /// The most that a curvature of 1, and a magnitude of 1 through the slope, add to the straight line.
    by_curve: f32,
    by_slope: f32,
}

impl Default for Phases {
    fn default() -> Self {
        Self::new()
    }
}

impl Phases {
    pub(super) fn new() -> Self {
        let mut taps = [[0.0f32; TAPS]; 3];
        for (index, phase) in taps.iter_mut().enumerate() {
            let offset = (index + 1) as f64 / 4.0;
            let mut values = [0.0f64; TAPS];
            for (tap, value) in values.iter_mut().enumerate() {
                // Distance of this sample from the point `offset` after sample REACH - 1.
                let x = tap as f64 - (REACH as f64 - 1.0) - offset;
                let sinc = (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x);
                *value = sinc * kaiser(x / REACH as f64);
            }
            let sum: f64 = values.iter().sum();
            for (tap, value) in phase.iter_mut().zip(values) {
                *tap = (value / sum) as f32;
            }
        }
        let bound = taps.iter().map(|phase| phase.iter().map(|tap| tap.abs()).sum::<f32>()).fold(1.0, f32::max);
        let (mut by_curve, mut by_slope) = (0.0f64, 0.0f64);
        for (index, phase) in taps.iter().enumerate() {
            let offset = (index + 1) as f64 / 4.0;
            let mut rest = phase.map(f64::from);
            rest[REACH - 1] -= 1.0 - offset;
            rest[REACH] -= offset;
            let slope: f64 = rest.iter().enumerate().map(|(tap, rest)| tap as f64 * rest).sum();
            rest[REACH - 1] += slope;
            rest[REACH] -= slope;
            // The remainder as a filter on the second difference: its double cumulative sum.
            let (mut once, mut twice, mut reach) = (0.0, 0.0, 0.0);
            for value in rest {
                once += value;
                twice += once;
                reach += f64::abs(twice);
            }
            by_curve = by_curve.max(reach);
            by_slope = by_slope.max(2.0 * slope.abs());
        }
        // Rounded up, because the taps are in single precision.
        Self { taps, bound: bound * 1.0001, by_curve: by_curve as f32 * 1.001, by_slope: by_slope as f32 + 1e-5 }
    }

    /// Whether samples up to this magnitude can make a peak above `floor`.
    #[must_use]
    pub(super) fn can_pass(&self, magnitude: f32, floor: f32) -> bool {
        magnitude * self.bound > floor
    }

    /// Upper bound of the peak between samples of at most `magnitude`. `region` holds the samples around it.
    fn most(&self, magnitude: f32, region: &[f32]) -> f32 {
        magnitude * (1.0 + self.by_slope) + self.by_curve * curvature(region)
    }

    /// The true peak of a step, from its samples and the points after each of them. `region` is the step with `REACH -
    /// 1` samples before it and `REACH` after it. Returns the sample peak `here` where no peak can exceed `floor`.
    #[must_use]
    pub(super) fn step_peak(&self, region: &[f32; STEP + TAPS - 1], here: f32, floor: f32) -> f32 {
        let most = self.most(here.max(region[REACH - 1 + STEP].abs()), region);
        if most <= floor {
            return here;
        }
        if most <= here * CLOSE {
            return most;
        }
        here.max(self.between_step(region))
    }

    /// Peak of the points between the samples of a step, and between its last sample and the next.
    fn between_step(&self, region: &[f32; STEP + TAPS - 1]) -> f32 {
        let level = fearless_simd::Level::new();
        fearless_simd::dispatch!(level, simd => {
            let mut peaks = f32x16::splat(simd, 0.0);
            for phase in &self.taps {
                let mut points = f32x16::splat(simd, 0.0);
                for (n, tap) in phase.iter().enumerate() {
                    points = f32x16::from_slice(simd, &region[n..n + STEP]).mul_add(f32x16::splat(simd, *tap), points);
                }
                peaks = peaks.max(points.abs());
            }
            peaks.reduce_max()
        })
    }

    /// Peak of the three points after sample `REACH - 1` of the window.
    #[inline]
    fn between(&self, window: &[f32; TAPS]) -> f32 {
        let mut peak = 0.0f32;
        for phase in &self.taps {
            let mut lanes = [0.0f32; 8];
            for (half, taps) in window.chunks_exact(8).zip(phase.chunks_exact(8)) {
                for (lane, (sample, tap)) in lanes.iter_mut().zip(half.iter().zip(taps)) {
                    *lane += sample * tap;
                }
            }
            peak = peak.max(lanes.iter().sum::<f32>().abs());
        }
        peak
    }
}

/// Kaiser window with a beta of 5: flat to 0.45 of the rate within the tolerance of EBU Tech 3341.
fn kaiser(x: f64) -> f64 {
    const BETA: f64 = 5.0;
    // Modified Bessel function of order 0, by its power series.
    let bessel = |x: f64| {
        let (mut term, mut sum) = (1.0, 1.0);
        for k in 1..24 {
            term *= (x / (2.0 * f64::from(k))).powi(2);
            sum += term;
        }
        sum
    };
    if x.abs() >= 1.0 { 0.0 } else { bessel(BETA * (1.0 - x * x).sqrt()) / bessel(BETA) }
}

/// Largest magnitude of the second difference.
fn curvature(samples: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let mut most = |lane: usize, n: usize, window: &[f32]| {
        let bend = (window[n] - 2.0 * window[n + 1] + window[n + 2]).abs();
        lanes[lane] = if bend > lanes[lane] { bend } else { lanes[lane] };
    };
    let mut at = 0;
    while let Some(window) = samples.get(at..at + 10) {
        for lane in 0..8 {
            most(lane, lane, window);
        }
        at += 8;
    }
    for (lane, window) in samples[at..].windows(3).enumerate() {
        most(lane, 0, window);
    }
    lanes.into_iter().fold(0.0, f32::max)
}

/// Measures the sample peak and the true peak of one channel.
#[derive(Debug, Clone)]
pub(super) struct PeakMeter {
    phases: Phases,
    /// The last `TAPS - 1` samples, then the current block.
    window: Vec<f32>,
    sample_peak: f32,
    true_peak: f32,
}

impl Default for PeakMeter {
    fn default() -> Self {
        Self { phases: Phases::new(), window: vec![0.0; TAPS - 1], sample_peak: 0.0, true_peak: 0.0 }
    }
}

impl PeakMeter {
    pub(super) fn push(&mut self, samples: &[f32]) {
        self.push_of_peak(samples, peak(samples));
    }

    /// As [`Self::push`], for samples with a known largest magnitude.
    pub(super) fn push_of_peak(&mut self, samples: &[f32], largest: f32) {
        self.sample_peak = self.sample_peak.max(largest);
        let start = self.window.len();
        let mut before = peak(&self.window);
        // No phase can raise the peak here, so there is nothing to interpolate. This is nearly always so.
        if !self.phases.can_pass(before.max(largest), self.true_peak())
            && let Some(last) = samples.last_chunk::<{ TAPS - 1 }>()
        {
            self.window.copy_from_slice(last);
            return;
        }
        self.window.extend_from_slice(samples);
        for (index, block) in samples.chunks(BLOCK).enumerate() {
            let here = peak(block);
            if self.phases.can_pass(before.max(here), self.true_peak()) {
                let first = start + index * BLOCK - (TAPS - 1);
                let region = &self.window[first..first + block.len() + TAPS - 1];
                if self.phases.most(before.max(here), region) > self.true_peak() {
                    let mut rest = region;
                    while let Some(step) = rest.first_chunk() {
                        self.true_peak = self.true_peak.max(self.phases.between_step(step));
                        rest = &rest[STEP..];
                    }
                    for window in rest.windows(TAPS).filter_map(<[f32]>::first_chunk) {
                        self.true_peak = self.true_peak.max(self.phases.between(window));
                    }
                }
            }
            before = if block.len() < TAPS { before.max(here) } else { here };
        }
        let keep = self.window.len() - (TAPS - 1);
        self.window.drain(..keep);
    }

    /// Adds silence at the end, so that the filter covers the last samples.
    pub(super) fn finish(&mut self) {
        self.push(&[0.0; TAPS]);
    }

    /// Never below the sample peak.
    #[must_use]
    pub(super) const fn true_peak(&self) -> f32 {
        self.true_peak.max(self.sample_peak)
    }

    #[must_use]
    pub(super) const fn sample_peak(&self) -> f32 {
        self.sample_peak
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db(amplitude: f32) -> f64 {
        20.0 * f64::from(amplitude).log10()
    }

    fn measure(wave: &[f32]) -> PeakMeter {
        let mut meter = PeakMeter::default();
        for chunk in wave.chunks(997) {
            meter.push(chunk);
        }
        meter.finish();
        meter
    }

    fn sine(cycles_per_sample: f64, phase_degrees: f64, amplitude: f64) -> Vec<f32> {
        (0..24_000)
            .map(|n| {
                let ramp = (f64::from(n) / 1000.0).min(f64::from(24_000 - n) / 1000.0).min(1.0);
                let angle = std::f64::consts::TAU * cycles_per_sample * f64::from(n) + phase_degrees.to_radians();
                (ramp * amplitude * angle.sin()) as f32
            })
            .collect()
    }

    /// EBU Tech 3341, table 1, cases 15 to 19: +0.2 / -0.4 dB.
    #[test]
    fn ebu_tech_3341_true_peak() {
        let cases =
            [(0.25, 0.0, 0.5), (0.25, 45.0, 0.5), (1.0 / 6.0, 60.0, 0.5), (0.125, 67.5, 0.5), (0.25, 45.0, 1.41)];
        for (frequency, phase, amplitude) in cases {
            let measured = db(measure(&sine(frequency, phase, amplitude)).true_peak());
            let expected = 20.0 * amplitude.log10();
            assert!(measured - expected < 0.2 && measured - expected > -0.4, "{frequency} {phase}: {measured}");
        }
    }

    #[test]
    fn equal_to_the_reference_crate_on_noise() {
        let mut state = 7u32;
        let mut smooth = 0.0f32;
        let wave: Vec<f32> = (0..48_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                smooth = 0.6 * smooth + 0.4 * ((state >> 8) as f32 / 8_388_608.0 - 1.0);
                smooth * 0.7
            })
            .collect();
        let mut reference = ebur128::EbuR128::new(1, 48_000, ebur128::Mode::TRUE_PEAK).unwrap();
        reference.add_frames_f32(&wave).unwrap();
        let theirs = 20.0 * reference.true_peak(0).unwrap().log10();
        let ours = db(measure(&wave).true_peak());
        assert!((ours - theirs).abs() < 0.2, "{ours} {theirs}");
    }

    #[test]
    fn the_skip_bound_changes_nothing() {
        let wave = sine(0.231, 10.0, 0.8);
        let whole = measure(&wave).true_peak();
        let phases = Phases::new();
        let mut padded = vec![0.0; TAPS];
        padded.extend(&wave);
        padded.extend([0.0; TAPS]);
        let plain = padded.windows(TAPS).map(|w| phases.between(w.first_chunk().unwrap())).fold(0.0, f32::max);
        assert!((whole - plain.max(peak(&wave))).abs() < 1e-7);
    }

    /// Peaks of all steps except the first and the last, with the bound and by plain interpolation.
    fn step_peaks(wave: &[f32], floor: f32) -> Vec<(f32, f32)> {
        let phases = Phases::new();
        let last = wave.len() / STEP - 1;
        let region = |step: usize| wave[step * STEP + 1 - REACH..].first_chunk::<{ STEP + TAPS - 1 }>().unwrap();
        (1..last)
            .map(|step| {
                let here = peak(&wave[step * STEP..(step + 1) * STEP]);
                let windows = region(step).windows(TAPS);
                let plain = windows.map(|w| phases.between(w.first_chunk().unwrap())).fold(here, f32::max);
                (phases.step_peak(region(step), here, floor), plain)
            })
            .collect()
    }

    #[test]
    fn step_peaks_are_those_of_their_step() {
        let mut wave = vec![0.0f32; 25 * STEP];
        wave[12 * STEP + 3] = 0.9;
        let told: Vec<f32> = step_peaks(&wave, 0.1).iter().map(|told| told.0).collect();
        let top = told.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        assert_eq!((top.0, *top.1), (11, 0.9));
        // A signal at a quarter of the rate with its peaks between the samples, 3 dB above them.
        let told = step_peaks(&sine(0.25, 45.0, 0.5), 0.1).iter().map(|told| told.0).fold(0.0, f32::max);
        assert!((told - 0.5).abs() < 0.01, "{told}");
    }

    #[test]
    fn the_bound_by_curvature_is_never_under_the_peak() {
        let mut state = 5u32;
        let mut smooth = [0.0f32; 2];
        for share in [1.0f32, 0.5, 0.1, 0.02] {
            let wave: Vec<f32> = (0..40_000)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    smooth[0] += share * ((state >> 8) as f32 / 8_388_608.0 - 1.0 - smooth[0]);
                    smooth[1] += share * (smooth[0] - smooth[1]);
                    smooth[1]
                })
                .collect();
            let floor = 0.7 * peak(&wave);
            for (told, plain) in step_peaks(&wave, floor) {
                assert!(told <= plain * CLOSE && (told >= plain - 1e-6 || plain <= floor), "{share}: {told} {plain}");
            }
        }
    }
}
