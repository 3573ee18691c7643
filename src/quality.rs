//! Assembles the quality document of a call from the audio measurements, the signal figures, the conversation figures
//! and the platform's network figures. An unknown value is null and has a reason.

pub mod conversation;
mod dropouts;
pub mod mos;
pub mod signal;
mod spectrum;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::audio::Normalized;
use crate::audio::speech::LegSpeech;
use crate::audio::speech::Speech;
use crate::domain::quality::{ConversationMethod, Flag, Leg, Legs, NetworkFigures, QUALITY_SCHEMA};
use crate::domain::segment::{total_ms, without};
use crate::domain::{Network, Quality, Role, Transcript};

use self::signal::MeasuredSignal;

/// The platform's duration and the recording's may differ by this much without a flag.
const MISMATCH_MS: u64 = 2_000;
const MISMATCH_SHARE: f64 = 0.02;
/// A caller this much quieter than the agent is hard to follow, LU.
const CALLER_LOW_LU: f64 = 8.0;

/// A leg that speaks this long without any speech on the other leg was probably not heard.
const ONE_WAY_MS: u64 = 3_000;
/// A recording below this was recorded wrongly, LUFS.
const LOW_LEVEL_LUFS: f64 = -32.0;

/// Inputs of a quality document.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub normalized: &'a Normalized,
    pub signal: &'a MeasuredSignal,
    pub network: &'a Network,
    /// The leg of the network figures, where the platform gives it.
    pub leg: Option<&'a str>,
    /// The call's duration by the platform.
    pub record_duration_ms: Option<u64>,
    /// `None` when no transcript was requested.
    pub transcript: Option<&'a Transcript>,
    /// How the speakers of the transcript's turns were separated.
    pub method: ConversationMethod,
    /// The speech of the recording, and the role on each leg. `None` when speech detection was off.
    pub speech: Option<(&'a Speech, &'a [Role])>,
}

/// The document as JSON. Figures have three places, and figures below 0.1 have three significant digits: no measure here
/// is more exact than that.
#[must_use]
pub fn document(quality: &Quality) -> Value {
    fn round(value: &mut Value) {
        match value {
            Value::Object(members) => members.values_mut().for_each(round),
            Value::Array(items) => items.iter_mut().for_each(round),
            Value::Number(number) if number.is_f64() => {
                *value = number.as_f64().map(rounded).into();
            }
            _ => {}
        }
    }
    let mut document = serde_json::to_value(quality).unwrap_or_default();
    round(&mut document);
    document
}

fn rounded(figure: f64) -> f64 {
    let size = figure.abs();
    if size == 0.0 || !size.is_finite() {
        return figure;
    }
    let places = if size < 0.1 { 2 - size.log10().floor() as i32 } else { 3 };
    let scale = 10_f64.powi(places.min(12));
    (figure * scale).round() / scale
}

