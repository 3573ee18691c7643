//! Letting a call in: from a trigger, a backfill or a reconciliation, always the same way, always in one transaction
//! with the job it makes.

use crate::app::App;
use crate::domain::{CallStatus, Outcome, RetainUntil, RetentionState, SourceCall, SourceName};
use crate::jobs::Job;
use crate::queue::{Enqueued, JobState, Kind, Lane, NewJob, QueueError};
use crate::store::{Admitted, CallRecord, Finished, Store, StoreError, Tx};
use crate::telemetry;

/// What a seen call means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It needs a job.
    Due,
    /// There is nothing to do: it ended like this, now or before.
    Ended(Outcome),
    /// Not completed at the source.
    NotCompleted,
}

/// Whether a finished call is to be processed once more, as a new transcript version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    Never,
    Again,
}

/// Writes a listed call into its record and says what it means. Makes no job.
///
/// # Errors
/// [`StoreError`].
pub async fn see(
    app: &App,
    tx: &mut Tx,
    source: &SourceName,
    call: &SourceCall,
) -> Result<(Admission, Option<CallRecord>), StoreError> {
    if call.status == CallStatus::Unknown {
        metrics::counter!(telemetry::UNKNOWN_STATUS_TOTAL, "source" => source.to_string()).increment(1);
    }
    if call.status != CallStatus::Completed {
        return Ok((Admission::NotCompleted, None));
    }
    let now = app.now();
    let term = app.config.retention_term(source);
    let past = RetainUntil::of(call, now, term).at <= now;
    // Of a call that may not be kept, nothing but the bare facts is ever written.
    let bare = (past || call.opt_out).then(|| bare(call));
    let admitted = Admitted { source, call_id: &call.id, call: Some(bare.as_ref().unwrap_or(call)), now, term };
    let record = app.store.admit(tx, admitted).await?;
    let ended = match record.outcome {
        Some(outcome) if !reopens(outcome, call) => Some(outcome),
        Some(_) => {
            app.store.reopen(tx, record.uid).await?;
            None
        }
        None if record.retention_state != RetentionState::Active => Some(Outcome::Erased),
        None => unkept(call, past),
    };
    if let (Some(outcome), None) = (ended, record.outcome) {
        end_without_content(&app.store, tx, &record, outcome, now).await?;
    }
    Ok((ended.map_or(Admission::Due, Admission::Ended), Some(record)))
}

/// Ends that need no job because nothing of the call may or can be kept.
fn unkept(call: &SourceCall, past: bool) -> Option<Outcome> {
    if call.opt_out {
        Some(Outcome::OptedOut)
    } else if past {
        Some(Outcome::PastRetention)
    } else if call.eligible() {
        None
    } else {
        Some(Outcome::NotEligible)
    }
}

/// Whether the source now shows what an earlier end missed.
#[must_use]
pub fn reopens(outcome: Outcome, call: &SourceCall) -> bool {
    match outcome {
        Outcome::NoRecording => call.recording_url.is_some() || call.dual_url.is_some(),
        Outcome::NotEligible | Outcome::Vanished => call.eligible(),
        _ => false,
    }
}

/// Ids, times, status and organisation: all that is ever known of a call that may not be kept.
#[must_use]
pub fn bare(call: &SourceCall) -> SourceCall {
    SourceCall {
        agent_id: None,
        phone_number_id: None,
        from_number: None,
        to_number: None,
        cost: None,
        recording_url: None,
        dual_url: None,
        turns: Vec::new(),
        language: None,
        network: crate::domain::Network::default(),
        metadata: None,
        analysis: None,
        raw: serde_json::Value::Null,
        ..call.clone()
    }
}

/// Writes a terminal outcome for a call of which nothing is stored.
///
/// # Errors
/// [`StoreError`].
pub async fn end_without_content(
    store: &Store,
    tx: &mut Tx,
    record: &CallRecord,
    outcome: Outcome,
    now: jiff::Timestamp,
) -> Result<bool, StoreError> {
    let finished =
        Finished { outcome, reason: None, artifacts: &[], quality: None, flags: &[], transcript_version: None, now };
    store.finish_call(tx, record.uid, record.generation, &finished).await
}

/// Enqueues `process_call`; meets an unfinished one as a duplicate.
///
/// # Errors
/// [`QueueError`].
pub async fn enqueue(
    app: &App,
    tx: &mut Tx,
    record: &CallRecord,
    lane: Lane,
    repeat: Repeat,
) -> Result<Enqueued, QueueError> {
    let job = Job::ProcessCall { call: record.uid, again: repeat == Repeat::Again };
    let tenant = Some(record.org_uid.to_string());
    app.queue.enqueue(tx, NewJob { tenant, ..job.queued(app, lane) }).await
}

/// Whether the call's last `process_call` is a dead letter.
///
/// # Errors
/// [`QueueError`].
pub async fn is_dead_letter(app: &App, tx: &mut Tx, record: &CallRecord) -> Result<bool, QueueError> {
    let last = app.queue.last_state(tx, Kind::ProcessCall, &record.uid.to_string()).await?;
    Ok(last == Some(JobState::DeadLetter))
}
