//! A recording's URL becomes a spooled file: limits on bytes, time and rate, a guard on hosts, resuming, a digest.
//! Recordings are asked for without any key of ours: the URL is the whole permission.

mod client;
mod error;
mod guard;
mod partial;
mod sniff;

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HeaderMap, LAST_MODIFIED, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use url::Url;

use crate::config::Fetch;
use crate::domain::{RecordingUrl, Sha256};

use client::Clients;
use partial::Partial;

pub use error::FetchError;
pub use guard::HostPolicy;

/// How often a broken transfer is continued within one fetch.
const RESUMES: u32 = 4;
/// The longest pause a recording host can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// A `Last-Modified` this much older than `Date` cannot hide a second change in the same second
/// (RFC 9110 section 8.8.2.2).
const STRONG_DATE_SECONDS: i64 = 60;

/// A recording on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub path: PathBuf,
    pub size_bytes: u64,
    pub sha256: Sha256,
    /// What the host called it; hosts are often wrong.
    pub content_type: Option<String>,
    /// Up to the first 4096 bytes.
    pub head: Vec<u8>,
}

/// Pauses and windows that tests shorten.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The stretch over which the least rate is measured, and the longest silence before an answer.
    pub window: Duration,
    /// Pause before the first resume; it doubles.
    pub resume_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { window: Duration::from_secs(30), resume_pause: Duration::from_millis(250) }
    }
}

/// Downloads recordings.
#[derive(Debug)]
pub struct Fetcher {
    limits: Fetch,
    timing: Timing,
    clients: Clients,
}

impl Fetcher {
    /// A fetcher with these limits; nothing is connected.
    #[must_use]
    pub fn new(limits: &Fetch) -> Self {
        Self { limits: limits.clone(), timing: Timing::default(), clients: Clients::new(limits.connect_timeout.0) }
    }

    /// The same with other pauses.
    #[must_use]
    pub fn with_timing(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }

    /// Downloads to `dest`, which appears whole or not at all. A transfer that broke leaves `<dest>.part` and
    /// `<dest>.resume`; the next fetch of the same recording to the same place continues there.
    ///
    /// # Errors
    /// [`FetchError`]; none of them repeats the URL's query.
    pub async fn fetch(&self, url: &RecordingUrl, policy: &HostPolicy, dest: &Path) -> Result<Fetched, FetchError> {
        let address = url.as_url().map_err(|why| FetchError::RefusedUrl { host: None, reason: why.reason() })?;
        policy.route(address)?;
        let mut partial = Partial::open(url, dest).await?;
        let limit = self.limits.total_timeout.0;
        let transfer = tokio::time::timeout(limit, self.transfer(address, policy, &mut partial)).await;
        match transfer.unwrap_or(Err(FetchError::TimedOut { limit })) {
            Ok(()) => {
                let size_bytes = partial.received_bytes;
                let (sha256, head, content_type) = partial.finish().await?;
                Ok(Fetched { path: dest.to_owned(), size_bytes, sha256, content_type, head })
            }
            Err(err) => {
                if err.keeps_partial() {
                    partial.keep().await;
                } else {
                    partial.discard().await;
                }
                Err(err)
            }
        }
    }

    async fn transfer(&self, url: &Url, policy: &HostPolicy, partial: &mut Partial) -> Result<(), FetchError> {
        let mut resumes = 0;
        loop {
            match self.attempt(url, policy, partial).await {
                Err(FetchError::Interrupted { received_bytes, .. }) if resumes < RESUMES => {
                    tracing::debug!(received_bytes, "download broke off, continuing");
                    tokio::time::sleep(self.timing.resume_pause * 2_u32.pow(resumes)).await;
                    resumes += 1;
                }
                done => return done,
            }
        }
    }

