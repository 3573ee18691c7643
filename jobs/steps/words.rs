//! Step 5: the words, from the platform or else from a speech engine, with speakers, roles and their times.

use std::time::Instant;

use super::audio::Sound;
use super::remote_stt;
use super::remote_stt::Kept;
use crate::audio::AudioError;
use crate::domain::{Classify, Enrolled, Fault, SourceCall, Stage, Transcript};
use crate::jobs::work::Work;
use crate::jobs::{At, Stop};
use crate::telemetry;
use crate::telemetry::Use;
use crate::transcript;
use crate::transcript::engine::EngineError;
use crate::transcript::{AgentVoice, Attributed, Hints};

/// The attributed words of a call.
pub(crate) struct Transcribed {
    pub attributed: Attributed,
    /// The speaker embedding for the enrolled voice of a synthetic agent.
    pub enrolled: Option<Enrolled>,
    /// Remote STT answers that are not yet part of a transcript.
    pub kept: Kept,
}

/// Aligns the platform's words to the recording. Without platform words, a local engine recognises them, or else a
/// remote STT service that is allowed for the organisation. Then speakers and roles are assigned. An unusable model
/// does not fail the call: the other steps run, and a backfill adds the words after the repair.
pub(crate) async fn attributed(work: &Work<'_>, call: &SourceCall, sound: &Sound) -> Result<Transcribed, Stop> {
    let speech = &sound.speech;
    let corrected = corrected(work).await?;
    let language = call.language.clone().or_else(|| work.platform.settings.language.clone());
    let engines = work.app.engines.clone();
    let channels = work.platform.settings.dual_channels;
    let agent_text = work.platform.settings.agent_text(call.agent_id.as_deref()).map(str::to_owned);
    let synthetic = work.platform.settings.synthetic_agent(call.agent_id.as_deref()).map(str::to_owned);
    let agent_voice = known_voice(work, synthetic.as_deref()).await?;
    let words = transcript::within(&transcript::from_source(call), speech);
    let words = if transcript::wants_engine(&words) {
        let (given, spoken, tongue) = (words.clone(), speech.clone(), language.clone());
        let turn = work.app.speech.take(work.urgency()).await;
        let here = work.compute(move || {
            let (_turn, begun) = (turn, Instant::now());
            let words = match transcript::from_audio(&engines, &given, &spoken, tongue.as_deref()) {
                Err(err) if err.fault() == Fault::Permanent => Ok(without_engine(given, &err)),
                answer => answer,
            };
            (words, begun.elapsed())
        });
        let (words, took) = here.await.at(Stage::Transcript)?;
        telemetry::used(Use::EngineMs, took.as_millis() as u64);
        words.at(Stage::Transcript)?
    } else {
        words
    };
    let nobody_here = words.utterances.is_empty() && words.reason.as_deref() == Some(transcript::NO_ENGINE);
    let (words, kept) = if nobody_here {
        Box::pin(remote_stt::words(work, call, &sound.original, (words, speech), language.as_deref())).await?
    } else {
        (words, Kept::default())
    };
    let (spoken, engines) = (speech.clone(), work.app.engines.clone());
    let placed = work.compute(move || {
        let (agent_text, agent_voice) = (agent_text.as_deref(), agent_voice.as_ref());
        let hints = Hints { engines: Some(&engines), channels, agent_text, agent_voice };
        let attributed = transcript::attribute(words, &spoken, hints)?;
        // A manual correction stays valid, however often the call is processed.
        let attributed = match corrected {
            Some(corrected) => attributed.with(corrected),
            None => attributed,
        };
        let enrolled = match synthetic {
            Some(agent_id) => {
                transcript::enroll(&attributed, &spoken)?.map(|embedding| Enrolled { agent_id, embedding })
            }
            None => None,
        };
        Ok::<_, AudioError>((attributed, enrolled))
    });
    let (attributed, enrolled) = placed.await.at(Stage::Transcript)?.at(Stage::Transcript)?;
    Ok(Transcribed { attributed, enrolled, kept })
}

/// The enrolled voice of a synthetic agent, from the agent's other calls. `None` for a human agent.
async fn known_voice(work: &Work<'_>, synthetic: Option<&str>) -> Result<Option<AgentVoice>, Stop> {
    let Some(agent_id) = synthetic else { return Ok(None) };
    let (store, record) = (&work.app.store, &work.record);
    let taught = store.agent_voice(&record.source, agent_id, transcript::VOICE_VERSION, record.uid).await;
    Ok(AgentVoice::of(&taught.at(Stage::Transcript)?))
}

/// The newest transcript, if a person has corrected its roles.
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
