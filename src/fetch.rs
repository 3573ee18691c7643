//! Download of a recording. Input: a URL. Output: a spooled file with its digest. It enforces limits on bytes, time and
//! rate, checks hosts, and resumes broken downloads. No key of ours is sent, because the URL itself grants access.

mod client;
mod error;
mod guard;
mod partial;
mod sniff;
mod told;
mod unpack;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};

use crate::config::Fetch;
use crate::domain::{Address, RecordingUrl, Sha256, chain};

use client::{Clients, RequestedPart};
use partial::Partial;
use unpack::{Plain, Rules};

pub use error::FetchError;
pub use guard::HostPolicy;
pub use told::{Change, Told};
pub use unpack::LooksLikeAudio;

/// How often a broken download is resumed within one fetch.
const RESUMES: u32 = 4;
/// The largest number of parts requested from a host that sends the body in parts only.
const MOST_PARTS: u32 = 1024;
/// A packed body may be larger than the limit by this fraction of it, plus a header.
const PACKING_SHARE: u64 = 64;
const PACKING_BYTES: u64 = 4096;

/// A recording on disk with its content codings removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub path: PathBuf,
    pub size_bytes: u64,
    pub sha256: Sha256,
    /// The host's content type, which is often wrong.
    pub content_type: Option<String>,
    /// The first bytes, at most 4096.
    pub head: Vec<u8>,
    /// The host's headers about the body as sent.
    pub told: Told,
    /// The host sent less than it announced, or the packed body ended early.
    pub is_short: bool,
}

/// Pauses and windows. Tests shorten them.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The window of the rate measurement, and the longest wait for an answer.
    pub window: Duration,
    /// Pause before the first resume. It doubles each time.
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
    looks_like_audio: LooksLikeAudio,
}

/// How one answer ended.
enum FetchAnswer {
    Whole,
    /// More bytes exist, and the host sends them on request.
    Part,
    /// More bytes exist, and the host does not send them.
    Short,
}

impl Fetcher {
    /// A fetcher with these limits. `looks_like_audio` recognises audio by its first bytes. It opens no connection.
    #[must_use]
    pub fn new(limits: &Fetch, looks_like_audio: LooksLikeAudio) -> Self {
        let clients = Clients::new(limits.connect_timeout.0);
        Self { limits: limits.clone(), timing: Timing::default(), clients, looks_like_audio }
    }

    /// Sets other pauses and windows.
    #[must_use]
    pub fn with_timing(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }

