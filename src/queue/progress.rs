//! Progress of jobs. A job that has made progress has used none of its attempts, so only attempts without progress
//! count. River counts every start. So the job's row stores the start with the latest progress, and its maximum of
//! attempts moves up accordingly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{JobAttempt, Queue, QueueError};
use crate::store::{Tx, last_worker, on_pool, on_tx};

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

/// SQL: the maximum of attempts after progress in the current attempt.
macro_rules! restored {
    (sqlite) => {
        "min(max_attempts - COALESCE(json_extract(metadata, '$.progressed'), 0) + attempt, 32767)"
    };
    (postgres) => {
        "LEAST(max_attempts - COALESCE((metadata->>'progressed')::int, 0) + attempt, 32767)::smallint"
    };
}

/// SQL: the metadata after progress in the current attempt.
macro_rules! progressed {
    (sqlite) => {
        "jsonb_set(metadata, '$.progressed', attempt)"
    };
    (postgres) => {
        "jsonb_set(metadata, '{progressed}', to_jsonb(attempt))"
    };
}

impl Queue {
    /// Records that this attempt made progress: it finished something durable that the next attempt will not repeat.
    /// The attempts so far are restored. It is written at most once per attempt. Call it outside of any transaction.
    pub async fn advance(&self, job: &JobAttempt) -> Result<(), QueueError> {
        macro_rules! sql {
            ($engine:ident) => {
                concat!(
                    "UPDATE river_job SET max_attempts = ",
                    restored!($engine),
                    ", metadata = ",
                    progressed!($engine),
                    " WHERE id = $1 AND state = 'running' AND attempt = $2 AND ",
                    last_worker!($engine),
                    " = $3"
                )
            };
        }
        if job.progress.made() {
            return Ok(());
        }
        let (ticket, db) = (&job.ticket, self.store.db());
        if ticket.attempt > job.progress.before {
            let advance = db.sql(sql!(sqlite), sql!(postgres));
            on_pool!(db, |pool| sqlx::query(advance)
                .bind(job.id)
                .bind(ticket.attempt)
                .bind(&ticket.worker)
                .execute(pool)
                .await
                .map(drop)?);
        }
        job.progress.now.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a dead letter available with all its attempts, in the caller's transaction. False when it is no longer a
    /// dead letter. False also when the same work was enqueued again and is unfinished.
    pub async fn revive(&self, tx: &mut Tx, id: i64) -> Result<bool, QueueError> {
        macro_rules! sql {
            ($engine:ident, $now:literal) => {
                concat!(
                    "UPDATE river_job SET state = 'available', finalized_at = NULL, scheduled_at = ",
                    $now,
                    ", max_attempts = ",
                    restored!($engine),
                    ", metadata = ",
                    progressed!($engine),
                    " WHERE id = $1 AND state = 'discarded' AND NOT EXISTS (SELECT 1 FROM river_job other \
                     WHERE other.unique_key = river_job.unique_key AND other.id <> river_job.id \
                     AND other.state IN ('available', 'pending', 'retryable', 'running', 'scheduled'))"
                )
            };
        }
        let revive = tx.sql(sql!(sqlite, "strftime('%Y-%m-%d %H:%M:%f', 'now')"), sql!(postgres, "now()"));
        let changed = on_tx!(tx, |conn| sqlx::query(revive).bind(id).execute(conn).await?.rows_affected());
        Ok(changed == 1)
    }
}
