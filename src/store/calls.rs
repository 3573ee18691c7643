//! Call records: one row per call, from first sight to tombstone.

use super::record::{CallRecord, CallRow};
use super::{Store, StoreError, Tx, corrupt, on_pool, on_tx, to_ms, write_json};
use crate::domain::{
    Artifact, CallFlag, CallId, CallUid, OrgUid, Outcome, RetainUntil, RetentionState, RetentionTerm, SourceCall,
    SourceName,
};
use jiff::Timestamp;

/// The data for a call's first write.
#[derive(Debug, Clone, Copy)]
pub struct Admitted<'a> {
    pub source: &'a SourceName,
    pub call_id: &'a CallId,
    /// `None` for a trigger, which has only the id.
    pub call: Option<&'a SourceCall>,
    pub now: Timestamp,
    pub term: RetentionTerm,
}

/// The result of a `process_call` run, as the record stores it.
#[derive(Debug, Clone)]
pub struct FinishedCall<'a> {
    pub outcome: Outcome,
    pub reason: Option<String>,
    pub artifacts: &'a [Artifact],
    pub quality: Option<&'a serde_json::Value>,
    pub flags: &'a [String],
    /// The version written in the same transaction, if there is a transcript.
    pub transcript_version: Option<u32>,
    /// Data that a later run of the call can reuse.
    pub left: Option<&'a serde_json::Value>,
    pub now: Timestamp,
}

/// Filter for listed calls.
#[derive(Debug, Clone, Default)]
pub struct CallFilter {
    pub source: Option<SourceName>,
    pub org_id: Option<String>,
    pub outcome: Option<Outcome>,
    pub status: Option<String>,
    pub direction: Option<String>,
    pub flag: Option<CallFlag>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    pub limit: Option<u64>,
    pub offset: u64,
}

impl Store {
    /// The record of a call. Creates it on first sight and refreshes it with the given call. Outcome and retention
    /// state stay unchanged, and tombstones are not refreshed.
    pub async fn admit(&self, tx: &mut Tx, admitted: Admitted<'_>) -> Result<CallRecord, StoreError> {
        let org_id = admitted.call.and_then(|call| call.org_id.as_deref());
        let org_uid = self.organization(tx, admitted.source, org_id.unwrap_or_default()).await?;
        let uid = CallUid::new().to_string();
        on_tx!(&mut *tx, |conn| sqlx::query(
            "INSERT INTO call_record (uid, source, call_id, org_uid, org_id, status, call_json, first_seen_at, \
             updated_at, retain_until, retention_basis, retention_days, retention_state) \
             VALUES ($1, $2, $3, $4, $5, 'unknown', '{}', $6, $6, $7, 'first_seen', $8, 'active') \
             ON CONFLICT (source, call_id) DO NOTHING",
        )
        .bind(uid)
        .bind(admitted.source.as_str())
        .bind(admitted.call_id.as_str())
        .bind(org_uid.to_string())
        .bind(org_id)
        .bind(to_ms(admitted.now))
        .bind(to_ms(admitted.now) + admitted.term.days() * 86_400_000)
        .bind(admitted.term.days())
        .execute(conn)
        .await
        .map(drop)?);
        let record = self.lock_call(tx, admitted.source, admitted.call_id).await?;
        match admitted.call {
            Some(call) if record.retention_state == RetentionState::Active => {
                self.refresh(tx, &record, call, admitted.now).await
            }
            _ => Ok(record),
        }
    }

    async fn organization(&self, tx: &mut Tx, source: &SourceName, org_id: &str) -> Result<OrgUid, StoreError> {
        on_tx!(&mut *tx, |conn| sqlx::query(
            "INSERT INTO organization (uid, source, org_id) VALUES ($1, $2, $3) ON CONFLICT (source, org_id) DO NOTHING"
        )
        .bind(OrgUid::new().to_string())
        .bind(source.as_str())
        .bind(org_id)
        .execute(conn)
        .await
        .map(drop)?);
        let uid: String = on_tx!(&mut *tx, |conn| sqlx::query_scalar(
            "SELECT uid FROM organization WHERE source = $1 AND org_id = $2"
        )
        .bind(source.as_str())
        .bind(org_id)
        .fetch_one(conn)
        .await?);
        OrgUid::parse(&uid).map_err(|err| corrupt("organisation", &uid, err))
    }

    async fn lock_call(&self, tx: &mut Tx, source: &SourceName, call_id: &CallId) -> Result<CallRecord, StoreError> {
        // SQLite's transaction already holds the only write lock. PostgreSQL needs a row lock.
        let lock = tx.sql(
            "SELECT * FROM call_record WHERE source = $1 AND call_id = $2",
            "SELECT * FROM call_record WHERE source = $1 AND call_id = $2 FOR UPDATE",
        );
        let row: CallRow = on_tx!(tx, |conn| sqlx::query_as(lock)
            .bind(source.as_str())
            .bind(call_id.as_str())
            .fetch_one(conn)
            .await?);
        row.into_record()
    }

