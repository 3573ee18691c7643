//! Roles from text: agents by their known text, machines by their phrases.

use super::*;
use crate::transcript::without_text;

const GREETING: &str = "Thank you for calling the ticket office. How may I help you today?";

/// Utterances of these speakers, two seconds apart.
fn said(lines: &[(u32, &str)]) -> Transcript {
    let mut words = without_text(Some("en"));
    let mut ids: Vec<u32> = lines.iter().map(|(speaker, _)| *speaker).collect();
    ids.sort_unstable();
    ids.dedup();
    words.speakers = ids.into_iter().map(Speaker::nameless).collect();
    words.utterances = (0..)
        .zip(lines)
        .map(|(n, (speaker, text))| Utterance {
            speaker: *speaker,
            start_ms: Some(n * 2_000),
            end_ms: Some(n * 2_000 + 1_800),
            text: (*text).to_owned(),
            confidence: None,
            heard: None,
            words: Vec::new(),
            by: None,
        })
        .collect();
    words
}

fn decided(lines: &[(u32, &str)], agent_text: Option<&str>) -> Vec<Role> {
    let mut words = said(lines);
    decide(&mut words, KnownAgent { text: agent_text, ..KnownAgent::default() });
    say(&mut words);
    for utterance in &words.utterances {
        let by = utterance.by.unwrap();
        assert_eq!(by.role != Role::Unknown, by.confidence.is_some_and(|confidence| confidence >= ENOUGH));
        assert_eq!(by.role != Role::Unknown, by.evidence.is_some());
    }
    words.utterances.iter().map(|utterance| utterance.by.unwrap().role).collect()
}

#[test]
fn what_the_agent_is_known_to_say_names_both() {
    let lines = [
        (3, "yes hello who is this"),
        (5, "thank you for calling the ticket office how may I help you"),
        (3, "my train is late"),
    ];
    assert_eq!(decided(&lines, Some(GREETING)), [Role::Caller, Role::Agent, Role::Caller]);
}

#[test]
fn without_strong_evidence_nobody_gets_a_role() {
    let open = |lines: &[(u32, &str)], text: Option<&str>| {
        assert!(decided(lines, text).iter().all(|role| *role == Role::Unknown), "{lines:?}");
    };
    let lines = [(0, "thank you for calling the ticket office"), (1, "my train is late")];
    // No known text; another text; a text from both speakers; a single speaker, which may be two.
    open(&lines, None);
    open(&lines, Some("Something else is said by this agent of ours."));
    open(&[(0, "how may I help you today"), (1, "you say how may I help you today")], Some(GREETING));
    open(&[(0, "thank you for calling the ticket office my train is late")], Some(GREETING));
    // Few words in sequence match by chance.
    open(&[(0, "thank you for that"), (1, "my train is late")], Some(GREETING));
}

#[test]
fn of_three_speakers_only_the_agent_is_named() {
    let lines =
        [(0, "thank you for calling the ticket office how may I help you"), (1, "my train is late"), (2, "ours too")];
    assert_eq!(decided(&lines, Some(GREETING)), [Role::Agent, Role::Unknown, Role::Unknown]);
}

#[test]
fn who_comes_in_when_the_call_is_handed_on_is_the_transfer() {
    let lines = [
        (0, "thank you for calling the ticket office how may I help you"),
        (1, "my train is late"),
        (0, "I will put you through to a colleague"),
        (2, "complaints good morning"),
        (1, "hello again"),
    ];
    assert_eq!(decided(&lines, Some(GREETING)), [Role::Agent, Role::Caller, Role::Agent, Role::Transfer, Role::Caller]);
}

#[test]
fn voicemail_menus_and_announcements_are_the_system() {
    for text in [
        "hi you have reached Ada I can't come to the phone right now please leave a message after the tone",
        "the person you are calling is not available please try again later",
        "your call has been forwarded to an automated voice messaging system",
        "for sales press one for support press two",
        "the mailbox is full goodbye",
        "thank you for holding all our agents are busy your call is important to us",
        "The number you have dialled is switched off. Please try again later.",
    ] {
        assert_eq!(
            decided(&[(0, text), (1, "hello this is the ticket office")], None),
            [Role::System, Role::Unknown],
            "{text}"
        );
    }
}

#[test]
fn people_who_speak_of_such_things_are_no_machines() {
    for text in [
        "I left a message for you last week",
        "is there somebody available",
        "I will press the button then",
        "your line was busy",
    ] {
        assert_eq!(decided(&[(0, text), (1, "I see")], None)[0], Role::Unknown, "{text}");
    }
    // One phrase later in the call: a person quotes it.
    let lines = [
        (0, "good morning to you"),
        (1, "how can I be of help"),
        (0, "it told me to press 1 and then nothing happened"),
    ];
    assert_eq!(decided(&lines, None)[2], Role::Unknown);
    // The agent may announce the recording of the call.
    let lines = [(0, "thank you for calling the ticket office this call may be recorded"), (1, "my train is late")];
    assert_eq!(decided(&lines, Some(GREETING)), [Role::Agent, Role::Caller]);
}

