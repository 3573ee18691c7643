//! Voices on one channel, told apart without any model of a person: stretches of about a second are summed up, two groups
//! are looked for, and if they lie far enough apart each group teaches a mixture that then places every frame. Nothing
//! learnt here outlives the call.

mod groups;
mod mixture;
mod summary;

use crate::audio::AudioError;
use crate::audio::speech::LegSpeech;
use crate::audio::speech::Region;
use crate::audio::speech::features::Analyser;

use self::mixture::Mixture;
use self::summary::Cepstra;
use self::summary::Point;

/// A stretch of one voice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voiced {
    pub voice: u32,
    pub region: Region,
}

/// The voices of one leg.
#[derive(Debug, Default)]
pub struct Voices {
    /// How many: none, one or two.
    pub count: u32,
    /// In order of time; voice 0 is the first to be heard.
    pub stretches: Vec<Voiced>,
    /// How far apart two voices lie, in units of how much each varies from second to second; 0 for one voice.
    pub separation: f64,
}

/// Frames in the stretches that are summed up, about: 0.8 s.
const PIECE: usize = 80;
/// Groups this far apart are two voices; groups nearer than the second figure are one that varies.
const APART: f64 = 5.2;
const NEAR: f64 = 3.9;
/// In between, neighbouring pieces decide: a person goes on speaking, so within a region the groups change this many times
/// less often than by chance.
const RARELY: f64 = 0.4;
/// Neighbours that are enough to judge by.
const NEIGHBOURS: usize = 4;
/// A second voice has to be heard this long, frames, to be believed.
const HEARD: usize = 40;
/// Rounds of learning mixtures and placing frames.
const ROUNDS: usize = 3;
/// Neighbouring frames say much the same; what they say together is this share of the sum.
const SHARE: f32 = 0.25;
/// What a change of voice costs: inside a region, and at a pause.
const CHANGE_INSIDE: f32 = 14.0;
const CHANGE_AT_PAUSE: f32 = 1.5;
const FRAME_MS: u64 = 10;

/// The frames of all regions, one after the other.
struct Frames {
    all: Vec<Cepstra>,
    /// For each region, its first frame here; and the number of frames at the end.
    starts: Vec<usize>,
}

/// Tells the voices of a leg apart.
///
/// # Errors
/// The spool could not be read.
pub fn tell_apart(leg: &LegSpeech) -> Result<Voices, AudioError> {
    let frames = frames(leg)?;
    let pieces = pieces(&frames);
    let mut points: Vec<Point> = pieces.iter().map(|(from, to)| summary::point(&frames.all[*from..*to])).collect();
    summary::settle(&mut points);
    let one = || Voices {
        count: u32::from(!leg.regions.is_empty()),
        stretches: leg.regions.iter().map(|region| Voiced { voice: 0, region: *region }).collect(),
        separation: 0.0,
    };
    let Some(split) = groups::two_apart_from_accidents(&points) else { return Ok(one()) };
    if split.separation < NEAR || (split.separation < APART && !persists(&frames, &pieces, &split.groups)) {
        return Ok(one());
    }
    let mut owner = vec![0_u8; frames.all.len()];
    for ((from, to), group) in pieces.iter().zip(&split.groups) {
        owner[*from..*to].fill(*group);
    }
    for _ in 0..ROUNDS {
        let of = |voice: u8| {
            let own: Vec<&Cepstra> =
                frames.all.iter().zip(&owner).filter(|(_, by)| **by == voice).map(|(f, _)| f).collect();
            Mixture::learn(&own)
        };
        let (Some(first), Some(second)) = (of(0), of(1)) else { return Ok(one()) };
        owner = place(&frames, &first, &second);
    }
    let second = owner.iter().map(|by| usize::from(*by)).sum::<usize>();
    if second.min(owner.len() - second) < HEARD {
        return Ok(one());
    }
    Ok(Voices { count: 2, stretches: stretches(leg, &frames, &owner), separation: split.separation })
}

