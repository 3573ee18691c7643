//! CTC forced alignment of known text with audio. Input: token probabilities, and the spelt words in their order.
//! Output: the first and last step of each word, with a confidence. The rest of an utterance may be unsaid, and audio
//! may have no text.

use super::acoustic::Posteriors;
use super::alphabet::Alphabet;

/// Upper limit of the cost of a step without text, in nats. It is above the cost of clear silence and below that of an
/// absent token.
const UNWRITTEN: f32 = 3.0;
/// Cost of breaking off an utterance, and of each of its unsaid tokens, in nats.
const BREAK_OFF: f32 = 4.0;
const UNSAID: f32 = 1.0;
/// Hypotheses that are worse than the best of a step by this many nats are dropped.
const HOPELESS: f32 = 250.0;
/// Limit of steps times tokens for an alignment: an hour of continuous speech.
const MOST_CELLS: usize = 1 << 31;

/// Position of a word in the audio, in steps from the first step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placed {
    /// Step of the first and of the last token.
    pub first: usize,
    pub last: usize,
    /// Geometric mean of the probabilities of its tokens.
    pub confidence: f64,
}

/// The alignment result of a word.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    Placed(Placed),
    /// The utterance was broken off before this word.
    Unsaid,
    /// The word has no letters that the model knows. Its position follows from its neighbours.
    Unspellable,
}

/// One token of the text in the trellis.
#[derive(Debug, Clone, Copy)]
struct Slot {
    token: usize,
    word: usize,
    utterance: usize,
    first_of_word: bool,
    last_of_word: bool,
    /// Tokens after this one in the same utterance.
    left: u32,
}

/// The state of a hypothesis one step earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backpointer {
    Stay,
    /// The gap before this token, or the token before this gap.
    Previous,
    /// Two states back: from token to token without a gap.
    Skip,
    /// The previous utterance was broken off after this slot.
    BrokenOff(u32),
    Nowhere,
}

/// Aligns the words of the utterances (spelt by [`Alphabet::spell`]) with the steps, in their order. `None` without words or
/// steps, or above the size limit.
#[must_use]
pub fn align(posteriors: &Posteriors, alphabet: &Alphabet, utterances: &[Vec<Vec<usize>>]) -> Option<Vec<Vec<Fate>>> {
    let slots = slots(utterances);
    let steps = posteriors.steps();
    if slots.is_empty() || steps == 0 || slots.len().saturating_mul(steps) > MOST_CELLS {
        return None;
    }
    let path = Trellis { posteriors, slots: &slots, space: alphabet.space() }.best()?;
    let mut fates: Vec<Vec<Fate>> = utterances
        .iter()
        .map(|words| words.iter().map(|word| if word.is_empty() { Fate::Unspellable } else { Fate::Unsaid }).collect())
        .collect();
    let mut sums: Vec<(usize, f64, u32)> = Vec::new();
    for (step, slot) in path {
        let Slot { token, word, utterance, .. } = slots[slot];
        let log_prob = f64::from(posteriors.step(step)[token]);
        let fate = &mut fates[utterance][word];
        match (fate, sums.last_mut()) {
            (Fate::Placed(placed), Some(sum)) => {
                placed.last = step;
                if sum.0 == slot {
                    continue;
                }
                *sum = (slot, sum.1 + log_prob, sum.2 + 1);
                placed.confidence = (sum.1 / f64::from(sum.2)).exp();
            }
            (fate, _) => {
                *fate = Fate::Placed(Placed { first: step, last: step, confidence: log_prob.exp() });
                sums.push((slot, log_prob, 1));
            }
        }
    }
    Some(fates)
}

/// The most likely step of each of these labels, in their order.
pub(super) fn steps(posteriors: &Posteriors, labels: &[usize]) -> Option<Vec<usize>> {
    let slots = slots(&[vec![labels.to_vec()]]);
    let path = Trellis { posteriors, slots: &slots, space: None }.best()?;
    let first = |slot: usize| path.iter().find(|(_, other)| *other == slot).map(|(step, _)| *step);
    (0..slots.len()).map(first).collect()
}

fn slots(utterances: &[Vec<Vec<usize>>]) -> Vec<Slot> {
    let mut all = Vec::new();
    for (utterance, words) in utterances.iter().enumerate() {
        let mut left: u32 = words.iter().map(|word| word.len() as u32).sum();
        for (word, tokens) in words.iter().enumerate() {
            for (index, token) in tokens.iter().enumerate() {
                left -= 1;
                let (first_of_word, last_of_word) = (index == 0, index + 1 == tokens.len());
                all.push(Slot { token: *token, word, utterance, first_of_word, last_of_word, left });
            }
        }
    }
    all
}

