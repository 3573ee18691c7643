//! Inspection and control of jobs: lists, dead letters, retry, cancel, due jobs.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use sqlx::FromRow;

use super::{Failure, JobState, Kind, Queue, QueueError};
use crate::domain::Stage;
use crate::store::{Tx, job_sql, on_pool, on_tx};

/// A job as listed.
#[derive(Debug, Clone)]
pub struct JobView {
    pub id: i64,
    pub kind: String,
    pub state: JobState,
    pub attempt: i64,
    pub max_attempts: i64,
    /// Our id of the job's subject.
    pub subject: Option<String>,
    pub payload: Value,
    pub failure: Option<Failure>,
    /// The latest error, where there is no [`Failure`].
    pub last_error: Option<String>,
    /// The job waits because another side asked for a pause.
    pub throttled: bool,
    pub next_at: Option<Timestamp>,
    pub queued_at: Option<Timestamp>,
    /// When its latest attempt began.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

#[derive(Debug, FromRow)]
struct JobRow {
    id: i64,
    kind: String,
    state: String,
    attempt: i64,
    max_attempts: i64,
    args: String,
    metadata: String,
    errors: Option<String>,
    next_ms: i64,
    created_ms: i64,
    attempted_ms: Option<i64>,
    finalized_ms: Option<i64>,
}

macro_rules! columns {
    () => {
        "SELECT id, kind, CAST(state AS TEXT) AS state, attempt, max_attempts, args, metadata, errors, next_ms, \
         created_ms, attempted_ms, finalized_ms FROM job "
    };
}

/// The states of unfinished jobs. A list of states can use the index on `state`, which does not contain `finalized_at`.
macro_rules! unfinished {
    () => {
        "('available', 'pending', 'retryable', 'running', 'scheduled')"
    };
}

impl Queue {
    /// Jobs, newest first: unfinished jobs and dead letters. With `finished` the others too.
    pub async fn jobs(&self, finished: FinishedJobs, limit: u64) -> Result<Vec<JobView>, QueueError> {
        let all = finished == FinishedJobs::Included;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let db = self.store.db();
        let wanted = job_sql!(
            db,
            columns!(),
            "WHERE ($1 OR finalized_at IS NULL OR state = 'discarded') ORDER BY id DESC LIMIT $2"
        );
        let rows: Vec<JobRow> =
            on_pool!(db, |pool| sqlx::query_as(wanted).bind(all).bind(limit).fetch_all(pool).await?);
        rows.into_iter().map(JobRow::read).collect()
    }

    /// Every job of a subject, newest first.
    pub async fn jobs_about(&self, subject: &str) -> Result<Vec<JobView>, QueueError> {
        let db = self.store.db();
        let about = job_sql!(db, columns!(), "WHERE subject = $1 ORDER BY id DESC");
        let rows: Vec<JobRow> = on_pool!(db, |pool| sqlx::query_as(about).bind(subject).fetch_all(pool).await?);
        rows.into_iter().map(JobRow::read).collect()
    }

    /// The state of the newest job of a kind and subject, read in the caller's transaction. A second connection could
    /// deadlock while all other connections wait for this transaction.
    pub async fn last_state(&self, tx: &mut Tx, kind: Kind, subject: &str) -> Result<Option<JobState>, QueueError> {
        let newest = job_sql!(
            tx,
            "SELECT CAST(state AS TEXT) FROM job WHERE subject = $1 AND kind = $2 ORDER BY id DESC LIMIT 1"
        );
        let state: Option<String> = on_tx!(tx, |conn| sqlx::query_scalar(newest)
            .bind(subject)
            .bind(kind.as_str())
            .fetch_optional(conn)
            .await?);
        Ok(state.as_deref().map(JobState::of))
    }

    /// Makes a dead letter, or a job that waits between attempts, available now. False when the job is neither. False
    /// also when the same work was enqueued again and is unfinished.
    pub async fn retry(&self, id: i64) -> Result<bool, QueueError> {
        match self.client.jobs().get(id).await {
            Ok(job) if matches!(JobState::of(&job.state.to_string()), JobState::Completed | JobState::Running) => {
                Ok(false)
            }
            Ok(_) => match self.client.jobs().retry(id).await {
                Ok(_) => Ok(true),
                Err(riverqueue::Error::Database(sqlx::Error::Database(err))) if err.is_unique_violation() => Ok(false),
                Err(err) => Err(err.into()),
            },
            Err(riverqueue::Error::NotFound(_)) => Ok(false),
            Err(err) => Err(err.into()),
        }
    }

    /// Cancels an unfinished job. False when no job has this id.
    pub async fn cancel(&self, id: i64) -> Result<bool, QueueError> {
        match self.client.jobs().cancel(id).await {
            Ok(_) => Ok(true),
            Err(riverqueue::Error::NotFound(_)) => Ok(false),
            Err(err) => Err(err.into()),
        }
    }

    /// Cancels a waiting job or a dead letter in the caller's transaction. False when the job is neither.
    pub async fn end(&self, tx: &mut Tx, id: i64) -> Result<bool, QueueError> {
        let ended = on_tx!(tx, |conn| sqlx::query(
            "UPDATE river_job SET state = 'cancelled', finalized_at = CURRENT_TIMESTAMP WHERE id = $1 \
             AND state IN ('available', 'pending', 'scheduled', 'retryable', 'discarded')"
        )
        .bind(id)
        .execute(conn)
        .await?
        .rows_affected());
        Ok(ended == 1)
    }

    /// Deletes the jobs of a subject in the caller's transaction, except `except` and running jobs.
    pub async fn forget(&self, tx: &mut Tx, subject: &str, except: i64) -> Result<(), QueueError> {
        let forget = job_sql!(
            tx,
            "DELETE FROM river_job WHERE id IN (SELECT id FROM job WHERE subject = $1) AND id <> $2 AND state <> 'running'"
        );
        on_tx!(tx, |conn| sqlx::query(forget).bind(subject).bind(except).execute(conn).await.map(drop)?);
        Ok(())
    }

