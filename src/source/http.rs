//! One HTTP request to a platform and its answer: timeouts, body limit, and the meaning of each status.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{StatusCode, redirect};
use url::Url;

use super::error::{SourceError, said};
use super::keys::AccountKeys;
use super::rate_limiter::{Answered, Precedence, RateLimiter, Unlimited};
use crate::coding;
use crate::coding::Codings;
use crate::domain::SourceName;
use crate::telemetry;
use crate::telemetry::Use;
use crate::wire::retry::{PauseHeaders, pause};
use crate::wire::{Method, Request, WireError};

/// Longest accepted answer in bytes. It holds about 160 hour-long calls with a time for every word.
pub(super) const LONGEST_BODY: usize = 16 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Retries of broken connections.
const QUICK_RETRIES: usize = 2;
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);

/// The API host of one source. Keys are sent to this host only, so redirects are not followed.
#[derive(Debug)]
pub(super) struct ApiClient {
    source_name: SourceName,
    base: Url,
    client: reqwest::Client,
    keys: AccountKeys,
    limiter: Arc<dyn RateLimiter>,
}

/// A successful answer.
#[derive(Debug)]
pub(super) struct ApiAnswer {
    pub body: Vec<u8>,
    pub etag: Option<String>,
}

/// Whether a broken connection is retried at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    MayBeRepeated,
    Last,
}

/// Subject of a request. It decides what a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The account's calls. A refusal means a wrong key.
    Account,
    /// One call. It may belong to another account.
    Call,
}

/// A request as it is sent.
#[derive(Debug, Clone, Copy)]
struct Question<'a> {
    request: &'a Request,
    about: About,
    idempotency_key: Option<&'a str>,
    precedence: Precedence,
}

/// The answer, or "not found". Everything else is an error.
#[derive(Debug)]
pub(super) enum Reply {
    Found(ApiAnswer),
    NotFound,
}

impl ApiClient {
    pub(super) fn new(source_name: SourceName, base: Url, keys: AccountKeys) -> Result<Self, SourceError> {
        let wrong = |key, reason: String| SourceError::Configuration { source_name: source_name.clone(), key, reason };
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(coding::ACCEPTED));
        let mut builder = reqwest::Client::builder();
        if base.scheme() == "http" {
            // Plain http needs no certificates, and a machine without CA certificates must still reach a platform on
            // loopback.
            builder = builder.tls_certs_only([]);
        }
        let client = builder
            .user_agent(concat!("aftercall/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            // Only `config` reads the environment.
            .no_proxy()
            .build()
            .map_err(|err| wrong("base_url", format!("no HTTP client can be made: {err}")))?;
        Ok(Self { source_name, base, client, keys, limiter: Arc::new(Unlimited) })
    }

    /// Sets the gate that every request must pass.
    pub(super) fn behind(mut self, limiter: Arc<dyn RateLimiter>) -> Self {
        self.limiter = limiter;
        self
    }

    /// Reads the key files again. True when a key has changed.
    pub(super) async fn read_keys_again(&self) -> bool {
        let renewed = self.keys.others_than(&self.keys.current()).is_some();
        if renewed {
            self.limiter.renewed().await;
        }
        renewed
    }

    /// Sends a request. 404 and 410 are answers, not errors.
    pub(super) async fn ask(
        &self,
        request: &Request,
        about: About,
        precedence: Precedence,
    ) -> Result<Reply, SourceError> {
        self.put(Question { request, about, idempotency_key: None, precedence }).await
    }

    /// Sends a change of a call. The idempotency key makes a repeat safe.
    pub(super) async fn write(&self, request: &Request, idempotency_key: &str) -> Result<Reply, SourceError> {
        let (about, precedence) = (About::Call, Precedence::First);
        self.put(Question { request, about, idempotency_key: Some(idempotency_key), precedence }).await
    }

    async fn put(&self, question: Question<'_>) -> Result<Reply, SourceError> {
        let tries = AtomicUsize::new(0);
        let once = || {
            let last = tries.fetch_add(1, Ordering::Relaxed) == QUICK_RETRIES;
            let attempt = if last { Attempt::Last } else { Attempt::MayBeRepeated };
            self.with_permit(question, attempt)
        };
        // Only broken connections are retried here, and only at once. For a longer pause the job is snoozed, because
        // the queue keeps waits durably.
        let quickly = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_times(QUICK_RETRIES)
            .with_jitter();
        once.retry(quickly).when(connection_broke).await
    }

    async fn with_permit(&self, question: Question<'_>, attempt: Attempt) -> Result<Reply, SourceError> {
        let permit = self.limiter.acquire(question.precedence).await.map_err(|held| SourceError::Held {
            source_name: self.source_name.clone(),
            reason: held.reason,
            pause: held.pause,
        })?;
        let mut rest = None;
        let keys = self.keys.current();
        let mut asked = self.once(question, &keys, &mut rest).await;
        if matches!(asked, Err(SourceError::WrongKey { .. }))
            && let Some(others) = self.keys.others_than(&keys)
        {
            asked = self.once(question, &others, &mut rest).await;
        }
        let answered = match &asked {
            Err(SourceError::WrongKey { .. }) => Answered::Refused,
            Err(SourceError::Throttled { status: 429, retry_after, .. }) => Answered::Throttled { pause: *retry_after },
            Err(SourceError::Throttled { retry_after, .. }) if retry_after.is_some() => {
                Answered::Throttled { pause: *retry_after }
            }
            Err(err) if attempt == Attempt::MayBeRepeated && connection_broke(err) => Answered::AskedAgain,
            Err(
                SourceError::Throttled { .. }
                | SourceError::Unreachable { .. }
                | SourceError::Unavailable { .. }
                | SourceError::NotTheApi { .. },
            ) => Answered::Badly,
            _ => Answered::Well { rest },
        };
        self.limiter.release(permit, answered).await;
        asked
    }

    async fn once(
        &self,
        question: Question<'_>,
        keys: &HeaderMap,
        rest: &mut Option<Duration>,
    ) -> Result<Reply, SourceError> {
        let request = question.request;
        let url = self.url(request)?;
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
        };
        let mut builder = self.client.request(method, url).headers(keys.clone());
        if let Some(body) = &request.body {
            builder = builder.json(body);
        }
        if let Some(key) = question.idempotency_key {
            builder = builder.header("idempotency-key", key);
        }
        telemetry::used(Use::PlatformRequests, 1);
        let response = builder.send().await.map_err(|err| self.unreachable(err))?;
        let (status, headers) = (response.status(), response.headers().clone());
        tracing::debug!(source = %self.source_name, path = request.path, status = status.as_u16(), "platform answered");
        *rest = used_up(&headers);
        let body = self.body(response, &request.path).await?;
        let body = self.unpacked(body, &headers, &request.path)?;
        self.judge(question, status, &headers, body)
    }