struct Trellis<'a> {
    posteriors: &'a Posteriors,
    slots: &'a [Slot],
    space: Option<usize>,
}

impl Trellis<'_> {
    /// The best path. Even states are the gaps before the tokens and after the last one; odd states are the tokens.
    /// Returns the steps of the tokens with their slots, in order.
    fn best(&self) -> Option<Vec<(usize, usize)>> {
        let states = 2 * self.slots.len() + 1;
        let mut scores = vec![f32::NEG_INFINITY; states];
        (scores[0], scores[1]) = (0.0, 0.0);
        let mut origins: Vec<(usize, Vec<Backpointer>)> = Vec::with_capacity(self.posteriors.steps());
        // Before the first step, only the first two states are open. They have no predecessor.
        let mut open = 0..2;
        for step in 0..self.posteriors.steps() {
            let said = self.posteriors.step(step);
            let broken = self.broken(&scores, open.clone());
            let reach = open.start..(open.end + 2).max(broken.last().map_or(0, |b| 2 * b.entry + 2)).min(states);
            let mut next = vec![f32::NEG_INFINITY; states.min(reach.end)];
            let mut from = vec![Backpointer::Nowhere; reach.len()];
            for state in reach.clone() {
                let (score, origin) =
                    if step == 0 { (scores[state], Backpointer::Stay) } else { self.entered(&scores, &broken, state) };
                next[state] = score + self.emission(said, state);
                from[state - reach.start] = origin;
            }
            let best = next[reach.clone()].iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let alive = |state: &usize| next[*state] > best - HOPELESS;
            let start = reach.clone().find(alive)?;
            let end = reach.clone().rev().find(alive)? + 1;
            scores.fill(f32::NEG_INFINITY);
            scores[start..end].copy_from_slice(&next[start..end]);
            origins.push((reach.start, from));
            open = start..end;
        }
        self.trace(&scores, &origins)
    }

    /// The best predecessor of a state.
    fn entered(&self, scores: &[f32], broken: &[BrokenOff], state: usize) -> (f32, Backpointer) {
        let mut best = (scores[state], Backpointer::Stay);
        let mut offer = |score: f32, from: Backpointer| {
            if score > best.0 {
                best = (score, from);
            }
        };
        if state >= 1 {
            offer(scores[state - 1], Backpointer::Previous);
        }
        // A direct transition between two tokens is allowed only if they differ.
        let slot = state / 2;
        if state % 2 == 1 && slot >= 1 && self.slots[slot].token != self.slots[slot - 1].token {
            offer(scores[state - 2], Backpointer::Skip);
        }
        if state.is_multiple_of(2)
            && let Some(jump) = broken.iter().find(|jump| jump.entry == slot)
        {
            offer(jump.score, Backpointer::BrokenOff(jump.after));
        }
        best
    }

    /// For every utterance that can be broken off here, the best position. `entry` is the slot of the next gap, or the
    /// number of slots at the end of the text.
    fn broken(&self, scores: &[f32], open: std::ops::Range<usize>) -> Vec<BrokenOff> {
        let mut all: Vec<BrokenOff> = Vec::new();
        for state in open {
            let Some(slot) = (state % 2 == 1).then_some(state / 2) else { continue };
            let Slot { last_of_word, left, .. } = self.slots[slot];
            if !last_of_word || left == 0 {
                continue;
            }
            let score = scores[state] - BREAK_OFF - UNSAID * left as f32;
            let entry = slot + left as usize + 1;
            match all.last_mut().filter(|last| last.entry == entry) {
                Some(last) if last.score >= score => {}
                Some(last) => *last = BrokenOff { entry, score, after: slot as u32 },
                None => all.push(BrokenOff { entry, score, after: slot as u32 }),
            }
        }
        all
    }

    fn emission(&self, said: &[f32], state: usize) -> f32 {
        if state % 2 == 1 {
            return said[self.slots[state / 2].token];
        }
        // Only silence is possible within a word. Between words, a space or audio without text is also possible.
        let inside = self.slots.get(state / 2).is_some_and(|slot| !slot.first_of_word);
        let apart = self.space.map_or(f32::NEG_INFINITY, |space| said[space]);
        if inside { said[0] } else { said[0].max(apart).max(-UNWRITTEN) }
    }

    fn trace(&self, scores: &[f32], origins: &[(usize, Vec<Backpointer>)]) -> Option<Vec<(usize, usize)>> {
        let last = 2 * self.slots.len();
        // The path may also end with a break-off in the last utterance.
        let ends = (0..=last).filter_map(|state| {
            let unsaid = match state {
                _ if state + 1 >= last => 0.0,
                _ => {
                    let slot = (state / 2).checked_sub(usize::from(state % 2 == 0))?;
                    let Slot { last_of_word, left, .. } = self.slots[slot];
                    let ends_the_text = slot + left as usize + 1 == self.slots.len();
                    (last_of_word && ends_the_text).then_some(BREAK_OFF + UNSAID * left as f32)?
                }
            };
            Some((scores[state] - unsaid, state))
        });
        let (score, mut state) = ends.max_by(|a, b| a.0.total_cmp(&b.0))?;
        if score == f32::NEG_INFINITY {
            return None;
        }
        let mut said = Vec::new();
        for (step, (start, from)) in origins.iter().enumerate().rev() {
            if state % 2 == 1 {
                said.push((step, state / 2));
            }
            match from[state - start] {
                Backpointer::Stay => {}
                Backpointer::Previous => state -= 1,
                Backpointer::Skip => state -= 2,
                Backpointer::BrokenOff(slot) => state = 2 * slot as usize + 1,
                Backpointer::Nowhere => return None,
            }
        }
        said.reverse();
        Some(said)
    }
}

