//! Enrolment and comparison of the voices of synthetic agents. Input: turns with a role from the platform, a channel or
//! a correction. Output: a speaker embedding per call, and a log-likelihood ratio for a speaker in a later call. Only
//! turns with the role `agent`, of agents that the configuration declares synthetic, are enrolled. Callers and human
//! agents are never enrolled.

use super::attributed::Attributed;
use super::diarization;
use super::diarization::VoiceEmbedding;
use super::roles::ENOUGH;
use super::voice_table as table;
use crate::audio::AudioError;
use crate::audio::speech::LegSpeech;
use crate::audio::speech::Speech;
use crate::domain::Role;
use crate::domain::Segment;
use crate::domain::SpeakerEmbedding;
use crate::domain::Transcript;
use crate::domain::segment::without;
use crate::domain::transcript::Evidence;
use crate::domain::transcript::Speaker;
use crate::domain::transcript::Turn;

/// Version of the comparable speaker embeddings. Stored embeddings of another version are not used.
pub const VOICE_VERSION: u32 = diarization::EMBEDDING_VERSION;

/// Speech in one segment embedding, in milliseconds.
const SECOND_MS: f64 = 800.0;

/// Least agent speech for an enrolment, in milliseconds.
const TEACHES_MS: u64 = 5_000;

/// Log odds of two voices in an agent's turns from which the call is not enrolled, because another speaker may be
/// present.
const ANOTHER_HEARD: f64 = 0.0;

/// A speaker embedding, projected onto the directions that discriminate between voices.
type VoicePoint = [f64; table::DIRECTIONS];

/// The enrolled voice of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentVoice {
    middle: VoicePoint,
    /// Number of enrolled calls.
    calls: usize,
}

impl AgentVoice {
    /// The mean of the enrolled embeddings. `None` if there are too few calls with embeddings of this version.
    #[must_use]
    pub fn of(taught: &[SpeakerEmbedding]) -> Option<Self> {
        let places: Vec<VoicePoint> = taught.iter().filter_map(place).collect();
        let calls = places.len();
        let mean = |n: usize| places.iter().map(|place| place[n]).sum::<f64>() / calls as f64;
        (calls >= table::FEWEST_CALLS).then(|| Self { middle: std::array::from_fn(mean), calls })
    }

    /// Log-likelihood ratio (natural logarithm) of this voice being the agent's against any voice. Both are modelled as
    /// normal distributions, trained on voices that were each recorded over several lines. `None` for an embedding of
    /// another version.
    #[must_use]
    pub fn log_likelihood_ratio(&self, voice: &SpeakerEmbedding) -> Option<f64> {
        let heard = place(voice)?;
        // The variance within a call, larger if little speech was available.
        let call = 1.0 + table::SECOND * SECOND_MS / voice.speech_ms.max(1) as f64;
        let calls = self.calls as f64;
        let mut log_ratio = 0.0;
        for ((at, middle), between) in heard.iter().zip(&self.middle).zip(&table::BETWEEN) {
            // The estimate is shrunk towards the mean of all voices, by the number of enrolled calls.
            let known = between / (between + 1.0 / calls);
            log_ratio += log_normal(at - known * middle, known / calls + call) - log_normal(*at, between + call);
        }
        Some(table::SCALE * log_ratio)
    }
}

/// The projected embedding; `None` for another version.
fn place(embedding: &SpeakerEmbedding) -> Option<VoicePoint> {
    let at: &[f64; table::FIGURES] = embedding.at.as_slice().try_into().ok()?;
    let along = |direction: &[f64; table::FIGURES]| -> f64 {
        direction.iter().zip(at).zip(&table::MEAN).map(|((weight, at), mean)| weight * (at - mean)).sum()
    };
    (embedding.version == VOICE_VERSION).then(|| std::array::from_fn(|n| along(&table::ALONG[n])))
}

