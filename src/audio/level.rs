//! How much to raise or lower a recording: one gain for all of it, and a limiter where peaks stand in the way.

use super::block::OUTPUT_RATE_HZ;
use super::error::AudioError;
use super::limiter::{GainRide, LOOK_AHEAD};
use super::loudness::Levels;
use super::spill::Spill;
use super::true_peak::{STEP, StepPeaks};

/// The most the limiter may take off a peak, dB. More would be heard.
const MOST_LIMITED_DB: f64 = 6.0;
/// Kept clear below the ceiling: other meters interpolate a little differently, and samples are rounded to 16 bits, dB.
const CLEARANCE_DB: f64 = 0.15;
/// The limiter takes loudness away as well as peaks; the gain makes up for it to within this, LU.
const CLOSE_LU: f64 = 0.01;
/// A loudness missed by more than this is said to be missed, LU.
const MISSED_LU: f64 = 0.1;
const TRIES: usize = 8;
/// Steps whose energy is kept as one: 1.3 ms, short against the limiter's movements.
const GRAIN: usize = 4;
/// Steps of the limiter in the 100 ms of [`Levels`].
const HOP_STEPS: usize = OUTPUT_RATE_HZ as usize / 10 / STEP;

/// What will be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    pub gain_db: f64,
    /// Amplitude the limiter holds true peaks under, when one is needed.
    pub ceiling: Option<f32>,
    /// Peaks keep the loudness under the target.
    pub peak_limited: bool,
    /// What will come out. Worked out, not measured again: a gain moves every level by the same amount, and what the
    /// limiter takes is known step by step.
    pub output_lufs: f64,
}

impl Plan {
    /// As a factor of amplitude.
    #[must_use]
    pub fn gain(&self) -> f32 {
        10f64.powf(self.gain_db / 20.0) as f32
    }

    /// For a recording of these levels and this true peak. `None` when it has no loudness: silence, or too short.
    pub fn make(
        levels: &Levels,
        true_peak: f32,
        samples: &mut Spill,
        target_lufs: f64,
        ceiling_dbtp: f64,
    ) -> Result<Option<Self>, AudioError> {
        let Some(wanted) = levels.gain_to(target_lufs) else { return Ok(None) };
        let ceiling_db = ceiling_dbtp - CLEARANCE_DB;
        let headroom = ceiling_db - 20.0 * f64::from(true_peak).log10();
        if wanted <= headroom {
            return Ok(Some(Self { gain_db: wanted, ceiling: None, peak_limited: false, output_lufs: target_lufs }));
        }
        let ceiling = 10f64.powf(ceiling_db / 20.0) as f32;
        let most = headroom + MOST_LIMITED_DB;
        let profile = Profile::of(samples, ceiling / 10f64.powf(most / 20.0) as f32)?;
        let mut plan =
            Self { gain_db: wanted.min(most), ceiling: Some(ceiling), peak_limited: false, output_lufs: target_lufs };
        // Loudness gained for each decibel of gain: 1 to begin with, less once the limiter is seen to take its share.
        let (mut slope, mut last) = (1.0, None::<(f64, f64)>);
        for _ in 0..TRIES {
            plan.output_lufs = profile.loudness_after(&plan, ceiling, levels);
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
        Ok(Some(plan))
    }
}

/// What the limiter will meet, kept small: a byte for the energy of every four steps and the few steps with a high peak. With
/// it a gain can be tried without going through the samples again.
#[derive(Debug)]
struct Profile {
    /// By [`GRAIN`] steps.
    energies: Vec<u8>,
    steps: usize,
    /// Step and true peak, where that may matter at any gain in question.
    peaks: Vec<(u32, f32)>,
}

impl Profile {
    fn of(samples: &mut Spill, floor: f32) -> Result<Self, AudioError> {
        // Sized at once: growing by doubling would cost a three-hour call as much again.
        let grains = samples.len() as usize / (STEP * GRAIN) + 2;
        let mut profile = Self { energies: Vec::with_capacity(grains), steps: 0, peaks: Vec::new() };
        let mut energy = 0.0;
        let mut peaks = StepPeaks::default();
        let mut step = [0.0f32; STEP];
        let mut filled = 0;
        let mut put = |step: &[f32; STEP]| {
            if let Some(peak) = peaks.push(step, floor)
                && peak > floor
            {
                profile.peaks.push((profile.steps as u32 - 1, peak));
            }
            energy += step.iter().map(|sample| sample * sample).sum::<f32>();
            profile.steps += 1;
            if profile.steps.is_multiple_of(GRAIN) {
                // The mean square, which unlike a sum is never beyond what a byte can say.
                profile.energies.push(pack(energy / (STEP * GRAIN) as f32));
                energy = 0.0;
            }
        };
        samples.read(|mut block| {
            while !block.is_empty() {
                let take = (STEP - filled).min(block.len());
                step[filled..filled + take].copy_from_slice(&block[..take]);
                (filled, block) = (filled + take, &block[take..]);
                if filled == STEP {
                    put(&step);
                    filled = 0;
                }
            }
            Ok(())
        })?;
        step[filled..].fill(0.0);
        put(&step);
        put(&[0.0; STEP]);
        Ok(profile)
    }

    /// Integrated loudness with this gain and the limiter in the way. The limiter's gain moves slowly against the sound,
    /// so what it leaves of the plain energy in 100 ms is, closely, what it leaves of the weighted energy.
    fn loudness_after(&self, plan: &Plan, ceiling: f32, levels: &Levels) -> f64 {
        let ceiling = ceiling / plan.gain();
        let mut ride = GainRide::default();
        let mut high = self.peaks.iter().peekable();
        let power = 10f64.powf(plan.gain_db / 10.0);
        let mut hops: Vec<f64> = levels.hops().iter().map(|level| level * power).collect();
        let (mut before, mut after) = (0.0f64, 0.0f64);
        for n in 0..self.steps + LOOK_AHEAD {
            let peak = high.next_if(|&&(step, _)| step as usize == n).map_or(0.0, |&(_, peak)| peak);
            let gain = f64::from(ride.next(if peak > ceiling { ceiling / peak } else { 1.0 }));
            let Some(step) = n.checked_sub(LOOK_AHEAD) else { continue };
            let energy = f64::from(unpack(self.energies.get(step / GRAIN).copied().unwrap_or(0)));
            before += energy;
            after += energy * gain * gain;
            if (step + 1) % HOP_STEPS == 0 {
                if let Some(hop) = hops.get_mut(step / HOP_STEPS)
                    && before > 0.0
                {
                    *hop *= after / before;
                }
                (before, after) = (0.0, 0.0);
            }
        }
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
    }
}