    /// Merges the source's current data into the record. A null never replaces a value.
    pub async fn refresh(
        &self,
        tx: &mut Tx,
        record: &CallRecord,
        call: &SourceCall,
        now: Timestamp,
    ) -> Result<CallRecord, StoreError> {
        let uid = record.uid.to_string();
        let merged = match &record.call {
            // A hold keeps all data. The opt-out is noted, so that the erasure follows the release of the hold.
            Some(known) if call.opt_out && self.is_held_now(tx, record.uid).await? => {
                SourceCall { opt_out: true, ..known.clone() }
            }
            // An opt-out removes all earlier data.
            Some(known) if !call.opt_out => call.clone().merged_over(known.clone()),
            _ => call.clone(),
        };
        let mut retain = RetainUntil::of(&merged, record.first_seen_at, record.retention_term);
        if call.opt_out && record.holds_content() {
            // The opt-out came late. The stored content is due now.
            retain.at = retain.at.min(now);
        }
        let org_uid = match &merged.org_id {
            // The organisation is part of object keys. It is fixed once objects may exist.
            Some(org) if record.original.is_none() => self.organization(tx, &record.source, org).await?,
            _ => record.org_uid,
        };
        let json = match record.outcome {
            // The signatures in URLs are kept only while a job may need them.
            Some(_) => write_json("call", &uid, &merged.clone().without_permissions())?,
            None => write_json("call", &uid, &merged)?,
        };
        on_tx!(&mut *tx, |conn| sqlx::query(
            "UPDATE call_record SET call_json = $2, org_uid = $3, org_id = $4, direction = $5, status = $6, \
             ended_at = $7, duration_ms = $8, retain_until = $9, retention_basis = $10, updated_at = $11 \
             WHERE uid = $1 AND retention_state = 'active'",
        )
        .bind(&uid)
        .bind(json)
        .bind(org_uid.to_string())
        .bind(merged.org_id.as_deref())
        .bind(word(&merged.direction))
        .bind(word(&merged.status).unwrap_or_default())
        .bind(merged.ended_at.map(to_ms))
        .bind(merged.duration_ms.map(|ms| ms as i64))
        .bind(to_ms(retain.at))
        .bind(retain.basis.as_str())
        .bind(to_ms(now))
        .execute(conn)
        .await
        .map(drop)?);
        Ok(CallRecord {
            direction: word(&merged.direction),
            status: word(&merged.status).unwrap_or_default(),
            ended_at: merged.ended_at,
            duration_ms: merged.duration_ms,
            org_id: merged.org_id.clone(),
            org_uid,
            retain_until: retain.at,
            retention_basis: retain.basis.as_str().to_owned(),
            call: Some(merged),
            ..record.clone()
        })
    }

    /// Notes the stored original. Returns false if the generation has changed or retention has condemned the call.
    pub async fn set_original(&self, uid: CallUid, generation: i64, original: &Artifact) -> Result<bool, StoreError> {
        let json = write_json("original", &uid.to_string(), original)?;
        let changed = on_pool!(&self.db, |pool| {
            sqlx::query(
            "UPDATE call_record SET original_json = $3 WHERE uid = $1 AND generation = $2 AND retention_state = 'active'"
        )
        .bind(uid.to_string())
        .bind(generation)
        .bind(json)
        .execute(pool)
        .await?
        .rows_affected()
        });
        Ok(changed == 1)
    }

    /// Notes the results of the audio steps for a retry. Returns false in the cases of [`Self::set_original`].
    pub async fn set_progress(
        &self,
        tx: &mut Tx,
        uid: CallUid,
        generation: i64,
        progress: &serde_json::Value,
    ) -> Result<bool, StoreError> {
        let changed = on_tx!(tx, |conn| {
            sqlx::query(
            "UPDATE call_record SET progress_json = $3 WHERE uid = $1 AND generation = $2 AND retention_state = 'active'"
        )
        .bind(uid.to_string())
        .bind(generation)
        .bind(progress.to_string())
        .execute(conn)
        .await?
        .rows_affected()
        });
        Ok(changed == 1)
    }

    /// Locks the record for the rest of the transaction. Returns false if the generation has changed or the call is not
    /// active.
    pub async fn own_generation(&self, tx: &mut Tx, uid: CallUid, generation: i64) -> Result<bool, StoreError> {
        // SQLite's transaction already holds the only write lock.
        let lock = tx.sql(
            "SELECT 1 FROM call_record WHERE uid = $1 AND generation = $2 AND retention_state = 'active'",
            "SELECT 1 FROM call_record WHERE uid = $1 AND generation = $2 AND retention_state = 'active' \
             FOR NO KEY UPDATE",
        );
        let found = on_tx!(tx, |conn| sqlx::query(lock)
            .bind(uid.to_string())
            .bind(generation)
            .fetch_optional(conn)
            .await?
            .is_some());
        Ok(found)
    }

