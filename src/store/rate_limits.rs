//! The shared rate limiter state of each source: today's request counts, the next permit, and the requests in progress.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Store, StoreError, Tx, on_pool, on_tx, to_ms};
use crate::domain::SourceName;

/// A source's rate limiter row. A source without a row was never limited and never failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct RateLimitRow {
    /// UTC day of the counts, in days since 1970.
    pub day: i64,
    pub asked_first: i64,
    pub asked_rest: i64,
    pub first_before: i64,
    /// Microseconds since 1970.
    pub next_free_us: i64,
    /// Milliseconds since 1970.
    pub held_until: i64,
    pub held_for: Option<String>,
    pub failures: i64,
    pub openings: i64,
}

impl RateLimitRow {
    /// The number of requests on the UTC day of this time.
    #[must_use]
    pub fn asked_on(&self, now: Timestamp) -> u64 {
        let today = now.as_millisecond().div_euclid(86_400_000);
        let asked = if self.day == today { self.asked_first.saturating_add(self.asked_rest) } else { 0 };
        u64::try_from(asked).unwrap_or(0)
    }
}

macro_rules! read {
    ($lock:literal) => {
        concat!(
            "SELECT day, asked_first, asked_rest, first_before, next_free_us, held_until, held_for, failures, openings \
             FROM source_pace WHERE source = $1",
            $lock
        )
    };
}

impl Store {
    /// The current row.
    pub async fn rate_limit(&self, source: &SourceName) -> Result<RateLimitRow, StoreError> {
        let row: Option<RateLimitRow> =
            on_pool!(&self.db, |pool| sqlx::query_as(read!("")).bind(source.as_str()).fetch_optional(pool).await?);
        Ok(row.unwrap_or_default())
    }

    /// The row, locked until the transaction ends.
    pub async fn lock_rate_limit(&self, tx: &mut Tx, source: &SourceName) -> Result<RateLimitRow, StoreError> {
        on_tx!(&mut *tx, |conn| sqlx::query(
            "INSERT INTO source_pace (source) VALUES ($1) ON CONFLICT (source) DO NOTHING"
        )
        .bind(source.as_str())
        .execute(conn)
        .await
        .map(drop)?);
        // SQLite's transaction already holds the only write lock.
        let lock = tx.sql(read!(""), read!(" FOR UPDATE"));
        Ok(on_tx!(tx, |conn| sqlx::query_as(lock).bind(source.as_str()).fetch_one(conn).await?))
    }

    /// Writes the row.
    pub async fn save_rate_limit(
        &self,
        tx: &mut Tx,
        source: &SourceName,
        row: &RateLimitRow,
    ) -> Result<(), StoreError> {
        on_tx!(tx, |conn| sqlx::query(
            "UPDATE source_pace SET day = $2, asked_first = $3, asked_rest = $4, first_before = $5, \
             next_free_us = $6, held_until = $7, held_for = $8, failures = $9, openings = $10 WHERE source = $1",
        )
        .bind(source.as_str())
        .bind(row.day)
        .bind(row.asked_first)
        .bind(row.asked_rest)
        .bind(row.first_before)
        .bind(row.next_free_us)
        .bind(row.held_until)
        .bind(row.held_for.as_deref())
        .bind(row.failures)
        .bind(row.openings)
        .execute(conn)
        .await
        .map(drop)?);
        Ok(())
    }

    /// The number of requests to a source in progress. Deletes expired entries of dead workers. Also deletes entries
    /// that expire after `latest`, because only a wrong clock can produce them.
    pub async fn requests_under_way(
        &self,
        tx: &mut Tx,
        source: &SourceName,
        (now, latest): (Timestamp, Timestamp),
    ) -> Result<u64, StoreError> {
        on_tx!(&mut *tx, |conn| sqlx::query(
            "DELETE FROM source_request WHERE source = $1 AND (until_at <= $2 OR until_at > $3)"
        )
        .bind(source.as_str())
        .bind(to_ms(now))
        .bind(to_ms(latest))
        .execute(conn)
        .await
        .map(drop)?);
        let count: i64 = on_tx!(tx, |conn| sqlx::query_scalar("SELECT COUNT(*) FROM source_request WHERE source = $1")
            .bind(source.as_str())
            .fetch_one(conn)
            .await?);
        Ok(count as u64)
    }

    /// Enters a request in progress. The entry expires at `until`.
    pub async fn begin_request(
        &self,
        tx: &mut Tx,
        source: &SourceName,
        id: &str,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        on_tx!(tx, |conn| sqlx::query("INSERT INTO source_request (id, source, until_at) VALUES ($1, $2, $3)")
            .bind(id)
            .bind(source.as_str())
            .bind(to_ms(until))
            .execute(conn)
            .await
            .map(drop)?);
        Ok(())
    }

    /// Removes the entry of a finished request.
    pub async fn end_request(&self, id: &str) -> Result<(), StoreError> {
        on_pool!(&self.db, |pool| sqlx::query("DELETE FROM source_request WHERE id = $1")
            .bind(id)
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }
}
