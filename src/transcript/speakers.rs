//! Who speaks when, from the audio: legs where there are two, else voices. Roles a platform gave are never overruled; a
//! role that nothing speaks for stays unknown.

use crate::audio::AudioError;
use crate::audio::speech::Region;
use crate::audio::speech::Speech;
use crate::domain::DualChannels;
use crate::domain::Role;
use crate::domain::Transcript;
use crate::domain::quality::ConversationMethod;
use crate::domain::transcript::Evidence;
use crate::domain::transcript::Speaker;
use crate::domain::transcript::Turn;
use crate::domain::transcript::Utterance;

use super::score::normalise;
use super::voices;
use super::voices::Voiced;
use super::voices::Voices;

/// Of a leg's speech that meets the turns of some role, this share has to meet the agent's (or not), or the legs stay
/// without roles.
const CLEAR: f64 = 0.75;
/// Speech that has to meet turns of known role before they say anything, ms.
const ENOUGH_MS: u64 = 1_000;
/// Word pairs of the agent's text that have to be heard, and how many times rarer they have to be with the other speaker.
const ENOUGH_PAIRS: usize = 4;
const FAR_MORE: f64 = 4.0;

/// What is known beforehand of who is who.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'a> {
    pub channels: DualChannels,
    /// What the agent is known to say: its greeting, or its prompt.
    pub agent_text: Option<&'a str>,
}

/// A transcript with its speakers placed on the audio.
#[derive(Debug)]
pub struct Attributed {
    pub transcript: Transcript,
    /// The role on each leg of the recording; one entry for one leg, unknown where several speak on it.
    pub legs: Vec<Role>,
    /// What tells the speakers apart in `transcript.turns`.
    pub method: ConversationMethod,
}

/// Places speakers on the audio, for a transcript with or without words.
///
/// # Errors
/// The spool could not be read.
pub fn attribute(words: Transcript, speech: &Speech, hints: Hints<'_>) -> Result<Attributed, AudioError> {
    match speech.legs.as_slice() {
        [left, right] => Ok(by_channel(words, [&left.regions, &right.regions], hints)),
        // Voices tell when somebody else speaks, not who it is: laid under a text they would say more than is known.
        [leg] if words.turns.is_empty() && words.utterances.is_empty() => {
            Ok(by_voice(words, &voices::tell_apart(leg)?, hints))
        }
        // Turns that a platform timed are kept: it knows who spoke, and a mix does not say.
        _ => Ok(Attributed { transcript: words, legs: vec![Role::Unknown], method: ConversationMethod::ProviderTurns }),
    }
}

/// One leg: the turns are those of its voices. Roles follow from the text where the platform's lines, laid over the speech in
/// order, fall on the voices clearly enough.
fn by_voice(mut words: Transcript, voices: &Voices, hints: Hints<'_>) -> Attributed {
    let given = laid_over(&words, voices);
    let share = |voice: u32, role: Role| -> u64 {
        let of_voice = voices.stretches.iter().filter(|stretch| stretch.voice == voice);
        of_voice.map(|s| given.iter().filter(|g| g.0 == role).map(|g| common(&s.region, &g.1)).sum::<u64>()).sum()
    };
    let straight = share(0, Role::Agent) + share(1, Role::Caller);
    let crossed = share(1, Role::Agent) + share(0, Role::Caller);
    let sum = straight + crossed;
    let part = straight.max(crossed) as f64 / sum.max(1) as f64;
    let known = voices.count == 2 && sum >= ENOUGH_MS && part >= CLEAR;
    let role = |voice: u32| match (known, (voice == 0) == (straight >= crossed)) {
        (false, _) => Role::Unknown,
        (true, true) => Role::Agent,
        (true, false) => Role::Caller,
    };
    let ids: Vec<u32> =
        (0..voices.count).map(|voice| speaker_of(&mut words, role(voice), known.then_some(Evidence::Text))).collect();
    for stretch in &voices.stretches {
        let Some(&speaker) = ids.get(stretch.voice as usize) else { continue };
        let Region { start_ms, end_ms } = stretch.region;
        words.turns.push(Turn { speaker, start_ms, end_ms });
    }
    name_the_nameless(&mut words);
    roles_by_text(&mut words, hints.agent_text, Evidence::Voice);
    Attributed { transcript: words, legs: vec![Role::Unknown], method: ConversationMethod::Voices }
}