fn frames(leg: &LegSpeech) -> Result<Frames, AudioError> {
    let mut frames = Frames { all: Vec::new(), starts: vec![0] };
    let mut cut = Vec::new();
    for region in &leg.regions {
        let mut analyser = Analyser::default();
        cut.clear();
        // A region's times are the middles of its frames.
        let samples = leg.samples.read(region.start_ms.saturating_sub(FRAME_MS), region.end_ms + FRAME_MS)?;
        analyser.push(&samples, &mut cut);
        frames.all.extend(cut.iter().map(Cepstra::of));
        frames.starts.push(frames.all.len());
    }
    Ok(frames)
}

/// Stretches of about [`PIECE`] frames, none across two regions.
fn pieces(frames: &Frames) -> Vec<(usize, usize)> {
    let mut pieces = Vec::new();
    for pair in frames.starts.windows(2) {
        let count = pair[1] - pair[0];
        let parts = (count + PIECE / 2) / PIECE;
        let edge = |n: usize| pair[0] + n * count / parts.max(1);
        pieces.extend((0..parts.max(1)).map(|n| (edge(n), edge(n + 1))).filter(|(from, to)| to > from));
    }
    pieces
}

/// Whether neighbouring pieces of a region are mostly of one group.
fn persists(frames: &Frames, pieces: &[(usize, usize)], groups: &[u8]) -> bool {
    let (mut pairs, mut changes) = (0_usize, 0_usize);
    for (pair, by) in pieces.windows(2).zip(groups.windows(2)) {
        if frames.starts.binary_search(&pair[1].0).is_err() {
            pairs += 1;
            changes += usize::from(by[0] != by[1]);
        }
    }
    let second = groups.iter().map(|group| usize::from(*group)).sum::<usize>() as f64 / groups.len().max(1) as f64;
    let by_chance = 2.0 * second * (1.0 - second) * pairs as f64;
    pairs >= NEIGHBOURS && (changes as f64) < RARELY * by_chance
}

/// The likeliest owner of every frame, changes of voice being rare (Viterbi's algorithm on two states).
fn place(frames: &Frames, first: &Mixture, second: &Mixture) -> Vec<u8> {
    let mut cost = [0.0_f32; 2];
    let mut came_from: Vec<[u8; 2]> = Vec::with_capacity(frames.all.len());
    let mut pauses = frames.starts.iter().peekable();
    for (at, frame) in frames.all.iter().enumerate() {
        let mut at_pause = false;
        while pauses.next_if(|start| **start <= at).is_some() {
            at_pause = true;
        }
        let change = if at_pause { CHANGE_AT_PAUSE } else { CHANGE_INSIDE };
        let stay_or_change = |to: usize| {
            let (stay, other) = (cost[to], cost[1 - to] + change);
            if stay <= other { (stay, to as u8) } else { (other, 1 - to as u8) }
        };
        let (zero, one) = (stay_or_change(0), stay_or_change(1));
        came_from.push([zero.1, one.1]);
        let weight = SHARE * frame.weight();
        cost = [zero.0 - weight * first.likelihood(frame), one.0 - weight * second.likelihood(frame)];
    }
    let mut owner = vec![0; frames.all.len()];
    let mut state = u8::from(cost[1] < cost[0]);
    for at in (0..owner.len()).rev() {
        owner[at] = state;
        state = came_from[at][usize::from(state)];
    }
    owner
}

fn stretches(leg: &LegSpeech, frames: &Frames, owner: &[u8]) -> Vec<Voiced> {
    let first = owner.first().copied().unwrap_or(0);
    let mut out = Vec::new();
    for (region, pair) in leg.regions.iter().zip(frames.starts.windows(2)) {
        let (from, to) = (pair[0], pair[1]);
        let mut at = from;
        let mut start_ms = region.start_ms;
        while at < to {
            let end = (at..to).find(|n| owner[*n] != owner[at]).unwrap_or(to);
            let end_ms = if end == to { region.end_ms } else { region.start_ms + (end - from) as u64 * FRAME_MS };
            if end_ms > start_ms {
                out.push(Voiced { voice: u32::from(owner[at] != first), region: Region { start_ms, end_ms } });
            }
            (at, start_ms) = (end, end_ms);
        }
    }
    out
}
