//! A trigger starts the processing of a call now. The API and the command line share it.

use serde::Serialize;

use crate::app::App;
use crate::domain::{CallId, CallUid, Fault, Outcome, RetentionState, Side, SourceName, Stage};
use crate::jobs::admit;
use crate::jobs::admit::Repeat;
use crate::jobs::{At, Stop, opt_out};
use crate::queue::Lane;
use crate::store::{Admitted, CallRecord};

/// PostgreSQL aborts one of two deadlocked transactions. A trigger may deadlock with the completion of the call's job.
/// The next try sees the completed job.
const TRIES: u32 = 3;

/// The result of a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerState {
    /// A job will process the call. It may be an unfinished job of an earlier trigger.
    Queued,
    /// The call has already ended. `again` makes a new transcript version.
    AlreadyDone,
    /// `again` was requested, but the call's content may not be kept.
    Refused,
    /// The call's content is erased or condemned.
    Erased,
}

/// The answer to a trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Triggered {
    /// Our id of the call.
    pub id: CallUid,
    pub call_id: CallId,
    pub source: SourceName,
    /// The job that processes the call, or that checks whether a finished call has opted out.
    pub job_id: Option<i64>,
    /// The job existed before.
    pub duplicate: bool,
    pub state: TriggerState,
    /// The call's outcome, if it has ended.
    pub outcome: Option<Outcome>,
}

impl Triggered {
    fn new(record: CallRecord, state: TriggerState) -> Self {
        let outcome = if state == TriggerState::Erased { Some(Outcome::Erased) } else { record.outcome };
        Self {
            id: record.uid,
            call_id: record.call_id,
            source: record.source,
            job_id: None,
            duplicate: false,
            state,
            outcome,
        }
    }

    /// The answer as text for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let ended = self.outcome.map_or("", Outcome::as_str);
        match (self.state, self.job_id) {
            (TriggerState::Queued, Some(job)) if self.duplicate => format!("already queued as job {job}"),
            (TriggerState::Queued, Some(job)) => format!("queued as job {job}"),
            (TriggerState::Queued, None) => "queued".to_owned(),
            (TriggerState::AlreadyDone, Some(job)) => {
                format!("it ended as {ended}; job {job} asks whether it has opted out since (once more with --again)")
            }
            (TriggerState::AlreadyDone, None) => format!("nothing to do, it ended as {ended} (once more with --again)"),
            (TriggerState::Refused, _) => format!("refused, nothing of it may be kept: {ended}"),
            (TriggerState::Erased, _) => "refused, it is erased".to_owned(),
        }
    }
}

/// Enqueues `process_call` for a call id; the job requests the call from its source. Idempotent: concurrent triggers
/// make one job. A finished call is processed again only with [`Repeat::Again`].
///
/// # Errors
/// [`Stop`]: permanent if the source is not in the configuration, transient if the database fails.
pub async fn trigger(app: &App, source: &SourceName, call_id: &CallId, repeat: Repeat) -> Result<Triggered, Stop> {
    if app.platform(source).is_none() {
        let cause = format!("source `{source}` is not in the configuration");
        return Err(Stop::trouble(None, Fault::Permanent, Side::Configuration, cause));
    }
    let mut tries = 1;
    loop {
        match once(app, source, call_id, repeat).await {
            Err(Stop::Trouble(trouble))
                if trouble.fault == Fault::Transient && !app.store.is_embedded() && tries < TRIES =>
            {
                tries += 1;
            }
            ended => return ended,
        }
    }
}

async fn once(app: &App, source: &SourceName, call_id: &CallId, repeat: Repeat) -> Result<Triggered, Stop> {
    let term = app.config.retention_term(source);
    let mut tx = app.store.begin().await.at(Stage::Source)?;
    let admitted = Admitted { source, call_id, call: None, now: app.now(), term };
    let mut record = app.store.admit(&mut tx, admitted).await.at(Stage::Source)?;
    let state = state_of(&record, repeat);
    if state == TriggerState::AlreadyDone && may_opt_out(app, &record) {
        // The trigger may be the platform's notice of an opt-out.
        let job = admit::enqueue_opt_out(app, &mut tx, &record).await.at(Stage::Source)?;
        tx.commit().await.at(Stage::Source)?;
        return Ok(Triggered { job_id: Some(job.id), duplicate: job.duplicate, ..Triggered::new(record, state) });
    }
    if state != TriggerState::Queued {
        return Ok(Triggered::new(record, state));
    }
    if record.outcome == Some(Outcome::PastRetention) {
        // The outcome is based on times from the source. The job requests them again.
        record = admit::reopen(app, &mut tx, &record).await.at(Stage::Source)?;
    }
    let job = admit::enqueue(app, &mut tx, &record, Lane::Live, repeat).await.at(Stage::Source)?;
    tx.commit().await.at(Stage::Source)?;
    Ok(Triggered { job_id: Some(job.id), duplicate: job.duplicate, ..Triggered::new(record, state) })
}

fn may_opt_out(app: &App, record: &CallRecord) -> bool {
    app.platform(&record.source).is_some_and(|platform| platform.source.tells_opt_out())
        && record.outcome.is_some_and(opt_out::concerns)
}

fn state_of(record: &CallRecord, repeat: Repeat) -> TriggerState {
    let returns = |outcome| admit::can_return(record.retention_state, outcome);
    if record.retention_state != RetentionState::Active && !record.outcome.is_some_and(returns) {
        return TriggerState::Erased;
    }
    match (record.outcome, repeat) {
        (Some(Outcome::Erased), _) => TriggerState::Erased,
        (Some(_), Repeat::Never) => TriggerState::AlreadyDone,
        (Some(Outcome::OptedOut), Repeat::Again) => TriggerState::Refused,
        (None, _) | (Some(_), Repeat::Again) => TriggerState::Queued,
    }
}
