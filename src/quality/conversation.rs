//! Conversation figures: talk time, silence, overlap, interruptions and response times. Input is the transcript's turns
//! with times and roles.

use std::collections::BTreeMap;

use crate::domain::quality::{Conversation, ConversationMethod, Percentiles};
use crate::domain::segment::{Segment, common_ms, joined, total_ms};
use crate::domain::transcript::Transcript;
use crate::domain::{Role, transcript};

/// Reasons for no figures.
pub const NO_TRANSCRIPT: &str = "no_transcript_requested";
pub const NO_TIMES: &str = "no_turn_times";
/// Reasons for no figures by role.
const NO_ROLES: &str = "no_roles";
const SOME_ROLES: &str = "roles_partly_unknown";
/// Diarization on one channel hides overlapping speech. Overlap is not measured, and talk and response times near it
/// have too large an error to report (`benches/training/gaps.py --kind mono`).
const ONE_CHANNEL: &str = "voices_share_a_channel";
/// Reason for no response time.
const NO_ANSWERS: &str = "no_answered_turns";
/// Limit on the speech without a role, per cent. Above it the figures by role do not describe the call.
const WITHOUT_ROLE_PERCENT: u64 = 3;
/// The figures by role.
const BY_ROLE: [&str; 5] = [
    "conversation.agent_talk_ms",
    "conversation.caller_talk_ms",
    "conversation.overlap_ms",
    "conversation.interruptions",
    "conversation.response_ms",
];

/// The figures of a conversation. A figure that is `None` has its reason in `reasons`. Without any figures the result
/// is `None`, with its reason there too.
pub fn measure(
    transcript: Option<&Transcript>,
    duration_ms: u64,
    method: ConversationMethod,
    reasons: &mut BTreeMap<String, String>,
) -> Option<Conversation> {
    reasons.retain(|member, _| member != "conversation" && !BY_ROLE.contains(&member.as_str()));
    let mut because = |member: &str, why: &str| {
        reasons.insert(member.to_owned(), why.to_owned());
    };
    let timed = transcript.map(|transcript| turns(transcript, duration_ms));
    let Some(timed) = timed.as_ref().filter(|timed| !timed.is_empty()) else {
        because("conversation", if transcript.is_none() { NO_TRANSCRIPT } else { NO_TIMES });
        return None;
    };
    let anyone = said_by(timed, |_| true);
    let named = said_by(timed, |role| role != Role::Unknown);
    let (agent, caller) = (said_by(timed, |role| role == Role::Agent), said_by(timed, |role| role == Role::Caller));
    let speech_ms = total_ms(&anyone);
    let why_not = if agent.is_empty() && caller.is_empty() {
        Some(NO_ROLES)
    } else if method == ConversationMethod::Voices {
        Some(ONE_CHANNEL)
    } else if (speech_ms - total_ms(&named)) * 100 > speech_ms * WITHOUT_ROLE_PERCENT {
        Some(SOME_ROLES)
    } else {
        None
    };
    let known = why_not.is_none();
    let response_ms = if known { responses(&agent, &caller) } else { None };
    if let Some(why) = why_not {
        for member in BY_ROLE {
            because(member, why);
        }
    } else if response_ms.is_none() {
        because("conversation.response_ms", NO_ANSWERS);
    }
    Some(Conversation {
        speech_ms,
        silence_ratio: 1.0 - speech_ms as f64 / duration_ms.max(1) as f64,
        longest_silence_ms: longest_gap(&anyone, duration_ms),
        agent_talk_ms: known.then(|| total_ms(&agent)),
        caller_talk_ms: known.then(|| total_ms(&caller)),
        overlap_ms: known.then(|| common_ms(&agent, &caller)),
        interruptions: known.then(|| interruptions(&agent, &caller)),
        response_ms,
        method,
    })
}

/// Speech segments of a role, milliseconds, for the loudness by role.
#[must_use]
pub fn segments(transcript: &Transcript, role: Role, duration_ms: u64) -> Vec<Segment> {
    said_by(&turns(transcript, duration_ms), |by| by == role)
}

/// The joined segments of some roles.
fn said_by(turns: &[(Role, Segment)], wanted: impl Fn(Role) -> bool) -> Vec<Segment> {
    joined(turns.iter().filter(|(role, _)| wanted(*role)).map(|(_, segment)| *segment).collect())
}

/// Turns with times inside the recording. Utterances are used where there are no turns.
fn turns(transcript: &Transcript, duration_ms: u64) -> Vec<(Role, Segment)> {
    let from_turns = transcript.turns.iter().map(|turn| (turn.speaker, Some(turn.start_ms), Some(turn.end_ms)));
    let timed = |utterance: &transcript::Utterance| (utterance.speaker, utterance.start_ms, utterance.end_ms);
    let from_utterances = transcript.utterances.iter().map(timed);
    let all: Vec<_> = if transcript.turns.is_empty() { from_utterances.collect() } else { from_turns.collect() };
    all.into_iter()
        .filter_map(|(speaker, start, end)| {
            let inside = Segment::new(start?, end?).overlap(&Segment::new(0, duration_ms))?;
            Some((transcript.role(speaker), inside))
        })
        .collect()
}

fn longest_gap(segments: &[Segment], duration_ms: u64) -> u64 {
    let mut end = 0;
    let mut longest = 0;
    for segment in segments {
        longest = longest.max(segment.start_ms.saturating_sub(end));
        end = segment.end_ms;
    }
    longest.max(duration_ms.saturating_sub(end))
}

