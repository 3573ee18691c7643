//! The fed calls of a backfill, by the state of their jobs.

use std::time::Duration;

use sqlx::FromRow;

use super::{Backfill, Store, StoreError, Tx, job_sql, on_pool, on_tx};

/// The number of fed calls that have not ended, by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fed {
    /// Running, or free to run.
    pub active: u64,
    /// Snoozed: the recording is missing or the call is in progress.
    pub waiting: u64,
    /// Failed, and waiting for the next attempt.
    pub retrying: u64,
    /// Throttled, or without a permit.
    pub held: u64,
    /// Time until the first waiting job is due; `None` if no job waits.
    pub next_in: Option<Duration>,
}

impl Fed {
    /// All fed calls that have not ended.
    #[must_use]
    pub const fn open(&self) -> u64 {
        self.active + self.waiting + self.retrying + self.held
    }
}

#[derive(Debug, FromRow)]
struct FedRow {
    active: i64,
    waiting: i64,
    retrying: i64,
    held: i64,
    next_ms: Option<i64>,
}

impl From<FedRow> for Fed {
    fn from(row: FedRow) -> Self {
        let next_in = row.next_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
        Self {
            active: row.active as u64,
            waiting: row.waiting as u64,
            retrying: row.retrying as u64,
            held: row.held as u64,
            next_in,
        }
    }
}

/// SQL: the unfinished jobs of a backfill's fed items. `is_off`: the job's due time is in the future. `failed`: its
/// latest attempt failed.
macro_rules! fed_jobs {
    () => {
        "(SELECT COALESCE(j.state IN ('scheduled', 'retryable', 'available') AND j.next_ms > now_ms, FALSE) AS is_off, \
         j.throttled_since IS NOT NULL AS throttled, COALESCE(j.state = 'retryable' OR j.retrying, FALSE) AS failed, \
         j.failure_cause, j.next_ms, now_ms FROM clock, backfill_item i LEFT JOIN job j ON j.id = i.job_id \
         WHERE i.backfill_id = $1 AND i.state = 'enqueued') AS fed"
    };
}

macro_rules! fed {
    () => {
        concat!(
            "SELECT COUNT(*) FILTER (WHERE NOT is_off) AS active, \
             COUNT(*) FILTER (WHERE is_off AND NOT throttled AND NOT failed) AS waiting, \
             COUNT(*) FILTER (WHERE is_off AND NOT throttled AND failed) AS retrying, \
             COUNT(*) FILTER (WHERE is_off AND throttled) AS held, \
             MIN(next_ms - now_ms) FILTER (WHERE is_off) AS next_ms FROM ",
            fed_jobs!()
        )
    };
}

impl Store {
    /// Marks fed items with an ended job and adds them to the backfill's counts. Returns the open calls. A missing job
    /// counts as ended, because an erasure deletes the jobs of its call.
    pub async fn settle_backfill(&self, tx: &mut Tx, backfill: &mut Backfill) -> Result<Fed, StoreError> {
        const DONE: &str = "UPDATE backfill_item SET state = $2 FROM river_job j WHERE j.id = backfill_item.job_id \
                 AND backfill_item.backfill_id = $1 AND backfill_item.state = 'enqueued' \
                 AND j.finalized_at IS NOT NULL AND j.state = 'completed'";
        const FAILED: &str = "UPDATE backfill_item SET state = $2 FROM river_job j WHERE j.id = backfill_item.job_id \
                 AND backfill_item.backfill_id = $1 AND backfill_item.state = 'enqueued' \
                 AND j.finalized_at IS NOT NULL AND j.state <> 'completed'";
        let counts = [(DONE, "done", &mut backfill.done), (FAILED, "failed", &mut backfill.failed)];
        for (sql, state, count) in counts {
            let moved = on_tx!(&mut *tx, |conn| sqlx::query(sql)
                .bind(&backfill.id)
                .bind(state)
                .execute(conn)
                .await?
                .rows_affected());
            *count += moved;
        }
        backfill.done += on_tx!(&mut *tx, |conn| sqlx::query(
            "UPDATE backfill_item SET state = 'done' WHERE backfill_id = $1 AND state = 'enqueued' \
             AND NOT EXISTS (SELECT 1 FROM river_job j WHERE j.id = backfill_item.job_id)",
        )
        .bind(&backfill.id)
        .execute(conn)
        .await?
        .rows_affected());
        let fed = job_sql!(tx, fed!());
        let row: FedRow = on_tx!(tx, |conn| sqlx::query_as(fed).bind(&backfill.id).fetch_one(conn).await?);
        Ok(row.into())
    }

    /// The fed calls of a backfill by the current state of their jobs.
    pub async fn fed(&self, backfill: &str) -> Result<Fed, StoreError> {
        let fed = job_sql!(self.db, fed!());
        let row: FedRow = on_pool!(&self.db, |pool| sqlx::query_as(fed).bind(backfill).fetch_one(pool).await?);
        Ok(row.into())
    }

    /// The cause of one throttled or failed job among the fed calls.
    pub async fn fed_cause(&self, backfill: &str) -> Result<Option<String>, StoreError> {
        let cause = job_sql!(
            self.db,
            "SELECT failure_cause FROM ",
            fed_jobs!(),
            " WHERE is_off AND (throttled OR failed) AND failure_cause IS NOT NULL LIMIT 1"
        );
        Ok(on_pool!(&self.db, |pool| sqlx::query_scalar(cause).bind(backfill).fetch_optional(pool).await?))
    }

    /// Takes back every fed call that is not running. Its job is cancelled unless another backfill fed the same job.
    /// The item returns to the listed state. Returns the number of calls.
    pub async fn take_back_fed(&self, tx: &mut Tx, backfill: &str) -> Result<u64, StoreError> {
        on_tx!(&mut *tx, |conn| sqlx::query(
            "UPDATE river_job SET state = 'cancelled', finalized_at = CURRENT_TIMESTAMP \
             WHERE state IN ('available', 'scheduled', 'retryable') AND queue = 'backfill' \
             AND id IN (SELECT i.job_id FROM backfill_item i WHERE i.backfill_id = $1 AND i.state = 'enqueued' \
             AND NOT EXISTS (SELECT 1 FROM backfill_item o WHERE o.call_uid = i.call_uid \
             AND o.backfill_id <> $1 AND o.state = 'enqueued' AND o.job_id = i.job_id))"
        )
        .bind(backfill)
        .execute(conn)
        .await
        .map(drop)?);
        Ok(on_tx!(tx, |conn| sqlx::query(
            "UPDATE backfill_item SET state = 'listed', job_id = NULL WHERE backfill_id = $1 AND state = 'enqueued' \
             AND job_id IN (SELECT j.id FROM backfill_item i JOIN river_job j ON j.id = i.job_id \
             WHERE i.backfill_id = $1 AND i.state = 'enqueued' \
             AND j.state IN ('available', 'scheduled', 'retryable', 'cancelled'))"
        )
        .bind(backfill)
        .execute(conn)
        .await?
        .rows_affected()))
    }
}
