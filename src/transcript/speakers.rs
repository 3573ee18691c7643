//! Assigns speakers to the audio and words to speakers. Two legs are two speakers; one leg is diarized. A role from the
//! platform is never overruled. A speaker without evidence keeps the role `unknown`.

pub(super) mod assignment;

use crate::audio::AudioError;
use crate::audio::speech::Speech;
use crate::domain::DualChannels;
use crate::domain::Role;
use crate::domain::Segment;
use crate::domain::Transcript;
use crate::domain::quality::ConversationMethod;
use crate::domain::segment::common_ms;
use crate::domain::transcript::Evidence;
use crate::domain::transcript::Speaker;
use crate::domain::transcript::Turn;
use crate::domain::transcript::Utterance;
use crate::domain::transcript::Word;

use super::agent_voice;
use super::agent_voice::AgentVoice;
use super::attributed::Attributed;
use super::attributed::roles_on_legs;
use super::confidence::thousandths;
use super::diarization;
use super::diarization::Diarization;
use super::engines::Engines;
use super::roles;
use super::roles::KnownAgent;
use super::turns;

/// Least share of a leg's matching speech for an assignment of roles to the legs.
const CLEAR: f64 = 0.75;
/// Least matching speech for any evidence, in milliseconds.
const ENOUGH_MS: u64 = 1_000;

/// Data about the speakers that is known beforehand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'a> {
    /// The configured diarizer; `None` uses the compiled-in one.
    pub engines: Option<&'a Engines>,
    pub channels: DualChannels,
    /// The agent's known text: its greeting or its prompt.
    pub agent_text: Option<&'a str>,
    /// The enrolled voice of a synthetic agent.
    pub agent_voice: Option<&'a AgentVoice>,
}

/// Assigns speakers to the audio, for a transcript with or without words, and roles to speakers with enough evidence.
///
/// # Errors
/// [`AudioError`] if the spool cannot be read.
pub fn attribute(mut words: Transcript, speech: &Speech, hints: Hints<'_>) -> Result<Attributed, AudioError> {
    let (mut agent_text, mut agent_voice) = (hints.agent_text, hints.agent_voice);
    let mut legs_sure = 1.0;
    let method = match speech.legs.as_slice() {
        [left, right] => {
            legs_sure = by_channel(&mut words, [&left.regions, &right.regions], hints.channels);
            ConversationMethod::Channels
        }
        [leg] if not_diarized_yet(&words) => {
            let voices = match hints.engines {
                Some(engines) => engines.diarize(leg)?,
                None => diarization::diarize(leg)?,
            };
            by_voice(&mut words, &voices);
            if !voices.sure {
                // The words and the audio of each speaker are too uncertain as evidence for a role.
                (agent_text, agent_voice) = (None, None);
            }
            ConversationMethod::Voices
        }
        // The platform's timed turns stay, because the platform recorded the speakers separately and the mix does not.
        _ => ConversationMethod::ProviderTurns,
    };
    let log_likelihood_ratios = match agent_voice {
        Some(known) => agent_voice::log_likelihood_ratios(&words, speech, known)?,
        None => Vec::new(),
    };
    roles::decide(&mut words, KnownAgent { text: agent_text, log_likelihood_ratios: &log_likelihood_ratios });
    roles::say(&mut words);
    let legs = roles_on_legs(&words, speech.legs.len());
    Ok(Attributed { transcript: words, legs, method, legs_sure })
}

/// Whether diarization is needed: no speaker is known, and there are words with times, or only audio.
fn not_diarized_yet(words: &Transcript) -> bool {
    let nameless = words.speakers.len() <= 1 && words.speakers.iter().all(is_nameless);
    let placed = words.utterances.iter().any(|utterance| utterance.start_ms.is_some());
    nameless && (placed || words.utterances.is_empty() && words.turns.is_empty())
}

const fn is_nameless(speaker: &Speaker) -> bool {
    matches!(speaker.role, Role::Unknown) && speaker.evidence.is_none()
}

/// One leg: the turns come from the diarization, and each word is assigned to a speaker.
fn by_voice(words: &mut Transcript, voices: &Diarization) {
    if voices.turns.is_empty() {
        return;
    }
    words.speakers = (0..voices.count).map(Speaker::nameless).collect();
    words.turns.clone_from(&voices.turns);
    give_words(words, |_| true);
}

