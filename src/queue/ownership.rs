//! Checks that an attempt still owns its job before it is finished. River does not check this. Checks of attempts that
//! end together are batched into one query, so that many short jobs stay cheap.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{Queue, QueueError, Ticket};
use crate::store::{Db, last_worker};

/// Result of the ownership check of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    Mine,
    /// Requeued, or owned by another attempt.
    Lost,
    /// The job has ended for good.
    Ended,
}

/// Pending checks. The task with the turn runs one query for all of them.
#[derive(Default)]
pub(super) struct OwnershipChecks {
    waiting: Mutex<Vec<OwnershipQuery>>,
    turn: tokio::sync::Mutex<()>,
}

struct OwnershipQuery {
    job: i64,
    answer: oneshot::Sender<Option<JobOwner>>,
}

/// The job's row in the database.
#[derive(Debug, Clone)]
struct JobOwner {
    attempt: i64,
    worker: Option<String>,
    state: String,
}

impl JobOwner {
    fn ownership(&self, ticket: &Ticket) -> Ownership {
        let mine = self.attempt == i64::from(ticket.attempt) && self.worker.as_ref() == Some(&ticket.worker);
        match self.state.as_str() {
            "ended" => Ownership::Ended,
            "running" if mine => Ownership::Mine,
            _ => Ownership::Lost,
        }
    }
}

impl OwnershipChecks {
    fn put(&self, job: i64) -> oneshot::Receiver<Option<JobOwner>> {
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(OwnershipQuery { job, answer });
        answered
    }

    fn take(&self) -> Vec<OwnershipQuery> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Queue {
    /// Checks whether this attempt owns its job.
    pub(crate) async fn ownership(&self, ticket: &Ticket) -> Result<Ownership, QueueError> {
        loop {
            let mut answered = self.ownership_checks.put(ticket.job);
            let _turn = self.ownership_checks.turn.lock().await;
            let seen = match answered.try_recv() {
                Ok(seen) => seen,
                Err(TryRecvError::Empty) => self.ask_for_all(ticket.job).await?,
                // The task with the turn failed or was stopped and dropped the pending checks. The check is repeated.
                Err(TryRecvError::Closed) => continue,
            };
            return Ok(seen.map_or(Ownership::Ended, |seen| seen.ownership(ticket)));
        }
    }

    /// Runs all pending checks and returns the row of the caller's own job.
    async fn ask_for_all(&self, own: i64) -> Result<Option<JobOwner>, QueueError> {
        let questions = self.ownership_checks.take();
        let seen = self.seen(questions.iter().map(|question| question.job).collect()).await?;
        for question in questions {
            // The receiver may be gone.
            let _ = question.answer.send(seen.get(&question.job).cloned());
        }
        Ok(seen.get(&own).cloned())
    }

    async fn seen(&self, jobs: Vec<i64>) -> Result<HashMap<i64, JobOwner>, QueueError> {
        macro_rules! sql {
            ($engine:ident, $among:literal) => {
                concat!(
                    "SELECT id, CAST(attempt AS BIGINT), ",
                    last_worker!($engine),
                    ", CASE WHEN finalized_at IS NOT NULL THEN 'ended' WHEN state = 'running' THEN 'running' ELSE 'waiting' END ",
                    "FROM river_job WHERE id ",
                    $among
                )
            };
        }
        let rows: Vec<(i64, i64, Option<String>, String)> = match self.store.db() {
            Db::Sqlite(pool) => {
                let sql = sql!(sqlite, "IN (SELECT value FROM json_each($1))");
                sqlx::query_as(sql).bind(serde_json::to_string(&jobs).unwrap_or_default()).fetch_all(pool).await?
            }
            Db::Postgres(pool) => {
                let sql = sql!(postgres, "= ANY($1)");
                sqlx::query_as(sql).bind(jobs).fetch_all(pool).await?
            }
        };
        let seen = |(id, attempt, worker, state)| (id, JobOwner { attempt, worker, state });
        Ok(rows.into_iter().map(seen).collect())
    }
}
