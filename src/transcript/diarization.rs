//! Diarization of one channel without enrolled voices. Segments of about 0.8 s become embeddings, which are clustered
//! into two groups. If the groups are far enough apart, each trains a Gaussian mixture, and the mixtures assign every
//! frame. All of this is discarded after the call. Only [`embedding`] computes an embedding that may be stored, for
//! synthetic agents.

mod embedding;
mod frame;
mod groups;
mod mixture;
mod network;
mod pitch;
mod summary;

use crate::audio::AudioError;
use crate::audio::speech::LegSpeech;
use crate::audio::speech::Pcm16k;
use crate::audio::speech::features::Analyser;
use crate::domain::Segment;
use crate::domain::transcript::Turn;

pub use self::embedding::EMBEDDING_VERSION;
pub use self::embedding::VoiceEmbedding;
pub use self::embedding::embedding;
use self::frame::VoiceFrame;
use self::mixture::Mixture;
use self::summary::Point;
use super::numbering::number;
use super::viterbi;

/// The diarization of one leg.
#[derive(Debug, Default)]
pub struct Diarization {
    /// Number of speakers: none, one or two; three means more than two.
    pub count: u32,
    /// Ordered by time. Speaker 0 is the first one heard.
    pub turns: Vec<Turn>,
    /// Whether the result is a base for roles. It is not with more than two speakers, with two similar ones, or if one
    /// of them may be two.
    pub sure: bool,
}

/// Target length of a segment in frames: 0.8 s.
const PIECE: usize = 80;
/// Log odds of two speakers against one: the threshold for two, and the threshold for roles.
const TWO: f64 = 0.8;
const SURE: f64 = 1.5;
/// Log odds of one of the two being two speakers: the threshold for a third, and the threshold for doubt.
const THREE: f64 = 1.3;
const DOUBT: f64 = 0.0;
/// Least speech of a second speaker, in frames.
const HEARD: usize = 40;
/// Rounds of training mixtures and assigning frames.
const ROUNDS: usize = 3;
/// Weight of the summed frame likelihoods, because neighbouring frames are correlated.
const SHARE: f32 = 0.25;
/// Cost of a speaker change: inside a region, and at a pause.
const CHANGE_INSIDE: f32 = 14.0;
const CHANGE_AT_PAUSE: f32 = 1.5;
const FRAME_MS: u64 = 10;

/// The frames of all regions in sequence.
struct Frames {
    all: Vec<VoiceFrame>,
    /// The first frame of each region, and the number of frames at the end.
    starts: Vec<usize>,
}

impl Frames {
    fn begins_region(&self, at: usize) -> bool {
        self.starts.binary_search(&at).is_ok()
    }
}

/// Diarizes a leg.
///
/// # Errors
/// [`AudioError`] if the spool cannot be read.
pub fn diarize(leg: &LegSpeech) -> Result<Diarization, AudioError> {
    let frames = frames(&leg.samples, &leg.regions)?;
    let pieces = pieces(&frames);
    let points = points(&frames, &pieces);
    let one = || Diarization {
        count: u32::from(!leg.regions.is_empty()),
        turns: leg.regions.iter().map(|region| Turn::new(0, *region)).collect(),
        sure: true,
    };
    let begins = begins(&frames, &pieces);
    let Some(split) = groups::two(&points, &begins).filter(|split| split.odds > TWO) else { return Ok(one()) };
    let (mut groups, mut count, mut sure) = (split.groups, 2, split.odds >= SURE);
    if let Some((divided, odds)) = third(&points, &begins, &groups) {
        sure &= odds < DOUBT;
        if odds > THREE {
            (groups, count) = (divided, 3);
        }
    }
    let mut placed = vec![0_u8; frames.all.len()];
    for ((from, to), group) in pieces.iter().zip(&groups) {
        placed[*from..*to].fill(*group);
    }
    for _ in 0..ROUNDS {
        let of = |voice: u8| -> Vec<&VoiceFrame> {
            frames.all.iter().zip(&placed).filter(|(_, by)| **by == voice).map(|(frame, _)| frame).collect()
        };
        let heard: Vec<Vec<&VoiceFrame>> = (0..count).map(of).filter(|own| own.len() >= HEARD).collect();
        let Some(mixtures) = heard.iter().map(|own| Mixture::fit(own)).collect::<Option<Vec<Mixture>>>() else {
            return Ok(one());
        };
        if mixtures.len() < 2 {
            return Ok(one());
        }
        count = mixtures.len() as u8;
        placed = place(&frames, &mixtures);
    }
    let turns = turns(leg, &frames, &placed);
    Ok(Diarization { count: u32::from(count), turns, sure })
}

