//! Pitch tracker with 10 ms steps: normalised cross-correlation at 4 kHz (Talkin's form), then the cheapest path
//! through its peaks, so that an octave jump costs more than it gains. `benches/training/voices.py` holds the same
//! computation in Python.

use std::sync::LazyLock;

/// Every fourth sample of 16 kHz after a low pass. A telephone transmits the harmonics, not the fundamental.
const EVERY: usize = 4;
const RATE_HZ: f32 = 4_000.0;
const HOP: usize = 40;
/// Samples compared with those one period later.
const WINDOW: usize = 120;
/// Shortest and longest period in samples: 400 Hz to 70 Hz.
const SHORTEST: usize = 10;
const LONGEST: usize = 57;
/// One more period on each side, to find peaks at the limits.
const LAGS: usize = LONGEST - SHORTEST + 3;
const REACH: usize = WINDOW + LONGEST + 1;
const TAPS: usize = 63;
const CUTOFF_HZ: f32 = 900.0;
/// Peaks followed in each frame.
const PEAKS: usize = 5;
/// A long period loses up to this share of its height, so that twice the true period does not win.
const LONG: f32 = 0.25;
/// Cost of the start and end of voicing, and of a pitch change: per octave, and at most.
const ONSET: f32 = 0.25;
const PER_OCTAVE: f32 = 2.1;
const MOST: f32 = 1.4;
/// Offset of the unvoiced cost from the height of the strongest peak.
const UNVOICED: f32 = 0.05;
const QUIET: f32 = 1e-7;

static LOW_PASS: LazyLock<[f32; TAPS]> = LazyLock::new(|| {
    let cutoff = 2.0 * f64::from(CUTOFF_HZ) / 16_000.0;
    let tap = |n: usize| {
        let at = n as f64 - (TAPS - 1) as f64 / 2.0;
        let angle = std::f64::consts::PI * cutoff * at;
        let sinc = if at == 0.0 { 1.0 } else { angle.sin() / angle };
        sinc * (0.54 - 0.46 * (std::f64::consts::TAU * n as f64 / (TAPS - 1) as f64).cos())
    };
    let sum: f64 = (0..TAPS).map(tap).sum();
    std::array::from_fn(|n| (tap(n) / sum) as f32)
});

/// A peak of the correlation.
#[derive(Debug, Clone, Copy)]
struct Peak {
    /// Base-2 logarithm of the frequency: octaves above 1 Hz.
    octaves: f32,
    cost: f32,
}

/// Pitch in octaves above 1 Hz, `None` for unvoiced frames. Frame `n` is centred on sample `160 n` at 16 kHz.
pub(super) fn track(samples: &[f32]) -> Vec<Option<f32>> {
    let low = decimated(samples);
    let count = low.len() / HOP;
    let mut padded = vec![0.0; REACH / 2];
    padded.extend_from_slice(&low);
    padded.resize(count * HOP + 2 * REACH, 0.0);
    let frames: Vec<(f32, Vec<Peak>)> = (0..count).map(|n| peaks(&padded[n * HOP..n * HOP + REACH])).collect();
    cheapest(&frames)
}

fn decimated(samples: &[f32]) -> Vec<f32> {
    let half = TAPS / 2;
    let at = |n: usize| {
        let from = (n * EVERY).saturating_sub(half);
        let taps = LOW_PASS.iter().skip(half.saturating_sub(n * EVERY));
        taps.zip(&samples[from..]).map(|(tap, sample)| tap * sample).sum()
    };
    (0..samples.len().div_ceil(EVERY)).map(at).collect()
}

/// The cost of an unvoiced frame, and the strongest peaks.
fn peaks(samples: &[f32]) -> (f32, Vec<Peak>) {
    let mean = samples.iter().sum::<f32>() / samples.len() as f32;
    let samples: Vec<f32> = samples.iter().map(|sample| sample - mean).collect();
    let energy = |from: usize| samples[from..from + WINDOW].iter().map(|sample| sample * sample).sum::<f32>();
    let first = energy(0);
    let mut heights = [0.0; LAGS];
    for (n, height) in heights.iter_mut().enumerate() {
        let lag = SHORTEST - 1 + n;
        let product: f32 = samples[..WINDOW].iter().zip(&samples[lag..]).map(|(a, b)| a * b).sum();
        *height = product / ((first + QUIET) * (energy(lag) + QUIET)).sqrt();
    }
    let worth = |n: usize| heights[n] * (1.0 - LONG * (SHORTEST - 1 + n) as f32 / LONGEST as f32);
    let is_peak = |n: &usize| heights[*n] >= heights[n - 1] && heights[*n] > heights[n + 1];
    let mut found: Vec<usize> = (1..LAGS - 1).filter(is_peak).collect();
    found.sort_by(|a, b| worth(*b).total_cmp(&worth(*a)));
    found.truncate(PEAKS);
    let highest = found.iter().map(|n| heights[*n]).fold(0.0, f32::max);
    let peak = |n: usize| {
        let (left, here, right) = (heights[n - 1], heights[n], heights[n + 1]);
        let period = (SHORTEST - 1 + n) as f32 + 0.5 * (left - right) / (left - 2.0 * here + right - 1e-12);
        Peak { octaves: (RATE_HZ / period).log2(), cost: 1.0 - here * (1.0 - LONG * period / LONGEST as f32) }
    };
    (highest - UNVOICED, found.into_iter().map(peak).collect())
}

/// The cheapest path through peaks and unvoiced frames (Viterbi's algorithm).
fn cheapest(frames: &[(f32, Vec<Peak>)]) -> Vec<Option<f32>> {
    // The first state is unvoiced; the others are the peaks of the frame.
    let mut costs: Vec<f32> = vec![0.0];
    let mut came_from: Vec<Vec<usize>> = Vec::with_capacity(frames.len());
    let mut before: &[Peak] = &[];
    for (silent, peaks) in frames {
        let best = |step: &dyn Fn(usize) -> f32| {
            let all = costs.iter().enumerate().map(|(from, cost)| (cost + step(from), from));
            all.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, 0))
        };
        let first = came_from.is_empty();
        let (cost, origin) = best(&|from| if from == 0 { 0.0 } else { ONSET });
        let (mut next, mut origins) = (vec![cost + silent], vec![origin]);
        for peak in peaks {
            let (cost, origin) = best(&|from| match from.checked_sub(1) {
                None if first => 0.0,
                None => ONSET,
                Some(from) => (PER_OCTAVE * (before[from].octaves - peak.octaves).abs()).min(MOST),
            });
            next.push(cost + peak.cost);
            origins.push(origin);
        }
        costs = next;
        came_from.push(origins);
        before = peaks;
    }
    let last = costs.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(state, _)| state);
    let mut state = last;
    let mut pitch = vec![None; frames.len()];
    for at in (0..frames.len()).rev() {
        pitch[at] = state.checked_sub(1).map(|peak| frames[at].1[peak].octaves);
        state = came_from[at][state];
    }
    pitch
}
