//! Heartbeats. Every worker updates its row. The jobs of a worker without a heartbeat are requeued. The database's
//! clock decides, so that wrong clocks of workers have no effect.

use std::time::Duration;

use super::{Queue, QueueError};
use crate::store::{Tx, job_sql, last_worker, on_pool, on_tx};

/// Result of a requeue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requeued {
    /// Jobs that were requeued.
    pub returned: u64,
    /// Jobs whose workers died on every allowed attempt. They are dead letters now.
    pub dead_lettered: u64,
}

const POISON: &str = r#"{"stage":null,"fault":"permanent","side":"worker","cause":"the worker died at the same place of this job, every time it was tried"}"#;

impl Queue {
    /// Registers a worker, or updates its heartbeat.
    pub async fn heartbeat(&self, worker: &str, host: &str) -> Result<(), QueueError> {
        let db = self.store.db();
        let beat = job_sql!(
            db,
            "INSERT INTO worker (id, version, host, started_at, beat_at) SELECT $1, $2, $3, now_ms, now_ms FROM clock \
             WHERE true ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at"
        );
        on_pool!(db, |pool| sqlx::query(beat)
            .bind(worker)
            .bind(env!("CARGO_PKG_VERSION"))
            .bind(host)
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }

    /// Removes a worker that stops normally.
    pub async fn leave(&self, worker: &str) -> Result<(), QueueError> {
        on_pool!(self.store.db(), |pool| sqlx::query("DELETE FROM worker WHERE id = $1")
            .bind(worker)
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }

    /// Stores why a worker takes no jobs. `None` when it takes jobs again.
    pub async fn rest(&self, worker: &str, cause: Option<&str>) -> Result<(), QueueError> {
        on_pool!(self.store.db(), |pool| sqlx::query("UPDATE worker SET resting_for = $2 WHERE id = $1")
            .bind(worker)
            .bind(cause)
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }

    /// The registered workers: name, host, build, and why a worker takes no jobs.
    pub async fn workers(&self) -> Result<Vec<(String, String, String, Option<String>)>, QueueError> {
        Ok(on_pool!(self.store.db(), |pool| sqlx::query_as(
            "SELECT id, host, version, resting_for FROM worker ORDER BY id"
        )
        .fetch_all(pool)
        .await?))
    }

    /// The number of workers with a heartbeat within `silent_after`.
    pub async fn live_workers(&self, silent_after: Duration) -> Result<u64, QueueError> {
        let db = self.store.db();
        let alive = job_sql!(db, "SELECT COUNT(*) FROM worker, clock WHERE beat_at >= now_ms - $1");
        let silent = silent_after.as_millis() as i64;
        let count: i64 = on_pool!(db, |pool| sqlx::query_scalar(alive).bind(silent).fetch_one(pool).await?);
        Ok(count as u64)
    }

    /// Requeues the running jobs of every worker without a heartbeat for `silent_after`. Zero means every worker except
    /// `me`. Zero is only correct where no other worker can be alive, such as on a machine whose data directory lock
    /// this process holds.
    pub async fn requeue_expired(&self, me: &str, silent_after: Duration) -> Result<Requeued, QueueError> {
        let silent = silent_after.as_millis() as i64;
        let mut tx = self.store.begin().await.map_err(|err| QueueError::Unreadable(err.to_string()))?;
        let requeued = requeue(&mut tx, me, silent).await?;
        tx.commit().await.map_err(|err| QueueError::Unreadable(err.to_string()))?;
        Ok(requeued)
    }
}

/// SQL condition: the job runs on a worker that is not registered. It is checked on the row that is changed, because
/// another worker may have requeued the job meanwhile.
macro_rules! orphaned {
    ($engine:ident) => {
        concat!(
            " WHERE state = 'running' AND ",
            last_worker!($engine),
            " <> $1 AND ",
            last_worker!($engine),
            " NOT IN (SELECT id FROM worker)"
        )
    };
}

// A requeued job gets priority 1 and keeps its due time, so jobs that a dead worker had begun run first.
async fn requeue(tx: &mut Tx, me: &str, silent: i64) -> Result<Requeued, sqlx::Error> {
    macro_rules! poisoned {
        ($engine:ident, $now:literal, $failure:literal) => {
            concat!(
                "UPDATE river_job SET state = 'discarded', finalized_at = ",
                $now,
                ", metadata = ",
                $failure,
                orphaned!($engine),
                " AND attempt >= max_attempts"
            )
        };
    }
    macro_rules! returned {
        ($engine:ident) => {
            concat!("UPDATE river_job SET state = 'available', priority = 1", orphaned!($engine))
        };
    }
    let expire =
        job_sql!(tx, "DELETE FROM worker WHERE id <> $1 AND ($2 = 0 OR beat_at < (SELECT now_ms FROM clock) - $2)");
    let poisoned = tx.sql(
        poisoned!(sqlite, "datetime('now', 'subsec')", "jsonb_set(metadata, '$.failure', jsonb($2))"),
        poisoned!(postgres, "now()", "jsonb_set(metadata, '{failure}', $2::jsonb)"),
    );
    let returned = tx.sql(returned!(sqlite), returned!(postgres));
    on_tx!(&mut *tx, |conn| sqlx::query(expire).bind(me).bind(silent).execute(conn).await.map(drop)?);
    let dead_lettered =
        on_tx!(&mut *tx, |conn| sqlx::query(poisoned).bind(me).bind(POISON).execute(conn).await?.rows_affected());
    let returned = on_tx!(tx, |conn| sqlx::query(returned).bind(me).execute(conn).await?.rows_affected());
    Ok(Requeued { returned, dead_lettered })
}