    fn url(&self, request: &Request) -> Result<Url, SourceError> {
        let mut base = self.base.clone();
        base.set_query(None);
        base.set_fragment(None);
        let text = format!("{}{}", base.as_str().trim_end_matches('/'), request.path);
        let unaskable =
            |_| SourceError::Unaskable { source_name: self.source_name.clone(), cause: WireError::UnusableId };
        let mut url = Url::parse(&text).map_err(unaskable)?;
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        Ok(url)
    }

    /// Removes content codings of any kind, because proxies may add codings that were not requested.
    fn unpacked(&self, body: Vec<u8>, headers: &HeaderMap, path: &str) -> Result<Vec<u8>, SourceError> {
        let codings = headers.get_all(CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        coding::unpack_bytes(body, &Codings::of(codings), LONGEST_BODY).map_err(|_| self.too_large(path))
    }

    fn too_large(&self, path: &str) -> SourceError {
        SourceError::TooLarge { source_name: self.source_name.clone(), path: path.to_owned(), limit: LONGEST_BODY }
    }

    async fn body(&self, mut response: reqwest::Response, path: &str) -> Result<Vec<u8>, SourceError> {
        if response.content_length().is_some_and(|length| length > LONGEST_BODY as u64) {
            return Err(self.too_large(path));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|err| self.unreachable(err))? {
            if body.len() + chunk.len() > LONGEST_BODY {
                return Err(self.too_large(path));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn judge(
        &self,
        question: Question<'_>,
        status: StatusCode,
        headers: &HeaderMap,
        body: Vec<u8>,
    ) -> Result<Reply, SourceError> {
        let path = question.request.path.clone();
        let (source_name, code) = (self.source_name.clone(), status.as_u16());
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let html = body.trim_ascii_start().first() == Some(&b'<');
        match code {
            // A web server's own 404 page means a wrong address. If it counted as "no such call", every call would
            // vanish.
            200..=299 | 404 | 410 if html => Err(SourceError::NotTheApi { source_name, path, status: code }),
            200..=299 => Ok(Reply::Found(ApiAnswer { body, etag: text("etag").map(str::to_owned) })),
            300..=399 => Err(SourceError::Redirected { source_name, path, status: code }),
            403 if question.about == About::Call => Err(SourceError::Forbidden { source_name, path, status: code }),
            401 | 403 => Err(SourceError::WrongKey { source_name, host: self.host(), status: code }),
            404 | 410 => Ok(Reply::NotFound),
            408 | 425 | 429 | 500..=599 => {
                // Every answer contains the end of the rate window. It explains this answer only when the window is
                // used up.
                let mut pauses = PauseHeaders::of(text);
                pauses.rate_limit_reset = pauses.rate_limit_reset.filter(|_| code == 429);
                match (code, pause(pauses, &body)) {
                    (429, retry_after) | (_, retry_after @ Some(_)) => {
                        Err(SourceError::Throttled { source_name, status: code, retry_after })
                    }
                    (_, None) => Err(SourceError::Unavailable { source_name, path, status: code }),
                }
            }
            _ => Err(SourceError::Rejected { source_name, path, status: code, said: said(&body) }),
        }
    }

    fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or("the platform");
        self.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    fn unreachable(&self, cause: reqwest::Error) -> SourceError {
        let host = self.host();
        SourceError::Unreachable { source_name: self.source_name.clone(), host, cause: cause.without_url() }
    }
}

/// The rest of the platform's rate window, when an answer says that the window is used up.
fn used_up(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("x-ratelimit-remaining")?.trim() != "0" {
        return None;
    }
    pause(PauseHeaders::of(text), b"")
}

fn connection_broke(err: &SourceError) -> bool {
    matches!(err, SourceError::Unreachable { cause, .. } if !cause.is_timeout() && !cause.is_builder())
}
