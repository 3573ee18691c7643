//! Aligns a platform's text without times with the recording. Every word gets its times, and the text stays unchanged.
//! A text that does not match the recording gets no times and the reason `text_misfit`.

use std::collections::BTreeMap;

use rten_tensor::NdTensor;

use super::confidence;
use super::engine::EngineError;
use super::engine::Posteriors;
use super::engine::Recogniser;
use super::engine::align;
use super::engine::align::Fate;
use super::provider::INCOMPLETE_TIMES;
use super::provider::TEXT_MISFIT;
use super::speakers::assignment::cut;
use super::turns;
use crate::audio::speech::LegSpeech;
use crate::audio::speech::Speech;
use crate::domain::Segment;
use crate::domain::Transcript;
use crate::domain::transcript::Speaker;
use crate::domain::transcript::TextSource;
use crate::domain::transcript::Turn;
use crate::domain::transcript::Utterance;
use crate::domain::transcript::Word;

/// Least confidence of an aligned word to count as heard.
const HEARD: f64 = 0.05;
/// Least share of heard words. A text below it belongs to another call.
const LEAST_FIT: f64 = 0.5;
/// A speaker is assigned to a leg if that leg has at least this many times the heard words of the other.
const CLEARLY: u32 = 2;

/// Token probabilities of consecutive segments, without the silence between them.
struct HeardTrack {
    posteriors: Posteriors,
    places: Vec<SegmentPlace>,
}

/// A segment's first step, its start in the recording, and its leg.
#[derive(Debug, Clone, Copy, Default)]
struct SegmentPlace {
    first: usize,
    start_ms: u64,
    leg: u8,
}

/// Aligns the transcript's words with the recording.
///
/// # Errors
/// [`EngineError`] if the network fails or the samples cannot be read.
pub fn fit(engine: &Recogniser, words: &Transcript, speech: &Speech) -> Result<Transcript, EngineError> {
    let diarized = words.speakers.len() > 1 || words.speakers.iter().any(|speaker| speaker.evidence.is_some());
    let mut fitted = words.clone();
    // With one leg, or a text without speakers, all utterances are aligned in their order. Otherwise each speaker is
    // aligned with the better leg.
    let (heard, all) = if speech.legs.len() == 2 && diarized {
        leg_by_leg(engine, &mut fitted, speech)?
    } else {
        in_turn(engine, &mut fitted, speech)?
    };
    let fits = f64::from(heard) / f64::from(all.max(1));
    if fits < LEAST_FIT {
        return Ok(Transcript { reason: Some(TEXT_MISFIT.to_owned()), ..words.clone() });
    }
    let mut provenance = engine.provenance();
    provenance.parameters["fit"] = serde_json::json!(confidence::thousandths(fits));
    fitted.engine = Some(provenance);
    fitted.source = TextSource::ProviderAligned;
    fitted.turns = turns(&fitted.utterances);
    let timed = |utterance: &Utterance| utterance.start_ms.is_some() && utterance.end_ms.is_some();
    fitted.reason = (!fitted.utterances.iter().all(timed)).then(|| INCOMPLETE_TIMES.to_owned());
    Ok(fitted)
}

/// Aligns all utterances with all legs, in the order of the speech. Returns heard words and all words. With two legs,
/// each leg is a speaker, and the text is cut at changes of the leg.
fn in_turn(engine: &Recogniser, fitted: &mut Transcript, speech: &Speech) -> Result<(u32, u32), EngineError> {
    let legs: Vec<(u8, &LegSpeech)> = (0..).zip(&speech.legs).collect();
    let said: Vec<&Utterance> = fitted.utterances.iter().collect();
    let Some(laid) = HeardTrack::of(engine, &legs)?.lay(engine, &said) else { return Ok((0, 0)) };
    let mut utterances = Vec::new();
    for ((mut utterance, words), on) in fitted.utterances.drain(..).zip(laid.words).zip(laid.legs) {
        place(&mut utterance, words);
        if legs.len() == 2 {
            utterances.extend(cut(utterance, &on));
        } else {
            utterances.push(utterance);
        }
    }
    fitted.utterances = utterances;
    if legs.len() == 2 {
        let on_leg = |leg: u8| Speaker { channel: Some(leg), ..Speaker::nameless(leg.into()) };
        fitted.speakers = vec![on_leg(0), on_leg(1)];
    }
    Ok((laid.heard, laid.all))
}

/// Aligns each speaker's utterances with the better leg. Returns heard words and all words.
fn leg_by_leg(engine: &Recogniser, fitted: &mut Transcript, speech: &Speech) -> Result<(u32, u32), EngineError> {
    let tracks = (0..).zip(&speech.legs).map(|leg| HeardTrack::of(engine, &[leg])).collect::<Result<Vec<_>, _>>()?;
    let mut by_speaker: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, utterance) in fitted.utterances.iter().enumerate() {
        by_speaker.entry(utterance.speaker).or_default().push(index);
    }
    let (mut heard, mut all) = (0, 0);
    for (id, group) in by_speaker {
        let said: Vec<&Utterance> = group.iter().map(|index| &fitted.utterances[*index]).collect();
        let mut tried: Vec<(u8, Laid)> =
            (0..).zip(&tracks).filter_map(|(leg, track)| Some((leg, track.lay(engine, &said)?))).collect();
        tried.sort_by_key(|(_, laid)| std::cmp::Reverse(laid.heard));
        let mut tried = tried.into_iter();
        let Some((leg, best)) = tried.next() else { continue };
        let clear = tried.next().is_none_or(|(_, other)| best.heard >= CLEARLY * other.heard.max(1));
        if let Some(speaker) = fitted.speakers.iter_mut().find(|speaker| speaker.id == id && clear) {
            speaker.channel = Some(leg);
        }
        heard += best.heard;
        all += best.all;
        for (index, words) in group.into_iter().zip(best.words) {
            place(&mut fitted.utterances[index], words);
        }
    }
    Ok((heard, all))
}

