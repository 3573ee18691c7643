//! Whether the times that came with a text are those of this recording. A platform that counts in another unit, or whose
//! clock is of another call, gives times that look like any other; the recording tells.

use super::provider::TIMES_MISFIT;
use crate::audio::speech::Speech;
use crate::domain::Transcript;
use crate::domain::transcript::Turn;
use crate::domain::transcript::Utterance;

/// Times may be this far beyond the recording's end, ms and share of its length: clocks and encoders differ by that.
const SLACK_MS: u64 = 1_000;
const SLACK_SHARE: u64 = 50;
/// More of the times than one in so many beyond the end: it is all of them that are wrong.
const FEW: usize = 10;
/// Nobody speaks faster than this, in letters a second, however a platform cuts its words …
const FASTEST: f64 = 60.0;
/// … which shows only in as many letters as these.
const ENOUGH_LETTERS: usize = 20;
/// Fewer letters than these say nothing about how fast they were said.
const A_WORD: usize = 5;

/// The words with the times that fit the recording. Where some do not, they are none, and the transcript says so
/// (`times_misfit`); where they are many, or all too close together, none is believed. What a factor would make of them is
/// not tried: one that fits proves nothing.
#[must_use]
pub fn within(words: &Transcript, speech: &Speech) -> Transcript {
    let duration_ms = speech.legs.iter().map(|leg| leg.samples.duration_ms()).max().unwrap_or(0);
    if duration_ms == 0 { words.clone() } else { within_ms(words, duration_ms) }
}

fn within_ms(words: &Transcript, duration_ms: u64) -> Transcript {
    let latest = duration_ms + SLACK_MS + duration_ms / SLACK_SHARE;
    let (all, beyond) = counted(words, latest);
    if beyond == 0 && !too_fast(&words.utterances) && !stretches_beyond(&words.turns, latest) {
        return clamped(words, duration_ms);
    }
    let systematic = beyond * FEW > all || too_fast(&words.utterances);
    let fits = |at: &u64| !systematic && *at <= latest;
    let mut kept = words.clone();
    for utterance in &mut kept.utterances {
        (utterance.start_ms, utterance.end_ms) = both(utterance.start_ms, utterance.end_ms, fits);
        for word in &mut utterance.words {
            (word.start_ms, word.end_ms) = both(word.start_ms, word.end_ms, fits);
        }
    }
    kept.turns.retain(|turn| !systematic && turn.end_ms <= latest);
    kept.reason = Some(TIMES_MISFIT.to_owned());
    clamped(&kept, duration_ms)
}

/// Both of a pair, or neither where one of them does not fit.
fn both(start: Option<u64>, end: Option<u64>, fits: impl Fn(&u64) -> bool) -> (Option<u64>, Option<u64>) {
    if start.iter().chain(&end).all(fits) { (start, end) } else { (None, None) }
}

/// How many stretches have times, and how many of those go on after this moment.
fn counted(words: &Transcript, latest: u64) -> (usize, usize) {
    let own = |utterance: &Utterance| utterance.start_ms.max(utterance.end_ms);
    let of_words = words.utterances.iter().flat_map(|u| &u.words).map(|word| word.start_ms.max(word.end_ms));
    let times = words.utterances.iter().map(own).chain(of_words).flatten();
    times.fold((0, 0), |(all, beyond), at| (all + 1, beyond + usize::from(at > latest)))
}

fn stretches_beyond(turns: &[Turn], latest: u64) -> bool {
    turns.iter().any(|turn| turn.end_ms > latest)
}

/// Whether everything would have been said faster than anybody speaks. One turn alone may be: a platform's text goes on
/// where its agent was cut off.
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

/// Ends a little beyond the recording's are its end.
fn clamped(words: &Transcript, duration_ms: u64) -> Transcript {
    let mut words = words.clone();
    let clamp = |at: &mut Option<u64>| *at = at.map(|at| at.min(duration_ms));
    for utterance in &mut words.utterances {
        clamp(&mut utterance.start_ms);
        clamp(&mut utterance.end_ms);
        for word in &mut utterance.words {
            clamp(&mut word.start_ms);
            clamp(&mut word.end_ms);
        }
    }
    for turn in &mut words.turns {
        (turn.start_ms, turn.end_ms) = (turn.start_ms.min(duration_ms), turn.end_ms.min(duration_ms));
    }
    words.turns.retain(|turn| turn.end_ms > turn.start_ms);
    words
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

    /// Turns at 1, 5 and 9 s with a word every 0.3 s, every time taken through `at`.
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
        // Milliseconds taken for seconds, ticks of 10 ms taken for seconds and for milliseconds, seconds for milliseconds.
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
        // Half a second beyond is the end.
        let cut = within_ms(&told(|at| at), 9_700);
        assert_eq!((cut.utterances[2].end_ms, cut.reason), (Some(9_700), None));
    }
}
