//! The times of an answer's words. A word without times gets them from its neighbours.

use super::AnsweredWord;
use crate::transcript::confidence::thousandths;

/// Duration of one letter in seconds, at fifteen letters per second.
const LETTER: f64 = 1.0 / 15.0;
/// Starts this many seconds after the end of the sent audio have another unit or belong to another recording.
const BEYOND: f64 = 1.0;

/// A word of an answer. Times are in seconds from the start of the sent audio, if known.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub text: String,
    pub start: Option<f64>,
    pub end: Option<f64>,
    pub confidence: Option<f64>,
    pub channel: u32,
    pub speaker: Option<u32>,
}

impl Draft {
    pub(super) fn new(text: &str, start: Option<f64>, end: Option<f64>) -> Self {
        Self { text: text.trim().to_owned(), start, end, ..Self::default() }
    }

    fn spoken(&self) -> f64 {
        letters(&self.text) * LETTER
    }

    pub(super) fn answered(self) -> AnsweredWord {
        let ms = |seconds: f64| (seconds * 1000.0).round() as u64;
        AnsweredWord {
            start_ms: self.start.map(ms),
            end_ms: self.end.map(ms),
            confidence: self.confidence.map(thousandths),
            channel: self.channel,
            speaker: self.speaker,
            text: self.text,
        }
    }
}

/// Letters and digits of a text, at least one.
pub(super) fn letters(text: &str) -> f64 {
    text.chars().filter(|c| c.is_alphanumeric()).count().max(1) as f64
}

/// The words of a text, with its time distributed by their length. Without start and end they have no times.
pub(super) fn spread(text: &str, start: Option<f64>, end: Option<f64>) -> Vec<Draft> {
    let span = start.zip(end).map(|(start, end)| (start.max(0.0), (end - start).max(0.0)));
    let all: f64 = text.split_whitespace().map(letters).sum();
    let mut said = 0.0;
    let word = |word: &str| {
        let from = said;
        said += letters(word);
        let at = |letters: f64| span.map(|(start, length)| start + length * letters / all);
        Draft::new(word, at(from), at(said))
    };
    text.split_whitespace().map(word).collect()
}

/// Sets the missing times of all words of one channel, if any word has a time. `length` is the length of the sent audio
/// in seconds.
pub(super) fn settle(words: &mut [Draft], length: f64) {
    let beyond = words.iter().filter(|word| word.start.is_some_and(|start| start > length + BEYOND)).count();
    let timed = words.iter().filter(|word| word.start.is_some()).count();
    for word in &mut *words {
        if beyond * 2 > timed {
            (word.start, word.end) = (None, None);
        }
        word.start = word.start.map(|start| start.max(0.0));
        word.end = word.end.filter(|end| *end >= word.start.unwrap_or(0.0));
    }
    for at in 0..words.len() {
        let next = words.get(at + 1).and_then(|next| next.start);
        let before = at.checked_sub(1).and_then(|before| words[before].end);
        let word = &mut words[at];
        match (word.start, word.end) {
            (Some(start), None) => {
                let end = start + word.spoken();
                word.end = Some(next.filter(|next| *next > start).map_or(end, |next| end.min(next)));
            }
            (None, Some(end)) => {
                word.start = Some((end - word.spoken()).max(before.unwrap_or(0.0)).min(end));
            }
            _ => {}
        }
    }
    let mut at = 0;
    while at < words.len() {
        let run = words[at..].iter().take_while(|word| word.start.is_none()).count();
        if run > 0 {
            let before = at.checked_sub(1).and_then(|before| words[before].end);
            let after = words.get(at + run).and_then(|after| after.start);
            fill(&mut words[at..at + run], before, after, length);
        }
        at += run.max(1);
    }
}

/// Places words between their neighbours: after the previous one, or else before the next one.
fn fill(words: &mut [Draft], before: Option<f64>, after: Option<f64>, length: f64) {
    let wanted: f64 = words.iter().map(Draft::spoken).sum();
    let (from, room) = match (before, after) {
        (None, None) => return,
        (Some(before), after) => (before, (after.unwrap_or(length.max(before)) - before).max(0.0).min(wanted)),
        (None, Some(after)) => (after - after.min(wanted), after.min(wanted)),
    };
    let mut said = 0.0;
    for word in words {
        let own = word.spoken();
        word.start = Some(from + room * said / wanted);
        said += own;
        word.end = Some(from + room * said / wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(given: &[(&str, Option<f64>, Option<f64>)], length: f64) -> Vec<(Option<f64>, Option<f64>)> {
        let mut words: Vec<Draft> = given.iter().map(|(text, start, end)| Draft::new(text, *start, *end)).collect();
        settle(&mut words, length);
        let two = |at: Option<f64>| at.map(|at| (at * 100.0).round() / 100.0);
        words.iter().map(|word| (two(word.start), two(word.end))).collect()
    }

    #[test]
    fn a_word_without_times_stands_between_its_neighbours() {
        let number =
            settled(&[("room", Some(1.0), Some(1.3)), ("504", None, None), ("please", Some(1.45), Some(1.9))], 9.0);
        assert_eq!(number[1], (Some(1.3), Some(1.45)));
        // A long pause is not part of the word.
        let number =
            settled(&[("room", Some(1.0), Some(1.3)), ("504", None, None), ("please", Some(6.0), Some(6.4))], 9.0);
        assert_eq!(number[1], (Some(1.3), Some(1.5)));
        let ends = settled(&[("504", None, None), ("is", Some(1.0), Some(1.2)), ("it", None, None)], 1.25);
        assert_eq!(ends, [(Some(0.8), Some(1.0)), (Some(1.0), Some(1.2)), (Some(1.2), Some(1.25))]);
        // There is no gap between the neighbours.
        let tight = settled(&[("a", Some(1.0), Some(2.0)), ("b", None, None), ("c", Some(1.5), Some(2.5))], 9.0);
        assert_eq!(tight[1], (Some(2.0), Some(2.0)));
    }

    #[test]
    fn half_of_a_pair_of_times_is_enough() {
        let halves = settled(&[("abc", Some(1.0), None), ("def", None, Some(1.3)), ("g", Some(2.0), Some(1.0))], 9.0);
        assert_eq!(halves, [(Some(1.0), Some(1.2)), (Some(1.2), Some(1.3)), (Some(2.0), Some(2.07))]);
        assert_eq!(settled(&[("a", Some(-0.02), Some(0.1))], 9.0), [(Some(0.0), Some(0.1))]);
    }

    #[test]
    fn times_of_another_unit_are_no_times() {
        let milliseconds = [("one", Some(400.0), Some(700.0)), ("two", Some(900.0), Some(1100.0))];
        assert_eq!(settled(&milliseconds, 12.0), [(None, None), (None, None)]);
        // A single word beyond the end does not affect the others.
        let one = [("a", Some(0.0), Some(0.1)), ("b", Some(0.2), Some(0.3)), ("c", Some(400.0), Some(401.0))];
        assert_eq!(settled(&one, 12.0)[2], (Some(400.0), Some(401.0)));
        assert_eq!(settled(&[("a", None, None)], 12.0), [(None, None)]);
    }
}
