//! Steps 2 and 3: download the recording from its short-lived URL and store it in the object store before other work
//! can fail. A recording in the object store is not downloaded again.

use std::path::{Path, PathBuf};

use super::growth;
use super::remote_stt::Kept;
use crate::artifacts;
use crate::artifacts::{Body, ObjectError};
use crate::audio::probe;
use crate::domain::{Artifact, ArtifactKind, Container, Fault, Outcome, RecordingUrl, Side, SourceCall, Stage};
use crate::fetch::FetchError;
use crate::jobs::process_call::Work;
use crate::jobs::{At, Stop, object_check};
use crate::telemetry;

/// Reads of a stored original with wrong content before it counts as lost.
const READS: usize = 2;

/// The stored original, or the reason why there is none.
pub(crate) enum Original {
    Stored(StoredOriginal),
    None { outcome: Outcome, reason: Option<String> },
}

/// An original in the object store.
pub(crate) struct StoredOriginal {
    pub artifact: Artifact,
    pub container: Container,
    /// The download's result, if this attempt fetched it.
    pub fresh: Option<Box<crate::fetch::Fetched>>,
}

/// Ensures that the original is in the object store.
pub(crate) async fn secure(work: &mut Work<'_>, call: &SourceCall) -> Result<Original, Stop> {
    let spool = work.app.spool_of(work.record.uid);
    tokio::fs::create_dir_all(&spool).await.map_err(|err| spool_failure(&spool, &err))?;
    let path = download_path(work);
    if let Some(artifact) = work.record.original.clone() {
        if is_safe(work, &artifact, &path).await? {
            growth::look(work, call).await?;
            if let Some((artifact, container)) = stored(work) {
                return Ok(Original::Stored(StoredOriginal { artifact, container, fresh: None }));
            }
        }
        tracing::error!(key = %artifact.key, "the stored original is lost, its source is asked for it again");
        // The derived objects may be lost as well. Only paid answers are kept.
        work.record.progress = Kept::of(work.record.progress.as_ref()).left();
    }
    let mut fresh = None;
    // The file gets this name when it is complete and durable. A restart after the download therefore skips the
    // request.
    if !tokio::fs::try_exists(&path).await.map_err(|err| spool_failure(&path, &err))? {
        match fetch(work, call).await? {
            Ok(fetched) => {
                count(&fetched);
                fresh = Some(Box::new(fetched));
            }
            Err((outcome, reason)) => return Ok(Original::None { outcome, reason }),
        }
    }
    work.boundary("fetch").await;
    let (artifact, container) = keep(work, &path).await?;
    work.boundary("original").await;
    Ok(Original::Stored(StoredOriginal { artifact, container, fresh }))
}

pub(super) fn count(fetched: &crate::fetch::Fetched) {
    metrics::counter!(telemetry::FETCHED_BYTES_TOTAL).increment(fetched.size_bytes);
    telemetry::used(telemetry::Use::BytesFetched, fetched.size_bytes);
}

/// Puts a file into the object store and makes it the call's original.
pub(super) async fn keep(work: &mut Work<'_>, path: &Path) -> Result<(Artifact, Container), Stop> {
    let container = match probe::sniff(path).map_err(|err| spool_failure(path, &err))? {
        probe::Sniffed::Audio(container) => container,
        probe::Sniffed::Text | probe::Sniffed::Empty | probe::Sniffed::Unknown => Container::Other,
    };
    let kind = ArtifactKind::Original(container);
    let (org, uid) = (work.record.org_uid, work.record.uid);
    let artifact = artifacts::artifact_of_file(org, uid, kind, path).await.at(Stage::Original)?;
    work.app.objects.put(&artifact, Body::File(path.to_owned())).await.at(Stage::Original)?;
    work.boundary("put_original").await;
    if !work.app.store.set_original(uid, work.record.generation, &artifact).await.at(Stage::Original)? {
        work.withdraw().await;
        return Err(Stop::Fenced);
    }
    work.record.original = Some(artifact.clone());
    work.advance().await?;
    Ok((artifact, container))
}

/// Whether the object store holds the original that the record names. A copy that exists only in the spool is uploaded
/// again.
async fn is_safe(work: &Work<'_>, artifact: &Artifact, path: &Path) -> Result<bool, Stop> {
    let objects = &work.app.objects;
    let lost = object_check::first_lost(work.app, &[artifact]).await.at(Stage::Original)?.is_some();
    let here = tokio::fs::metadata(path).await.is_ok_and(|file| file.len() == artifact.size_bytes);
    if lost && here {
        return match objects.put(artifact, Body::File(path.to_owned())).await {
            // The spool holds a different file. The recording is downloaded again.
            Err(ObjectError::BodyChanged { .. }) => forget(path).await.map(|()| false),
            put => put.at(Stage::Original).map(|()| true),
        };
    }
    if lost || here || work.record.progress.is_some() {
        return Ok(!lost);
    }
    for _ in 0..READS {
        match objects.get_to_file(artifact, path).await {
            Err(ObjectError::Missing { .. }) => return Ok(false),
            // The content was damaged in transfer or in the store. One more read decides.
            Err(ObjectError::WrongContent { .. }) => {}
            read => return read.at(Stage::Original).map(|()| true),
        }
    }
    Ok(false)
}

async fn forget(path: &Path) -> Result<(), Stop> {
    tokio::fs::remove_file(path).await.map_err(|err| spool_failure(path, &err))
}

type FetchResult = Result<crate::fetch::Fetched, (Outcome, Option<String>)>;

/// Downloads from the call's URL. If the host refuses it or has lost it, one new URL is requested from the platform.
async fn fetch(work: &Work<'_>, call: &SourceCall) -> Result<FetchResult, Stop> {
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

/// The original that the record names in the object store.
pub(super) fn stored(work: &Work<'_>) -> Option<(Artifact, Container)> {
    let artifact = work.record.original.clone()?;
    let container = container_of(&artifact);
    Some((artifact, container))
}

pub(super) fn container_of(artifact: &Artifact) -> Container {
    Container::KNOWN
        .into_iter()
        .find(|container| ArtifactKind::Original(*container).name() == artifact.name)
        .unwrap_or(Container::Other)
}

pub(super) fn spool_failure(path: &Path, err: &std::io::Error) -> Stop {
    let cause = format!("cannot use the spool at {}: {err} (is there room, and may this user write?)", path.display());
    Stop::trouble(Stage::Fetch, Fault::Transient, Side::Worker, cause)
}
