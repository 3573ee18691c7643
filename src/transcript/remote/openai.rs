//! OpenAI's `POST /v1/audio/transcriptions` with `verbose_json` and `diarized_json`, also for compatible servers.

use serde::Deserialize;

use super::AnsweredWord;
use super::guard;
use super::guard::plain;
use super::lenient;
use super::timing;
use super::timing::Draft;
use crate::config::AnswerFormat;
use crate::config::RemoteEngine;
use crate::transcript::numbering::number;

/// Limits from Whisper's reference code (`decode`). A segment above this compression ratio is a repetition.
const COMPRESSION: f64 = 2.4;
/// A segment above this no-speech probability and below this mean log probability is a hallucination.
const NO_SPEECH: f64 = 0.6;
const LOG_PROBABILITY: f64 = -1.0;

/// The requested answer format.
pub(super) fn format(engine: &RemoteEngine) -> AnswerFormat {
    let by_name = if engine.model.contains("diarize") { AnswerFormat::DiarizedJson } else { AnswerFormat::VerboseJson };
    engine.response_format.unwrap_or(by_name)
}

/// The form fields besides the file.
pub(super) fn fields<'a>(engine: &'a RemoteEngine, language: &'a str) -> Vec<(&'static str, &'a str)> {
    // The API expects ISO 639-1.
    let primary = language.split('-').next().unwrap_or(language);
    let mut fields = vec![("model", engine.model.as_str()), ("language", primary)];
    match format(engine) {
        AnswerFormat::VerboseJson => {
            fields.extend([
                ("response_format", "verbose_json"),
                ("timestamp_granularities[]", "word"),
                ("timestamp_granularities[]", "segment"),
                ("temperature", "0"),
            ]);
            fields.extend(engine.prompt.as_deref().map(|prompt| ("prompt", prompt)));
        }
        // This format accepts no prompt and no granularities. Without chunking it accepts at most 30 s.
        AnswerFormat::DiarizedJson => {
            fields.extend([("response_format", "diarized_json"), ("chunking_strategy", "auto")]);
        }
    }
    fields
}

/// A `multipart/form-data` body (RFC 7578) of these fields and one file.
pub(super) fn multipart(boundary: &str, fields: &[(&str, &str)], flac: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(flac.len() + 2048);
    for (name, value) in fields {
        let field = format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(field.as_bytes());
    }
    let file = "content-disposition: form-data; name=\"file\"; filename=\"call.flac\"\r\ncontent-type: audio/flac";
    body.extend(format!("--{boundary}\r\n{file}\r\n\r\n").as_bytes());
    body.extend(flac);
    body.extend(format!("\r\n--{boundary}--\r\n").as_bytes());
    body
}

/// Both formats; members of the other one are absent.
#[derive(Debug, Deserialize)]
struct Transcription {
    #[serde(default, deserialize_with = "lenient::text")]
    text: Option<String>,
    #[serde(default, deserialize_with = "lenient::list")]
    words: Option<Vec<Word>>,
    #[serde(default, deserialize_with = "lenient::list")]
    segments: Option<Vec<Segment>>,
}

/// Some compatible servers use `text` instead of `word`.
#[derive(Debug, Deserialize)]
struct Word {
    #[serde(default, deserialize_with = "lenient::text")]
    word: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    text: Option<String>,
    #[serde(default, deserialize_with = "lenient::number")]
    start: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    end: Option<f64>,
}

impl Word {
    fn draft(&self) -> Option<Draft> {
        let text = self.word.as_deref().or(self.text.as_deref())?;
        Some(Draft::new(text, self.start, self.end))
    }
}

#[derive(Debug, Deserialize)]
struct Segment {
    #[serde(default, deserialize_with = "lenient::number")]
    start: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    end: Option<f64>,
    #[serde(default, deserialize_with = "lenient::text")]
    text: Option<String>,
    /// The words are here in whisperX and similar servers.
    #[serde(default, deserialize_with = "lenient::list")]
    words: Option<Vec<Word>>,
    #[serde(default, deserialize_with = "lenient::text")]
    speaker: Option<String>,
    #[serde(default, deserialize_with = "lenient::number")]
    avg_logprob: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    no_speech_prob: Option<f64>,
    #[serde(default, deserialize_with = "lenient::number")]
    compression_ratio: Option<f64>,
}

/// Billing by seconds of audio. Models billed by tokens have other members.
#[derive(Debug, Deserialize)]
struct Billed {
    #[serde(default, deserialize_with = "lenient::maybe")]
    usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    #[serde(default, deserialize_with = "lenient::number")]
    seconds: Option<f64>,
}

