//! Step 6: who said what, as far as the platform tells, else as far as an engine hears; and who speaks when.

use crate::audio::speech::Speech;
use crate::domain::{Classify, Fault, SourceCall, Stage, Transcript};
use crate::jobs::process_call::Work;
use crate::jobs::{At, Stop};
use crate::transcript;
use crate::transcript::engine::EngineError;
use crate::transcript::{Attributed, Hints};

/// The platform's turns as a transcript; empty with a reason where it gave none.
#[expect(clippy::unused_async, reason = "a step like the others")]
pub async fn from_platform(call: &SourceCall) -> Result<Transcript, Stop> {
    Ok(transcript::from_source(call))
}

/// The platform's words, their places found in the recording; where it gave none, what an engine hears. Then the
/// speakers, placed on the audio. A model that cannot be used is not the call's failure: everything else is done, and a
/// backfill makes the words once it is mended.
pub async fn heard(
    work: &Work<'_>,
    call: &SourceCall,
    words: &Transcript,
    speech: Speech,
) -> Result<(Attributed, Speech), Stop> {
    let corrected = corrected(work).await?;
    let language = call.language.clone().or_else(|| work.platform.settings.language.clone());
    let engines = work.app.engines.clone();
    let channels = work.platform.settings.dual_channels;
    let agent_text = work.platform.settings.agent_text(call.agent_id.as_deref()).map(str::to_owned);
    let seats = (work.app.speech.take(work.urgency()).await, work.app.cpu.take(work.urgency()).await);
    let given = words.clone();
    let task = tokio::task::spawn_blocking(move || {
        let _held = seats;
        let words = match transcript::from_audio(&engines, &given, &speech, language.as_deref()) {
            Err(err) if err.fault() == Fault::Permanent => without_engine(given, &err),
            answer => answer?,
        };
        let attributed = transcript::attribute(words, &speech, Hints { channels, agent_text: agent_text.as_deref() });
        // What somebody has put right stands, however often the call is processed.
        let standing = |attributed: Attributed| match corrected {
            Some(corrected) => attributed.with(corrected),
            None => attributed,
        };
        Ok(attributed.map(|attributed| (standing(attributed), speech)))
    });
    let stopped = |err: tokio::task::JoinError| Err(EngineError::Inference { reason: format!("it stopped: {err}") });
    task.await.unwrap_or_else(stopped).at(Stage::Transcript)?.at(Stage::Transcript)
}

/// The newest transcript, where somebody has put its roles right.
async fn corrected(work: &Work<'_>) -> Result<Option<Transcript>, Stop> {
    if work.record.transcript_version == 0 {
        return Ok(None);
    }
    let newest = work.app.store.transcripts(work.record.uid).await.at(Stage::Transcript)?.pop();
    Ok(newest.map(|newest| newest.transcript).filter(transcript::is_corrected))
}

fn without_engine(words: Transcript, err: &EngineError) -> Transcript {
    tracing::error!(error = %err, "no words: the engine cannot be used");
    let reason = words.reason.clone().filter(|_| !words.utterances.is_empty());
    Transcript { reason: reason.or(Some(transcript::ENGINE_FAILED.to_owned())), ..words }
}
