//! Features of a frame for diarization.

use std::sync::LazyLock;

use crate::audio::speech::features::BANDS;
use crate::audio::speech::features::Frame;

pub(super) const CEPSTRA: usize = 14;
/// Reference pitch in octaves above 1 Hz.
const MIDDLE: f32 = 7.3;

/// The features of one frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct VoiceFrame {
    /// Natural logarithm of the power in each band.
    pub(super) bands: [f32; BANDS],
    pub(super) cepstra: [f32; CEPSTRA],
    /// Octaves above the reference pitch; `None` for an unvoiced frame.
    pub(super) pitch: Option<f32>,
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
    pub(super) fn of(frame: &Frame, pitch: Option<f32>) -> Self {
        let mut cepstra = [0.0; CEPSTRA];
        for (value, cosines) in cepstra.iter_mut().zip(COSINES.iter()) {
            *value = cosines.iter().zip(&frame.bands).map(|(cosine, band)| cosine * band).sum();
        }
        Self { bands: frame.bands, cepstra, pitch: pitch.map(|octaves| octaves - MIDDLE) }
    }

    /// Weight of a frame for diarization. Voiced frames carry most of the speaker's characteristics.
    pub(super) const fn weight(&self) -> f32 {
        if self.pitch.is_some() { 1.0 } else { 0.4 }
    }
}
