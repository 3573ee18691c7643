//! Recognition of known phrases. If a model's description lists phrases, matching audio is decoded only to their words,
//! in the order of a phrase where possible.
//!
//! The search is a Viterbi search over the words' tokens with CTC blanks between them (Graves et al. 2006). A word that
//! does not follow its predecessor in any phrase costs extra. Audio that does not match is decoded without phrases.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::acoustic::Posteriors;
use super::alphabet::Alphabet;

/// Costs in nats: a word out of order, the start of a next phrase, and a start in the middle of a phrase.
const LEAP: f32 = 6.0;
const NEXT_PHRASE: f32 = 2.0;
const MID_PHRASE: f32 = 2.0;
/// Largest mean loss per step, in nats, against the most likely tokens. On synthetic speech, the sentences of the
/// sample model stay below it for the most unusual voices. Half of other sentences are above it.
const UNLIKE: f32 = 0.9;
const NEVER: f32 = f32::NEG_INFINITY;

/// The words of all phrases and their order.
#[derive(Debug, Clone)]
pub struct Phrases {
    /// Two states per token: the token, then the blank after it.
    states: Vec<State>,
    /// The states of each word.
    words: Vec<Word>,
    /// Whether a space token ends each word.
    spaced: bool,
}

#[derive(Debug, Clone, Copy)]
struct State {
    token: usize,
    word: usize,
    first: bool,
    /// Whether the previous token may precede directly, because it differs from this one.
    skips: bool,
}

#[derive(Debug, Clone)]
struct Word {
    states: std::ops::Range<usize>,
    begins: bool,
    ends: bool,
    /// Words that precede it in some phrase.
    after: Vec<usize>,
}

/// The state one step earlier.
#[derive(Debug, Clone, Copy)]
enum Backpointer {
    Stay,
    Previous,
    Skip,
    /// Another word's last state, or silence.
    Word,
}

/// The start of a word: `None` for silence, or the last state of the previous word.
type Entry = Option<usize>;

impl Phrases {
    /// `None` if the tokens cannot spell any word of the phrases.
    #[must_use]
    pub fn of(alphabet: &Alphabet, phrases: &[String]) -> Option<Self> {
        let space = alphabet.space();
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        let mut all = Self { states: Vec::new(), words: Vec::new(), spaced: space.is_some() };
        let mut pairs: BTreeSet<(usize, usize)> = BTreeSet::new();
        for phrase in phrases {
            let mut before = None;
            for text in phrase.split_whitespace() {
                let word = if let Some(word) = known.get(text) {
                    *word
                } else {
                    let Some(word) = all.add(&alphabet.spell(text), space) else { continue };
                    known.insert(text, word);
                    word
                };
                match before {
                    Some(before) => drop(pairs.insert((word, before))),
                    None => all.words[word].begins = true,
                }
                before = Some(word);
            }
            if let Some(last) = before {
                all.words[last].ends = true;
            }
        }
        for (word, before) in pairs {
            all.words[word].after.push(before);
        }
        (!all.words.is_empty()).then_some(all)
    }

    fn add(&mut self, tokens: &[usize], space: Option<usize>) -> Option<usize> {
        if tokens.is_empty() {
            return None;
        }
        let (word, start) = (self.words.len(), self.states.len());
        let mut before = None;
        for token in tokens.iter().copied().chain(space) {
            let skips = before.is_some_and(|before| before != token);
            self.states.push(State { token, word, first: before.is_none(), skips });
            self.states.push(State { token: 0, word, first: false, skips: false });
            before = Some(token);
        }
        let states = start..self.states.len();
        self.words.push(Word { states, begins: false, ends: false, after: Vec::new() });
        Some(word)
    }

