//! Step 4: decode the recording, repair its timeline, normalise it to 48 kHz mono and find the speech. A recording that
//! comes short is requested again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fetch::spool_failure;
use super::growth;
use super::keep;
use super::media::Media;
use super::original::StoredOriginal;
use crate::audio;
use crate::audio::speech::{Speech, SpeechSink};
use crate::audio::{AudioError, CancelFlag, Normalized};
use crate::domain::quality::Flag;
use crate::domain::{Artifact, Container, Outcome, SourceCall, Stage};
use crate::jobs::work::Work;
use crate::jobs::{At, Stop};
use crate::quality;

/// The result of the step.
pub(crate) enum Audio {
    Normalized(Box<Sound>),
    /// The recording cannot be used, for a reason that is an outcome.
    Unusable(Media),
}

/// A decoded recording. Its normalised files are in the spool.
pub(crate) struct Sound {
    pub original: Artifact,
    pub normalized: Normalized,
    pub signal: quality::signal::MeasuredSignal,
    pub speech: Arc<Speech>,
}

/// Cancels the decoder when the attempt is dropped, because a blocking task does not stop by itself.
struct CancelOnDrop(CancelFlag);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Decodes and normalises the recording.
pub(crate) async fn normalize(work: &mut Work<'_>, call: &SourceCall, original: StoredOriginal) -> Result<Audio, Stop> {
    let StoredOriginal { mut artifact, mut container, mut fresh } = original;
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
            growth::Looked::Replaced => (artifact, container) = keep::stored(work).unwrap_or((artifact, container)),
        }
    };
    match decoded {
        Ok((normalized, signal, speech)) => {
            let speech = Arc::new(speech);
            Ok(Audio::Normalized(Box::new(Sound { original: artifact, normalized, signal, speech })))
        }
        Err(err) => unusable(err, artifact),
    }
}

/// An unusable recording is an outcome. A full disk or a cancelled decoder is a transient failure.
fn unusable(err: AudioError, original: Artifact) -> Result<Audio, Stop> {
    let Some(outcome) = err.outcome() else { return Err(err).at(Stage::Audio) };
    let flags = if outcome == Outcome::Damaged { vec![Flag::Damaged] } else { Vec::new() };
    let reason = Some(err.to_string());
    Ok(Audio::Unusable(Media::Ended { outcome, reason, original: Some(original), flags }))
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
