//! Snoozes and retries by the database's clock, for workers whose clock is wrong. River would write times by the
//! worker's clock.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::runner::{SNOOZES, THROTTLED_SINCE};
use super::{Queue, QueueError, Ticket, Verdict};
use crate::store::Db;

/// The wait of a job.
struct Wait {
    state: &'static str,
    pause: Duration,
    /// Attempts that the wait restores. A job that only waits has used none, as in River.
    gives_back: i32,
    metadata: Map<String, Value>,
    error: Option<Value>,
}

impl Wait {
    fn of(verdict: &Verdict, attempt: i32, snoozes: u32) -> Option<Self> {
        let mut metadata = Map::from_iter([(THROTTLED_SINCE.to_owned(), Value::Null)]);
        let (mut state, mut gives_back, mut error) = ("scheduled", 1, None);
        let pause = match verdict {
            Verdict::SnoozeCounted(pause) => {
                metadata.insert(SNOOZES.to_owned(), snoozes.saturating_add(1).into());
                *pause
            }
            Verdict::Snooze(pause) => *pause,
            Verdict::Throttled { failure, after, since_ms } => {
                metadata.insert("failure".to_owned(), json!(failure));
                metadata.insert(THROTTLED_SINCE.to_owned(), (*since_ms).into());
                *after
            }
            Verdict::Retry { failure, after } => {
                metadata.insert("failure".to_owned(), json!(failure));
                (state, gives_back) = ("retryable", 0);
                error = Some(json!({ "attempt": attempt, "error": failure.cause, "trace": "" }));
                *after
            }
            Verdict::Complete | Verdict::DeadLetter(_) | Verdict::Fenced | Verdict::Interrupted => return None,
        };
        Some(Self { state, pause, gives_back, metadata, error })
    }
}

impl Queue {
    /// Makes a job wait by the database's clock, as its verdict says. False where the verdict is not a wait, or where
    /// another attempt owns the job.
    pub(super) async fn put_off(
        &self,
        ticket: &Ticket,
        (max_attempts, snoozes): (i32, u32),
        verdict: &Verdict,
    ) -> Result<bool, QueueError> {
        const WAIT: &str = "UPDATE river_job SET \
             state = CASE WHEN jsonb_exists(metadata, 'cancel_attempted_at') THEN 'cancelled' ELSE $4 END::river_job_state, \
             finalized_at = CASE WHEN jsonb_exists(metadata, 'cancel_attempted_at') THEN clock_timestamp() END, \
             scheduled_at = clock_timestamp() + make_interval(secs => $5), attempt = attempt - $6, \
             metadata = metadata || $7::jsonb, \
             errors = CASE WHEN $8::jsonb IS NULL THEN errors ELSE array_append(errors, \
             $8::jsonb || jsonb_build_object('at', to_char(clock_timestamp() AT TIME ZONE 'UTC', \
             'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))) END \
             WHERE id = $1 AND state = 'running' AND attempt = $2 AND attempted_by[array_length(attempted_by, 1)] = $3";
        // SQLite uses this machine's clock, so the clocks cannot differ.
        let Db::Postgres(pool) = self.store.db() else { return Ok(false) };
        let Some(wait) = Wait::of(verdict, ticket.attempt, snoozes) else { return Ok(false) };
        if wait.error.is_some() && ticket.attempt >= max_attempts {
            return Ok(false);
        }
        let changed = sqlx::query(WAIT)
            .bind(ticket.job)
            .bind(ticket.attempt as i16)
            .bind(&ticket.worker)
            .bind(wait.state)
            .bind(wait.pause.as_secs_f64())
            .bind(wait.gives_back as i16)
            .bind(Value::Object(wait.metadata).to_string())
            .bind(wait.error.map(|error| error.to_string()))
            .execute(pool)
            .await?
            .rows_affected();
        Ok(changed == 1)
    }

    /// Makes due jobs available by the database's clock. A leader does this normally. There is no leader when every
    /// worker's clock is wrong.
    pub async fn wake(&self) -> Result<(), QueueError> {
        // The change cannot violate a unique key, because all unfinished states share one key.
        const WAKE: &str = "UPDATE river_job SET state = 'available' \
                            WHERE state IN ('retryable', 'scheduled') AND scheduled_at <= clock_timestamp()";
        if let Db::Postgres(pool) = self.store.db() {
            sqlx::query(WAKE).execute(pool).await?;
        }
        Ok(())
    }

    /// Stores how far a worker's clock is ahead of the database's clock, milliseconds.
    pub async fn note_clock(&self, worker: &str, ahead_ms: i64) -> Result<(), QueueError> {
        let Db::Postgres(pool) = self.store.db() else { return Ok(()) };
        sqlx::query("UPDATE worker SET clock_ahead_ms = $2 WHERE id = $1 AND clock_ahead_ms <> $2")
            .bind(worker)
            .bind(ahead_ms)
            .execute(pool)
            .await?;
        Ok(())
    }

    /// The hosts of workers whose clocks differ from the database's clock by more than `tolerance`, with the difference
    /// in milliseconds.
    pub async fn wrong_clocks(&self, tolerance: Duration) -> Result<Vec<(String, i64)>, QueueError> {
        let Db::Postgres(pool) = self.store.db() else { return Ok(Vec::new()) };
        let wrong = "SELECT host, clock_ahead_ms FROM worker WHERE abs(clock_ahead_ms) > $1 ORDER BY host";
        Ok(sqlx::query_as(wrong).bind(tolerance.as_millis() as i64).fetch_all(pool).await?)
    }
}
