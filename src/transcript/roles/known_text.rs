//! How much of what somebody says is what the agent is known to say, and how sure that makes.

use std::collections::HashSet;

use crate::domain::transcript::Utterance;

use super::plain;
use super::table;

/// Words in a row that two texts rarely share by chance.
const ROW: usize = 3;
/// Known words without which a text says nothing.
const FEWEST: usize = 4;

/// A greeting, a prompt, a script.
pub struct KnownText(HashSet<[String; ROW]>);

/// What one speaker says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said {
    /// Words inside rows that the known text has too.
    pub known: usize,
}

impl KnownText {
    pub fn of(text: &str) -> Self {
        // Rows do not run from one sentence into the next.
        let sentences = text.split(['.', '!', '?', '\n', ';']).map(super::super::score::normalise);
        let rows = sentences.flat_map(|words| words.array_windows::<ROW>().cloned().collect::<Vec<_>>());
        Self(rows.collect())
    }

    pub fn said_in<'a>(&self, utterances: impl Iterator<Item = &'a Utterance>) -> Said {
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
    /// Enough to build on.
    pub const fn is_enough(self) -> bool {
        self.known >= FEWEST
    }

    /// Two speakers' difference in this is the log odds of the one being the agent rather than the other.
    pub fn evidence(self) -> f64 {
        table::KNOWN_WORDS * (1.0 + self.known as f64).ln()
    }
}

/// The probability that these log odds stand for.
pub fn confidence(log_odds: f64) -> f64 {
    let confidence = 1.0 / (1.0 + (-log_odds).exp());
    // Calls it was learnt on were not endless: it never says more than they could show.
    confidence.min(table::MOST)
}
