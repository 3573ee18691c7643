//! Words that nobody said: engines that write text as it comes to them invent some in noise and repeat themselves.
//! Only foreign engines are looked at; the embedded one invents nothing in silence.

use std::ops::Range;

use crate::transcript::engine::HeardWord;

/// A phrase of one, two, or more words said this many times in a row was said once at most.
const REPEATS: [usize; 3] = [8, 5, 4];
/// The longest phrase looked at, in words.
const PHRASE: usize = 8;
/// Words further than this from all speech were not spoken.
const NEAR_MS: f64 = 500.0;
/// Words less sure than this are left out.
const LEAST: f64 = 0.2;

/// Which of an engine's words are believed: those near speech, sure enough, and not said over and over.
#[must_use]
pub fn believed(words: &[HeardWord], speech: &[Range<u64>]) -> Vec<bool> {
    let spoken = |word: &HeardWord| {
        speech
            .iter()
            .any(|region| word.end_ms + NEAR_MS >= region.start as f64 && word.start_ms - NEAR_MS <= region.end as f64)
    };
    let mut kept: Vec<bool> = words.iter().map(|word| spoken(word) && word.confidence >= LEAST).collect();
    let plain: Vec<String> =
        words.iter().map(|word| word.text.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "")).collect();
    for length in 1..=PHRASE {
        once(&plain, &mut kept, length);
    }
    kept
}

/// Of phrases of this many words that are repeated too often, keeps the first one.
fn once(words: &[String], kept: &mut [bool], length: usize) {
    let repeats = REPEATS[length.min(REPEATS.len()) - 1];
    let left: Vec<usize> = (0..words.len()).filter(|&n| kept[n]).collect();
    let same = |a: usize, b: usize| (0..length).all(|n| words[left[a + n]] == words[left[b + n]]);
    let mut at = 0;
    while at + length <= left.len() {
        let mut again = 1;
        while at + (again + 1) * length <= left.len() && same(at, at + again * length) {
            again += 1;
        }
        if again >= repeats {
            left[at + length..at + again * length].iter().for_each(|&n| kept[n] = false);
            at += again * length;
        } else {
            at += 1;
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<HeardWord> {
        let word = |(n, word): (usize, &str)| HeardWord {
            text: word.to_owned(),
            start_ms: n as f64 * 300.0,
            end_ms: n as f64 * 300.0 + 250.0,
            confidence: 0.9,
        };
        text.split(' ').enumerate().map(word).collect()
    }

    fn left(text: &str, speech: &[Range<u64>]) -> String {
        let words = said(text);
        let kept = believed(&words, speech);
        let left: Vec<String> = words.into_iter().zip(kept).filter_map(|(w, kept)| kept.then_some(w.text)).collect();
        left.join(" ")
    }

    #[test]
    fn repeated_phrases_are_said_once() {
        let all = [0..100_000];
        let text = "so Thank you. thank you. Thank you. thank you! Thank you. bye";
        assert_eq!(left(text, &all), "so Thank you. bye");
        let fine = "no no no no no really thank you thank you bye bye bye";
        assert_eq!(left(fine, &all), fine);
        let many = "a b c a b c a b c a b c a b c d";
        assert_eq!(left(many, &all), "a b c d");
    }

    #[test]
    fn words_where_nobody_speaks_or_nobody_is_sure_are_left_out() {
        assert_eq!(left("one two three four five six seven", &[0..200]), "one two three");
        assert_eq!(left("one two", &[]), "");
        let mut words = said("yes maybe");
        words[1].confidence = 0.1;
        assert_eq!(believed(&words, &[0..5_000]), [true, false]);
    }
}