fn log_normal(away: f64, variance: f64) -> f64 {
    -0.5 * (away * away / variance + variance.ln())
}

/// The speaker embedding that this call contributes for its agent. `None` unless the agent's turns are known from the
/// platform, a channel or a correction.
///
/// # Errors
/// [`AudioError`] if the spool cannot be read.
pub fn enroll(attributed: &Attributed, speech: &Speech) -> Result<Option<SpeakerEmbedding>, AudioError> {
    let words = &attributed.transcript;
    // Turns with times from the platform's wall clock may miss the speech.
    if speech.legs.len() == 1 && words.reason.is_some() {
        return Ok(None);
    }
    let known = |speaker: &&Speaker| match speaker.evidence {
        Some(Evidence::Correction) => true,
        // With swapped legs, this would enrol the caller.
        Some(Evidence::Provider | Evidence::Channel) => attributed.legs_sure >= ENOUGH,
        _ => false,
    };
    let mut agents = words.speakers.iter().filter(|speaker| speaker.role == Role::Agent);
    let (Some(agent), None) = (agents.next().filter(known), agents.next()) else { return Ok(None) };
    // The transfer target may speak on the agent's leg.
    if words.speakers.iter().any(|speaker| speaker.role == Role::Transfer) {
        return Ok(None);
    }
    let Some((leg, segments)) = spoken(words, speech, agent) else { return Ok(None) };
    let heard = diarization::embedding(&leg.samples, &segments)?;
    let one_voice = |heard: &VoiceEmbedding| heard.two.is_none_or(|odds| odds < ANOTHER_HEARD);
    let embedding = heard.filter(one_voice).map(|heard| heard.embedding);
    Ok(embedding.filter(|embedding| embedding.speech_ms >= TEACHES_MS))
}

/// The log-likelihood ratio of each nameless speaker against the agent, by speaker id. Speakers with too little speech
/// are left out.
///
/// # Errors
/// [`AudioError`] if the spool cannot be read.
pub(super) fn log_likelihood_ratios(
    words: &Transcript,
    speech: &Speech,
    known: &AgentVoice,
) -> Result<Vec<(u32, f64)>, AudioError> {
    let mut all = Vec::new();
    for speaker in words.speakers.iter().filter(|speaker| speaker.role == Role::Unknown) {
        let Some((leg, segments)) = spoken(words, speech, speaker) else { continue };
        let heard = diarization::embedding(&leg.samples, &segments)?;
        all.extend(
            heard
                .and_then(|heard| known.log_likelihood_ratio(&heard.embedding))
                .map(|log_likelihood_ratio| (speaker.id, log_likelihood_ratio)),
        );
    }
    Ok(all)
}

/// The leg of a speaker, and the regions on it in which only this speaker talks.
fn spoken<'a>(words: &Transcript, speech: &'a Speech, speaker: &Speaker) -> Option<(&'a LegSpeech, Vec<Segment>)> {
    let leg = match (speech.legs.as_slice(), speaker.channel) {
        ([only], _) => only,
        (legs, Some(channel)) => legs.get(usize::from(channel))?,
        _ => return None,
    };
    let alone = alone(words, speaker, speech.legs.len() == 1);
    let on_leg = |turn: &Segment| leg.regions.iter().filter_map(|region| turn.overlap(region)).collect::<Vec<_>>();
    Some((leg, alone.iter().flat_map(on_leg).collect()))
}

/// The speaker's turns. On a mixed leg, the turns of other speakers are cut out.
fn alone(words: &Transcript, speaker: &Speaker, mixed: bool) -> Vec<Segment> {
    let (own, others): (Vec<Turn>, Vec<Turn>) =
        words.turns.iter().copied().partition(|turn| turn.speaker == speaker.id);
    let own = own.iter().map(Turn::segment).collect();
    if mixed { without(own, others.iter().map(Turn::segment)) } else { own }
}

#[cfg(test)]
mod tests;
