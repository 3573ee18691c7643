//! Runs jobs: River's client with our own verdicts.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use riverqueue::{
    Client, MaintenanceConfig, QueueConfig, Retention, WorkCancelled, WorkContext, WorkError, WorkOutcome, Workers,
};
use serde_json::Value;
use tracing::{Instrument, Span};

use super::ownership::Ownership;
use super::progress::{PROGRESSED, Progress};
use super::{ContextDebug, Failure, JobAttempt, Kind, Lane, Queue, QueueError, Ticket};
use crate::config;
use crate::domain::Side;
use crate::store::Db;
use crate::telemetry;

/// Time limit of every job. A job that exceeds it hangs despite its own limits.
const JOB_TIMEOUT: Duration = Duration::from_secs(8 * 3600);
/// River's own requeue by age. It must be later than the job timeout, and far later than our requeue by heartbeat.
const RESCUE_BY_AGE: Duration = Duration::from_secs(12 * 3600);
/// Time between two checks of a job that another attempt owns.
const LOOK: Duration = Duration::from_secs(1);
/// Metadata key of the number of early attempts.
pub(super) const SNOOZES: &str = "looks";
/// Metadata key that marks a failed job which River stores as snoozed.
const RETRYING: &str = "retrying";
/// Metadata key of the time since which the job is throttled.
pub(super) const THROTTLED_SINCE: &str = "throttled_since";

/// Result of an attempt.
#[derive(Debug)]
pub enum Verdict {
    /// Done. The handler completed the job in its own transaction, or it had nothing to write.
    Complete,
    /// Snooze because it was too early. It uses no attempt, and it is counted in [`JobAttempt::snoozes`].
    SnoozeCounted(Duration),
    /// Snooze until a known time. It uses no attempt.
    Snooze(Duration),
    /// Another side asked for a pause. It uses no attempt, and the job shows the failure meanwhile.
    Throttled { failure: Failure, after: Duration, since_ms: i64 },
    /// Retry after this pause while attempts are left.
    Retry { failure: Failure, after: Duration },
    /// A retry cannot help.
    DeadLetter(Failure),
    /// Another attempt owns the job, or retention owns its call. Nothing must be written.
    Fenced,
    /// The worker was stopped. The job is requeued and the attempt is not counted.
    Interrupted,
}

/// Carries out jobs.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Runs one attempt.
    async fn run(&self, job: JobAttempt) -> Verdict;

    /// Tracing span of all log lines of the attempt.
    fn span(&self, job: &JobAttempt) -> Span {
        tracing::info_span!("job", job.id = job.id, job.kind = %job.kind, job.attempt = job.attempt)
    }
}

/// Whether this machine's clock agrees with the database's clock. The queue compares times by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timekeeping {
    Right,
    /// The clocks differ. This worker is never the leader, and the database computes the times of its jobs.
    Wrong,
}

/// Slots per lane.
#[derive(Debug, Clone, Copy)]
pub struct Lanes {
    pub live: usize,
    pub backfill: usize,
    pub maintenance: usize,
}

/// The error that River records for a failed attempt. It carries its own pause.
#[derive(Debug, Clone)]
struct RetryLater {
    cause: String,
    after: Duration,
}

impl fmt::Display for RetryLater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for RetryLater {}

/// Passes River's jobs to the handler.
#[derive(Clone)]
pub(crate) struct Runner {
    handler: Arc<dyn Handler>,
    queue: Queue,
    worker: String,
    backoff_base: Duration,
    backoff_max: Duration,
    timekeeping: Timekeeping,
}

macro_rules! work_with {
    ($args:ident, $kind:expr) => {
        impl riverqueue::Worker<$args> for $crate::queue::runner::Runner {
            type Error = riverqueue::BoxError;

            fn next_retry(
                &self,
                _job: &riverqueue::Job<$args>,
                error: &riverqueue::WorkError,
                _now: jiff::Timestamp,
            ) -> Option<std::time::Duration> {
                $crate::queue::runner::pause_of(error)
            }

            async fn work(
                &self,
                context: riverqueue::WorkContext,
                job: riverqueue::Job<$args>,
            ) -> Result<riverqueue::WorkOutcome, riverqueue::BoxError> {
                self.attempt(context, $kind, &job.row, job.args.payload.clone()).await
            }
        }
    };
}
pub(crate) use work_with;

pub(crate) fn pause_of(error: &WorkError) -> Option<Duration> {
    error.downcast_ref::<RetryLater>().map(|later| later.after)
}

