//! Legal holds, and the database part of retention: condemn, block and scrub.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Store, StoreError, Tx, corrupt, from_ms, on_pool, on_tx, to_ms};
use crate::domain::{CallUid, Outcome};

/// A legal hold. The call is not erased while its hold is open.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Hold {
    pub id: String,
    #[serde(skip)]
    pub call_uid: CallUid,
    pub call_id: String,
    pub source: String,
    pub matter: String,
    pub placed_by: String,
    pub placed_at: Timestamp,
    pub review_by: Timestamp,
    pub released_at: Option<Timestamp>,
    pub released_by: Option<String>,
}

/// A new hold.
#[derive(Debug, Clone, Copy)]
pub struct NewHold<'a> {
    pub call_uid: CallUid,
    pub matter: &'a str,
    pub placed_by: &'a str,
    pub now: Timestamp,
    pub review_by: Timestamp,
}

#[derive(Debug, FromRow)]
struct HoldRow {
    id: String,
    call_uid: String,
    call_id: String,
    source: String,
    matter: String,
    placed_by: String,
    placed_at: i64,
    review_by: i64,
    released_at: Option<i64>,
    released_by: Option<String>,
}

impl Store {
    /// Places a hold and returns its id. Returns `None` if the call is already condemned.
    pub async fn place_hold(&self, tx: &mut Tx, hold: NewHold<'_>) -> Result<Option<String>, StoreError> {
        let id = uuid::Uuid::now_v7().to_string();
        // Updating the record row serialises this with a concurrent condemnation.
        let active = on_tx!(&mut *tx, |conn| sqlx::query(
            "UPDATE call_record SET updated_at = $2 WHERE uid = $1 AND retention_state = 'active'"
        )
        .bind(hold.call_uid.to_string())
        .bind(to_ms(hold.now))
        .execute(conn)
        .await?
        .rows_affected());
        if active == 0 {
            return Ok(None);
        }
        on_tx!(tx, |conn| sqlx::query(
            "INSERT INTO hold (id, call_uid, matter, placed_by, placed_at, review_by) VALUES ($1, $2, $3, $4, $5, $6)"
        )
        .bind(&id)
        .bind(hold.call_uid.to_string())
        .bind(hold.matter)
        .bind(hold.placed_by)
        .bind(to_ms(hold.now))
        .bind(to_ms(hold.review_by))
        .execute(conn)
        .await
        .map(drop)?);
        Ok(Some(id))
    }

    /// Releases an open hold. Returns false if no open hold has this id.
    pub async fn release_hold(&self, tx: &mut Tx, id: &str, by: &str, now: Timestamp) -> Result<bool, StoreError> {
        let changed = on_tx!(tx, |conn| sqlx::query(
            "UPDATE hold SET released_at = $2, released_by = $3 WHERE id = $1 AND released_at IS NULL"
        )
        .bind(id)
        .bind(to_ms(now))
        .bind(by)
        .execute(conn)
        .await?
        .rows_affected());
        Ok(changed == 1)
    }

