//! Last and next firings of the schedules. The worker that advances a row enqueues the job, so that a firing happens
//! once.

use jiff::Timestamp;

use super::{Store, StoreError, Tx, from_ms, on_pool, on_tx, to_ms};

/// A schedule's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    pub name: String,
    pub next_at: Timestamp,
    /// The last firing. `None` if none was noted yet.
    pub fired_at: Option<Timestamp>,
}

impl Store {
    /// All known schedules, by name.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        let rows: Vec<(String, i64, Option<i64>)> =
            on_pool!(&self.db, |pool| sqlx::query_as("SELECT name, next_at, fired_at FROM schedule ORDER BY name")
                .fetch_all(pool)
                .await?);
        let read = |(name, next_at, fired_at): (String, i64, Option<i64>)| ScheduleRow {
            name,
            next_at: from_ms(next_at),
            fired_at: fired_at.map(from_ms),
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// The next firing of a schedule. `None` for an unknown schedule.
    pub async fn schedule_next(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        let next: Option<i64> =
            on_pool!(&self.db, |pool| sqlx::query_scalar("SELECT next_at FROM schedule WHERE name = $1")
                .bind(name)
                .fetch_optional(pool)
                .await?);
        Ok(next.map(from_ms))
    }

    /// Advances a schedule from its current firing. Among all workers, exactly one gets true for a firing.
    pub async fn schedule_move(
        &self,
        tx: &mut Tx,
        name: &str,
        from: Option<Timestamp>,
        to: Timestamp,
    ) -> Result<bool, StoreError> {
        let changed = match from {
            None => on_tx!(tx, |conn| sqlx::query(
                "INSERT INTO schedule (name, next_at) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING"
            )
            .bind(name)
            .bind(to_ms(to))
            .execute(conn)
            .await?
            .rows_affected()),
            Some(from) => {
                on_tx!(tx, |conn| sqlx::query("UPDATE schedule SET next_at = $3 WHERE name = $1 AND next_at = $2")
                    .bind(name)
                    .bind(to_ms(from))
                    .bind(to_ms(to))
                    .execute(conn)
                    .await?
                    .rows_affected())
            }
        };
        Ok(changed == 1)
    }

    /// Notes that a schedule fires now.
    pub async fn schedule_fired(&self, tx: &mut Tx, name: &str, now: Timestamp) -> Result<(), StoreError> {
        on_tx!(tx, |conn| sqlx::query("UPDATE schedule SET fired_at = $2 WHERE name = $1")
            .bind(name)
            .bind(to_ms(now))
            .execute(conn)
            .await
            .map(drop)?);
        Ok(())
    }
}
