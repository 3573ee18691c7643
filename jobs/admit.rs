//! Admission of a call: a trigger, a backfill or a reconciliation writes the call into its record here. The record and
//! the job that processes it are written in one transaction.

use jiff::{SignedDuration, Timestamp};

use crate::app::App;
use crate::domain::{CallStatus, Outcome, RetainUntil, RetentionState, SourceCall, SourceName};
use crate::jobs::condemn::condemn;
use crate::jobs::{Job, Only};
use crate::queue::{Enqueued, JobState, Kind, Lane, NewJob, QueueError};
use crate::store::{Admitted, AuditEntry, CallRecord, Earlier, FinishedCall, Store, StoreError, Tx};
use crate::telemetry;

/// The shortest time before an explained end is checked again.
const REOPEN_PAUSE: SignedDuration = SignedDuration::from_hours(1);

/// What must be done with a listed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The call needs a job.
    Due,
    /// The call needs no job. It has this outcome, from now or from an earlier run.
    Ended(Outcome),
    /// The call is not completed at the source.
    NotCompleted,
}

/// Whether a finished call is processed again, as a new transcript version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    Never,
    Again,
}

/// Writes a listed call into its record and returns what must be done with it. Enqueues no job.
pub async fn see(
    app: &App,
    tx: &mut Tx,
    source: &SourceName,
    call: &SourceCall,
) -> Result<(Admission, Option<CallRecord>), QueueError> {
    if call.status == CallStatus::Unknown {
        metrics::counter!(telemetry::UNKNOWN_STATUS_TOTAL, "source" => source.to_string()).increment(1);
    }
    if call.status != CallStatus::Completed {
        return Ok((Admission::NotCompleted, None));
    }
    let now = app.now();
    let term = app.config.retention_term(source);
    let past = RetainUntil::of(call, now, term).at <= now;
    // Only the basic fields of a call are written if its content may not be kept.
    let bare = (past || call.opt_out).then(|| bare(call));
    let admitted = Admitted { source, call_id: &call.id, call: Some(bare.as_ref().unwrap_or(call)), now, term };
    let record = app.store.admit(tx, admitted).await?;
    if call.opt_out && record.holds_content() && withdraw(app, tx, &record).await? {
        return Ok((Admission::Ended(Outcome::Erased), Some(record)));
    }
    let ended = match record.earlier() {
        Some(earlier) if can_return(record.retention_state, earlier.outcome) => {
            if reopens(earlier, call, now) {
                let open = reopen(app, tx, &record).await?;
                // The second write stores the recording URL, which is usable now.
                app.store.refresh(tx, &open, bare.as_ref().unwrap_or(call), now).await?;
                None
            } else {
                Some(earlier.outcome)
            }
        }
        earlier if record.retention_state != RetentionState::Active => Some(gone(earlier)),
        _ => unkept(call, past),
    };
    if let (Some(outcome), None) = (ended, record.outcome) {
        end_without_content(&app.store, tx, &record, outcome, now).await?;
    }
    Ok((ended.map_or(Admission::Due, Admission::Ended), Some(record)))
}

/// Whether an ended call may be processed again: while it is kept, or after the erasure of a record of which no content
/// was ever stored. An erased call stays erased, independent of its source.
#[must_use]
pub fn can_return(state: RetentionState, outcome: Outcome) -> bool {
    match state {
        RetentionState::Active => true,
        RetentionState::Condemned | RetentionState::Blocked => false,
        RetentionState::Erased => outcome == Outcome::PastRetention,
    }
}

/// The outcome of a call that is no longer kept. A call without stored content counts as past retention, not as erased.
pub(super) fn gone(earlier: Option<Earlier>) -> Outcome {
    match earlier {
        Some(Earlier { outcome: Outcome::PastRetention, .. }) => Outcome::PastRetention,
        _ => Outcome::Erased,
    }
}

