//! Speaker turns, from words with times or from the speech of legs with one speaker each.

use crate::audio::speech::Speech;
use crate::domain::Segment;
use crate::domain::transcript::Speaker;
use crate::domain::transcript::Turn;

/// A pause of this length ends a turn.
const PAUSE_MS: u64 = 200;

/// The turns of timed words. A word extends the last turn of its speaker, unless a pause lies between.
pub(super) fn of_words(words: impl IntoIterator<Item = (u32, Segment)>) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::new();
    for (speaker, word) in words {
        match turns.iter_mut().rev().find(|turn| turn.speaker == speaker) {
            // The words of a text may step back in time. Such a word opens a turn of its own.
            Some(open) if (open.start_ms..open.end_ms.saturating_add(PAUSE_MS)).contains(&word.start_ms) => {
                open.end_ms = open.end_ms.max(word.end_ms);
            }
            _ => turns.push(Turn::new(speaker, word)),
        }
    }
    in_time(&mut turns);
    turns
}

/// One turn per speech region. `legs` holds the speaker and the regions of each leg.
pub(super) fn of_regions<'a>(legs: impl IntoIterator<Item = (u32, &'a [Segment])>) -> Vec<Turn> {
    let on_leg =
        |(speaker, regions): (u32, &'a [Segment])| regions.iter().map(move |region| Turn::new(speaker, *region));
    let mut turns: Vec<Turn> = legs.into_iter().flat_map(on_leg).collect();
    in_time(&mut turns);
    turns
}

/// One speaker per leg, and the turns of all legs. A single leg may have several speakers, so it names no channel.
pub(super) fn by_leg(speech: &Speech) -> (Vec<Speaker>, Vec<Turn>) {
    let two = speech.legs.len() == 2;
    let speaker = |leg: u8| Speaker { channel: two.then_some(leg), ..Speaker::nameless(leg.into()) };
    let speakers = (0..speech.legs.len() as u8).map(speaker).collect();
    (speakers, of_regions((0..).zip(speech.legs.iter().map(|leg| leg.regions.as_slice()))))
}

pub(super) fn in_time(turns: &mut [Turn]) {
    turns.sort_by_key(|turn| (turn.start_ms, turn.speaker));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_steps_back_in_time_opens_a_turn() {
        let words = [(0, 900, 1_000), (0, 1_100, 1_200), (1, 1_250, 1_400), (0, 1_300, 1_500), (0, 100, 300)];
        let turns = of_words(words.map(|(speaker, start_ms, end_ms)| (speaker, Segment { start_ms, end_ms })));
        let expected = [(0, 100, 300), (0, 900, 1_500), (1, 1_250, 1_400)];
        assert_eq!(turns, expected.map(|(speaker, start_ms, end_ms)| Turn { speaker, start_ms, end_ms }));
    }
}
