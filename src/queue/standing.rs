//! Whose a job is by the time an attempt at it has ended. Attempts that end together ask together, so that a look, which
//! River does not take, costs little where very many short jobs end.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{Queue, QueueError, Ticket};
use crate::store::Db;

/// Whose a job is by now, seen from one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Mine,
    /// Given back, or in another attempt's hands.
    Elsewhere,
    /// It has reached an end from which it does not come back by itself.
    Ended,
}

/// Questions that wait for the next look; whoever has the turn asks them all.
#[derive(Default)]
pub(super) struct Standings {
    waiting: Mutex<Vec<Question>>,
    turn: tokio::sync::Mutex<()>,
}

struct Question {
    job: i64,
    answer: oneshot::Sender<Option<Seen>>,
}

/// What the database says of a job.
#[derive(Debug, Clone)]
struct Seen {
    attempt: i64,
    worker: Option<String>,
    state: String,
}

impl Seen {
    fn standing(&self, ticket: &Ticket) -> Standing {
        let mine = self.attempt == i64::from(ticket.attempt) && self.worker.as_ref() == Some(&ticket.worker);
        match self.state.as_str() {
            "ended" => Standing::Ended,
            "running" if mine => Standing::Mine,
            _ => Standing::Elsewhere,
        }
    }
}

impl Standings {
    fn put(&self, job: i64) -> oneshot::Receiver<Option<Seen>> {
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Question { job, answer });
        answered
    }

    fn take(&self) -> Vec<Question> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Queue {
    /// Whose a job is by now, seen from one attempt.
    pub(crate) async fn standing(&self, ticket: &Ticket) -> Result<Standing, QueueError> {
        loop {
            let mut answered = self.standings.put(ticket.job);
            let _turn = self.standings.turn.lock().await;
            let seen = match answered.try_recv() {
                Ok(seen) => seen,
                Err(TryRecvError::Empty) => self.ask_for_all(ticket.job).await?,
                // An asker that failed or was stopped took the others' questions with it: they ask again.
                Err(TryRecvError::Closed) => continue,
            };
            return Ok(seen.map_or(Standing::Ended, |seen| seen.standing(ticket)));
        }
    }

    /// Answers everybody who waits; what is seen of one's own job.
    async fn ask_for_all(&self, own: i64) -> Result<Option<Seen>, QueueError> {
        let questions = self.standings.take();
        let seen = self.seen(questions.iter().map(|question| question.job).collect()).await?;
        for question in questions {
            // Whoever has stopped waiting needs no answer.
            let _ = question.answer.send(seen.get(&question.job).cloned());
        }
        Ok(seen.get(&own).cloned())
    }

    async fn seen(&self, jobs: Vec<i64>) -> Result<HashMap<i64, Seen>, QueueError> {
        macro_rules! sql {
            ($last_worker:literal, $among:literal) => {
                concat!(
                    "SELECT id, CAST(attempt AS BIGINT), ",
                    $last_worker,
                    ", CASE WHEN finalized_at IS NOT NULL THEN 'ended' WHEN state = 'running' THEN 'running' ELSE 'waiting' END ",
                    "FROM river_job WHERE id ",
                    $among
                )
            };
        }
        let rows: Vec<(i64, i64, Option<String>, String)> = match self.store.db() {
            Db::Sqlite(pool) => {
                let sql = sql!("json_extract(attempted_by, '$[#-1]')", "IN (SELECT value FROM json_each($1))");
                sqlx::query_as(sql).bind(serde_json::to_string(&jobs).unwrap_or_default()).fetch_all(pool).await?
            }
            Db::Postgres(pool) => {
                let sql = sql!("attempted_by[array_length(attempted_by, 1)]", "= ANY($1)");
                sqlx::query_as(sql).bind(jobs).fetch_all(pool).await?
            }
        };
        let seen = |(id, attempt, worker, state)| (id, Seen { attempt, worker, state });
        Ok(rows.into_iter().map(seen).collect())
    }
}
