//! Step 8: record outcome, job completion and pending delivery, in one fenced transaction.

use std::time::Duration;

use super::growth;
use super::media::Media;
use crate::app::App;
use crate::domain::quality::Flag;
use crate::domain::{Artifact, Enrolled, Outcome, Stage, Transcript};
use crate::jobs::work::Work;
use crate::jobs::{At, Stop, deliver};
use crate::quality;
use crate::queue::{self, Lane};
use crate::record_outcome;
use crate::record_outcome::Ending;
use crate::store::{AuditEntry, LedgerEntry, Pricing, Tx};
use crate::telemetry;
use crate::transcript;

/// Pause before a run starts again because its call was corrected meanwhile.
const CORRECTED_PAUSE: Duration = Duration::from_secs(1);

/// Finishes a call of which nothing may or can be stored.
pub(crate) async fn without_content(
    work: &Work<'_>,
    outcome: Outcome,
    reason: Option<String>,
) -> Result<&'static str, Stop> {
    let ending = Ending {
        outcome,
        reason,
        artifacts: &[],
        quality: None,
        flags: &[],
        transcript: None,
        left: None,
        now: work.app.now(),
    };
    commit(work, &ending, None, None).await?;
    work.drop_spool().await;
    Ok(outcome.as_str())
}

/// Finishes a processed call.
pub(crate) async fn record(
    work: &Work<'_>,
    media: &Media,
    words: &Transcript,
    stored: Vec<Artifact>,
) -> Result<&'static str, Stop> {
    let text = transcript::text(words);
    let (outcome, reason, flags, quality) = match media {
        Media::Measured(measured) => {
            let missing = words.reason.as_deref().filter(|_| text.is_none());
            let outcome = match missing {
                _ if text.is_some() => Outcome::Done,
                Some(transcript::NO_SPEECH) => Outcome::NoSpeech,
                _ => Outcome::NoEngine,
            };
            // A reason equal to the outcome's name adds no information.
            let reason = missing.filter(|reason| *reason != outcome.as_str()).map(str::to_owned);
            (outcome, reason, measured.quality.flags.as_slice(), Some(&measured.quality))
        }
        Media::Ended { outcome, reason, flags, .. } => (*outcome, reason.clone(), flags.as_slice(), None),
    };
    let quality = quality.map(quality::document);
    let flags: Vec<String> = flags.iter().map(|flag: &Flag| flag.as_str().to_owned()).collect();
    let ending = Ending {
        outcome,
        reason,
        artifacts: &stored,
        quality: quality.as_ref(),
        flags: &flags,
        transcript: text.as_deref().map(|text| (words, text)),
        left: match media {
            Media::Measured(measured) => measured.kept.left(),
            Media::Ended { .. } => None,
        },
        now: work.app.now(),
    };
    let target = work.platform.settings.delivery.target();
    let enrolled = match media {
        Media::Measured(measured) => measured.enrolled.as_ref(),
        Media::Ended { .. } => None,
    };
    commit(work, &ending, target, enrolled).await?;
    work.drop_spool().await;
    Ok(outcome.as_str())
}

/// Rank of an outcome: 3 for words and measurements, 2 for measurements, 1 for a stored original, 0 for a reason alone.
const fn worth(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Done => 3,
        Outcome::NoSpeech | Outcome::NoEngine => 2,
        Outcome::Damaged | Outcome::TooLong | Outcome::UnsupportedMedia => 1,
        _ => 0,
    }
}

