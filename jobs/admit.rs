//! Letting a call in: from a trigger, a backfill or a reconciliation, always the same way, always in one transaction
//! with the job it makes.

use jiff::{SignedDuration, Timestamp};

use crate::app::App;
use crate::domain::{CallStatus, Outcome, RetainUntil, RetentionState, SourceCall, SourceName};
use crate::jobs::condemn::condemn;
use crate::jobs::{Job, Only};
use crate::queue::{Enqueued, JobState, Kind, Lane, NewJob, QueueError};
use crate::store::{Admitted, AuditEntry, CallRecord, Earlier, Finished, Store, StoreError, Tx};
use crate::telemetry;

/// An explained end is looked into again after this long.
const REOPEN_PAUSE: SignedDuration = SignedDuration::from_hours(1);

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
/// [`QueueError`].
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
    // Of a call that may not be kept, nothing but the bare facts is ever written.
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
                // Once more, now with a URL that can be used.
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

/// Whether an ended call may ever be taken up again: while it is kept, and after its record was scrubbed only where nothing
/// of it had ever been stored. What was erased stays erased, whatever its source says of it now.
#[must_use]
pub fn can_return(state: RetentionState, outcome: Outcome) -> bool {
    match state {
        RetentionState::Active => true,
        RetentionState::Condemned | RetentionState::Blocked => false,
        RetentionState::Erased => outcome == Outcome::PastRetention,
    }
}

/// How a call ended that is not kept any more: one of which nothing was stored was not erased.
pub(super) fn gone(earlier: Option<Earlier>) -> Outcome {
    match earlier {
        Some(Earlier { outcome: Outcome::PastRetention, .. }) => Outcome::PastRetention,
        _ => Outcome::Erased,
    }
}

/// Takes the end of a call back. One that was past its term loses the times that this rested on.
///
/// # Errors
/// [`StoreError`].
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
            detail: "nothing of it was ever stored, and its times are looked at again".to_owned(),
        };
        app.store.audit(tx, &entry).await?;
    }
    Ok(open)
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

/// Whether the source now shows what an earlier end missed. An end that was explained by what the source or its host
/// said is looked into again now and then only: the list may go on saying what the rest does not bear out.
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
        // A wish that nothing be stored is not undone by a row that leaves it out. The rest rests on the recording.
        _ => false,
    };
    shown && (!earlier.explained || now.duration_since(earlier.at) >= REOPEN_PAUSE)
}

/// Condemns what is stored of a call that opted out late, and enqueues its erasure. False while it is held.
///
/// # Errors
/// [`QueueError`].
pub(super) async fn withdraw(app: &App, tx: &mut Tx, record: &CallRecord) -> Result<bool, QueueError> {
    condemn(app, tx, record.uid, "source", "the call opted out of storage".to_owned()).await
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
    now: Timestamp,
) -> Result<bool, StoreError> {
    let finished = Finished {
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
    let job = Job::ProcessCall { call: record.uid, again: repeat == Repeat::Again, only: None };
    enqueue_job(app, tx, record, lane, &job).await
}

/// Enqueues a look at whether a finished call has opted out; meets an unfinished one as a duplicate.
///
/// # Errors
/// [`QueueError`].
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
///
/// # Errors
/// [`QueueError`].
pub async fn is_dead_letter(app: &App, tx: &mut Tx, record: &CallRecord) -> Result<bool, QueueError> {
    let last = app.queue.last_state(tx, Kind::ProcessCall, &record.uid.to_string()).await?;
    Ok(last == Some(JobState::DeadLetter))
}
