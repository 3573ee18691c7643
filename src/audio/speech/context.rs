//! The second network, with a context of some seconds on both sides. It rejects music and other pitched sounds that
//! resemble speech. Its first layer covers neighbouring steps. Each later layer reaches twice as far.
//! `benches/training/train_context.py` trains the weights and holds the same network and features in Python.

use std::sync::LazyLock;

use super::dense::numbers;
use super::features::Frame;
use super::lines::{GROUPS, Line};

/// Inputs per step. A step covers the frames of one long window.
const INPUTS: usize = 7 + 2 * GROUPS;
const CHANNELS: usize = 24;
/// Taps of a layer, and the distance of its taps in steps.
const TAPS: usize = 5;
const DILATIONS: [usize; 5] = [2, 4, 8, 16, 32];
/// A step gets the best score within this many steps, two seconds. This keeps the ends of a turn, cut words and words
/// in noise in their speech region.
const EASE: usize = 50;
/// Steps on either side that affect a score.
pub(super) const REACH: usize = TAPS / 2 * (1 + sum(&DILATIONS)) + EASE + 1;
/// Periodicity from which a frame is voiced.
const VOICED: f32 = 0.6;
/// A pitch is constant when it moves by no more than 0.2 % in 40 ms.
const STILL: f32 = 0.01;
const FLOATS: usize = 2 * INPUTS
    + TAPS * INPUTS * CHANNELS
    + CHANNELS
    + DILATIONS.len() * (TAPS + CHANNELS + 1) * CHANNELS
    + CHANNELS
    + 1;

const fn sum(all: &[usize]) -> usize {
    let (mut sum, mut at) = (0, 0);
    while at < all.len() {
        sum += all[at];
        at += 1;
    }
    sum
}

/// Inputs of the network for one step.
pub(super) type StepInput = [f32; INPUTS];
type ChannelRow = [f32; CHANNELS];

/// The inputs from the frames of a step: means of the first network's score, the level above the noise floor, the tonal
/// figures, constant pitch and pitch movement, then the figures of the long window. The result is normalised.
pub(super) fn step(frames: &[Frame], scores: &[f32], above: &[f32], line: &Line) -> StepInput {
    let mut sum = [0.0; INPUTS];
    for ((frame, score), above) in frames.iter().zip(scores).zip(above) {
        let voiced = frame.periodic > VOICED;
        let still = f32::from(u8::from(voiced && frame.pitch_step < STILL));
        let moved = if voiced { frame.pitch_step } else { 0.0 };
        let seen = [*score, *above, frame.peaks, frame.held, frame.periodic, still, moved];
        sum.iter_mut().zip(seen).for_each(|(sum, value)| *sum += value);
    }
    let weights = &*WEIGHTS;
    let mut step = sum.map(|value| value / frames.len().max(1) as f32);
    step[INPUTS - line.len()..].copy_from_slice(line);
    for ((value, mean), scale) in step.iter_mut().zip(&weights.mean).zip(&weights.scale) {
        *value = (*value - mean) * scale;
    }
    step
}

/// A residual layer: a convolution along the steps per channel, then a layer across the channels.
struct Residual {
    apart: usize,
    along: Vec<ChannelRow>,
    across: Vec<ChannelRow>,
    bias: ChannelRow,
}

struct Weights {
    mean: Vec<f32>,
    scale: Vec<f32>,
    /// By tap, then by input.
    first: Vec<ChannelRow>,
    first_bias: ChannelRow,
    residual: Vec<Residual>,
    last: ChannelRow,
    last_bias: f32,
}

static WEIGHTS: LazyLock<Weights> = LazyLock::new(|| {
    let bytes: &[u8; 4 * FLOATS] = include_bytes!("context.bin");
    let mut all = numbers(bytes);
    let (mean, scale) = (floats(&mut all, INPUTS), floats(&mut all, INPUTS));
    let (first, first_bias) = (rows(&mut all, TAPS * INPUTS), row(&mut all));
    let residual = DILATIONS.map(|apart| Residual {
        apart,
        along: rows(&mut all, TAPS),
        across: rows(&mut all, CHANNELS),
        bias: row(&mut all),
    });
    Weights {
        mean,
        scale,
        first,
        first_bias,
        residual: residual.into(),
        last: row(&mut all),
        last_bias: row::<1>(&mut all)[0],
    }
});