/// Removes the outcome of a call. A call past retention also loses the times on which that outcome was based.
pub(super) async fn reopen(app: &App, tx: &mut Tx, record: &CallRecord) -> Result<CallRecord, StoreError> {
    if record.outcome != Some(Outcome::PastRetention) {
        app.store.reopen(tx, record.uid).await?;
        return Ok(CallRecord { outcome: None, ..record.clone() });
    }
    let now = app.now();
    let open = app.store.reopen_untouched(tx, record, now).await?;
    if record.retention_state == RetentionState::Erased {
        let entry = AuditEntry {
            at: now,
            actor: "source".to_owned(),
            action: "reopened".to_owned(),
            subject: record.uid.to_string(),
            detail: "nothing of it was ever stored, and its times are read again".to_owned(),
        };
        app.store.audit(tx, &entry).await?;
    }
    Ok(open)
}

/// Outcomes that need no job, because no content of the call may or can be kept.
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

/// Whether the source now has what was missing when the call ended. An outcome that the source or its host explained is
/// checked again at most once per hour, because the list may keep a URL that the host does not serve.
#[must_use]
pub fn reopens(earlier: Earlier, call: &SourceCall, now: Timestamp) -> bool {
    let shown = match earlier.outcome {
        Outcome::NoRecording => call.recording_url.is_some() || call.dual_url.is_some(),
        Outcome::RefusedUrl => {
            [&call.recording_url, &call.dual_url].into_iter().flatten().any(|url| url.as_url().is_ok())
        }
        Outcome::NotEligible | Outcome::Vanished => call.eligible(),
        Outcome::PastRetention => {
            call.eligible() && RetainUntil::of(call, earlier.first_seen_at, earlier.term).at > now
        }
        // A row without the opt-out field does not revoke an opt-out. The other outcomes depend on the recording
        // itself.
        _ => false,
    };
    shown && (!earlier.explained || now.duration_since(earlier.at) >= REOPEN_PAUSE)
}

/// Condemns the content of a call that opted out late, and enqueues its erasure. Returns false while a hold keeps the
/// call.
pub(super) async fn withdraw(app: &App, tx: &mut Tx, record: &CallRecord) -> Result<bool, QueueError> {
    condemn(app, tx, record.uid, "source", "the call opted out of storage".to_owned()).await
}

/// The call reduced to ids, times, status and organisation: the only fields stored of a call that may not be kept.
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

/// Writes a final outcome for a call without stored content. Returns false if another owner has the record.
async fn end_without_content(
    store: &Store,
    tx: &mut Tx,
    record: &CallRecord,
    outcome: Outcome,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let finished = FinishedCall {
        outcome,
        reason: None,
        artifacts: &[],
        quality: None,
        flags: &[],
        transcript_version: None,
        left: None,
        now,
    };
    store.finish_call(tx, record.uid, record.generation, &finished).await
}

/// Enqueues `process_call`. An unfinished job of the call makes it a duplicate.
pub async fn enqueue(
    app: &App,
    tx: &mut Tx,
    record: &CallRecord,
    lane: Lane,
    repeat: Repeat,
) -> Result<Enqueued, QueueError> {
    let job = Job::ProcessCall { call: record.uid, again: repeat == Repeat::Again, only: None };
    enqueue_job(app, tx, record, lane, &job).await
}

/// Enqueues a check whether a finished call has opted out. An unfinished check makes it a duplicate.
pub(super) async fn enqueue_opt_out(app: &App, tx: &mut Tx, record: &CallRecord) -> Result<Enqueued, QueueError> {
    let job = Job::ProcessCall { call: record.uid, again: false, only: Some(Only::OptOut) };
    enqueue_job(app, tx, record, Lane::Live, &job).await
}

async fn enqueue_job(
    app: &App,
    tx: &mut Tx,
    record: &CallRecord,
    lane: Lane,
    job: &Job,
) -> Result<Enqueued, QueueError> {
    let tenant = Some(record.org_uid.to_string());
    app.queue.enqueue(tx, NewJob { tenant, ..job.queued(app, lane) }).await
}

/// Whether the call's last `process_call` is a dead letter.
pub async fn is_dead_letter(app: &App, tx: &mut Tx, record: &CallRecord) -> Result<bool, QueueError> {
    let last = app.queue.last_state(tx, Kind::ProcessCall, &record.uid.to_string()).await?;
    Ok(last == Some(JobState::DeadLetter))
}
