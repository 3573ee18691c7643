//! The voice of a synthetic agent: learnt from calls in which somebody who knows has said which turns are the agent's, and
//! known again in calls where nobody says. Callers and people are never learnt: what is kept are figures of turns whose role
//! is `agent`, of agents that the configuration declares synthetic.

use super::roles::ENOUGH;
use super::speakers::Attributed;
use super::voice_table as table;
use super::voices;
use super::voices::Manner;
use crate::audio::AudioError;
use crate::audio::speech::LegSpeech;
use crate::audio::speech::Region;
use crate::audio::speech::Speech;
use crate::domain::Role;
use crate::domain::Transcript;
use crate::domain::VoiceFigures;
use crate::domain::transcript::Evidence;
use crate::domain::transcript::Speaker;
use crate::domain::transcript::Turn;

/// Of this version are the figures that can be compared; stored ones of another are of no use.
pub const VOICE_VERSION: u32 = voices::FIGURES_VERSION;

/// Speech that makes one point, ms.
const SECOND_MS: f64 = 800.0;

/// Speech of an agent without which a call teaches nothing, ms.
const TEACHES_MS: u64 = 5_000;

/// Log odds of two voices in an agent's turns from which nothing is learnt of them: somebody else may be heard in them.
const ANOTHER_HEARD: f64 = 0.0;

/// A voice along the directions that tell voices apart.
type Place = [f64; table::DIRECTIONS];

/// What is known of an agent's voice.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentVoice {
    middle: Place,
    /// That taught it.
    calls: usize,
}

impl AgentVoice {
    /// The mean of what calls taught; none where there are fewer than can be relied on, or their figures are others than
    /// this build compares.
    #[must_use]
    pub fn of(taught: &[VoiceFigures]) -> Option<Self> {
        let places: Vec<Place> = taught.iter().filter_map(place).collect();
        let calls = places.len();
        let mean = |n: usize| places.iter().map(|place| place[n]).sum::<f64>() / calls as f64;
        (calls >= table::FEWEST_CALLS).then(|| Self { middle: std::array::from_fn(mean), calls })
    }

    /// Logarithm of how much likelier a voice sounds like this if it is the agent's than if it is anybody's: both are
    /// normal distributions, learnt from voices on several lines each.
    #[must_use]
    pub fn likeness(&self, voice: &VoiceFigures) -> Option<f64> {
        let heard = place(voice)?;
        // What one call varies by, more where little was heard.
        let call = 1.0 + table::SECOND * SECOND_MS / voice.speech_ms.max(1) as f64;
        let calls = self.calls as f64;
        let mut log_ratio = 0.0;
        for ((at, middle), between) in heard.iter().zip(&self.middle).zip(&table::BETWEEN) {
            // As far as so few calls show it, an agent's voice is nearer to everybody's than they are.
            let known = between / (between + 1.0 / calls);
            log_ratio += log_normal(at - known * middle, known / calls + call) - log_normal(*at, between + call);
        }
        Some(table::SCALE * log_ratio)
    }
}

/// Where figures lie; nowhere if they are others than this build compares.
fn place(figures: &VoiceFigures) -> Option<Place> {
    let at: &[f64; table::FIGURES] = figures.at.as_slice().try_into().ok()?;
    let along = |direction: &[f64; table::FIGURES]| -> f64 {
        direction.iter().zip(at).zip(&table::MEAN).map(|((weight, at), mean)| weight * (at - mean)).sum()
    };
    (figures.version == VOICE_VERSION).then(|| std::array::from_fn(|n| along(&table::ALONG[n])))
}

fn log_normal(away: f64, variance: f64) -> f64 {
    -0.5 * (away * away / variance + variance.ln())
}

