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
/// The other leg is this much louder where this one only hears it, half decibels.
const CROSS_TALK: u8 = 24;
/// Frames around a key's tone that are its beginning and end, and the pause to the next key.
const KEY_REACH: usize = 8;
/// Frames of them that make it a key: one or two are a vowel's accident.
const KEY_FRAMES: usize = 3;
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
    levels: Vec<Level>,
}

/// Level of a frame in half decibels above -100 dB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Level(u8);

impl Level {
    fn of(frame: &Frame) -> Self {
        Self(((frame.level_db + 100.0) * 2.0) as u8)
    }

    fn decibels(self) -> f32 {
        f32::from(self.0) * 0.5 - 100.0
    }
}

/// The judged frames of one leg.
#[derive(Debug)]
pub struct Track {
    scores: Vec<u8>,
    levels: Vec<Level>,
}

impl Detector {
    pub fn new() -> Self {
        Self { analyser: Analyser::default(), frames: Vec::new(), gone: 0, scores: Vec::new(), levels: Vec::new() }
    }

    pub fn push(&mut self, samples: &[f32]) {
        self.analyser.push(samples, &mut self.frames);
        if self.frames.len() >= BATCH + 2 * REACH {
            self.judge(self.frames.len() - REACH);
        }
    }

    pub fn finish(mut self) -> Track {
        self.judge(self.frames.len());
        Track { scores: self.scores, levels: self.levels }
    }

    /// Scores the frames up to `end`, and forgets those that no later one looks back to.
    fn judge(&mut self, end: usize) {
        let floors = floors(&self.frames);
        let seen: Vec<network::Seen> =
            self.frames.iter().enumerate().map(|(at, frame)| network::Seen::of(frame, &floors[at / STEP])).collect();
        for at in self.scores.len() - self.gone..end {
            let near = &self.frames[at.saturating_sub(KEY_REACH)..(at + KEY_REACH + 1).min(self.frames.len())];
            let pressed = near.iter().filter(|frame| frame.key).count() >= KEY_FRAMES;
            self.scores.push(if pressed { 0 } else { (network::speech(&seen, at) * 255.0) as u8 });
            self.levels.push(Level::of(&self.frames[at]));
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

impl Track {
    /// The regions of the whole leg.
    pub fn regions(&self) -> Vec<Region> {
        regions(&self.scores)
    }

    /// The level this leg speaks at: the loudest tenth of its own frames, those in which the other leg is not much louder.
    fn own_level(&self, other: &Self) -> Option<f32> {
        let begin = (BEGIN * 255.0) as u8;
        let own = |at: &usize| {
            let louder =
                other.levels.get(*at).is_some_and(|level| level.0 >= self.levels[*at].0.saturating_add(CROSS_TALK));
            self.scores[*at] >= begin && !louder
        };
        let mut levels: Vec<Level> = (0..self.levels.len()).filter(own).map(|at| self.levels[at]).collect();
        levels.sort_unstable();
        // A quarter of a second of it, or there is nothing to go by.
        (levels.len() >= 25).then(|| levels[levels.len() * 9 / 10].decibels())
    }
}

/// Silences what one leg hears of the other: frames in which the other is 12 dB louder, both measured against the level
/// at which each speaks, so that a caller who is merely quiet is not taken for an echo of the agent.
pub fn drop_cross_talk(left: &mut Track, right: &mut Track) {
    let difference = match (left.own_level(right), right.own_level(left)) {
        (Some(left), Some(right)) => left - right,
        _ => 0.0,
    };
    let smooth = |track: &Track, at: usize| {
        let near = &track.levels[at.saturating_sub(4)..(at + 5).min(track.levels.len())];
        near.iter().map(|level| level.decibels()).fold(f32::MIN, f32::max)
    };
    let threshold = f32::from(CROSS_TALK) * 0.5;
    let frames = left.levels.len().min(right.levels.len());
    let louder: Vec<f32> = (0..frames).map(|at| smooth(left, at) - smooth(right, at) - difference).collect();
    for (at, louder) in louder.into_iter().enumerate() {
        if louder >= threshold && right.scores[at] > 0 && left.scores[at] > right.scores[at] / 2 {
            right.scores[at] = 0;
        } else if louder <= -threshold && right.scores[at] > left.scores[at] / 2 {
            left.scores[at] = 0;
        }
    }
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
