//! A speech-to-text service as its documentation describes it: OpenAI's transcriptions or Deepgram's `/v1/listen`, with
//! faults on demand. What it was asked is written down, and what it bills is counted here.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// OpenAI's documented limit of an upload.
const LIMIT: usize = 25_000_000;
pub const KEY: &str = "canary-engine-key";

/// One request as the service got it.
#[derive(Debug, Clone)]
pub struct SttRequest {
    pub uri: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Of the FLAC that was sent.
    pub channels: u64,
    pub milliseconds: u64,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    Status(u16, &'static str),
    RetryAfter(u16, &'static str),
    /// Headers, half of a body, and the end of the connection.
    Cut,
    /// Headers, and then nothing.
    Slow,
    /// A whole body that ends in the middle of its JSON.
    HalfJson,
    /// Another document altogether.
    OtherJson,
    /// This body.
    Body(&'static str),
}

type Choose = dyn Fn(usize) -> Option<Trouble> + Send + Sync;

/// What the next answers will be. `usize` is the number of the request, from 1.
struct Script {
    choose: Box<Choose>,
    words: Box<dyn Fn(&SttRequest) -> Value + Send + Sync>,
}

#[derive(Clone)]
pub struct Service {
    asked: Arc<Mutex<Vec<SttRequest>>>,
    billed_ms: Arc<Mutex<u64>>,
    script: Arc<Mutex<Script>>,
    pub base_url: String,
}

impl Service {
    pub async fn start(words: impl Fn(&SttRequest) -> Value + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Self {
            asked: Arc::default(),
            billed_ms: Arc::default(),
            script: Arc::new(Mutex::new(Script { choose: Box::new(|_| None), words: Box::new(words) })),
            base_url: format!("http://{}/v1", listener.local_addr().unwrap()),
        };
        let limit = axum::extract::DefaultBodyLimit::max(64 << 20);
        let router = Router::new().fallback(answer).layer(limit).with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        service
    }

    /// The trouble of each request by its number.
    pub fn trouble(&self, choose: impl Fn(usize) -> Option<Trouble> + Send + Sync + 'static) {
        self.script.lock().unwrap().choose = Box::new(choose);
    }

    pub fn asked(&self) -> Vec<SttRequest> {
        self.asked.lock().unwrap().clone()
    }

    pub fn billed_ms(&self) -> u64 {
        *self.billed_ms.lock().unwrap()
    }
}

async fn answer(State(service): State<Service>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    if method == Method::GET {
        let allowed = headers.get("authorization").is_some_and(|value| value.to_str().unwrap().ends_with(KEY));
        return if allowed { axum::Json(json!({ "data": [] })).into_response() } else { unauthorized() };
    }
    let (channels, milliseconds) = flac(&body);
    let asked = SttRequest { uri: uri.to_string(), headers, body, channels, milliseconds };
    let number = {
        let mut all = service.asked.lock().unwrap();
        all.push(asked.clone());
        all.len()
    };
    if uri.path().ends_with("/transcriptions") && asked.body.len() > LIMIT {
        return (StatusCode::PAYLOAD_TOO_LARGE, "Maximum content size limit (26214400) exceeded").into_response();
    }
    let script = service.script.lock().unwrap();
    let Some(trouble) = (script.choose)(number) else {
        *service.billed_ms.lock().unwrap() += asked.milliseconds * asked.channels;
        return axum::Json((script.words)(&asked)).into_response();
    };
    let cut = || (script.words)(&asked).to_string().into_bytes();
    match trouble {
        Trouble::Status(401, _) => unauthorized(),
        Trouble::Status(code, said) => (StatusCode::from_u16(code).unwrap(), said).into_response(),
        Trouble::RetryAfter(code, seconds) => {
            (StatusCode::from_u16(code).unwrap(), [("retry-after", seconds)]).into_response()
        }
        Trouble::HalfJson => {
            let whole = cut();
            ([("content-type", "application/json")], whole[..whole.len() / 2].to_vec()).into_response()
        }
        Trouble::OtherJson => axum::Json(json!({ "object": "list", "data": [] })).into_response(),
        Trouble::Body(body) => ([("content-type", "application/json")], body).into_response(),
        Trouble::Cut => {
            let whole = cut();
            let half = Bytes::from(whole[..whole.len() / 2].to_vec());
            let end = async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("gone"))
            };
            let pieces = futures::stream::iter([Ok(half)]).chain(futures::stream::once(end));
            axum::body::Body::from_stream(pieces).into_response()
        }
        Trouble::Slow => {
            let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
            axum::body::Body::from_stream(never).into_response()
        }
    }
}

fn unauthorized() -> Response {
    let error = json!({ "error": { "message": "Incorrect API key provided", "type": "invalid_request_error",
                                   "param": null, "code": "invalid_api_key" } });
    (StatusCode::UNAUTHORIZED, axum::Json(error)).into_response()
}

/// Channels and milliseconds of the FLAC in a body (RFC 9639 section 8.2), which must be at 16 kHz.
fn flac(body: &[u8]) -> (u64, u64) {
    let at = body.windows(4).position(|four| four == b"fLaC").expect("no FLAC in the request");
    let packed = u64::from_be_bytes(body[at + 18..at + 26].try_into().unwrap());
    assert_eq!(packed >> 44, 16_000);
    ((packed >> 41 & 7) + 1, (packed & 0xf_ffff_ffff) / 16)
}

/// Words one after the other from a moment on, 300 ms each, seconds.
fn timed(text: &str, from: f64) -> impl Iterator<Item = (&str, f64, f64)> {
    text.split(' ').enumerate().map(move |(n, word)| (word, from + n as f64 * 0.3, from + n as f64 * 0.3 + 0.25))
}

/// `verbose_json` with words and segments.
pub fn verbose(asked: &SttRequest, text: &str) -> Value {
    let words: Vec<Value> =
        timed(text, 0.4).map(|(word, start, end)| json!({ "word": word, "start": start, "end": end })).collect();
    let seconds = asked.milliseconds as f64 / 1000.0;
    json!({
        "task": "transcribe", "language": "english", "duration": seconds, "text": text, "words": words,
        "segments": [{ "id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": text, "tokens": [50364],
                       "temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.1, "no_speech_prob": 0.01 }],
        "usage": { "type": "duration", "seconds": seconds.ceil() },
    })
}

/// `diarized_json`: who, from when to when in seconds, what.
pub fn diarized(said: &[(&str, f64, f64, &str)]) -> Value {
    let segment = |(n, (speaker, start, end, text)): (usize, &(&str, f64, f64, &str))| {
        json!({ "type": "transcript.text.segment", "id": format!("seg_{n}"), "start": start, "end": end,
                "text": text, "speaker": speaker })
    };
    let segments: Vec<Value> = said.iter().enumerate().map(segment).collect();
    let text: Vec<&str> = said.iter().map(|one| one.3).collect();
    json!({ "task": "transcribe", "duration": 14.0, "text": text.join(" "), "segments": segments,
            "usage": { "type": "duration", "seconds": 14 } })
}

/// Deepgram's answer: channel, speaker, from when in seconds, what; one utterance each.
pub fn listened(asked: &SttRequest, said: &[(u64, u64, f64, &str)]) -> Value {
    let words = |speaker: u64, from: f64, text: &str| -> Vec<Value> {
        let word = |(word, start, end): (&str, f64, f64)| {
            json!({ "word": word.to_lowercase().trim_end_matches('.'), "punctuated_word": word, "start": start, "end": end,
                    "confidence": 0.98, "speaker": speaker, "speaker_confidence": 0.7 })
        };
        timed(text, from).map(word).collect()
    };
    let utterance = |&(channel, speaker, from, text): &(u64, u64, f64, &str)| {
        json!({ "start": from, "end": from + 1.0, "confidence": 0.98, "channel": channel, "transcript": text,
                "words": words(speaker, from, text), "speaker": speaker, "id": "u" })
    };
    let channel = |channel: u64| -> Value {
        let own = said.iter().filter(|one| one.0 == channel);
        let words: Vec<Value> = own.flat_map(|&(_, speaker, from, text)| words(speaker, from, text)).collect();
        json!({ "alternatives": [{ "transcript": "", "confidence": 0.98, "words": words }] })
    };
    json!({
        "metadata": { "request_id": "r", "sha256": "0", "created": "2026-11-21T10:00:00Z", "models": ["m"],
                      "duration": asked.milliseconds as f64 / 1000.0, "channels": asked.channels },
        "results": { "channels": (0..asked.channels).map(channel).collect::<Vec<_>>(),
                     "utterances": said.iter().map(utterance).collect::<Vec<_>>() },
    })
}