impl Segment {
    /// Confidence of the segment's words. If its text repeats a phrase, the guard removes the repeats and the rest
    /// counts as heard.
    fn confidence(&self) -> Option<f64> {
        let unlikely = self.avg_logprob.is_some_and(|p| p < LOG_PROBABILITY);
        let silent = unlikely && self.no_speech_prob.is_some_and(|p| p > NO_SPEECH);
        let squeezes = self.compression_ratio.is_some_and(|ratio| ratio > COMPRESSION);
        let repeats = squeezes && !self.text.as_deref().is_some_and(guard::is_repetitive);
        if silent || repeats { Some(0.0) } else { self.avg_logprob.map(|p| p.exp().clamp(0.0, 1.0)) }
    }

    fn holds(&self, at: f64) -> bool {
        self.start.zip(self.end).is_some_and(|(start, end)| at >= start - 0.01 && at < end)
    }

    /// The segment's own words, or else its text distributed over its time.
    fn drafts(&self) -> Vec<Draft> {
        let mut words: Vec<Draft> = self.words.iter().flatten().filter_map(Word::draft).collect();
        if words.is_empty() {
            return timing::spread(self.text.as_deref().unwrap_or_default(), self.start, self.end);
        }
        if let Some(first) = words.first_mut() {
            first.start = first.start.or(self.start);
        }
        if let Some(last) = words.last_mut() {
            last.end = last.end.or(self.end);
        }
        words
    }
}

/// Billed audio in milliseconds, if the answer has it.
pub(super) fn billed_ms(body: &[u8]) -> Option<u64> {
    let seconds = lenient::parse::<Billed>(body).ok()?.usage?.seconds?;
    Some((seconds * 1000.0).round() as u64)
}

/// Parses an answer. The error of another document is a sentence.
pub(super) fn read(body: &[u8], length_ms: u64) -> Result<Vec<AnsweredWord>, serde_json::Error> {
    let Transcription { text, words, segments } = lenient::parse(body)?;
    if text.is_none() && words.is_none() && segments.is_none() {
        return Err(serde::de::Error::custom("it has neither text nor words nor segments"));
    }
    let segments = segments.unwrap_or_default();
    let length = length_ms as f64 / 1000.0;
    let mut labels: Vec<&str> = Vec::new();
    for label in segments.iter().filter_map(|segment| segment.speaker.as_deref()) {
        number(&mut labels, label);
    }
    let speaker = |segment: &Segment| {
        let label = segment.speaker.as_deref()?;
        labels.iter().position(|known| *known == label).map(|index| index as u32)
    };
    let of = |segment: &Segment, words: Vec<Draft>| -> Vec<Draft> {
        let (confidence, speaker) = (segment.confidence(), speaker(segment));
        words.into_iter().map(|word| Draft { confidence, speaker, ..word }).collect()
    };
    let mut said: Vec<Draft> = words.iter().flatten().filter_map(Word::draft).collect();
    if said.is_empty() {
        said = segments.iter().flat_map(|segment| of(segment, segment.drafts())).collect();
        if said.is_empty() {
            said = timing::spread(text.as_deref().unwrap_or_default(), None, None);
        }
        timing::settle(&mut said, length);
    } else {
        timing::settle(&mut said, length);
        for word in &mut said {
            let segment = word.start.and_then(|at| segments.iter().find(|segment| segment.holds(at)));
            word.confidence = segment.and_then(Segment::confidence);
            word.speaker = segment.and_then(speaker);
        }
        add_left_out(&mut said, &segments, of);
    }
    Ok(said.into_iter().map(Draft::answered).collect())
}

/// Adds the words of segments that have no listed word.
fn add_left_out(said: &mut Vec<Draft>, segments: &[Segment], of: impl Fn(&Segment, Vec<Draft>) -> Vec<Draft>) {
    let meets = |segment: &Segment| said.iter().any(|word| word.start.is_some_and(|at| segment.holds(at)));
    let (met, left_out): (Vec<&Segment>, Vec<&Segment>) = segments.iter().partition(|segment| meets(segment));
    if met.is_empty() {
        // No word lies within a segment, so that their times are unrelated. The missing segments are unknown.
        return;
    }
    for segment in left_out {
        let Some(start) = segment.start else { continue };
        let words = segment.drafts();
        let at = said.iter().position(|word| word.start.is_some_and(|at| at >= start)).unwrap_or(said.len());
        // Words without times may be the words of this segment.
        let near = said[at.saturating_sub(2 * words.len())..(at + 2 * words.len()).min(said.len())].iter();
        let near: String = near.map(|word| plain(&word.text)).collect();
        let own: String = words.iter().map(|word| plain(&word.text)).collect();
        if !own.is_empty() && !near.contains(&own) {
            let words = of(segment, words);
            said.splice(at..at, words);
        }
    }
}

#[cfg(test)]
mod tests;
