//! The job kinds. This module defines how each kind is enqueued and how a fault becomes the next state of its job.

pub mod admit;
pub mod backfill;
mod backfill_feed;
pub mod backfill_plan;
pub mod backfill_status;
mod backfill_steering;
pub mod cancel;
mod capacity_warning;
mod condemn;
pub mod correct;
pub mod deliver;
pub mod erase_call;
pub mod object_check;
mod opt_out;
pub mod process_call;
pub mod reconcile;
mod redrive;
pub mod retention_sweep;
pub mod schedule;
mod steps;
mod stop;
pub mod trigger;
mod work;

pub use stop::{At, Stop, Trouble};

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing::field::Empty;

use crate::app::{ASK_BARRED_AGAIN, App};
use crate::domain::{CallUid, Fault, Outcome, SourceName};
use crate::queue;
use crate::queue::{Failure, Handler, Kind, Lane, NewJob, Verdict};
use crate::source::Precedence;
use crate::store::CallRecord;
use crate::telemetry;

/// A job, as its payload encodes it. A payload contains only our own ids, so that erasure has nothing to scrub in the
/// queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Job {
    /// Fetch, measure, transcribe and record one call. `again` makes a new transcript version of a finished call.
    ProcessCall {
        call: CallUid,
        again: bool,
        /// An earlier build ignores this field and completes the job of a finished call without work.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<Only>,
    },
    /// Send one outbox row to its receiver.
    Deliver { delivery: String, call: CallUid },
    /// Continue a backfill.
    Backfill { backfill: String },
    /// Account for every completed call of a source within a window.
    Reconcile { source: SourceName, from: Timestamp, to: Timestamp },
    /// Decide which calls are due and enqueue their erasure.
    RetentionSweep,
    /// Erase one condemned call.
    EraseCall { call: CallUid },
}

/// Restricts `process_call` to one part for a finished call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Only {
    /// Check whether the call has opted out since it was finished. If it has, condemn it.
    OptOut,
}

impl Job {
    const fn kind(&self) -> Kind {
        match self {
            Self::ProcessCall { .. } => Kind::ProcessCall,
            Self::Deliver { .. } => Kind::Deliver,
            Self::Backfill { .. } => Kind::Backfill,
            Self::Reconcile { .. } => Kind::Reconcile,
            Self::RetentionSweep => Kind::RetentionSweep,
            Self::EraseCall { .. } => Kind::EraseCall,
        }
    }

    /// The unique key. The queue keeps one unfinished job per kind and key.
    fn unique(&self) -> String {
        match self {
            // A separate key: this job must not count as a duplicate of the full processing of the call.
            Self::ProcessCall { call, only: Some(Only::OptOut), .. } => format!("opt_out {call}"),
            Self::ProcessCall { call, .. } | Self::EraseCall { call } => call.to_string(),
            Self::Deliver { delivery, .. } => delivery.clone(),
            Self::Backfill { backfill } => backfill.clone(),
            Self::Reconcile { source, .. } => source.to_string(),
            Self::RetentionSweep => "all".to_owned(),
        }
    }

    /// The call that the job processes.
    const fn call(&self) -> Option<CallUid> {
        match self {
            Self::ProcessCall { call, .. } | Self::EraseCall { call } | Self::Deliver { call, .. } => Some(*call),
            Self::Backfill { .. } | Self::Reconcile { .. } | Self::RetentionSweep => None,
        }
    }

    fn subject(&self) -> Option<String> {
        match self {
            Self::ProcessCall { call, .. } | Self::EraseCall { call } | Self::Deliver { call, .. } => {
                Some(call.to_string())
            }
            Self::Backfill { backfill } => Some(backfill.clone()),
            Self::Reconcile { source, .. } => Some(source.to_string()),
            Self::RetentionSweep => None,
        }
    }

    /// The job in the form that the queue stores.
    #[must_use]
    pub fn queued(&self, app: &App, lane: Lane) -> NewJob {
        let priority = match self {
            Self::EraseCall { .. } | Self::ProcessCall { .. } => 1,
            Self::Deliver { .. } | Self::RetentionSweep => 2,
            Self::Reconcile { .. } | Self::Backfill { .. } => 3,
        };
        NewJob {
            kind: self.kind(),
            unique: self.unique(),
            subject: self.subject(),
            tenant: None,
            payload: serde_json::to_value(self).unwrap_or_default(),
            lane,
            priority,
            max_attempts: app.config.worker.max_attempts,
        }
    }
}

