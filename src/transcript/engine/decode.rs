//! Decodes token probabilities into words with times and confidence.

use rten::ctc::CtcDecoder;
use rten_tensor::AsView;

use super::acoustic::Posteriors;
use super::align;
use super::alphabet::Alphabet;
use super::manifest::ModelManifest;
use super::phrases::Phrases;

/// The search for the most likely text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    Greedy,
    /// A prefix beam of this many hypotheses.
    Beam(u32),
}

/// A word of a segment. Times are in milliseconds from the start of the segment.
#[derive(Debug, Clone, PartialEq)]
pub struct HeardWord {
    pub text: String,
    pub start_ms: f64,
    pub end_ms: f64,
    /// Geometric mean of the probabilities of its tokens, from 0 to 1.
    pub confidence: f64,
}

/// Decodes the token probabilities of a model.
#[derive(Debug, Clone)]
pub struct Decoder {
    alphabet: Alphabet,
    /// The only phrases that can be spoken, if the model lists them.
    phrases: Option<Phrases>,
}

impl Decoder {
    #[must_use]
    pub fn of(manifest: &ModelManifest) -> Self {
        let alphabet = Alphabet::of(manifest);
        let phrases = Phrases::of(&alphabet, &manifest.phrases);
        Self { alphabet, phrases }
    }

    #[must_use]
    pub const fn alphabet(&self) -> &Alphabet {
        &self.alphabet
    }

    /// The words of a segment.
    #[must_use]
    pub fn words(&self, posteriors: &Posteriors, search: Search) -> Vec<HeardWord> {
        if posteriors.steps() == 0 {
            return Vec::new();
        }
        let known = self.phrases.as_ref().and_then(|phrases| phrases.labels(posteriors));
        let steps = known.unwrap_or_else(|| labels(posteriors, search));
        let mut words: Vec<OpenWord> = Vec::new();
        let mut apart = true;
        for (index, (label, at)) in steps.iter().copied().enumerate() {
            let text = self.alphabet.text(label);
            apart |= text.starts_with(' ');
            let letters = text.trim();
            if !letters.is_empty() {
                let until = steps.get(index + 1).map_or(posteriors.steps(), |next| next.1.max(at + 1));
                let log_prob = best(posteriors, label, at, until);
                if apart {
                    words.push(OpenWord::at(at));
                }
                if let Some(word) = words.last_mut() {
                    word.add(letters, at, log_prob);
                }
                apart = false;
            }
            apart |= text.ends_with(' ');
        }
        self.close(words, posteriors.step_ms)
    }

    fn close(&self, words: Vec<OpenWord>, step_ms: f64) -> Vec<HeardWord> {
        let mut closed: Vec<HeardWord> = Vec::with_capacity(words.len());
        for word in words {
            let start_ms = self.alphabet.start_ms(word.first, step_ms);
            if let Some(before) = closed.last_mut() {
                before.end_ms = before.end_ms.min(start_ms).max(before.start_ms);
            }
            closed.push(HeardWord {
                text: word.text,
                start_ms,
                end_ms: ((word.last + 1) as f64 * step_ms).max(start_ms + step_ms),
                confidence: (f64::from(word.log_prob) / f64::from(word.tokens.max(1))).exp().min(1.0),
            });
        }
        closed
    }
}

/// The most likely tokens with the step of each.
fn labels(posteriors: &Posteriors, search: Search) -> Vec<(usize, usize)> {
    let decoder = CtcDecoder::new();
    let heard = match search {
        Search::Greedy => decoder.decode_greedy(posteriors.log_probs.view()),
        Search::Beam(width) => decoder.decode_beam(posteriors.log_probs.view(), width.max(1)),
    };
    let labels: Vec<usize> = heard.steps().iter().map(|step| step.label as usize).collect();
    // Beam search returns the step at which a label first became possible. The alignment finds the most likely step.
    let places = match search {
        Search::Greedy => None,
        Search::Beam(_) => align::steps(posteriors, &labels),
    };
    let places = places.unwrap_or_else(|| heard.steps().iter().map(|step| step.pos as usize).collect());
    labels.into_iter().zip(places).collect()
}

/// A word while its tokens are collected.
struct OpenWord {
    text: String,
    first: usize,
    last: usize,
    log_prob: f32,
    tokens: u32,
}

impl OpenWord {
    const fn at(step: usize) -> Self {
        Self { text: String::new(), first: step, last: step, log_prob: 0.0, tokens: 0 }
    }

    fn add(&mut self, letters: &str, at: usize, log_prob: f32) {
        self.text.push_str(letters);
        self.last = at;
        self.log_prob += log_prob;
        self.tokens += 1;
    }
}

/// The token's best log probability from its step until the next token.
fn best(posteriors: &Posteriors, label: usize, from: usize, until: usize) -> f32 {
    (from..until).filter_map(|step| posteriors.step(step).get(label).copied()).fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rten_tensor::NdTensor;

    use super::*;

    /// Each step has one token with probability 0.9.
    fn saying(tokens: usize, path: &[usize]) -> Posteriors {
        let other = (0.1 / (tokens - 1) as f32).ln();
        let mut all = vec![other; tokens * path.len()];
        for (step, token) in path.iter().enumerate() {
            all[step * tokens + token] = 0.9f32.ln();
        }
        Posteriors { log_probs: NdTensor::from_data([path.len(), tokens], all), step_ms: 40.0 }
    }

    fn decoder(json: &str) -> Decoder {
        Decoder::of(&ModelManifest::parse(json, Path::new("test")).unwrap())
    }

    #[test]
    fn letters_become_words_with_times_less_the_models_delay() {
        let decoder =
            decoder(r#"{"name":"x","tokens":["", " ","a","b"],"blank":0,"subsampling":4,"time_offset_ms":120}"#);
        let posteriors = saying(4, &[0, 0, 0, 0, 2, 2, 0, 2, 0, 1, 0, 3, 0]);
        for search in [Search::Greedy, Search::Beam(4)] {
            let words = decoder.words(&posteriors, search);
            let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
            assert_eq!(texts, ["aa", "b"], "{search:?}");
            assert!((words[0].start_ms - 40.0).abs() < 1e-9 && (words[0].end_ms - 320.0).abs() < 1e-9, "{words:?}");
            assert!((words[1].start_ms - 320.0).abs() < 1e-9);
            assert!((words[0].confidence - 0.9).abs() < 0.01);
        }
    }

    #[test]
    fn pieces_with_a_low_line_begin_words_and_the_blank_may_be_last() {
        let decoder = decoder("{\"name\":\"x\",\"tokens\":[\"\u{2581}he\",\"llo\",\"\u{2581}you\",\"<blk>\"]}");
        // The decoder counts the blank as 0, so that 1 is the first piece.
        let words = decoder.words(&saying(4, &[1, 0, 2, 0, 3]), Search::Greedy);
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(texts, ["hello", "you"]);
    }

    #[test]
    fn silence_says_nothing() {
        let decoder = decoder(r#"{"name":"x","tokens":["","a"],"blank":0}"#);
        assert!(decoder.words(&saying(2, &[0; 50]), Search::Greedy).is_empty());
        assert!(decoder.words(&saying(2, &[]), Search::Beam(3)).is_empty());
    }
}
