//! Look-ahead limiter for true peaks. It lowers the gain smoothly before a peak and raises it slowly after. It works in
//! steps of 16 samples, so it costs about one multiplication per sample.

use super::block::{OUTPUT_RATE_HZ, STEP, StepLevels, measure_steps};
use super::output_levels::HOP;
use super::true_peak::{Phases, REACH as PEAK_REACH};

/// Steps of attack before a peak: 5 ms. This is too short for an audible dip and long enough to avoid a click.
pub(super) const LOOK_AHEAD: usize = 15;
/// Length of the moving minimum and of the moving mean, steps.
const REACH: usize = LOOK_AHEAD + 1;
/// Release time constant, seconds.
const RELEASE_SECONDS: f64 = 0.06;
/// A gain this close to 1 is set to 1 (0.001 dB).
const SETTLED: f32 = 1e-4;
/// Delay from the step under analysis to the step put out: the look-ahead plus one step. The ramp over a step ends at
/// the gain of the next step.
const DELAY_STEPS: usize = LOOK_AHEAD + 1;

/// Computes the gain of each step from the highest gain that each step allows.
#[derive(Debug, Clone)]
pub(super) struct GainRide {
    last_borne: f32,
    required: [f32; REACH],
    released: [f32; REACH],
    at: usize,
    current: f32,
    release: f32,
    /// Consecutive steps that allowed a gain of 1 and had it.
    calm: usize,
    least: f32,
}

impl Default for GainRide {
    fn default() -> Self {
        let release = 1.0 - (-(STEP as f64) / (RELEASE_SECONDS * f64::from(OUTPUT_RATE_HZ))).exp();
        Self {
            last_borne: 1.0,
            required: [1.0; REACH],
            released: [1.0; REACH],
            at: 0,
            current: 1.0,
            release: release as f32,
            calm: 2 * REACH,
            least: 1.0,
        }
    }
}

impl GainRide {
    /// Takes the highest gain that the next step allows (1 or less). Returns the gain at the start of the step
    /// [`LOOK_AHEAD`] before it. Every gain in the mean respects every step up to here, so at a peak the mean does too.
    /// Each limit applies to both ends of its step, because the gain is linear between them.
    pub(super) fn next(&mut self, borne: f32) -> f32 {
        if borne >= 1.0 && self.at_rest() {
            return 1.0;
        }
        self.at = (self.at + 1) % REACH;
        self.required[self.at] = borne.min(self.last_borne);
        self.last_borne = borne;
        let required = least(&self.required);
        let risen = self.current + (1.0 - self.current) * self.release;
        self.current = required.min(if risen > 1.0 - SETTLED { 1.0 } else { risen });
        self.released[self.at] = self.current;
        let gain = sum(&self.released) / REACH as f32;
        self.least = self.least.min(gain);
        self.calm = if borne < 1.0 || gain < 1.0 { 0 } else { self.calm + 1 };
        gain
    }

    /// Whether all gains in reach are 1. They stay 1 until a step requires less.
    #[must_use]
    pub(super) const fn at_rest(&self) -> bool {
        self.calm >= 2 * REACH
    }

    /// The largest gain reduction, dB (0 or more).
    #[must_use]
    pub(super) fn limited_db(&self) -> f64 {
        -20.0 * f64::from(self.least).log10()
    }
}

/// Lanes of the two loops below, which run for every step while the limiter is active.
const LANES: usize = 4;

fn least(gains: &[f32; REACH]) -> f32 {
    let mut lanes = [1.0f32; LANES];
    for group in gains.as_chunks::<LANES>().0 {
        for (lane, &gain) in lanes.iter_mut().zip(group) {
            *lane = if gain < *lane { gain } else { *lane };
        }
    }
    let lesser = |a: f32, b: f32| if a < b { a } else { b };
    lesser(lesser(lanes[0], lanes[2]), lesser(lanes[1], lanes[3]))
}

