//! Scores a transcript against its reference: wrong words, roles and speaker time.

use super::DiarizationError;
use super::Reference;
use super::SpokenWord;
use super::WordErrors;
use super::diarization;
use super::normalise;
use super::word_errors;
use super::words::matches;
use crate::domain::Role;
use crate::domain::Segment;
use crate::domain::Transcript;
use crate::domain::segment::common_ms;
use crate::domain::segment::joined;
use crate::domain::transcript::Turn;

/// A role with at least this confidence, or without a confidence value, counts as certain.
pub const CONFIDENT: f64 = 0.9;
/// Compared speakers; further ones count as the last.
const MOST: usize = 8;
/// Tolerance around the boundaries of the reference in milliseconds, because annotators place them differently.
const COLLAR_MS: u64 = 250;

/// Words of the reference with a known role, by the role they were given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoleScore {
    pub words: u64,
    /// Recognised words with a role.
    pub labelled: u64,
    pub right: u64,
    /// Words with a wrong role and high confidence, see [`CONFIDENT`].
    pub confidently_wrong: u64,
}

/// The errors of a transcript.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Score {
    pub audio_ms: u64,
    pub words: WordErrors,
    /// Word errors with each speaker's words compared to those of the best matching speaker (cpWER).
    pub words_by_speaker: WordErrors,
    pub roles: RoleScore,
    pub diarization: DiarizationError,
    pub diarization_strict: DiarizationError,
    /// Time without speech in the reference, in milliseconds, and the words found there.
    pub silent_ms: u64,
    pub invented_words: u64,
}

impl Score {
    pub fn add(&mut self, other: &Self) {
        self.audio_ms += other.audio_ms;
        self.words.add(other.words);
        self.words_by_speaker.add(other.words_by_speaker);
        self.roles.words += other.roles.words;
        self.roles.labelled += other.roles.labelled;
        self.roles.right += other.roles.right;
        self.roles.confidently_wrong += other.roles.confidently_wrong;
        self.diarization.add(&other.diarization);
        self.diarization_strict.add(&other.diarization_strict);
        self.silent_ms += other.silent_ms;
        self.invented_words += other.invented_words;
    }

    /// Invented words per minute without speech. `None` if the reference has no silence.
    #[must_use]
    pub fn invented_per_minute(&self) -> Option<f64> {
        (self.silent_ms > 0).then(|| self.invented_words as f64 * 60_000.0 / self.silent_ms as f64)
    }
}

/// A word for the comparison.
struct ComparedWord {
    text: String,
    speaker: usize,
    /// Index of its utterance in the found transcript.
    utterance: usize,
    start_ms: Option<u64>,
    end_ms: Option<u64>,
}

/// Compares a transcript with its reference.
#[must_use]
pub fn judge(reference: &Reference, found: &Transcript, audio_ms: u64) -> Score {
    let said = spoken(reference);
    let heard = heard(found);
    let ours: Vec<Turn> =
        found.turns.iter().map(|turn| Turn { speaker: place(found, turn.speaker) as u32, ..*turn }).collect();
    let (silent_ms, invented_words) = invented(reference, &heard, audio_ms);
    Score {
        audio_ms,
        words: word_errors(&text(&said, |_| true), &text(&heard, |_| true)),
        words_by_speaker: if reference.diarized { by_speaker(&said, &heard) } else { WordErrors::default() },
        roles: roles(reference, &said, found, &heard),
        diarization: diarization(&reference.turns, &ours, COLLAR_MS),
        diarization_strict: diarization(&reference.turns, &ours, 0),
        silent_ms,
        invented_words,
    }
}

fn place(found: &Transcript, id: u32) -> usize {
    found.speakers.iter().position(|speaker| speaker.id == id).unwrap_or(found.speakers.len())
}

/// The reference's words by time; words without times keep the order of the file.
fn spoken(reference: &Reference) -> Vec<ComparedWord> {
    let word = |word: &SpokenWord| ComparedWord {
        text: word.text.clone(),
        speaker: word.speaker,
        utterance: 0,
        start_ms: word.start_ms,
        end_ms: word.end_ms,
    };
    let mut said: Vec<ComparedWord> = reference.words.iter().map(word).collect();
    in_time(&mut said);
    said
}

