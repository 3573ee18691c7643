//! Step 3: store the recording in the object store before other work can fail, because its URL expires. A recording in
//! the object store is not downloaded again.

use std::path::Path;

use super::fetch::{count, download_path, fetch, spool_failure};
use super::growth;
use super::keep::{keep, stored};
use super::remote_stt::Kept;
use crate::artifacts::{Body, ObjectError};
use crate::domain::{Artifact, Container, Outcome, SourceCall, Stage};
use crate::jobs::work::Work;
use crate::jobs::{At, Stop, object_check};

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
        tracing::error!(key = %artifact.key, "the stored original is lost; it is fetched again from the source");
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