/// What this call teaches of its agent's voice: nothing unless whose turns they are was said by the platform, by the
/// channel they are on, or by a person.
///
/// # Errors
/// The spool could not be read.
pub fn learn(attributed: &Attributed, speech: &Speech) -> Result<Option<VoiceFigures>, AudioError> {
    let words = &attributed.transcript;
    // Turns that only a clock of the platform's placed may lie beside the voice.
    if speech.legs.len() == 1 && words.reason.is_some() {
        return Ok(None);
    }
    let known = |speaker: &&Speaker| match speaker.evidence {
        Some(Evidence::Correction) => true,
        // On the wrong leg there is a caller.
        Some(Evidence::Provider | Evidence::Channel) => attributed.legs_sure >= ENOUGH,
        _ => false,
    };
    let mut agents = words.speakers.iter().filter(|speaker| speaker.role == Role::Agent);
    let (Some(agent), None) = (agents.next().filter(known), agents.next()) else { return Ok(None) };
    // Whom the agent handed the call on to may be heard on its leg.
    if words.speakers.iter().any(|speaker| speaker.role == Role::Transfer) {
        return Ok(None);
    }
    let Some((leg, stretches)) = spoken(words, speech, agent) else { return Ok(None) };
    let heard = voices::manner(&leg.samples, &stretches)?;
    let one_voice = |heard: &Manner| heard.two.is_none_or(|odds| odds < ANOTHER_HEARD);
    let figures = heard.filter(one_voice).map(|heard| heard.figures);
    Ok(figures.filter(|figures| figures.speech_ms >= TEACHES_MS))
}

/// How like the agent each speaker sounds, by id; none of those of whom too little is heard.
///
/// # Errors
/// The spool could not be read.
pub(super) fn likenesses(
    words: &Transcript,
    speech: &Speech,
    known: &AgentVoice,
) -> Result<Vec<(u32, f64)>, AudioError> {
    let mut all = Vec::new();
    for speaker in words.speakers.iter().filter(|speaker| speaker.role == Role::Unknown) {
        let Some((leg, stretches)) = spoken(words, speech, speaker) else { continue };
        let heard = voices::manner(&leg.samples, &stretches)?;
        all.extend(heard.and_then(|heard| known.likeness(&heard.figures)).map(|likeness| (speaker.id, likeness)));
    }
    Ok(all)
}

/// The leg that a speaker is heard on, and where on it they are and nobody else.
fn spoken<'a>(words: &Transcript, speech: &'a Speech, speaker: &Speaker) -> Option<(&'a LegSpeech, Vec<Region>)> {
    let leg = match (speech.legs.as_slice(), speaker.channel) {
        ([only], _) => only,
        (legs, Some(channel)) => legs.get(usize::from(channel))?,
        _ => return None,
    };
    let alone = alone(words, speaker, speech.legs.len() == 1);
    let shares = |turn: &Region| leg.regions.iter().filter_map(|region| shared(turn, region)).collect::<Vec<_>>();
    Some((leg, alone.iter().flat_map(shares).collect()))
}

/// The speaker's turns, without what others say meanwhile where they would be heard too.
fn alone(words: &Transcript, speaker: &Speaker, mixed: bool) -> Vec<Region> {
    let region = |turn: &Turn| Region { start_ms: turn.start_ms, end_ms: turn.end_ms };
    let mut own: Vec<Region> = words.turns.iter().filter(|turn| turn.speaker == speaker.id).map(region).collect();
    if mixed {
        for other in words.turns.iter().filter(|turn| turn.speaker != speaker.id).map(region) {
            own = own.into_iter().flat_map(|turn| without(turn, other)).collect();
        }
    }
    own
}

/// What is left of a stretch when another is cut out of it.
fn without(stretch: Region, other: Region) -> impl Iterator<Item = Region> {
    let before = Region { end_ms: stretch.end_ms.min(other.start_ms), ..stretch };
    let after = Region { start_ms: stretch.start_ms.max(other.end_ms), ..stretch };
    [before, after].into_iter().filter(|part| part.end_ms > part.start_ms)
}

fn shared(a: &Region, b: &Region) -> Option<Region> {
    let both = Region { start_ms: a.start_ms.max(b.start_ms), end_ms: a.end_ms.min(b.end_ms) };
    (both.end_ms > both.start_ms).then_some(both)
}

#[cfg(test)]
mod tests;
