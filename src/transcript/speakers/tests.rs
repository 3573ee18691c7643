//! Assignment of speakers to legs and by diarization, with synthetic turns and words.

use super::*;
use crate::domain::transcript::Evidence;
use crate::transcript::without_text;

fn placed(mut words: Transcript, legs: [&[Segment]; 2], hints: Hints<'_>) -> Attributed {
    let legs_sure = by_channel(&mut words, legs, hints.channels);
    roles::decide(&mut words, KnownAgent { text: hints.agent_text, ..KnownAgent::default() });
    roles::say(&mut words);
    let legs =
        [0, 1].map(|leg| words.speakers.iter().find(|s| s.channel == Some(leg)).map_or(Role::Unknown, |s| s.role));
    Attributed { transcript: words, legs: legs.to_vec(), method: ConversationMethod::Channels, legs_sure }
}

const fn region(start_ms: u64, end_ms: u64) -> Segment {
    Segment::new(start_ms, end_ms)
}

fn given(turns: &[(u32, u64, u64)]) -> Transcript {
    let mut words = without_text(None);
    let speaker = |id, role| Speaker { role, evidence: Some(Evidence::Provider), ..Speaker::nameless(id) };
    words.speakers = vec![speaker(0, Role::Agent), speaker(1, Role::Caller)];
    words.turns = turns.iter().map(|&(speaker, start_ms, end_ms)| Turn { speaker, start_ms, end_ms }).collect();
    words
}

#[test]
fn the_setting_names_the_legs() {
    let hints = Hints { channels: DualChannels::CallerLeft, ..Hints::default() };
    let done = placed(without_text(None), [&[region(2_000, 3_000)], &[region(0, 1_900)]], hints);
    assert_eq!(done.legs, [Role::Caller, Role::Agent]);
    let roles: Vec<Role> = done.transcript.turns.iter().map(|turn| done.transcript.role(turn.speaker)).collect();
    assert_eq!(roles, [Role::Agent, Role::Caller]);
    assert!(done.transcript.speakers.iter().all(|speaker| speaker.evidence == Some(Evidence::Channel)));
    assert!(done.legs_sure > 0.999);
}

#[test]
fn turns_of_the_platform_name_the_legs_and_the_audio_times_them() {
    let words = given(&[(0, 100, 2_100), (1, 2_300, 3_900)]);
    let done = placed(words, [&[region(2_000, 4_000)], &[region(0, 2_050)]], Hints::default());
    assert_eq!(done.legs, [Role::Caller, Role::Agent]);
    assert_eq!(done.transcript.turns[0], Turn { speaker: 0, start_ms: 0, end_ms: 2_050 });
    assert_eq!(done.transcript.speakers.len(), 2);
    assert!(done.legs_sure > 0.95);
    // A clock offset of a second lowers the confidence.
    let late = placed(
        given(&[(0, 1_100, 3_000), (1, 3_300, 4_900)]),
        [&[region(2_000, 4_000)], &[region(0, 2_050)]],
        Hints::default(),
    );
    assert!(late.legs_sure < 0.95);
}

#[test]
fn what_the_agent_is_known_to_say_names_it() {
    let mut words = without_text(None);
    let said = |start_ms, text: &str| Utterance {
        speaker: 9,
        start_ms: Some(start_ms),
        end_ms: Some(start_ms + 1_000),
        text: text.to_owned(),
        confidence: None,
        heard: None,
        words: vec![],
        by: None,
    };
    words.utterances = vec![said(0, "yes hello who is this"), said(2_000, "thank you for calling the ticket office")];
    let legs: [&[Segment]; 2] = [&[region(0, 1_000)], &[region(2_000, 3_000)]];
    let hints = Hints { agent_text: Some("Thank you for calling the ticket office!"), ..Hints::default() };
    let done = placed(words.clone(), legs, hints);
    assert_eq!(done.legs, [Role::Caller, Role::Agent]);
    assert_eq!(done.transcript.role(done.transcript.utterances[1].speaker), Role::Agent);
    let hints = Hints { agent_text: Some("Something else is said by this agent of ours"), ..Hints::default() };
    assert_eq!(placed(words, legs, hints).legs, [Role::Unknown, Role::Unknown]);
}

