//! Detects machines on the line: voicemail, menus and announcements. They are detected by their phrases, and not in the
//! speech of a known agent, because an agent may use such phrases.

use crate::domain::Role;
use crate::domain::Transcript;
use crate::domain::transcript::Evidence;
use crate::domain::transcript::Speaker;

use super::super::confidence::thousandths;
use super::ENOUGH;
use super::holds;
use super::plain;

/// Normalised phrases that people rarely say to the other side. Numbers are digits.
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
/// Phrases that machines say often and people sometimes.
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
/// Log odds of a segment being a machine's: the prior, and the additions per phrase of either list and for the first
/// segment. Set by hand: one telling phrase at the beginning is just enough.
const BEFORE: f64 = -1.0;
const FOR_TELLING: f64 = 3.2;
const FOR_COMMON: f64 = 1.2;
const FOR_BEGINNING: f64 = 0.8;
/// Number of words from the other side that end a segment. A machine does not stop for an "okay".
const ANSWER: usize = 3;

/// Consecutive utterances of one speaker without an answer.
struct Monologue {
    speaker: u32,
    utterances: Vec<usize>,
}

/// Assigns the segments of machines to a speaker with the role `system`.
pub(super) fn mark(words: &mut Transcript) {
    let mut begun: Vec<u32> = Vec::new();
    for monologue in monologues(words) {
        let first = !begun.contains(&monologue.speaker);
        begun.push(monologue.speaker);
        let Some(by) = words.speakers.iter().find(|speaker| speaker.id == monologue.speaker) else { continue };
        if by.role == Role::Agent
            || by.evidence == Some(Evidence::Provider)
            || by.evidence == Some(Evidence::Correction)
        {
            continue;
        }
        let confidence = confidence(words, &monologue, first);
        if confidence >= ENOUGH {
            let channel = by.channel;
            let system = system(words, channel, confidence);
            for at in monologue.utterances {
                words.utterances[at].speaker = system;
            }
        }
    }
    give_turns(words);
}

fn monologues(words: &Transcript) -> Vec<Monologue> {
    let mut order: Vec<usize> = (0..words.utterances.len()).collect();
    order.sort_by_key(|at| words.utterances[*at].start_ms);
    let mut open: Vec<Monologue> = Vec::new();
    let mut done = Vec::new();
    for at in order {
        let speaker = words.utterances[at].speaker;
        if plain(&words.utterances[at]).len() >= ANSWER {
            let (answered, going_on) = open.into_iter().partition(|monologue| monologue.speaker != speaker);
            done.extend(Vec::from_iter(answered));
            open = going_on;
        }
        match open.iter_mut().find(|monologue| monologue.speaker == speaker) {
            Some(monologue) => monologue.utterances.push(at),
            None => open.push(Monologue { speaker, utterances: vec![at] }),
        }
    }
    done.extend(open);
    done.sort_by_key(|monologue| words.utterances[monologue.utterances[0]].start_ms);
    done
}

fn confidence(words: &Transcript, monologue: &Monologue, first: bool) -> f64 {
    let said: Vec<String> = monologue.utterances.iter().flat_map(|at| plain(&words.utterances[*at])).collect();
    let found = |phrases: &[&str]| phrases.iter().filter(|phrase| holds(&said, phrase)).count() as f64;
    let beginning = if first { FOR_BEGINNING } else { 0.0 };
    let log_odds = BEFORE + FOR_TELLING * found(&TELLING) + FOR_COMMON * found(&COMMON) + beginning;
    1.0 / (1.0 + (-log_odds).exp())
}

/// The speaker for machines on this leg.
fn system(words: &mut Transcript, channel: Option<u8>, confidence: f64) -> u32 {
    let confidence = thousandths(confidence);
    let known = words.speakers.iter_mut().find(|speaker| speaker.role == Role::System && speaker.channel == channel);
    if let Some(speaker) = known {
        // The speaker's confidence is the lowest of its segments.
        speaker.confidence = speaker.confidence.map(|before| before.min(confidence));
        return speaker.id;
    }
    let id = words.speakers.iter().map(|speaker| speaker.id + 1).max().unwrap_or(0);
    let (role, evidence) = (Role::System, Some(Evidence::Text));
    words.speakers.push(Speaker { id, role, confidence: Some(confidence), evidence, channel });
    id
}

/// Assigns a turn to the machine if it speaks longer in it than the turn's speaker. Removes speakers without utterances
/// and turns.
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