    /// Downloads to `dest`, which is complete or does not exist. A broken download leaves `<dest>.part` and
    /// `<dest>.resume`. The next fetch of the same recording to the same path resumes it.
    ///
    /// # Errors
    /// [`FetchError`]. No message contains the URL's query.
    pub async fn fetch(&self, url: &RecordingUrl, policy: &HostPolicy, dest: &Path) -> Result<Fetched, FetchError> {
        let address = address_of(url)?;
        policy.route(address.url())?;
        let mut partial = Partial::open(url, dest).await?;
        let limit = self.limits.total_timeout.0;
        let transfer = tokio::time::timeout(limit, self.transfer(address, policy, &mut partial)).await;
        match transfer.unwrap_or(Err(FetchError::TimedOut { limit })) {
            Ok(answered) => self.settle(address, partial, dest, matches!(answered, FetchAnswer::Short)).await,
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

    /// Requests the host's data about a recording without a download.
    ///
    /// # Errors
    /// [`FetchError`], as for a fetch.
    pub async fn ask(&self, url: &RecordingUrl, policy: &HostPolicy) -> Result<Told, FetchError> {
        let (limits, patience) = (&self.limits, self.timing.window);
        let address = address_of(url)?;
        let answer = self.clients.get(address, policy, RequestedPart::Size, limits.max_redirects, patience).await?;
        let (status, headers) = (answer.response.status(), answer.response.headers());
        Told::of_size(status, headers).ok_or_else(|| told::refusal(answer.host, status, headers))
    }

    /// Unpacks the download, where it is packed, and renames it to its final name.
    async fn settle(
        &self,
        address: &Address,
        partial: Partial,
        dest: &Path,
        is_short: bool,
    ) -> Result<Fetched, FetchError> {
        let rules = Rules {
            codings: partial.codings(),
            limit_bytes: self.limits.max_bytes,
            looks_like_audio: self.looks_like_audio,
            host: address.url().host_str().unwrap_or_default().to_owned(),
        };
        let (told, content_type) = (partial.told(), partial.content_type.clone());
        let (received, path) = (partial.close().await?, dest.to_owned());
        let settled = tokio::task::spawn_blocking(move || unpack::settle(received, &path, &rules)).await;
        let failed = |err| FetchError::Spool { path: dest.to_owned(), source: std::io::Error::other(err) };
        let Plain { size_bytes, sha256, head, is_short: is_cut } = settled.map_err(failed)??;
        let path = dest.to_owned();
        Ok(Fetched { path, size_bytes, sha256, content_type, head, told, is_short: is_short || is_cut })
    }

    async fn transfer(
        &self,
        address: &Address,
        policy: &HostPolicy,
        partial: &mut Partial,
    ) -> Result<FetchAnswer, FetchError> {
        let (mut resumes, mut parts) = (0, 0);
        loop {
            match self.attempt(address, policy, partial).await {
                Err(FetchError::Interrupted { received_bytes, .. }) if resumes < RESUMES => {
                    tracing::debug!(received_bytes, "download broke off, continuing");
                    tokio::time::sleep(self.timing.resume_pause * 2_u32.pow(resumes)).await;
                    resumes += 1;
                }
                Ok(FetchAnswer::Part) if parts < MOST_PARTS => parts += 1,
                Ok(FetchAnswer::Part) => return Ok(FetchAnswer::Short),
                done => return done,
            }
        }
    }

    /// One request, and as much of the body as it returns.
    async fn attempt(
        &self,
        address: &Address,
        policy: &HostPolicy,
        partial: &mut Partial,
    ) -> Result<FetchAnswer, FetchError> {
        let in_parts = partial.part_end.is_some_and(|end| end == partial.received_bytes);
        if partial.validator.is_none() && partial.received_bytes > 0 && !in_parts {
            partial.restart().await?;
        }
        let (first, validator) = (partial.received_bytes, partial.validator.clone());
        let wanted = match first {
            0 => RequestedPart::Whole,
            _ => RequestedPart::Rest { first, validator: validator.as_deref() },
        };
        let answer = self.clients.get(address, policy, wanted, self.limits.max_redirects, self.timing.window).await?;
        let (host, response) = (answer.host, answer.response);
        let (status, headers) = (response.status(), response.headers());
        match (status, told::part(headers)) {
            (StatusCode::PARTIAL_CONTENT, _) if first > 0 && partial.continues(headers) => {}
            (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, _) if in_parts => {
                return Ok(FetchAnswer::Short);
            }
            // The host's answer does not continue our bytes, so the download restarts from the beginning.
            (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, _) if first > 0 => {
                partial.restart().await?;
                return Err(interrupted(host, partial, "the host continues with other bytes"));
            }
            (StatusCode::PARTIAL_CONTENT, Some(part)) if part.first == 0 => {
                partial.restart().await?;
                partial.begin(headers);
                partial.begin_part(part);
            }
            (StatusCode::PARTIAL_CONTENT, Some(_)) => {
                return Err(FetchError::Unexpected { host, status: status.as_u16() });
            }
            (StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT, _) => return Err(FetchError::Empty { host }),
            (status, _) if status.is_success() => {
                partial.restart().await?;
                partial.begin(headers);
            }
            (status, _) => return Err(told::refusal(host, status, headers)),
        }
        self.within(self.most_bytes(partial), partial.total_bytes.unwrap_or_default())?;
        let received = self.receive(host.clone(), response, partial).await;
        if status != StatusCode::ACCEPTED {
            return received;
        }
        // 202 means "not yet", unless the body is the recording.
        match received {
            Err(FetchError::NotARecording { .. }) => Err(FetchError::Empty { host }),
            Ok(_) if !(self.looks_like_audio)(&partial.head) => Err(FetchError::Empty { host }),
            received => received,
        }
    }

    /// Receives the body until it ends, breaks, exceeds the limit or becomes too slow.
    async fn receive(
        &self,
        host: String,
        mut response: Response<Incoming>,
        partial: &mut Partial,
    ) -> Result<FetchAnswer, FetchError> {
        let window = self.timing.window;
        let least = self.limits.min_bytes_per_second as f64 * window.as_secs_f64();
        let mut ticks = tokio::time::interval(window);
        ticks.tick().await;
        let mut at_last_tick = partial.received_bytes;
        // Packed bytes cannot be recognised before they are unpacked.
        let (is_packed, most) = (partial.codings().is_packed(), self.most_bytes(partial));
        loop {
            let chunk = tokio::select! {
                chunk = chunk(&mut response) => chunk,
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
                    self.within(most, partial.received_bytes + bytes.len() as u64)?;
                    let sniffed = is_packed || partial.head.len() >= sniff::SNIFF_BYTES;
                    partial.append(&bytes).await?;
                    if !sniffed && partial.head.len() >= sniff::SNIFF_BYTES {
                        refuse_text(&host, partial)?;
                    }
                }
                Ok(None) => break,
                Err(err) => return Err(interrupted(host, partial, &chain(&err))),
            }
        }
        let received_bytes = partial.received_bytes;
        if partial.part_end.is_some_and(|end| end == received_bytes && partial.total_bytes.is_some_and(|all| end < all))
        {
            return Ok(FetchAnswer::Part);
        }
        if partial.total_bytes.is_some_and(|total| received_bytes < total) {
            return Err(interrupted(host, partial, "the body ended early"));
        }
        if received_bytes == 0 {
            return Err(FetchError::Empty { host });
        }
        if !is_packed {
            refuse_text(&host, partial)?;
        }
        Ok(FetchAnswer::Whole)
    }

    /// Largest size of the body as sent, in bytes.
    fn most_bytes(&self, partial: &Partial) -> u64 {
        let limit_bytes = self.limits.max_bytes;
        let packing = if partial.codings().is_packed() { limit_bytes / PACKING_SHARE + PACKING_BYTES } else { 0 };
        limit_bytes.saturating_add(packing)
    }

    const fn within(&self, most: u64, size_bytes: u64) -> Result<(), FetchError> {
        let limit_bytes = self.limits.max_bytes;
        if size_bytes > most { Err(FetchError::TooLarge { limit_bytes, size_bytes }) } else { Ok(()) }
    }
}

/// The next piece of a body.
async fn chunk(response: &mut Response<Incoming>) -> Result<Option<Bytes>, hyper::Error> {
    while let Some(frame) = response.body_mut().frame().await {
        // Trailers are not part of the body.
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn address_of(url: &RecordingUrl) -> Result<&Address, FetchError> {
    url.address().map_err(|why| FetchError::RefusedUrl { host: None, reason: why.reason() })
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