/// Assembles the document.
#[must_use]
pub fn assemble(inputs: &Inputs<'_>) -> Quality {
    let normalized = inputs.normalized;
    let duration_ms = normalized.duration_ms;
    let mut reasons = BTreeMap::new();
    let conversation = conversation::measure(inputs.transcript, duration_ms, inputs.method, &mut reasons);
    let mut reason = |member: &str, why: &str| {
        reasons.insert(member.to_owned(), why.to_owned());
    };
    let legs = legs(inputs);
    if let Err(why) = legs {
        reason("legs", why);
    }
    let network = network(inputs);
    if network.is_none() {
        reason("network", "not_given_by_the_platform");
    }
    if inputs.network.platform_response_ms.is_none() {
        reason("platform_response_ms", "not_given_by_the_platform");
    }
    for (member, figure) in [
        ("signal.noise_floor_dbfs", inputs.signal.signal.noise_floor_dbfs.is_none()),
        ("signal.snr_db", inputs.signal.signal.snr_db.is_none()),
        ("signal.bandwidth_hz", inputs.signal.signal.bandwidth_hz.is_none()),
    ] {
        if figure {
            reason(member, "too_little_sound");
        }
    }
    if normalized.loudness.range_lu.is_none() {
        let short = duration_ms < 3_000;
        reason("loudness.range_lu", if short { "shorter_than_3_s" } else { "silence" });
    }
    let legs = legs.ok();
    let mut flags = normalized.flags.clone();
    flags.extend_from_slice(&inputs.signal.flags);
    if normalized.loudness.integrated_lufs.is_some_and(|level| level < LOW_LEVEL_LUFS) {
        flags.push(Flag::LowLevel);
    }
    if inputs.record_duration_ms.is_some_and(|record| differ(record, duration_ms)) {
        flags.push(Flag::DurationMismatch);
    }
    if legs.as_ref().is_some_and(caller_low) {
        flags.push(Flag::CallerLow);
    }
    if inputs.speech.is_some_and(|(speech, _)| one_way(speech)) {
        flags.push(Flag::OneWayAudio);
    }
    // The transcript's reason uses the names of these flags.
    let reason = inputs.transcript.and_then(|transcript| transcript.reason.as_deref());
    flags.extend([Flag::TextMisfit, Flag::TimesMisfit].into_iter().filter(|flag| reason == Some(flag.as_str())));
    flags.sort_unstable();
    flags.dedup();
    Quality {
        schema: QUALITY_SCHEMA.to_owned(),
        duration_ms,
        source: normalized.source.clone(),
        loudness: normalized.loudness.clone(),
        normalization: normalized.normalization.clone(),
        signal: inputs.signal.signal.clone(),
        legs,
        conversation,
        network,
        platform_response_ms: inputs.network.platform_response_ms,
        mos: mos::estimate(inputs.network),
        flags,
        reasons,
    }
}

/// More than 2 s and more than 2 %. Platforms round durations and ring before they record.
fn differ(record_ms: u64, recording_ms: u64) -> bool {
    let difference = record_ms.abs_diff(recording_ms);
    difference > MISMATCH_MS && difference as f64 > MISMATCH_SHARE * record_ms.max(recording_ms) as f64
}

fn network(inputs: &Inputs<'_>) -> Option<NetworkFigures> {
    let given = inputs.network;
    let any = given.latency_ms.or(given.jitter_ms).or(given.packet_loss_raw).or(given.packet_loss_percent);
    if any.is_none() && given.codec.is_none() {
        return None;
    }
    let unit_unknown = given.packet_loss_raw.is_some() && given.packet_loss_percent.is_none();
    Some(NetworkFigures {
        latency_ms: given.latency_ms,
        jitter_ms: given.jitter_ms,
        packet_loss_percent: given.packet_loss_percent,
        packet_loss_raw: given.packet_loss_raw,
        codec: given.codec.clone(),
        leg: inputs.leg.map(str::to_owned),
        source: "provider".to_owned(),
        reason: unit_unknown.then(|| "packet_loss_unit_unknown".to_owned()),
    })
}

