//! Removes hallucinated words. Engines that generate text invent words in noise and repeat themselves. Only remote
//! engines are checked, because the local CTC engine invents no words in silence.

use crate::domain::Segment;
use crate::transcript::engine::HeardWord;

/// A phrase of one, two, or more words that is repeated this many times without a pause is a loop.
const REPEATS: [usize; 3] = [8, 5, 4];
/// These numbers of repeats suffice if the phrase is faster than speech, or if there is no speech.
const UNSPOKEN_REPEATS: [usize; 3] = [5, 4, 3];
/// The longest checked phrase, in words: two or three sentences.
const PHRASE: usize = 64;
/// Upper limit of the speech rate, in letters per second.
const FASTEST: f64 = 30.0;
/// A pause of this length separates repeats of an announcement.
const PAUSE_MS: f64 = 400.0;
/// Words farther than this from all speech were not spoken.
const NEAR_MS: f64 = 500.0;
/// Words with less confidence are removed.
const LEAST: f64 = 0.2;

/// Whether each word is kept: it is near speech, has enough confidence, and is not part of a loop.
#[must_use]
pub(super) fn believed(words: &[HeardWord], speech: &[Segment]) -> Vec<bool> {
    let spoken = |word: &HeardWord| {
        speech.iter().any(|region| {
            word.end_ms + NEAR_MS >= region.start_ms as f64 && word.start_ms - NEAR_MS <= region.end_ms as f64
        })
    };
    // Loops are removed first, because a loop may also cover parts without speech.
    let mut kept = vec![true; words.len()];
    once(words, speech, &mut kept);
    for (word, kept) in words.iter().zip(&mut kept) {
        *kept &= spoken(word) && word.confidence >= LEAST;
    }
    // The second pass finds loops that removed words interrupted.
    once(words, speech, &mut kept);
    kept
}

/// Keeps only the first phrase of each loop.
fn once(words: &[HeardWord], speech: &[Segment], kept: &mut [bool]) {
    for length in 1..=PHRASE {
        let left = words.iter().zip(&*kept).enumerate().filter(|(_, (_, kept))| **kept);
        let pieces = pieces(left.map(|(n, (word, _))| (n, word)));
        for run in runs(&pieces, length) {
            if run.is_loop(words, &pieces, speech) {
                let last = run.end() + run.tail(words, &pieces) - 1;
                // The range also removes words without letters inside the loop.
                kept[pieces[run.first + length].word..=pieces[last].word].fill(false);
            }
        }
    }
}

/// Whether a text contains a loop.
#[must_use]
pub(super) fn is_repetitive(text: &str) -> bool {
    let word = |text: &str| HeardWord { text: text.to_owned(), start_ms: 0.0, end_ms: 0.0, confidence: 1.0 };
    let words: Vec<HeardWord> = text.split_whitespace().map(word).collect();
    let pieces = pieces(words.iter().enumerate());
    (1..=PHRASE).any(|length| runs(&pieces, length).iter().any(|run| run.times >= at_least(REPEATS, length)))
}

/// A comparison unit: letters and digits in lower case.
#[derive(Debug)]
struct Piece {
    text: String,
    word: usize,
}

fn pieces<'a>(words: impl Iterator<Item = (usize, &'a HeardWord)>) -> Vec<Piece> {
    let apart = |c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '\u{2019}');
    let of = |(word, heard): (usize, &'a HeardWord)| {
        let parts: Vec<Piece> = heard.text.split(apart).map(|part| Piece { text: plain(part), word }).collect();
        parts.into_iter().filter(|piece| !piece.text.is_empty())
    };
    words.flat_map(of).collect()
}

/// The letters and digits of a text, in lower case.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

const fn at_least(repeats: [usize; 3], length: usize) -> usize {
    repeats[if length < repeats.len() { length - 1 } else { repeats.len() - 1 }]
}

/// A phrase that repeats without a gap.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: usize,
    length: usize,
    times: usize,
}

