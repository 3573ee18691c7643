//! Record flags that are set and cleared outside of a pipeline run, and the query over all calls with stored objects
//! that one of them needs.

use std::collections::BTreeMap;

use sqlx::FromRow;

use super::{Store, StoreError, Tx, corrupt, on_pool, on_tx, read_json, to_ms, write_json};
use crate::domain::{Artifact, CallUid, OrgUid, RecordFlag, SourceName};
use crate::store::CallRecord;

/// A kept call with stored objects.
#[derive(Debug, Clone)]
pub struct StoredCall {
    pub org: OrgUid,
    pub uid: CallUid,
    pub artifacts: Vec<Artifact>,
    pub flags: Vec<String>,
}

#[derive(Debug, FromRow)]
struct FlaggedRow {
    uid: String,
    org_uid: String,
    artifacts_json: String,
    flags_json: String,
}

impl CallRecord {
    /// Whether the record has this flag.
    #[must_use]
    pub fn has_flag(&self, flag: RecordFlag) -> bool {
        self.flags.iter().any(|word| word == flag.as_str())
    }
}

impl Store {
    /// Sets a flag of a kept call. Returns false if the call has the flag already or is not kept.
    pub async fn set_flag(&self, tx: &mut Tx, uid: CallUid, flag: RecordFlag) -> Result<bool, StoreError> {
        self.change_flags(tx, uid, |flags| {
            let new = !flags.iter().any(|word| word == flag.as_str());
            if new {
                flags.push(flag.as_str().to_owned());
            }
            new
        })
        .await
    }

    /// Clears a flag of a kept call. Returns false if nothing changed.
    pub async fn clear_flag(&self, tx: &mut Tx, uid: CallUid, flag: RecordFlag) -> Result<bool, StoreError> {
        self.change_flags(tx, uid, |flags| {
            let before = flags.len();
            flags.retain(|word| word != flag.as_str());
            flags.len() < before
        })
        .await
    }

    async fn change_flags(
        &self,
        tx: &mut Tx,
        uid: CallUid,
        change: impl FnOnce(&mut Vec<String>) -> bool + Send,
    ) -> Result<bool, StoreError> {
        // SQLite's transaction already holds the only write lock. PostgreSQL needs a row lock.
        let lock = tx.sql(
            "SELECT flags_json FROM call_record WHERE uid = $1 AND retention_state = 'active'",
            "SELECT flags_json FROM call_record WHERE uid = $1 AND retention_state = 'active' FOR NO KEY UPDATE",
        );
        let id = uid.to_string();
        let held: Option<String> =
            on_tx!(&mut *tx, |conn| sqlx::query_scalar(lock).bind(&id).fetch_optional(conn).await?);
        let Some(held) = held else { return Ok(false) };
        let mut flags: Vec<String> = read_json("flags", &id, &held)?;
        if !change(&mut flags) {
            return Ok(false);
        }
        let json = write_json("flags", &id, &flags)?;
        on_tx!(tx, |conn| sqlx::query("UPDATE call_record SET flags_json = $2 WHERE uid = $1")
            .bind(&id)
            .bind(json)
            .execute(conn)
            .await
            .map(drop)?);
        Ok(true)
    }

    /// Kept calls with stored objects after this key, in the order of their object keys.
    pub async fn stored_calls(
        &self,
        after: Option<(OrgUid, CallUid)>,
        limit: u32,
    ) -> Result<Vec<StoredCall>, StoreError> {
        let (org, uid) = after.map_or_else(Default::default, |(org, uid)| (org.to_string(), uid.to_string()));
        let rows: Vec<FlaggedRow> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT uid, org_uid, artifacts_json, flags_json FROM call_record \
             WHERE retention_state = 'active' AND artifacts_json <> '[]' AND (org_uid, uid) > ($1, $2) \
             ORDER BY org_uid, uid LIMIT $3"
        )
        .bind(org)
        .bind(uid)
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?);
        let read = |row: FlaggedRow| {
            let id = row.uid.as_str();
            Ok(StoredCall {
                uid: CallUid::parse(id).map_err(|err| corrupt("call uid", id, err))?,
                org: OrgUid::parse(&row.org_uid).map_err(|err| corrupt("organisation", id, err))?,
                artifacts: read_json("artifacts", id, &row.artifacts_json)?,
                flags: read_json("flags", id, &row.flags_json)?,
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// The newest kept calls with stored objects.
    pub async fn newest_stored(&self, limit: u32) -> Result<Vec<CallUid>, StoreError> {
        let uids: Vec<String> = on_pool!(&self.db, |pool| sqlx::query_scalar(
            "SELECT uid FROM call_record WHERE retention_state = 'active' AND artifacts_json <> '[]' \
             ORDER BY ended_at DESC LIMIT $1"
        )
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?);
        uids.iter().map(|uid| CallUid::parse(uid).map_err(|err| corrupt("call uid", uid, err))).collect()
    }

    /// The number of calls with missing objects by source. A source without such calls has no entry.
    pub async fn missing_objects(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let rows: Vec<(String, i64)> = on_pool!(&self.db, |pool| sqlx::query_as(
            // The same condition as in the index `call_record_missing`.
            "SELECT source, COUNT(*) FROM call_record WHERE flags_json LIKE '%\"missing_object\"%' GROUP BY source"
        )
        .fetch_all(pool)
        .await?);
        Ok(rows.into_iter().map(|(source, count)| (source, count as u64)).collect())
    }

    /// The number of calls with missing objects that ended inside the interval.
    pub async fn missing_objects_of(
        &self,
        source: &SourceName,
        (from, to): (jiff::Timestamp, jiff::Timestamp),
    ) -> Result<u64, StoreError> {
        let count: i64 = on_pool!(&self.db, |pool| sqlx::query_scalar(
            "SELECT COUNT(*) FROM call_record WHERE source = $1 AND flags_json LIKE '%\"missing_object\"%' \
             AND COALESCE(ended_at, first_seen_at) >= $2 AND COALESCE(ended_at, first_seen_at) < $3"
        )
        .bind(source.as_str())
        .bind(to_ms(from))
        .bind(to_ms(to))
        .fetch_one(pool)
        .await?);
        Ok(count as u64)
    }
}
