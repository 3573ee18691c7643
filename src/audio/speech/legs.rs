//! Compares two legs. Removes speech that leaked from the other leg, and turns that are too faint.

use super::detect::{BEGIN, Level, Track, spans};

/// The other leg is this much louder where this leg only carries its leak, dB.
const CROSS_TALK_DB: f32 = 12.0;
/// A frame this far below the loudest of its turn, or a turn this far below the loudest of its leg, is room echo, noise
/// or leak, dB. A leg has one speaker as the reference. On a shared channel one speaker may be this much quieter than
/// another.
const FAINT_DB: f32 = 25.0;
/// Percentile of the frames' levels that counts as the loudest: a tenth of the frames is louder.
const LOUD: f32 = 0.9;
/// Frames needed to measure a level: a quarter of a second.
const ENOUGH: usize = 25;

/// Keeps on each leg only the speech of that leg.
pub(super) fn separate(left: &mut Track, right: &mut Track) {
    drop_cross_talk(left, right);
    drop_faint(left);
    drop_faint(right);
}

/// Sets the score to 0 in frames where the other leg is 12 dB louder. Both legs are measured relative to their own
/// speech level, so that a quiet caller is not taken for an echo of the agent.
fn drop_cross_talk(left: &mut Track, right: &mut Track) {
    let difference = match (own_level(left, right), own_level(right, left)) {
        (Some(left), Some(right)) => left - right,
        _ => 0.0,
    };
    let frames = left.levels.len().min(right.levels.len());
    let louder: Vec<f32> =
        (0..frames).map(|at| loudest_near(left, at, 4) - loudest_near(right, at, 4) - difference).collect();
    // Short pauses inside a region count as the turn, because the leak alone may look like speech there.
    let (in_left, in_right) = (spoken(left), spoken(right));
    for (at, louder) in louder.into_iter().enumerate() {
        if louder >= CROSS_TALK_DB && right.scores[at] > 0 && (in_left[at] || left.scores[at] > right.scores[at] / 2) {
            right.scores[at] = 0;
        } else if louder <= -CROSS_TALK_DB && (in_right[at] || right.scores[at] > left.scores[at] / 2) {
            left.scores[at] = 0;
        }
    }
}

/// Sets the score to 0 in frames far below the loudest of their turn, so that a turn ends with its speaker and not with
/// the room's echo. Does the same for turns far below the loudest of the leg.
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

/// Level of the loudest frame within `reach` frames of this one, dB.
fn loudest_near(track: &Track, at: usize, reach: usize) -> f32 {
    let near = &track.levels[at.saturating_sub(reach)..(at + reach + 1).min(track.levels.len())];
    near.iter().map(|level| level.decibels()).fold(f32::MIN, f32::max)
}

/// The level that a tenth of these frames exceeds, dB.
fn loud<'a>(levels: impl IntoIterator<Item = &'a Level>) -> Option<f32> {
    let mut levels: Vec<Level> = levels.into_iter().copied().collect();
    levels.sort_unstable();
    levels.get((levels.len() as f32 * LOUD) as usize).map(|level| level.decibels())
}

/// For every frame: whether a region contains it.
fn spoken(track: &Track) -> Vec<bool> {
    let mut spoken = vec![false; track.scores.len()];
    for (from, to) in spans(&track.scores) {
        spoken[from..to].fill(true);
    }
    spoken
}

/// Speech level of a leg: the loudest tenth of its own frames, those where the other leg is not much louder.
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
