//! The job queue: River (one schema and API on SQLite and PostgreSQL) behind a small interface of our own. The
//! interface lets us test the product's guarantees here and replace the engine without a change to the jobs.
//!
//! Two things are added to River. A completion in the caller's transaction is fenced by job, attempt and worker. A dead
//! worker is detected by its missing heartbeat, not by the age of its jobs.
//!
//! Jobs wait in three lanes (live, backfill, maintenance), each with its own slots, so that a live call does not queue
//! behind a backfill. `app::cpu_slots` does the same for cores.

mod heartbeat;
mod inspect;
mod ownership;
mod progress;
mod put_off;
mod runner;
mod state;

pub use heartbeat::Requeued;
pub use inspect::{FinishedJobs, JobView};
pub use runner::{Handler, Lanes, Running, Timekeeping, Verdict};
pub use state::JobState;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use riverqueue::{Client, InsertOpts, JobArgs, UniqueOpts, WorkContext};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::ownership::OwnershipChecks;
use self::progress::Progress;
use crate::domain::{Classify, Fault, ParseError, Side, Stage};
use crate::store::{Db, Store, Tx, job_sql, last_worker, on_tx};

/// A queue failure.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("queue: {0}")]
    River(#[from] riverqueue::Error),
    #[error("queue: {0}")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error("queue: the transaction belongs to another database engine")]
    WrongEngine,
    #[error("queue: {0}")]
    Unreadable(String),
}

impl Classify for QueueError {
    fn fault(&self) -> Fault {
        match self {
            Self::River(_) | Self::Database(_) => Fault::Transient,
            Self::Store(err) => err.fault(),
            Self::WrongEngine | Self::Unreadable(_) => Fault::Permanent,
        }
    }

    fn side(&self) -> Side {
        Side::Database
    }
}

/// The lane of a job. Each lane has its own slots, so no lane waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Calls that have just ended.
    Live,
    /// Calls that a backfill enqueued.
    Backfill,
    /// Schedules, deliveries, retention.
    Maintenance,
}

impl Lane {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Backfill => "backfill",
            // The queue's rows name it so, and older workers look for it there.
            Self::Maintenance => "upkeep",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Live, Self::Backfill, Self::Maintenance].into_iter().find(|lane| lane.as_str() == text)
    }
}

macro_rules! kinds {
    ($($kind:ident $args:ident $word:literal;)+) => {
        /// The kinds of job. Every process registers all of them, so that a leader knows every kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $($kind,)+ }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The word in rows, logs and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $word,)+ }
            }
        }

        $(
            #[derive(Debug, Clone, Serialize, Deserialize, JobArgs)]
            #[river(kind = $word, unique(by_args))]
            pub(crate) struct $args {
                #[river(unique)]
                unique: String,
                subject: Option<String>,
                #[serde(default)]
                tenant: Option<String>,
                payload: Value,
            }
        )+

        async fn insert(client: &Client, tx: &mut Tx, new: NewJob) -> Result<Enqueued, QueueError> {
            let options = new.options();
            let NewJob { kind, unique, subject, tenant, payload, .. } = new;
            match kind {
                $(Kind::$kind => {
                    let request = client.insert($args { unique, subject, tenant, payload }).opts(options);
                    let inserted = match tx {
                        Tx::Sqlite(tx) => request.tx(tx).await?,
                        Tx::Postgres(tx) => request.tx(tx).await?,
                    };
                    Ok(Enqueued { id: inserted.id(), duplicate: inserted.unique_skipped_as_duplicate })
                })+
            }
        }

        $(runner::work_with!($args, Kind::$kind);)+

        pub(crate) fn register(
            workers: &mut riverqueue::Workers,
            runner: &runner::Runner,
        ) -> Result<(), riverqueue::Error> {
            $(workers.add::<$args, _>(runner.clone())?;)+
            Ok(())
        }
    };
}

kinds! {
    ProcessCall ProcessCallArgs "process_call";
    Deliver DeliverArgs "deliver";
    Backfill BackfillArgs "backfill";
    Reconcile ReconcileArgs "reconcile";
    RetentionSweep RetentionSweepArgs "retention_sweep";
    EraseCall EraseCallArgs "erase_call";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let found = Self::ALL.iter().copied().find(|kind| kind.as_str() == text);
        found.ok_or(ParseError::new("job kind", "is none of the known kinds"))
    }
}

/// Unfinished jobs of one tenant and lane that keep their priority. It is about the number of jobs that one worker runs
/// at once.
const IN_FRONT: i64 = 8;
/// River's lowest priority.
const LAST_PRIORITY: i16 = 4;

/// A job to enqueue.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub kind: Kind,
    /// Deduplication key. A job is not enqueued while an unfinished job of this kind has the same key.
    pub unique: String,
    /// Our id of the job's subject, to find its jobs. Never a platform's id or a phone number.
    pub subject: Option<String>,
    /// The tenant of the job. Only a limited number of one tenant's jobs keep their priority. Further jobs get a lower
    /// one.
    pub tenant: Option<String>,
    pub payload: Value,
    pub lane: Lane,
    /// 1 (first) to 4.
    pub priority: i16,
    pub max_attempts: u16,
}