#[test]
fn without_evidence_the_legs_are_two_speakers_and_no_roles() {
    let done = placed(without_text(None), [&[region(0, 900)], &[region(1_000, 2_000)]], Hints::default());
    assert_eq!(done.legs, [Role::Unknown, Role::Unknown]);
    assert!(done.legs_sure < 0.001);
    assert_eq!(done.transcript.speakers.len(), 2);
    assert_eq!(done.transcript.turns[1].speaker, 1);
    // Turns that fit neither order give no evidence.
    let words = given(&[(0, 0, 2_000), (1, 0, 2_000)]);
    assert_eq!(placed(words, [&[region(0, 2_000)], &[region(0, 2_000)]], Hints::default()).legs[0], Role::Unknown);
}

fn timed(text: &str, from_ms: u64, each_ms: u64) -> Utterance {
    let words: Vec<Word> = (0..)
        .zip(text.split_whitespace())
        .map(|(n, word)| Word {
            text: word.to_owned(),
            start_ms: Some(from_ms + n * each_ms),
            end_ms: Some(from_ms + (n + 1) * each_ms - 20),
            confidence: Some(0.9),
            heard: None,
        })
        .collect();
    Utterance {
        speaker: 0,
        start_ms: words[0].start_ms,
        end_ms: words[words.len() - 1].end_ms,
        text: text.to_owned(),
        confidence: None,
        heard: None,
        words,
        by: None,
    }
}

fn said(words: &Transcript) -> Vec<(u32, &str)> {
    words.utterances.iter().map(|utterance| (utterance.speaker, utterance.text.as_str())).collect()
}

#[test]
fn words_heard_on_a_leg_are_that_legs_however_much_both_speak_at_once() {
    let mut words = without_text(None);
    words.speakers = (0..2).map(|id| Speaker { channel: Some(id), ..Speaker::nameless(id.into()) }).collect();
    words.utterances =
        vec![timed("all at once I speak", 0, 400), Utterance { speaker: 1, ..timed("and so do I", 0, 400) }];
    let both = [region(0, 2_000)];
    let hints = Hints { channels: DualChannels::CallerLeft, ..Hints::default() };
    let done = placed(words, [&both, &both], hints);
    let by: Vec<Role> = done.transcript.utterances.iter().map(|u| u.by.unwrap().role).collect();
    assert_eq!(by, [Role::Caller, Role::Agent]);
    assert_eq!(said(&done.transcript), [(0, "all at once I speak"), (1, "and so do I")]);
    assert_eq!(done.transcript.speakers.len(), 2);
}

#[test]
fn a_text_of_nobody_is_cut_where_the_other_leg_goes_on() {
    let mut words = without_text(None);
    words.speakers = vec![Speaker::nameless(0)];
    words.utterances = vec![timed("how can I help my line is dead", 0, 300)];
    let done = placed(words, [&[region(0, 1_200)], &[region(1_200, 2_400)]], Hints::default());
    let texts: Vec<&str> = done.transcript.utterances.iter().map(|u| u.text.as_str()).collect();
    assert_eq!(texts, ["how can I help", "my line is dead"]);
    assert_ne!(done.transcript.utterances[0].speaker, done.transcript.utterances[1].speaker);
}

#[test]
fn words_on_one_leg_go_to_the_voice_that_speaks() {
    let mut words = without_text(None);
    words.speakers = vec![Speaker::nameless(0)];
    words.utterances = vec![timed("thank you for calling my line is dead", 0, 300)];
    let voice = |speaker, start_ms, end_ms| Turn { speaker, start_ms, end_ms };
    let voices = Diarization { count: 2, turns: vec![voice(0, 0, 1_200), voice(1, 1_200, 2_400)], sure: true };
    assert!(not_diarized_yet(&words));
    by_voice(&mut words, &voices);
    assert_eq!(said(&words), [(0, "thank you for calling"), (1, "my line is dead")]);
    assert_eq!(words.turns.len(), 2);
    let text = Some("Thank you for calling us today, thank you for calling again");
    roles::decide(&mut words, KnownAgent { text, ..KnownAgent::default() });
    assert_eq!((words.role(0), words.role(1)), (Role::Unknown, Role::Unknown), "four words are too few");
}
