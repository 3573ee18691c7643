//! OpenAI's `POST /v1/audio/transcriptions`, `verbose_json` and `diarized_json`, as it is also spoken by others.

use serde::Deserialize;

use super::Answer;
use super::AnsweredWord;
use crate::config::AnswerFormat;
use crate::config::RemoteEngine;

/// Whisper's own limits (`decode` of its reference code): above, a segment was repeated rather than heard …
const COMPRESSION: f64 = 2.4;
/// … and a segment this likely to hold no speech and with words this unlikely was made up.
const NO_SPEECH: f64 = 0.6;
const LOG_PROBABILITY: f64 = -1.0;

/// What the service is asked to answer with.
pub fn format(engine: &RemoteEngine) -> AnswerFormat {
    let by_name = if engine.model.contains("diarize") { AnswerFormat::DiarizedJson } else { AnswerFormat::VerboseJson };
    engine.response_format.unwrap_or(by_name)
}

/// The request's fields besides the file.
pub fn fields<'a>(engine: &'a RemoteEngine, language: &'a str) -> Vec<(&'static str, &'a str)> {
    // ISO 639-1 is asked for.
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
        // Takes neither a prompt nor granularities; without chunking it takes 30 s at most.
        AnswerFormat::DiarizedJson => {
            fields.extend([("response_format", "diarized_json"), ("chunking_strategy", "auto")]);
        }
    }
    fields
}

/// `multipart/form-data` (RFC 7578) of these fields and one file.
pub fn multipart(boundary: &str, fields: &[(&str, &str)], flac: &[u8]) -> Vec<u8> {
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

/// Both forms: what one does not have is absent. The text as a whole is not looked at: it has no times.
#[derive(Debug, Deserialize)]
struct Transcription {
    text: Option<String>,
    words: Option<Vec<Word>>,
    segments: Option<Vec<Segment>>,
    usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
struct Word {
    word: String,
    start: f64,
    end: f64,
}

#[derive(Debug, Deserialize)]
struct Segment {
    start: f64,
    end: f64,
    #[serde(default)]
    text: String,
    speaker: Option<String>,
    avg_logprob: Option<f64>,
    no_speech_prob: Option<f64>,
    compression_ratio: Option<f64>,
}

/// Models that are billed by tokens say so instead.
#[derive(Debug, Deserialize)]
struct Usage {
    seconds: Option<f64>,
}

impl Segment {
    /// How far its words can be believed.
    fn confidence(&self) -> Option<f64> {
        let unlikely = self.avg_logprob.is_some_and(|p| p < LOG_PROBABILITY);
        let silent = unlikely && self.no_speech_prob.is_some_and(|p| p > NO_SPEECH);
        let repeats = self.compression_ratio.is_some_and(|ratio| ratio > COMPRESSION);
        if silent || repeats { Some(0.0) } else { self.avg_logprob.map(|p| p.exp().clamp(0.0, 1.0)) }
    }

    /// Its words, sharing its time by their length: where a service gives no word times.
    fn spread(&self, speaker: Option<u32>) -> Vec<AnsweredWord> {
        let letters = self.text.split_whitespace().map(str::len).sum::<usize>().max(1) as f64;
        let (mut at, per_letter) = (self.start, (self.end - self.start).max(0.0) / letters);
        let word = |text: &str| {
            let start = at;
            at += text.len() as f64 * per_letter;
            AnsweredWord::new(text, (start, at), self.confidence(), speaker)
        };
        self.text.split_whitespace().map(word).collect()
    }
}

/// Reads an answer; a sentence where it is not one.
pub fn read(body: &[u8], sent_ms: u64) -> Result<Answer, serde_json::Error> {
    let heard: Transcription = serde_json::from_slice(body)?;
    let missing = |what| <serde_json::Error as serde::de::Error>::custom(format!("it has no {what}"));
    let said = heard.text.as_deref().is_some_and(|text| !text.trim().is_empty());
    let segments = match (heard.segments, &heard.words) {
        (None, None) if said => return Err(missing("words or segments: a model without times cannot be used")),
        (segments, _) => segments.unwrap_or_default(),
    };
    let mut labels: Vec<&str> = Vec::new();
    for segment in &segments {
        if let Some(label) = segment.speaker.as_deref()
            && !labels.contains(&label)
        {
            labels.push(label);
        }
    }
    let speaker = |segment: &Segment| {
        let label = segment.speaker.as_deref()?;
        labels.iter().position(|known| *known == label).map(|index| index as u32)
    };
    let of = |at: f64| segments.iter().find(|segment| at >= segment.start - 0.01 && at < segment.end);
    let words: Vec<AnsweredWord> = match heard.words.filter(|words| !words.is_empty()) {
        Some(words) => words
            .iter()
            .map(|word| {
                let segment = of(word.start);
                let confidence = segment.and_then(Segment::confidence);
                AnsweredWord::new(&word.word, (word.start, word.end), confidence, segment.and_then(speaker))
            })
            .collect(),
        None => segments.iter().flat_map(|segment| segment.spread(speaker(segment))).collect(),
    };
    let billed = heard.usage.and_then(|usage| usage.seconds).map(|seconds| (seconds * 1000.0).round() as u64);
    Ok(Answer::new(words, billed.unwrap_or(sent_ms)))
}