fn floats(all: &mut impl Iterator<Item = f32>, count: usize) -> Vec<f32> {
    all.by_ref().take(count).collect()
}

fn row<const N: usize>(all: &mut impl Iterator<Item = f32>) -> [f32; N] {
    let mut row = [0.0; N];
    row.iter_mut().zip(all).for_each(|(out, value)| *out = value);
    row
}

fn rows<const N: usize>(all: &mut impl Iterator<Item = f32>, count: usize) -> Vec<[f32; N]> {
    (0..count).map(|_| row(all)).collect()
}

/// Speech score of each step, 0 to 1. Steps outside `seen` count as the mean of all sounds. A score nearer than
/// [`REACH`] to an end of `seen` is valid only where the recording ends there too.
pub(super) fn speech(seen: &[StepInput]) -> Vec<f32> {
    eased(&scores(seen))
}

/// The scores of single steps, without the maximum over nearby steps.
pub(super) fn scores(seen: &[StepInput]) -> Vec<f32> {
    let weights = &*WEIGHTS;
    let mut rows: Vec<ChannelRow> = (0..seen.len()).map(|at| first(weights, seen, at)).collect();
    let mut next = rows.clone();
    for layer in &weights.residual {
        for (at, out) in next.iter_mut().enumerate() {
            *out = residual(layer, &rows, at);
        }
        std::mem::swap(&mut rows, &mut next);
    }
    rows.iter().map(|row| score(weights, row)).collect()
}

/// Means of three scores, then the maximum of the means nearby.
fn eased(scores: &[f32]) -> Vec<f32> {
    let near = |of: &[f32], at: usize, reach: usize| at.saturating_sub(reach)..(at + reach + 1).min(of.len());
    let mean = |at: usize| {
        let part = &scores[near(scores, at, 1)];
        part.iter().sum::<f32>() / part.len() as f32
    };
    let means: Vec<f32> = (0..scores.len()).map(mean).collect();
    (0..means.len()).map(|at| means[near(&means, at, EASE)].iter().copied().fold(0.0, f32::max)).collect()
}

/// The steps under the taps of a layer, each with its tap number.
fn taps(at: usize, apart: usize, steps: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..TAPS).filter_map(move |tap| {
        let there = (at + tap * apart).checked_sub(TAPS / 2 * apart)?;
        (there < steps).then_some((tap, there))
    })
}

fn first(weights: &Weights, seen: &[StepInput], at: usize) -> ChannelRow {
    let mut out = weights.first_bias;
    for (tap, there) in taps(at, 1, seen.len()) {
        add(&mut out, &seen[there], &weights.first[tap * INPUTS..(tap + 1) * INPUTS]);
    }
    out.map(|value| value.max(0.0))
}

fn residual(layer: &Residual, rows: &[ChannelRow], at: usize) -> ChannelRow {
    let mut along = [0.0; CHANNELS];
    for (tap, there) in taps(at, layer.apart, rows.len()) {
        for n in 0..CHANNELS {
            along[n] += rows[there][n] * layer.along[tap][n];
        }
    }
    let mut out = layer.bias;
    add(&mut out, &along, &layer.across);
    let mut sum = rows[at];
    sum.iter_mut().zip(out).for_each(|(sum, out)| *sum += out.max(0.0));
    sum
}

fn score(weights: &Weights, row: &ChannelRow) -> f32 {
    let last: f32 = row.iter().zip(&weights.last).map(|(value, weight)| value * weight).sum();
    1.0 / (1.0 + (-last - weights.last_bias).exp())
}

/// Adds each input to all outputs. The sums are independent of each other, so they run in parallel.
fn add<const OUT: usize>(out: &mut [f32; OUT], input: &[f32], weights: &[[f32; OUT]]) {
    for (value, weights) in input.iter().zip(weights) {
        for n in 0..OUT {
            out[n] += value * weights[n];
        }
    }
}
