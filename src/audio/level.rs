//! How much to raise or lower a recording: one gain for all of it, and a limiter where peaks stand in the way.

use super::error::AudioError;
use super::limiter::Limiter;
use super::loudness::Levels;
use super::spill::Spill;

/// The most the limiter may take off a peak, dB. More would be heard.
const MOST_LIMITED_DB: f64 = 6.0;
/// Kept clear below the ceiling: other meters interpolate a little differently, and samples are rounded to 16 bits, dB.
const CLEARANCE_DB: f64 = 0.15;
/// The limiter takes loudness away as well as peaks; the gain makes up for it to within this, LU.
const CLOSE_LU: f64 = 0.02;
/// A loudness missed by more than this is said to be missed, LU.
const MISSED_LU: f64 = 0.1;
const TRIES: usize = 6;

/// What will be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    pub gain_db: f64,
    /// Amplitude the limiter holds true peaks under, when one is needed.
    pub ceiling: Option<f32>,
    /// Peaks keep the loudness under the target.
    pub peak_limited: bool,
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
            return Ok(Some(Self { gain_db: wanted, ceiling: None, peak_limited: false }));
        }
        let ceiling = 10f64.powf(ceiling_db / 20.0) as f32;
        let most = headroom + MOST_LIMITED_DB;
        let mut plan = Self { gain_db: wanted.min(most), ceiling: Some(ceiling), peak_limited: false };
        for _ in 0..TRIES {
            let short = target_lufs - loudness_after(&plan, levels, samples)?;
            plan.peak_limited = short > MISSED_LU;
            if short.abs() < CLOSE_LU || (plan.gain_db >= most && short > 0.0) {
                break;
            }
            plan.gain_db = (plan.gain_db + short).min(most);
        }
        Ok(Some(plan))
    }
}

/// Integrated loudness with this gain and the limiter in the way. The limiter's gain moves slowly against the sound, so
/// what it leaves of the plain energy in 100 ms is, closely, what it leaves of the weighted energy.
fn loudness_after(plan: &Plan, levels: &Levels, samples: &mut Spill) -> Result<f64, AudioError> {
    let mut limiter = Limiter::new(plan.gain(), plan.ceiling.unwrap_or(f32::MAX));
    let mut out = Vec::new();
    samples.read(|block| {
        out.clear();
        limiter.push(block, &mut out);
        Ok(())
    })?;
    limiter.finish(&mut out);
    let power = 10f64.powf(plan.gain_db / 10.0);
    let ratios = limiter.energy_ratios().iter().copied().chain(std::iter::repeat(1.0));
    let hops = levels.hops().iter().zip(ratios).map(|(level, ratio)| level * power * ratio).collect();
    Ok(Levels::from_hops(hops).integrated(0.0).unwrap_or(f64::NEG_INFINITY))
}
