//! Steps 2 and 3: the recording's bytes, from their short-lived URL into the object store before anything else can
//! fail. What is safe there is never downloaded again.

use std::path::{Path, PathBuf};

use super::elsewhere::Kept;
use super::growth;
use crate::artifacts;
use crate::artifacts::{Body, ObjectError};
use crate::audio::probe;
use crate::domain::{Artifact, ArtifactKind, Container, Outcome, RecordingUrl, SourceCall, Stage};
use crate::fetch::FetchError;
use crate::jobs::process_call::Work;
use crate::jobs::{At, Stop, object_check};
use crate::telemetry;

/// Reads of a stored original that come out wrong before it is taken for lost.
const READS: usize = 2;

/// The original, wherever it is by now, or why there is none.
pub enum Original {
    Stored {
        artifact: Artifact,
        container: Container,
        /// How it came, where this very attempt has fetched it.
        fresh: Option<Box<crate::fetch::Fetched>>,
    },
    None {
        outcome: Outcome,
        reason: Option<String>,
    },
}

/// Makes sure that the original is in the object store.
pub async fn secure(work: &mut Work<'_>, call: &SourceCall) -> Result<Original, Stop> {
    let spool = work.app.spool_of(work.record.uid);
    tokio::fs::create_dir_all(&spool).await.map_err(|err| spool_failure(&spool, &err))?;
    let path = download_path(work);
    if let Some(artifact) = work.record.original.clone() {
        if is_safe(work, &artifact, &path).await? {
            growth::look(work, call).await?;
            if let Some((artifact, container)) = stored(work) {
                return Ok(Original::Stored { artifact, container, fresh: None });
            }
        }
        tracing::error!(key = %artifact.key, "the stored original is lost, its source is asked for it again");
        // What was made of it may be lost as well: only what was paid for is kept.
        work.record.progress = Kept::of(work.record.progress.as_ref()).left();
    }
    let mut fresh = None;
    // It has that name once it is whole and durable: an attempt that was killed after its download need not ask again.
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
    Ok(Original::Stored { artifact, container, fresh })
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

/// Whether the original is in the object store as the record names it; one that is only in the spool is put back there.
async fn is_safe(work: &Work<'_>, artifact: &Artifact, path: &Path) -> Result<bool, Stop> {
    let objects = &work.app.objects;
    let lost = object_check::first_lost(work.app, &[artifact]).await.at(Stage::Original)?.is_some();
    let here = tokio::fs::metadata(path).await.is_ok_and(|file| file.len() == artifact.size_bytes);
    if lost && here {
        return match objects.put(artifact, Body::File(path.to_owned())).await {
            // The file is another one: it is fetched anew.
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
            // Damaged on its way, or in the store: one more look tells.
            Err(ObjectError::WrongContent { .. }) => {}
            read => return read.at(Stage::Original).map(|()| true),
        }
    }
    Ok(false)
}

async fn forget(path: &Path) -> Result<(), Stop> {
    tokio::fs::remove_file(path).await.map_err(|err| spool_failure(path, &err))
}

type Fetched = Result<crate::fetch::Fetched, (Outcome, Option<String>)>;

/// Downloads from the URL the call names; one refused or gone is asked for anew, once.
async fn fetch(work: &Work<'_>, call: &SourceCall) -> Result<Fetched, Stop> {
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

/// The link that came with the call.
pub(super) fn named(call: &SourceCall) -> Option<RecordingUrl> {
    call.dual_url.clone().or_else(|| call.recording_url.clone())
}

pub(super) async fn fresh_url(work: &Work<'_>, call: &SourceCall) -> Result<Option<RecordingUrl>, Stop> {
    Ok(work.platform.source.fresh_recording_url(call).await.at(Stage::Source)?.map(|link| link.url))
}

async fn download(work: &Work<'_>, url: &RecordingUrl) -> Result<crate::fetch::Fetched, FetchError> {
    // Closed by nobody; without a permit the download would go ahead all the same.
    let _permit = work.app.network.acquire().await;
    work.app.fetcher.fetch(url, &work.platform.hosts, &download_path(work)).await
}

pub(super) fn download_path(work: &Work<'_>) -> PathBuf {
    work.app.spool_of(work.record.uid).join("original")
}

/// Tells what a download's answer means for the call; only failures that may pass go back as a stop.
fn conclude(
    work: &Work<'_>,
    call: &SourceCall,
    answer: Result<crate::fetch::Fetched, FetchError>,
) -> Result<Fetched, Stop> {
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
        // No URL at all: a word that stands there for now may yet become one.
        FetchError::RefusedUrl { host: None, .. } => unlikely(work, call, Outcome::RefusedUrl, said),
        FetchError::RefusedUrl { .. } => Ok(Err((Outcome::RefusedUrl, said))),
        err => Err(err).at(Stage::Fetch),
    }
}

/// Gone where it was: looked for again within the grace; after it, the end.
fn missing(work: &Work<'_>, call: &SourceCall, outcome: Outcome, reason: Option<String>) -> Result<Fetched, Stop> {
    match work.too_early(Some(call)) {
        Some(look_again) => Err(look_again),
        None => Ok(Err((outcome, reason))),
    }
}

/// There should be one: believed only once it has repeated itself, after the grace too.
fn unlikely(work: &Work<'_>, call: &SourceCall, outcome: Outcome, reason: Option<String>) -> Result<Fetched, Stop> {
    match work.not_yet(Some(call)) {
        Some(look_again) => Err(look_again),
        None => Ok(Err((outcome, reason))),
    }
}

/// The original that is in the object store.
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
    Stop::Trouble(crate::jobs::Trouble {
        stage: Some(Stage::Fetch),
        fault: crate::domain::Fault::Transient,
        side: crate::domain::Side::Worker,
        cause: format!("cannot use the spool at {}: {err} (is there room, and may this user write?)", path.display()),
    })
}
