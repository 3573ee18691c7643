//! True peak: the peak of the continuous wave, estimated at four times the rate (ITU-R BS.1770-4 annex 2).

use super::block::peak;

/// Taps of each of the four phases.
const TAPS: usize = 16;
/// Samples on each side of the point between two samples.
const REACH: usize = TAPS / 2;
/// Samples looked at together by the skip bound.
const BLOCK: usize = 64;

/// The three fractional phases of a windowed sinc; phase 0 is the sample itself.
#[derive(Debug, Clone)]
struct Phases {
    taps: [[f32; TAPS]; 3],
    /// The largest value any phase can reach from samples of magnitude 1.
    bound: f32,
}

impl Phases {
    fn new() -> Self {
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
        Self { taps, bound }
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

/// Sample peak and true peak of one channel.
#[derive(Debug, Clone)]
pub struct PeakMeter {
    phases: Phases,
    /// The last `TAPS - 1` samples, then the block at hand.
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
    pub fn push(&mut self, samples: &[f32]) {
        let start = self.window.len();
        self.window.extend_from_slice(samples);
        let mut before = peak(&self.window[..start]);
        for (index, block) in samples.chunks(BLOCK).enumerate() {
            let here = peak(block);
            self.sample_peak = self.sample_peak.max(here);
            // No phase can raise the peak here: nothing to interpolate. This is nearly every block.
            if before.max(here) * self.phases.bound > self.true_peak {
                let first = start + index * BLOCK - (TAPS - 1);
                let region = &self.window[first..first + block.len() + TAPS - 1];
                for window in region.windows(TAPS) {
                    if let Some(window) = window.first_chunk::<TAPS>() {
                        self.true_peak = self.true_peak.max(self.phases.between(window));
                    }
                }
            }
            before = if block.len() < TAPS { before.max(here) } else { here };
        }
        let keep = self.window.len() - (TAPS - 1);
        self.window.drain(..keep);
    }

    /// Ends with silence, which lets the last samples ring out.
    pub fn finish(&mut self) {
        self.push(&[0.0; TAPS]);
    }

    /// Never below the sample peak.
    #[must_use]
    pub const fn true_peak(&self) -> f32 {
        self.true_peak.max(self.sample_peak)
    }
}

/// Samples in a step, the time grain of the limiter (a third of a millisecond).
pub const STEP: usize = 16;

/// For the limiter: the true peak of each step, told once the step after it is known.
#[derive(Debug, Clone)]
pub struct StepPeaks {
    phases: Phases,
    /// From `REACH` samples before the step to be told next to the newest sample.
    window: Vec<f32>,
    /// Sample peaks of the step before, and of the one to be told next.
    before: f32,
    here: f32,
    primed: bool,
}

impl Default for StepPeaks {
    fn default() -> Self {
        Self { phases: Phases::new(), window: vec![0.0; REACH], before: 0.0, here: 0.0, primed: false }
    }
}

impl StepPeaks {
    /// Takes the next step; tells the peak of the one before it, or 0 where that cannot exceed `floor`. `None` for the
    /// first step, which has none before it.
    pub fn push(&mut self, step: &[f32; STEP], floor: f32) -> Option<f32> {
        let next = peak(step);
        self.window.extend_from_slice(step);
        let told = self.primed.then(|| {
            if self.before.max(self.here).max(next) * self.phases.bound <= floor {
                return 0.0;
            }
            // The point after sample n leans on the samples n - 7 to n + 8.
            let windows = self.window[1..].windows(TAPS).take(STEP);
            windows.filter_map(|window| window.first_chunk()).map(|w| self.phases.between(w)).fold(self.here, f32::max)
        });
        if self.primed {
            self.window.drain(..STEP);
            self.before = self.here;
        }
        self.here = next;
        self.primed = true;
        told
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

    #[test]
    fn step_peaks_are_those_of_their_step() {
        let mut wave = vec![0.0f32; 25 * STEP];
        wave[12 * STEP + 3] = 0.9;
        let mut peaks = StepPeaks::default();
        let told: Vec<f32> = wave.as_chunks::<STEP>().0.iter().filter_map(|step| peaks.push(step, 0.1)).collect();
        assert_eq!(told.len(), 24);
        let top = told.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        assert_eq!((top.0, *top.1), (12, 0.9));
        // A wave at a quarter of the rate whose peaks lie between the samples: 3 dB above them.
        let wave = sine(0.25, 45.0, 0.5);
        let mut peaks = StepPeaks::default();
        let told = wave.as_chunks::<STEP>().0.iter().filter_map(|step| peaks.push(step, 0.1)).fold(0.0, f32::max);
        assert!((told - 0.5).abs() < 0.01, "{told}");
    }
}