/// The phrases of this many pieces that occur at least three times in sequence.
fn runs(pieces: &[Piece], length: usize) -> Vec<Run> {
    let same = |a: usize, b: usize| (0..length).all(|n| pieces[a + n].text == pieces[b + n].text);
    let (mut all, mut first) = (Vec::new(), 0);
    while first + length <= pieces.len() {
        let mut times = 1;
        while first + (times + 1) * length <= pieces.len() && same(first, first + times * length) {
            times += 1;
        }
        if times >= UNSPOKEN_REPEATS[2] {
            all.push(Run { first, length, times });
            first += times * length;
        } else {
            first += 1;
        }
    }
    all
}

impl Run {
    const fn end(&self) -> usize {
        self.first + self.times * self.length
    }

    /// Human repetitions have fewer repeats, a human speech rate, and speech in the audio.
    fn is_loop(&self, words: &[HeardWord], pieces: &[Piece], speech: &[Segment]) -> bool {
        let word = |piece: usize| &words[pieces[piece].word];
        let letters: usize = pieces[self.first..self.end()].iter().map(|piece| piece.text.chars().count()).sum();
        let seconds = (word(self.end() - 1).end_ms - word(self.first).start_ms) / 1000.0;
        let middle = |piece: usize| word(piece).start_ms.midpoint(word(piece).end_ms);
        let heard = |at: f64| speech.iter().any(|region| at >= region.start_ms as f64 && at <= region.end_ms as f64);
        let in_speech = (self.first..self.end()).filter(|piece| heard(middle(*piece))).count();
        let unspoken = letters as f64 > FASTEST * seconds || in_speech * 2 < self.end() - self.first;
        if unspoken {
            return self.times >= at_least(UNSPOKEN_REPEATS, self.length);
        }
        let paused = |times: usize| {
            let next = self.first + times * self.length;
            let (ended, begins) = (word(next - 1).end_ms, word(next).start_ms);
            let spoken_through = |region: &Segment| region.start_ms as f64 <= ended && region.end_ms as f64 >= begins;
            begins - ended >= PAUSE_MS && !speech.iter().any(spoken_through)
        };
        self.times >= at_least(REPEATS, self.length) && !(1..self.times).all(paused)
    }

    /// Number of pieces after the run that are an incomplete last repeat.
    fn tail(&self, words: &[HeardWord], pieces: &[Piece]) -> usize {
        let phrase = &pieces[self.first..self.first + self.length];
        let after = &pieces[self.end()..];
        let whole = phrase.iter().zip(after).take_while(|(said, again)| said.text == again.text).count();
        let is_last = |count: usize| match after.get(count) {
            None => true,
            Some(next) => {
                let before = self.end() + count - 1;
                words[next.word].start_ms - words[pieces[before].word].end_ms >= PAUSE_MS
            }
        };
        let broken =
            phrase.get(whole).zip(after.get(whole)).is_some_and(|(said, cut)| said.text.starts_with(&cut.text));
        match whole {
            _ if broken && is_last(whole + 1) => whole + 1,
            // The next sentence may begin with the same words.
            _ if is_last(whole) || whole * 2 > self.length => whole,
            _ => 0,
        }
    }
}

