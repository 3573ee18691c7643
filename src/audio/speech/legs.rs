//! Two legs side by side: what one only hears of the other, and what is too faint to be a turn, is not spoken on it.

use super::detect::{BEGIN, Level, Track, spans};

/// The other leg is this much louder where this one only hears it, decibels.
const CROSS_TALK_DB: f32 = 12.0;
/// Under the loudest of a turn, or a turn under the loudest of its leg, by this much is a room's echo, a gust of noise,
/// the rest of a leak, decibels. On a leg there is one speaker to measure by; where several share a channel one may be
/// this much fainter than another.
const FAINT_DB: f32 = 25.0;
/// Share of the frames that are under what counts as the loudest: a tenth is louder.
const LOUD: f32 = 0.9;
/// Frames of which there must be so many to measure a level: a quarter of a second.
const ENOUGH: usize = 25;

/// Leaves on each leg what is spoken there.
pub fn separate(left: &mut Track, right: &mut Track) {
    drop_cross_talk(left, right);
    drop_faint(left);
    drop_faint(right);
}

/// Silences what one leg hears of the other: frames in which the other is 12 dB louder, both measured against the level
/// at which each speaks, so that a caller who is merely quiet is not taken for an echo of the agent.
fn drop_cross_talk(left: &mut Track, right: &mut Track) {
    let difference = match (own_level(left, right), own_level(right, left)) {
        (Some(left), Some(right)) => left - right,
        _ => 0.0,
    };
    let frames = left.levels.len().min(right.levels.len());
    let louder: Vec<f32> =
        (0..frames).map(|at| loudest_near(left, at, 4) - loudest_near(right, at, 4) - difference).collect();
    // In the short pauses of a turn, which its region has filled, the leak alone may look like speech.
    let (in_left, in_right) = (spoken(left), spoken(right));
    for (at, louder) in louder.into_iter().enumerate() {
        if louder >= CROSS_TALK_DB && right.scores[at] > 0 && (in_left[at] || left.scores[at] > right.scores[at] / 2) {
            right.scores[at] = 0;
        } else if louder <= -CROSS_TALK_DB && (in_right[at] || right.scores[at] > left.scores[at] / 2) {
            left.scores[at] = 0;
        }
    }
}

/// Silences the frames of a turn that are far below its loudest, so that it ends when its speaker does and not when the
/// room has fallen silent, and turns that are far below the leg's.
fn drop_faint(track: &mut Track) {
    let turns = spans(&track.scores);
    let Some(loudest) = loud(turns.iter().flat_map(|(from, to)| &track.levels[*from..*to])) else { return };
    let mut scores = vec![0; track.scores.len()];
    for (from, to) in turns {
        let Some(top) = loud(&track.levels[from..to]).filter(|top| *top >= loudest - FAINT_DB) else { continue };
        for (at, score) in scores.iter_mut().enumerate().take(to).skip(from) {
            if loudest_near(track, at, 2) >= top - FAINT_DB {
                *score = u8::MAX;
            }
        }
    }
    track.scores = scores;
}

/// The loudest of the frames at most so far from this one, in decibels.
fn loudest_near(track: &Track, at: usize, reach: usize) -> f32 {
    let near = &track.levels[at.saturating_sub(reach)..(at + reach + 1).min(track.levels.len())];
    near.iter().map(|level| level.decibels()).fold(f32::MIN, f32::max)
}

/// The level that a tenth of these is above, in decibels.
fn loud<'a>(levels: impl IntoIterator<Item = &'a Level>) -> Option<f32> {
    let mut levels: Vec<Level> = levels.into_iter().copied().collect();
    levels.sort_unstable();
    levels.get((levels.len() as f32 * LOUD) as usize).map(|level| level.decibels())
}

/// For every frame whether a region holds it.
fn spoken(track: &Track) -> Vec<bool> {
    let mut spoken = vec![false; track.scores.len()];
    for (from, to) in spans(&track.scores) {
        spoken[from..to].fill(true);
    }
    spoken
}

/// The level a leg speaks at: the loudest tenth of its own frames, those in which the other leg is not much louder.
fn own_level(track: &Track, other: &Track) -> Option<f32> {
    let begin = (BEGIN * 255.0) as u8;
    let louder = |at: usize| {
        other.levels.get(at).is_some_and(|level| level.decibels() >= track.levels[at].decibels() + CROSS_TALK_DB)
    };
    let own: Vec<Level> = (0..track.levels.len())
        .filter(|at| track.scores[*at] >= begin && !louder(*at))
        .map(|at| track.levels[at])
        .collect();
    if own.len() >= ENOUGH { loud(&own) } else { None }
}
