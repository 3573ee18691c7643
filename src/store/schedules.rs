//! When schedules fired and fire next. Whoever moves a row on enqueues the job, so that a firing happens once.

use jiff::Timestamp;

use super::{Store, StoreError, Tx, from_ms, on_pool, on_tx, to_ms};

/// A schedule's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    pub name: String,
    pub next_at: Timestamp,
    /// When it last fired; none: not since that is noted.
    pub fired_at: Option<Timestamp>,
}

impl Store {
    /// All schedules that were ever seen, by name.
    ///
    /// # Errors
    /// [`StoreError`].
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

    /// When a schedule fires next; none when it has never been seen.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn schedule_next(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        let next: Option<i64> =
            on_pool!(&self.db, |pool| sqlx::query_scalar("SELECT next_at FROM schedule WHERE name = $1")
                .bind(name)
                .fetch_optional(pool)
                .await?);
        Ok(next.map(from_ms))
    }

    /// Moves a schedule on from the firing it stood at. Exactly one of any number of workers gets true for a firing.
    ///
    /// # Errors
    /// [`StoreError`].
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
    ///
    /// # Errors
    /// [`StoreError`].
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
