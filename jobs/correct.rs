//! Correction of roles by hand. It writes a new transcript version, its objects, its quality figures and its pending
//! delivery, like a run of the pipeline. The API and the command line share it.

use crate::app::App;
use crate::artifacts;
use crate::artifacts::Body;
use crate::domain::{
    Artifact, ArtifactKind, CallUid, Fault, Manifest, Quality, RecordFlag, RetentionState, Side, Stage, Transcript,
};
use crate::jobs::steps::remote_stt::Kept;
use crate::jobs::{At, Stop, deliver};
use crate::quality;
use crate::queue::Lane;
use crate::store::{AuditEntry, CallRecord, FinishedCall};
use crate::transcript;
use crate::transcript::{Correction, CorrectionError};

/// The result of a correction.
#[derive(Debug)]
pub enum Corrected {
    /// The new version number and the corrected transcript.
    Version(u32, Box<Transcript>),
    /// The correction does not apply, for this reason.
    Refused(CorrectionError),
    /// The call has no transcript.
    NoTranscript,
}

/// Corrects the roles of a call's newest transcript. `by` is the actor: a key's id or a name.
///
/// # Errors
/// [`Stop`], transient if another writer changes the call at the same time.
pub async fn correct(app: &App, call: CallUid, correction: Correction, by: &str) -> Result<Corrected, Stop> {
    let Some(record) = app.store.call(call).await.at(Stage::Transcript)? else { return Ok(Corrected::NoTranscript) };
    let newest = app.store.transcripts(call).await.at(Stage::Transcript)?.pop();
    let (Some(newest), Some(outcome)) = (newest, record.outcome) else { return Ok(Corrected::NoTranscript) };
    if record.retention_state != RetentionState::Active {
        return Ok(Corrected::NoTranscript);
    }
    let words = match transcript::corrected(&newest.transcript, correction) {
        Ok(words) => words,
        Err(err) => return Ok(Corrected::Refused(err)),
    };
    let text = transcript::text(&words).unwrap_or_default();
    let quality = figures(&record, &words, correction);
    let flags = quality.as_ref().map(|quality| flags(quality, &record));
    let (artifacts, quality) = objects(app, &record, &words, quality.as_ref()).await?;

    let mut tx = app.store.begin().await.at(Stage::Writeback)?;
    if !app.store.own_generation(&mut tx, call, record.generation).await.at(Stage::Writeback)? {
        return Err(changed());
    }
    let now = app.now();
    let version = app.store.add_transcript(&mut tx, call, &words, &text, now).await.at(Stage::Writeback)?;
    if version != record.transcript_version + 1 {
        return Err(changed());
    }
    let left = Kept::of(record.progress.as_ref()).left();
    let finished = FinishedCall {
        outcome,
        reason: record.outcome_reason.clone(),
        artifacts: &artifacts,
        quality: quality.as_ref().or(record.quality.as_ref()),
        flags: &flags.unwrap_or(record.flags.clone()),
        transcript_version: Some(version),
        // A concurrent run measured with the old roles. Only paid answers stay.
        left: left.as_ref(),
        now,
    };
    if !app.store.finish_call(&mut tx, call, record.generation, &finished).await.at(Stage::Writeback)? {
        return Err(changed());
    }
    // The enrolled embedding may belong to the other speaker. The call's next run enrols the corrected one.
    app.store.unenroll_agent_voice(&mut tx, call).await.at(Stage::Writeback)?;
    let detail = format!("version {version}");
    let (actor, action, subject) = (by.to_owned(), "roles_corrected".to_owned(), call.to_string());
    let entry = AuditEntry { at: now, actor, action, subject, detail };
    app.store.audit(&mut tx, &entry).await.at(Stage::Writeback)?;
    let platform = app.platform(&record.source);
    if let Some(target) = platform.and_then(|platform| platform.settings.delivery.target()) {
        deliver::add_pending(app, &mut tx, target, (call, version), Lane::Live).await?;
    }
    tx.commit().await.at(Stage::Writeback)?;
    Ok(Corrected::Version(version, Box::new(words)))
}

fn changed() -> Stop {
    let cause = "another process is changing the call; try again".to_owned();
    Stop::trouble(Stage::Writeback, Fault::Transient, Side::Worker, cause)
}

/// The flags of the new figures, and the record's own flags about its objects and deliveries.
fn flags(quality: &Quality, record: &CallRecord) -> Vec<String> {
    let of_figures = quality.flags.iter().map(|flag| flag.as_str());
    let of_record = RecordFlag::ALL.iter().copied().filter(|flag| record.has_flag(*flag)).map(RecordFlag::as_str);
    of_figures.chain(of_record).map(str::to_owned).collect()
}

/// The call's figures with the per-role figures of the corrected transcript. `None` if this build cannot read the
/// stored figures; they then stay unchanged.
fn figures(record: &CallRecord, words: &Transcript, correction: Correction) -> Option<Quality> {
    let quality: Quality = serde_json::from_value(record.quality.clone()?).ok()?;
    Some(match correction {
        Correction::Swap => quality::with_roles_swapped(quality, words),
        Correction::Agent(_) => quality::with_roles_named(quality, words),
    })
}

/// Stores the changed objects. Returns the call's artifacts, and the figures in the form in which they are read back.
async fn objects(
    app: &App,
    record: &CallRecord,
    words: &Transcript,
    quality: Option<&Quality>,
) -> Result<(Vec<Artifact>, Option<serde_json::Value>), Stop> {
    let unwritable = |err: serde_json::Error| Stop::permanent(err.to_string());
    let mut all: Vec<Artifact> = record.artifacts.clone();
    let mut changed = vec![(ArtifactKind::Transcript, serde_json::to_vec_pretty(words).map_err(unwritable)?)];
    if let Some(quality) = quality {
        changed
            .push((ArtifactKind::Quality, serde_json::to_vec_pretty(&quality::document(quality)).map_err(unwritable)?));
    }
    for (kind, bytes) in changed {
        replace(&mut all, put(app, record, kind, bytes).await?);
    }
    let named = |artifact: &&Artifact| artifact.name == ArtifactKind::Manifest.name();
    if let Some(old) = record.artifacts.iter().find(named) {
        let bytes = app.objects.get(old).await.at(Stage::Artifacts)?;
        let mut manifest: Manifest = serde_json::from_slice(&bytes).map_err(unwritable)?;
        manifest.transcript_version = Some(record.transcript_version + 1);
        manifest.artifacts = all.iter().filter(|artifact| artifact.name != old.name).cloned().collect();
        let bytes = serde_json::to_vec_pretty(&manifest).map_err(unwritable)?;
        replace(&mut all, put(app, record, ArtifactKind::Manifest, bytes).await?);
    }
    Ok((all, quality.map(quality::document)))
}

fn replace(all: &mut Vec<Artifact>, artifact: Artifact) {
    match all.iter_mut().find(|known| known.name == artifact.name) {
        Some(known) => *known = artifact,
        None => all.push(artifact),
    }
}

async fn put(app: &App, record: &CallRecord, kind: ArtifactKind, bytes: Vec<u8>) -> Result<Artifact, Stop> {
    let artifact = artifacts::artifact_of_bytes(record.org_uid, record.uid, kind, &bytes);
    app.objects.put(&artifact, Body::Bytes(bytes.into())).await.at(Stage::Artifacts)?;
    Ok(artifact)
}
