//! Checks whether the times of a text match this recording. A platform with another unit or with another call's clock
//! gives plausible times; only the recording shows the error.

use super::provider::TIMES_MISFIT;
use crate::audio::speech::Speech;
use crate::domain::Transcript;
use crate::domain::transcript::Turn;
use crate::domain::transcript::Utterance;

/// Tolerance beyond the recording's end: milliseconds, and one part in this many of its length. Clocks and encoders
/// differ by that.
const SLACK_MS: u64 = 1_000;
const SLACK_SHARE: u64 = 50;
/// If more than one in this many times lie beyond the end, all times are wrong.
const FEW: usize = 10;
/// Upper limit of the speech rate in letters per second, for any segmentation of a platform.
const FASTEST: f64 = 60.0;
/// The speech rate is checked only with at least this many letters.
const ENOUGH_LETTERS: usize = 20;
/// A turn with fewer letters is not used for the speech rate.
const A_WORD: usize = 5;

/// The words with the times that match the recording. Other times are removed, and the reason becomes `times_misfit`.
/// All times are removed if many are beyond the end or the speech rate is impossible. Times are not rescaled, because a
/// matching factor proves nothing.
#[must_use]
pub fn within(words: &Transcript, speech: &Speech) -> Transcript {
    let duration_ms = speech.legs.iter().map(|leg| leg.samples.duration_ms()).max().unwrap_or(0);
    if duration_ms == 0 { words.clone() } else { within_ms(words, duration_ms) }
}

fn within_ms(words: &Transcript, duration_ms: u64) -> Transcript {
    let latest = duration_ms + SLACK_MS + duration_ms / SLACK_SHARE;
    let (all, beyond) = counted(words, latest);
    let mut kept = words.clone();
    if beyond > 0 || too_fast(&words.utterances) || segments_beyond(&words.turns, latest) {
        let systematic = beyond * FEW > all || too_fast(&words.utterances);
        let fits = |at: &u64| !systematic && *at <= latest;
        each_times(&mut kept, |times| {
            if !times.iter().flatten().all(fits) {
                *times = [None, None];
            }
        });
        kept.turns.retain(|turn| !systematic && turn.end_ms <= latest);
        kept.reason = Some(TIMES_MISFIT.to_owned());
    }
    clamp(&mut kept, duration_ms);
    kept
}

/// Changes start and end of every utterance and word.
fn each_times(words: &mut Transcript, change: impl Fn(&mut [Option<u64>; 2])) {
    let changed = |start_ms: &mut Option<u64>, end_ms: &mut Option<u64>| {
        let mut times = [*start_ms, *end_ms];
        change(&mut times);
        [*start_ms, *end_ms] = times;
    };
    for utterance in &mut words.utterances {
        changed(&mut utterance.start_ms, &mut utterance.end_ms);
        for word in &mut utterance.words {
            changed(&mut word.start_ms, &mut word.end_ms);
        }
    }
}

/// The number of utterances and words with times, and how many of them end after `latest`.
fn counted(words: &Transcript, latest: u64) -> (usize, usize) {
    let own = |utterance: &Utterance| utterance.start_ms.max(utterance.end_ms);
    let of_words = words.utterances.iter().flat_map(|u| &u.words).map(|word| word.start_ms.max(word.end_ms));
    let times = words.utterances.iter().map(own).chain(of_words).flatten();
    times.fold((0, 0), |(all, beyond), at| (all + 1, beyond + usize::from(at > latest)))
}

fn segments_beyond(turns: &[Turn], latest: u64) -> bool {
    turns.iter().any(|turn| turn.end_ms > latest)
}

/// Whether every turn exceeds the possible speech rate. A single turn may exceed it, because a platform's text
/// continues after an interruption of its agent.
fn too_fast(utterances: &[Utterance]) -> bool {
    let letters = |utterance: &Utterance| utterance.text.chars().filter(|c| c.is_alphanumeric()).count();
    let timed = utterances.iter().filter_map(|utterance| {
        let (start, end) = utterance.start_ms.zip(utterance.end_ms)?;
        Some((letters(utterance), end.saturating_sub(start))).filter(|(letters, _)| *letters >= A_WORD)
    });
    let (mut all, mut every) = (0, true);
    for (letters, ms) in timed {
        all += letters;
        every &= letters as f64 > FASTEST * ms as f64 / 1000.0;
    }
    every && all >= ENOUGH_LETTERS
}

