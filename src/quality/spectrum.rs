//! A long-term spectrum, which gives the bandwidth of a recording.

use crate::audio::OUTPUT_RATE_HZ;

/// Points of the transform: 47 Hz apart at 48 kHz.
const POINTS: usize = 1024;
/// Samples between two transforms. An average needs no more: three per second for the first twenty seconds, then one
/// per three seconds.
const EVERY: u64 = OUTPUT_RATE_HZ as u64 / 3;
const LATER: (u64, u64) = (60, 3 * OUTPUT_RATE_HZ as u64);
/// Samples to the next window after a pause.
const AFTER_PAUSE: u64 = OUTPUT_RATE_HZ as u64 / 10;
/// Parallel sums.
const LANES: usize = 8;
/// Quieter windows (mean square, -55 dBFS) are pauses and do not show the band.
const LOUD: f32 = 3e-6;
/// Weaker content is ignored, dB relative to the strongest band.
const WORTH_DB: f64 = -50.0;
/// Bins averaged on each side, so that a single bin does not decide.
const SMOOTH: usize = 2;

/// Averages power spectra of loud windows.
#[derive(Debug)]
pub(super) struct MeanSpectrum {
    window: Vec<f32>,
    twiddles: Vec<(f32, f32)>,
    pending: Vec<f32>,
    /// Samples to skip before the next window.
    pause: u64,
    power: Vec<f64>,
    windows: u64,
}

impl Default for MeanSpectrum {
    fn default() -> Self {
        let turn = |n: usize, of: usize| std::f64::consts::TAU * n as f64 / of as f64;
        Self {
            window: (0..POINTS).map(|n| blackman_harris(turn(n, POINTS)) as f32).collect(),
            twiddles: (0..POINTS / 2).map(|n| (turn(n, POINTS).cos() as f32, -turn(n, POINTS).sin() as f32)).collect(),
            pending: Vec::with_capacity(POINTS),
            pause: 0,
            power: vec![0.0; POINTS / 2],
            windows: 0,
        }
    }
}

impl MeanSpectrum {
    pub(super) fn push(&mut self, mut samples: &[f32]) {
        while !samples.is_empty() {
            if self.pause > 0 {
                let skip = self.pause.min(samples.len() as u64);
                self.pause -= skip;
                samples = &samples[skip as usize..];
                continue;
            }
            let take = (POINTS - self.pending.len()).min(samples.len());
            self.pending.extend_from_slice(&samples[..take]);
            samples = &samples[take..];
            if self.pending.len() == POINTS {
                let mut energies = [0.0f32; LANES];
                for group in self.pending.as_chunks::<LANES>().0 {
                    for (energy, sample) in energies.iter_mut().zip(group) {
                        *energy += sample * sample;
                    }
                }
                let energy: f32 = energies.iter().sum();
                if energy > LOUD * POINTS as f32 {
                    self.add();
                    self.pause = if self.windows < LATER.0 { EVERY } else { LATER.1 };
                } else {
                    self.pause = AFTER_PAUSE;
                }
                self.pending.clear();
            }
        }
    }

    fn add(&mut self) {
        let mut values: Vec<(f32, f32)> =
            self.pending.iter().zip(&self.window).map(|(sample, window)| (sample * window, 0.0)).collect();
        transform(&mut values, &self.twiddles);
        for (sum, (re, im)) in self.power.iter_mut().zip(values) {
            *sum += f64::from(re * re + im * im);
        }
        self.windows += 1;
    }

    /// Highest frequency with content above the limit, Hz.
    #[must_use]
    pub(super) fn bandwidth_hz(&self) -> Option<u32> {
        if self.windows == 0 {
            return None;
        }
        let smooth: Vec<f64> =
            self.power.windows(2 * SMOOTH + 1).map(|bins| bins.iter().sum::<f64>() / bins.len() as f64).collect();
        let strongest = smooth.iter().copied().fold(0.0, f64::max);
        let worth = strongest * 10f64.powf(WORTH_DB / 10.0);
        let bin = smooth.iter().rposition(|&power| power > worth)? + SMOOTH;
        Some((bin as u64 * u64::from(OUTPUT_RATE_HZ) / POINTS as u64) as u32)
    }
}

/// Blackman-Harris window with side lobes at -92 dB. A window with more leakage would widen every band.
fn blackman_harris(turn: f64) -> f64 {
    0.358_75 - 0.488_29 * turn.cos() + 0.141_28 * (2.0 * turn).cos() - 0.011_68 * (3.0 * turn).cos()
}

/// Radix-2 transform in place, decimation in time.
fn transform(values: &mut [(f32, f32)], twiddles: &[(f32, f32)]) {
    let len = values.len();
    let bits = len.trailing_zeros();
    for n in 0..len {
        let mirrored = n.reverse_bits() >> (usize::BITS - bits);
        if n < mirrored {
            values.swap(n, mirrored);
        }
    }
    let mut half = 1;
    while half < len {
        let stride = len / (2 * half);
        for block in values.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (n, (a, b)) in low.iter_mut().zip(high).enumerate() {
                let (cos, sin) = twiddles[n * stride];
                let turned = (b.0 * cos - b.1 * sin, b.0 * sin + b.1 * cos);
                *b = (a.0 - turned.0, a.1 - turned.1);
                *a = (a.0 + turned.0, a.1 + turned.1);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bandwidth(wave: &[f32]) -> Option<u32> {
        let mut spectrum = MeanSpectrum::default();
        for chunk in wave.chunks(1000) {
            spectrum.push(chunk);
        }
        spectrum.bandwidth_hz()
    }

    fn tones(hz: &[f64]) -> Vec<f32> {
        let sample = |n: u32, hz: f64| 0.1 * (std::f64::consts::TAU * hz * f64::from(n) / 48_000.0).sin();
        (0..96_000).map(|n| hz.iter().map(|&hz| sample(n, hz)).sum::<f64>() as f32).collect()
    }

    #[test]
    fn the_highest_tone_decides() {
        for top in [3_400.0, 7_000.0, 15_000.0] {
            let measured = f64::from(bandwidth(&tones(&[300.0, 1_000.0, top])).unwrap());
            assert!((measured - top).abs() < 350.0, "{top}: {measured}");
        }
    }

    #[test]
    fn silence_has_no_band() {
        assert_eq!(bandwidth(&vec![0.0; 96_000]), None);
    }
}