/// Loudness by role as recorded: from the role's own leg, or from the mix where turns have times and roles.
fn legs(inputs: &Inputs<'_>) -> Result<Legs, &'static str> {
    if let Some((speech, roles @ [_, _])) = inputs.speech
        && roles.contains(&Role::Agent)
    {
        return Ok(own_legs(speech, roles));
    }
    let transcript = inputs.transcript.ok_or(conversation::NO_TRANSCRIPT)?;
    let of = |role: Role, other: Role| {
        let duration_ms = inputs.normalized.duration_ms;
        let own = conversation::segments(transcript, role, duration_ms);
        // Where both speak, the level belongs to neither.
        let spoken = !own.is_empty();
        let alone = without(own, conversation::segments(transcript, other, duration_ms));
        let integrated_lufs = inputs.normalized.levels.integrated_within(&alone);
        spoken.then_some(Leg { integrated_lufs })
    };
    let legs = Legs { agent: of(Role::Agent, Role::Caller), caller: of(Role::Caller, Role::Agent) };
    if legs.agent.is_none() && legs.caller.is_none() { Err("no_timed_roles") } else { Ok(legs) }
}

fn own_legs(speech: &Speech, roles: &[Role]) -> Legs {
    let of = |role: Role| {
        let leg = roles.iter().position(|on_leg| *on_leg == role).and_then(|at| speech.legs.get(at))?;
        Some(Leg { integrated_lufs: leg.levels.integrated_within(&leg.regions) })
    };
    Legs { agent: of(Role::Agent), caller: of(Role::Caller) }
}

/// One leg speaks and the other never does.
fn one_way(speech: &Speech) -> bool {
    let spoken = |leg: &LegSpeech| total_ms(&leg.regions);
    matches!(speech.legs.as_slice(), [left, right] if spoken(left).min(spoken(right)) == 0
        && spoken(left).max(spoken(right)) >= ONE_WAY_MS)
}

/// Corrects the figures by role after agent and caller were swapped. `transcript` has the right roles.
#[must_use]
pub fn with_roles_swapped(mut quality: Quality, transcript: &Transcript) -> Quality {
    quality.legs = quality.legs.map(|Legs { agent, caller }| Legs { agent: caller, caller: agent });
    quality.flags.retain(|flag| *flag != Flag::CallerLow);
    if quality.legs.as_ref().is_some_and(caller_low) {
        quality.flags.push(Flag::CallerLow);
        quality.flags.sort_unstable();
    }
    with_roles_named(quality, transcript)
}

/// Adds the figures by role after roles were assigned. `transcript` has the new roles.
#[must_use]
pub fn with_roles_named(mut quality: Quality, transcript: &Transcript) -> Quality {
    let by_leg = transcript.speakers.iter().any(|speaker| speaker.channel.is_some());
    let diarized_by = if by_leg { ConversationMethod::Channels } else { ConversationMethod::Voices };
    let method = quality.conversation.as_ref().map_or(diarized_by, |conversation| conversation.method);
    quality.conversation = conversation::measure(Some(transcript), quality.duration_ms, method, &mut quality.reasons);
    quality
}

fn caller_low(legs: &Legs) -> bool {
    let level = |leg: &Option<Leg>| leg.as_ref().and_then(|leg| leg.integrated_lufs);
    matches!((level(&legs.agent), level(&legs.caller)), (Some(agent), Some(caller)) if agent - caller > CALLER_LOW_LU)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_places_and_small_ones_three_digits() {
        for (figure, shown) in [
            (-23.497_939_7, -23.498),
            (0.074_951_67, 0.075),
            (0.000_365_72, 0.000_366),
            (4.0, 4.0),
            (0.0, 0.0),
            (-0.04, -0.04),
        ] {
            assert!((rounded(figure) - shown).abs() < 1e-12, "{figure}");
        }
    }
    use crate::audio::loudness::{Levels, Meter};
    use crate::audio::waveform::Waveform;
    use crate::domain::RecordingState;
    use crate::domain::quality::{Loudness, Normalization, SourceFormat};
    use crate::domain::transcript::{Speaker, TRANSCRIPT_SCHEMA, TextSource, Turn};

    fn normalized(levels: Levels, duration_ms: u64) -> Normalized {
        Normalized {
            duration_ms,
            source: SourceFormat {
                codec: "mp3".into(),
                sample_rate_hz: 48_000,
                channels: 1,
                bit_rate: None,
                expected_ms: duration_ms,
                lost_ms: 0,
                state: RecordingState::Ok,
            },
            loudness: Loudness::default(),
            normalization: Normalization::default(),
            flags: vec![],
            waveform: Waveform::default(),
            levels,
            wav: None,
            flac: None,
            warnings: vec![],
        }
    }

    fn transcript() -> Transcript {
        let speaker = |id, role| Speaker { role, ..Speaker::nameless(id) };
        Transcript {
            schema: TRANSCRIPT_SCHEMA.into(),
            language: None,
            source: TextSource::Provider,
            engine: None,
            speakers: vec![speaker(0, Role::Agent), speaker(1, Role::Caller)],
            turns: vec![
                Turn { speaker: 0, start_ms: 0, end_ms: 5_000 },
                Turn { speaker: 1, start_ms: 5_000, end_ms: 10_000 },
            ],
            utterances: vec![],
            redacted: false,
            reason: None,
        }
    }

    fn loud_then_quiet() -> Levels {
        let wave: Vec<f32> =
            (0..480_000).map(|n| if n < 240_000 { 0.3 } else { 0.05 } * (n as f32 * 0.13).sin()).collect();
        let mut meter = Meter::new(48_000, 1);
        meter.push(&[wave]);
        meter.finish()
    }

    fn assembled(record_duration_ms: Option<u64>, transcript: Option<&Transcript>, network: &Network) -> Quality {
        assemble(&Inputs {
            normalized: &normalized(loud_then_quiet(), 10_000),
            signal: &MeasuredSignal::default(),
            network,
            leg: None,
            record_duration_ms,
            transcript,
            method: ConversationMethod::ProviderTurns,
            speech: None,
        })
    }

    #[test]
    fn a_quiet_caller_is_seen_through_the_turns() {
        let transcript = transcript();
        let quality = assembled(Some(10_000), Some(&transcript), &Network::default());
        let legs = quality.legs.unwrap();
        let level = |leg: Option<Leg>| leg.unwrap().integrated_lufs.unwrap();
        assert!((level(legs.agent) - level(legs.caller) - 15.56).abs() < 0.2);
        assert_eq!(quality.flags, [Flag::CallerLow]);
        assert_eq!(quality.conversation.unwrap().caller_talk_ms, Some(5_000));
    }

    #[test]
    fn figures_by_role_follow_a_correction() {
        let transcript = transcript();
        let quality = assembled(Some(10_000), Some(&transcript), &Network::default());
        let mut right = transcript.clone();
        right.speakers[0].role = Role::Caller;
        right.speakers[1].role = Role::Agent;
        let swapped = with_roles_swapped(quality.clone(), &right);
        assert_eq!(swapped.legs, quality.legs.clone().map(|legs| Legs { agent: legs.caller, caller: legs.agent }));
        assert_eq!((quality.flags.as_slice(), swapped.flags.as_slice()), (&[Flag::CallerLow][..], &[][..]));
        let response = |quality: &Quality| quality.conversation.as_ref().unwrap().response_ms.is_some();
        assert_eq!((response(&quality), response(&swapped)), (false, true), "the caller was first all along");
        assert_eq!(with_roles_swapped(swapped, &transcript), quality);
    }

    #[test]
    fn durations_that_differ_are_flagged_and_change_nothing_else() {
        for (record, flagged) in [(10_000, false), (11_900, false), (12_100, true), (7_000, true)] {
            let quality = assembled(Some(record), None, &Network::default());
            assert_eq!(quality.flags.contains(&Flag::DurationMismatch), flagged, "{record}");
            assert_eq!(quality.duration_ms, 10_000);
        }
        // Less than two per cent of two hours.
        assert!(!differ(7_200_000, 7_100_000));
    }

    #[test]
    fn every_null_has_a_reason() {
        let quality = assembled(None, None, &Network::default());
        for member in ["conversation", "legs", "network", "platform_response_ms", "loudness.range_lu", "signal.snr_db"]
        {
            assert!(quality.reasons.contains_key(member), "{member}: {:?}", quality.reasons);
        }
        assert_eq!(quality.reasons["conversation"], "no_transcript_requested");
        assert!(quality.mos.reason.is_some());
    }

    #[test]
    fn network_figures_pass_through_with_their_source() {
        let network = Network { jitter_ms: Some(4.0), packet_loss_raw: Some(0.01), ..Network::default() };
        let figures = assembled(None, None, &network).network.unwrap();
        assert_eq!(
            (figures.jitter_ms, figures.packet_loss_percent, figures.packet_loss_raw),
            (Some(4.0), None, Some(0.01))
        );
        assert_eq!(figures.reason.as_deref(), Some("packet_loss_unit_unknown"));
    }
}