    /// The tokens of the most likely words with the first step of each. `None` if the audio does not match the phrases.
    #[must_use]
    pub fn labels(&self, posteriors: &Posteriors) -> Option<Vec<(usize, usize)>> {
        let steps = posteriors.steps();
        let (mut likely, mut silence) = (vec![NEVER; self.states.len()], 0.0_f32);
        let mut free = 0.0_f32;
        let mut came_from: Vec<Vec<Backpointer>> = Vec::with_capacity(steps);
        let mut entries: Vec<Vec<Entry>> = Vec::with_capacity(steps);
        for step in 0..steps {
            let log_probs = posteriors.step(step);
            let (entry, begun) = self.entries(&likely, silence);
            let mut from = Vec::with_capacity(self.states.len());
            let mut next = Vec::with_capacity(self.states.len());
            for (at, state) in self.states.iter().enumerate() {
                let (mut best, mut way) = (likely[at], Backpointer::Stay);
                let mut offer = |value: f32, by: Backpointer| {
                    if value > best {
                        (best, way) = (value, by);
                    }
                };
                if state.first {
                    offer(begun[state.word], Backpointer::Word);
                } else {
                    offer(likely[at - 1], Backpointer::Previous);
                }
                if state.skips {
                    offer(likely[at - 2], Backpointer::Skip);
                }
                next.push(best + log_probs[state.token]);
                from.push(way);
            }
            likely = next;
            silence += log_probs[0];
            free += log_probs.iter().copied().fold(NEVER, f32::max);
            came_from.push(from);
            entries.push(entry);
        }
        let (last, best) = self.last(&likely);
        if best.max(silence) < free - UNLIKE * steps as f32 {
            return None;
        }
        if silence >= best {
            return Some(Vec::new());
        }
        Some(self.traced(last, &came_from, &entries))
    }

    /// The best predecessor of each word and its log probability.
    fn entries(&self, likely: &[f32], silence: f32) -> (Vec<Entry>, Vec<f32>) {
        let ended: Vec<(usize, f32)> = self.words.iter().map(|word| ended(word, likely)).collect();
        let most = |best: (usize, f32), one: (usize, f32)| if one.1 > best.1 { one } else { best };
        let leap = ended.iter().copied().fold((0, NEVER), most);
        let phrase_ended = self.words.iter().zip(&ended).filter(|(word, _)| word.ends).map(|(_, end)| *end);
        let next_phrase = phrase_ended.fold((0, NEVER), most);
        let entry = |word: &Word| {
            let mut best = (Some(leap.0), leap.1 - LEAP);
            let mut offer = |from: Entry, value: f32| {
                if value > best.1 {
                    best = (from, value);
                }
            };
            if word.begins {
                offer(Some(next_phrase.0), next_phrase.1 - NEXT_PHRASE);
            }
            for before in &word.after {
                offer(Some(ended[*before].0), ended[*before].1);
            }
            offer(None, silence - if word.begins { 0.0 } else { MID_PHRASE });
            best
        };
        self.words.iter().map(entry).unzip()
    }

    /// The most likely end state. The last word must be complete, with or without its space.
    fn last(&self, likely: &[f32]) -> (usize, f32) {
        let wholes = self.words.iter().flat_map(|word| {
            let from = word.states.end - if self.spaced { 4 } else { 2 };
            from..word.states.end
        });
        let best = wholes.max_by(|a, b| likely[*a].total_cmp(&likely[*b])).unwrap_or(0);
        (best, likely[best])
    }

    fn traced(&self, last: usize, came_from: &[Vec<Backpointer>], entries: &[Vec<Entry>]) -> Vec<(usize, usize)> {
        let (mut at, mut labels) = (last, Vec::new());
        for step in (0..came_from.len()).rev() {
            let State { token, word, .. } = self.states[at];
            let before = match came_from[step][at] {
                Backpointer::Stay => Some(at),
                Backpointer::Previous => Some(at - 1),
                Backpointer::Skip => Some(at - 2),
                Backpointer::Word => entries[step][word],
            };
            if token != 0 && before != Some(at) {
                labels.push((token, step));
            }
            match before {
                Some(before) => at = before,
                None => break,
            }
        }
        labels.reverse();
        labels
    }
}

