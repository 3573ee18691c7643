//! Engines on other machines: OpenAI-compatible transcription services and Deepgram. They hear a call only where the
//! configuration names its organisation: voices leave the house by decision, never by default.
//!
//! ```text
//! speech regions ─► parts (cut in silence) ─► FLAC ─► service ─► answer, kept ─► guard ─► transcript
//! ```
//!
//! Whoever asks decides when to ask and when to ask again, and keeps each answer before anything else: it is paid for.

mod assemble;
mod deepgram;
mod guard;
mod lenient;
mod openai;
mod plan;
mod timing;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::DATE;
use reqwest::header::HeaderMap;
use reqwest::header::RETRY_AFTER;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::Serialize;

use super::engine::EngineError;
use crate::config::AnswerFormat;
use crate::config::RemoteEngine;
use crate::config::RemoteKind;

pub use assemble::assemble;
pub use plan::{LIMIT_BYTES, Part, plan};

/// A pause that the service did not name.
const PAUSE: Duration = Duration::from_secs(20);
/// A longer one than this is not believed.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// Error bodies are repeated up to this length.
const SAID: usize = 200;
/// More than the words of a part can be.
const LONGEST_ANSWER: usize = 64 << 20;
/// How long an answer about a key may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

/// A word of an answer, milliseconds from the start of what was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnsweredWord {
    pub text: String,
    /// None where the answer has no times at all.
    pub start_ms: Option<u64>,
    pub end_ms: Option<u64>,
    /// 0 to 1, in thousandths; none where the service says nothing.
    pub confidence: Option<f64>,
    /// Of what was sent.
    pub channel: u32,
    /// The service's number, good within one answer.
    pub speaker: Option<u32>,
}

/// What a service answered about one part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Audio it bills, milliseconds: as it says, else as it was sent.
    pub billed_ms: u64,
    pub words: Vec<AnsweredWord>,
}

/// A whole answer, which costs the same whether it can be read or not.
#[derive(Debug)]
pub struct Paid {
    pub billed_ms: u64,
    pub body: Vec<u8>,
}

/// Whether this service says who speaks on one channel.
fn tells_apart(engine: &RemoteEngine) -> bool {
    match engine.kind {
        RemoteKind::Deepgram => true,
        RemoteKind::Openai => openai::format(engine) == AnswerFormat::DiarizedJson,
    }
}

/// One service of the configuration.
#[derive(Debug)]
pub struct Remote {
    settings: RemoteEngine,
    client: reqwest::Client,
    /// As it was last read.
    key: Mutex<Option<SecretString>>,
}

impl Remote {
    #[must_use]
    pub fn new(settings: RemoteEngine, client: reqwest::Client) -> Self {
        let key = Mutex::new(settings.api_key.clone());
        Self { settings, client, key }
    }

    fn key(&self) -> Option<SecretString> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the key's file again. True when it holds another key than before.
    pub fn read_key_again(&self) -> bool {
        if !self.settings.key_files.any() {
            return false;
        }
        let mut settings = self.settings.clone();
        if let Err(err) = settings.read_key() {
            tracing::warn!(error = format!("{err:#}"), "cannot read the key again");
            return false;
        }
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let secret = |key: &Option<SecretString>| key.as_ref().map(|key| key.expose_secret().to_owned());
        let renewed = secret(&key) != secret(&settings.api_key);
        *key = settings.api_key;
        renewed
    }

    #[must_use]
    pub const fn settings(&self) -> &RemoteEngine {
        &self.settings
    }

    /// What sending this much costs, in millionths of the currency unit; none where nobody said.
    #[must_use]
    pub fn cost_micros(&self, billed_ms: u64) -> Option<u64> {
        self.settings.price_per_minute.map(|price| (price * billed_ms as f64 / 60_000.0 * 1e6).round() as u64)
    }

    /// Asks about one part, once. `flac` is the part as [`Part::encode`] has it. The answer is read by [`Remote::read`], once
    /// what it costs is booked.
    ///
    /// # Errors
    /// What the service answered, as a fault that says what to do about it.
    pub async fn ask(&self, part: &Part, flac: Vec<u8>, language: &str) -> Result<Paid, EngineError> {
        let bytes = flac.len() as u64;
        let request = match self.settings.kind {
            RemoteKind::Openai if bytes > LIMIT_BYTES => {
                return Err(EngineError::TooLarge { bytes, limit: LIMIT_BYTES });
            }
            RemoteKind::Openai => {
                let boundary = format!("aftercall-{}", uuid::Uuid::now_v7().simple());
                let body = openai::multipart(&boundary, &openai::fields(&self.settings, language), &flac);
                self.client
                    .post(self.place("/audio/transcriptions"))
                    .header("content-type", format!("multipart/form-data; boundary={boundary}"))
                    .body(body)
            }
            RemoteKind::Deepgram => self
                .client
                .post(self.place("/listen"))
                .query(&deepgram::parameters(&self.settings, language, part.legs.len()))
                .header("content-type", "audio/flac")
                .body(flac),
        };
        let body = self.answer(request.timeout(self.settings.timeout.0)).await?;
        let said = match self.settings.kind {
            RemoteKind::Openai => openai::billed_ms(&body),
            RemoteKind::Deepgram => deepgram::billed_ms(&body),
        };
        Ok(Paid { billed_ms: said.unwrap_or_else(|| part.sent_ms()), body })
    }