    /// One request, and as much of the body as it brings.
    async fn attempt(&self, url: &Url, policy: &HostPolicy, partial: &mut Partial) -> Result<(), FetchError> {
        if partial.validator.is_none() && partial.received_bytes > 0 {
            partial.restart().await?;
        }
        let from = partial.validator.as_deref().map(|validator| (partial.received_bytes, validator));
        let answer = self.clients.get(url, policy, from, self.limits.max_redirects, self.timing.window).await?;
        let (host, response) = (answer.host, answer.response);
        match response.status() {
            StatusCode::OK => {
                partial.restart().await?;
                begin(partial, response.headers());
            }
            StatusCode::PARTIAL_CONTENT if continues(partial, response.headers()) => {}
            // The host's idea of the rest is not ours: from the beginning, then.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if from_somewhere(partial) => {
                partial.restart().await?;
                return Err(interrupted(host, partial, "the host continues something else"));
            }
            status => return Err(refusal(host, status, response.headers())),
        }
        if response.headers().get("content-encoding").is_some_and(|coding| coding != "identity") {
            let size_bytes = partial.total_bytes.unwrap_or_default();
            return Err(FetchError::NotARecording { host, what: "a compressed body", size_bytes });
        }
        self.within_limit(partial.total_bytes.unwrap_or_default())?;
        self.receive(host, response, partial).await
    }

    /// Takes in the body until it ends, breaks, grows too large or trickles.
    async fn receive(&self, host: String, mut response: Response, partial: &mut Partial) -> Result<(), FetchError> {
        let window = self.timing.window;
        let least = self.limits.min_bytes_per_second as f64 * window.as_secs_f64();
        let mut ticks = tokio::time::interval(window);
        ticks.tick().await;
        let mut at_last_tick = partial.received_bytes;
        loop {
            let chunk = tokio::select! {
                chunk = response.chunk() => chunk,
                _ = ticks.tick() => {
                    let received_bytes = partial.received_bytes - at_last_tick;
                    if (received_bytes as f64) < least {
                        return Err(FetchError::TooSlow { host, received_bytes, window });
                    }
                    at_last_tick = partial.received_bytes;
                    continue;
                }
            };
            match chunk {
                Ok(Some(bytes)) => {
                    self.within_limit(partial.received_bytes + bytes.len() as u64)?;
                    let sniffed = partial.head.len() >= sniff::SNIFF_BYTES;
                    partial.append(&bytes).await?;
                    if !sniffed && partial.head.len() >= sniff::SNIFF_BYTES {
                        refuse_text(&host, partial)?;
                    }
                }
                Ok(None) => break,
                Err(err) => return Err(interrupted(host, partial, &client::chain(&err.without_url()))),
            }
        }
        if partial.total_bytes.is_some_and(|total| partial.received_bytes < total) {
            return Err(interrupted(host, partial, "the body ended early"));
        }
        if partial.received_bytes == 0 {
            return Err(FetchError::Empty { host });
        }
        refuse_text(&host, partial)
    }

    const fn within_limit(&self, size_bytes: u64) -> Result<(), FetchError> {
        let limit_bytes = self.limits.max_bytes;
        if size_bytes > limit_bytes { Err(FetchError::TooLarge { limit_bytes, size_bytes }) } else { Ok(()) }
    }
}

