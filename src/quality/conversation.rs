//! Who talked how much, and how long a caller waited for an answer: from stretches of speech with times and roles.

use crate::domain::quality::{Conversation, ConversationMethod, Percentiles};
use crate::domain::transcript::Transcript;
use crate::domain::{Role, transcript};

/// Stretches of one role, sorted, joined where they touch; milliseconds.
type Stretches = Vec<(u64, u64)>;

/// Why there are no figures.
pub const NO_TRANSCRIPT: &str = "no_transcript_requested";
pub const NO_TIMES: &str = "no_turn_times";
pub const NO_ROLES: &str = "no_roles";

/// The figures, or the reason why there are none.
pub fn measure(
    transcript: Option<&Transcript>,
    duration_ms: u64,
    method: ConversationMethod,
) -> Result<Conversation, &'static str> {
    let transcript = transcript.ok_or(NO_TRANSCRIPT)?;
    let timed = turns(transcript, duration_ms);
    if timed.is_empty() {
        return Err(NO_TIMES);
    }
    let of = |role: Role| joined(timed.iter().filter(|turn| turn.0 == role).map(|turn| (turn.1, turn.2)).collect());
    let (agent, caller) = (of(Role::Agent), of(Role::Caller));
    if agent.is_empty() && caller.is_empty() {
        return Err(NO_ROLES);
    }
    let anyone = joined(timed.iter().map(|turn| (turn.1, turn.2)).collect());
    let speech_ms = total(&anyone);
    Ok(Conversation {
        speech_ms,
        silence_ratio: 1.0 - speech_ms as f64 / duration_ms.max(1) as f64,
        longest_silence_ms: longest_gap(&anyone, duration_ms),
        agent_talk_ms: total(&agent),
        caller_talk_ms: total(&caller),
        overlap_ms: overlap(&agent, &caller),
        interruptions: interruptions(&agent, &caller),
        response_ms: responses(&agent, &caller),
        method,
    })
}

/// Speech of each role, for loudness per role.
#[must_use]
pub fn stretches(transcript: &Transcript, role: Role, duration_ms: u64) -> Vec<(u64, u64)> {
    let turns = turns(transcript, duration_ms);
    joined(turns.into_iter().filter(|turn| turn.0 == role).map(|turn| (turn.1, turn.2)).collect())
}

/// Turns with times inside the recording; utterances stand in where there are no turns.
fn turns(transcript: &Transcript, duration_ms: u64) -> Vec<(Role, u64, u64)> {
    let from_turns = transcript.turns.iter().map(|turn| (turn.speaker, Some(turn.start_ms), Some(turn.end_ms)));
    let timed = |utterance: &transcript::Utterance| (utterance.speaker, utterance.start_ms, utterance.end_ms);
    let from_utterances = transcript.utterances.iter().map(timed);
    let all: Vec<_> = if transcript.turns.is_empty() { from_utterances.collect() } else { from_turns.collect() };
    all.into_iter()
        .filter_map(|(speaker, start, end)| {
            let (start, end) = (start?.min(duration_ms), end?.min(duration_ms));
            (start < end).then(|| (transcript.role(speaker), start, end))
        })
        .collect()
}

