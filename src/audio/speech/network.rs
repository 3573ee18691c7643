//! The first network: a small network for the speech score of a frame. `benches/training/train_speech.py` trains its weights
//! and holds the same features in Python.

use std::sync::LazyLock;

use super::features::{BANDS, Frame};

/// Frames in the input, relative to the scored frame.
const OFFSETS: [isize; 9] = [-24, -12, -6, -3, 0, 3, 6, 12, 24];
/// Frames on either side for mean and spread.
const WIDE: usize = 64;
/// Frames on either side that affect a score.
pub(super) const REACH: usize = WIDE;
/// Inputs of one frame, and figures of its surroundings.
const ROW: usize = BANDS + 3;
const FIGURES: usize = 4;
const INPUTS: usize = ROW * OFFSETS.len() + 2 * FIGURES;
const FIRST: usize = 32;
const SECOND: usize = 16;
/// Limit on the level above the noise floor, natural logarithm of power. More carries no information.
const MOST_ABOVE: f32 = 8.0;

/// Inputs from one frame: bands above the noise floor, then the tonal figures.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameInput {
    row: [f32; ROW],
    figures: [f32; FIGURES],
}

impl FrameInput {
    pub(super) fn of(frame: &Frame, floor: &[f32; BANDS]) -> Self {
        let mut row = [0.0; ROW];
        for ((out, level), floor) in row.iter_mut().zip(&frame.bands).zip(floor) {
            *out = (level - floor).clamp(0.0, MOST_ABOVE) / 4.0;
        }
        let mean = row[..BANDS].iter().sum::<f32>() / BANDS as f32;
        let tonal = [frame.peaks, frame.held, frame.periodic];
        row[BANDS..].copy_from_slice(&tonal);
        Self { row, figures: [mean, tonal[0], tonal[1], tonal[2]] }
    }

    /// Mean level of the bands above their noise floors.
    pub(super) const fn above(&self) -> f32 {
        self.figures[0]
    }
}

struct Weights {
    first: Vec<f32>,
    first_bias: Vec<f32>,
    second: Vec<f32>,
    second_bias: Vec<f32>,
    last: Vec<f32>,
    last_bias: f32,
}

static WEIGHTS: LazyLock<Weights> = LazyLock::new(|| {
    let bytes: &[u8; 4 * (INPUTS * FIRST + FIRST + FIRST * SECOND + SECOND + SECOND + 1)] =
        include_bytes!("weights.bin");
    let mut all = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let mut take = |count: usize| all.by_ref().take(count).collect::<Vec<f32>>();
    Weights {
        first: take(INPUTS * FIRST),
        first_bias: take(FIRST),
        second: take(FIRST * SECOND),
        second_bias: take(SECOND),
        last: take(SECOND),
        last_bias: take(1)[0],
    }
});

/// Speech score of the frame at `at`, 0 to 1.
pub(super) fn speech(seen: &[FrameInput], at: usize) -> f32 {
    let mut input = [0.0f32; INPUTS];
    for (part, offset) in input.chunks_exact_mut(ROW).zip(OFFSETS) {
        part.copy_from_slice(&seen[at.saturating_add_signed(offset).min(seen.len() - 1)].row);
    }
    let near = &seen[at.saturating_sub(WIDE)..(at + WIDE + 1).min(seen.len())];
    let (mut sum, mut squares) = ([0.0f32; FIGURES], [0.0f32; FIGURES]);
    for frame in near {
        for n in 0..FIGURES {
            sum[n] += frame.figures[n];
            squares[n] += frame.figures[n] * frame.figures[n];
        }
    }
    for n in 0..FIGURES {
        let (mean, square) = (sum[n] / near.len() as f32, squares[n] / near.len() as f32);
        input[ROW * OFFSETS.len() + n] = mean;
        input[ROW * OFFSETS.len() + FIGURES + n] = (square - mean * mean).max(0.0).sqrt();
    }
    let first = layer::<FIRST>(&input, &WEIGHTS.first, &WEIGHTS.first_bias);
    let second = layer::<SECOND>(&first, &WEIGHTS.second, &WEIGHTS.second_bias);
    let last = dot(&second, &WEIGHTS.last) + WEIGHTS.last_bias;
    1.0 / (1.0 + (-last).exp())
}

/// A dense layer with negative sums set to zero. The weights of one output are contiguous.
fn layer<const OUT: usize>(input: &[f32], weights: &[f32], bias: &[f32]) -> [f32; OUT] {
    let mut out = [0.0; OUT];
    for ((out, weights), bias) in out.iter_mut().zip(weights.chunks_exact(input.len())).zip(bias) {
        *out = (dot(input, weights) + bias).max(0.0);
    }
    out
}

/// Eight parallel sums. A single sum would be a serial chain.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for n in 0..8 {
            lanes[n] += a[n] * b[n];
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}
