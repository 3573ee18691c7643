//! Machines on the line: voicemail, menus, announcements. They are told by what they say, and only where nobody is known to
//! be the agent, who may say such things too.

use crate::domain::Role;
use crate::domain::Transcript;
use crate::domain::transcript::Evidence;
use crate::domain::transcript::Speaker;

use super::ENOUGH;
use super::holds;
use super::plain;

/// What hardly anybody but a machine says to the other side, as words are compared. Numbers are digits there.
const TELLING: [&str; 34] = [
    "after the tone",
    "after the beep",
    "at the tone",
    "at the beep",
    "leave a message",
    "leave your message",
    "leave your name and number",
    "record your message",
    "voice messaging system",
    "automated voice",
    "mailbox is full",
    "voice mailbox",
    "reached the voicemail",
    "is not available to take your call",
    "can not take your call",
    "can not come to the phone",
    "unable to take your call",
    "the number you have dialled",
    "the number you have dialed",
    "the person you are calling",
    "the subscriber you have dialled",
    "the subscriber you are calling",
    "your call is important to us",
    "your call has been forwarded",
    "all our agents are busy",
    "all of our agents are",
    "all lines are busy",
    "calls may be recorded",
    "call may be recorded",
    "press 1",
    "press 2",
    "press the pound key",
    "press the hash key",
    "main menu",
];
/// What machines say often, and people now and then.
const COMMON: [&str; 12] = [
    "you have reached",
    "please stay on the line",
    "please hold the line",
    "is not available",
    "is switched off",
    "please try again later",
    "try your call again",
    "for sales",
    "for support",
    "to speak to",
    "hang up",
    "please listen carefully",
];
/// Log odds: of a stretch of talk being a machine's before anything is heard of it, for each sentence of either list, and for
/// standing where machines speak, at the beginning. Set by hand: one telling sentence at the beginning is just enough.
const BEFORE: f64 = -1.0;
const FOR_TELLING: f64 = 3.2;
const FOR_COMMON: f64 = 1.2;
const FOR_BEGINNING: f64 = 0.8;
/// Words of the other side that end a stretch of talk; machines are not stopped by an "okay".
const ANSWER: usize = 3;

/// A stretch of one speaker's utterances that nobody answers.
struct Stretch {
    speaker: u32,
    utterances: Vec<usize>,
}

/// Gives the stretches that machines speak to a speaker of their own.
pub fn mark(words: &mut Transcript) {
    let mut begun: Vec<u32> = Vec::new();
    for stretch in stretches(words) {
        let first = !begun.contains(&stretch.speaker);
        begun.push(stretch.speaker);
        let Some(by) = words.speakers.iter().find(|speaker| speaker.id == stretch.speaker) else { continue };
        if by.role == Role::Agent
            || by.evidence == Some(Evidence::Provider)
            || by.evidence == Some(Evidence::Correction)
        {
            continue;
        }
        let confidence = confidence(words, &stretch, first);
        if confidence >= ENOUGH {
            let channel = by.channel;
            let system = system(words, channel, confidence);
            for at in stretch.utterances {
                words.utterances[at].speaker = system;
            }
        }
    }
    give_turns(words);
}

fn stretches(words: &Transcript) -> Vec<Stretch> {
    let mut order: Vec<usize> = (0..words.utterances.len()).collect();
    order.sort_by_key(|at| words.utterances[*at].start_ms);
    let mut open: Vec<Stretch> = Vec::new();
    let mut done = Vec::new();
    for at in order {
        let speaker = words.utterances[at].speaker;
        if plain(&words.utterances[at]).len() >= ANSWER {
            let (answered, going_on) = open.into_iter().partition(|stretch| stretch.speaker != speaker);
            done.extend(Vec::from_iter(answered));
            open = going_on;
        }
        match open.iter_mut().find(|stretch| stretch.speaker == speaker) {
            Some(stretch) => stretch.utterances.push(at),
            None => open.push(Stretch { speaker, utterances: vec![at] }),
        }
    }
    done.extend(open);
    done.sort_by_key(|stretch| words.utterances[stretch.utterances[0]].start_ms);
    done
}

fn confidence(words: &Transcript, stretch: &Stretch, first: bool) -> f64 {
    let said: Vec<String> = stretch.utterances.iter().flat_map(|at| plain(&words.utterances[*at])).collect();
    let found = |phrases: &[&str]| phrases.iter().filter(|phrase| holds(&said, phrase)).count() as f64;
    let beginning = if first { FOR_BEGINNING } else { 0.0 };
    let log_odds = BEFORE + FOR_TELLING * found(&TELLING) + FOR_COMMON * found(&COMMON) + beginning;
    1.0 / (1.0 + (-log_odds).exp())
}

/// The speaker that stands for machines on this leg.
fn system(words: &mut Transcript, channel: Option<u8>, confidence: f64) -> u32 {
    let confidence = (confidence * 1000.0).round() / 1000.0;
    let known = words.speakers.iter_mut().find(|speaker| speaker.role == Role::System && speaker.channel == channel);
    if let Some(speaker) = known {
        // The speaker is as sure as the least sure stretch.
        speaker.confidence = speaker.confidence.map(|before| before.min(confidence));
        return speaker.id;
    }
    let id = words.speakers.iter().map(|speaker| speaker.id + 1).max().unwrap_or(0);
    let (role, evidence) = (Role::System, Some(Evidence::Text));
    words.speakers.push(Speaker { id, role, confidence: Some(confidence), evidence, channel });
    id
}

/// Turns in which only a machine speaks are its own; speakers who then have nothing leave the table.
fn give_turns(words: &mut Transcript) {
    let systems: Vec<(u32, Option<u8>)> = words
        .speakers
        .iter()
        .filter(|speaker| speaker.role == Role::System && speaker.evidence == Some(Evidence::Text))
        .map(|speaker| (speaker.id, speaker.channel))
        .collect();
    if systems.is_empty() {
        return;
    }
    let channel = |id: u32| words.speakers.iter().find(|speaker| speaker.id == id).and_then(|speaker| speaker.channel);
    for turn in &mut words.turns {
        let spoken = |id: u32| -> u64 {
            let own = words.utterances.iter().filter(|utterance| utterance.speaker == id);
            let timed = own.filter_map(|utterance| utterance.start_ms.zip(utterance.end_ms));
            timed.map(|(start, end)| end.min(turn.end_ms).saturating_sub(start.max(turn.start_ms))).sum()
        };
        let here = systems.iter().filter(|(_, leg)| *leg == channel(turn.speaker));
        if let Some((system, _)) = here.max_by_key(|(id, _)| spoken(*id))
            && spoken(*system) > spoken(turn.speaker)
        {
            turn.speaker = *system;
        }
    }
    let used =
        |id: u32| words.utterances.iter().any(|u| u.speaker == id) || words.turns.iter().any(|turn| turn.speaker == id);
    let kept = words.speakers.iter().filter(|speaker| used(speaker.id)).cloned().collect();
    words.speakers = kept;
}
