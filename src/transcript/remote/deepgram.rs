//! Deepgram's `POST /v1/listen`.

use serde::Deserialize;

use super::Answer;
use super::AnsweredWord;
use crate::config::RemoteEngine;

/// The request's parameters. Speakers are asked for on one channel only: on two, each channel is somebody.
pub fn parameters<'a>(engine: &'a RemoteEngine, language: &'a str, channels: usize) -> Vec<(&'static str, &'a str)> {
    let primary = language.split('-').next().unwrap_or(language);
    let told_apart = if channels > 1 { ("multichannel", "true") } else { ("diarize", "true") };
    vec![
        ("model", engine.model.as_str()),
        ("language", primary),
        told_apart,
        ("utterances", "true"),
        ("punctuate", "true"),
    ]
}

#[derive(Debug, Deserialize)]
struct Listened {
    metadata: Metadata,
    results: Results,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    duration: Option<f64>,
    channels: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Results {
    channels: Vec<Channel>,
    #[serde(default)]
    utterances: Vec<Utterance>,
}

#[derive(Debug, Deserialize)]
struct Channel {
    alternatives: Vec<Alternative>,
}

/// The first is the best.
#[derive(Debug, Deserialize)]
struct Alternative {
    #[serde(default)]
    words: Vec<Word>,
}

#[derive(Debug, Deserialize)]
struct Utterance {
    #[serde(default)]
    channel: u32,
    speaker: Option<u32>,
    #[serde(default)]
    words: Vec<Word>,
}

#[derive(Debug, Deserialize)]
struct Word {
    word: String,
    punctuated_word: Option<String>,
    start: f64,
    end: f64,
    confidence: Option<f64>,
    speaker: Option<u32>,
}

impl Word {
    fn answered(&self, channel: u32, speaker: Option<u32>) -> AnsweredWord {
        let text = self.punctuated_word.as_deref().unwrap_or(&self.word);
        let word = AnsweredWord::new(text, (self.start, self.end), self.confidence, self.speaker.or(speaker));
        AnsweredWord { channel, ..word }
    }
}

/// Reads an answer: its utterances, where it has them, as they say whose words they are; else its channels.
pub fn read(body: &[u8], sent_ms: u64) -> Result<Answer, serde_json::Error> {
    let Listened { metadata, results } = serde_json::from_slice(body)?;
    let words = if results.utterances.is_empty() {
        let numbered = (0..).zip(&results.channels);
        let best = numbered.filter_map(|(n, channel)| Some((n, channel.alternatives.first()?)));
        best.flat_map(|(n, best)| best.words.iter().map(move |word| word.answered(n, None))).collect()
    } else {
        let of = |utterance: &Utterance| -> Vec<AnsweredWord> {
            utterance.words.iter().map(|word| word.answered(utterance.channel, utterance.speaker)).collect()
        };
        results.utterances.iter().flat_map(of).collect()
    };
    // Each channel is billed.
    let channels = metadata.channels.unwrap_or(1).max(1);
    let billed = metadata.duration.map(|seconds| (seconds * 1000.0).round() as u64 * channels);
    Ok(Answer::new(words, billed.unwrap_or(sent_ms)))
}