    /// Writes the result of a run. Returns false, and writes nothing, if the generation has changed or the call is not
    /// active.
    pub async fn finish_call(
        &self,
        tx: &mut Tx,
        uid: CallUid,
        generation: i64,
        finished: &FinishedCall<'_>,
    ) -> Result<bool, StoreError> {
        let id = uid.to_string();
        let artifacts = write_json("artifacts", &id, &finished.artifacts)?;
        let flags = write_json("flags", &id, &finished.flags)?;
        let changed = on_tx!(tx, |conn| sqlx::query(
            "UPDATE call_record SET outcome = $3, outcome_reason = $4, outcome_at = $5, updated_at = $5, \
             artifacts_json = $6, quality_json = $7, flags_json = $8, progress_json = $10, \
             transcript_version = COALESCE($9, transcript_version) \
             WHERE uid = $1 AND generation = $2 AND retention_state = 'active'",
        )
        .bind(id)
        .bind(generation)
        .bind(finished.outcome.as_str())
        .bind(finished.reason.as_deref())
        .bind(to_ms(finished.now))
        .bind(artifacts)
        .bind(finished.quality.map(ToString::to_string))
        .bind(flags)
        .bind(finished.transcript_version.map(i64::from))
        .bind(finished.left.map(ToString::to_string))
        .execute(conn)
        .await?
        .rows_affected());
        Ok(changed == 1)
    }

    /// Removes the signatures from a finished call's URLs.
    pub async fn forget_permissions(&self, tx: &mut Tx, record: &CallRecord) -> Result<(), StoreError> {
        let Some(call) = &record.call else { return Ok(()) };
        let uid = record.uid.to_string();
        let json = write_json("call", &uid, &call.clone().without_permissions())?;
        on_tx!(tx, |conn| sqlx::query(
            "UPDATE call_record SET call_json = $2 WHERE uid = $1 AND retention_state = 'active'"
        )
        .bind(uid)
        .bind(json)
        .execute(conn)
        .await
        .map(drop)?);
        Ok(())
    }

    /// The record with this id of ours.
    pub async fn call(&self, uid: CallUid) -> Result<Option<CallRecord>, StoreError> {
        let row: Option<CallRow> =
            on_pool!(&self.db, |pool| sqlx::query_as("SELECT * FROM call_record WHERE uid = $1")
                .bind(uid.to_string())
                .fetch_optional(pool)
                .await?);
        row.map(CallRow::into_record).transpose()
    }

    /// The records with this platform id. There are several if sources share the id.
    pub async fn calls_by_id(&self, id: &CallId, source: Option<&SourceName>) -> Result<Vec<CallRecord>, StoreError> {
        let rows: Vec<CallRow> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT * FROM call_record WHERE call_id = $1 AND ($2 IS NULL OR source = $2) ORDER BY source"
        )
        .bind(id.as_str())
        .bind(source.map(SourceName::as_str))
        .fetch_all(pool)
        .await?);
        rows.into_iter().map(CallRow::into_record).collect()
    }

    /// The matching records, newest end first.
    pub async fn calls(&self, filter: &CallFilter) -> Result<Vec<CallRecord>, StoreError> {
        let limit = filter.limit.map_or(i64::MAX, |limit| limit as i64);
        let rows: Vec<CallRow> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT * FROM call_record WHERE ($1 IS NULL OR source = $1) AND ($2 IS NULL OR org_id = $2) \
             AND ($3 IS NULL OR outcome = $3) AND ($4 IS NULL OR status = $4) AND ($5 IS NULL OR direction = $5) \
             AND ($6 IS NULL OR COALESCE(ended_at, first_seen_at) >= $6) \
             AND ($7 IS NULL OR COALESCE(ended_at, first_seen_at) < $7) \
             AND ($8 IS NULL OR replace(flags_json, $8, '') <> flags_json) \
             ORDER BY COALESCE(ended_at, first_seen_at) DESC, uid DESC LIMIT $9 OFFSET $10"
        )
        .bind(filter.source.as_ref().map(SourceName::as_str))
        .bind(filter.org_id.as_deref())
        .bind(filter.outcome.map(Outcome::as_str))
        .bind(filter.status.as_deref())
        .bind(filter.direction.as_deref())
        .bind(filter.from.map(to_ms))
        .bind(filter.to.map(to_ms))
        .bind(filter.flag.map(flag_in_json))
        .bind(limit)
        .bind(filter.offset as i64)
        .fetch_all(pool)
        .await?);
        rows.into_iter().map(CallRow::into_record).collect()
    }
}

/// A flag as it appears in the JSON list of a record.
pub(super) fn flag_in_json(flag: CallFlag) -> String {
    format!("\"{flag}\"")
}

/// The snake_case name of an enum value in JSON.
fn word<T: serde::Serialize>(value: &T) -> Option<String> {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned))
}