/// A jump over the unsaid rest of an utterance.
struct BrokenOff {
    entry: usize,
    score: f32,
    after: u32,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rten_tensor::NdTensor;

    use super::super::manifest::ModelManifest;
    use super::*;

    /// Tokens: blank, space, a, b, c.
    fn alphabet() -> Alphabet {
        let json = r#"{"name":"x","tokens":[""," ","a","b","c"],"blank":0,"subsampling":4}"#;
        Alphabet::of(&ModelManifest::parse(json, Path::new("test")).unwrap())
    }

    fn saying(path: &[usize]) -> Posteriors {
        let mut all = vec![0.0125f32.ln(); 5 * path.len()];
        for (step, token) in path.iter().enumerate() {
            all[step * 5 + token] = 0.95f32.ln();
        }
        Posteriors { log_probs: NdTensor::from_data([path.len(), 5], all), step_ms: 40.0 }
    }

    fn fates(path: &[usize], utterances: &[&[&str]]) -> Vec<Vec<Fate>> {
        let alphabet = alphabet();
        let spelt: Vec<Vec<Vec<usize>>> =
            utterances.iter().map(|words| words.iter().map(|word| alphabet.spell(word)).collect()).collect();
        align(&saying(path), &alphabet, &spelt).unwrap()
    }

    fn place(fate: Fate) -> (usize, usize) {
        match fate {
            Fate::Placed(placed) => (placed.first, placed.last),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_stand_where_they_are_said() {
        let found = fates(&[0, 0, 2, 3, 0, 1, 0, 4, 0, 4, 0], &[&["Ab,", "cc"]]);
        assert_eq!((place(found[0][0]), place(found[0][1])), ((2, 3), (7, 9)));
    }

    #[test]
    fn what_an_utterance_did_not_get_to_say_is_unsaid() {
        let said = [0, 2, 3, 0, 1, 4, 0, 0, 3, 3, 0, 0];
        let found = fates(&said, &[&["ab", "c", "abc", "cab"], &["b"]]);
        assert_eq!((place(found[0][0]), place(found[0][1])), ((1, 2), (5, 5)));
        assert_eq!((found[0][2], found[0][3]), (Fate::Unsaid, Fate::Unsaid));
        assert_eq!(place(found[1][0]), (8, 9));
        let cut_at_the_end = fates(&[0, 2, 3, 0, 0, 0], &[&["ab", "cab", "abc"]]);
        assert_eq!((cut_at_the_end[0][1], cut_at_the_end[0][2]), (Fate::Unsaid, Fate::Unsaid));
    }

    #[test]
    fn sound_that_nobody_wrote_down_is_passed_over() {
        let found = fates(&[0, 4, 3, 4, 1, 0, 2, 3, 0, 0], &[&["ab"]]);
        assert_eq!(place(found[0][0]), (6, 7));
    }

    #[test]
    fn a_text_that_does_not_fit_has_no_confidence() {
        let found = fates(&[0, 4, 0, 4, 0, 4, 0], &[&["ab"]]);
        assert!(matches!(found[0][0], Fate::Placed(placed) if placed.confidence < 0.1), "{found:?}");
        assert_eq!(fates(&[0, 2, 0], &[&["a", "7"]])[0][1], Fate::Unspellable);
    }
}
