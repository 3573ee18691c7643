//! A look-ahead limiter: pulls the gain down smoothly before a true peak arrives and lets it go slowly after. Where no
//! peak is too high, samples pass untouched.

use std::collections::VecDeque;

use super::block::OUTPUT_RATE_HZ;
use super::true_peak::PeakEnvelope;

/// How long before a peak the gain begins to fall: 5 ms, too short to be heard as a dip, long enough not to click.
const LOOK_AHEAD: usize = OUTPUT_RATE_HZ as usize / 200;
/// Time constant of the way back, seconds.
const RELEASE_SECONDS: f64 = 0.06;
/// Within this of 1 the gain is 1 (0.0001 dB).
const SETTLED: f64 = 1e-5;
/// Samples in 100 ms, the step of [`super::loudness::Levels`].
const HOP: usize = OUTPUT_RATE_HZ as usize / 10;
const DELAY: usize = LOOK_AHEAD + PeakEnvelope::DELAY;

/// One channel at 48 kHz. Output lines up with input once [`Limiter::finish`] has been called.
#[derive(Debug)]
pub struct Limiter {
    gain: f32,
    ceiling: f32,
    envelope: PeakEnvelope,
    peaks: Vec<f32>,
    scaled: Vec<f32>,
    /// Samples waiting for their gain.
    line: Vec<f32>,
    /// Required gains below 1 within the look-ahead, by sample, the smallest first.
    minima: VecDeque<(u64, f64)>,
    /// Gains after release over the last look-ahead, and their sum.
    released: VecDeque<f64>,
    sum: f64,
    release: f64,
    current: f64,
    /// Samples in a row for which nothing was required.
    calm: usize,
    taken: u64,
    given: u64,
    skip: usize,
    least: f64,
    hop: (f64, f64, usize),
    ratios: Vec<f64>,
}

impl Limiter {
    /// `gain` and `ceiling` are factors of amplitude.
    #[must_use]
    pub fn new(gain: f32, ceiling: f32) -> Self {
        Self {
            gain,
            ceiling,
            envelope: PeakEnvelope::default(),
            peaks: Vec::new(),
            scaled: Vec::new(),
            line: Vec::new(),
            minima: VecDeque::new(),
            released: std::iter::repeat_n(1.0, LOOK_AHEAD + 1).collect(),
            sum: (LOOK_AHEAD + 1) as f64,
            release: 1.0 - (-1.0 / (RELEASE_SECONDS * f64::from(OUTPUT_RATE_HZ))).exp(),
            current: 1.0,
            calm: usize::MAX / 2,
            taken: 0,
            given: 0,
            skip: DELAY,
            least: 1.0,
            hop: (0.0, 0.0, 0),
            ratios: Vec::new(),
        }
    }

