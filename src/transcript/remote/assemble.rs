//! Builds a call's transcript from the answers for its parts.

use super::Answer;
use super::AnsweredWord;
use super::Part;
use super::guard;
use super::timing::letters;
use crate::audio::speech::LegSpeech;
use crate::audio::speech::Speech;
use crate::config::RemoteEngine;
use crate::domain::Segment;
use crate::domain::Transcript;
use crate::domain::transcript::EngineInfo;
use crate::domain::transcript::Evidence;
use crate::domain::transcript::Speaker;
use crate::domain::transcript::Turn;
use crate::transcript::engine::HeardWord;
use crate::transcript::heard::HeardLeg;
use crate::transcript::heard::from_engine;
use crate::transcript::numbering::number;
use crate::transcript::provider::APPROXIMATE_TIMES;
use crate::transcript::turns;

/// A word with the service's speaker number.
type Numbered = (HeardWord, Option<u32>);

/// The transcript of all answers. Each of two legs is one speaker. On one leg the service's speakers are used only if
/// it received the whole leg in one part, because its numbers are valid only within one answer.
#[must_use]
pub fn assemble(engine: &RemoteEngine, speech: &Speech, answers: &[(Part, Answer)], language: &str) -> Transcript {
    let (mut legs, mut taken_out) = (vec![Vec::<Numbered>::new(); speech.legs.len()], 0);
    let mut approximate = false;
    for (part, answer) in answers {
        for (channel, leg) in (0..).zip(&part.legs) {
            let (Some(heard), Some(on)) = (legs.get_mut(*leg), speech.legs.get(*leg)) else { continue };
            let words: Vec<&AnsweredWord> = answer.words.iter().filter(|word| word.channel == channel).collect();
            let times = placed(part, &words).unwrap_or_else(|| {
                approximate = true;
                over_speech(part, &words, on)
            });
            let word = |(word, (start_ms, end_ms)): (&AnsweredWord, (f64, f64))| {
                let confidence = word.confidence.unwrap_or(1.0);
                (HeardWord { text: word.text.clone(), start_ms, end_ms, confidence }, word.speaker)
            };
            heard.extend(words.into_iter().zip(times).map(word));
        }
    }
    for (leg, heard) in speech.legs.iter().zip(&mut legs) {
        let words: Vec<HeardWord> = heard.iter().map(|(word, _)| word.clone()).collect();
        let mut believed = guard::believed(&words, &leg.regions).into_iter();
        let before = heard.len();
        heard.retain(|_| believed.next().unwrap_or(false));
        taken_out += before - heard.len();
    }
    let provenance = EngineInfo {
        name: engine.name.clone(),
        model: Some(engine.model.clone()),
        model_sha256: None,
        parameters: serde_json::json!({
            "parts": answers.len(),
            "billed_ms": answers.iter().map(|(_, answer)| answer.billed_ms).sum::<u64>(),
            "words_taken_out": taken_out,
        }),
    };
    let numbered = answers.len() == 1 && legs.len() == 1 && legs[0].iter().any(|(_, speaker)| speaker.is_some());
    let (legs, speakers, turns) = match legs.pop() {
        Some(only) if numbered => by_number(only),
        last => by_leg(speech, legs.into_iter().chain(last).collect()),
    };
    let mut made = from_engine(legs, speakers, turns, Some(language), provenance);
    if approximate && made.reason.is_none() {
        made.reason = Some(APPROXIMATE_TIMES.to_owned());
    }
    if answers.iter().flat_map(|(_, answer)| &answer.words).all(|word| word.confidence.is_none()) {
        // The service returned no confidences.
        for utterance in &mut made.utterances {
            utterance.confidence = None;
            utterance.words.iter_mut().for_each(|word| word.confidence = None);
        }
    }
    made
}

/// The times of the words of one channel, in milliseconds from the start of the recording. `None` if a word has no
/// time; the answer then has no times at all.
fn placed(part: &Part, words: &[&AnsweredWord]) -> Option<Vec<(f64, f64)>> {
    let at = |ms: u64| part.span.start_ms.saturating_add(ms) as f64;
    words.iter().map(|word| Some((at(word.start_ms?), at(word.end_ms?)))).collect()
}

/// Distributes words without times over the speech of a part's leg, by their length.
fn over_speech(part: &Part, words: &[&AnsweredWord], leg: &LegSpeech) -> Vec<(f64, f64)> {
    let spoken: Vec<Segment> = leg.regions.iter().filter_map(|region| region.overlap(&part.span)).collect();
    let whole: f64 = spoken.iter().map(|region| region.duration_ms() as f64).sum();
    let all: f64 = words.iter().map(|word| letters(&word.text)).sum();
    // The time at which this share of the speech is complete, in milliseconds.
    let at = |share: f64| {
        let mut left = share * whole;
        for region in &spoken {
            let length = region.duration_ms() as f64;
            if left <= length {
                return region.start_ms as f64 + left;
            }
            left -= length;
        }
        spoken.last().map_or(part.span.start_ms, |last| last.end_ms) as f64
    };
    let mut said = 0.0;
    let time = |word: &&AnsweredWord| {
        let from = said / all;
        said += letters(&word.text);
        (at(from), at(said / all))
    };
    words.iter().map(time).collect()
}

type Parts = (Vec<HeardLeg>, Vec<Speaker>, Vec<Turn>);

fn by_leg(speech: &Speech, legs: Vec<Vec<Numbered>>) -> Parts {
    let leg = |(id, words): (u32, Vec<Numbered>)| HeardLeg {
        speaker: Some(id),
        words: words.into_iter().map(|(word, _)| word).collect(),
    };
    let (speakers, turns) = turns::by_leg(speech);
    ((0..).zip(legs).map(leg).collect(), speakers, turns)
}

/// One speaker per number, in the order of appearance. A word without a number joins the previous word.
fn by_number(words: Vec<Numbered>) -> Parts {
    let mut numbers: Vec<u32> = Vec::new();
    let mut legs: Vec<HeardLeg> = Vec::new();
    let mut timed: Vec<(u32, Segment)> = Vec::new();
    let mut last = words.iter().find_map(|(_, speaker)| *speaker).unwrap_or(0);
    for (word, speaker) in words {
        last = speaker.unwrap_or(last);
        let index = number(&mut numbers, last);
        if index == legs.len() {
            legs.push(HeardLeg { speaker: Some(index as u32), words: Vec::new() });
        }
        timed.push((index as u32, Segment::new(word.start_ms as u64, word.end_ms as u64)));
        legs[index].words.push(word);
    }
    let speaker = |id| Speaker { evidence: Some(Evidence::Voice), ..Speaker::nameless(id) };
    (legs, (0..numbers.len() as u32).map(speaker).collect(), turns::of_words(timed))
}
