//! A file of the spool becomes the original of its call in the object store.

use std::path::Path;

use super::fetch::spool_failure;
use crate::artifacts;
use crate::artifacts::Body;
use crate::audio::probe;
use crate::domain::{Artifact, ArtifactKind, Container, Stage};
use crate::jobs::work::Work;
use crate::jobs::{At, Stop};

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