/// Adds the platform's call id and the source to the current span, so that every log line of the job names the call.
fn named(record: &CallRecord) {
    let span = Span::current();
    span.record("call.id", record.call_id.as_str());
    span.record("call.source", record.source.as_str());
}

/// Runs every job that the queue hands out.
#[derive(Debug, Clone)]
pub struct Jobs(pub Arc<App>);

#[async_trait]
impl Handler for Jobs {
    async fn run(&self, job: queue::JobAttempt) -> Verdict {
        let started = Instant::now();
        let ended = self.dispatch(&job).await;
        let took = started.elapsed();
        self.verdict(&job, ended, took)
    }

    fn span(&self, job: &queue::JobAttempt) -> Span {
        let span = tracing::info_span!(
            "job",
            job.id = job.id,
            job.kind = %job.kind,
            job.attempt = job.attempt,
            trace.id = Empty,
            call.id = Empty,
            call.source = Empty,
        );
        let call = serde_json::from_value(job.payload.clone()).ok().and_then(|payload: Job| payload.call());
        if let Some(call) = call {
            span.record("trace.id", call.trace_id());
        }
        span
    }
}

impl Jobs {
    async fn dispatch(&self, job: &queue::JobAttempt) -> Result<&'static str, Stop> {
        let app = self.0.as_ref();
        let payload: Job = serde_json::from_value(job.payload.clone())
            .map_err(|err| Stop::permanent(format!("this build cannot read the job's payload: {err}")))?;
        match payload {
            // Boxed, because the future holds the state of every step and the queue moves futures.
            Job::ProcessCall { call, only: Some(Only::OptOut), .. } => opt_out::run(app, job, call).await,
            Job::ProcessCall { call, again, only: None } => Box::pin(process_call::run(app, job, call, again)).await,
            Job::Deliver { delivery, .. } => deliver::run(app, job, &delivery).await,
            Job::Backfill { backfill } => backfill::run(app, job, &backfill).await,
            Job::Reconcile { source, from, to } => reconcile::run(app, job, &source, from, to).await,
            Job::RetentionSweep => retention_sweep::run(app, job).await,
            Job::EraseCall { call } => erase_call::run(app, job, call).await,
        }
    }

    /// Logs a failure and maps its fault to the job's next state. This is the only place that does so.
    fn verdict(&self, job: &queue::JobAttempt, ended: Result<&'static str, Stop>, took: Duration) -> Verdict {
        let took_ms = took.as_millis() as u64;
        let trouble = match ended {
            Ok(outcome) => {
                self.0.health.worked();
                match job.kind {
                    // These kinds log their own results, and most runs find nothing.
                    Kind::Reconcile | Kind::RetentionSweep => tracing::debug!(outcome, took_ms, "job done"),
                    _ => tracing::info!(outcome, took_ms, "job done"),
                }
                count(job.kind, outcome);
                return Verdict::Complete;
            }
            Err(Stop::Snooze { after }) => {
                tracing::debug!(again_in_ms = after.as_millis() as u64, "not ready yet");
                return Verdict::SnoozeCounted(after);
            }
            Err(Stop::Fenced) => {
                count(job.kind, "fenced");
                return Verdict::Fenced;
            }
            Err(Stop::Barred(trouble)) => return self.barred(job, &trouble),
            Err(Stop::Trouble(trouble)) => trouble,
        };
        let failure = trouble.failure();
        let stage = failure.stage.map_or("", |stage| stage.as_str());
        let (cause, side) = (failure.cause.as_str(), failure.side.as_str());
        if trouble.fault == Fault::Transient {
            self.0.health.failed(trouble.side, cause);
        }
        match trouble.fault {
            Fault::Fenced => Verdict::Fenced,
            Fault::NotReady { until } => {
                let wait = until.duration_since(self.0.now());
                Verdict::Snooze(Duration::try_from(wait).unwrap_or_default().max(Duration::from_millis(100)))
            }
            Fault::Throttled { retry_after } => {
                tracing::warn!(stage, side, cause, wait_ms = retry_after.as_millis() as u64, "asked to wait");
                count(job.kind, "throttled");
                // The wait is at least the requested one. The spread avoids a burst of jobs. Its limit of 60 seconds
                // keeps a wait until midnight from growing by hours.
                let spread = (retry_after / 5).min(Duration::from_secs(60));
                let after = retry_after + spread.mul_f64(rand::random_range(0.0..1.0));
                let since_ms = job.throttled_since.unwrap_or_else(|| self.0.now().as_millisecond());
                Verdict::Throttled { failure, after, since_ms }
            }
            Fault::Transient if !job.is_last_attempt() => {
                let after = self.backoff(job.attempts_used());
                let again_in_ms = after.as_millis() as u64;
                // An outage hits every job, so that it is logged once for all of them.
                if telemetry::outage(trouble.side).is_some() {
                    telemetry::out_of_reach(trouble.side, cause);
                    tracing::debug!(stage, side, cause, again_in_ms, "job failed, will be tried again");
                } else {
                    tracing::warn!(stage, side, cause, again_in_ms, "job failed, will be tried again");
                }
                count(job.kind, "retry");
                Verdict::Retry { failure, after }
            }
            Fault::Transient | Fault::Permanent => {
                tracing::error!(
                    stage,
                    side,
                    cause,
                    attempts = job.attempt,
                    "job failed for good, kept as a dead letter"
                );
                count(job.kind, "dead_letter");
                Verdict::DeadLetter(failure)
            }
        }
    }

    /// Delays a job after a refused key. The first refusal was already logged as a warning.
    fn barred(&self, job: &queue::JobAttempt, trouble: &Trouble) -> Verdict {
        let failure = Failure { fault: "barred".to_owned(), ..trouble.failure() };
        tracing::debug!(cause = failure.cause, "the job waits until the key is corrected");
        count(job.kind, "barred");
        let since_ms = job.throttled_since.unwrap_or_else(|| self.0.now().as_millisecond());
        // The spread lets one job test the key first. The others then read its result.
        let after = ASK_BARRED_AGAIN + Duration::from_secs(5).mul_f64(rand::random_range(0.0..1.0));
        Verdict::Throttled { failure, after, since_ms }
    }

    /// Doubles from `backoff_base` up to `backoff_max`, with a jitter of 20 % in both directions.
    fn backoff(&self, attempt: i32) -> Duration {
        let worker = &self.0.config.worker;
        let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(0).min(20);
        jitter(worker.backoff_base.0.saturating_mul(2_u32.saturating_pow(doublings)).min(worker.backoff_max.0))
    }
}

fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.8..1.2))
}

/// Registers the counters with the value 0 at start, because a rate needs a first value.
pub fn count_from_zero(app: &App) {
    for kind in Kind::ALL {
        for outcome in ["retry", "throttled", "fenced", "dead_letter"] {
            metrics::counter!(telemetry::JOBS_TOTAL, "kind" => kind.as_str(), "outcome" => outcome).increment(0);
        }
    }
    for outcome in Outcome::ALL {
        let kind = Kind::ProcessCall.as_str();
        metrics::counter!(telemetry::JOBS_TOTAL, "kind" => kind, "outcome" => outcome.as_str()).increment(0);
    }
    for name in [
        telemetry::ERASED_TOTAL,
        telemetry::SWEEPS_REFUSED_TOTAL,
        telemetry::REQUEUED_TOTAL,
        telemetry::FETCHED_BYTES_TOTAL,
    ] {
        metrics::counter!(name).increment(0);
    }
    for source in app.platforms.keys() {
        for name in [telemetry::UNKNOWN_STATUS_TOTAL, telemetry::DELIVERY_FAILURES_TOTAL] {
            metrics::counter!(name, "source" => source.to_string()).increment(0);
        }
        for precedence in [Precedence::First, Precedence::Rest] {
            metrics::counter!(telemetry::SOURCE_REQUESTS_TOTAL,
                "source" => source.to_string(), "precedence" => precedence.as_str())
            .increment(0);
        }
    }
    metrics::gauge!(telemetry::WORKER_RESTING).increment(0.0);
}

fn count(kind: Kind, outcome: &'static str) {
    metrics::counter!(telemetry::JOBS_TOTAL, "kind" => kind.as_str(), "outcome" => outcome).increment(1);
}

impl Trouble {
    fn failure(&self) -> Failure {
        let fault = match self.fault {
            Fault::Transient => "transient",
            Fault::Throttled { .. } => "throttled",
            Fault::NotReady { .. } => "not_ready",
            Fault::Permanent => "permanent",
            Fault::Fenced => "fenced",
        };
        Failure { stage: self.stage, fault: fault.to_owned(), side: self.side, cause: self.cause.clone() }
    }
}
