//! Step 6: the quality document of a recording and its conversation. All results of steps 4 to 6 are then stored and
//! noted in the call's progress, so that a retry does not decode again.

use super::audio::Sound;
use super::growth;
use super::media::Measured;
use super::words::Transcribed;
use crate::artifacts;
use crate::artifacts::Body;
use crate::audio::Normalized;
use crate::domain::quality::Flag;
use crate::domain::{Artifact, ArtifactKind, SourceCall, Stage};
use crate::jobs::work::Work;
use crate::jobs::{At, Stop, object_check};
use crate::quality;

/// Assembles the quality document, stores the normalised audio and notes the measurement.
pub(crate) async fn measure(
    work: &Work<'_>,
    call: &SourceCall,
    sound: Sound,
    words: Transcribed,
) -> Result<Measured, Stop> {
    let Transcribed { attributed, enrolled, kept } = words;
    let mut quality = quality::assemble(&quality::Inputs {
        normalized: &sound.normalized,
        signal: &sound.signal,
        network: &call.network,
        leg: None,
        record_duration_ms: call.duration_ms,
        transcript: Some(&attributed.transcript),
        method: attributed.method,
        speech: Some((&*sound.speech, &attributed.legs)),
    });
    if call.ended_at_estimated {
        quality.flags.push(Flag::EndEstimated);
    }
    if attributed.transcript.redacted {
        quality.flags.push(Flag::Redacted);
    }
    work.boundary("audio").await;
    let derived = store(work, &sound.normalized).await?;
    let (original, transcript) = (sound.original, attributed.transcript);
    let after_version = work.record.transcript_version;
    note(work, &Measured { original, derived, quality, transcript, kept, after_version, enrolled }).await
}

/// The result of an earlier attempt, if all its objects are still in the object store.
pub(crate) async fn of_earlier_attempt(work: &Work<'_>, original: &Artifact) -> Result<Option<Measured>, Stop> {
    let Some(progress) = work.record.progress.clone() else { return Ok(None) };
    let Ok(measured) = serde_json::from_value::<Measured>(progress) else { return Ok(None) };
    if measured.original != *original || measured.after_version != work.record.transcript_version {
        return Ok(None);
    }
    let derived: Vec<&Artifact> = measured.derived.iter().collect();
    let whole = object_check::first_lost(work.app, &derived).await.at(Stage::Audio)?.is_none();
    Ok(whole.then_some(measured))
}

async fn store(work: &Work<'_>, normalized: &Normalized) -> Result<Vec<Artifact>, Stop> {
    let (org, uid, objects) = (work.record.org_uid, work.record.uid, &work.app.objects);
    let mut derived = Vec::new();
    if let Some(flac) = &normalized.flac {
        let (size_bytes, sha256) = (flac.size_bytes, flac.sha256);
        let artifact = artifacts::artifact_of_made(org, uid, ArtifactKind::AudioFlac, size_bytes, sha256);
        objects.put(&artifact, Body::Made(flac.path.clone())).await.at(Stage::Audio)?;
        derived.push(artifact);
    }
    let waveform = normalized.waveform.json();
    let artifact = artifacts::artifact_of_bytes(org, uid, ArtifactKind::Waveform, &waveform);
    objects.put(&artifact, Body::Bytes(waveform.into())).await.at(Stage::Audio)?;
    derived.push(artifact);
    work.boundary("put_audio").await;
    Ok(derived)
}

/// Notes the measurement and returns it as a retry will read it. A JSON round trip may change the last digit of a
/// number; the quality file of a retry would then be a different object.
async fn note(work: &Work<'_>, measured: &Measured) -> Result<Measured, Stop> {
    let unreadable = |err: serde_json::Error| Stop::permanent(err.to_string());
    let measured = serde_json::to_value(measured).map_err(unreadable)?;
    let progress = growth::beside(work.record.progress.as_ref(), measured);
    let noted = serde_json::from_str(&progress.to_string()).map_err(unreadable)?;
    let (uid, generation) = (work.record.uid, work.record.generation);
    let mut tx = work.app.store.begin().await.at(Stage::Audio)?;
    let owned = work.app.store.set_progress(&mut tx, uid, generation, &progress).await.at(Stage::Audio)?;
    tx.commit().await.at(Stage::Audio)?;
    if !owned {
        work.withdraw().await;
        return Err(Stop::Fenced);
    }
    work.advance().await?;
    work.boundary("quality").await;
    Ok(noted)
}