fn sum(gains: &[f32; REACH]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for group in gains.as_chunks::<LANES>().0 {
        for (lane, gain) in lanes.iter_mut().zip(group) {
            *lane += gain;
        }
    }
    (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
}

/// Limiter of one channel at 48 kHz. The output lines up with the input after [`Limiter::finish`].
#[derive(Debug)]
pub(super) struct Limiter {
    ceiling: f32,
    phases: Phases,
    ride: GainRide,
    /// Samples waiting for their gain, after a few that are out and that the peak filter still needs.
    line: Vec<f32>,
    /// Position in `line` of the next step to analyse.
    next: usize,
    /// Levels of that step and the steps after it, and the peak of the step before it.
    steps: Vec<StepLevels>,
    before: f32,
    /// Gain at the start of the next output step.
    node: f32,
    /// Steps still to analyse before the first output step.
    wait: usize,
    taken: u64,
    given: u64,
    /// For each [`HOP`] of the output: whether the limiter changed it.
    changed: Vec<bool>,
}

impl Limiter {
    /// `ceiling` is an amplitude.
    #[must_use]
    pub(super) fn new(ceiling: f32) -> Self {
        Self {
            ceiling,
            phases: Phases::new(),
            ride: GainRide::default(),
            line: vec![0.0; PEAK_REACH],
            next: PEAK_REACH,
            steps: Vec::new(),
            before: 0.0,
            node: 1.0,
            wait: DELAY_STEPS,
            taken: 0,
            given: 0,
            changed: Vec::new(),
        }
    }

    /// Whether the limiter changed any sample of this [`HOP`] of the output.
    #[must_use]
    pub(super) fn changed(&self, hop: usize) -> bool {
        self.changed.get(hop).is_some_and(|changed| *changed)
    }

    /// Appends limited samples to `out`, with a delay of a few milliseconds.
    pub(super) fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.taken += samples.len() as u64;
        self.run(samples, out);
    }

    /// Puts out the remaining samples.
    pub(super) fn finish(&mut self, out: &mut Vec<f32>) {
        let due = self.taken - self.given;
        let before = out.len();
        self.run(&[0.0; (DELAY_STEPS + 3) * STEP], out);
        out.truncate(before + due as usize);
    }

    fn run(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        let before = out.len();
        self.line.extend_from_slice(samples);
        let measured = self.next + self.steps.len() * STEP;
        measure_steps(&self.line[measured..], &mut self.steps);
        // The last step waits, because its peaks need the samples after it.
        let known = self.steps.len().saturating_sub(1);
        let mut at = 0;
        while at < known {
            let calm = if self.ride.at_rest() && self.wait == 0 { self.calm_steps(at, known) } else { 0 };
            if calm > 0 {
                let start = self.next + at * STEP - DELAY_STEPS * STEP;
                out.extend_from_slice(&self.line[start..start + calm * STEP]);
                self.before = self.steps[at + calm - 1].peak;
                at += calm;
            } else {
                let hop = (self.given as usize + out.len() - before) / HOP;
                if self.one(at, out) {
                    self.changed.resize(hop + 1, false);
                    self.changed[hop] = true;
                }
                at += 1;
            }
        }
        self.given += (out.len() - before) as u64;
        self.next += at * STEP;
        self.steps.drain(..at);
        let gone = self.next.saturating_sub((DELAY_STEPS - self.wait) * STEP + PEAK_REACH);
        self.line.drain(..gone);
        self.next -= gone;
    }

    /// The number of steps from `at` on that cannot hold a peak above the ceiling.
    fn calm_steps(&self, at: usize, known: usize) -> usize {
        let low = |step: &StepLevels| !self.phases.can_pass(step.peak, self.ceiling);
        if self.phases.can_pass(self.before, self.ceiling) {
            return 0;
        }
        // A step counts when it and the next step are low.
        let run = self.steps[at..=known].iter().take_while(|step| low(step)).count();
        run.saturating_sub(1)
    }

    /// Analyses one step and puts out the delayed step. Returns whether that step was changed.
    fn one(&mut self, at: usize, out: &mut Vec<f32>) -> bool {
        let (here, after) = (self.steps[at].peak, self.steps[at + 1].peak);
        let start = self.next + at * STEP;
        let mut peak = here;
        if self.phases.can_pass(self.before.max(here).max(after), self.ceiling)
            && let Some(region) = self.line.get(start + 1 - PEAK_REACH..).and_then(<[f32]>::first_chunk)
        {
            peak = self.phases.step_peak(region, here, self.ceiling);
        }
        self.before = here;
        let next = self.ride.next(if peak > self.ceiling { self.ceiling / peak } else { 1.0 });
        if self.wait > 0 {
            // Gains of steps before the first.
            self.wait -= 1;
            self.node = next;
            return false;
        }
        let step = &self.line[start - DELAY_STEPS * STEP..start - LOOK_AHEAD * STEP];
        let changed = self.node < 1.0 || next < 1.0;
        if changed {
            let slope = (next - self.node) / STEP as f32;
            out.extend(step.iter().enumerate().map(|(n, sample)| sample * (self.node + slope * n as f32)));
        } else {
            out.extend_from_slice(step);
        }
        self.node = next;
        changed
    }

    /// The largest gain reduction, dB (0 or more).
    #[must_use]
    pub(super) fn limited_db(&self) -> f64 {
        self.ride.limited_db()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::true_peak::PeakMeter;

    fn limit(samples: &[f32], gain: f32, ceiling: f32) -> (Vec<f32>, Limiter) {
        let (mut limiter, mut out) = (Limiter::new(ceiling), Vec::new());
        let scaled: Vec<f32> = samples.iter().map(|sample| sample * gain).collect();
        for chunk in scaled.chunks(1013) {
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

    fn true_peak(samples: &[f32]) -> f32 {
        let mut meter = PeakMeter::default();
        meter.push(samples);
        meter.finish();
        meter.true_peak()
    }

    #[test]
    fn no_true_peak_passes_the_ceiling() {
        let (out, limiter) = limit(&bursts(), 1.5, 0.8);
        assert_eq!(out.len(), 96_000);
        assert!(true_peak(&out) <= 0.8 * 1.006 && true_peak(&out) > 0.75, "{}", true_peak(&out));
        let needed = 20.0 * f64::from(true_peak(&bursts()) * 1.5 / 0.8).log10();
        assert!((limiter.limited_db() - needed).abs() < 0.1, "{} {needed}", limiter.limited_db());
    }

    #[test]
    fn what_is_low_enough_passes_untouched_and_in_time() {
        let wave = bursts();
        let (out, limiter) = limit(&wave, 0.5, 0.8);
        assert!(out.iter().zip(&wave).all(|(o, w)| (o - 0.5 * w).abs() < 1e-7));
        assert!(limiter.limited_db() < 1e-9);
    }

    #[test]
    fn the_gain_comes_back_after_a_peak() {
        let mut wave: Vec<f32> = (0..96_000).map(|n| 0.3 * (0.05 * n as f32).sin()).collect();
        wave[20_000] = 1.0;
        let (out, limiter) = limit(&wave, 1.0, 0.5);
        assert!(out[20_000].abs() <= 0.5 + 1e-4);
        assert_eq!((0..20).filter(|&hop| limiter.changed(hop)).min(), Some(4));
        assert!(!limiter.changed(12), "let go after half a second");
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