    /// The holds of one call, or all holds, oldest first.
    pub async fn holds(&self, call: Option<CallUid>) -> Result<Vec<Hold>, StoreError> {
        let rows: Vec<HoldRow> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT h.id, h.call_uid, c.call_id, c.source, h.matter, h.placed_by, h.placed_at, h.review_by, \
             h.released_at, h.released_by FROM hold h JOIN call_record c ON c.uid = h.call_uid \
             WHERE $1 IS NULL OR h.call_uid = $1 ORDER BY h.id",
        )
        .bind(call.map(|uid| uid.to_string()))
        .fetch_all(pool)
        .await?);
        rows.into_iter().map(HoldRow::read).collect()
    }

    /// Like [`Self::is_held`], in the caller's transaction.
    pub(super) async fn is_held_now(&self, tx: &mut Tx, call: CallUid) -> Result<bool, StoreError> {
        let open: i64 = on_tx!(tx, |conn| sqlx::query_scalar(
            "SELECT COUNT(*) FROM hold WHERE call_uid = $1 AND released_at IS NULL"
        )
        .bind(call.to_string())
        .fetch_one(conn)
        .await?);
        Ok(open > 0)
    }

    /// Whether the call has an open hold.
    pub async fn is_held(&self, call: CallUid) -> Result<bool, StoreError> {
        Ok(self.holds(Some(call)).await?.iter().any(|hold| hold.released_at.is_none()))
    }

    /// Condemns an active call. Returns false unless the call is due and without an open hold. Increments the
    /// generation, so that a run in progress can no longer write.
    pub async fn condemn(&self, tx: &mut Tx, uid: CallUid, now: Timestamp) -> Result<bool, StoreError> {
        let changed = on_tx!(tx, |conn| sqlx::query(
            "UPDATE call_record SET retention_state = 'condemned', generation = generation + 1, updated_at = $2 \
             WHERE uid = $1 AND retention_state = 'active' AND retain_until <= $2 AND NOT EXISTS \
             (SELECT 1 FROM hold WHERE call_uid = $1 AND released_at IS NULL)",
        )
        .bind(uid.to_string())
        .bind(to_ms(now))
        .execute(conn)
        .await?
        .rows_affected());
        Ok(changed == 1)
    }

    /// Marks a condemned call as blocked, because the object store still shows objects of it.
    pub async fn block_erasure(&self, uid: CallUid, reason: &str) -> Result<(), StoreError> {
        on_pool!(&self.db, |pool| sqlx::query(
            "UPDATE call_record SET retention_state = 'blocked', retention_reason = $2 \
             WHERE uid = $1 AND retention_state IN ('condemned', 'blocked')"
        )
        .bind(uid.to_string())
        .bind(reason)
        .execute(pool)
        .await
        .map(drop)?);
        Ok(())
    }

    /// Removes all personal data from the record, and its transcripts, deliveries, sightings and speaker embedding. The
    /// tombstone keeps ids, times, status and outcome. The outcome is `erased`, or stays `past_retention` if no content
    /// was ever stored. Such a call may return if its source corrects its times.
    pub async fn scrub(&self, tx: &mut Tx, uid: CallUid, now: Timestamp) -> Result<(), StoreError> {
        for sql in [
            "DELETE FROM transcript WHERE call_uid = $1",
            "DELETE FROM outbox WHERE call_uid = $1",
            "DELETE FROM call_sighting WHERE call_uid = $1",
            "DELETE FROM agent_voice WHERE call_uid = $1",
        ] {
            on_tx!(&mut *tx, |conn| sqlx::query(sql).bind(uid.to_string()).execute(conn).await.map(drop)?);
        }
        on_tx!(tx, |conn| {
            sqlx::query(
            "UPDATE call_record SET call_json = '{}', retention_state = 'erased', retention_reason = NULL, \
             outcome = CASE WHEN outcome = $4 AND original_json IS NULL AND progress_json IS NULL \
             AND artifacts_json = '[]' AND transcript_version = 0 THEN outcome ELSE $3 END, outcome_reason = NULL, outcome_at = $2, updated_at = $2, original_json = NULL, progress_json = NULL, \
             artifacts_json = '[]', quality_json = NULL, flags_json = '[]', transcript_version = 0 WHERE uid = $1",
        )
        .bind(uid.to_string())
        .bind(to_ms(now))
        .bind(Outcome::Erased.as_str())
        .bind(Outcome::PastRetention.as_str())
        .execute(conn)
        .await
        .map(drop)?;
        });
        Ok(())
    }
}

impl HoldRow {
    fn read(self) -> Result<Hold, StoreError> {
        Ok(Hold {
            call_uid: CallUid::parse(&self.call_uid).map_err(|err| corrupt("hold", &self.id, err))?,
            id: self.id,
            call_id: self.call_id,
            source: self.source,
            matter: self.matter,
            placed_by: self.placed_by,
            placed_at: from_ms(self.placed_at),
            review_by: from_ms(self.review_by),
            released_at: self.released_at.map(from_ms),
            released_by: self.released_by,
        })
    }
}