/// The more likely of a word's two last states.
fn ended(word: &Word, likely: &[f32]) -> (usize, f32) {
    let (token, blank) = (word.states.end - 2, word.states.end - 1);
    if likely[blank] > likely[token] { (blank, likely[blank]) } else { (token, likely[token]) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rten_tensor::NdTensor;

    use super::super::decode::Decoder;
    use super::super::decode::Search;
    use super::super::manifest::ModelManifest;
    use super::*;

    const LETTERS: &str = " abcdeinost";

    fn decoder(phrases: &str) -> Decoder {
        let tokens: Vec<String> = std::iter::once(String::new()).chain(LETTERS.chars().map(String::from)).collect();
        let json = serde_json::json!({ "name": "x", "tokens": tokens, "blank": 0, "subsampling": 4,
            "phrases": phrases.split('/').filter(|phrase| !phrase.is_empty()).collect::<Vec<_>>() });
        Decoder::of(&ModelManifest::parse(&json.to_string(), Path::new("x")).unwrap())
    }

    /// One step per letter (`-` is the blank) with probability `sure`. The other tokens share the rest.
    fn spelling(text: &str, sure: f32) -> Posteriors {
        let tokens = LETTERS.len() + 1;
        let other = ((1.0 - sure) / (tokens - 1) as f32).ln();
        let mut all = vec![other; tokens * text.len()];
        for (step, letter) in text.chars().enumerate() {
            all[step * tokens + LETTERS.find(letter).map_or(0, |at| at + 1)] = sure.ln();
        }
        Posteriors { log_probs: NdTensor::from_data([text.len(), tokens], all), step_ms: 40.0 }
    }

    fn heard(phrases: &str, spelt: &str, sure: f32) -> String {
        let words = decoder(phrases).words(&spelling(spelt, sure), Search::Greedy);
        words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_was_misheard_is_the_nearest_phrase() {
        let phrases = "on a date/to one side/a bean";
        assert_eq!(heard("", "--on- a d-abe-", 0.9), "on a dabe");
        assert_eq!(heard(phrases, "--on- a d-abe-", 0.7), "on a date");
        // From the middle, up to the middle, and several phrases in sequence.
        assert_eq!(heard(phrases, "-onb sid-e--", 0.7), "one side");
        assert_eq!(heard(phrases, "--to one-", 0.7), "to one");
        assert_eq!(heard(phrases, "to onne side -a- bea-n-", 0.7), "to one side a bean");
    }

    #[test]
    fn sound_that_is_none_of_the_phrases_stays_what_it_was_heard_as() {
        let phrases = "on a date/to one side";
        assert_eq!(heard(phrases, "-bcbbc-c-bbc-c-", 0.9), heard("", "-bcbbc-c-bbc-c-", 0.9));
        assert_eq!(heard(phrases, "----------", 0.9), "");
    }

    #[test]
    fn words_are_where_they_were_said() {
        let words = decoder("on a date").words(&spelling("----on---- a----d-ate--", 0.8), Search::Greedy);
        let starts: Vec<(&str, f64)> = words.iter().map(|word| (word.text.as_str(), word.start_ms)).collect();
        assert_eq!(starts, [("on", 160.0), ("a", 440.0), ("date", 640.0)]);
        assert!(words.iter().all(|word| word.confidence > 0.7), "{words:?}");
    }

    #[test]
    fn a_doubled_letter_needs_a_gap() {
        // Without the gap it is a single letter, which gives another word.
        assert_eq!(heard("too/to", "-to-o-", 0.8), "too");
        assert_eq!(heard("too/to", "-too--", 0.8), "to");
    }

    #[test]
    fn phrases_that_cannot_be_spelt_are_none() {
        assert!(Phrases::of(decoder("").alphabet(), &["123 456".to_owned()]).is_none());
        assert!(Phrases::of(decoder("").alphabet(), &[]).is_none());
    }
}
