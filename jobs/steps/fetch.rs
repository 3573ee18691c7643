//! Step 2: download the recording from its short-lived URL into the spool.

use std::path::{Path, PathBuf};

use crate::domain::{Fault, Outcome, RecordingUrl, Side, SourceCall, Stage};
use crate::fetch::FetchError;
use crate::jobs::work::Work;
use crate::jobs::{At, Stop};
use crate::telemetry;

/// The recording in the spool, or the outcome without one.
pub(super) type FetchResult = Result<crate::fetch::Fetched, (Outcome, Option<String>)>;

/// Downloads from the call's URL. If the host refuses it or has lost it, one new URL is requested from the platform.
pub(super) async fn fetch(work: &Work<'_>, call: &SourceCall) -> Result<FetchResult, Stop> {
    let first = match named(call) {
        Some(url) => url,
        None => match fresh_url(work, call).await? {
            Some(url) => url,
            None => return unlikely(work, call, Outcome::NoRecording, None),
        },
    };
    match download(work, &first).await {
        Err(FetchError::Denied { .. } | FetchError::Gone { .. }) => {}
        answer => return conclude(work, call, answer),
    }
    match fresh_url(work, call).await? {
        Some(url) => conclude(work, call, download(work, &url).await),
        None => missing(work, call, Outcome::SourceExpired, Some("the platform gives no new URL".to_owned())),
    }
}

/// The link in the call.
pub(super) fn named(call: &SourceCall) -> Option<RecordingUrl> {
    call.dual_url.clone().or_else(|| call.recording_url.clone())
}

pub(super) async fn fresh_url(work: &Work<'_>, call: &SourceCall) -> Result<Option<RecordingUrl>, Stop> {
    Ok(work.platform.source.fresh_recording_url(call).await.at(Stage::Source)?.map(|link| link.url))
}

async fn download(work: &Work<'_>, url: &RecordingUrl) -> Result<crate::fetch::Fetched, FetchError> {
    // The semaphore is never closed. Without a permit the download would run anyway.
    let _permit = work.app.network.acquire().await;
    work.app.fetcher.fetch(url, &work.platform.hosts, &download_path(work)).await
}

pub(super) fn download_path(work: &Work<'_>) -> PathBuf {
    work.app.spool_of(work.record.uid).join("original")
}

/// Maps the download's result to the recording or to an outcome. Only a temporary failure becomes a stop.
fn conclude(
    work: &Work<'_>,
    call: &SourceCall,
    answer: Result<crate::fetch::Fetched, FetchError>,
) -> Result<FetchResult, Stop> {
    let err = match answer {
        Ok(fetched) => return Ok(Ok(fetched)),
        Err(err) => err,
    };
    let said = Some(err.to_string());
    match err {
        FetchError::Denied { .. } | FetchError::Gone { .. } => missing(work, call, Outcome::SourceExpired, said),
        FetchError::Empty { .. } => unlikely(work, call, Outcome::NoRecording, said),
        FetchError::NotARecording { .. } => unlikely(work, call, Outcome::NotARecording, said),
        FetchError::TooLarge { .. } => Ok(Err((Outcome::TooLarge, said))),
        // The value is not a URL. The platform may replace a placeholder later.
        FetchError::RefusedUrl { host: None, .. } => unlikely(work, call, Outcome::RefusedUrl, said),
        FetchError::RefusedUrl { .. } => Ok(Err((Outcome::RefusedUrl, said))),
        err => Err(err).at(Stage::Fetch),
    }
}

/// The recording does not exist at its URL. The job snoozes within the grace period; after it, the call ends with this
/// outcome.
fn missing(work: &Work<'_>, call: &SourceCall, outcome: Outcome, reason: Option<String>) -> Result<FetchResult, Stop> {
    match work.too_early(Some(call)) {
        Some(snooze) => Err(snooze),
        None => Ok(Err((outcome, reason))),
    }
}

/// The call should have a recording. The outcome is accepted only after repeated checks, also after the grace period.
fn unlikely(work: &Work<'_>, call: &SourceCall, outcome: Outcome, reason: Option<String>) -> Result<FetchResult, Stop> {
    match work.not_yet(Some(call)) {
        Some(snooze) => Err(snooze),
        None => Ok(Err((outcome, reason))),
    }
}

pub(super) fn count(fetched: &crate::fetch::Fetched) {
    metrics::counter!(telemetry::FETCHED_BYTES_TOTAL).increment(fetched.size_bytes);
    telemetry::used(telemetry::Use::BytesFetched, fetched.size_bytes);
}

pub(super) fn spool_failure(path: &Path, err: &std::io::Error) -> Stop {
    let cause = format!("cannot use the spool at {}: {err} (is there room, and may this user write?)", path.display());
    Stop::trouble(Stage::Fetch, Fault::Transient, Side::Worker, cause)
}
