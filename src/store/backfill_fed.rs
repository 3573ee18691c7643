//! The fed calls of a backfill, by the state of their jobs.

use std::time::Duration;

use sqlx::FromRow;

use super::{Backfill, Db, Store, StoreError, Tx, on_tx};

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

/// SQL condition: the job's due time is in the future.
macro_rules! off {
    (sqlite) => {
        "(j.state IN ('scheduled', 'retryable', 'available') AND j.scheduled_at > strftime('%Y-%m-%d %H:%M:%f', 'now'))"
    };
    (postgres) => {
        "(j.state IN ('scheduled', 'retryable', 'available') AND j.scheduled_at > now())"
    };
}

macro_rules! throttled {
    (sqlite) => {
        "json_extract(j.metadata, '$.throttled_since') IS NOT NULL"
    };
    (postgres) => {
        "j.metadata->>'throttled_since' IS NOT NULL"
    };
}

macro_rules! failed {
    (sqlite) => {
        "(j.state = 'retryable' OR json_extract(j.metadata, '$.retrying') = 1)"
    };
    (postgres) => {
        "(j.state = 'retryable' OR j.metadata->>'retrying' = 'true')"
    };
}

macro_rules! next_ms {
    (sqlite) => {
        "CAST((unixepoch(MIN(j.scheduled_at), 'subsec') - unixepoch('subsec')) * 1000 AS INTEGER)"
    };
    (postgres) => {
        "CAST(extract(epoch FROM MIN(j.scheduled_at) - now()) * 1000 AS BIGINT)"
    };
}

macro_rules! fed {
    ($engine:ident) => {
        concat!(
            "SELECT COUNT(*) FILTER (WHERE is_off = 0) AS active, ",
            "COUNT(*) FILTER (WHERE is_off = 1 AND throttled = 0 AND failed = 0) AS waiting, ",
            "COUNT(*) FILTER (WHERE is_off = 1 AND throttled = 0 AND failed = 1) AS retrying, ",
            "COUNT(*) FILTER (WHERE is_off = 1 AND throttled = 1) AS held, ",
            "(SELECT ",
            next_ms!($engine),
            " FROM backfill_item i JOIN river_job j ON j.id = i.job_id WHERE i.backfill_id = $1 ",
            "AND i.state = 'enqueued' AND ",
            off!($engine),
            ") AS next_ms FROM (SELECT CASE WHEN ",
            off!($engine),
            " THEN 1 ELSE 0 END AS is_off, CASE WHEN ",
            throttled!($engine),
            " THEN 1 ELSE 0 END AS throttled, CASE WHEN ",
            failed!($engine),
            " THEN 1 ELSE 0 END AS failed FROM backfill_item i LEFT JOIN river_job j ON j.id = i.job_id ",
            "WHERE i.backfill_id = $1 AND i.state = 'enqueued') AS fed"
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
        let row: FedRow = match tx {
            Tx::Sqlite(tx) => sqlx::query_as(fed!(sqlite)).bind(&backfill.id).fetch_one(&mut **tx).await?,
            Tx::Postgres(tx) => sqlx::query_as(fed!(postgres)).bind(&backfill.id).fetch_one(&mut **tx).await?,
        };
        Ok(row.into())
    }

    /// The fed calls of a backfill by the current state of their jobs.
    pub async fn fed(&self, backfill: &str) -> Result<Fed, StoreError> {
        let row: FedRow = match &self.db {
            Db::Sqlite(pool) => sqlx::query_as(fed!(sqlite)).bind(backfill).fetch_one(pool).await?,
            Db::Postgres(pool) => sqlx::query_as(fed!(postgres)).bind(backfill).fetch_one(pool).await?,
        };
        Ok(row.into())
    }

    /// The cause of one throttled or failed job among the fed calls.
    pub async fn fed_cause(&self, backfill: &str) -> Result<Option<String>, StoreError> {
        macro_rules! sql {
            ($engine:ident, $cause:literal) => {
                concat!(
                    "SELECT ",
                    $cause,
                    " FROM backfill_item i JOIN river_job j ON j.id = i.job_id WHERE i.backfill_id = $1 ",
                    "AND i.state = 'enqueued' AND ",
                    off!($engine),
                    " AND (",
                    throttled!($engine),
                    " OR ",
                    failed!($engine),
                    ") AND ",
                    $cause,
                    " IS NOT NULL LIMIT 1"
                )
            };
        }
        Ok(match &self.db {
            Db::Sqlite(pool) => {
                let sql = sql!(sqlite, "json_extract(j.metadata, '$.failure.cause')");
                sqlx::query_scalar(sql).bind(backfill).fetch_optional(pool).await?
            }
            Db::Postgres(pool) => {
                let sql = sql!(postgres, "j.metadata->'failure'->>'cause'");
                sqlx::query_scalar(sql).bind(backfill).fetch_optional(pool).await?
            }
        })
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