/// A transcript's words in the same order, without the words marked as not heard.
fn heard(found: &Transcript) -> Vec<ComparedWord> {
    let mut heard = Vec::new();
    for (at, utterance) in found.utterances.iter().enumerate() {
        let speaker = place(found, utterance.speaker);
        let word = |text: &str, start_ms, end_ms| ComparedWord {
            text: text.to_owned(),
            speaker,
            utterance: at,
            start_ms,
            end_ms,
        };
        if utterance.words.is_empty() {
            let whole = |text| word(text, utterance.start_ms, utterance.end_ms);
            heard.extend(utterance.text.split_whitespace().map(whole));
        }
        let real = utterance.words.iter().filter(|word| word.heard != Some(false));
        heard.extend(real.map(|said| word(&said.text, said.start_ms, said.end_ms)));
    }
    in_time(&mut heard);
    heard
}

fn in_time(words: &mut [ComparedWord]) {
    if words.iter().all(|word| word.start_ms.is_some()) {
        words.sort_by_key(|word| word.start_ms);
    }
}

fn text(words: &[ComparedWord], wanted: impl Fn(&ComparedWord) -> bool) -> Vec<String> {
    let texts: Vec<&str> = words.iter().filter(|word| wanted(word)).map(|word| word.text.as_str()).collect();
    normalise(&texts.join(" "))
}

/// The smallest sum of word errors if every found speaker is matched with at most one of the reference. All words of an
/// unmatched speaker are errors.
fn by_speaker(said: &[ComparedWord], heard: &[ComparedWord]) -> WordErrors {
    let count = |words: &[ComparedWord]| words.iter().map(|word| word.speaker + 1).max().unwrap_or(0).min(MOST);
    let of = |words: &[ComparedWord], who: usize| text(words, |word| word.speaker.min(MOST - 1) == who);
    let said: Vec<Vec<String>> = (0..count(said)).map(|who| of(said, who)).collect();
    let mut found: Vec<Vec<String>> = (0..count(heard)).map(|who| of(heard, who)).collect();
    // Empty partners stand for unmatched speakers.
    found.resize(found.len() + said.len(), Vec::new());
    let total = found.iter().map(|words| words.len() as u64).sum::<u64>();
    // The smallest errors by set of used partners, for one reference speaker after another. A partner's words are
    // errors until it is used.
    let mut least = vec![u64::MAX; 1 << found.len()];
    least[0] = total;
    let mut words = 0;
    for own in &said {
        words += own.len() as u64;
        let mut next = vec![u64::MAX; least.len()];
        for (taken, errors) in least.iter().enumerate().filter(|(_, errors)| **errors < u64::MAX) {
            for (partner, theirs) in found.iter().enumerate().filter(|(partner, _)| taken >> partner & 1 == 0) {
                let errors = errors - theirs.len() as u64 + word_errors(own, theirs).errors;
                let best = &mut next[taken | 1 << partner];
                *best = errors.min(*best);
            }
        }
        least = next;
    }
    WordErrors { errors: least.into_iter().min().unwrap_or(0), words }
}

/// Compares the roles of the words that match in the cheapest alignment.
fn roles(reference: &Reference, said: &[ComparedWord], found: &Transcript, heard: &[ComparedWord]) -> RoleScore {
    let truth = |word: &ComparedWord| reference.speakers.get(word.speaker).copied().unwrap_or(Role::Unknown);
    let plain =
        |words: &[ComparedWord]| -> Vec<String> { words.iter().map(|word| normalise(&word.text).join(" ")).collect() };
    let words = said.iter().filter(|word| truth(word) != Role::Unknown).count() as u64;
    let mut score = RoleScore { words, ..RoleScore::default() };
    for (ours, theirs) in matches(&plain(said), &plain(heard)) {
        let truth = truth(&said[ours]);
        let utterance = &found.utterances[heard[theirs].utterance];
        let role = utterance.by.map_or_else(|| found.role(utterance.speaker), |by| by.role);
        if truth == Role::Unknown || role == Role::Unknown {
            continue;
        }
        score.labelled += 1;
        let sure = utterance.by.and_then(|by| by.confidence).is_none_or(|confidence| confidence >= CONFIDENT);
        score.right += u64::from(role == truth);
        score.confidently_wrong += u64::from(role != truth && sure);
    }
    score
}

