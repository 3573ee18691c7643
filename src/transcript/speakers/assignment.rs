//! Word-to-speaker assignment: each word is assigned to the speaker of its time, and an utterance is cut at speaker
//! changes.

use std::ops::Range;

use crate::domain::Segment;
use crate::domain::transcript::Attribution;
use crate::domain::transcript::Turn;
use crate::domain::transcript::Utterance;
use crate::domain::transcript::Word;
use crate::transcript::confidence;
use crate::transcript::viterbi;

/// Cost of a word outside its speaker's turns: 1 for the whole word, plus this per second of distance to the nearest
/// one.
const FAR: f64 = 1.0;
/// Cost of a speaker change between two words without a pause, and decay of this cost with the pause, in milliseconds.
/// A diarization boundary is accurate only to a quarter of a second, so that a nearby pause is the more likely place.
const CHANGE: f64 = 0.8;
const PAUSE_MS: f64 = 200.0;
/// Least overlap of words that counts as simultaneous, in milliseconds. Diarization finds the louder speaker there. In
/// synthetic calls the words were that speaker's in this share of cases.
const AT_ONCE_MS: u64 = 100;
const LOUDER_ONES: f64 = 0.68;
/// Assumed length of a word without an end, in milliseconds.
const WORD_MS: u64 = 250;

/// The speaker of each word. A word without a time gets the previous word's speaker. Empty without turns.
pub(crate) fn assign(words: &[Word], turns: &[Turn]) -> Vec<u32> {
    let mut ids: Vec<u32> = turns.iter().map(|turn| turn.speaker).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Vec::new();
    }
    let places: Vec<Option<Segment>> = words.iter().map(place).collect();
    let mut last_end = None;
    let change = |place: &Option<Segment>| {
        // A word without a time gives no evidence for a change.
        let Some(place) = place else { return f64::INFINITY };
        let pause_ms =
            last_end.replace(place.end_ms).map_or(f64::INFINITY, |end| place.start_ms.saturating_sub(end) as f64);
        CHANGE * (-pause_ms / PAUSE_MS).exp()
    };
    let changes: Vec<f64> = places.iter().map(change).collect();
    let cost = |word: usize, id: usize| places[word].map_or(0.0, |place| outside(&place, ids[id], turns));
    let path = viterbi::cheapest(words.len(), ids.len(), |word| changes[word], cost);
    path.into_iter().map(|id| ids[usize::from(id)]).collect()
}

fn place(word: &Word) -> Option<Segment> {
    let start_ms = word.start_ms?;
    Some(Segment::new(start_ms, word.end_ms.unwrap_or(start_ms + WORD_MS).max(start_ms + 1)))
}

/// The share of a word outside this speaker's turns, plus the cost of the distance to the nearest one.
fn outside(word: &Segment, speaker: u32, turns: &[Turn]) -> f64 {
    let (mut inside, mut away) = (0, u64::MAX);
    for own in turns.iter().filter(|turn| turn.speaker == speaker).map(Turn::segment) {
        inside += own.overlap_ms(word);
        away = away.min(own.distance_ms(word));
    }
    1.0 - inside.min(word.duration_ms()) as f64 / word.duration_ms() as f64 + FAR * away as f64 / 1_000.0
}

/// Whether each word overlaps another word.
fn at_once(words: &[Word]) -> Vec<bool> {
    let places: Vec<Option<Segment>> = words.iter().map(place).collect();
    let meets = |at: usize, place: &Segment| {
        let others =
            places.iter().enumerate().filter(|(other, _)| *other != at).filter_map(|(_, other)| other.as_ref());
        let enough = AT_ONCE_MS.min(place.duration_ms());
        others.map(|other| place.overlap_ms(other)).any(|shared_ms| shared_ms >= enough)
    };
    places.iter().enumerate().map(|(at, place)| place.as_ref().is_some_and(|place| meets(at, place))).collect()
}

/// Cuts the utterance at changes of the speaker and of the certainty. The text is kept, except for the white space at a
/// cut. An utterance is not cut if its words differ from its text; it goes to the speaker of most of its words.
pub(crate) fn cut(utterance: Utterance, speakers: &[u32]) -> Vec<Utterance> {
    let starts = word_starts(&utterance.text);
    let doubtful = at_once(&utterance.words);
    let same = |a: usize, b: usize| speakers[a] == speakers[b] && doubtful[a] == doubtful[b];
    let certain = doubtful.iter().all(|doubtful| !doubtful);
    if certain && speakers.windows(2).all(|pair| pair[0] == pair[1])
        || starts.len() != utterance.words.len()
        || speakers.len() != utterance.words.len()
    {
        let most = speakers.iter().copied().max_by_key(|id| speakers.iter().filter(|other| *other == id).count());
        return vec![Utterance { speaker: most.unwrap_or(utterance.speaker), ..utterance }];
    }
    let text = utterance.text.as_str();
    let piece = |words: Range<usize>| {
        let from = if words.start == 0 { 0 } else { starts[words.start] };
        let to = starts.get(words.end).copied().unwrap_or(text.len());
        let said = &utterance.words[words.clone()];
        Utterance {
            speaker: speakers[words.start],
            start_ms: said.iter().find_map(|word| word.start_ms),
            end_ms: said.iter().rev().find_map(|word| word.end_ms),
            text: text[from..to].trim().to_owned(),
            confidence: confidence::mean(said),
            heard: utterance.heard.map(|_| !said.iter().any(|word| word.heard == Some(false))),
            words: said.to_vec(),
            by: doubtful[words.start].then_some(Attribution::doubtful(LOUDER_ONES)),
        }
    };
    let mut pieces = Vec::new();
    let mut from = 0;
    for to in 1..=speakers.len() {
        if to == speakers.len() || !same(from, to) {
            pieces.push(piece(from..to));
            from = to;
        }
    }
    pieces
}

