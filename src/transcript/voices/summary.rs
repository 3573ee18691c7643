//! What a stretch of speech sounds like in a few numbers. The same figures in Python, and the weights, are those of
//! `tests/calls/train_voices.py`.

use std::sync::LazyLock;

use crate::audio::speech::features::BANDS;
use crate::audio::speech::features::Frame;

pub const CEPSTRA: usize = 14;
const FIGURES: usize = 2 * CEPSTRA + 2;
pub const DIMENSIONS: usize = 12;
/// Frames more than this under the loudest of their stretch are pauses, dB.
const RANGE_DB: f32 = 25.0;
/// Voiced from this height of the autocorrelation's peak on.
const VOICED: f32 = 0.55;
const FEWEST_VOICED: usize = 5;

/// One frame.
#[derive(Debug, Clone, Copy)]
pub struct Cepstra {
    pub values: [f32; CEPSTRA],
    level_db: f32,
    /// Natural logarithm of the period in samples, where there is one.
    period: Option<f32>,
}

static COSINES: LazyLock<[[f32; BANDS]; CEPSTRA]> = LazyLock::new(|| {
    let mut cosines = [[0.0; BANDS]; CEPSTRA];
    for (n, row) in cosines.iter_mut().enumerate() {
        for (band, value) in row.iter_mut().enumerate() {
            let angle = std::f32::consts::PI * (n + 1) as f32 * (band as f32 + 0.5) / BANDS as f32;
            *value = angle.cos() * (2.0 / BANDS as f32).sqrt();
        }
    }
    cosines
});

impl Cepstra {
    pub fn of(frame: &Frame) -> Self {
        let mut values = [0.0; CEPSTRA];
        for (value, cosines) in values.iter_mut().zip(COSINES.iter()) {
            *value = cosines.iter().zip(&frame.bands).map(|(cosine, band)| cosine * band).sum();
        }
        let period = (frame.periodic > VOICED).then(|| f32::from(frame.period).ln());
        Self { values, level_db: frame.level_db, period }
    }

    /// How much a frame counts when voices are compared: voiced ones carry most of what is a person's own.
    pub const fn weight(&self) -> f32 {
        if self.period.is_some() { 1.0 } else { 0.4 }
    }
}

/// A stretch in the directions in which voices differ, each in units of one voice's own variation.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub at: [f64; DIMENSIONS],
    /// Frames that it sums up.
    pub weight: f64,
    figures: [f64; FIGURES],
    has_pitch: bool,
}

static DIRECTIONS: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let bytes: &[u8; 4 * FIGURES * DIMENSIONS] = include_bytes!("weights.bin");
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
});

/// Sums a stretch up. Without any voiced frame its pitch is left open: see [`settle`].
pub fn point(frames: &[Cepstra]) -> Point {
    let loudest = frames.iter().map(|frame| frame.level_db).fold(f32::MIN, f32::max);
    let loud: Vec<&Cepstra> = frames.iter().filter(|frame| frame.level_db > loudest - RANGE_DB).collect();
    let mut figures = [0.0; FIGURES];
    for n in 0..CEPSTRA {
        (figures[n], figures[CEPSTRA + n]) = mean_and_spread(loud.iter().map(|frame| frame.values[n]));
    }
    let has_pitch = loud.iter().filter(|frame| frame.period.is_some()).count() >= FEWEST_VOICED;
    if has_pitch {
        (figures[2 * CEPSTRA], figures[2 * CEPSTRA + 1]) =
            mean_and_spread(loud.iter().filter_map(|frame| frame.period));
    }
    Point { at: [0.0; DIMENSIONS], weight: frames.len() as f64, figures, has_pitch }
}

/// Gives the points without pitch the mean pitch of the others, and all of them their place.
pub fn settle(points: &mut [Point]) {
    let with: Vec<&Point> = points.iter().filter(|point| point.has_pitch).collect();
    let mean = |n: usize| with.iter().map(|point| point.figures[n]).sum::<f64>() / with.len().max(1) as f64;
    let pitch = [mean(2 * CEPSTRA), mean(2 * CEPSTRA + 1)];
    for point in points {
        if !point.has_pitch {
            point.figures[2 * CEPSTRA..].copy_from_slice(&pitch);
        }
        for (at, direction) in point.at.iter_mut().zip(DIRECTIONS.chunks_exact(FIGURES)) {
            *at = direction.iter().zip(&point.figures).map(|(weight, figure)| f64::from(*weight) * figure).sum();
        }
    }
}

fn mean_and_spread(values: impl Iterator<Item = f32>) -> (f64, f64) {
    let (mut count, mut sum, mut squares) = (0.0_f64, 0.0, 0.0);
    for value in values.map(f64::from) {
        count += 1.0;
        sum += value;
        squares += value * value;
    }
    let mean = sum / count.max(1.0);
    (mean, (squares / count.max(1.0) - mean * mean).max(0.0).sqrt())
}
