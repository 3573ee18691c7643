//! Speech regions from frames. The whole call is at hand, so a frame is judged by what comes after it as well.

use super::Region;
use super::features::{Analyser, BANDS, Frame, HOP};
use super::network;

const FRAME_MS: u64 = 10;
const _: () = assert!(HOP as u64 * 1000 == FRAME_MS * super::SPEECH_RATE_HZ as u64);
/// Frames looked at on either side of the one that is judged.
const REACH: usize = 160;
/// Frames judged at a time.
const BATCH: usize = 2_000;
/// The noise floor of a band is the lowest of its smoothed levels, in steps of this many frames.
const STEP: usize = 10;
/// Steps on either side that a noise floor is looked for in: 1.5 s.
const FLOOR_STEPS: usize = 15;

/// A frame begins a region above the first score and ends it under the second.
const BEGIN: f32 = 0.6;
const END: f32 = 0.4;
/// Pauses shorter than this are part of a turn, frames.
const PAUSE: usize = 20;
/// Anything shorter is no speech, frames.
const SHORTEST: usize = 10;

/// Finds the regions of one leg.
pub struct Detector {
    analyser: Analyser,
    frames: Vec<Frame>,
    /// Frames judged and forgotten.
    gone: usize,
    scores: Vec<u8>,
}

impl Detector {
    pub fn new() -> Self {
        Self { analyser: Analyser::new(), frames: Vec::new(), gone: 0, scores: Vec::new() }
    }

    pub fn push(&mut self, samples: &[f32]) {
        self.analyser.push(samples, &mut self.frames);
        if self.frames.len() >= BATCH + 2 * REACH {
            self.judge(self.frames.len() - REACH);
        }
    }

    /// The regions of the whole leg.
    pub fn finish(mut self) -> Vec<Region> {
        self.judge(self.frames.len());
        regions(&self.scores)
    }

    /// Scores the frames up to `end`, and forgets those that no later one looks back to.
    fn judge(&mut self, end: usize) {
        let floors = floors(&self.frames);
        let seen: Vec<network::Seen> =
            self.frames.iter().enumerate().map(|(at, frame)| network::Seen::of(frame, &floors[at / STEP])).collect();
        for at in self.scores.len() - self.gone..end {
            self.scores.push((network::speech(&seen, at) * 255.0) as u8);
        }
        // A whole number of steps, or the floors would move.
        let forget = end.saturating_sub(REACH) / STEP * STEP;
        self.frames.drain(..forget);
        self.gone += forget;
    }
}

/// For every [`STEP`] frames the noise floor of each band.
fn floors(frames: &[Frame]) -> Vec<[f32; BANDS]> {
    let smooth = |at: usize, band: usize| {
        let near = &frames[at.saturating_sub(2)..(at + 3).min(frames.len())];
        near.iter().map(|frame| frame.bands[band]).sum::<f32>() / near.len() as f32
    };
    let lowest = |step: usize| {
        let mut low = [f32::INFINITY; BANDS];
        for at in step * STEP..((step + 1) * STEP).min(frames.len()) {
            for (band, low) in low.iter_mut().enumerate() {
                *low = low.min(smooth(at, band));
            }
        }
        low
    };
    let steps: Vec<[f32; BANDS]> = (0..frames.len().div_ceil(STEP)).map(lowest).collect();
    let around = |step: usize| {
        let near = &steps[step.saturating_sub(FLOOR_STEPS)..(step + FLOOR_STEPS + 1).min(steps.len())];
        near.iter().fold([f32::INFINITY; BANDS], |mut low, other| {
            low.iter_mut().zip(other).for_each(|(low, other)| *low = low.min(*other));
            low
        })
    };
    (0..steps.len()).map(around).collect()
}

/// Hysteresis, then short pauses filled and short bursts dropped.
fn regions(scores: &[u8]) -> Vec<Region> {
    let (begin, end) = ((BEGIN * 255.0) as u8, (END * 255.0) as u8);
    let mut spans: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while at < scores.len() {
        if scores[at] < begin {
            at += 1;
            continue;
        }
        let last_end = spans.last().map_or(0, |span| span.1);
        let from = (last_end..at).rev().take_while(|n| scores[*n] >= end).last().unwrap_or(at);
        let to = (at..scores.len()).find(|n| scores[*n] < end).unwrap_or(scores.len());
        match spans.last_mut() {
            Some(last) if from - last.1 < PAUSE => last.1 = to,
            _ => spans.push((from, to)),
        }
        at = to;
    }
    let kept = spans.into_iter().filter(|(from, to)| to - from >= SHORTEST);
    // A frame is 25 ms long; its middle is 12 ms after its beginning.
    let region = |(from, to): (usize, usize)| Region {
        start_ms: from as u64 * FRAME_MS + 10,
        end_ms: to as u64 * FRAME_MS + 10,
    };
    kept.map(region).collect()
}
