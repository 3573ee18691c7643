//! Step 6: who said what, as far as the platform tells, else as far as an engine hears.

use crate::audio::speech::Speech;
use crate::domain::{Classify, Fault, SourceCall, Stage, Transcript};
use crate::jobs::process_call::Work;
use crate::jobs::{At, Stop};
use crate::transcript;
use crate::transcript::engine::EngineError;

/// The platform's turns as a transcript; empty with a reason where it gave none.
#[expect(clippy::unused_async, reason = "a step like the others")]
pub async fn from_platform(call: &SourceCall) -> Result<Transcript, Stop> {
    Ok(transcript::from_source(call))
}

/// The platform's words, their places found in the recording; where it gave none, what an engine hears. A model that
/// cannot be used is not the call's failure: everything else is done, and a backfill makes the words once it is mended.
pub async fn heard(work: &Work<'_>, call: &SourceCall, words: &Transcript, speech: Speech) -> Result<Transcript, Stop> {
    let language = call.language.clone().or_else(|| work.platform.settings.language.clone());
    let engines = work.app.engines.clone();
    let turn = work.app.speech.clone().acquire_owned().await;
    let permit = work.app.cpu.clone().acquire_owned().await;
    let given = words.clone();
    let task = tokio::task::spawn_blocking(move || {
        let _held = (turn, permit);
        transcript::from_audio(&engines, &given, &speech, language.as_deref())
    });
    let stopped = |err: tokio::task::JoinError| Err(EngineError::Inference { reason: format!("it stopped: {err}") });
    match task.await.unwrap_or_else(stopped) {
        Err(err) if err.fault() == Fault::Permanent => {
            tracing::error!(error = %err, "no words: the engine cannot be used");
            let reason = words.reason.clone().filter(|_| !words.utterances.is_empty());
            Ok(Transcript { reason: reason.or(Some(transcript::ENGINE_FAILED.to_owned())), ..words.clone() })
        }
        answer => answer.at(Stage::Transcript),
    }
}
