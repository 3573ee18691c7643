//! Backfills: the calls that a source listed within a window, and the progress of feeding them to the queue.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::FromRow;

use super::our_calls::OurCalls;
use super::{Store, StoreError, Tx, corrupt, from_ms, on_pool, on_tx, read_json, to_ms, write_json};
use crate::domain::{CallUid, OrgUid, SourceName, words};

words! {
    /// The state of a backfill.
    pub enum BackfillState {
        Listing = "listing",
        Feeding = "feeding",
        Done = "done",
        Failed = "failed",
    }
}

words! {
    /// The origin of a backfill.
    pub enum Origin {
        Command = "command",
        Schedule = "schedule",
    }
}

words! {
    /// A person's current instruction for a backfill.
    #[derive(Default)]
    pub enum Steering {
        #[default]
        Run = "run",
        Paused = "paused",
        Cancelled = "cancelled",
    }
}

/// Options of a backfill.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orders {
    /// Most calls per minute.
    pub rate_per_minute: Option<u32>,
    /// Repeat these calls of ours instead of the source's list.
    pub only: Option<OurCalls>,
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
    pub orders: Orders,
    pub steering: Steering,
    /// Position in the listing.
    pub cursor: Option<serde_json::Value>,
    /// When feeding began.
    pub fed_from: Option<Timestamp>,
    /// When the rate limit allows the next call.
    pub next_feed_at: Option<Timestamp>,
}

/// A new backfill.
#[derive(Debug, Clone)]
pub struct NewBackfill<'a> {
    pub source: &'a SourceName,
    pub from: Timestamp,
    pub to: Timestamp,
    pub again: bool,
    pub origin: Origin,
    pub now: Timestamp,
}

/// A listed call.
#[derive(Debug, Clone)]
pub struct BackfillItem {
    pub call_uid: CallUid,
}

#[derive(Debug, FromRow)]
struct BackfillRow {
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
    steering: Option<String>,
    rate_per_minute: Option<i64>,
    where_outcome: Option<String>,
    where_flag: Option<String>,
    cursor_json: Option<String>,
    fed_from: Option<i64>,
    next_feed_at: Option<i64>,
}

/// A call to add to a backfill.
#[derive(Debug, Clone, Copy)]
pub struct NewItem {
    pub call: CallUid,
    pub org: Option<OrgUid>,
    pub ended_at: Timestamp,
    /// When the source is expected to delete its recording.
    pub expires_at: Option<Timestamp>,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT b.id, b.source, b.from_at, b.to_at, b.again, b.origin, b.state, b.listed, b.enqueued, b.done, \
             b.failed, b.skipped_json, b.reason, b.created_at, b.updated_at, o.steering, o.rate_per_minute, \
             o.where_outcome, o.where_flag, o.cursor_json, o.fed_from, o.next_feed_at \
             FROM backfill b LEFT JOIN backfill_order o ON o.backfill_id = b.id ",
            $rest
        )
    };
}

impl Store {
    /// Writes a new backfill and returns its id. Returns `None` for a scheduled one while another scheduled backfill of
    /// the source is unfinished.
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
    pub async fn backfill(&self, id: &str) -> Result<Option<Backfill>, StoreError> {
        let row: Option<BackfillRow> =
            on_pool!(&self.db, |pool| sqlx::query_as(select!("WHERE b.id = $1")).bind(id).fetch_optional(pool).await?);
        row.map(BackfillRow::read).transpose()
    }

    /// All backfills, newest first.
    pub async fn backfills(&self) -> Result<Vec<Backfill>, StoreError> {
        let rows: Vec<BackfillRow> =
            on_pool!(&self.db, |pool| sqlx::query_as(select!("ORDER BY b.id DESC")).fetch_all(pool).await?);
        rows.into_iter().map(BackfillRow::read).collect()
    }

    /// Adds a listed call. Returns false if this backfill has it already, because rows move between pages of a list.
    pub async fn add_backfill_item(&self, tx: &mut Tx, backfill: &str, item: NewItem) -> Result<bool, StoreError> {
        let added = on_tx!(tx, |conn| sqlx::query(
            "INSERT INTO backfill_item (backfill_id, call_uid, ended_at, state, org_uid, expires_at) \
             VALUES ($1, $2, $3, 'listed', $4, $5) ON CONFLICT (backfill_id, call_uid) DO NOTHING"
        )
        .bind(backfill)
        .bind(item.call.to_string())
        .bind(to_ms(item.ended_at))
        .bind(item.org.map(|org| org.to_string()))
        .bind(item.expires_at.map(to_ms))
        .execute(conn)
        .await?
        .rows_affected());
        Ok(added == 1)
    }

