//! Chooses the gain of a recording: one gain for the whole call, and a limiter where peaks prevent it. Input is the
//! loudness, the true peak and a [`Profile`]. Output is a [`GainPlan`].

use super::block::{OUTPUT_RATE_HZ, STEP, StepLevels};
use super::limiter::{GainRide, LOOK_AHEAD};
use super::loudness::Levels;
use super::true_peak::{Phases, REACH};

/// The most the limiter may take off a peak, dB. More is audible.
const MOST_LIMITED_DB: f64 = 6.0;
/// Margin below the ceiling, dB. Other meters interpolate slightly differently, and samples are rounded to 16 bits.
const CLEARANCE_DB: f64 = 0.15;
/// The limiter reduces the loudness too. The gain compensates to within this, LU.
const CLOSE_LU: f64 = 0.01;
/// The plan is `peak_limited` when the loudness misses the target by more than this, LU.
const MISSED_LU: f64 = 0.1;
const TRIES: usize = 8;
/// Steps per grain: 1.3 ms, short compared with the limiter's attack and release.
const GRAIN: usize = 4;
/// Grains in the 100 ms of [`Levels`].
const HOP_GRAINS: usize = OUTPUT_RATE_HZ as usize / 10 / STEP / GRAIN;
/// [`MOST_LIMITED_DB`] as a factor. The limiter never acts on peaks below this share of the highest peak.
const LIMITED_SHARE: f32 = 0.5;

/// Gain and limiter settings of the second pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct GainPlan {
    pub gain_db: f64,
    /// Amplitude that the limiter keeps true peaks below. `None` without a limiter.
    pub ceiling: Option<f32>,
    /// Peaks keep the loudness below the target.
    pub peak_limited: bool,
    /// Expected loudness of the output. It is exact for a gain alone, which shifts every level by the same amount. With
    /// a limiter it is the estimate of [`Profile`].
    pub output_lufs: f64,
}

impl GainPlan {
    /// The gain as a factor of amplitude.
    #[must_use]
    pub(super) fn gain(&self) -> f32 {
        10f64.powf(self.gain_db / 20.0) as f32
    }

    /// Plan for a recording with these levels and this true peak. `None` when the recording has no loudness (silence,
    /// or under 400 ms).
    pub(super) fn make(
        levels: &Levels,
        true_peak: f32,
        profile: &Profile,
        target_lufs: f64,
        ceiling_dbtp: f64,
    ) -> Option<Self> {
        let wanted = levels.gain_to(target_lufs)?;
        let ceiling_db = ceiling_dbtp - CLEARANCE_DB;
        let headroom = ceiling_db - 20.0 * f64::from(true_peak).log10();
        if wanted <= headroom {
            return Some(Self { gain_db: wanted, ceiling: None, peak_limited: false, output_lufs: target_lufs });
        }
        let ceiling = 10f64.powf(ceiling_db / 20.0) as f32;
        let most = headroom + MOST_LIMITED_DB;
        let plain = profile.hop_energies();
        let mut plan =
            Self { gain_db: wanted.min(most), ceiling: Some(ceiling), peak_limited: false, output_lufs: target_lufs };
        // Loudness gained per decibel of gain. It starts at 1 and falls when the limiter acts.
        let (mut slope, mut last) = (1.0, None::<(f64, f64)>);
        for _ in 0..TRIES {
            plan.output_lufs = profile.loudness_after(&plan, ceiling, levels, &plain);
            let short = target_lufs - plan.output_lufs;
            plan.peak_limited = short > MISSED_LU;
            if let Some((gain_db, lufs)) = last {
                slope = ((plan.output_lufs - lufs) / (plan.gain_db - gain_db)).clamp(0.2, 1.0);
            }
            let step = (short / slope).min(most - plan.gain_db);
            if short.abs() < CLOSE_LU || step.abs() < CLOSE_LU {
                break;
            }
            last = Some((plan.gain_db, plan.output_lufs));
            plan.gain_db += step;
        }
        Some(plan)
    }
}

/// What the limiter's input looks like, collected on the first pass: two bytes per grain. Gains can be tried on it
/// without a second read of the samples.
#[derive(Debug, Default)]
pub(super) struct Profile {
    energies: Vec<u8>,
    /// True peaks. 0 for a peak too low to matter at any possible gain.
    peaks: Vec<u8>,
    phases: Phases,
    highest: f32,
    /// Energy, peak and number of steps of the current grain.
    grain: (f32, f32, usize),
}