#[cfg(test)]
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

    fn left(text: &str, speech: &[Segment]) -> String {
        let words = said(text);
        let kept = believed(&words, speech);
        let left: Vec<String> = words.into_iter().zip(kept).filter_map(|(w, kept)| kept.then_some(w.text)).collect();
        left.join(" ")
    }

    #[test]
    fn repeated_phrases_are_said_once() {
        let all = [Segment::new(0, 100_000)];
        let text = "so Thank you. thank you. Thank you. thank you! Thank you. bye";
        assert_eq!(left(text, &all), "so Thank you. bye");
        let fine = "no no no no no really thank you thank you bye bye bye";
        assert_eq!(left(fine, &all), fine);
        let many = "a b c a b c a b c a b c a b c d";
        assert_eq!(left(many, &all), "a b c d");
    }

    #[test]
    fn a_cut_last_repeat_goes_with_the_others() {
        let all = [Segment::new(0, 1_000_000)];
        let sentence = "Your call is important to us, please stay on the line. ";
        let times = |count: usize| sentence.repeat(count);
        let once = "Good morning. Your call is important to us, please stay on the line.";
        for cut in ["", "Your", "Your call is important to", "Your call is important to us, please stay on the li"] {
            let text = format!("Good morning. {}{cut}", times(12));
            assert_eq!(left(text.trim_end(), &all), once, "{cut}");
        }
        // Case, punctuation and joined words may change between repeats.
        let drifting = "Yes. Please stay on-the-line. please stay ON the line please, stay on the line! Please stay on the \
                        line... please stay on the line — please stay on";
        assert_eq!(left(drifting, &all), "Yes. Please stay on-the-line.");
        let two = "Thank you for calling our desk today. Is there anything else that I can do for you before you go? ";
        assert_eq!(left(format!("{}Thank you for", two.repeat(12)).as_str(), &all), two.trim_end());
        assert_eq!(left(&format!("{} wat", "water ".repeat(14).trim_end()), &all), "water");
    }

    #[test]
    fn a_loop_across_a_pause_is_one_loop() {
        let text = "So. ".to_owned() + &"Please hold the line. ".repeat(12) + "Please hold";
        assert_eq!(
            left(text.trim_end(), &[Segment::new(0, 3_000), Segment::new(6_000, 9_000)]),
            "So. Please hold the line."
        );
    }

    #[test]
    fn what_follows_a_loop_stays() {
        let all = [Segment::new(0, 1_000_000)];
        let thanks = "Thank you. ".repeat(12);
        assert_eq!(left(&format!("{thanks}Thank goodness for that"), &all), "Thank you. Thank goodness for that");
        assert_eq!(left(&format!("{thanks}Bye"), &all), "Thank you. Bye");
    }

    #[test]
    fn people_repeat_themselves() {
        let all = [Segment::new(0, 1_000_000)];
        for fine in [
            "no no no no no",
            "zero eight zero three five five zero eight zero three five five",
            "it is four four two it is four four two it is four four two thanks",
            "bye bye bye bye bye bye",
        ] {
            assert_eq!(left(fine, &all), fine);
        }
        // Above the human speech rate or without speech, fewer repeats are enough.
        let mut fast = said("well Please hold the line. Please hold the line. Please hold the line. Please hold");
        for (n, word) in fast.iter_mut().enumerate() {
            (word.start_ms, word.end_ms) = (n as f64 * 20.0, n as f64 * 20.0 + 20.0);
        }
        let kept = believed(&fast, &[Segment::new(0, 100_000)]).into_iter().filter(|kept| *kept).count();
        assert_eq!(kept, 5, "well, and the sentence once");
    }

    #[test]
    fn an_announcement_that_comes_again_after_pauses_is_heard_again() {
        let sentence = said("Please hold the line.");
        let mut words = Vec::new();
        let mut speech = Vec::new();
        for n in 0..6 {
            let at = f64::from(n) * 8_000.0;
            words.extend(sentence.iter().map(|word| HeardWord {
                start_ms: word.start_ms + at,
                end_ms: word.end_ms + at,
                ..word.clone()
            }));
            speech.push(Segment::new(n as u64 * 8_000, n as u64 * 8_000 + 1_300));
        }
        assert!(believed(&words, &speech).iter().all(|kept| *kept));
        // The same words within one speech region are a loop.
        assert_eq!(believed(&words, &[Segment::new(0, 50_000)]).iter().filter(|kept| **kept).count(), 4);
    }

    #[test]
    fn a_text_that_repeats_itself_is_seen() {
        assert!(is_repetitive(&"Please hold the line. ".repeat(4)));
        assert!(!is_repetitive("no no no, please hold the line, please hold the line"));
    }

    #[test]
    fn words_where_nobody_speaks_or_nobody_is_sure_are_left_out() {
        assert_eq!(left("one two three four five six seven", &[Segment::new(0, 200)]), "one two three");
        assert_eq!(left("one two", &[]), "");
        let mut words = said("yes maybe");
        words[1].confidence = 0.1;
        assert_eq!(believed(&words, &[Segment::new(0, 5_000)]), [true, false]);
    }
}