fn joined(mut stretches: Stretches) -> Stretches {
    stretches.sort_unstable();
    let mut joined: Stretches = Vec::new();
    for (start, end) in stretches {
        match joined.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    joined
}

fn total(stretches: &[(u64, u64)]) -> u64 {
    stretches.iter().map(|(start, end)| end - start).sum()
}

fn overlap(a: &[(u64, u64)], b: &[(u64, u64)]) -> u64 {
    let common = |x: &(u64, u64), y: &(u64, u64)| x.1.min(y.1).saturating_sub(x.0.max(y.0));
    a.iter().map(|x| b.iter().map(|y| common(x, y)).sum::<u64>()).sum()
}

fn longest_gap(stretches: &[(u64, u64)], duration_ms: u64) -> u64 {
    let mut end = 0;
    let mut longest = 0;
    for stretch in stretches {
        longest = longest.max(stretch.0.saturating_sub(end));
        end = stretch.1;
    }
    longest.max(duration_ms.saturating_sub(end))
}

/// Times one side began while the other was speaking and went on after the other had stopped or been cut short.
fn interruptions(agent: &[(u64, u64)], caller: &[(u64, u64)]) -> u32 {
    let begun_inside = |by: &[(u64, u64)], over: &[(u64, u64)]| {
        by.iter()
            .filter(|turn| over.iter().any(|other| other.0 < turn.0 && turn.0 < other.1 && other.1 < turn.1))
            .count()
    };
    (begun_inside(agent, caller) + begun_inside(caller, agent)) as u32
}

/// From the end of each caller's turn to the next start of the agent; negative where the agent began before that end.
fn responses(agent: &[(u64, u64)], caller: &[(u64, u64)]) -> Option<Percentiles> {
    let mut gaps = Vec::new();
    for (n, &(start, end)) in caller.iter().enumerate() {
        let next_caller = caller.get(n + 1).map_or(u64::MAX, |next| next.0);
        // The answer is the first agent turn that begins after the caller did and before the caller goes on.
        if let Some(answer) = agent.iter().find(|turn| turn.0 > start && turn.1 > end && turn.0 < next_caller) {
            gaps.push(answer.0 as f64 - end as f64);
        }
    }
    percentiles(gaps)
}

/// Nearest-rank percentiles.
fn percentiles(mut values: Vec<f64>) -> Option<Percentiles> {
    values.sort_by(f64::total_cmp);
    let max = *values.last()?;
    let at = |share: f64| {
        let rank = (share * values.len() as f64).ceil() as usize;
        values.get(rank.saturating_sub(1)).copied().unwrap_or(max)
    };
    Some(Percentiles { count: values.len() as u64, p50: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99), max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::transcript::{Speaker, TRANSCRIPT_SCHEMA, TextSource, Turn};

    fn transcript(turns: &[(u32, u64, u64)]) -> Transcript {
        let speaker = |id, role| Speaker { role, ..Speaker::nameless(id) };
        Transcript {
            schema: TRANSCRIPT_SCHEMA.into(),
            language: None,
            source: TextSource::Provider,
            engine: None,
            speakers: vec![speaker(0, Role::Agent), speaker(1, Role::Caller), speaker(2, Role::Unknown)],
            turns: turns.iter().map(|&(speaker, start_ms, end_ms)| Turn { speaker, start_ms, end_ms }).collect(),
            utterances: vec![],
            redacted: false,
            reason: None,
        }
    }

    #[test]
    fn figures_of_a_small_call() {
        let turns = [(0, 0, 2_000), (1, 2_500, 5_000), (0, 5_800, 8_000), (1, 7_500, 9_000), (0, 8_900, 9_500)];
        let talk = measure(Some(&transcript(&turns)), 12_000, ConversationMethod::Channels).unwrap();
        assert_eq!((talk.agent_talk_ms, talk.caller_talk_ms), (4_800, 4_000));
        assert_eq!((talk.speech_ms, talk.overlap_ms), (8_200, 600));
        assert_eq!((talk.longest_silence_ms, talk.interruptions), (2_500, 2));
        let response = talk.response_ms.unwrap();
        assert_eq!((response.count, response.max), (2, 800.0));
        assert!((response.p50 + 100.0).abs() < 1e-9, "the agent cut in: {}", response.p50);
        assert!((talk.silence_ratio - (1.0 - 8_200.0 / 12_000.0)).abs() < 1e-9);
    }

    #[test]
    fn no_figures_without_times_roles_or_words() {
        assert_eq!(measure(None, 1_000, ConversationMethod::Channels), Err(NO_TRANSCRIPT));
        assert_eq!(measure(Some(&transcript(&[])), 1_000, ConversationMethod::Channels), Err(NO_TIMES));
        assert_eq!(measure(Some(&transcript(&[(2, 0, 500)])), 1_000, ConversationMethod::Channels), Err(NO_ROLES));
        assert_eq!(
            measure(Some(&transcript(&[(0, 2_000, 3_000)])), 1_000, ConversationMethod::Channels),
            Err(NO_TIMES),
            "past the end"
        );
    }

    #[test]
    fn turns_past_the_end_are_cut() {
        let talk = measure(Some(&transcript(&[(0, 0, 90_000)])), 1_000, ConversationMethod::Channels).unwrap();
        assert_eq!((talk.agent_talk_ms, talk.longest_silence_ms), (1_000, 0));
        assert_eq!(talk.response_ms, None);
    }
}
