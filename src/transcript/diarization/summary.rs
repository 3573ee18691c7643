//! Features of a speech segment for diarization.

use super::frame::VoiceFrame;
use super::network;
use super::network::DIMENSIONS;

/// A segment in the embedding space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) at: [f64; DIMENSIONS],
    /// Number of its frames.
    pub(super) weight: f64,
    pub(super) pitch: Pitch,
}

/// Sums over the pitches of a segment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pitch {
    pub(super) voiced: f64,
    sum: f64,
    squares: f64,
}

impl Pitch {
    fn of(frames: &[VoiceFrame]) -> Self {
        let pitches = frames.iter().filter_map(|frame| frame.pitch).map(f64::from);
        pitches.fold(Self::default(), |sum, pitch| sum.and(Self { voiced: 1.0, sum: pitch, squares: pitch * pitch }))
    }

    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        Self { voiced: self.voiced + other.voiced, sum: self.sum + other.sum, squares: self.squares + other.squares }
    }

    pub(super) fn mean(self) -> f64 {
        self.sum / self.voiced.max(1.0)
    }

    /// Sum of squared deviations from the mean.
    pub(super) fn scatter(self) -> f64 {
        self.squares - self.sum * self.mean()
    }
}

/// The embedding of a segment. `None` if it is empty.
pub(super) fn point(frames: &[VoiceFrame]) -> Option<Point> {
    network::point(frames).map(|at| Point { at, weight: frames.len() as f64, pitch: Pitch::of(frames) })
}