#[test]
fn a_person_who_picks_up_after_the_announcement_is_the_caller() {
    let lines = [
        (1, "your call may be recorded please stay on the line"),
        (0, "thank you for calling the ticket office how may I help you"),
        (1, "my train is late"),
    ];
    let mut words = said(&lines);
    words.turns = (0..3)
        .map(|n| crate::domain::transcript::Turn {
            speaker: [1, 0, 1][n],
            start_ms: n as u64 * 2_000,
            end_ms: n as u64 * 2_000 + 1_800,
        })
        .collect();
    decide(&mut words, KnownAgent { text: Some(GREETING), ..KnownAgent::default() });
    say(&mut words);
    let roles: Vec<Role> = words.utterances.iter().map(|utterance| utterance.by.unwrap().role).collect();
    assert_eq!(roles, [Role::System, Role::Agent, Role::Caller]);
    let turns: Vec<Role> = words.turns.iter().map(|turn| words.role(turn.speaker)).collect();
    assert_eq!(turns, roles);
}

#[test]
fn a_platform_s_word_is_not_overruled() {
    let mut words = said(&[
        (0, "please leave a message after the tone"),
        (1, "thank you for calling the ticket office how may I help you"),
    ]);
    words.speakers[0] = Speaker { role: Role::Caller, evidence: Some(Evidence::Provider), ..Speaker::nameless(0) };
    words.speakers[1] = Speaker { role: Role::Transfer, evidence: Some(Evidence::Provider), ..Speaker::nameless(1) };
    let before = words.speakers.clone();
    decide(&mut words, KnownAgent { text: Some(GREETING), ..KnownAgent::default() });
    assert_eq!(words.speakers, before);
}

fn heard(lines: &[(u32, &str)], known: KnownAgent<'_>) -> Vec<(Role, Option<Evidence>)> {
    let mut words = said(lines);
    decide(&mut words, known);
    words.speakers.iter().map(|speaker| (speaker.role, speaker.evidence)).collect()
}

#[test]
fn a_known_voice_names_both_and_a_strange_one_nobody() {
    let lines = [(0, "yes hello who is this"), (1, "how may I help you today")];
    let by_voice = |log_likelihood_ratios: &[(u32, f64)]| {
        heard(&lines, KnownAgent { log_likelihood_ratios, ..KnownAgent::default() })
    };
    let named = [(Role::Caller, Some(Evidence::Voice)), (Role::Agent, Some(Evidence::Voice))];
    let nobody = [(Role::Unknown, None); 2];
    assert_eq!(by_voice(&[(0, -12.0), (1, 6.0)]), named);
    // Neither voice matches: the agent has another voice than the enrolled one, even if one speaker is much closer to
    // it.
    assert_eq!(by_voice(&[(0, -30.0), (1, -9.0)]), nobody);
    // Both match; then one with too little speech.
    assert_eq!(by_voice(&[(0, 6.0), (1, 6.5)]), nobody);
    assert_eq!(by_voice(&[(1, 2.0)]), nobody);
    assert_eq!(by_voice(&[]), nobody);
}

#[test]
fn words_and_voice_are_weighed_together() {
    let lines = [(0, "yes hello who is this"), (1, "thank you for calling the ticket office how may I help you")];
    let both = |log_likelihood_ratios: &[(u32, f64)]| {
        heard(&lines, KnownAgent { text: Some(GREETING), log_likelihood_ratios })
    };
    let text = [(Role::Caller, Some(Evidence::Text)), (Role::Agent, Some(Evidence::Text))];
    assert_eq!(both(&[]), text);
    assert_eq!(both(&[(0, -12.0), (1, -9.0)]), text);
    // The greeting and the voice match different speakers. This is a contradiction, so that no role is assigned.
    assert_eq!(both(&[(0, 6.0), (1, -12.0)]), [(Role::Unknown, None); 2]);
}

#[test]
fn speakers_that_a_service_diarized_get_their_roles_too() {
    let mut words =
        said(&[(0, "yes hello who is this"), (1, "thank you for calling the ticket office how may I help")]);
    for speaker in &mut words.speakers {
        speaker.evidence = Some(Evidence::Voice);
    }
    decide(&mut words, KnownAgent { text: Some(GREETING), ..KnownAgent::default() });
    let roles: Vec<Role> = words.speakers.iter().map(|speaker| speaker.role).collect();
    assert_eq!(roles, [Role::Caller, Role::Agent]);
}