/// Removes a fetched file and everything an attempt may have left beside it.
///
/// # Errors
/// [`FetchError::Spool`] when something is there and cannot be removed.
pub async fn discard(dest: &Path) -> Result<(), FetchError> {
    for path in [dest.to_owned(), partial::part(dest), partial::resume_path(dest)] {
        match tokio::fs::remove_file(&path).await {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(FetchError::Spool { path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

fn from_somewhere(partial: &Partial) -> bool {
    partial.received_bytes > 0
}

fn interrupted(host: String, partial: &Partial, cause: &str) -> FetchError {
    FetchError::Interrupted {
        host,
        received_bytes: partial.received_bytes,
        expected_bytes: partial.total_bytes,
        cause: cause.to_owned(),
    }
}

fn refuse_text(host: &str, partial: &Partial) -> Result<(), FetchError> {
    match sniff::text_kind(&partial.head) {
        Some(what) => {
            let size_bytes = partial.total_bytes.unwrap_or(partial.received_bytes);
            Err(FetchError::NotARecording { host: host.to_owned(), what, size_bytes })
        }
        None => Ok(()),
    }
}

/// Notes what the host says of the body it is about to send from its beginning.
fn begin(partial: &mut Partial, headers: &HeaderMap) {
    partial.total_bytes = text(headers, CONTENT_LENGTH).and_then(|length| length.parse().ok());
    partial.content_type = text(headers, CONTENT_TYPE).map(str::to_owned);
    partial.validator = validator(headers);
}

/// Whether a partial answer begins exactly where ours ends and belongs to a body of the same size
/// (`Content-Range: bytes 100-199/200`, RFC 9110 section 14.4).
fn continues(partial: &mut Partial, headers: &HeaderMap) -> bool {
    let range = text(headers, CONTENT_RANGE).and_then(|range| range.trim().strip_prefix("bytes "));
    let Some((range, total)) = range.and_then(|range| range.split_once('/')) else { return false };
    let first = range.split_once('-').and_then(|(first, _)| first.trim().parse::<u64>().ok());
    let total = total.trim().parse::<u64>().ok();
    let same_size = partial.total_bytes.is_none() || total.is_none() || partial.total_bytes == total;
    // A host that serves ranges but does not know `If-Range` would continue a body that has changed meanwhile.
    let same_tag = text(headers, ETAG).is_none_or(|tag| !is_tag(partial) || partial.validator.as_deref() == Some(tag));
    let fits = partial.received_bytes > 0 && first == Some(partial.received_bytes) && same_size && same_tag;
    if fits {
        partial.total_bytes = partial.total_bytes.or(total);
    }
    fits
}

fn is_tag(partial: &Partial) -> bool {
    partial.validator.as_deref().is_some_and(|validator| validator.starts_with('"'))
}

/// A validator strong enough for `If-Range`.
fn validator(headers: &HeaderMap) -> Option<String> {
    if let Some(tag) = text(headers, ETAG) {
        return tag.starts_with('"').then(|| tag.to_owned());
    }
    let modified = text(headers, LAST_MODIFIED)?;
    let age = moment(text(headers, DATE)?)?.duration_since(moment(modified)?);
    (age.as_secs() >= STRONG_DATE_SECONDS).then(|| modified.to_owned())
}

/// What an answer without a recording means.
fn refusal(host: String, status: StatusCode, headers: &HeaderMap) -> FetchError {
    let retry_after = pause_asked_for(headers);
    let status = status.as_u16();
    match status {
        202 | 204 => FetchError::Empty { host },
        400 | 401 | 403 => FetchError::Denied { host, status },
        404 | 410 => FetchError::Gone { host, status },
        429 => FetchError::Throttled { host, status, retry_after },
        503 if retry_after.is_some() => FetchError::Throttled { host, status, retry_after },
        408 | 425 | 500..=599 => FetchError::ServerError { host, status },
        _ => FetchError::Unexpected { host, status },
    }
}

/// `Retry-After` as seconds, also decimal ones, or as a date compared with the host's own `Date`.
fn pause_asked_for(headers: &HeaderMap) -> Option<Duration> {
    let asked = text(headers, RETRY_AFTER)?.trim();
    let seconds = match asked.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => moment(asked)?.duration_since(moment(text(headers, DATE)?)?).as_secs_f64(),
    };
    Duration::try_from_secs_f64(seconds.max(0.0)).ok().map(|pause| pause.min(LONGEST_PAUSE))
}

fn moment(date: &str) -> Option<jiff::Timestamp> {
    jiff::fmt::rfc2822::parse(date).ok().map(|date| date.timestamp())
}

fn text(headers: &HeaderMap, name: reqwest::header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_pause_may_be_decimal_or_a_date_and_is_bounded() {
        let asked = |text| pause_asked_for(&headers(&[(RETRY_AFTER, text), (DATE, "Sun, 06 Nov 1994 08:49:37 GMT")]));
        assert_eq!(asked("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(asked("99999999"), Some(LONGEST_PAUSE));
        assert_eq!(asked("-3"), Some(Duration::ZERO));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked("NaN"), Some(Duration::ZERO));
    }

    #[test]
    fn only_strong_validators_allow_resuming() {
        let old = "Sun, 06 Nov 1994 08:00:00 GMT";
        let new = "Sun, 06 Nov 1994 08:49:30 GMT";
        let date = (DATE, "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(validator(&headers(&[(ETAG, "\"abc\"")])).as_deref(), Some("\"abc\""));
        assert_eq!(validator(&headers(&[(ETAG, "W/\"abc\""), (LAST_MODIFIED, old), date.clone()])), None);
        assert_eq!(validator(&headers(&[(LAST_MODIFIED, old), date.clone()])).as_deref(), Some(old));
        assert_eq!(validator(&headers(&[(LAST_MODIFIED, new), date])), None);
    }
}