impl NewJob {
    fn options(&self) -> InsertOpts {
        use riverqueue::JobState::{Available, Pending, Retryable, Running, Scheduled};
        // By default River counts a completed job as a duplicate. Here the record's outcome decides that.
        let unfinished = [Available, Pending, Retryable, Running, Scheduled];
        InsertOpts::default()
            .with_queue(self.lane.as_str())
            .with_priority(self.priority)
            .with_max_attempts(i32::from(self.max_attempts))
            .with_unique(UniqueOpts::new().with_by_args(true).with_by_state(unfinished))
    }
}

/// Result of an enqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    pub id: i64,
    /// An unfinished job with the same key exists. Nothing was added.
    pub duplicate: bool,
}

/// Why a job failed. Dead letters show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub stage: Option<Stage>,
    /// `transient`, `throttled`, `permanent`.
    pub fault: String,
    pub side: Side,
    /// The chain of causes, outermost first.
    pub cause: String,
}

/// A job during an attempt.
#[derive(Debug)]
pub struct JobAttempt {
    pub id: i64,
    pub kind: Kind,
    pub payload: Value,
    pub lane: Lane,
    /// Number of starts, including this one.
    pub attempt: i32,
    pub max_attempts: i32,
    /// Number of attempts that came too early: [`Verdict::SnoozeCounted`] so far.
    pub snoozes: u32,
    /// Since when every attempt was throttled, milliseconds since 1970.
    pub throttled_since: Option<i64>,
    /// Cancelled when the worker must stop now.
    pub cancelled: CancellationToken,
    ticket: Ticket,
    progress: Progress,
}

/// Fencing token: only this attempt of this worker may complete the job.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    pub(crate) job: i64,
    pub(crate) attempt: i32,
    pub(crate) worker: String,
    context: Option<ContextDebug>,
}

/// River's context has no useful debug output.
#[derive(Clone)]
struct ContextDebug(WorkContext);

impl fmt::Debug for ContextDebug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkContext")
    }
}

/// The queue.
#[derive(Clone)]
pub struct Queue {
    client: Client,
    store: Store,
    ownership_checks: Arc<OwnershipChecks>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

impl Queue {
    /// Opens the queue in the store's database. The store has migrated its tables.
    pub fn open(store: &Store) -> Result<Self, QueueError> {
        let client = match store.db() {
            Db::Sqlite(pool) => Client::builder(pool.clone()).build()?,
            Db::Postgres(pool) => Client::builder(pool.clone()).build()?,
        };
        Ok(Self { client, store: store.clone(), ownership_checks: Arc::default() })
    }

    /// Enqueues a job in the caller's transaction. The job exists if and only if the transaction commits.
    pub async fn enqueue(&self, tx: &mut Tx, mut new: NewJob) -> Result<Enqueued, QueueError> {
        if let Some(tenant) = &new.tenant
            && self.crowded(tx, tenant, new.lane, new.priority).await?
        {
            new.priority = (new.priority + 1).min(LAST_PRIORITY);
        }
        insert(&self.client, tx, new).await
    }

    /// True when a tenant has the maximum number of unfinished jobs of this priority. Workers fetch by priority, so one
    /// tenant's hundred thousand jobs do not delay another tenant's single job.
    async fn crowded(&self, tx: &mut Tx, tenant: &str, lane: Lane, priority: i16) -> Result<bool, QueueError> {
        let crowd = job_sql!(
            tx,
            "SELECT COUNT(*) FROM (SELECT 1 FROM job WHERE finalized_at IS NULL AND tenant = $1 AND queue = $2 \
             AND priority = $3 LIMIT $4) AS front"
        );
        let count: i64 = on_tx!(tx, |conn| sqlx::query_scalar(crowd)
            .bind(tenant)
            .bind(lane.as_str())
            .bind(priority)
            .bind(IN_FRONT)
            .fetch_one(conn)
            .await?);
        Ok(count >= IN_FRONT)
    }

    /// Completes a job in the caller's transaction. False when another attempt owns the job. Then the caller must roll
    /// back and write nothing.
    pub async fn complete(&self, tx: &mut Tx, job: &JobAttempt) -> Result<bool, QueueError> {
        if !self.holds_ticket(tx, &job.ticket).await? {
            return Ok(false);
        }
        let Some(ContextDebug(context)) = &job.ticket.context else { return Ok(false) };
        match tx {
            Tx::Sqlite(tx) => context.job_complete_tx(tx).await?,
            Tx::Postgres(tx) => context.job_complete_tx(tx).await?,
        };
        Ok(true)
    }

    async fn holds_ticket(&self, tx: &mut Tx, ticket: &Ticket) -> Result<bool, QueueError> {
        macro_rules! sql {
            ($engine:ident, $lock:literal) => {
                concat!(
                    "SELECT id FROM river_job WHERE id = $1 AND state = 'running' AND attempt = $2 AND ",
                    last_worker!($engine),
                    " = $3",
                    $lock
                )
            };
        }
        // SQLite's transaction already holds the only write lock.
        let held = tx.sql(sql!(sqlite, ""), sql!(postgres, " FOR UPDATE"));
        let found: Option<i64> = on_tx!(tx, |conn| sqlx::query_scalar(held)
            .bind(ticket.job)
            .bind(ticket.attempt)
            .bind(&ticket.worker)
            .fetch_optional(conn)
            .await?);
        Ok(found.is_some())
    }
}
