//! Cancels a waiting job or a dead letter by hand. If the call has no other job, the call ends as cancelled with the
//! given reason. No schedule starts it again.

use crate::app::App;
use crate::domain::{CallUid, Outcome, RetentionState, Stage};
use crate::jobs::{At, Stop};
use crate::queue::{JobState, JobView, Kind};
use crate::store::{AuditEntry, CallRecord, FinishedCall, Tx};

/// The result of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    Job,
    /// The job and its call, which has no other job.
    JobAndCall,
    /// The job runs, has ended, or was changed meanwhile.
    NotWaiting,
    /// This kind cannot be cancelled here. The text names the command to use instead.
    Refused(&'static str),
}

/// Cancels a job and audits the actor and the reason.
///
/// # Errors
/// [`Stop`] if the database fails.
pub async fn cancel(app: &App, job: &JobView, by: &str, reason: Option<&str>) -> Result<Cancelled, Stop> {
    match job.known_kind() {
        Some(Kind::EraseCall) => return Ok(Cancelled::Refused("an erasure is stopped by `aftercall hold add`")),
        Some(Kind::Backfill) if job.state != JobState::DeadLetter => {
            return Ok(Cancelled::Refused("a backfill is stopped by `aftercall backfill cancel`"));
        }
        _ => {}
    }
    let call = job.subject.as_deref().and_then(|subject| CallUid::parse(subject).ok());
    let record = match call.filter(|_| job.known_kind() == Some(Kind::ProcessCall)) {
        Some(uid) => app.store.call(uid).await.at(Stage::Writeback)?,
        None => None,
    };
    let mut tx = app.store.begin().await.at(Stage::Writeback)?;
    // Lock order: the record before the job, as in all transactions.
    if let Some(record) = &record
        && !app.store.own_generation(&mut tx, record.uid, record.generation).await.at(Stage::Writeback)?
        && record.retention_state == RetentionState::Active
    {
        return Ok(Cancelled::NotWaiting);
    }
    if !app.queue.end(&mut tx, job.id).await.at(Stage::Writeback)? {
        return Ok(Cancelled::NotWaiting);
    }
    let ended = match &record {
        Some(record) => end_call(app, &mut tx, record, reason).await?,
        None => false,
    };
    let subject = job.subject.clone().unwrap_or_else(|| format!("job {}", job.id));
    let detail = format!("job {} ({}): {}", job.id, job.kind, reason.unwrap_or("no reason given"));
    let entry = AuditEntry { at: app.now(), actor: by.to_owned(), action: "job_cancelled".to_owned(), subject, detail };
    app.store.audit(&mut tx, &entry).await.at(Stage::Writeback)?;
    tx.commit().await.at(Stage::Writeback)?;
    Ok(if ended { Cancelled::JobAndCall } else { Cancelled::Job })
}

/// Ends the call unless it has an outcome or another unfinished job. Stored artifacts and paid answers stay on the
/// record.
async fn end_call(app: &App, tx: &mut Tx, record: &CallRecord, reason: Option<&str>) -> Result<bool, Stop> {
    let last = app.queue.last_state(tx, Kind::ProcessCall, &record.uid.to_string()).await.at(Stage::Writeback)?;
    if record.outcome.is_some() || !last.is_none_or(JobState::is_finished) {
        return Ok(false);
    }
    let finished = FinishedCall {
        outcome: Outcome::Cancelled,
        reason: reason.map(str::to_owned),
        artifacts: &record.artifacts,
        quality: record.quality.as_ref(),
        flags: &record.flags,
        transcript_version: None,
        left: record.progress.as_ref(),
        now: app.now(),
    };
    app.store.finish_call(tx, record.uid, record.generation, &finished).await.at(Stage::Writeback)
}
