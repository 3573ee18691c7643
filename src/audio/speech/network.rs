//! The first network: a small network for the speech score of a frame. `benches/training/train_speech.py` trains its weights
//! and holds the same features in Python.

use std::sync::LazyLock;

use super::dense::{Dense, numbers, relu};
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
    first: Dense,
    second: Dense,
    last: Dense,
}

static WEIGHTS: LazyLock<Weights> = LazyLock::new(|| {
    let bytes: &[u8; 4 * (INPUTS * FIRST + FIRST + FIRST * SECOND + SECOND + SECOND + 1)] =
        include_bytes!("weights.bin");
    let all = &mut numbers(bytes);
    Weights {
        first: Dense::take(all, INPUTS, FIRST),
        second: Dense::take(all, FIRST, SECOND),
        last: Dense::take(all, SECOND, 1),
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
    let first = WEIGHTS.first.outputs::<FIRST>(&input).map(relu);
    let second = WEIGHTS.second.outputs::<SECOND>(&first).map(relu);
    let [last] = WEIGHTS.last.outputs(&second);
    1.0 / (1.0 + (-last).exp())
}
