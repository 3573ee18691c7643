//! A platform's text without times, laid onto the recording: every word gets its place, the text stays as it came. A text
//! that does not fit its recording is left alone and says so.

use std::collections::BTreeMap;

use rten_tensor::NdTensor;

use super::engine::EngineError;
use super::engine::Posteriors;
use super::engine::Recogniser;
use super::engine::align;
use super::engine::align::Fate;
use super::provider::INCOMPLETE_TIMES;
use super::provider::TEXT_MISFIT;
use crate::audio::speech::LegSpeech;
use crate::audio::speech::Speech;
use crate::domain::Transcript;
use crate::domain::transcript::TextSource;
use crate::domain::transcript::Turn;
use crate::domain::transcript::Utterance;
use crate::domain::transcript::Word;

/// A word less likely than this where the text wants it is not taken for heard.
const HEARD: f64 = 0.05;
/// Less of the text than this heard: it belongs to another call.
const LEAST_FIT: f64 = 0.5;
/// A pause of this length ends a speech stretch.
const PAUSE_MS: u64 = 200;

/// One leg's speech as the network hears it, stretch after stretch without the silence between.
struct Track {
    posteriors: Posteriors,
    /// First step and start in the recording of every stretch.
    places: Vec<(usize, u64)>,
}

/// Lays the transcript's words onto the recording.
///
/// # Errors
/// A network that fails, or samples that cannot be read back.
pub fn fit(engine: &Recogniser, words: &Transcript, speech: &Speech) -> Result<Transcript, EngineError> {
    let tracks = speech.legs.iter().map(|leg| Track::of(engine, leg)).collect::<Result<Vec<_>, _>>()?;
    let mut by_speaker: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, utterance) in words.utterances.iter().enumerate() {
        by_speaker.entry(utterance.speaker).or_default().push(index);
    }
    let everybody: Vec<usize> = (0..words.utterances.len()).collect();
    // On one leg everybody speaks in turn; on two, each speaker is on the leg that fits better.
    let groups: Vec<Vec<usize>> = if tracks.len() == 1 { vec![everybody] } else { by_speaker.into_values().collect() };
    let mut fitted = words.clone();
    let (mut heard, mut all) = (0, 0);
    for group in groups {
        let said: Vec<&Utterance> = group.iter().map(|index| &words.utterances[*index]).collect();
        let tried = tracks.iter().filter_map(|track| track.lay(engine, &said));
        let Some(best) = tried.max_by_key(|laid| laid.heard) else { continue };
        heard += best.heard;
        all += best.all;
        for (index, words) in group.into_iter().zip(best.words) {
            place(&mut fitted.utterances[index], words);
        }
    }
    let fits = f64::from(heard) / f64::from(all.max(1));
    if fits < LEAST_FIT {
        return Ok(Transcript { reason: Some(TEXT_MISFIT.to_owned()), ..words.clone() });
    }
    let mut provenance = engine.provenance();
    provenance.parameters["fit"] = serde_json::json!((fits * 1000.0).round() / 1000.0);
    fitted.engine = Some(provenance);
    fitted.source = TextSource::ProviderAligned;
    fitted.turns = turns(&fitted.utterances);
    let timed = |utterance: &Utterance| utterance.start_ms.is_some() && utterance.end_ms.is_some();
    fitted.reason = (!fitted.utterances.iter().all(timed)).then(|| INCOMPLETE_TIMES.to_owned());
    Ok(fitted)
}

/// A group of utterances on one track.
struct Laid {
    words: Vec<Vec<Word>>,
    heard: u32,
    all: u32,
}

impl Track {
    fn of(engine: &Recogniser, leg: &LegSpeech) -> Result<Self, EngineError> {
        let regions: Vec<_> = leg.regions.iter().map(|region| region.start_ms..region.end_ms).collect();
        let samples = &mut &leg.samples;
        let (mut data, mut places, mut steps, mut step_ms) = (Vec::new(), Vec::new(), 0, 1.0);
        for stretch in engine.stretches(samples, &regions, leg.samples.duration_ms())? {
            let heard = engine.posteriors(&super::engine::read(samples, &stretch)?)?;
            places.push((steps, stretch.start));
            steps += heard.steps();
            step_ms = heard.step_ms;
            data.extend(heard.log_probs.into_data());
        }
        let tokens = engine.alphabet().tokens().len();
        Ok(Self { posteriors: Posteriors { log_probs: NdTensor::from_data([steps, tokens], data), step_ms }, places })
    }

