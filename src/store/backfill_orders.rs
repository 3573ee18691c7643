//! Steering of a backfill, and queries over its whole list of calls.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::backfills::{Backfill, Orders, Steering};
use super::calls::flag_in_json;
use super::our_calls::OurCalls;
use super::{Store, StoreError, Tx, on_pool, on_tx, to_ms};
use crate::domain::{CallFlag, Outcome, SourceName};

impl Store {
    /// Writes rate limit and filter of a new backfill.
    pub async fn order_backfill(&self, tx: &mut Tx, id: &str, orders: Orders) -> Result<(), StoreError> {
        on_tx!(tx, |conn| sqlx::query(
            "INSERT INTO backfill_order (backfill_id, steering, rate_per_minute, where_outcome, where_flag) \
             VALUES ($1, 'run', $2, $3, $4)"
        )
        .bind(id)
        .bind(orders.rate_per_minute.map(i64::from))
        .bind(orders.only.and_then(OurCalls::outcome).map(Outcome::as_str))
        .bind(orders.only.and_then(OurCalls::flag).map(CallFlag::as_str))
        .execute(conn)
        .await
        .map(drop)?);
        Ok(())
    }

    /// Pauses, resumes or cancels a backfill. Returns false if the id is unknown or the backfill has ended or was
    /// cancelled, because a cancellation is final.
    pub async fn steer_backfill(&self, id: &str, steering: Steering) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        ensure_order(&mut tx, id).await?;
        let changed = on_tx!(&mut tx, |conn| sqlx::query(
            "UPDATE backfill_order SET steering = $2 WHERE backfill_id = $1 AND steering <> 'cancelled' \
             AND EXISTS (SELECT 1 FROM backfill WHERE id = $1 AND state IN ('listing', 'feeding'))"
        )
        .bind(id)
        .bind(steering.as_str())
        .execute(conn)
        .await?
        .rows_affected());
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Sets a backfill's limit in calls per minute; `None` removes it. Returns false in the cases of
    /// [`Store::steer_backfill`].
    pub async fn rate_backfill(&self, id: &str, rate_per_minute: Option<u32>) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        ensure_order(&mut tx, id).await?;
        let changed = on_tx!(&mut tx, |conn| sqlx::query(
            "UPDATE backfill_order SET rate_per_minute = $2 WHERE backfill_id = $1 AND steering <> 'cancelled' \
             AND EXISTS (SELECT 1 FROM backfill WHERE id = $1 AND state IN ('listing', 'feeding'))"
        )
        .bind(id)
        .bind(rate_per_minute.map(i64::from))
        .execute(conn)
        .await?
        .rows_affected());
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Deletes scheduled backfills that were done before this time. Backfills started by a person stay. Returns the
    /// number of deleted backfills.
    pub async fn forget_scheduled_backfills(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        on_tx!(&mut tx, |conn| sqlx::query(
            "DELETE FROM backfill_order WHERE backfill_id IN \
             (SELECT id FROM backfill WHERE origin = 'schedule' AND state = 'done' AND updated_at < $1)"
        )
        .bind(to_ms(before))
        .execute(conn)
        .await
        .map(drop)?);
        let forgotten = on_tx!(&mut tx, |conn| sqlx::query(
            "DELETE FROM backfill WHERE origin = 'schedule' AND state = 'done' AND updated_at < $1"
        )
        .bind(to_ms(before))
        .execute(conn)
        .await?
        .rows_affected());
        tx.commit().await?;
        Ok(forgotten)
    }

    /// Number of backfills that feed calls now, which share the lane.
    pub async fn feeding_backfills(&self) -> Result<u64, StoreError> {
        let count: i64 = on_pool!(&self.db, |pool| sqlx::query_scalar(
            "SELECT COUNT(*) FROM backfill b LEFT JOIN backfill_order o ON o.backfill_id = b.id \
             WHERE b.state = 'feeding' AND COALESCE(o.steering, 'run') = 'run'"
        )
        .fetch_one(pool)
        .await?);
        Ok(count as u64)
    }

    /// Adds every kept call of the source that matches the filter and ended inside the window, with its turn. Returns
    /// the number of added items.
    pub async fn add_backfill_items_of_ours(
        &self,
        tx: &mut Tx,
        backfill: &Backfill,
        only: OurCalls,
    ) -> Result<u64, StoreError> {
        Ok(on_tx!(tx, |conn| sqlx::query(
            "INSERT INTO backfill_item (backfill_id, call_uid, ended_at, state, org_uid, turn) \
             SELECT $1, uid, COALESCE(ended_at, first_seen_at), 'listed', org_uid, \
             row_number() OVER (PARTITION BY org_uid ORDER BY COALESCE(ended_at, first_seen_at), uid) FROM call_record \
             WHERE source = $2 AND ($3 IS NULL OR outcome = $3) AND retention_state = 'active' \
             AND COALESCE(ended_at, first_seen_at) >= $4 AND COALESCE(ended_at, first_seen_at) < $5 \
             AND ($6 IS NULL OR replace(flags_json, $6, '') <> flags_json) \
             ON CONFLICT (backfill_id, call_uid) DO NOTHING"
        )
        .bind(&backfill.id)
        .bind(backfill.source.as_str())
        .bind(only.outcome().map(Outcome::as_str))
        .bind(to_ms(backfill.from))
        .bind(to_ms(backfill.to))
        .bind(only.flag().map(flag_in_json))
        .execute(conn)
        .await?
        .rows_affected()))
    }

