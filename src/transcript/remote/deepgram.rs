//! Deepgram's `POST /v1/listen`.

use serde::Deserialize;

use super::AnsweredWord;
use super::lenient;
use super::timing;
use super::timing::Draft;
use crate::config::RemoteEngine;

/// The query parameters. Diarization is requested only for one channel, because each of two channels is one speaker.
pub(super) fn parameters<'a>(
    engine: &'a RemoteEngine,
    language: &'a str,
    channels: usize,
) -> Vec<(&'static str, &'a str)> {
    let primary = language.split('-').next().unwrap_or(language);
    let diarized = if channels > 1 { ("multichannel", "true") } else { ("diarize", "true") };
    vec![
        ("model", engine.model.as_str()),
        ("language", primary),
        diarized,
        ("utterances", "true"),
        ("punctuate", "true"),
    ]
}

#[derive(Debug, Deserialize)]
struct Listened {
    #[serde(default, deserialize_with = "lenient::maybe")]
    metadata: Option<Metadata>,
    results: Results,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(default, deserialize_with = "lenient::number")]
    duration: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    channels: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Results {
    #[serde(default, deserialize_with = "lenient::list")]
    channels: Option<Vec<Channel>>,
    #[serde(default, deserialize_with = "lenient::list")]
    utterances: Option<Vec<Utterance>>,
}

#[derive(Debug, Deserialize)]
struct Channel {
    #[serde(default, deserialize_with = "lenient::list")]
    alternatives: Option<Vec<Alternative>>,
}

/// Alternatives are sorted; the first is the best.
#[derive(Debug, Deserialize)]
struct Alternative {
    #[serde(default, deserialize_with = "lenient::text")]
    transcript: Option<String>,
    #[serde(default, deserialize_with = "lenient::list")]
    words: Option<Vec<Word>>,
}

#[derive(Debug, Deserialize)]
struct Utterance {
    #[serde(default, deserialize_with = "lenient::number")]
    channel: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    speaker: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    start: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    end: Option<f64>,
    #[serde(default, deserialize_with = "lenient::text")]
    transcript: Option<String>,
    #[serde(default, deserialize_with = "lenient::list")]
    words: Option<Vec<Word>>,
}

#[derive(Debug, Deserialize)]
struct Word {
    #[serde(default, deserialize_with = "lenient::text")]
    word: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    punctuated_word: Option<String>,
    #[serde(default, deserialize_with = "lenient::number")]
    start: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    end: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    confidence: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    speaker: Option<f64>,
}

impl Word {
    fn draft(&self) -> Option<Draft> {
        let text = self.punctuated_word.as_deref().or(self.word.as_deref())?;
        let speaker = self.speaker.map(|number| number as u32);
        Some(Draft { confidence: self.confidence, speaker, ..Draft::new(text, self.start, self.end) })
    }
}

impl Utterance {
    fn drafts(&self) -> Vec<Draft> {
        let mut words = drafts(self.words.as_deref(), self.transcript.as_deref(), (self.start, self.end));
        // The utterance's start and end are those of its first and last word.
        if let Some(first) = words.first_mut() {
            first.start = first.start.or(self.start);
        }
        if let Some(last) = words.last_mut() {
            last.end = last.end.or(self.end);
        }
        for word in &mut words {
            word.channel = self.channel.map_or(0, |number| number as u32);
            word.speaker = word.speaker.or(self.speaker.map(|number| number as u32));
        }
        words
    }
}

/// The listed words, or else the words of the text.
fn drafts(words: Option<&[Word]>, text: Option<&str>, (start, end): (Option<f64>, Option<f64>)) -> Vec<Draft> {
    let listed: Vec<Draft> = words.unwrap_or_default().iter().filter_map(Word::draft).collect();
    if listed.is_empty() { timing::spread(text.unwrap_or_default(), start, end) } else { listed }
}