    /// Where a step is in the recording, milliseconds.
    fn at_ms(&self, step: usize) -> f64 {
        let after = self.places.partition_point(|(first, _)| *first <= step);
        let (first, start_ms) = self.places.get(after.saturating_sub(1)).copied().unwrap_or_default();
        start_ms as f64 + (step - first) as f64 * self.posteriors.step_ms
    }

    fn lay(&self, engine: &Recogniser, utterances: &[&Utterance]) -> Option<Laid> {
        let alphabet = engine.alphabet();
        let spelt: Vec<Vec<Vec<usize>>> = utterances
            .iter()
            .map(|utterance| utterance.text.split_whitespace().map(|word| align::spell(alphabet, word)).collect())
            .collect();
        let fates = align::align(&self.posteriors, alphabet, &spelt)?;
        let offset_ms = engine.manifest().time_offset_ms as f64;
        let (mut heard, mut all) = (0, 0);
        let mut words: Vec<Vec<Word>> = Vec::with_capacity(fates.len());
        for (utterance, fates) in utterances.iter().zip(fates) {
            let mut laid: Vec<Word> = Vec::with_capacity(fates.len());
            for (text, fate) in utterance.text.split_whitespace().zip(fates) {
                let mut word =
                    Word { text: text.to_owned(), start_ms: None, end_ms: None, confidence: None, heard: None };
                all += u32::from(fate != Fate::Unspellable);
                match fate {
                    Fate::Placed(placed) if placed.confidence >= HEARD => {
                        heard += 1;
                        let start_ms = (self.at_ms(placed.first) - offset_ms).max(0.0).round() as u64;
                        let end_ms = (self.at_ms(placed.last) + self.posteriors.step_ms).round() as u64;
                        if let Some(before) = laid.last_mut() {
                            before.end_ms = before.end_ms.map(|end| end.min(start_ms)).max(before.start_ms);
                        }
                        (word.start_ms, word.end_ms) = (Some(start_ms), Some(end_ms.max(start_ms + 1)));
                        word.confidence = Some((placed.confidence * 1000.0).round() / 1000.0);
                        word.heard = Some(true);
                    }
                    Fate::Unspellable => {}
                    _ => word.heard = Some(false),
                }
                laid.push(word);
            }
            words.push(laid);
        }
        Some(Laid { words, heard, all })
    }
}

fn place(utterance: &mut Utterance, words: Vec<Word>) {
    utterance.start_ms = words.iter().find_map(|word| word.start_ms);
    utterance.end_ms = words.iter().rev().find_map(|word| word.end_ms);
    utterance.heard = Some(!words.iter().any(|word| word.heard == Some(false)));
    let confidences: Vec<f64> = words.iter().filter_map(|word| word.confidence).collect();
    let mean = confidences.iter().sum::<f64>() / confidences.len().max(1) as f64;
    utterance.confidence = (!confidences.is_empty()).then(|| (mean * 1000.0).round() / 1000.0);
    utterance.words = words;
}

/// When each speaker speaks, by the words' places.
fn turns(utterances: &[Utterance]) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::new();
    for utterance in utterances {
        for (start_ms, end_ms) in utterance.words.iter().filter_map(|word| word.start_ms.zip(word.end_ms)) {
            let speaker = utterance.speaker;
            match turns.last_mut().filter(|open| open.speaker == speaker) {
                Some(open) if start_ms >= open.start_ms && start_ms < open.end_ms + PAUSE_MS => {
                    open.end_ms = open.end_ms.max(end_ms);
                }
                _ => turns.push(Turn { speaker, start_ms, end_ms }),
            }
        }
    }
    turns.sort_by_key(|turn| (turn.start_ms, turn.speaker));
    turns
}
