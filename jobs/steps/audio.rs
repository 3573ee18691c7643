//! Steps 4 and 5: decode, repair the timeline, normalise and measure. The results are stored and noted in the call's
//! progress at once, so that a retry does not decode again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::growth;
use super::original;
use super::original::{Original, spool_failure};
use super::remote_stt::Kept;
use super::words;
use super::words::Transcribed;
use crate::artifacts;
use crate::artifacts::Body;
use crate::audio;
use crate::audio::speech::{Speech, SpeechSink};
use crate::audio::{AudioError, CancelFlag, Normalized};
use crate::domain::quality::Flag;
use crate::domain::{Artifact, ArtifactKind, Container, Enrolled, Outcome, Quality, SourceCall, Stage, Transcript};
use crate::jobs::process_call::Work;
use crate::jobs::{At, Stop, object_check};
use crate::quality;

/// The result of the audio steps.
pub enum Media {
    Measured(Box<Measured>),
    /// There are no measurements, for this reason. The original is kept if there is one.
    Ended {
        outcome: Outcome,
        reason: Option<String>,
        original: Option<Artifact>,
        flags: Vec<Flag>,
    },
}

impl Media {
    /// The transcript with the speakers found in the audio. `None` if the recording was not measured.
    pub fn transcript(&self) -> Option<&Transcript> {
        match self {
            Self::Measured(measured) => Some(&measured.transcript),
            Self::Ended { .. } => None,
        }
    }
}

/// A measured recording. All its derived artifacts are stored.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    pub original: Artifact,
    pub derived: Vec<Artifact>,
    pub quality: Quality,
    /// The attributed transcript: words, speakers and roles, from the platform or a speech engine.
    pub transcript: Transcript,
    /// Remote STT answers that are not yet part of a transcript.
    #[serde(default)]
    pub kept: Kept,
    /// The newest transcript version when the measurement began. Later corrections are not in this result.
    #[serde(default)]
    pub after_version: u32,
    /// The speaker embedding that the call contributes to its agent's enrolled voice.
    #[serde(default, rename = "learnt")]
    pub enrolled: Option<Enrolled>,
}

/// Cancels the decoder when the attempt is dropped, because a blocking task does not stop by itself.
struct CancelOnDrop(CancelFlag);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Decodes and measures the recording, unless an earlier attempt has done so.
pub async fn measure(
    work: &mut Work<'_>,
    call: &SourceCall,
    original: Original,
    transcript: &Transcript,
) -> Result<Media, Stop> {
    let (mut artifact, mut container, mut fresh) = match original {
        Original::Stored { artifact, container, fresh } => (artifact, container, fresh),
        Original::None { outcome, reason } => {
            return Ok(Media::Ended { outcome, reason, original: None, flags: Vec::new() });
        }
    };
    if let Some(done) = earlier(work, &artifact).await? {
        return Ok(Media::Measured(Box::new(done)));
    }
    let spool = work.app.spool_of(work.record.uid);
    tokio::fs::create_dir_all(&spool).await.map_err(|err| spool_failure(&spool, &err))?;
    let decoded = loop {
        let input = local_copy(work, &artifact, &spool).await?;
        let decoded = decode(work, &input, container, spool.clone()).await;
        let heard = decoded.as_ref().map(|(normalized, ..)| normalized);
        let was_cut = fresh.as_ref().is_some_and(|fetched| fetched.is_short);
        if !was_cut && !growth::is_short(call, heard, &input, container) {
            break decoded;
        }
        match growth::doubt(work, call, fresh.take().map(|fetched| fetched.told)).await? {
            growth::Looked::Kept => break decoded,
            growth::Looked::Replaced => (artifact, container) = original::stored(work).unwrap_or((artifact, container)),
        }
    };
    let (normalized, signal, speech) = match decoded {
        Ok(measured) => measured,
        Err(err) => return ended(err, artifact),
    };
    let Transcribed { attributed, speech, enrolled, kept } =
        words::heard(work, call, &artifact, transcript, speech).await?;
    let transcript = &attributed.transcript;
    let inputs = quality::Inputs {
        normalized: &normalized,
        signal: &signal,
        network: &call.network,
        leg: None,
        record_duration_ms: call.duration_ms,
        transcript: Some(transcript),
        method: attributed.method,
        speech: Some((&*speech, &attributed.legs)),
    };
    let mut quality = quality::assemble(&inputs);
    if call.ended_at_estimated {
        quality.flags.push(Flag::EndEstimated);
    }
    if transcript.redacted {
        quality.flags.push(Flag::Redacted);
    }
    work.boundary("audio").await;
    let derived = store(work, &normalized).await?;
    let after_version = work.record.transcript_version;
    let transcript = transcript.clone();
    let measured = Measured { original: artifact, derived, quality, transcript, kept, after_version, enrolled };
    let measured = note(work, &measured).await?;
    Ok(Media::Measured(Box::new(measured)))
}