async fn commit(
    work: &Work<'_>,
    ending: &Ending<'_>,
    target: Option<&'static str>,
    enrolled: Option<&Enrolled>,
) -> Result<(), Stop> {
    let app = work.app;
    if work.record.outcome.is_some_and(|earlier| worth(earlier) > worth(ending.outcome)) {
        // This run repeated a finished call, and the source has less data now. The better result stays.
        tracing::warn!(
            outcome = ending.outcome.as_str(),
            "this run brought less than the record has; the record is unchanged"
        );
        return less(work, ending).await;
    }
    let mut tx = app.store.begin().await.at(Stage::Writeback)?;
    let written = record_outcome::write(&app.store, &app.queue, &mut tx, work.job, &work.record, ending).await;
    let Some(version) = written.at(Stage::Writeback)? else {
        drop(tx);
        work.withdraw().await;
        return Err(Stop::Fenced);
    };
    if ending.transcript.is_some() && version != work.record.transcript_version + 1 {
        // A person corrected the roles during this run. The run starts again and keeps the correction.
        drop(tx);
        forget(work, ending).await?.commit().await.at(Stage::Writeback)?;
        return Err(Stop::Snooze { after: CORRECTED_PAUSE });
    }
    let engine = ending.transcript.and_then(|(words, _)| words.engine.as_ref()).map(|engine| engine.name.as_str());
    let entry = LedgerEntry {
        at: ending.now,
        source: &work.record.source,
        org: work.record.org_uid,
        call: work.record.uid,
        ended: ending.outcome.as_str(),
        used: &telemetry::used_so_far(),
        audio_ms: ending.quality.and_then(|quality| quality["duration_ms"].as_u64()).unwrap_or(0),
        engine,
        // The cost of remote STT was entered with each answer. Local engines and the platform's words cost nothing.
        pricing: match app.config.engine.iter().find(|settings| Some(settings.name.as_str()) == engine) {
            Some(settings) if settings.price_per_minute.is_none() => Pricing::Unpriced,
            Some(_) => Pricing::Cost { micros: 0 },
            None => Pricing::Free,
        },
    };
    app.store.enter_ledger(&mut tx, &entry).await.at(Stage::Writeback)?;
    enroll(work, &mut tx, enrolled, ending.now).await?;
    if let Some(target) = target {
        deliver::add_pending(app, &mut tx, target, (work.record.uid, version), Lane::Maintenance).await?;
    }
    work.boundary("before_commit").await;
    tx.commit().await.at(Stage::Writeback)?;
    work.boundary("writeback").await;
    Ok(())
}

/// Stores the speaker embedding of this call for its synthetic agent. It replaces the call's earlier embedding.
async fn enroll(work: &Work<'_>, tx: &mut Tx, enrolled: Option<&Enrolled>, now: jiff::Timestamp) -> Result<(), Stop> {
    let (store, record) = (&work.app.store, &work.record);
    let Some(enrolled) = enrolled else { return store.unenroll_agent_voice(tx, record.uid).await.at(Stage::Writeback) };
    if store.enroll_agent_voice(tx, record.uid, &record.source, enrolled, now).await.at(Stage::Writeback)? {
        let Enrolled { agent_id, embedding } = enrolled;
        let entry = AuditEntry {
            at: now,
            actor: "worker".to_owned(),
            action: "agent_voice_learnt".to_owned(),
            subject: format!("{}/{agent_id}", record.source),
            detail: format!("figures of version {}, first of call {}", embedding.version, record.uid),
        };
        store.audit(tx, &entry).await.at(Stage::Writeback)?;
    }
    Ok(())
}

/// Completes a job that has no work to do.
pub(crate) async fn nothing(app: &App, job: &queue::JobAttempt) -> Result<(), Stop> {
    let mut tx = app.store.begin().await.at(Stage::Writeback)?;
    if !app.queue.complete(&mut tx, job).await.at(Stage::Writeback)? {
        return Err(Stop::Fenced);
    }
    tx.commit().await.at(Stage::Writeback)
}

/// Completes a job and leaves the record unchanged.
async fn less(work: &Work<'_>, ending: &Ending<'_>) -> Result<(), Stop> {
    let mut tx = forget(work, ending).await?;
    if !work.app.queue.complete(&mut tx, work.job).await.at(Stage::Writeback)? {
        return Err(Stop::Fenced);
    }
    tx.commit().await.at(Stage::Writeback)
}

/// Removes this run's measurements from the progress, because the next run would otherwise reuse the inferior result.
/// Paid answers stay.
async fn forget(work: &Work<'_>, ending: &Ending<'_>) -> Result<Tx, Stop> {
    let record = &work.record;
    let left = growth::beside(record.progress.as_ref(), ending.left.clone().unwrap_or_default());
    let mut tx = work.app.store.begin().await.at(Stage::Writeback)?;
    let owned = work.app.store.set_progress(&mut tx, record.uid, record.generation, &left).await;
    if owned.at(Stage::Writeback)? { Ok(tx) } else { Err(Stop::Fenced) }
}
