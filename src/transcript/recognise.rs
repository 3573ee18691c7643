//! Words for a call without text: the recording's speech, leg by leg, through the engine that may hear it.

use std::ops::Range;

use super::engine::EngineError;
use super::engine::Recogniser;
use super::engine::Samples;
use super::engines::Engines;
use super::fit::fit;
use super::heard::HeardLeg;
use super::heard::from_engine;
use super::provider::NO_SPEECH;
use super::provider::TIMES_MISFIT;
use super::provider::without_text;
use crate::audio::speech::LegSpeech;
use crate::audio::speech::Pcm16k;
use crate::audio::speech::Speech;
use crate::domain::Transcript;
use crate::domain::transcript::Speaker;
use crate::domain::transcript::Turn;

impl Samples for &Pcm16k {
    fn read(&mut self, start_ms: u64, end_ms: u64) -> std::io::Result<Vec<f32>> {
        Pcm16k::read(self, start_ms, end_ms).map_err(std::io::Error::other)
    }
}

/// Whether an engine has something to do for these words of a platform: none are there, none has its place, or some had one
/// outside of the recording.
#[must_use]
pub fn wants_engine(words: &Transcript) -> bool {
    let misfit = words.reason.as_deref() == Some(TIMES_MISFIT);
    misfit || words.utterances.iter().all(|utterance| utterance.start_ms.is_none())
}

/// The platform's words with their places in the recording, where it gave none of those and the engine knows the
/// language; where it gave no words, those that the engine hears.
///
/// # Errors
/// As [`recognise`].
pub fn from_audio(
    engines: &Engines,
    words: &Transcript,
    speech: &Speech,
    language: Option<&str>,
) -> Result<Transcript, EngineError> {
    if words.utterances.is_empty() {
        return recognise(engines, speech, language);
    }
    if !wants_engine(words) {
        return Ok(words.clone());
    }
    match engines.choose(language)? {
        Ok(engine) => fit(&engine, words, speech),
        Err(_) => Ok(words.clone()),
    }
}

/// What the engine for this language hears; a transcript without words and with the reason where there is no such
/// engine, or nobody speaks.
///
/// # Errors
/// A model that is named but cannot be used; else as [`recognise_with`].
pub fn recognise(engines: &Engines, speech: &Speech, language: Option<&str>) -> Result<Transcript, EngineError> {
    let without = |reason: &str| Transcript { reason: Some(reason.to_owned()), ..without_text(language) };
    if speech.legs.iter().all(|leg| leg.regions.is_empty()) {
        return Ok(without(NO_SPEECH));
    }
    match engines.choose(language)? {
        Ok(engine) => recognise_with(&engine, speech, language),
        Err(reason) => Ok(without(reason)),
    }
}

/// What this engine hears. Each of two legs is one speaker; on one leg nobody is told apart until voices are.
///
/// # Errors
/// A network that fails, or samples that cannot be read back.
pub fn recognise_with(engine: &Recogniser, speech: &Speech, language: Option<&str>) -> Result<Transcript, EngineError> {
    let mut legs = Vec::new();
    for (leg, id) in speech.legs.iter().zip(0..) {
        let regions: Vec<Range<u64>> = leg.regions.iter().map(|region| region.start_ms..region.end_ms).collect();
        let words = engine.recognise(&mut &leg.samples, &regions, leg.samples.duration_ms())?;
        legs.push(HeardLeg { speaker: Some(id), words });
    }
    let two = speech.legs.len() == 2;
    let speaker = |id: u8| Speaker { channel: two.then_some(id), ..Speaker::nameless(id.into()) };
    let speakers = (0..speech.legs.len() as u8).map(speaker).collect();
    let mut turns: Vec<Turn> = speech.legs.iter().zip(0..).flat_map(|(leg, id)| turns(leg, id)).collect();
    turns.sort_by_key(|turn| (turn.start_ms, turn.speaker));
    Ok(from_engine(legs, speakers, turns, language, engine.provenance()))
}

pub(super) fn turns(leg: &LegSpeech, speaker: u32) -> impl Iterator<Item = Turn> + '_ {
    leg.regions.iter().map(move |region| Turn { speaker, start_ms: region.start_ms, end_ms: region.end_ms })
}