/// Milliseconds without speech in the reference, and the words centred there.
fn invented(reference: &Reference, heard: &[ComparedWord], audio_ms: u64) -> (u64, u64) {
    let around = |turn: &Turn| Segment::new(turn.start_ms.saturating_sub(COLLAR_MS), turn.end_ms + COLLAR_MS);
    let spoken = joined(reference.turns.iter().map(around).collect());
    let silent_ms = audio_ms - common_ms(&spoken, &[Segment::new(0, audio_ms)]);
    let in_silence = |word: &&ComparedWord| {
        let Some((start, end)) = word.start_ms.zip(word.end_ms) else { return false };
        !spoken.iter().any(|segment| segment.contains(start.midpoint(end)))
    };
    (silent_ms, heard.iter().filter(in_silence).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::transcript::Attribution;
    use crate::domain::transcript::Evidence;
    use crate::domain::transcript::Speaker;
    use crate::domain::transcript::Utterance;
    use crate::transcript::without_text;

    fn reference() -> Reference {
        let word = |(n, (speaker, text)): (usize, &(usize, &str))| SpokenWord {
            text: (*text).to_owned(),
            speaker: *speaker,
            start_ms: Some(n as u64 * 500),
            end_ms: Some(n as u64 * 500 + 400),
        };
        let said = [(0, "good"), (0, "day"), (1, "hello"), (1, "there")];
        Reference {
            speakers: vec![Role::Agent, Role::Caller],
            words: said.iter().enumerate().map(word).collect(),
            turns: vec![
                Turn { speaker: 0, start_ms: 0, end_ms: 900 },
                Turn { speaker: 1, start_ms: 1_000, end_ms: 1_900 },
            ],
            diarized: true,
            ..Reference::default()
        }
    }

    fn found(lines: &[(u32, Role, Option<f64>, &str, u64)]) -> Transcript {
        let mut words = without_text(None);
        words.speakers = vec![Speaker::nameless(0), Speaker::nameless(1)];
        words.turns =
            vec![Turn { speaker: 0, start_ms: 0, end_ms: 900 }, Turn { speaker: 1, start_ms: 1_000, end_ms: 1_900 }];
        words.utterances = lines
            .iter()
            .map(|(speaker, role, confidence, text, start_ms)| Utterance {
                speaker: *speaker,
                start_ms: Some(*start_ms),
                end_ms: Some(start_ms + 900),
                text: (*text).to_owned(),
                confidence: None,
                heard: None,
                words: Vec::new(),
                by: Some(Attribution { role: *role, evidence: Some(Evidence::Text), confidence: *confidence }),
            })
            .collect();
        words
    }

    #[test]
    fn a_perfect_transcript_has_no_errors() {
        let found = found(&[
            (0, Role::Agent, Some(0.99), "Good day.", 0),
            (1, Role::Caller, Some(0.99), "Hello there!", 1_000),
        ]);
        let score = judge(&reference(), &found, 4_000);
        assert_eq!((score.words.errors, score.words.words, score.words_by_speaker.errors), (0, 4, 0));
        assert_eq!(score.roles, RoleScore { words: 4, labelled: 4, right: 4, confidently_wrong: 0 });
        assert_eq!((score.diarization.rate(), score.diarization_strict.rate()), (Some(0.0), Some(0.0)));
        assert_eq!((score.silent_ms, score.invented_words), (1_850, 0));
    }

    #[test]
    fn each_error_is_counted_where_it_belongs() {
        // "hello" is given to the agent with certainty, "there" without; "what" is found in silence.
        let found = found(&[
            (0, Role::Agent, Some(0.99), "good day hello", 0),
            (1, Role::Agent, Some(0.6), "there", 1_500),
            (1, Role::Unknown, None, "what", 3_000),
        ]);
        let score = judge(&reference(), &found, 4_000);
        assert_eq!((score.words.errors, score.words_by_speaker.errors), (1, 3));
        assert_eq!(score.roles, RoleScore { words: 4, labelled: 4, right: 2, confidently_wrong: 1 });
        assert_eq!(score.invented_words, 1);
        assert_eq!(score.invented_per_minute().map(f64::round), Some(32.0));
    }

    #[test]
    fn swapped_names_cost_roles_and_nothing_else() {
        let found = found(&[(1, Role::Caller, None, "good day", 0), (0, Role::Agent, None, "hello there", 1_000)]);
        let score = judge(&reference(), &found, 2_000);
        assert_eq!((score.words.errors, score.words_by_speaker.errors), (0, 0));
        assert_eq!(score.roles, RoleScore { words: 4, labelled: 4, right: 0, confidently_wrong: 4 });
    }
}