/// Two legs: turns and recognised words come from the legs, independent of the platform's times. Returns the confidence
/// of the legs' roles.
fn by_channel(words: &mut Transcript, legs: [&[Segment]; 2], channels: DualChannels) -> f64 {
    let claim = leg_roles(words, legs, channels);
    for speaker in words.speakers.iter_mut().filter(|speaker| speaker.role != Role::Unknown) {
        let own = claim.roles.iter().position(|role| *role == speaker.role);
        speaker.channel = own.map(|leg| leg as u8).or(speaker.channel.filter(|_| claim.evidence.is_none()));
    }
    let ids = [0, 1].map(|leg| speaker_on(words, leg, &claim));
    words.turns = turns::of_regions(ids.into_iter().zip(legs));
    let speakers = words.speakers.clone();
    let adrift = |id: u32| {
        speakers.iter().find(|speaker| speaker.id == id).is_none_or(|s| is_nameless(s) && s.channel.is_none())
    };
    give_words(words, adrift);
    match claim {
        LegRoles { evidence: None, .. } => 0.0,
        // The configuration or the alignment states the legs.
        LegRoles { confidence: None, .. } => 1.0,
        LegRoles { confidence: Some(share), .. } => share,
    }
}

/// The role on each leg, with its evidence.
struct LegRoles {
    roles: [Role; 2],
    evidence: Option<Evidence>,
    confidence: Option<f64>,
}

fn leg_roles(words: &Transcript, legs: [&[Segment]; 2], channels: DualChannels) -> LegRoles {
    let evidence = Some(Evidence::Channel);
    let agent_left = |confidence| LegRoles { roles: [Role::Agent, Role::Caller], evidence, confidence };
    let caller_left = |confidence| LegRoles { roles: [Role::Caller, Role::Agent], evidence, confidence };
    match channels {
        DualChannels::AgentLeft => return agent_left(None),
        DualChannels::CallerLeft => return caller_left(None),
        DualChannels::Auto => {}
    }
    let heard_on = |role: Role| words.speakers.iter().find(|speaker| speaker.role == role).and_then(|s| s.channel);
    match (heard_on(Role::Agent), heard_on(Role::Caller)) {
        (Some(0), Some(1)) => return agent_left(None),
        (Some(1), Some(0)) => return caller_left(None),
        _ => {}
    }
    // The overlap of each leg's speech with the platform's timed turns of each role.
    let shared = |leg: &[Segment], role: Role| -> u64 {
        let of_role = words.turns.iter().filter(|turn| words.role(turn.speaker) == role).map(Turn::segment);
        common_ms(&of_role.collect::<Vec<_>>(), leg)
    };
    let (agent, caller) = (Role::Agent, Role::Caller);
    let for_left = shared(legs[0], agent) + shared(legs[1], caller);
    let for_right = shared(legs[1], agent) + shared(legs[0], caller);
    let share = for_left.max(for_right) as f64 / (for_left + for_right).max(1) as f64;
    if for_left + for_right < ENOUGH_MS || share < CLEAR {
        return LegRoles { roles: [Role::Unknown; 2], evidence: None, confidence: None };
    }
    let confidence = Some(thousandths(share));
    if for_left > for_right { agent_left(confidence) } else { caller_left(confidence) }
}

/// The id of the speaker on this leg: one with its role, one with words on the leg, or a new one.
fn speaker_on(words: &mut Transcript, leg: u8, claim: &LegRoles) -> u32 {
    let role = claim.roles[usize::from(leg)];
    let given = |speaker: &Speaker| role != Role::Unknown && speaker.role == role;
    let heard = |speaker: &Speaker| is_nameless(speaker) && speaker.channel == Some(leg);
    let known = words.speakers.iter().position(given).or_else(|| words.speakers.iter().position(heard));
    let at = known.unwrap_or_else(|| {
        let id = words.speakers.iter().map(|speaker| speaker.id + 1).max().unwrap_or(0);
        words.speakers.push(Speaker::nameless(id));
        words.speakers.len() - 1
    });
    let speaker = &mut words.speakers[at];
    speaker.channel = Some(leg);
    if is_nameless(speaker) {
        (speaker.role, speaker.evidence, speaker.confidence) = (role, claim.evidence, claim.confidence);
    }
    speaker.id
}

/// If `whose` accepts an utterance's speaker, assigns its words to the speakers of the turns at their times. Removes
/// speakers without utterances and turns.
fn give_words(words: &mut Transcript, whose: impl Fn(u32) -> bool) {
    let mut given = Vec::with_capacity(words.utterances.len());
    for utterance in words.utterances.drain(..) {
        if !whose(utterance.speaker) || utterance.start_ms.is_none() {
            given.push(utterance);
            continue;
        }
        let whole;
        let said = if utterance.words.iter().any(|word| word.start_ms.is_some()) {
            utterance.words.as_slice()
        } else {
            let Utterance { start_ms, end_ms, .. } = utterance;
            whole = [Word { text: String::new(), start_ms, end_ms, confidence: None, heard: None }];
            &whole
        };
        let assigned = assignment::assign(said, &words.turns);
        given.extend(assignment::cut(utterance, &assigned));
    }
    words.utterances = given;
    let used =
        |id: u32| words.utterances.iter().any(|u| u.speaker == id) || words.turns.iter().any(|turn| turn.speaker == id);
    let kept = words.speakers.iter().filter(|speaker| used(speaker.id)).cloned().collect();
    words.speakers = kept;
}

#[cfg(test)]
mod tests;
