//! What a frame, and a stretch of about a second, sound like as far as it tells voices apart.

use std::sync::LazyLock;

use crate::audio::speech::features::BANDS;
use crate::audio::speech::features::Frame;

pub use super::network::DIMENSIONS;

use super::network;

pub const CEPSTRA: usize = 14;
/// Pitch is counted in octaves above this one, those above 1 Hz.
const MIDDLE: f32 = 7.3;

/// One frame.
#[derive(Debug, Clone, Copy)]
pub struct Sound {
    /// Natural logarithm of the power in each band.
    pub bands: [f32; BANDS],
    pub cepstra: [f32; CEPSTRA],
    /// Octaves above the middle of all voices, where there is a voice.
    pub pitch: Option<f32>,
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

impl Sound {
    /// `pitch` in octaves above 1 Hz.
    pub fn of(frame: &Frame, pitch: Option<f32>) -> Self {
        let mut cepstra = [0.0; CEPSTRA];
        for (value, cosines) in cepstra.iter_mut().zip(COSINES.iter()) {
            *value = cosines.iter().zip(&frame.bands).map(|(cosine, band)| cosine * band).sum();
        }
        Self { bands: frame.bands, cepstra, pitch: pitch.map(|octaves| octaves - MIDDLE) }
    }

    /// How much a frame counts when voices are compared: voiced ones carry most of what is a person's own.
    pub const fn weight(&self) -> f32 {
        if self.pitch.is_some() { 1.0 } else { 0.4 }
    }
}

/// A stretch in the space in which voices are told apart.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub at: [f64; DIMENSIONS],
    /// Frames that it sums up.
    pub weight: f64,
    pub pitch: Pitch,
}

/// The pitches of a stretch, summed up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pitch {
    pub voiced: f64,
    sum: f64,
    squares: f64,
}

impl Pitch {
    fn of(frames: &[Sound]) -> Self {
        let pitches = frames.iter().filter_map(|frame| frame.pitch).map(f64::from);
        pitches.fold(Self::default(), |sum, pitch| sum.and(Self { voiced: 1.0, sum: pitch, squares: pitch * pitch }))
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { voiced: self.voiced + other.voiced, sum: self.sum + other.sum, squares: self.squares + other.squares }
    }

    pub fn mean(self) -> f64 {
        self.sum / self.voiced.max(1.0)
    }

    /// Squares of the distances from the mean, summed up.
    pub fn scatter(self) -> f64 {
        self.squares - self.sum * self.mean()
    }
}

/// Sums a stretch up; `None` where it is empty.
pub fn point(frames: &[Sound]) -> Option<Point> {
    network::point(frames).map(|at| Point { at, weight: frames.len() as f64, pitch: Pitch::of(frames) })
}