    /// The calls to feed next. Calls that expire at the source before `urgent_until` go first, soonest first. Then
    /// follows the oldest call of each organisation in turn.
    pub async fn next_backfill_items(
        &self,
        backfill: &str,
        urgent_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<BackfillItem>, StoreError> {
        let mut uids: Vec<String> = on_pool!(&self.db, |pool| sqlx::query_scalar(
            "SELECT call_uid FROM backfill_item WHERE backfill_id = $1 AND state = 'listed' AND expires_at < $2 \
             ORDER BY expires_at, call_uid LIMIT $3"
        )
        .bind(backfill)
        .bind(to_ms(urgent_until))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?);
        if uids.len() < limit as usize {
            let others: Vec<String> = on_pool!(&self.db, |pool| sqlx::query_scalar(
                "SELECT call_uid FROM backfill_item WHERE backfill_id = $1 AND state = 'listed' \
                 AND (expires_at IS NULL OR expires_at >= $2) ORDER BY turn, ended_at, call_uid LIMIT $3"
            )
            .bind(backfill)
            .bind(to_ms(urgent_until))
            .bind(i64::from(limit) - uids.len() as i64)
            .fetch_all(pool)
            .await?);
            uids.extend(others);
        }
        uids.iter()
            .map(|uid| {
                let call_uid = CallUid::parse(uid).map_err(|err| corrupt("backfill item", uid, err))?;
                Ok(BackfillItem { call_uid })
            })
            .collect()
    }

    /// Notes the job of a fed item.
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

    /// Writes state, counts and position.
    pub async fn save_backfill(&self, tx: &mut Tx, backfill: &Backfill, now: Timestamp) -> Result<(), StoreError> {
        let skipped = write_json("backfill", &backfill.id, &backfill.skipped)?;
        on_tx!(&mut *tx, |conn| sqlx::query(
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
        // The steering columns are left out, because other processes write them.
        on_tx!(tx, |conn| sqlx::query(
            "UPDATE backfill_order SET cursor_json = $2, fed_from = $3, next_feed_at = $4 WHERE backfill_id = $1"
        )
        .bind(&backfill.id)
        .bind(backfill.cursor.as_ref().map(ToString::to_string))
        .bind(backfill.fed_from.map(to_ms))
        .bind(backfill.next_feed_at.map(to_ms))
        .execute(conn)
        .await
        .map(drop)?);
        Ok(())
    }

    /// Deletes the items of a finished backfill. Its counts stay.
    pub async fn forget_backfill_items(&self, tx: &mut Tx, backfill: &str) -> Result<(), StoreError> {
        on_tx!(tx, |conn| sqlx::query("DELETE FROM backfill_item WHERE backfill_id = $1")
            .bind(backfill)
            .execute(conn)
            .await
            .map(drop)?);
        Ok(())
    }
}

impl BackfillRow {
    fn read(self) -> Result<Backfill, StoreError> {
        let id = self.id.as_str();
        Ok(Backfill {
            source: SourceName::parse(&self.source).map_err(|err| corrupt("backfill", id, err))?,
            from: from_ms(self.from_at),
            to: from_ms(self.to_at),
            again: self.again,
            origin: self.origin,
            state: BackfillState::named(&self.state).ok_or_else(|| corrupt("backfill", id, "unknown state"))?,
            listed: self.listed as u64,
            enqueued: self.enqueued as u64,
            done: self.done as u64,
            failed: self.failed as u64,
            skipped: read_json("backfill", id, &self.skipped_json)?,
            reason: self.reason,
            created_at: from_ms(self.created_at),
            updated_at: from_ms(self.updated_at),
            orders: Orders {
                rate_per_minute: self.rate_per_minute.and_then(|rate| u32::try_from(rate).ok()),
                only: OurCalls::read(self.where_outcome.as_deref(), self.where_flag.as_deref())
                    .map_err(|err| corrupt("backfill", id, err))?,
            },
            steering: self.steering.as_deref().and_then(Steering::named).unwrap_or_default(),
            // A cursor of another build that cannot be read restarts the listing.
            cursor: self.cursor_json.and_then(|text| serde_json::from_str(&text).ok()),
            fed_from: self.fed_from.map(from_ms),
            next_feed_at: self.next_feed_at.map(from_ms),
            id: self.id,
        })
    }
}