/// How often one side began during the other's speech and spoke longer than the other.
fn interruptions(agent: &[Segment], caller: &[Segment]) -> u32 {
    let outlasts = |turn: &Segment, other: &Segment| {
        other.start_ms < turn.start_ms && turn.start_ms < other.end_ms && other.end_ms < turn.end_ms
    };
    let begun_inside = |by: &[Segment], over: &[Segment]| {
        by.iter().filter(|turn| over.iter().any(|other| outlasts(turn, other))).count()
    };
    (begun_inside(agent, caller) + begun_inside(caller, agent)) as u32
}

/// Response times, ms: from the end of each caller's turn to the next start of the agent. Negative where the agent
/// began earlier.
fn responses(agent: &[Segment], caller: &[Segment]) -> Option<Percentiles> {
    let mut gaps = Vec::new();
    for (n, asked) in caller.iter().enumerate() {
        let next_caller = caller.get(n + 1).map_or(u64::MAX, |next| next.start_ms);
        // The response is the first agent turn that begins after this caller turn began and before the next one.
        let answers = |turn: &&Segment| {
            turn.start_ms > asked.start_ms && turn.end_ms > asked.end_ms && turn.start_ms < next_caller
        };
        if let Some(answer) = agent.iter().find(answers) {
            gaps.push(answer.start_ms as f64 - asked.end_ms as f64);
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

    fn measured(turns: &[(u32, u64, u64)], duration_ms: u64) -> (Option<Conversation>, BTreeMap<String, String>) {
        measured_by(ConversationMethod::Channels, turns, duration_ms)
    }

    fn measured_by(
        method: ConversationMethod,
        turns: &[(u32, u64, u64)],
        duration_ms: u64,
    ) -> (Option<Conversation>, BTreeMap<String, String>) {
        let mut reasons = BTreeMap::from([("network".to_owned(), "kept".to_owned())]);
        let talk = measure(Some(&transcript(turns)), duration_ms, method, &mut reasons);
        assert_eq!(reasons.remove("network").as_deref(), Some("kept"));
        (talk, reasons)
    }

    #[test]
    fn figures_of_a_small_call() {
        let turns = [(0, 0, 2_000), (1, 2_500, 5_000), (0, 5_800, 8_000), (1, 7_500, 9_000), (0, 8_900, 9_500)];
        let (talk, reasons) = measured(&turns, 12_000);
        assert!(reasons.is_empty(), "{reasons:?}");
        let talk = talk.unwrap();
        assert_eq!((talk.agent_talk_ms, talk.caller_talk_ms), (Some(4_800), Some(4_000)));
        assert_eq!((talk.speech_ms, talk.overlap_ms), (8_200, Some(600)));
        assert_eq!((talk.longest_silence_ms, talk.interruptions), (2_500, Some(2)));
        let response = talk.response_ms.unwrap();
        assert_eq!((response.count, response.max), (2, 800.0));
        assert!((response.p50 + 100.0).abs() < 1e-9, "the agent cut in: {}", response.p50);
        assert!((talk.silence_ratio - (1.0 - 8_200.0 / 12_000.0)).abs() < 1e-9);
    }

    #[test]
    fn no_figures_without_times_or_words() {
        let mut reasons = BTreeMap::new();
        assert_eq!(measure(None, 1_000, ConversationMethod::Channels, &mut reasons), None);
        assert_eq!(reasons["conversation"], NO_TRANSCRIPT);
        for turns in [&[][..], &[(0, 2_000, 3_000)]] {
            let (talk, reasons) = measured(turns, 1_000);
            assert_eq!((talk, reasons["conversation"].as_str()), (None, NO_TIMES), "{turns:?}");
        }
    }

    #[test]
    fn what_goes_by_roles_needs_them() {
        use ConversationMethod::{Channels, ProviderTurns, Voices};

        // Up to 300 ms of 10 s may lack a role.
        let call =
            |nobodys_ms: u64| vec![(1, 0, 4_000), (0, 4_500, 10_500 - nobodys_ms), (2, 10_500 - nobodys_ms, 10_500)];
        for (method, turns, why) in [
            (Channels, call(300), None),
            (ProviderTurns, call(300), None),
            (Voices, call(300), Some(ONE_CHANNEL)),
            (Channels, call(400), Some(SOME_ROLES)),
            (Channels, vec![(2, 0, 4_000), (2, 4_500, 10_500)], Some(NO_ROLES)),
        ] {
            let (talk, reasons) = measured_by(method, &turns, 20_000);
            let talk = talk.unwrap();
            assert_eq!((talk.speech_ms, talk.longest_silence_ms), (10_000, 9_500), "known whoever spoke");
            let by_role = [
                talk.agent_talk_ms.is_some(),
                talk.caller_talk_ms.is_some(),
                talk.overlap_ms.is_some(),
                talk.interruptions.is_some(),
                talk.response_ms.is_some(),
            ];
            assert_eq!(by_role, [why.is_none(); 5], "{turns:?}");
            for member in BY_ROLE {
                assert_eq!(reasons.get(member).map(String::as_str), why, "{member}");
            }
        }
    }

    #[test]
    fn turns_past_the_end_are_cut() {
        let (talk, reasons) = measured(&[(0, 0, 90_000)], 1_000);
        let talk = talk.unwrap();
        assert_eq!((talk.agent_talk_ms, talk.longest_silence_ms), (Some(1_000), 0));
        assert_eq!((talk.response_ms, reasons["conversation.response_ms"].as_str()), (None, NO_ANSWERS));
    }
}