    /// Deletes the dead letters of a kind and subject.
    pub async fn drop_dead_letters(&self, kind: Kind, subject: &str) -> Result<(), QueueError> {
        let db = self.store.db();
        let delete = job_sql!(
            db,
            "DELETE FROM river_job WHERE id IN (SELECT id FROM job WHERE subject = $1) AND kind = $2 \
             AND state = 'discarded'"
        );
        on_pool!(db, |pool| sqlx::query(delete).bind(subject).bind(kind.as_str()).execute(pool).await.map(drop)?);
        Ok(())
    }

    /// The number of jobs that run now or become due within `horizon`. Jobs of kinds that this build does not know are
    /// not counted. A job that has been throttled without interruption since before `patience` counts only when it is
    /// due now.
    pub async fn due(&self, horizon: Duration, patience: Timestamp) -> Result<u64, QueueError> {
        let db = self.store.db();
        let due = job_sql!(
            db,
            "SELECT kind, COUNT(*) FROM job, clock WHERE state IN ",
            unfinished!(),
            " AND (state = 'running' OR next_ms <= now_ms \
             OR (next_ms <= now_ms + $1 AND COALESCE(throttled_since, $2) >= $2)) GROUP BY kind"
        );
        let horizon = i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX / 2);
        let kinds: Vec<(String, i64)> = on_pool!(db, |pool| sqlx::query_as(due)
            .bind(horizon)
            .bind(patience.as_millisecond())
            .fetch_all(pool)
            .await?);
        let known = kinds.iter().filter(|(kind, _)| kind.parse::<Kind>().is_ok());
        Ok(known.map(|(_, count)| *count as u64).sum())
    }

    /// Unfinished jobs and dead letters by kind and state, and the age of the oldest available job in seconds.
    pub async fn depth(&self) -> Result<(Vec<(String, String, u64)>, f64), QueueError> {
        const BY_KIND: &str = concat!(
            "SELECT kind, CAST(state AS TEXT), COUNT(*) FROM river_job WHERE state IN ",
            unfinished!(),
            " OR state = 'discarded' GROUP BY kind, state"
        );
        let rows: Vec<(String, String, i64)> =
            on_pool!(self.store.db(), |pool| sqlx::query_as(BY_KIND).fetch_all(pool).await?);
        let oldest = job_sql!(
            self.store.db(),
            "SELECT (SELECT now_ms FROM clock) - MIN(next_ms) FROM job WHERE state = 'available'"
        );
        let oldest_ms: Option<i64> =
            on_pool!(self.store.db(), |pool| sqlx::query_scalar(oldest).fetch_one(pool).await?);
        let counts = rows.into_iter().map(|(kind, state, count)| (kind, state, count as u64)).collect();
        Ok((counts, oldest_ms.unwrap_or(0).max(0) as f64 / 1000.0))
    }

    /// For tests: makes every waiting job due this much earlier.
    pub async fn bring_forward(&self, by: Duration) -> Result<(), QueueError> {
        let db = self.store.db();
        let earlier = db.sql(
            "UPDATE river_job SET scheduled_at = strftime('%Y-%m-%d %H:%M:%f', scheduled_at, '-' || $1 || ' seconds') \
             WHERE finalized_at IS NULL AND state <> 'running'",
            "UPDATE river_job SET scheduled_at = scheduled_at - make_interval(secs => $1) \
             WHERE finalized_at IS NULL AND state <> 'running'",
        );
        on_pool!(db, |pool| sqlx::query(earlier).bind(by.as_secs_f64()).execute(pool).await.map(drop)?);
        Ok(())
    }
}

/// Whether a list includes completed and cancelled jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishedJobs {
    Left,
    Included,
}

impl JobView {
    /// The kind, where this build knows it.
    #[must_use]
    pub fn known_kind(&self) -> Option<Kind> {
        self.kind.parse().ok()
    }

    /// Duration of the latest attempt in milliseconds. None before its end.
    #[must_use]
    pub fn took_ms(&self) -> Option<u64> {
        let took = self.finished_at?.duration_since(self.started_at?);
        u64::try_from(took.as_millis()).ok()
    }

    /// The stage of the latest failure.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.failure.as_ref().and_then(|failure| failure.stage)
    }
}

impl JobRow {
    fn read(self) -> Result<JobView, QueueError> {
        let bad = |err: serde_json::Error| QueueError::Unreadable(format!("job {}: {err}", self.id));
        let args: Value = serde_json::from_str(&self.args).map_err(bad)?;
        let metadata: Value = serde_json::from_str(&self.metadata).map_err(bad)?;
        let errors: Option<Value> = self.errors.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let last = errors.as_ref().and_then(Value::as_array).and_then(|errors| errors.last());
        let state = JobState::of(&self.state);
        let moment = |ms: i64| Timestamp::from_millisecond(ms).ok();
        Ok(JobView {
            id: self.id,
            kind: self.kind,
            state,
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            subject: args["subject"].as_str().map(str::to_owned),
            payload: args["payload"].clone(),
            failure: serde_json::from_value(metadata["failure"].clone()).ok(),
            throttled: !state.is_finished() && !metadata["throttled_since"].is_null(),
            last_error: last.and_then(|error| error["error"].as_str()).map(str::to_owned),
            next_at: (!state.is_finished()).then(|| moment(self.next_ms)).flatten(),
            queued_at: moment(self.created_ms),
            started_at: self.attempted_ms.and_then(moment),
            finished_at: self.finalized_ms.and_then(moment),
        })
    }
}
