//! Remote STT: OpenAI-compatible transcription services and Deepgram. A service receives a call only if the
//! configuration names the call's organisation. By default no audio is sent.
//!
//! ```text
//! speech regions ─► parts (cut in silence) ─► FLAC ─► service ─► stored answer ─► guard ─► transcript
//! ```
//!
//! The caller decides when to send and retry. It stores each answer before any other work, because the answer was paid
//! for.

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
use crate::domain::retry_after;

pub use assemble::assemble;
pub use plan::{LIMIT_BYTES, Part, plan};

/// Pause if the service does not give one.
const PAUSE: Duration = Duration::from_secs(20);
/// Characters of an error body in the error message.
const SAID: usize = 200;
/// Longest accepted answer in bytes, above the words of any part.
const LONGEST_ANSWER: usize = 64 << 20;
/// Timeout of the key check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

/// A word of an answer. Times are in milliseconds from the start of the sent audio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnsweredWord {
    pub text: String,
    /// `None` if the answer has no times at all.
    pub start_ms: Option<u64>,
    pub end_ms: Option<u64>,
    /// From 0 to 1, rounded to thousandths. `None` if the service returns none.
    pub confidence: Option<f64>,
    /// The channel of the sent audio.
    pub channel: u32,
    /// The service's speaker number, valid within one answer.
    pub speaker: Option<u32>,
}

/// A service's answer for one part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Billed audio in milliseconds: from the service, else the sent length.
    pub billed_ms: u64,
    pub words: Vec<AnsweredWord>,
}

/// An unparsed answer. It costs the same, readable or not.
#[derive(Debug)]
pub struct Paid {
    pub billed_ms: u64,
    pub body: Vec<u8>,
}

/// Whether this service diarizes one channel.
fn diarizes(engine: &RemoteEngine) -> bool {
    match engine.kind {
        RemoteKind::Deepgram => true,
        RemoteKind::Openai => openai::format(engine) == AnswerFormat::DiarizedJson,
    }
}

/// One configured service.
#[derive(Debug)]
pub struct Remote {
    settings: RemoteEngine,
    client: reqwest::Client,
    /// The key as last read.
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

    /// Reads the key file again. Returns true if the key has changed.
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

    /// Cost of this much audio in millionths of the currency unit. `None` without a configured price.
    #[must_use]
    pub fn cost_micros(&self, billed_ms: u64) -> Option<u64> {
        self.settings.price_per_minute.map(|price| (price * billed_ms as f64 / 60_000.0 * 1e6).round() as u64)
    }

    /// Sends one part once. `flac` is the part from [`Part::encode`]. [`Remote::read`] parses the answer after its cost
    /// is booked.
    ///
    /// # Errors
    /// [`EngineError`] for the service's error response; its fault selects the reaction.
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

    /// Parses the answer for a part.
    ///
    /// # Errors
    /// [`EngineError::Remote`] for a truncated answer, which is transient. [`EngineError::Answer`] for another
    /// document.
    pub fn read(&self, part: &Part, paid: &Paid) -> Result<Answer, EngineError> {
        let length_ms = part.span.duration_ms();
        let read = match self.settings.kind {
            RemoteKind::Openai => openai::read(&paid.body, length_ms),
            RemoteKind::Deepgram => deepgram::read(&paid.body, length_ms),
        };
        let words = read.map_err(|err| match err.classify() {
            // A truncated answer may be complete after a retry. An answer of another shape will not change.
            serde_json::error::Category::Eof => self.failed(format!("its answer broke off: {err}")),
            _ => EngineError::Answer { url: self.shown(), reason: err.to_string() },
        })?;
        let words = words.into_iter().filter(|word| !word.text.is_empty()).collect();
        Ok(Answer { billed_ms: paid.billed_ms, words })
    }

    /// Sends a free request that needs the key.
    ///
    /// # Errors
    /// The errors of [`Remote::ask`].
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

    /// The address without its secret parts.
    fn shown(&self) -> String {
        let mut url = self.settings.base_url.clone();
        url.set_query(None);
        // These calls fail only for addresses without a host, which have no user name either.
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
        // A service in the local network may need no key.
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
            // OpenAI sends this if the account has no credit. Waiting does not help.
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

fn pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &reqwest::header::HeaderValue| value.to_str().ok());
    retry_after(text(RETRY_AFTER)?, text(DATE))
}