/// An unusable recording is an outcome. A full disk or a cancelled decoder is a transient failure.
fn ended(err: AudioError, original: Artifact) -> Result<Media, Stop> {
    let Some(outcome) = err.outcome() else { return Err(err).at(Stage::Audio) };
    let flags = if outcome == Outcome::Damaged { vec![Flag::Damaged] } else { Vec::new() };
    Ok(Media::Ended { outcome, reason: Some(err.to_string()), original: Some(original), flags })
}

/// The result of an earlier attempt, if all its objects are still in the object store.
async fn earlier(work: &Work<'_>, original: &Artifact) -> Result<Option<Measured>, Stop> {
    let Some(progress) = work.record.progress.clone() else { return Ok(None) };
    let Ok(measured) = serde_json::from_value::<Measured>(progress) else { return Ok(None) };
    if measured.original != *original || measured.after_version != work.record.transcript_version {
        return Ok(None);
    }
    let derived: Vec<&Artifact> = measured.derived.iter().collect();
    let whole = object_check::first_lost(work.app, &derived).await.at(Stage::Audio)?.is_none();
    Ok(whole.then_some(measured))
}

/// The original in the spool: left there by the download, or fetched from the object store.
async fn local_copy(work: &Work<'_>, artifact: &Artifact, spool: &Path) -> Result<PathBuf, Stop> {
    let path = spool.join("original");
    let size = tokio::fs::metadata(&path).await.ok().map(|meta| meta.len());
    if size != Some(artifact.size_bytes) {
        work.app.objects.get_to_file(artifact, &path).await.at(Stage::Audio)?;
    }
    Ok(path)
}

type Decoded = (Normalized, quality::signal::MeasuredSignal, Speech);

async fn decode(work: &Work<'_>, input: &Path, container: Container, spool: PathBuf) -> Result<Decoded, AudioError> {
    let cancel = CancelFlag::default();
    let _stop = CancelOnDrop(cancel.clone());
    let settings = work.app.config.audio.clone();
    let input = input.to_owned();
    let slot = work.app.cpu.take(work.urgency()).await;
    let decoded = slot.compute(move |slot| {
        let cancel = cancel.between_blocks(move |asked| slot.yield_if_preempted(|| asked.is_cancelled()));
        let flac = spool.join("audio.flac");
        let request = audio::NormalizeRequest {
            input: &input,
            container,
            settings: &settings,
            spool: &spool,
            wav: None,
            flac: Some(&flac),
        };
        let mut meter = quality::signal::SignalMeter::new();
        let mut speech = SpeechSink::new(&settings, &spool);
        let normalized = audio::normalize(&request, &mut [&mut meter, &mut speech], &cancel)?;
        Ok((normalized, meter.finish(), speech.finish()?))
    });
    decoded.await.unwrap_or_else(|stopped| Err(AudioError::Internal { what: "decoder", cause: stopped.to_string() }))
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
