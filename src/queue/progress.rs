//! Progress of jobs. A job that has made progress has used none of its attempts, so only attempts without progress
//! count. River counts every start. So the job's row stores the start with the latest progress, and its maximum of
//! attempts moves up accordingly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{JobAttempt, Queue, QueueError};
use crate::store::{Db, Tx};

/// Metadata key of the start at which the job last made progress.
pub(super) const PROGRESSED: &str = "progressed";

/// Progress of one attempt. The handler sets it and the runner reads it.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// The start at which an earlier attempt made progress; 0 when none did.
    pub before: i32,
    now: Arc<AtomicBool>,
}

impl Progress {
    pub(super) fn since(before: i32) -> Self {
        Self { before, now: Arc::default() }
    }

    pub(super) fn made(&self) -> bool {
        self.now.load(Ordering::Relaxed)
    }
}

impl JobAttempt {
    /// Starts since the latest progress, including this one. 0 when this attempt has made progress.
    #[must_use]
    pub fn attempts_used(&self) -> i32 {
        if self.progress.made() { 0 } else { (self.attempt - self.progress.before).max(1) }
    }

    /// True when a failure now is the last allowed one.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        !self.progress.made() && self.attempt >= self.max_attempts
    }
}

impl Queue {
    /// Records that this attempt made progress: it finished something durable that the next attempt will not repeat.
    /// The attempts so far are restored. It is written at most once per attempt. Call it outside of any transaction.
    pub async fn advance(&self, job: &JobAttempt) -> Result<(), QueueError> {
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

    /// Makes a dead letter available with all its attempts, in the caller's transaction. False when it is no longer a
    /// dead letter. False also when the same work was enqueued again and is unfinished.
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