    /// Reads an answer about a part.
    ///
    /// # Errors
    /// An answer that broke off, which may come whole another time; one that is none.
    pub fn read(&self, part: &Part, paid: &Paid) -> Result<Answer, EngineError> {
        let length_ms = part.span.end - part.span.start;
        let read = match self.settings.kind {
            RemoteKind::Openai => openai::read(&paid.body, length_ms),
            RemoteKind::Deepgram => deepgram::read(&paid.body, length_ms),
        };
        let words = read.map_err(|err| match err.classify() {
            // An answer that ends too soon may come whole another time; one of another shape will not change.
            serde_json::error::Category::Eof => self.failed(format!("its answer broke off: {err}")),
            _ => EngineError::Answer { url: self.shown(), reason: err.to_string() },
        })?;
        let words = words.into_iter().filter(|word| !word.text.is_empty()).collect();
        Ok(Answer { billed_ms: paid.billed_ms, words })
    }

    /// Asks for something that costs nothing and needs the key.
    ///
    /// # Errors
    /// As [`Remote::ask`].
    pub async fn check(&self) -> Result<(), EngineError> {
        let free = match self.settings.kind {
            RemoteKind::Openai => "/models",
            RemoteKind::Deepgram => "/projects",
        };
        self.answer(self.client.get(self.place(free)).timeout(CHECK_TIMEOUT)).await.map(drop)
    }

    fn place(&self, path: &str) -> String {
        format!("{}{path}", self.settings.base_url.as_str().trim_end_matches('/'))
    }

    /// The address without what may be secret in it.
    fn shown(&self) -> String {
        let mut url = self.settings.base_url.clone();
        url.set_query(None);
        // Only addresses without a host refuse this, and those hold no name either.
        let _ = (url.set_username(""), url.set_password(None));
        url.to_string()
    }

    fn failed(&self, reason: String) -> EngineError {
        EngineError::Remote { url: self.shown(), reason }
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, EngineError> {
        let again = request.try_clone();
        match (self.answer_once(request).await, again) {
            (Err(EngineError::Key { .. }), Some(again)) if self.read_key_again() => self.answer_once(again).await,
            (answer, _) => answer,
        }
    }

    async fn answer_once(&self, mut request: reqwest::RequestBuilder) -> Result<Vec<u8>, EngineError> {
        // Services in the same house may want none.
        if let Some(key) = self.key() {
            let scheme = match self.settings.kind {
                RemoteKind::Openai => "Bearer",
                RemoteKind::Deepgram => "Token",
            };
            let mut value = reqwest::header::HeaderValue::from_str(&format!("{scheme} {}", key.expose_secret()))
                .map_err(|_| EngineError::Key { url: self.shown(), status: 0 })?;
            value.set_sensitive(true);
            request = request.header("authorization", value);
        }
        let broken = |err: reqwest::Error| self.failed(err.without_url().to_string());
        let mut answer = request.send().await.map_err(broken)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) =
            answer.chunk().await.map_err(|err| self.failed(format!("its answer broke off: {}", err.without_url())))?
        {
            if body.len() + chunk.len() > LONGEST_ANSWER {
                let reason = format!("it is longer than {LONGEST_ANSWER} bytes");
                return Err(EngineError::Answer { url: self.shown(), reason });
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() { Ok(body) } else { Err(self.refusal(status, &headers, &body)) }
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> EngineError {
        let (url, code) = (self.shown(), status.as_u16());
        let no_credit = || String::from_utf8_lossy(body).contains("insufficient_quota");
        match code {
            401 | 403 => EngineError::Key { url, status: code },
            402 => EngineError::Credit { url, status: code },
            // OpenAI answers so when the account is empty; waiting fills none.
            429 if no_credit() => EngineError::Credit { url, status: code },
            429 => EngineError::Busy { url, retry_after: pause(headers).unwrap_or(PAUSE) },
            503 if pause(headers).is_some() => EngineError::Busy { url, retry_after: pause(headers).unwrap_or(PAUSE) },
            408 | 425 | 500..=599 => self.failed(format!("HTTP {code}")),
            _ => {
                let reason = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(SAID).collect();
                EngineError::Refused { url, status: code, reason }
            }
        }
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds, or a moment of the service's own clock.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &reqwest::header::HeaderValue| value.to_str().ok());
    let after = text(RETRY_AFTER)?.trim();
    let seconds = if let Ok(seconds) = after.parse::<f64>() {
        seconds
    } else {
        let moment = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|moment| moment.timestamp());
        moment(after)?.duration_since(moment(text(DATE)?)?).as_secs_f64()
    };
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_seconds_or_a_moment() {
        let of = |after: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, after.parse().unwrap());
            headers.insert(DATE, "Sat, 21 Nov 2026 10:00:00 GMT".parse().unwrap());
            pause(&headers)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Sat, 21 Nov 2026 10:02:00 GMT"), Some(Duration::from_secs(120)));
        assert_eq!(of("soon"), None);
        assert_eq!(of("1e300"), Some(LONGEST_PAUSE));
    }
}
