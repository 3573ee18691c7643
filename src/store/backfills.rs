//! Backfills: the calls a source's list held in a window, fed to the queue oldest first.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Store, StoreError, Tx, corrupt, from_ms, on_pool, on_tx, read_json, to_ms, write_json};
use crate::domain::{CallUid, SourceName};

/// Where a backfill stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackfillState {
    Listing,
    Feeding,
    Done,
    Failed,
}

impl BackfillState {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Listing, "listing"), (Self::Feeding, "feeding"), (Self::Done, "done"), (Self::Failed, "failed")];

    /// The word in the row.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, word)| *word == text).map(|(state, _)| *state)
    }
}

/// What started a backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Command,
    Schedule,
}

impl Origin {
    /// The word in the row.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Schedule => "schedule",
        }
    }
}

/// A backfill and its progress.
#[derive(Debug, Clone)]
pub struct Backfill {
    pub id: String,
    pub source: SourceName,
    pub from: Timestamp,
    pub to: Timestamp,
    pub again: bool,
    pub origin: String,
    pub state: BackfillState,
    pub listed: u64,
    pub enqueued: u64,
    pub done: u64,
    pub failed: u64,
    pub skipped: BTreeMap<String, u64>,
    pub reason: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A backfill about to start.
#[derive(Debug, Clone)]
pub struct NewBackfill<'a> {
    pub source: &'a SourceName,
    pub from: Timestamp,
    pub to: Timestamp,
    pub again: bool,
    pub origin: Origin,
    pub now: Timestamp,
}

/// A call a backfill found.
#[derive(Debug, Clone)]
pub struct BackfillItem {
    pub call_uid: CallUid,
}

#[derive(Debug, FromRow)]
struct Row {
    id: String,
    source: String,
    from_at: i64,
    to_at: i64,
    again: bool,
    origin: String,
    state: String,
    listed: i64,
    enqueued: i64,
    done: i64,
    failed: i64,
    skipped_json: String,
    reason: Option<String>,
    created_at: i64,
    updated_at: i64,
}