impl Runner {
    pub(crate) async fn attempt(
        &self,
        context: WorkContext,
        kind: Kind,
        row: &riverqueue::JobRow,
        payload: Value,
    ) -> Result<WorkOutcome, riverqueue::BoxError> {
        let ticket = Ticket {
            job: row.id,
            attempt: row.attempt,
            worker: self.worker.clone(),
            context: Some(ContextDebug(context.clone())),
        };
        let snoozes = row.metadata.get::<u32>(SNOOZES).ok().flatten().unwrap_or(0);
        let throttled_since = row.metadata.get::<i64>(THROTTLED_SINCE).ok().flatten();
        let progress = Progress::since(row.metadata.get::<i32>(PROGRESSED).ok().flatten().unwrap_or(0));
        let job = JobAttempt {
            id: row.id,
            kind,
            payload,
            lane: Lane::parse(&row.queue).unwrap_or(Lane::Live),
            attempt: row.attempt,
            max_attempts: row.max_attempts,
            snoozes,
            throttled_since,
            cancelled: context.cancellation_token().clone(),
            ticket,
            progress: progress.clone(),
        };
        let span = self.handler.span(&job);
        self.carry_out(&context, job, row, &progress).instrument(span).await
    }

    async fn carry_out(
        &self,
        context: &WorkContext,
        job: JobAttempt,
        row: &riverqueue::JobRow,
        progress: &Progress,
    ) -> Result<WorkOutcome, riverqueue::BoxError> {
        let (cancelled, ticket) = (job.cancelled.clone(), job.ticket.clone());
        let (snoozes, throttled_since) = (job.snoozes, job.throttled_since);
        let verdict = tokio::select! {
            verdict = AssertUnwindSafe(self.handler.run(job)).catch_unwind() => {
                verdict.unwrap_or_else(|_| self.panicked(row, progress))
            }
            // Dropping the handler's future stops it at its next await. An open transaction is rolled back.
            () = cancelled.cancelled() => Verdict::Interrupted,
        };
        if throttled_since.is_some() && !matches!(verdict, Verdict::Throttled { .. }) {
            context.metadata_set(THROTTLED_SINCE, Value::Null)?;
        }
        if row.metadata.get::<bool>(RETRYING).ok().flatten().is_some() {
            context.metadata_set(RETRYING, Value::Null)?;
        }
        let ownership = self.ownership(context, &ticket).await;
        if ownership == Ownership::Mine
            && self.timekeeping == Timekeeping::Wrong
            && self.queue.put_off(&ticket, (row.max_attempts, snoozes), &verdict).await?
        {
            // The job has another state now, so River's completion matches no row.
            return Ok(WorkOutcome::Complete);
        }
        match (ownership, verdict) {
            (Ownership::Lost, _) => self.abandon(context, &ticket).await,
            // Ended: usually the handler's own transaction completed the job, so River's completion matches no row.
            // Fenced while the job is still ours: another owner has the call, so there is nothing to do.
            (Ownership::Ended, _) | (Ownership::Mine, Verdict::Complete | Verdict::Fenced) => Ok(WorkOutcome::Complete),
            (Ownership::Mine, Verdict::SnoozeCounted(pause)) => {
                context.metadata_set(SNOOZES, snoozes.saturating_add(1))?;
                Ok(WorkOutcome::Snooze(pause))
            }
            (Ownership::Mine, Verdict::Snooze(pause)) => Ok(WorkOutcome::Snooze(pause)),
            (Ownership::Mine, Verdict::Throttled { failure, after, since_ms }) => {
                context.metadata_set("failure", &failure)?;
                context.metadata_set(THROTTLED_SINCE, since_ms)?;
                Ok(WorkOutcome::Snooze(after))
            }
            (Ownership::Mine, Verdict::DeadLetter(failure)) => {
                context.metadata_set("failure", &failure)?;
                Ok(WorkOutcome::Discard)
            }
            (Ownership::Mine, Verdict::Retry { failure, after }) => {
                context.metadata_set("failure", &failure)?;
                if !progress.made() {
                    return Err(RetryLater { cause: failure.cause, after }.into());
                }
                // An attempt with progress uses none. River restores the attempt only for a snooze.
                context.metadata_set(RETRYING, true)?;
                Ok(WorkOutcome::Snooze(after))
            }
            (Ownership::Mine, Verdict::Interrupted) => Err(WorkCancelled.into()),
        }
    }

    /// A bug is retried like any failure. The panic message is dropped, because it may quote a transcript.
    fn panicked(&self, row: &riverqueue::JobRow, progress: &Progress) -> Verdict {
        tracing::error!(job.id = row.id, job.kind = row.kind, "the job panicked: a bug in this program");
        let doublings = u32::try_from(row.attempt - progress.before - 1).unwrap_or(0).min(20);
        let failure = Failure {
            stage: None,
            fault: "transient".to_owned(),
            side: Side::Worker,
            cause: "the job panicked: a bug in this program".to_owned(),
        };
        Verdict::Retry { failure, after: (self.backoff_base * 2_u32.pow(doublings)).min(self.backoff_max) }
    }