    /// Sets the turn of every item: turn n is the n-th oldest call of its organisation.
    pub async fn take_turns(&self, tx: &mut Tx, backfill: &str) -> Result<(), StoreError> {
        // PostgreSQL has no statistics of the new rows, expects few of them and would choose a quadratic nested loop.
        if let Tx::Postgres(tx) = &mut *tx {
            sqlx::query("SET LOCAL enable_nestloop = off").execute(&mut **tx).await?;
        }
        on_tx!(&mut *tx, |conn| sqlx::query(
            "UPDATE backfill_item SET turn = r.turn FROM (SELECT call_uid, \
             row_number() OVER (PARTITION BY org_uid ORDER BY ended_at, call_uid) AS turn \
             FROM backfill_item WHERE backfill_id = $1) r \
             WHERE backfill_item.backfill_id = $1 AND backfill_item.call_uid = r.call_uid"
        )
        .bind(backfill)
        .execute(conn)
        .await
        .map(drop)?);
        if let Tx::Postgres(tx) = tx {
            sqlx::query("SET LOCAL enable_nestloop TO DEFAULT").execute(&mut **tx).await?;
        }
        Ok(())
    }

    /// Items that wait to be fed, and how many of those expire at the source before `until`.
    pub async fn waiting_items(&self, backfill: &str, until: Timestamp) -> Result<(u64, u64), StoreError> {
        let (waiting, expiring): (i64, i64) = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT (SELECT COUNT(*) FROM backfill_item WHERE backfill_id = $1 AND state = 'listed'), \
             (SELECT COUNT(*) FROM backfill_item WHERE backfill_id = $1 AND state = 'listed' AND expires_at < $2)"
        )
        .bind(backfill)
        .bind(to_ms(until))
        .fetch_one(pool)
        .await?);
        Ok((waiting as u64, expiring as u64))
    }

    /// Kept calls of a source that match the filter and ended inside the interval: their count and total duration in
    /// milliseconds.
    pub async fn count_of_ours(
        &self,
        source: &SourceName,
        (from, to): (Timestamp, Timestamp),
        only: OurCalls,
    ) -> Result<(u64, u64), StoreError> {
        let (count, ms): (i64, i64) = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT COUNT(*), CAST(COALESCE(SUM(duration_ms), 0) AS BIGINT) FROM call_record \
             WHERE source = $1 AND ($2 IS NULL OR outcome = $2) AND retention_state = 'active' \
             AND COALESCE(ended_at, first_seen_at) >= $3 AND COALESCE(ended_at, first_seen_at) < $4 \
             AND ($5 IS NULL OR replace(flags_json, $5, '') <> flags_json)"
        )
        .bind(source.as_str())
        .bind(only.outcome().map(Outcome::as_str))
        .bind(to_ms(from))
        .bind(to_ms(to))
        .bind(only.flag().map(flag_in_json))
        .fetch_one(pool)
        .await?);
        Ok((count as u64, ms as u64))
    }

    /// Calls that ended within the last `window_ms` milliseconds, by minute since 1970: the recent throughput.
    pub async fn ended_by_minute(&self, now: Timestamp, window_ms: i64) -> Result<BTreeMap<i64, u64>, StoreError> {
        let rows: Vec<(i64, i64)> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT outcome_at / 60000, COUNT(*) FROM call_record WHERE outcome_at >= $1 AND outcome_at < $2 \
             GROUP BY outcome_at / 60000"
        )
        .bind(to_ms(now) - window_ms)
        .bind(to_ms(now))
        .fetch_all(pool)
        .await?);
        Ok(rows.into_iter().map(|(minute, count)| (minute, count as u64)).collect())
    }
}

/// Adds the missing steering row of a backfill that an earlier build started.
async fn ensure_order(tx: &mut Tx, id: &str) -> Result<(), StoreError> {
    on_tx!(tx, |conn| sqlx::query(
        "INSERT INTO backfill_order (backfill_id, steering) \
         SELECT id, 'run' FROM backfill WHERE id = $1 ON CONFLICT (backfill_id) DO NOTHING"
    )
    .bind(id)
    .execute(conn)
    .await
    .map(drop)?);
    Ok(())
}