/// Splits the group that is more likely two speakers, which gives three groups. Returns them with the log odds of that.
fn third(points: &[Point], begins: &[bool], groups: &[u8]) -> Option<(Vec<u8>, f64)> {
    let part = |group: u8| {
        let own: Vec<usize> = (0..points.len()).filter(|n| groups[*n] == group).collect();
        let inside: Vec<Point> = own.iter().map(|n| points[*n]).collect();
        // A part of the other speaker in between counts as a pause.
        let breaks: Vec<bool> = own.iter().map(|n| begins[*n] || groups[n - 1] != group).collect();
        groups::two(&inside, &breaks).map(|split| (own, split))
    };
    let (own, split) = (0..2).filter_map(part).max_by(|a, b| a.1.odds.total_cmp(&b.1.odds))?;
    let mut groups = groups.to_vec();
    for (n, by) in own.into_iter().zip(split.groups) {
        groups[n] = if by == 0 { groups[n] } else { 2 };
    }
    Some((groups, split.odds))
}

fn frames(samples: &Pcm16k, regions: &[Segment]) -> Result<Frames, AudioError> {
    let mut frames = Frames { all: Vec::new(), starts: vec![0] };
    let mut cut = Vec::new();
    for region in regions {
        let mut analyser = Analyser::default();
        cut.clear();
        // A region's times are the centres of its frames.
        let samples = samples.read(region.start_ms.saturating_sub(FRAME_MS), region.end_ms + FRAME_MS)?;
        analyser.push(&samples, &mut cut);
        // The pitch for a frame is found around the centre of the next pitch frame.
        let pitch = pitch::track(&samples);
        frames.all.extend(cut.iter().zip(pitch.into_iter().skip(1)).map(|(frame, pitch)| VoiceFrame::of(frame, pitch)));
        frames.starts.push(frames.all.len());
    }
    Ok(frames)
}

/// Segments of about [`PIECE`] frames. None crosses two regions.
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

fn points(frames: &Frames, pieces: &[(usize, usize)]) -> Vec<Point> {
    pieces.iter().filter_map(|(from, to)| summary::point(&frames.all[*from..*to])).collect()
}

/// Whether each segment is the first of its region.
fn begins(frames: &Frames, pieces: &[(usize, usize)]) -> Vec<bool> {
    pieces.iter().map(|(from, _)| frames.begins_region(*from)).collect()
}

/// The most likely speaker of every frame, with a cost for changes.
fn place(frames: &Frames, voices: &[Mixture]) -> Vec<u8> {
    let change = |at: usize| if frames.begins_region(at) { CHANGE_AT_PAUSE } else { CHANGE_INSIDE };
    let cost = |at: usize, voice: usize| {
        let frame = &frames.all[at];
        -(SHARE * frame.weight() * voices[voice].likelihood(frame))
    };
    viterbi::cheapest(frames.all.len(), voices.len(), change, cost)
}

fn turns(leg: &LegSpeech, frames: &Frames, placed: &[u8]) -> Vec<Turn> {
    // Speakers are numbered in the order of their first speech.
    let mut heard: Vec<u8> = Vec::new();
    for by in placed {
        number(&mut heard, *by);
    }
    let mut out = Vec::new();
    for (region, pair) in leg.regions.iter().zip(frames.starts.windows(2)) {
        let (from, to) = (pair[0], pair[1]);
        let mut at = from;
        let mut start_ms = region.start_ms;
        while at < to {
            let end = (at..to).find(|n| placed[*n] != placed[at]).unwrap_or(to);
            let end_ms = if end == to { region.end_ms } else { region.start_ms + (end - from) as u64 * FRAME_MS };
            if end_ms > start_ms {
                out.push(Turn { speaker: number(&mut heard, placed[at]) as u32, start_ms, end_ms });
            }
            (at, start_ms) = (end, end_ms);
        }
    }
    out
}

#[cfg(test)]
mod tests;