/// Where each line of the platform's text would be if all were spoken at one pace, one after the other: the speech's time
/// shared out by letters.
fn laid_over(words: &Transcript, voices: &Voices) -> Vec<(Role, Region)> {
    let letters = |utterance: &Utterance| utterance.text.chars().filter(|c| c.is_alphanumeric()).count() as f64;
    let all: f64 = words.utterances.iter().map(letters).sum();
    let spoken: u64 = voices.stretches.iter().map(|stretch| stretch.region.duration_ms()).sum();
    if all < 1.0 || spoken == 0 {
        return Vec::new();
    }
    // From a moment of speech to a moment of the recording.
    let place = |mut at: f64| {
        for Voiced { region, .. } in &voices.stretches {
            let long = region.duration_ms() as f64;
            if at <= long {
                return region.start_ms + at as u64;
            }
            at -= long;
        }
        voices.stretches.last().map_or(0, |stretch| stretch.region.end_ms)
    };
    let mut before = 0.0;
    let lay = |utterance: &Utterance| {
        let start_ms = place(before / all * spoken as f64);
        before += letters(utterance);
        let end_ms = place(before / all * spoken as f64).max(start_ms);
        (words.role(utterance.speaker), Region { start_ms, end_ms })
    };
    words.utterances.iter().map(lay).collect()
}

/// The speaker who says what the agent is known to say is the agent, and with two speakers the other is the caller.
fn roles_by_text(words: &mut Transcript, agent_text: Option<&str>, evidence: Evidence) {
    let Some(known) = agent_text.map(pairs_of_words) else { return };
    let unknown = words.speakers.iter().all(|speaker| speaker.role == Role::Unknown);
    let [first, second] = words.speakers.as_slice() else { return };
    if !unknown || known.is_empty() {
        return;
    }
    let said = |id: u32| {
        let own = words.utterances.iter().filter(|utterance| utterance.speaker == id);
        let pairs: Vec<_> = own.flat_map(|utterance| pairs_of_words(&utterance.text)).collect();
        // A caller says few of an agent's word pairs by chance; a prompt holds more than the agent says.
        let hits = pairs.iter().filter(|pair| known.contains(pair)).count();
        (hits, hits as f64 / pairs.len().max(1) as f64)
    };
    let (left, right) = (said(first.id), said(second.id));
    let agent = match (left, right) {
        ((hits, share), (_, other)) if hits >= ENOUGH_PAIRS && share > FAR_MORE * other => first.id,
        ((_, other), (hits, share)) if hits >= ENOUGH_PAIRS && share > FAR_MORE * other => second.id,
        _ => return,
    };
    for speaker in &mut words.speakers {
        speaker.role = if speaker.id == agent { Role::Agent } else { Role::Caller };
        speaker.evidence = Some(if evidence == Evidence::Channel { evidence } else { Evidence::Text });
    }
}