impl Store {
    /// Writes a new backfill. One from the schedule is refused (none) while another of its source is unfinished.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_backfill(&self, tx: &mut Tx, new: &NewBackfill<'_>) -> Result<Option<String>, StoreError> {
        if new.origin == Origin::Schedule {
            let running: i64 = on_tx!(&mut *tx, |conn| sqlx::query_scalar(
                "SELECT COUNT(*) FROM backfill WHERE source = $1 AND origin = 'schedule' \
                 AND state IN ('listing', 'feeding')"
            )
            .bind(new.source.as_str())
            .fetch_one(conn)
            .await?);
            if running > 0 {
                return Ok(None);
            }
        }
        let id = uuid::Uuid::now_v7().to_string();
        on_tx!(tx, |conn| sqlx::query(
            "INSERT INTO backfill (id, source, from_at, to_at, again, origin, state, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, 'listing', $7, $7)",
        )
        .bind(&id)
        .bind(new.source.as_str())
        .bind(to_ms(new.from))
        .bind(to_ms(new.to))
        .bind(new.again)
        .bind(new.origin.as_str())
        .bind(to_ms(new.now))
        .execute(conn)
        .await
        .map(drop)?);
        Ok(Some(id))
    }

    /// The backfill with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn backfill(&self, id: &str) -> Result<Option<Backfill>, StoreError> {
        let row: Option<Row> = on_pool!(&self.db, |pool| sqlx::query_as("SELECT * FROM backfill WHERE id = $1")
            .bind(id)
            .fetch_optional(pool)
            .await?);
        row.map(Row::read).transpose()
    }

    /// All backfills, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn backfills(&self) -> Result<Vec<Backfill>, StoreError> {
        let rows: Vec<Row> = on_pool!(&self.db, |pool| sqlx::query_as("SELECT * FROM backfill ORDER BY id DESC")
            .fetch_all(pool)
            .await?);
        rows.into_iter().map(Row::read).collect()
    }

    /// Adds a found call; false when this backfill knows it already (rows move while a list is paged).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_backfill_item(
        &self,
        tx: &mut Tx,
        backfill: &str,
        call: CallUid,
        ended_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let added = on_tx!(tx, |conn| sqlx::query(
            "INSERT INTO backfill_item (backfill_id, call_uid, ended_at, state) VALUES ($1, $2, $3, 'listed') \
             ON CONFLICT (backfill_id, call_uid) DO NOTHING"
        )
        .bind(backfill)
        .bind(call.to_string())
        .bind(to_ms(ended_at))
        .execute(conn)
        .await?
        .rows_affected());
        Ok(added == 1)
    }

    /// The oldest calls not yet fed to the queue.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_backfill_items(&self, backfill: &str, limit: u32) -> Result<Vec<BackfillItem>, StoreError> {
        let uids: Vec<String> = on_pool!(&self.db, |pool| sqlx::query_scalar(
            "SELECT call_uid FROM backfill_item WHERE backfill_id = $1 AND state = 'listed' \
             ORDER BY ended_at, call_uid LIMIT $2"
        )
        .bind(backfill)
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?);
        uids.iter()
            .map(|uid| {
                let call_uid = CallUid::parse(uid).map_err(|err| corrupt("backfill item", uid, err))?;
                Ok(BackfillItem { call_uid })
            })
            .collect()
    }

    /// Notes the job an item was fed to the queue as.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn feed_backfill_item(
        &self,
        tx: &mut Tx,
        backfill: &str,
        call: CallUid,
        job: i64,
    ) -> Result<(), StoreError> {
        on_tx!(tx, |conn| sqlx::query(
            "UPDATE backfill_item SET state = 'enqueued', job_id = $3 WHERE backfill_id = $1 AND call_uid = $2"
        )
        .bind(backfill)
        .bind(call.to_string())
        .bind(job)
        .execute(conn)
        .await
        .map(drop)?);
        Ok(())
    }

    /// Marks fed items whose job has ended, and counts all items by state. A job that is gone (an erasure takes the
    /// jobs of its call along) has ended too.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn settle_backfill(&self, backfill: &str) -> Result<BTreeMap<String, u64>, StoreError> {
        on_pool!(&self.db, |pool| sqlx::query(
            "UPDATE backfill_item SET state = CASE WHEN j.state = 'completed' THEN 'done' ELSE 'failed' END \
             FROM river_job j WHERE j.id = backfill_item.job_id AND backfill_item.backfill_id = $1 \
             AND backfill_item.state = 'enqueued' AND j.finalized_at IS NOT NULL",
        )
        .bind(backfill)
        .execute(pool)
        .await
        .map(drop)?);
        on_pool!(&self.db, |pool| sqlx::query(
            "UPDATE backfill_item SET state = 'done' WHERE backfill_id = $1 AND state = 'enqueued' \
             AND NOT EXISTS (SELECT 1 FROM river_job j WHERE j.id = backfill_item.job_id)",
        )
        .bind(backfill)
        .execute(pool)
        .await
        .map(drop)?);
        let rows: Vec<(String, i64)> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT state, COUNT(*) FROM backfill_item WHERE backfill_id = $1 GROUP BY state"
        )
        .bind(backfill)
        .fetch_all(pool)
        .await?);
        Ok(rows.into_iter().map(|(state, count)| (state, count as u64)).collect())
    }

    /// Writes state and counts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn save_backfill(&self, tx: &mut Tx, backfill: &Backfill, now: Timestamp) -> Result<(), StoreError> {
        let skipped = write_json("backfill", &backfill.id, &backfill.skipped)?;
        on_tx!(tx, |conn| sqlx::query(
            "UPDATE backfill SET state = $2, listed = $3, enqueued = $4, done = $5, failed = $6, skipped_json = $7, \
             reason = $8, updated_at = $9 WHERE id = $1",
        )
        .bind(&backfill.id)
        .bind(backfill.state.as_str())
        .bind(backfill.listed as i64)
        .bind(backfill.enqueued as i64)
        .bind(backfill.done as i64)
        .bind(backfill.failed as i64)
        .bind(skipped)
        .bind(backfill.reason.as_deref())
        .bind(to_ms(now))
        .execute(conn)
        .await
        .map(drop)?);
        Ok(())
    }

    /// Forgets the single calls of a finished backfill; its counts stay.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_backfill_items(&self, tx: &mut Tx, backfill: &str) -> Result<(), StoreError> {
        on_tx!(tx, |conn| sqlx::query("DELETE FROM backfill_item WHERE backfill_id = $1")
            .bind(backfill)
            .execute(conn)
            .await
            .map(drop)?);
        Ok(())
    }
}

impl Row {
    fn read(self) -> Result<Backfill, StoreError> {
        let id = self.id.as_str();
        Ok(Backfill {
            source: SourceName::parse(&self.source).map_err(|err| corrupt("backfill", id, err))?,
            from: from_ms(self.from_at),
            to: from_ms(self.to_at),
            again: self.again,
            origin: self.origin,
            state: BackfillState::parse(&self.state).ok_or_else(|| corrupt("backfill", id, "unknown state"))?,
            listed: self.listed as u64,
            enqueued: self.enqueued as u64,
            done: self.done as u64,
            failed: self.failed as u64,
            skipped: read_json("backfill", id, &self.skipped_json)?,
            reason: self.reason,
            created_at: from_ms(self.created_at),
            updated_at: from_ms(self.updated_at),
            id: self.id,
        })
    }
}
