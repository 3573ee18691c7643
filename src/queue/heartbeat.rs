//! Heartbeats. Every worker updates its row. The jobs of a worker without a heartbeat are requeued. The database's
//! clock decides, so that wrong clocks of workers have no effect.

use std::time::Duration;

use super::{Queue, QueueError};
use crate::store::{Db, on_pool};

/// Result of a requeue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requeued {
    /// Jobs that were requeued.
    pub returned: u64,
    /// Jobs whose workers died on every allowed attempt. They are dead letters now.
    pub dead_lettered: u64,
}

const POISON: &str = r#"{"stage":null,"fault":"permanent","side":"worker","cause":"the worker died at the same place of this job, every time it was tried"}"#;

macro_rules! now_ms {
    (sqlite) => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
    (postgres) => {
        "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
    };
}

impl Queue {
    /// Registers a worker, or updates its heartbeat.
    pub async fn heartbeat(&self, worker: &str, host: &str) -> Result<(), QueueError> {
        const SQLITE: &str = concat!(
            "INSERT INTO worker (id, version, host, started_at, beat_at) SELECT $1, $2, $3, ",
            now_ms!(sqlite),
            ", ",
            now_ms!(sqlite),
            " WHERE true ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at"
        );
        const POSTGRES: &str = concat!(
            "INSERT INTO worker (id, version, host, started_at, beat_at) SELECT $1, $2, $3, ",
            now_ms!(postgres),
            ", ",
            now_ms!(postgres),
            " ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at"
        );
        let version = env!("CARGO_PKG_VERSION");
        match self.store.db() {
            Db::Sqlite(pool) => {
                sqlx::query(SQLITE).bind(worker).bind(version).bind(host).execute(pool).await.map(drop)?;
            }
            Db::Postgres(pool) => {
                sqlx::query(POSTGRES).bind(worker).bind(version).bind(host).execute(pool).await.map(drop)?;
            }
        }
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
        const SQLITE: &str = concat!("SELECT COUNT(*) FROM worker WHERE beat_at >= ", now_ms!(sqlite), " - $1");
        const POSTGRES: &str = concat!("SELECT COUNT(*) FROM worker WHERE beat_at >= ", now_ms!(postgres), " - $1");
        let silent = silent_after.as_millis() as i64;
        let count: i64 = match self.store.db() {
            Db::Sqlite(pool) => sqlx::query_scalar(SQLITE).bind(silent).fetch_one(pool).await?,
            Db::Postgres(pool) => sqlx::query_scalar(POSTGRES).bind(silent).fetch_one(pool).await?,
        };
        Ok(count as u64)
    }

    /// Requeues the running jobs of every worker without a heartbeat for `silent_after`. Zero means every worker except
    /// `me`. Zero is only correct where no other worker can be alive, such as on a machine whose data directory lock
    /// this process holds.
    pub async fn requeue_expired(&self, me: &str, silent_after: Duration) -> Result<Requeued, QueueError> {
        let silent = silent_after.as_millis() as i64;
        let mut tx = self.store.begin().await.map_err(|err| QueueError::Unreadable(err.to_string()))?;
        let requeued = match &mut tx {
            crate::store::Tx::Sqlite(tx) => requeue_sqlite(tx, me, silent).await?,
            crate::store::Tx::Postgres(tx) => requeue_postgres(tx, me, silent).await?,
        };
        tx.commit().await.map_err(|err| QueueError::Unreadable(err.to_string()))?;
        Ok(requeued)
    }
}

// A requeued job gets priority 1 and keeps its due time, so jobs that a dead worker had begun run first.
async fn requeue_sqlite(
    tx: &mut sqlx::Transaction<'static, sqlx::Sqlite>,
    me: &str,
    silent: i64,
) -> Result<Requeued, sqlx::Error> {
    const EXPIRE: &str =
        concat!("DELETE FROM worker WHERE id <> $1 AND ($2 = 0 OR beat_at < ", now_ms!(sqlite), " - $2)");
    const POISONED: &str = "UPDATE river_job SET state = 'discarded', finalized_at = datetime('now', 'subsec'), \
         metadata = jsonb_set(metadata, '$.failure', jsonb($2)) \
         WHERE state = 'running' AND attempt >= max_attempts AND json_extract(attempted_by, '$[#-1]') <> $1 \
         AND json_extract(attempted_by, '$[#-1]') NOT IN (SELECT id FROM worker)";
    const ORPHANED: &str = "UPDATE river_job SET state = 'available', priority = 1 \
         WHERE state = 'running' AND json_extract(attempted_by, '$[#-1]') <> $1 \
         AND json_extract(attempted_by, '$[#-1]') NOT IN (SELECT id FROM worker)";
    sqlx::query(EXPIRE).bind(me).bind(silent).execute(&mut **tx).await?;
    let dead_lettered = sqlx::query(POISONED).bind(me).bind(POISON).execute(&mut **tx).await?.rows_affected();
    let returned = sqlx::query(ORPHANED).bind(me).execute(&mut **tx).await?.rows_affected();
    Ok(Requeued { returned, dead_lettered })
}

async fn requeue_postgres(
    tx: &mut sqlx::Transaction<'static, sqlx::Postgres>,
    me: &str,
    silent: i64,
) -> Result<Requeued, sqlx::Error> {
    const EXPIRE: &str =
        concat!("DELETE FROM worker WHERE id <> $1 AND ($2 = 0 OR beat_at < ", now_ms!(postgres), " - $2)");
    const POISONED: &str = "UPDATE river_job SET state = 'discarded', finalized_at = now(), \
         metadata = jsonb_set(metadata, '{failure}', $2::jsonb) \
         WHERE state = 'running' AND attempt >= max_attempts AND attempted_by[array_length(attempted_by, 1)] <> $1 \
         AND attempted_by[array_length(attempted_by, 1)] NOT IN (SELECT id FROM worker)";
    const ORPHANED: &str = "UPDATE river_job SET state = 'available', priority = 1 \
         WHERE state = 'running' AND attempted_by[array_length(attempted_by, 1)] <> $1 \
         AND attempted_by[array_length(attempted_by, 1)] NOT IN (SELECT id FROM worker)";
    sqlx::query(EXPIRE).bind(me).bind(silent).execute(&mut **tx).await?;
    let dead_lettered = sqlx::query(POISONED).bind(me).bind(POISON).execute(&mut **tx).await?.rows_affected();
    let returned = sqlx::query(ORPHANED).bind(me).execute(&mut **tx).await?.rows_affected();
    Ok(Requeued { returned, dead_lettered })
}
