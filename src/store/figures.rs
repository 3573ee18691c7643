//! Values for operators: age of pending deliveries, progress of backfills, and last polls of the sources.

use jiff::Timestamp;

use super::{Store, StoreError, from_ms, on_pool, to_ms};
use crate::domain::SourceName;

/// Total progress of the unfinished backfills of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct BackfillProgress {
    pub source: String,
    pub listed: i64,
    pub enqueued: i64,
    pub done: i64,
    pub failed: i64,
}

impl Store {
    /// The number of pending deliveries, and the creation time of the oldest one.
    pub async fn pending_deliveries(&self) -> Result<(u64, Option<Timestamp>), StoreError> {
        let (count, oldest): (i64, Option<i64>) = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT COUNT(*), MIN(created_at) FROM outbox WHERE delivered_at IS NULL"
        )
        .fetch_one(pool)
        .await?);
        Ok((count as u64, oldest.map(from_ms)))
    }

    /// The progress of unfinished backfills, by source.
    pub async fn backfill_progress(&self) -> Result<Vec<BackfillProgress>, StoreError> {
        Ok(on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT source, CAST(SUM(listed) AS BIGINT) AS listed, CAST(SUM(enqueued) AS BIGINT) AS enqueued, \
             CAST(SUM(done) AS BIGINT) AS done, CAST(SUM(failed) AS BIGINT) AS failed FROM backfill \
             WHERE state IN ('listing', 'feeding') GROUP BY source ORDER BY source"
        )
        .fetch_all(pool)
        .await?))
    }

    /// The last poll of each source.
    pub async fn polls(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let rows: Vec<(String, i64)> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT source, polled_at FROM reconcile_state WHERE polled_at IS NOT NULL"
        )
        .fetch_all(pool)
        .await?);
        Ok(rows.into_iter().map(|(source, at)| (source, from_ms(at))).collect())
    }

    /// Notes a poll of a source.
    pub async fn note_poll(&self, source: &SourceName, now: Timestamp) -> Result<(), StoreError> {
        on_pool!(&self.db, |pool| sqlx::query("UPDATE reconcile_state SET polled_at = $2 WHERE source = $1")
            .bind(source.as_str())
            .bind(to_ms(now))
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }
}
