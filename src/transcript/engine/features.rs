//! The acoustic front end of NeMo models: 16 kHz samples to a normalised log-mel spectrogram.
//!
//! Pre-emphasis 0.97, centred frames of 400 samples every 160 (25 ms every 10 ms) under a symmetric Hann window in a
//! 512-point FFT, power, Slaney mel filters with Slaney norm over 0 to 8000 Hz, `ln(x + 2^-24)`, then each bin to zero
//! mean and unit deviation over the segment. `tests/it/golden` holds the output of the reference implementation.

use std::sync::Arc;

use realfft::RealFftPlanner;
use realfft::RealToComplex;

/// Sample rate for all engines.
pub const RATE_HZ: u32 = 16_000;
const FFT: usize = 512;
const WINDOW: usize = 400;
/// Zeros on both sides of the window.
const EDGE: usize = (FFT - WINDOW) / 2;
/// Samples between frames.
pub const HOP: usize = 160;
const PRE_EMPHASIS: f32 = 0.97;
/// 2^-24, added before the logarithm.
const GUARD: f32 = 5.960_464_5e-8;
/// Added to each bin's deviation.
const FLATTEST: f64 = 1e-5;

/// One filter: its first spectral line and its weights from there.
#[derive(Debug)]
struct MelFilter {
    first: usize,
    weights: Vec<f32>,
}

/// The front end. Any number of threads can share it.
pub struct LogMel {
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    filters: Vec<MelFilter>,
}

impl std::fmt::Debug for LogMel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogMel({} bins)", self.filters.len())
    }
}

impl LogMel {
    #[must_use]
    pub fn new(bins: usize) -> Self {
        let tau = std::f64::consts::TAU;
        let window = (0..WINDOW).map(|n| (0.5 - 0.5 * (tau * n as f64 / (WINDOW - 1) as f64).cos()) as f32).collect();
        Self { fft: RealFftPlanner::new().plan_fft_forward(FFT), window, filters: filters(bins) }
    }

    /// Number of frames for this number of samples.
    #[must_use]
    pub const fn frames(samples: usize) -> usize {
        samples / HOP
    }

    /// The spectrogram `[bins, frames]`, row by row.
    #[must_use]
    pub fn picture(&self, samples: &[f32]) -> Vec<f32> {
        let frames = Self::frames(samples.len());
        let mut picture = vec![0.0f32; self.filters.len() * frames];
        let mut input = self.fft.make_input_vec();
        let mut lines = self.fft.make_output_vec();
        let mut power = vec![0.0f32; lines.len()];
        for frame in 0..frames {
            self.frame(samples, frame, &mut input);
            if self.fft.process(&mut input, &mut lines).is_err() {
                continue; // The planner made the buffers, so that their lengths fit.
            }
            for (power, line) in power.iter_mut().zip(&lines) {
                *power = line.norm_sqr();
            }
            for (bin, filter) in self.filters.iter().enumerate() {
                let heard: f32 = filter.weights.iter().zip(&power[filter.first..]).map(|(w, p)| w * p).sum();
                picture[bin * frames + frame] = (heard + GUARD).ln();
            }
        }
        if frames > 0 {
            picture.chunks_exact_mut(frames).for_each(normalize);
        }
        picture
    }

    /// The pre-emphasised, windowed samples around the centre of a frame, centred in the FFT input.
    fn frame(&self, samples: &[f32], frame: usize, input: &mut [f32]) {
        input.fill(0.0);
        let middle = frame * HOP;
        let place = &mut input[EDGE..EDGE + WINDOW];
        for (n, (place, weight)) in place.iter_mut().zip(&self.window).enumerate() {
            let Some(at) = (middle + n).checked_sub(WINDOW / 2) else { continue };
            let Some(sample) = samples.get(at) else { continue };
            let before = at.checked_sub(1).map_or(0.0, |at| samples[at]);
            *place = weight * (sample - PRE_EMPHASIS * before);
        }
    }
}

/// Normalises to zero mean and unit deviation, with the divisor n - 1 of the reference.
fn normalize(row: &mut [f32]) {
    let count = row.len() as f64;
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let squares: f64 = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt() + FLATTEST;
    for x in row {
        *x = ((f64::from(*x) - mean) / deviation) as f32;
    }
}

/// Slaney's mel scale: linear below 1000 Hz, logarithmic above.
fn to_mel(hz: f64) -> f64 {
    if hz < 1000.0 { hz * 3.0 / 200.0 } else { 15.0 + (hz / 1000.0).ln() * 27.0 / 6.4f64.ln() }
}

fn to_hz(mel: f64) -> f64 {
    if mel < 15.0 { mel * 200.0 / 3.0 } else { 1000.0 * ((mel - 15.0) * 6.4f64.ln() / 27.0).exp() }
}

fn filters(bins: usize) -> Vec<MelFilter> {
    let top = f64::from(RATE_HZ) / 2.0;
    let edge = |n: usize| to_hz(to_mel(top) * n as f64 / (bins + 1) as f64);
    let at = |line: usize| top * line as f64 / (FFT / 2) as f64;
    let filter = |bin: usize| {
        let (low, middle, high) = (edge(bin), edge(bin + 1), edge(bin + 2));
        let weight = |line: usize| {
            let (up, down) = ((at(line) - low) / (middle - low), (high - at(line)) / (high - middle));
            (up.min(down).max(0.0) * 2.0 / (high - low)) as f32
        };
        let lines = 0..=FFT / 2;
        let first = lines.clone().find(|line| weight(*line) > 0.0).unwrap_or(0);
        let weights = lines.skip(first).map(weight).take_while(|weight| *weight > 0.0).collect();
        MelFilter { first, weights }
    };
    (0..bins).map(filter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bin_of_a_segment_has_zero_mean_and_unit_deviation() {
        let samples: Vec<f32> =
            (0..8_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 8) as f32 / 1.7e7 - 0.5).collect();
        let picture = LogMel::new(80).picture(&samples);
        assert_eq!(picture.len(), 80 * 50);
        for row in picture.chunks_exact(50) {
            let mean = row.iter().sum::<f32>() / 50.0;
            let deviation = (row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 49.0).sqrt();
            assert!(mean.abs() < 1e-4 && (deviation - 1.0).abs() < 1e-3, "{mean} {deviation}");
        }
    }

    #[test]
    fn too_little_for_a_frame_is_no_picture() {
        assert!(LogMel::new(80).picture(&[0.1; 100]).is_empty());
        assert!(LogMel::new(80).picture(&[0.0; 160]).iter().all(|x| x.is_finite()));
    }
}