    /// Ownership check of the job. Without the database nothing could be recorded either, so it waits for the database.
    async fn ownership(&self, context: &WorkContext, ticket: &Ticket) -> Ownership {
        loop {
            match self.queue.ownership(ticket).await {
                Ok(ownership) => return ownership,
                Err(err) => telemetry::out_of_reach(Side::Database, &format!("cannot read a job's owner: {err}")),
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = context.cancellation_token().cancelled() => return Ownership::Mine,
            }
        }
    }

    /// River's own completion checks only `state = 'running'`. An answer now could end the job while its new owner
    /// works on it. So this waits until the new owner is done; then the answer matches no row.
    async fn abandon(&self, context: &WorkContext, ticket: &Ticket) -> Result<WorkOutcome, riverqueue::BoxError> {
        tracing::warn!(job.id = ticket.job, "another worker owns this job now; this worker leaves it");
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = context.cancellation_token().cancelled() => return Err(WorkCancelled.into()),
            }
            if matches!(self.queue.ownership(ticket).await, Ok(Ownership::Ended)) {
                return Ok(WorkOutcome::Complete);
            }
        }
    }
}

/// A running queue.
pub struct Running {
    handle: riverqueue::RunHandle,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Running")
    }
}

impl Running {
    /// Stops fetching and lets running jobs finish within the drain grace. Then it requeues them, uncounted.
    pub async fn drain(&mut self) -> Result<(), QueueError> {
        Ok(self.handle.stop().await?)
    }

    /// Returns a function that requests an immediate stop. [`Running::drain`] then returns soon.
    pub fn stopper(&self) -> impl Fn() + Send + 'static {
        let stopper = self.handle.stopper();
        move || stopper.stop_and_cancel()
    }

    /// Waits for the end of the queue. Without a stop it ends only on a failure.
    pub async fn wait(&mut self) -> Result<(), QueueError> {
        Ok(self.handle.wait().await?)
    }
}

/// Interval of the deletion of old finished jobs. It is short, so that they do not outlive their term by much.
fn cleaning(keep: Duration) -> Duration {
    (keep / 10).clamp(Duration::from_secs(1), Duration::from_secs(30))
}

impl Queue {
    /// Runs jobs as `worker`, which must be registered (see [`Queue::heartbeat`]). The machine's clock must be right.
    pub fn start(
        &self,
        worker: &str,
        handler: Arc<dyn Handler>,
        lanes: Lanes,
        settings: &config::Worker,
    ) -> Result<Running, QueueError> {
        self.start_keeping(worker, handler, lanes, settings, Timekeeping::Right)
    }

    /// As [`Queue::start`], on a machine whose clock may be wrong.
    pub fn start_keeping(
        &self,
        worker: &str,
        handler: Arc<dyn Handler>,
        lanes: Lanes,
        settings: &config::Worker,
        timekeeping: Timekeeping,
    ) -> Result<Running, QueueError> {
        let runner = Runner {
            handler,
            queue: self.clone(),
            worker: worker.to_owned(),
            backoff_base: settings.backoff_base.0,
            backoff_max: settings.backoff_max.0,
            timekeeping,
        };
        let mut workers = Workers::new();
        super::register(&mut workers, &runner)?;
        let builder = match self.store.db() {
            Db::Sqlite(pool) => Client::builder(pool.clone()),
            Db::Postgres(pool) => Client::builder(pool.clone()),
        };
        // A leader uses its own clock. With a wrong one it would requeue running jobs and delete new finished jobs.
        let builder = match timekeeping {
            Timekeeping::Right => builder,
            Timekeeping::Wrong => builder.without_leader_election(),
        };
        let lane = |slots: usize| {
            QueueConfig::new(slots)
                .with_fetch_poll_interval(settings.poll.0)
                .with_fetch_cooldown(settings.cooldown.0.max(Duration::from_millis(1)))
        };
        let finished = Retention::DeleteAfter(settings.keep_finished_jobs.0);
        let maintenance = MaintenanceConfig::default()
            .with_scheduler_interval(Duration::from_secs(1))
            .with_job_cleaner_interval(cleaning(settings.keep_finished_jobs.0))
            .with_completed_job_retention(finished)
            .with_cancelled_job_retention(finished)
            // Dead letters stay until an operator decides.
            .with_discarded_job_retention(Retention::Keep)
            .with_rescue_after(RESCUE_BY_AGE);
        let client = builder
            .id(worker)
            .workers(workers)
            // Jobs of kinds that only a newer build knows wait for that build, so they do not use up attempts here.
            .fetch_only_known_kinds(true)
            .fetch_cooldown(settings.cooldown.0.max(Duration::from_millis(1)))
            .job_timeout(JOB_TIMEOUT)
            .soft_stop_timeout(settings.drain_grace.0)
            .maintenance(maintenance)
            .queue(Lane::Live.as_str(), lane(lanes.live))
            .queue(Lane::Backfill.as_str(), lane(lanes.backfill))
            .queue(Lane::Maintenance.as_str(), lane(lanes.maintenance))
            .build()?;
        Ok(Running { handle: client.start()? })
    }
}
