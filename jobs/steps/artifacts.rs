//! Step 7: stores all derived files in the object store, the manifest last.

use super::media::Media;
use crate::artifacts;
use crate::artifacts::Body;
use crate::domain::artifact::MANIFEST_SCHEMA;
use crate::domain::{Artifact, ArtifactKind, Manifest, Side, Stage, Transcript};
use crate::jobs::work::Work;
use crate::jobs::{At, Stop};
use crate::quality;
use crate::telemetry;

/// Stores transcript, quality and manifest. Returns every artifact of the call.
pub(crate) async fn store(work: &Work<'_>, media: &Media, transcript: &Transcript) -> Result<Vec<Artifact>, Stop> {
    let mut all = Vec::new();
    match media {
        Media::Measured(measured) => {
            all.push(measured.original.clone());
            all.extend(measured.derived.iter().cloned());
            all.push(put(work, ArtifactKind::Quality, &quality::document(&measured.quality)).await?);
        }
        Media::Ended { original, .. } => all.extend(original.clone()),
    }
    if !transcript.utterances.is_empty() {
        all.push(put(work, ArtifactKind::Transcript, transcript).await?);
    }
    work.boundary("artifacts").await;
    if all.is_empty() {
        return Ok(all);
    }
    let manifest = Manifest {
        schema: MANIFEST_SCHEMA.to_owned(),
        software: concat!("aftercall ", env!("CARGO_PKG_VERSION")).to_owned(),
        transcript_version: (!transcript.utterances.is_empty()).then_some(work.record.transcript_version + 1),
        artifacts: all.clone(),
        engine: transcript.engine.clone(),
        parameters: parameters(work),
    };
    all.push(put(work, ArtifactKind::Manifest, &manifest).await?);
    work.boundary("manifest").await;
    Ok(all)
}

fn parameters(work: &Work<'_>) -> serde_json::Value {
    let audio = &work.app.config.audio;
    serde_json::json!({ "target_lufs": audio.target_lufs, "ceiling_dbtp": audio.ceiling_dbtp, "rate_hz": 48_000 })
}

async fn put<T: serde::Serialize>(work: &Work<'_>, kind: ArtifactKind, value: &T) -> Result<Artifact, Stop> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|err| Stop::permanent(err.to_string()))?;
    let artifact = artifacts::artifact_of_bytes(work.record.org_uid, work.record.uid, kind, &bytes);
    work.app.objects.put(&artifact, Body::Bytes(bytes.into())).await.at(Stage::Artifacts)?;
    telemetry::within_reach(Side::ObjectStore);
    Ok(artifact)
}
