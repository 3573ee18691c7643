//! Features of a frame and of a speech segment for diarization.

use std::sync::LazyLock;

use crate::audio::speech::features::BANDS;
use crate::audio::speech::features::Frame;

pub use super::network::DIMENSIONS;

use super::network;

pub const CEPSTRA: usize = 14;
/// Reference pitch in octaves above 1 Hz.
const MIDDLE: f32 = 7.3;

/// The features of one frame.
#[derive(Debug, Clone, Copy)]
pub struct VoiceFrame {
    /// Natural logarithm of the power in each band.
    pub bands: [f32; BANDS],
    pub cepstra: [f32; CEPSTRA],
    /// Octaves above the reference pitch; `None` for an unvoiced frame.
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

impl VoiceFrame {
    /// `pitch` is in octaves above 1 Hz.
    pub fn of(frame: &Frame, pitch: Option<f32>) -> Self {
        let mut cepstra = [0.0; CEPSTRA];
        for (value, cosines) in cepstra.iter_mut().zip(COSINES.iter()) {
            *value = cosines.iter().zip(&frame.bands).map(|(cosine, band)| cosine * band).sum();
        }
        Self { bands: frame.bands, cepstra, pitch: pitch.map(|octaves| octaves - MIDDLE) }
    }

    /// Weight of a frame for diarization. Voiced frames carry most of the speaker's characteristics.
    pub const fn weight(&self) -> f32 {
        if self.pitch.is_some() { 1.0 } else { 0.4 }
    }
}

/// A segment in the embedding space.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub at: [f64; DIMENSIONS],
    /// Number of its frames.
    pub weight: f64,
    pub pitch: Pitch,
}

/// Sums over the pitches of a segment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pitch {
    pub voiced: f64,
    sum: f64,
    squares: f64,
}

impl Pitch {
    fn of(frames: &[VoiceFrame]) -> Self {
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

    /// Sum of squared deviations from the mean.
    pub fn scatter(self) -> f64 {
        self.squares - self.sum * self.mean()
    }
}

/// The embedding of a segment. `None` if it is empty.
pub fn point(frames: &[VoiceFrame]) -> Option<Point> {
    network::point(frames).map(|at| Point { at, weight: frames.len() as f64, pitch: Pitch::of(frames) })
}
