//! Which role each speaker plays, from what they say. What a platform, a channel or a person said before is never overruled,
//! and below [`ENOUGH`] confidence nobody gets a role: a wrong one is worse than none.

mod announced;
mod known_text;
mod table;

use crate::domain::Role;
use crate::domain::Transcript;
use crate::domain::transcript::Attribution;
use crate::domain::transcript::Evidence;
use crate::domain::transcript::Speaker;
use crate::domain::transcript::Utterance;

use super::score::normalise;

use self::known_text::KnownText;

/// Confidence from which a role is said.
pub const ENOUGH: f64 = 0.95;

/// What an agent says when it hands the call on.
const HANDING_ON: [&str; 6] =
    ["transfer you", "transferring you", "put you through", "putting you through", "connect you", "connecting you"];

/// Gives roles to the speakers nobody has named yet, as far as the words speak for them.
pub fn decide(words: &mut Transcript, agent_text: Option<&str>) {
    if let Some(known) = agent_text.map(KnownText::of) {
        agent_by_text(words, &known);
    }
    announced::mark(words);
    the_others(words);
}

/// Writes beside every utterance whose it is; what is in doubt stays so.
pub fn say(words: &mut Transcript) {
    let speakers = words.speakers.clone();
    for utterance in words.utterances.iter_mut().filter(|utterance| utterance.by.is_none_or(|by| !by.is_doubtful())) {
        let known = speakers.iter().find(|speaker| speaker.id == utterance.speaker);
        let Speaker { role, evidence, confidence, .. } = known.unwrap_or(&Speaker::nameless(0)).clone();
        utterance.by = Some(Attribution { role, evidence, confidence });
    }
}

/// What an utterance's words are as they are compared.
fn plain(utterance: &Utterance) -> Vec<String> {
    normalise(&utterance.text)
}

/// Whether these words stand in a row, at a word's beginning and end.
fn holds(words: &[String], phrase: &str) -> bool {
    let phrase: Vec<&str> = phrase.split(' ').collect();
    words.windows(phrase.len()).any(|row| row.iter().zip(&phrase).all(|(word, wanted)| word == wanted))
}

/// Nobody has said who it is: at most that it is a voice of its own.
const fn is_open(speaker: &Speaker) -> bool {
    matches!(speaker, Speaker { role: Role::Unknown, evidence: None | Some(Evidence::Voice), .. })
}

/// The speaker who says what the agent is known to say is the agent, if no other one comes near it.
fn agent_by_text(words: &mut Transcript, known: &KnownText) {
    let is_there = |role: Role| words.speakers.iter().any(|speaker| speaker.role == role);
    let open: Vec<u32> = words.speakers.iter().filter(|speaker| is_open(speaker)).map(|speaker| speaker.id).collect();
    // One speaker alone may be two whom nobody told apart.
    if is_there(Role::Agent) || words.speakers.len() < 2 {
        return;
    }
    let mut said: Vec<(u32, known_text::Said)> = open
        .into_iter()
        .map(|id| (id, known.said_in(words.utterances.iter().filter(|utterance| utterance.speaker == id))))
        .collect();
    said.sort_by(|(_, a), (_, b)| b.evidence_against(*a).total_cmp(&a.evidence_against(*b)));
    let [(agent, best), rest @ ..] = said.as_slice() else { return };
    let doubt = rest.iter().map(|(_, other)| best.evidence_against(*other)).fold(f64::INFINITY, f64::min);
    let confidence = known_text::confidence(doubt);
    if rest.is_empty() || !best.is_enough() || confidence < ENOUGH {
        return;
    }
    name(words, *agent, Role::Agent, confidence);
}

fn name(words: &mut Transcript, id: u32, role: Role, confidence: f64) {
    if let Some(speaker) = words.speakers.iter_mut().find(|speaker| speaker.id == id) {
        let confidence = Some((confidence * 1000.0).round() / 1000.0);
        (speaker.role, speaker.evidence, speaker.confidence) = (role, Some(Evidence::Text), confidence);
    }
}

/// Who is left once the agent is known: with one other speaker that is the caller. With more of them nobody is forced: only
/// where the agent hands the call on, who spoke before is the caller and who comes in afterwards is whom it went to.
fn the_others(words: &mut Transcript) {
    let Some(agent) = words.speakers.iter().find(|speaker| speaker.role == Role::Agent).cloned() else { return };
    // A role that is not an estimate was given by somebody who would have named the others too.
    let (Some(Evidence::Text | Evidence::Voice), Some(confidence)) = (agent.evidence, agent.confidence) else { return };
    let open: Vec<u32> = words.speakers.iter().filter(|speaker| is_open(speaker)).map(|speaker| speaker.id).collect();
    if let [caller] = open.as_slice() {
        name(words, *caller, Role::Caller, confidence);
        return;
    }
    let handing_on = |utterance: &&Utterance| {
        let said = plain(utterance);
        utterance.speaker == agent.id && HANDING_ON.iter().any(|phrase| holds(&said, phrase))
    };
    let Some(handed_ms) = words.utterances.iter().find(handing_on).and_then(|utterance| utterance.end_ms) else {
        return;
    };
    let first_ms = |id: u32| words.utterances.iter().filter(|u| u.speaker == id).find_map(|u| u.start_ms);
    let (before, after): (Vec<u32>, Vec<u32>) =
        open.into_iter().partition(|id| first_ms(*id).is_some_and(|start_ms| start_ms < handed_ms));
    if let ([caller], [transfer]) = (before.as_slice(), after.as_slice()) {
        name(words, *caller, Role::Caller, confidence);
        name(words, *transfer, Role::Transfer, confidence);
    }
}

#[cfg(test)]
mod tests;