impl Profile {
    /// Adds the next steps and their samples.
    pub(super) fn push(&mut self, samples: &[f32], steps: &[StepLevels]) {
        for (index, step) in steps.iter().enumerate() {
            self.highest = self.highest.max(step.peak);
            let floor = self.highest * LIMITED_SHARE;
            let (energy, peak, count) = &mut self.grain;
            *energy += step.energy;
            *count += 1;
            if self.phases.can_pass(step.peak, floor) {
                // At the edges of the block the sample peak is used. This is an estimate.
                let region =
                    (index * STEP + 1).checked_sub(REACH).and_then(|start| samples.get(start..)?.first_chunk());
                let here = region.map_or(step.peak, |region| self.phases.step_peak(region, step.peak, floor));
                *peak = peak.max(here);
            }
            if *count == GRAIN {
                self.end_grain();
            }
        }
    }

    fn end_grain(&mut self) {
        let (energy, peak, _) = std::mem::take(&mut self.grain);
        // The mean square stays within the range of a byte. A sum could exceed it.
        self.energies.push(pack(energy / (STEP * GRAIN) as f32));
        self.peaks.push(pack_peak(peak));
    }

    /// Ends the last grain.
    pub(super) fn finish(&mut self) {
        if self.grain.2 > 0 {
            self.end_grain();
        }
    }

    fn hop_energies(&self) -> Vec<f64> {
        self.energies.chunks(HOP_GRAINS).map(|hop| hop.iter().map(|&code| f64::from(unpack(code))).sum()).collect()
    }

    /// Integrated loudness with this gain and the limiter. The limiter's gain moves slowly compared with the sound. The
    /// share of unweighted energy that it leaves in 100 ms is therefore close to the share of weighted energy.
    fn loudness_after(&self, plan: &GainPlan, ceiling: f32, levels: &Levels, plain: &[f64]) -> f64 {
        let ceiling = ceiling / plan.gain();
        let mut ride = GainRide::default();
        let mut taken = vec![0.0; plain.len()];
        let flush = LOOK_AHEAD.div_ceil(GRAIN) + 1;
        for (grain, &code) in self.peaks.iter().chain(std::iter::repeat_n(&0, flush)).enumerate() {
            let peak = unpack_peak(code);
            if peak <= ceiling && ride.at_rest() {
                continue;
            }
            let borne = if peak > ceiling { ceiling / peak } else { 1.0 };
            for step in grain * GRAIN..(grain + 1) * GRAIN {
                let gain = f64::from(ride.next(borne));
                // The returned gain belongs to the step `LOOK_AHEAD` earlier.
                let Some(at) = step.checked_sub(LOOK_AHEAD).map(|step| step / GRAIN) else { continue };
                if let (Some(&energy), Some(taken)) = (self.energies.get(at), taken.get_mut(at / HOP_GRAINS)) {
                    *taken += f64::from(unpack(energy)) * (1.0 - gain * gain) / GRAIN as f64;
                }
            }
        }
        let power = 10f64.powf(plan.gain_db / 10.0);
        let left = |(plain, taken): (&f64, &f64)| if *plain > 0.0 { (1.0 - taken / plain).max(0.0) } else { 1.0 };
        let shares = plain.iter().zip(&taken).map(left).chain(std::iter::repeat(1.0));
        let hops = levels.hops().iter().zip(shares).map(|(level, share)| level * power * share).collect();
        Levels::from_hops(hops).integrated(0.0).unwrap_or(f64::NEG_INFINITY)
    }
}

/// Exponent and three bits of mantissa, from 2^-31 up: steps of half a decibel.
const PACK_BASE: u32 = (127 - 31) << 3;

fn pack(energy: f32) -> u8 {
    (energy.max(0.0).to_bits() >> 20).saturating_sub(PACK_BASE).min(255) as u8
}

fn unpack(code: u8) -> f32 {
    if code == 0 { 0.0 } else { f32::from_bits((u32::from(code) + PACK_BASE) << 20 | 1 << 19) }
}

/// Exponent and four bits of mantissa, from 2^-13 up: steps of about a third of a decibel.
const PEAK_BASE: u32 = (127 - 13) << 4;

fn pack_peak(peak: f32) -> u8 {
    (peak.to_bits() >> 19).saturating_sub(PEAK_BASE).min(255) as u8
}

fn unpack_peak(code: u8) -> f32 {
    if code == 0 { 0.0 } else { f32::from_bits((u32::from(code) + PEAK_BASE) << 19 | 1 << 18) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energies_survive_packing_to_half_a_decibel() {
        for energy in [1e-8f32, 1e-4, 0.02, 0.5, 1.9] {
            let ratio = unpack(pack(energy)) / energy;
            assert!(ratio > 0.93 && ratio < 1.07, "{energy}: {ratio}");
        }
        assert_eq!((pack(0.0), unpack(0)), (0, 0.0));
        assert_eq!(pack(f32::MAX), 255);
        for peak in [0.001f32, 0.03, 0.5, 0.99, 3.9] {
            let ratio = unpack_peak(pack_peak(peak)) / peak;
            assert!(ratio > 0.965 && ratio < 1.035, "{peak}: {ratio}");
        }
        assert_eq!((pack_peak(0.0), unpack_peak(0)), (0, 0.0));
    }
}
