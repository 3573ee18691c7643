//! Flags of records that are set and taken back outside of a run of the pipeline, and the walk over everything that is
//! stored which sets one of them.

use std::collections::BTreeMap;

use sqlx::FromRow;

use super::{Store, StoreError, Tx, corrupt, on_pool, on_tx, read_json, to_ms, write_json};
use crate::domain::{Artifact, CallUid, OrgUid, RecordFlag, SourceName};
use crate::store::CallRecord;

/// A kept call of which something is stored.
#[derive(Debug, Clone)]
pub struct StoredCall {
    pub org: OrgUid,
    pub uid: CallUid,
    pub artifacts: Vec<Artifact>,
    pub flags: Vec<String>,
}

#[derive(Debug, FromRow)]
struct Row {
    uid: String,
    org_uid: String,
    artifacts_json: String,
    flags_json: String,
}

impl CallRecord {
    /// Whether the record carries this flag.
    #[must_use]
    pub fn has_flag(&self, flag: RecordFlag) -> bool {
        self.flags.iter().any(|word| word == flag.as_str())
    }
}

impl Store {
    /// Sets a flag of a kept call. False where nothing changed: it had it, or is not kept.
    ///
    /// # Errors
    /// [`StoreError`].
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

    /// Takes a flag of a kept call back. False where nothing changed.
    ///
    /// # Errors
    /// [`StoreError`].
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
        // SQLite's transaction holds the only write lock already; PostgreSQL has to be asked for the row's.
        const SQLITE: &str = "SELECT flags_json FROM call_record WHERE uid = $1 AND retention_state = 'active'";
        const POSTGRES: &str =
            "SELECT flags_json FROM call_record WHERE uid = $1 AND retention_state = 'active' FOR NO KEY UPDATE";
        let id = uid.to_string();
        let held: Option<String> = match &mut *tx {
            Tx::Sqlite(tx) => sqlx::query_scalar(SQLITE).bind(&id).fetch_optional(&mut **tx).await?,
            Tx::Postgres(tx) => sqlx::query_scalar(POSTGRES).bind(&id).fetch_optional(&mut **tx).await?,
        };
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

    /// Kept calls of which something is stored, in the order of their object keys, after this one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stored_calls(
        &self,
        after: Option<(OrgUid, CallUid)>,
        limit: u32,
    ) -> Result<Vec<StoredCall>, StoreError> {
        let (org, uid) = after.map_or_else(Default::default, |(org, uid)| (org.to_string(), uid.to_string()));
        let rows: Vec<Row> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT uid, org_uid, artifacts_json, flags_json FROM call_record \
             WHERE retention_state = 'active' AND artifacts_json <> '[]' AND (org_uid, uid) > ($1, $2) \
             ORDER BY org_uid, uid LIMIT $3"
        )
        .bind(org)
        .bind(uid)
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?);
        let read = |row: Row| {
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

    /// The newest kept calls of which something is stored.
    ///
    /// # Errors
    /// [`StoreError`].
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

    /// How many calls miss stored objects, by source; sources without any are not in it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn missing_objects(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let rows: Vec<(String, i64)> = on_pool!(&self.db, |pool| sqlx::query_as(
            // As the index `call_record_missing` has it.
            "SELECT source, COUNT(*) FROM call_record WHERE flags_json LIKE '%\"missing_object\"%' GROUP BY source"
        )
        .fetch_all(pool)
        .await?);
        Ok(rows.into_iter().map(|(source, count)| (source, count as u64)).collect())
    }

    /// How many calls of a source that ended inside a stretch of time miss stored objects.
    ///
    /// # Errors
    /// [`StoreError`].
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
