//! A small network that computes the embedding of a speech segment of about a second. Embeddings of one voice are about
//! 1 apart, those of two voices farther. `benches/training/train_voices.py` trains its weights and holds the same
//! computation in Python.

use std::sync::LazyLock;

use super::frame::VoiceFrame;
use crate::audio::speech::dense::{Dense, numbers, relu};
use crate::audio::speech::features::BANDS;

/// Length of an embedding.
pub(super) const DIMENSIONS: usize = 24;
/// Inputs per frame: the bands, a voicing flag and the pitch.
const SEEN: usize = BANDS + 2;
const WIDTH: usize = 48;
/// Taps of the three layers, and their dilation in frames.
const LAYERS: [(usize, usize); 3] = [(5, 1), (3, 2), (3, 3)];
/// Means and standard deviations of the last layer, mean and deviation of pitch, and the voiced share.
const SUMMED: usize = 2 * WIDTH + 3;
/// Frames below the loudest by more than this (natural logarithm of power) are pauses.
const RANGE: f32 = 6.0;
/// Weight of an unvoiced frame.
const UNVOICED: f32 = 0.3;
const WEIGHTS: usize = WIDTH * (5 * SEEN + 1) + 2 * WIDTH * (3 * WIDTH + 1) + DIMENSIONS * (SUMMED + 1);

struct EmbeddingNetwork {
    layers: [Dense; LAYERS.len()],
    last: Dense,
}

static NETWORK: LazyLock<EmbeddingNetwork> = LazyLock::new(|| {
    let bytes: &[u8; 4 * WEIGHTS] = include_bytes!("weights.bin");
    let all = &mut numbers(bytes);
    let mut inputs = SEEN;
    let layers = LAYERS.map(|(taps, _)| Dense::take(all, taps * std::mem::replace(&mut inputs, WIDTH), WIDTH));
    EmbeddingNetwork { layers, last: Dense::take(all, SUMMED, DIMENSIONS) }
});

/// The embedding of a segment. `None` if it is empty.
pub(super) fn point(frames: &[VoiceFrame]) -> Option<[f64; DIMENSIONS]> {
    let loudness: Vec<f32> = frames.iter().map(|frame| mean(&frame.bands)).collect();
    let loudest = loudness.iter().copied().reduce(f32::max)?;
    let weigh = |(frame, level): (&VoiceFrame, &f32)| {
        let counts = if frame.pitch.is_some() { 1.0 } else { UNVOICED };
        if *level > loudest - RANGE { counts } else { 0.0 }
    };
    let weights: Vec<f32> = frames.iter().zip(&loudness).map(weigh).collect();
    let all: f32 = weights.iter().sum();
    let level = weights.iter().zip(&loudness).map(|(weight, level)| weight * level).sum::<f32>() / all;
    let mut rows: Vec<f32> = Vec::with_capacity(frames.len() * SEEN);
    for frame in frames {
        rows.extend(frame.bands.iter().map(|band| (band - level) / 3.0));
        rows.extend([f32::from(u8::from(frame.pitch.is_some())), 2.0 * frame.pitch.unwrap_or(0.0)]);
    }
    for (layer, (taps, apart)) in NETWORK.layers.iter().zip(LAYERS) {
        rows = convolve(layer, &rows, frames.len(), taps, apart);
    }
    let mut summed = [0.0; SUMMED];
    let (means, rest) = summed.split_at_mut(WIDTH);
    let (spreads, pitch) = rest.split_at_mut(WIDTH);
    for (row, weight) in rows.chunks_exact(WIDTH).zip(&weights) {
        for n in 0..WIDTH {
            means[n] += weight / all * row[n];
            spreads[n] += weight / all * row[n] * row[n];
        }
    }
    for (spread, mean) in spreads.iter_mut().zip(means) {
        *spread = (*spread - *mean * *mean).max(1e-4).sqrt();
    }
    let voiced: Vec<f32> = frames.iter().filter_map(|frame| frame.pitch).collect();
    let count = voiced.len().max(1) as f32;
    let height = voiced.iter().sum::<f32>() / count;
    let moves = voiced.iter().map(|pitch| pitch * pitch).sum::<f32>() / count - height * height;
    pitch.copy_from_slice(&[2.0 * height, 2.0 * moves.max(1e-5).sqrt(), voiced.len() as f32 / frames.len() as f32]);
    Some(NETWORK.last.outputs(&summed).map(f64::from))
}

/// Dilated convolution with ReLU over rows `apart` from each other. The input is padded with zeros.
fn convolve(layer: &Dense, rows: &[f32], count: usize, taps: usize, apart: usize) -> Vec<f32> {
    let width = rows.len() / count.max(1);
    let reach = taps / 2 * apart;
    let mut padded = vec![0.0; reach * width];
    padded.extend_from_slice(rows);
    padded.resize((count + 2 * reach) * width, 0.0);
    let mut near = vec![0.0; taps * width];
    let mut out = Vec::with_capacity(count * WIDTH);
    for at in 0..count {
        for (tap, near) in near.chunks_exact_mut(width).enumerate() {
            let from = (at + tap * apart) * width;
            near.copy_from_slice(&padded[from..from + width]);
        }
        out.extend(layer.sums(&near).map(relu));
    }
    out
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}
