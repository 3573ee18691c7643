//! Text evidence for the agent: the words of a speaker that match the agent's known text, and their log odds.

use std::collections::HashSet;

use crate::domain::transcript::Utterance;

use super::plain;
use super::table;

/// Words in sequence that two texts rarely share by chance.
const ROW: usize = 3;
/// Least known words for any evidence.
const FEWEST: usize = 4;

/// A greeting, a prompt or a script, as word triples.
pub(super) struct KnownText(HashSet<[String; ROW]>);

/// Match of one speaker with the known text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    /// Words within triples that the known text contains.
    pub known: usize,
}

impl KnownText {
    pub(super) fn of(text: &str) -> Self {
        // Triples do not cross sentence boundaries.
        let sentences = text.split(['.', '!', '?', '\n', ';']).map(super::super::score::normalise);
        let rows = sentences.flat_map(|words| words.array_windows::<ROW>().cloned().collect::<Vec<_>>());
        Self(rows.collect())
    }

    pub(super) fn said_in<'a>(&self, utterances: impl Iterator<Item = &'a Utterance>) -> Said {
        let mut said = Said::default();
        for utterance in utterances {
            let words = plain(utterance);
            let mut known = vec![false; words.len()];
            for (at, row) in words.array_windows::<ROW>().enumerate() {
                if self.0.contains(row) {
                    known[at..at + ROW].fill(true);
                }
            }
            said.known += known.iter().filter(|known| **known).count();
        }
        said
    }
}

impl Said {
    /// Whether the match is evidence.
    pub(super) const fn is_enough(self) -> bool {
        self.known >= FEWEST
    }

    /// The difference between two speakers is the log odds of the first being the agent rather than the second.
    pub(super) fn evidence(self) -> f64 {
        table::KNOWN_WORDS * (1.0 + self.known as f64).ln()
    }
}

/// The probability for these log odds.
pub(super) fn confidence(log_odds: f64) -> f64 {
    let confidence = 1.0 / (1.0 + (-log_odds).exp());
    // The number of training calls limits the confidence.
    confidence.min(table::MOST)
}
