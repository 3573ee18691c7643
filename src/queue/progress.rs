//! A job that has moved forward has used up none of its attempts: only those count that came to the same place. River
//! counts every start, so the job's row says at which start it last moved forward, and its last attempt lies so much
//! further away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Job, Queue, QueueError};
use crate::store::{Db, Tx};

/// Where a job's metadata names the start at which it last moved forward.
pub(super) const PROGRESSED: &str = "progressed";

/// How far one attempt has come: the handler says it, the runner asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// The start at which an earlier attempt moved the job forward; 0: none did.
    pub before: i32,
    now: Arc<AtomicBool>,
}

impl Progress {
    pub fn since(before: i32) -> Self {
        Self { before, now: Arc::default() }
    }

    pub fn made(&self) -> bool {
        self.now.load(Ordering::Relaxed)
    }
}

impl Job {
    /// Starts since the job last moved forward, this one among them; 0: it has moved forward within this one.
    #[must_use]
    pub fn attempts_used(&self) -> i32 {
        if self.progress.made() { 0 } else { (self.attempt - self.progress.before).max(1) }
    }

    /// Whether a failure now is the last one allowed.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        !self.progress.made() && self.attempt >= self.max_attempts
    }
}

impl Queue {
    /// Notes that this attempt has moved its job forward: by something that lasts and that the next attempt does not do
    /// again. The attempts so far are given back. Written once per attempt at most; called outside of any transaction.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn advance(&self, job: &Job) -> Result<(), QueueError> {
        const SQLITE: &str = "UPDATE river_job SET max_attempts = \
             min(max_attempts - COALESCE(json_extract(metadata, '$.progressed'), 0) + attempt, 32767), \
             metadata = jsonb_set(metadata, '$.progressed', attempt) \
             WHERE id = $1 AND state = 'running' AND attempt = $2 AND json_extract(attempted_by, '$[#-1]') = $3";
        const POSTGRES: &str = "UPDATE river_job SET max_attempts = \
             LEAST(max_attempts - COALESCE((metadata->>'progressed')::int, 0) + attempt, 32767)::smallint, \
             metadata = jsonb_set(metadata, '{progressed}', to_jsonb(attempt)) \
             WHERE id = $1 AND state = 'running' AND attempt = $2 AND attempted_by[array_length(attempted_by, 1)] = $3";
        if job.progress.made() {
            return Ok(());
        }
        let (ticket, id) = (&job.ticket, job.id);
        if ticket.attempt > job.progress.before {
            match self.store.db() {
                Db::Sqlite(pool) => {
                    let update = sqlx::query(SQLITE).bind(id).bind(ticket.attempt).bind(&ticket.worker);
                    update.execute(pool).await.map(drop)?;
                }
                Db::Postgres(pool) => {
                    let update = sqlx::query(POSTGRES).bind(id).bind(ticket.attempt).bind(&ticket.worker);
                    update.execute(pool).await.map(drop)?;
                }
            }
        }
        job.progress.now.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Puts a dead letter back to work with all its attempts, in the caller's transaction. False when it is none any
    /// more, or when its work has been enqueued anew and is not finished.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn revive(&self, tx: &mut Tx, id: i64) -> Result<bool, QueueError> {
        macro_rules! sql {
            ($now:literal, $max:literal, $metadata:literal) => {
                concat!(
                    "UPDATE river_job SET state = 'available', finalized_at = NULL, scheduled_at = ",
                    $now,
                    ", max_attempts = ",
                    $max,
                    ", metadata = ",
                    $metadata,
                    " WHERE id = $1 AND state = 'discarded' AND NOT EXISTS (SELECT 1 FROM river_job other \
                     WHERE other.unique_key = river_job.unique_key AND other.id <> river_job.id \
                     AND other.state IN ('available', 'pending', 'retryable', 'running', 'scheduled'))"
                )
            };
        }
        let changed = match tx {
            Tx::Sqlite(tx) => {
                let sql = sql!(
                    "strftime('%Y-%m-%d %H:%M:%f', 'now')",
                    "min(max_attempts - COALESCE(json_extract(metadata, '$.progressed'), 0) + attempt, 32767)",
                    "jsonb_set(metadata, '$.progressed', attempt)"
                );
                sqlx::query(sql).bind(id).execute(&mut **tx).await?.rows_affected()
            }
            Tx::Postgres(tx) => {
                let sql = sql!(
                    "now()",
                    "LEAST(max_attempts - COALESCE((metadata->>'progressed')::int, 0) + attempt, 32767)::smallint",
                    "jsonb_set(metadata, '{progressed}', to_jsonb(attempt))"
                );
                sqlx::query(sql).bind(id).execute(&mut **tx).await?.rows_affected()
            }
        };
        Ok(changed == 1)
    }
}