/// The billed audio of a part in milliseconds, all channels counted.
pub(super) fn billed_ms(body: &[u8]) -> Option<u64> {
    let metadata = lenient::parse::<Listened>(body).ok()?.metadata?;
    let channels = metadata.channels.filter(|channels| *channels >= 1.0).unwrap_or(1.0);
    metadata.duration.map(|seconds| (seconds * 1000.0 * channels).round() as u64)
}

/// Reads an answer: its utterances, which have speakers, or else its channels.
pub(super) fn read(body: &[u8], length_ms: u64) -> Result<Vec<AnsweredWord>, serde_json::Error> {
    let Listened { results, .. } = lenient::parse(body)?;
    let Results { channels, utterances } = results;
    if channels.is_none() && utterances.is_none() {
        return Err(serde::de::Error::custom("its results have neither channels nor utterances"));
    }
    let mut words: Vec<Draft> = utterances.iter().flatten().flat_map(Utterance::drafts).collect();
    if words.is_empty() {
        for (channel, heard) in (0..).zip(channels.iter().flatten()) {
            let Some(best) = heard.alternatives.as_ref().and_then(|all| all.first()) else { continue };
            let said = drafts(best.words.as_deref(), best.transcript.as_deref(), (None, None));
            words.extend(said.into_iter().map(|word| Draft { channel, ..word }));
        }
    }
    // The neighbours of a word are those of its channel.
    words.sort_by_key(|word| word.channel);
    for of_channel in words.chunk_by_mut(|a, b| a.channel == b.channel) {
        timing::settle(of_channel, length_ms as f64 / 1000.0);
    }
    Ok(words.into_iter().map(Draft::answered).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn texts(results: &Value) -> Vec<(u32, String)> {
        let body = json!({ "results": results }).to_string();
        read(body.as_bytes(), 12_000).unwrap().into_iter().map(|word| (word.channel, word.text)).collect()
    }

    fn one(text: &str) -> (u32, String) {
        (0, text.to_owned())
    }

    #[test]
    fn one_odd_member_costs_no_words() {
        let good = json!({ "word": "two", "punctuated_word": "Two", "start": 1.0, "end": 1.2, "confidence": 0.9, "speaker": 0 });
        for odd in [
            json!({ "word": "504" }),
            json!({ "word": 504, "start": "1.2", "end": "1.5", "confidence": "high", "speaker": "x" }),
            json!({ "punctuated_word": "504", "start": null, "end": null, "confidence": null }),
        ] {
            let utterances = json!([{ "start": 1.0, "end": 2.0, "channel": 0, "words": [good, null, odd] }]);
            assert_eq!(texts(&json!({ "channels": [], "utterances": utterances })), [one("Two"), one("504")], "{odd}");
            let channels = json!([{ "alternatives": [{ "words": [good, odd, 5] }] }, null]);
            assert_eq!(texts(&json!({ "channels": channels })), [one("Two"), one("504")], "{odd}");
        }
    }

    #[test]
    fn the_text_stands_in_for_words_that_are_missing_whole() {
        let utterances =
            json!([{ "start": 1.0, "end": 2.0, "channel": "1", "transcript": "two seats", "words": null }]);
        assert_eq!(texts(&json!({ "utterances": utterances })), [(1, "two".to_owned()), (1, "seats".to_owned())]);
        let channels = json!([{ "alternatives": [{ "transcript": "two seats" }] }]);
        assert_eq!(texts(&json!({ "channels": channels, "utterances": null })), [one("two"), one("seats")]);
        assert!(texts(&json!({ "channels": [] })).is_empty());
    }

    #[test]
    fn what_is_billed_is_read_even_beside_what_is_not() {
        let body = br#"{"metadata": {"duration": 12.5, "channels": 2, "x": NaN}, "results": {"channels": NaN}}"#;
        assert_eq!(billed_ms(body), Some(25_000));
        assert!(read(body, 12_000).is_err());
        assert!(read(br#"{"err_code": "x"}"#, 12_000).is_err());
    }
}
