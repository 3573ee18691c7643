//! Speech recognition for a call without text, leg by leg, with a local engine.

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
use super::turns;
use crate::audio::speech::Pcm16k;
use crate::audio::speech::Speech;
use crate::domain::Transcript;

impl Samples for &Pcm16k {
    fn read(&mut self, start_ms: u64, end_ms: u64) -> std::io::Result<Vec<f32>> {
        Pcm16k::read(self, start_ms, end_ms).map_err(std::io::Error::other)
    }
}

/// Whether a local engine has work for these words of a platform: there are none, none has a start, or some times do
/// not match the recording.
#[must_use]
pub fn wants_engine(words: &Transcript) -> bool {
    let misfit = words.reason.as_deref() == Some(TIMES_MISFIT);
    misfit || words.utterances.iter().all(|utterance| utterance.start_ms.is_none())
}

/// The platform's words, aligned if they need it and the engine supports the language. Without platform words, the
/// words that the engine recognises.
///
/// # Errors
/// The errors of [`recognise`].
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

/// The words of the engine for this language. Without such an engine or without speech, a transcript with the reason.
///
/// # Errors
/// [`EngineError`] if a named model cannot be used; also the errors of [`recognise_with`].
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

/// The words that this engine recognises. Each of two legs is one speaker. A single leg is one speaker until it is
/// diarized.
///
/// # Errors
/// [`EngineError`] if the network fails or the samples cannot be read.
pub fn recognise_with(engine: &Recogniser, speech: &Speech, language: Option<&str>) -> Result<Transcript, EngineError> {
    let mut legs = Vec::new();
    for (leg, id) in speech.legs.iter().zip(0..) {
        let words = engine.recognise(&mut &leg.samples, &leg.regions, leg.samples.duration_ms())?;
        legs.push(HeardLeg { speaker: Some(id), words });
    }
    let (speakers, turns) = turns::by_leg(speech);
    Ok(from_engine(legs, speakers, turns, language, engine.provenance()))
}