    /// Appends limited samples to `out`, [`DELAY`] behind.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.taken += samples.len() as u64;
        self.run(samples, out);
    }

    /// Lets out what is still in the line.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        let due = (self.taken - self.given) as usize;
        self.run(&vec![0.0; due], out);
        if self.hop.2 > 0 {
            self.end_hop();
        }
    }

    fn run(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.scaled.clear();
        self.scaled.extend(samples.iter().map(|sample| sample * self.gain));
        self.peaks.clear();
        self.envelope.push(&self.scaled, self.ceiling, &mut self.peaks);
        self.line.extend_from_slice(&self.scaled);
        let peaks = std::mem::take(&mut self.peaks);
        let mut at = 0;
        for &peak in &peaks {
            let gain = self.gain_for(peak);
            if self.skip > 0 {
                // The line fills up: what comes out now was never put in.
                self.skip -= 1;
                continue;
            }
            let sample = self.line[at];
            at += 1;
            let limited = sample * gain as f32;
            out.push(limited);
            self.given += 1;
            self.hop.0 += f64::from(sample) * f64::from(sample);
            self.hop.1 += f64::from(limited) * f64::from(limited);
            self.hop.2 += 1;
            if self.hop.2 == HOP {
                self.end_hop();
            }
        }
        self.line.drain(..at);
        self.peaks = peaks;
    }

    fn end_hop(&mut self) {
        let (before, after, _) = std::mem::take(&mut self.hop);
        self.ratios.push(if before > 0.0 { after / before } else { 1.0 });
    }

    /// The gain of the sample [`LOOK_AHEAD`] before the one this peak belongs to: the mean, over the look-ahead, of
    /// gains each of which already respects every peak up to here. So at a peak all of them do.
    fn gain_for(&mut self, peak: f32) -> f64 {
        let now = self.envelope_index();
        if peak > self.ceiling {
            let required = f64::from(self.ceiling / peak);
            while self.minima.back().is_some_and(|&(_, gain)| gain >= required) {
                self.minima.pop_back();
            }
            self.minima.push_back((now, required));
            self.calm = 0;
        } else {
            self.calm = self.calm.saturating_add(1);
        }
        // After the look-ahead, the release and the mean have all run out.
        if self.minima.is_empty() && self.current >= 1.0 && self.calm > 4 * LOOK_AHEAD && self.sum_is_settled() {
            return 1.0;
        }
        while self.minima.front().is_some_and(|&(at, _)| at + (LOOK_AHEAD as u64) < now) {
            self.minima.pop_front();
        }
        let required = self.minima.front().map_or(1.0, |&(_, gain)| gain);
        let risen = self.current + (1.0 - self.current) * self.release;
        self.current = required.min(if risen > 1.0 - SETTLED { 1.0 } else { risen });
        let oldest = self.released.pop_front().unwrap_or(1.0);
        self.released.push_back(self.current);
        self.sum += self.current - oldest;
        let gain = (self.sum / (LOOK_AHEAD + 1) as f64).min(1.0);
        self.least = self.least.min(gain);
        gain
    }

    fn sum_is_settled(&self) -> bool {
        (self.sum - (LOOK_AHEAD + 1) as f64).abs() < SETTLED
    }

    /// A running number for the sample a peak belongs to.
    const fn envelope_index(&self) -> u64 {
        self.given + (DELAY - self.skip) as u64
    }

    /// The most that was taken off, dB (0 or more).
    #[must_use]
    pub fn limited_db(&self) -> f64 {
        -20.0 * self.least.log10()
    }

    /// Share of the energy of each 100 ms that is left.
    #[must_use]
    pub fn energy_ratios(&self) -> &[f64] {
        &self.ratios
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::true_peak::PeakMeter;

    fn limit(samples: &[f32], gain: f32, ceiling: f32) -> (Vec<f32>, Limiter) {
        let (mut limiter, mut out) = (Limiter::new(gain, ceiling), Vec::new());
        for chunk in samples.chunks(1013) {
            limiter.push(chunk, &mut out);
        }
        limiter.finish(&mut out);
        (out, limiter)
    }

    fn bursts() -> Vec<f32> {
        (0..96_000)
            .map(|n| {
                let loud = if (n / 7919) % 3 == 1 { 1.0 } else { 0.3 };
                loud * (std::f32::consts::TAU * 0.0131 * n as f32).sin()
            })
            .collect()
    }

    #[test]
    fn no_true_peak_passes_the_ceiling() {
        let (out, limiter) = limit(&bursts(), 1.5, 0.8);
        assert_eq!(out.len(), 96_000);
        let mut meter = PeakMeter::default();
        meter.push(&out);
        meter.finish();
        assert!(meter.true_peak() <= 0.8 * 1.006, "{}", meter.true_peak());
        assert!(meter.true_peak() > 0.75);
        assert!((limiter.limited_db() - 20.0 * (1.5f64 / 0.8).log10()).abs() < 0.1, "{}", limiter.limited_db());
    }

    #[test]
    fn what_is_low_enough_passes_untouched_and_in_time() {
        let wave = bursts();
        let (out, limiter) = limit(&wave, 0.5, 0.8);
        assert!(out.iter().zip(&wave).all(|(o, w)| (o - 0.5 * w).abs() < 1e-7));
        assert!(limiter.limited_db() < 1e-9);
        assert_eq!(limiter.energy_ratios().len(), 20);
    }

    #[test]
    fn the_gain_comes_back_after_a_peak() {
        let mut wave: Vec<f32> = (0..96_000).map(|n| 0.3 * (0.05 * n as f32).sin()).collect();
        wave[20_000] = 1.0;
        let (out, _) = limit(&wave, 1.0, 0.5);
        assert!(out[20_000].abs() <= 0.5 + 1e-4);
        assert!(out[60_000..].iter().zip(&wave[60_000..]).all(|(o, w)| (o - w).abs() < 1e-6));
        assert!(out[..19_000].iter().zip(&wave).all(|(o, w)| (o - w).abs() < 1e-6));
    }

    #[test]
    fn a_handful_of_samples_comes_out_whole() {
        for n in [0usize, 1, 5, 300] {
            assert_eq!(limit(&vec![0.9; n], 1.0, 0.5).0.len(), n);
        }
    }
}