/// Aligned utterances.
struct Laid {
    words: Vec<Vec<Word>>,
    /// The leg of each word.
    legs: Vec<Vec<u32>>,
    heard: u32,
    all: u32,
}

impl HeardTrack {
    fn of(engine: &Recogniser, legs: &[(u8, &LegSpeech)]) -> Result<Self, EngineError> {
        let mut segments = Vec::new();
        for (leg, speech) in legs {
            let planned = engine.segments(&mut &speech.samples, &speech.regions, speech.samples.duration_ms())?;
            segments.extend(planned.into_iter().map(|segment| (segment, *leg, &speech.samples)));
        }
        segments.sort_by_key(|(segment, leg, _)| (segment.start_ms, *leg));
        let (mut data, mut places, mut steps, mut step_ms) = (Vec::new(), Vec::new(), 0, 1.0);
        for (segment, leg, mut samples) in segments {
            let heard = engine.posteriors(&super::engine::read(&mut samples, &segment)?)?;
            places.push(SegmentPlace { first: steps, start_ms: segment.start_ms, leg });
            steps += heard.steps();
            step_ms = heard.step_ms;
            data.extend(heard.log_probs.into_data());
        }
        let tokens = engine.alphabet().tokens().len();
        Ok(Self { posteriors: Posteriors { log_probs: NdTensor::from_data([steps, tokens], data), step_ms }, places })
    }

    fn place(&self, step: usize) -> SegmentPlace {
        let after = self.places.partition_point(|place| place.first <= step);
        self.places.get(after.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// Time of a step in the recording, in milliseconds.
    fn at_ms(&self, step: usize) -> f64 {
        let SegmentPlace { first, start_ms, .. } = self.place(step);
        start_ms as f64 + (step - first) as f64 * self.posteriors.step_ms
    }

    fn lay(&self, engine: &Recogniser, utterances: &[&Utterance]) -> Option<Laid> {
        let alphabet = engine.alphabet();
        let spelt: Vec<Vec<Vec<usize>>> = utterances
            .iter()
            .map(|utterance| utterance.text.split_whitespace().map(|word| alphabet.spell(word)).collect())
            .collect();
        let fates = align::align(&self.posteriors, alphabet, &spelt)?;
        let offset_ms = engine.manifest().time_offset_ms as f64;
        let (mut heard, mut all) = (0, 0);
        let mut words: Vec<Vec<Word>> = Vec::with_capacity(fates.len());
        let mut legs: Vec<Vec<u32>> = Vec::with_capacity(fates.len());
        // A word without a position gets the leg of the previous word, or of the first word with a position.
        let first = fates.iter().flatten().find_map(|fate| match fate {
            Fate::Placed(placed) => Some(placed.first),
            _ => None,
        });
        let mut leg = u32::from(self.place(first.unwrap_or(0)).leg);
        for (utterance, fates) in utterances.iter().zip(fates) {
            let mut laid: Vec<Word> = Vec::with_capacity(fates.len());
            let mut on: Vec<u32> = Vec::with_capacity(fates.len());
            for (text, fate) in utterance.text.split_whitespace().zip(fates) {
                let mut word =
                    Word { text: text.to_owned(), start_ms: None, end_ms: None, confidence: None, heard: None };
                all += u32::from(fate != Fate::Unspellable);
                match fate {
                    Fate::Placed(placed) if placed.confidence >= HEARD => {
                        heard += 1;
                        leg = self.place(placed.first).leg.into();
                        let start_ms = (self.at_ms(placed.first) - offset_ms).max(0.0).round() as u64;
                        let end_ms = (self.at_ms(placed.last) + self.posteriors.step_ms).round() as u64;
                        if let Some(before) = laid.last_mut() {
                            before.end_ms = before.end_ms.map(|end| end.min(start_ms)).max(before.start_ms);
                        }
                        (word.start_ms, word.end_ms) = (Some(start_ms), Some(end_ms.max(start_ms + 1)));
                        word.confidence = Some(confidence::thousandths(placed.confidence));
                        word.heard = Some(true);
                    }
                    Fate::Unspellable => {}
                    _ => word.heard = Some(false),
                }
                laid.push(word);
                on.push(leg);
            }
            words.push(laid);
            legs.push(on);
        }
        Some(Laid { words, legs, heard, all })
    }
}

fn place(utterance: &mut Utterance, words: Vec<Word>) {
    utterance.start_ms = words.iter().find_map(|word| word.start_ms);
    utterance.end_ms = words.iter().rev().find_map(|word| word.end_ms);
    utterance.heard = Some(!words.iter().any(|word| word.heard == Some(false)));
    utterance.confidence = confidence::mean(&words);
    utterance.words = words;
}

/// Turns of the speakers, from the times of the words. A turn also ends where another speaker's utterance begins.
fn turns(utterances: &[Utterance]) -> Vec<Turn> {
    let words = |utterance: &Utterance| {
        let timed = utterance.words.iter().filter_map(|word| word.start_ms.zip(word.end_ms));
        timed.map(|(start_ms, end_ms)| (utterance.speaker, Segment { start_ms, end_ms })).collect::<Vec<_>>()
    };
    let timed: Vec<(u32, Segment)> = utterances.iter().flat_map(words).collect();
    let runs = timed.chunk_by(|a, b| a.0 == b.0);
    let mut turns: Vec<Turn> = runs.flat_map(|run| turns::of_words(run.iter().copied())).collect();
    turns::in_time(&mut turns);
    turns
}