fn pairs_of_words(text: &str) -> Vec<(String, String)> {
    let words = normalise(text);
    words.windows(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// Two legs: the turns are theirs, whatever a platform's clock said, and the roles are the channels'.
fn by_channel(mut words: Transcript, legs: [&[Region]; 2], hints: Hints<'_>) -> Attributed {
    let (roles, evidence) = leg_roles(&words, legs, hints);
    let ids = roles.map(|role| speaker_of(&mut words, role, evidence));
    words.turns.clear();
    for (id, regions) in ids.into_iter().zip(legs) {
        let turn = |region: &Region| Turn { speaker: id, start_ms: region.start_ms, end_ms: region.end_ms };
        words.turns.extend(regions.iter().map(turn));
    }
    words.turns.sort_by_key(|turn| (turn.start_ms, turn.speaker));
    name_the_nameless(&mut words);
    roles_by_text(&mut words, hints.agent_text, Evidence::Channel);
    let legs = ids.iter().map(|id| words.role(*id)).collect();
    Attributed { transcript: words, legs, method: ConversationMethod::Channels }
}

fn leg_roles(words: &Transcript, legs: [&[Region]; 2], hints: Hints<'_>) -> ([Role; 2], Option<Evidence>) {
    let agent_left = ([Role::Agent, Role::Caller], Some(Evidence::Channel));
    let caller_left = ([Role::Caller, Role::Agent], Some(Evidence::Channel));
    match hints.channels {
        DualChannels::AgentLeft => return agent_left,
        DualChannels::CallerLeft => return caller_left,
        DualChannels::Auto => {}
    }
    // What each leg shares with the stretches of each role the platform timed.
    let shared = |leg: &[Region], role: Role| -> u64 {
        let of_role = words.turns.iter().filter(|turn| words.role(turn.speaker) == role);
        of_role.map(|turn| leg.iter().map(|region| common(region, &stretch(turn))).sum::<u64>()).sum()
    };
    let (agent, caller) = (Role::Agent, Role::Caller);
    let for_left = shared(legs[0], agent) + shared(legs[1], caller);
    let for_right = shared(legs[1], agent) + shared(legs[0], caller);
    let sum = for_left + for_right;
    if sum >= ENOUGH_MS {
        if for_left as f64 >= CLEAR * sum as f64 {
            return agent_left;
        }
        if for_right as f64 >= CLEAR * sum as f64 {
            return caller_left;
        }
    }
    ([Role::Unknown, Role::Unknown], None)
}

fn common(a: &Region, b: &Region) -> u64 {
    a.end_ms.min(b.end_ms).saturating_sub(a.start_ms.max(b.start_ms))
}

const fn stretch(turn: &Turn) -> Region {
    Region { start_ms: turn.start_ms, end_ms: turn.end_ms }
}

/// The id of the speaker with this role, added to the table where it is not yet; two unknown ones are two speakers.
fn speaker_of(words: &mut Transcript, role: Role, evidence: Option<Evidence>) -> u32 {
    if role != Role::Unknown
        && let Some(known) = words.speakers.iter().find(|speaker| speaker.role == role)
    {
        return known.id;
    }
    let id = words.speakers.iter().map(|speaker| speaker.id + 1).max().unwrap_or(0);
    words.speakers.push(Speaker { id, role, confidence: None, evidence });
    id
}

/// Utterances with times that a platform gave to nobody take the speaker who is speaking.
fn name_the_nameless(words: &mut Transcript) {
    let turns = words.turns.clone();
    let nameless = |speakers: &[Speaker], id: u32| {
        speakers.iter().find(|speaker| speaker.id == id).is_none_or(|speaker| speaker.evidence.is_none())
    };
    let speakers = words.speakers.clone();
    for utterance in words.utterances.iter_mut().filter(|utterance| nameless(&speakers, utterance.speaker)) {
        if let Some(id) = who_speaks(&turns, utterance) {
            utterance.speaker = id;
        }
    }
    let used = |id: u32, words: &Transcript| {
        words.utterances.iter().any(|u| u.speaker == id) || words.turns.iter().any(|turn| turn.speaker == id)
    };
    let kept = words.speakers.iter().filter(|speaker| used(speaker.id, words)).cloned().collect();
    words.speakers = kept;
}

fn who_speaks(turns: &[Turn], utterance: &Utterance) -> Option<u32> {
    let place = Region { start_ms: utterance.start_ms?, end_ms: utterance.end_ms? };
    let mut ids: Vec<u32> = turns.iter().map(|turn| turn.speaker).collect();
    ids.sort_unstable();
    ids.dedup();
    let spoken = |id: &u32| {
        turns.iter().filter(|turn| turn.speaker == *id).map(|turn| common(&place, &stretch(turn))).sum::<u64>()
    };
    ids.into_iter().max_by_key(spoken).filter(|id| spoken(id) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::without_text;

    const fn region(start_ms: u64, end_ms: u64) -> Region {
        Region { start_ms, end_ms }
    }

    fn given(turns: &[(u32, u64, u64)]) -> Transcript {
        let mut words = without_text(None);
        let speaker = |id, role| Speaker { id, role, confidence: None, evidence: Some(Evidence::Provider) };
        words.speakers = vec![speaker(0, Role::Agent), speaker(1, Role::Caller)];
        words.turns = turns.iter().map(|&(speaker, start_ms, end_ms)| Turn { speaker, start_ms, end_ms }).collect();
        words
    }

    #[test]
    fn the_setting_names_the_legs() {
        let hints = Hints { channels: DualChannels::CallerLeft, ..Hints::default() };
        let done = by_channel(without_text(None), [&[region(2_000, 3_000)], &[region(0, 1_900)]], hints);
        assert_eq!(done.legs, [Role::Caller, Role::Agent]);
        let roles: Vec<Role> = done.transcript.turns.iter().map(|turn| done.transcript.role(turn.speaker)).collect();
        assert_eq!(roles, [Role::Agent, Role::Caller]);
        assert!(done.transcript.speakers.iter().all(|speaker| speaker.evidence == Some(Evidence::Channel)));
    }

    #[test]
    fn turns_of_the_platform_name_the_legs_and_the_audio_times_them() {
        let words = given(&[(0, 100, 2_100), (1, 2_300, 3_900)]);
        let done = by_channel(words, [&[region(2_000, 4_000)], &[region(0, 2_050)]], Hints::default());
        assert_eq!(done.legs, [Role::Caller, Role::Agent]);
        assert_eq!(done.transcript.turns[0], Turn { speaker: 0, start_ms: 0, end_ms: 2_050 });
        assert_eq!(done.transcript.speakers.len(), 2);
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
        };
        words.utterances =
            vec![said(0, "yes hello who is this"), said(2_000, "thank you for calling the ticket office")];
        let legs: [&[Region]; 2] = [&[region(0, 1_000)], &[region(2_000, 3_000)]];
        let hints = Hints { agent_text: Some("Thank you for calling the ticket office!"), ..Hints::default() };
        let done = by_channel(words.clone(), legs, hints);
        assert_eq!(done.legs, [Role::Caller, Role::Agent]);
        assert_eq!(done.transcript.role(done.transcript.utterances[1].speaker), Role::Agent);
        let hints = Hints { agent_text: Some("Something else is said by this agent of ours"), ..Hints::default() };
        assert_eq!(by_channel(words, legs, hints).legs, [Role::Unknown, Role::Unknown]);
    }

    #[test]
    fn lines_without_times_name_the_voices_they_fall_on() {
        let text = "[Agent]: thank you for calling how may I help you today\n[Caller]: it is broken\n[Agent]: I am sorry to hear that";
        let words = crate::transcript::parse_text(text, None);
        let voice = |voice, start_ms, end_ms| Voiced { voice, region: region(start_ms, end_ms) };
        let stretches = vec![voice(0, 0, 4_000), voice(1, 5_000, 6_200), voice(0, 7_000, 9_000)];
        let voices = Voices { count: 2, stretches, separation: 5.0 };
        let done = by_voice(words.clone(), &voices, Hints::default());
        let roles: Vec<Role> = done.transcript.turns.iter().map(|turn| done.transcript.role(turn.speaker)).collect();
        assert_eq!(roles, [Role::Agent, Role::Caller, Role::Agent]);
        // Voices that change at other places than the lines say nothing.
        let stretches = vec![voice(0, 0, 1_500), voice(1, 1_500, 4_000), voice(0, 5_000, 8_000)];
        let done = by_voice(words, &Voices { count: 2, stretches, separation: 5.0 }, Hints::default());
        assert_eq!(done.transcript.role(done.transcript.turns[0].speaker), Role::Unknown);
    }

    #[test]
    fn without_evidence_the_legs_are_two_speakers_and_no_roles() {
        let done = by_channel(without_text(None), [&[region(0, 900)], &[region(1_000, 2_000)]], Hints::default());
        assert_eq!(done.legs, [Role::Unknown, Role::Unknown]);
        assert_eq!(done.transcript.speakers.len(), 2);
        assert_eq!(done.transcript.turns[1].speaker, 1);
        // Turns that fit neither order say nothing either.
        let words = given(&[(0, 0, 2_000), (1, 0, 2_000)]);
        assert_eq!(
            by_channel(words, [&[region(0, 2_000)], &[region(0, 2_000)]], Hints::default()).legs[0],
            Role::Unknown
        );
    }
}