/// Limits times slightly beyond the end to the recording's end.
fn clamp(words: &mut Transcript, duration_ms: u64) {
    each_times(words, |times| *times = times.map(|at| at.map(|at| at.min(duration_ms))));
    for turn in &mut words.turns {
        (turn.start_ms, turn.end_ms) = (turn.start_ms.min(duration_ms), turn.end_ms.min(duration_ms));
    }
    words.turns.retain(|turn| !turn.segment().is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ProviderTurn;
    use crate::domain::ProviderWord;
    use crate::domain::Role;
    use crate::transcript::Form;
    use crate::transcript::from_turns;
    use crate::transcript::render;

    const TEXTS: [&str; 3] = ["Good morning, how may I help?", "Two seats for Friday please.", "They are booked."];

    /// Turns at 1, 5 and 9 s with a word every 0.3 s, every time mapped through `at`.
    fn told(at: impl Fn(u64) -> u64) -> Transcript {
        let turn = |(n, text): (usize, &&str)| {
            let from = 1_000 + n as u64 * 4_000;
            let word = |(k, word): (usize, &str)| ProviderWord {
                text: word.to_owned(),
                start_ms: Some(at(from + k as u64 * 300)),
                end_ms: Some(at(from + k as u64 * 300 + 250)),
            };
            ProviderTurn {
                role: if n == 1 { Role::Caller } else { Role::Agent },
                text: (*text).to_owned(),
                start_ms: None,
                end_ms: None,
                words: text.split(' ').enumerate().map(word).collect(),
                approximate: false,
            }
        };
        from_turns(&TEXTS.iter().enumerate().map(turn).collect::<Vec<_>>(), Some("en"))
    }

    fn no_times(words: &Transcript) -> bool {
        let of_words =
            words.utterances.iter().flat_map(|u| &u.words).all(|word| word.start_ms.or(word.end_ms).is_none());
        of_words && words.turns.is_empty() && words.utterances.iter().all(|u| u.start_ms.or(u.end_ms).is_none())
    }

    #[test]
    fn times_that_fit_are_left_alone() {
        let fits = told(|at| at);
        assert_eq!(within_ms(&fits, 12_000), fits);
        assert_eq!(within_ms(&from_turns(&[], None), 12_000), from_turns(&[], None));
    }

    #[test]
    fn times_of_another_unit_are_not_believed() {
        // Milliseconds read as seconds, 10 ms ticks read as seconds and as milliseconds, seconds read as milliseconds.
        for (name, at) in [
            ("ms as s", (|at| at * 1000) as fn(u64) -> u64),
            ("10 ms as s", |at| at * 100),
            ("10 ms as ms", |at| at / 10),
            ("s as ms", |at| at / 1000),
            ("another call's clock", |at| at + 600_000),
        ] {
            let kept = within_ms(&told(at), 12_000);
            assert!(no_times(&kept), "{name}: {kept:?}");
            assert_eq!(kept.reason.as_deref(), Some(TIMES_MISFIT), "{name}");
            let texts: Vec<&str> = kept.utterances.iter().map(|utterance| utterance.text.as_str()).collect();
            assert_eq!(texts, TEXTS, "{name}");
            assert!(render(&kept, Form::Vtt).is_err(), "{name}");
        }
    }

    #[test]
    fn few_times_beyond_the_end_cost_only_themselves() {
        let mut words = told(|at| at);
        let last = words.utterances[2].words.last_mut().unwrap();
        (last.start_ms, last.end_ms) = (Some(1_600_000), Some(1_600_250));
        let kept = within_ms(&words, 12_000);
        assert_eq!(kept.reason.as_deref(), Some(TIMES_MISFIT));
        assert_eq!(kept.utterances[2].words.last().unwrap().start_ms, None);
        assert_eq!(kept.utterances[..2], words.utterances[..2]);
        // Half a second beyond the end becomes the end.
        let cut = within_ms(&told(|at| at), 9_700);
        assert_eq!((cut.utterances[2].end_ms, cut.reason), (Some(9_700), None));
    }
}