/// Byte offset of each word of a text.
fn word_starts(text: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut inside = false;
    for (at, c) in text.char_indices() {
        if !c.is_whitespace() && !inside {
            starts.push(at);
        }
        inside = !c.is_whitespace();
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str, start_ms: u64, end_ms: u64) -> Word {
        Word {
            text: text.to_owned(),
            start_ms: Some(start_ms),
            end_ms: Some(end_ms),
            confidence: Some(0.5),
            heard: None,
        }
    }

    const fn segment_of(speaker: u32, start_ms: u64, end_ms: u64) -> Turn {
        Turn { speaker, start_ms, end_ms }
    }

    fn said(text: &str, words: Vec<Word>) -> Utterance {
        Utterance {
            speaker: 9,
            start_ms: None,
            end_ms: None,
            text: text.to_owned(),
            confidence: None,
            heard: None,
            words,
            by: None,
        }
    }

    #[test]
    fn a_pause_beside_a_voice_boundary_is_where_the_words_change_hands() {
        // The boundary lies in the second word, and the pause is after it.
        let words =
            [word("good", 0, 300), word("morning", 320, 800), word("hello", 1_000, 1_300), word("there", 1_320, 1_600)];
        let segments = [segment_of(0, 0, 520), segment_of(1, 520, 1_600)];
        assert_eq!(assign(&words, &segments), [0, 0, 1, 1]);
        // Without a pause the boundary decides.
        let words =
            [word("good", 0, 300), word("morning", 310, 600), word("hello", 610, 900), word("there", 910, 1_200)];
        assert_eq!(assign(&words, &[segment_of(0, 0, 600), segment_of(1, 600, 1_200)]), [0, 0, 1, 1]);
    }

    #[test]
    fn a_word_nobody_placed_stays_with_the_one_before() {
        let lost = Word { text: "lost".to_owned(), start_ms: None, end_ms: None, confidence: None, heard: Some(false) };
        let words = [word("one", 0, 400), lost, word("two", 2_000, 2_400)];
        assert_eq!(assign(&words, &[segment_of(4, 0, 500), segment_of(7, 1_900, 2_500)]), [4, 4, 7]);
        assert!(assign(&words, &[]).is_empty());
    }

    #[test]
    fn words_said_at_once_are_in_doubt() {
        let words = vec![word("how", 0, 400), word("can", 400, 800), word("yes", 500, 900), word("fine", 1_500, 1_900)];
        let segments = [segment_of(0, 0, 900), segment_of(1, 1_400, 2_000)];
        let speakers = assign(&words, &segments);
        let pieces = cut(said("how can yes fine", words), &speakers);
        let doubts: Vec<(&str, bool)> =
            pieces.iter().map(|piece| (piece.text.as_str(), piece.by.is_some_and(|by| by.is_doubtful()))).collect();
        assert_eq!(doubts, [("how", false), ("can yes", true), ("fine", false)]);
    }

    #[test]
    fn a_cut_text_is_still_the_text() {
        let text = "Good  morning. Hello,\nthere";
        let words = vec![word("Good", 0, 1), word("morning.", 1, 2), word("Hello,", 3, 4), word("there", 4, 5)];
        let pieces = cut(said(text, words), &[0, 0, 1, 1]);
        let texts: Vec<(u32, &str)> = pieces.iter().map(|piece| (piece.speaker, piece.text.as_str())).collect();
        assert_eq!(texts, [(0, "Good  morning."), (1, "Hello,\nthere")]);
        assert_eq!((pieces[1].start_ms, pieces[1].end_ms, pieces[1].confidence), (Some(3), Some(5), Some(0.5)));
    }

    #[test]
    fn a_text_with_other_words_than_its_own_goes_to_whoever_says_most() {
        let words = vec![word("a", 0, 1), word("b", 1, 2), word("c", 2, 3)];
        let pieces = cut(said("a b-c", words), &[0, 1, 1]);
        assert_eq!((pieces.len(), pieces[0].speaker, pieces[0].text.as_str()), (1, 1, "a b-c"));
    }
}
