//! Assigns roles to speakers from their words and voices. A role from the platform, a channel or a person is never
//! overruled. Below a confidence of [`ENOUGH`] a speaker gets no role, because a wrong role is worse than none.

mod announced;
mod known_text;
mod table;

use crate::domain::Role;
use crate::domain::Transcript;
use crate::domain::transcript::Attribution;
use crate::domain::transcript::Evidence;
use crate::domain::transcript::Speaker;
use crate::domain::transcript::Utterance;

use super::confidence::thousandths;
use super::score::normalise;
use super::voice_table;

use self::known_text::KnownText;
use self::known_text::Said;

/// Least confidence of an assigned role.
pub(super) const ENOUGH: f64 = 0.95;

/// Upper limit of a log-likelihood ratio. A higher one adds no information, and its exponential must stay finite.
const MOST_LIKE: f64 = 30.0;

/// Contradiction between the words and the voice evidence, in log odds. From here on no agent is named.
const TORN: f64 = 1.0;

/// Phrases of an agent that announce a transfer.
const HANDING_ON: [&str; 6] =
    ["transfer you", "transferring you", "put you through", "putting you through", "connect you", "connecting you"];

/// Known data about the agent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KnownAgent<'a> {
    pub text: Option<&'a str>,
    /// Log-likelihood ratios of the enrolled voice by speaker id (natural logarithms).
    pub log_likelihood_ratios: &'a [(u32, f64)],
}

/// Assigns roles to nameless speakers, if their words and voices give enough evidence.
pub(super) fn decide(words: &mut Transcript, known: KnownAgent<'_>) {
    find_agent(words, known);
    announced::mark(words);
    the_others(words);
}

/// Writes the attribution of every utterance. A doubtful attribution stays unchanged.
pub(super) fn say(words: &mut Transcript) {
    let speakers = words.speakers.clone();
    for utterance in words.utterances.iter_mut().filter(|utterance| utterance.by.is_none_or(|by| !by.is_doubtful())) {
        let known = speakers.iter().find(|speaker| speaker.id == utterance.speaker);
        let Speaker { role, evidence, confidence, .. } = known.unwrap_or(&Speaker::nameless(0)).clone();
        utterance.by = Some(Attribution { role, evidence, confidence });
    }
}

/// The normalised words of an utterance.
fn plain(utterance: &Utterance) -> Vec<String> {
    normalise(&utterance.text)
}

/// Whether these words contain the phrase as complete words.
fn holds(words: &[String], phrase: &str) -> bool {
    let phrase: Vec<&str> = phrase.split(' ').collect();
    words.windows(phrase.len()).any(|row| row.iter().zip(&phrase).all(|(word, wanted)| word == wanted))
}

/// Whether the speaker has no role, and no evidence other than diarization.
const fn is_open(speaker: &Speaker) -> bool {
    matches!(speaker, Speaker { role: Role::Unknown, evidence: None | Some(Evidence::Voice), .. })
}

/// Evidence for a speaker being the agent: log odds with an additive constant that is equal for all speakers.
#[derive(Debug, Clone, Copy)]
struct Case {
    speaker: u32,
    by_text: f64,
    by_voice: f64,
}

/// Names the speaker with the strongest evidence as the agent, if no other speaker is close.
fn find_agent(words: &mut Transcript, known: KnownAgent<'_>) {
    let is_there = |role: Role| words.speakers.iter().any(|speaker| speaker.role == role);
    // A single speaker may be two that the diarization did not separate.
    if is_there(Role::Agent) || words.speakers.len() < 2 {
        return;
    }
    let mut cases = cases(words, known);
    cases.sort_by(|a, b| b.sum().total_cmp(&a.sum()));
    let [best, next, ..] = cases.as_slice() else { return };
    let torn = |of: fn(&Case) -> f64| cases.iter().any(|other| of(other) - of(best) > TORN);
    if torn(|case| case.by_text) || torn(|case| case.by_voice) {
        return;
    }
    let doubt = best.sum() - next.sum();
    let by_voice = best.by_voice - next.by_voice > best.by_text - next.by_text;
    let confidence = known_text::confidence(doubt).min(if by_voice { voice_table::MOST } else { 1.0 });
    if confidence >= ENOUGH {
        name(words, best.speaker, Role::Agent, if by_voice { Evidence::Voice } else { Evidence::Text }, confidence);
    }
}

fn cases(words: &Transcript, known: KnownAgent<'_>) -> Vec<Case> {
    let text = known.text.map(KnownText::of);
    let open = words.speakers.iter().filter(|speaker| is_open(speaker)).map(|speaker| speaker.id);
    let said: Vec<(u32, Said)> = open
        .map(|id| {
            let own = words.utterances.iter().filter(|utterance| utterance.speaker == id);
            (id, text.as_ref().map(|text| text.said_in(own)).unwrap_or_default())
        })
        .collect();
    let enough = said.iter().any(|(_, said)| said.is_enough());
    let case = |(speaker, said): (u32, Said)| Case {
        speaker,
        by_text: if enough { said.evidence() } else { 0.0 },
        by_voice: by_voice(known.log_likelihood_ratios, speaker),
    };
    said.into_iter().map(case).collect()
}

/// The voice's log odds. They allow for a changed agent voice, which makes the ratio meaningless. A speaker with too
/// little speech gets 0.
fn by_voice(log_likelihood_ratios: &[(u32, f64)], speaker: u32) -> f64 {
    let log_likelihood_ratio = log_likelihood_ratios
        .iter()
        .find(|(id, _)| *id == speaker)
        .map_or(0.0, |(_, log_likelihood_ratio)| log_likelihood_ratio.min(MOST_LIKE));
    ((1.0 - voice_table::ANOTHER) * log_likelihood_ratio.exp() + voice_table::ANOTHER).ln()
}

impl Case {
    fn sum(&self) -> f64 {
        self.by_text + self.by_voice
    }
}

fn name(words: &mut Transcript, id: u32, role: Role, evidence: Evidence, confidence: f64) {
    if let Some(speaker) = words.speakers.iter_mut().find(|speaker| speaker.id == id) {
        let confidence = Some(thousandths(confidence));
        (speaker.role, speaker.evidence, speaker.confidence) = (role, Some(evidence), confidence);
    }
}

/// Assigns the remaining roles once the agent is known. One other speaker is the caller. Several get roles only if the
/// agent announces a transfer: the one heard before is the caller, and the one heard first after it is the transfer
/// target.
fn the_others(words: &mut Transcript) {
    let Some(agent) = words.speakers.iter().find(|speaker| speaker.role == Role::Agent).cloned() else { return };
    // A source with certain roles would also have named the other speakers.
    let (Some(evidence @ (Evidence::Text | Evidence::Voice)), Some(confidence)) = (agent.evidence, agent.confidence)
    else {
        return;
    };
    let open: Vec<u32> = words.speakers.iter().filter(|speaker| is_open(speaker)).map(|speaker| speaker.id).collect();
    if let [caller] = open.as_slice() {
        name(words, *caller, Role::Caller, evidence, confidence);
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
        name(words, *caller, Role::Caller, evidence, confidence);
        name(words, *transfer, Role::Transfer, evidence, confidence);
    }
}

#[cfg(test)]
mod tests;
