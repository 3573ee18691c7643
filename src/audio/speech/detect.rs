//! Finds speech regions from frames. The score of a frame uses later frames too.

use super::context;
use super::features::{Analyser, BANDS, Frame, HOP};
use super::lines::{EVERY, Line, Lines};
use super::network;
use crate::domain::Segment;

const FRAME_MS: u64 = 10;
const _: () = assert!(HOP as u64 * 1000 == FRAME_MS * super::SPEECH_RATE_HZ as u64);
/// Frames needed on either side of a scored frame: the reach of the second network, the reach of the first network at
/// its outermost frames, and the reach of their noise floor.
const REACH: usize = EVERY * (context::REACH + 1) + network::REACH + STEP * (FLOOR_STEPS + 1);
/// Frames per batch. A batch is large, because the frames on either side are analysed again.
const BATCH: usize = 6_000;
/// Frames per step of the noise floor. The noise floor of a band is the lowest of its smoothed levels.
const STEP: usize = 10;
/// Steps on either side of the search for the noise floor: 1.5 s.
const FLOOR_STEPS: usize = 15;

/// A region begins above the first score and ends below the second.
pub(super) const BEGIN: f32 = 0.6;
const END: f32 = 0.4;
/// Frames around a DTMF tone that hold its start, its end and the pause to the next tone.
const KEY_REACH: usize = 8;
/// Frames with a DTMF tone that make a key press. One or two are chance in a vowel.
const KEY_FRAMES: usize = 3;
/// A shorter pause is part of a turn, frames.
const PAUSE: usize = 20;
/// A shorter region is not speech, frames.
const SHORTEST: usize = 10;

/// Finds the regions of one leg.
pub(super) struct Detector {
    analyser: Analyser,
    frames: Vec<Frame>,
    lines: Lines,
    /// Figures of the long window, one per [`EVERY`] frames.
    looks: Vec<Line>,
    /// Frames scored and dropped.
    gone: usize,
    scores: Vec<u8>,
    levels: Vec<Level>,
}

/// Level of a frame in half decibels above -100 dB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Level(u8);

impl Level {
    fn of(frame: &Frame) -> Self {
        Self(((frame.level_db + 100.0) * 2.0) as u8)
    }

    pub(super) fn decibels(self) -> f32 {
        f32::from(self.0) * 0.5 - 100.0
    }
}

/// Scores and levels of all frames of one leg.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) scores: Vec<u8>,
    pub(super) levels: Vec<Level>,
}

impl Detector {
    pub(super) fn new() -> Self {
        Self {
            analyser: Analyser::default(),
            frames: Vec::new(),
            lines: Lines::default(),
            looks: Vec::new(),
            gone: 0,
            scores: Vec::new(),
            levels: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, samples: &[f32]) {
        self.analyser.push(samples, &mut self.frames);
        self.lines.push(samples, &mut self.looks);
        // The last frames wait for their long window.
        let known = self.frames.len().min(self.looks.len() * EVERY);
        if known >= BATCH + 2 * REACH {
            self.judge(known, known - REACH);
        }
    }

    pub(super) fn finish(mut self) -> Track {
        self.lines.finish(&mut self.looks);
        self.judge(self.frames.len(), self.frames.len());
        Track { scores: self.scores, levels: self.levels }
    }

    /// The first network's scores of the first `known` frames, and the second network's inputs.
    fn look(&self, known: usize) -> (Vec<f32>, Vec<context::StepInput>) {
        let frames = &self.frames[..known];
        let floors = floors(frames);
        let seen: Vec<network::FrameInput> =
            frames.iter().enumerate().map(|(at, frame)| network::FrameInput::of(frame, &floors[at / STEP])).collect();
        let sounds: Vec<f32> = (0..seen.len()).map(|at| network::speech(&seen, at)).collect();
        let above: Vec<f32> = seen.iter().map(network::FrameInput::above).collect();
        let parts = frames.chunks(EVERY).zip(sounds.chunks(EVERY)).zip(above.chunks(EVERY)).zip(&self.looks);
        let steps = parts.map(|(((frames, sounds), above), look)| context::step(frames, sounds, above, look)).collect();
        (sounds, steps)
    }

    /// The second network's score of each step, before the maximum over nearby steps.
    #[cfg(test)]
    pub(super) fn within(mut self) -> Vec<f32> {
        self.lines.finish(&mut self.looks);
        context::scores(&self.look(self.frames.len()).1)
    }

    /// Scores the frames up to `end`. `known` frames are complete. Drops the frames that no later score needs.
    fn judge(&mut self, known: usize, end: usize) {
        let (sounds, steps) = self.look(known);
        let frames = &self.frames[..known];
        let within = context::speech(&steps);
        for at in self.scores.len() - self.gone..end {
            let near = &frames[at.saturating_sub(KEY_REACH)..(at + KEY_REACH + 1).min(frames.len())];
            let pressed = near.iter().filter(|frame| frame.key).count() >= KEY_FRAMES;
            self.scores.push(if pressed { 0 } else { (sounds[at].min(within[at / EVERY]) * 255.0) as u8 });
            self.levels.push(Level::of(&frames[at]));
        }
        // The number must be a multiple of both units, or the noise floor and the long windows would shift.
        let forget = end.saturating_sub(REACH) / (STEP * EVERY) * (STEP * EVERY);
        self.frames.drain(..forget);
        self.looks.drain(..forget / EVERY);
        self.gone += forget;
    }
}

/// Noise floor of each band, per [`STEP`] frames.
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
    pub(super) fn regions(&self) -> Vec<Segment> {
        // A frame is 25 ms long. Its middle, 12 ms after its start, is rounded to 10 ms.
        let at_ms = |frame: usize| frame as u64 * FRAME_MS + 10;
        spans(&self.scores).into_iter().map(|(from, to)| Segment::new(at_ms(from), at_ms(to))).collect()
    }

    /// Speech score of each frame, 0 to 1.
    #[cfg(test)]
    pub(super) fn scores(&self) -> Vec<f32> {
        self.scores.iter().map(|score| f32::from(*score) / 255.0).collect()
    }
}

/// Applies the hysteresis, fills short pauses and drops short bursts.
pub(super) fn spans(scores: &[u8]) -> Vec<(usize, usize)> {
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
    spans.retain(|(from, to)| to - from >= SHORTEST);
    spans
}
