//! Queries for retention and capacity over many records: due calls, their expected number, unfetched recordings, and
//! named facts.

use jiff::{SignedDuration, Timestamp};
use sqlx::FromRow;

use super::{Store, StoreError, corrupt, from_ms, on_pool, to_ms};
use crate::domain::{CallUid, SourceName};

/// A call past its term.
#[derive(Debug, Clone)]
pub struct Due {
    pub uid: CallUid,
    pub call_id: String,
    pub source: String,
    pub retain_until: Timestamp,
    pub days: i64,
    pub held: bool,
}

/// Calls of one hour with recordings that exist only at their source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfetched {
    /// Start of the hour in which they ended.
    pub ended_from: Timestamp,
    pub calls: u64,
    /// First sight of the earliest of them.
    pub first_seen_at: Timestamp,
}

impl Unfetched {
    /// The time span of one value.
    pub const SPAN: SignedDuration = SignedDuration::from_hours(1);
}

#[derive(Debug, FromRow)]
struct DueRow {
    uid: String,
    call_id: String,
    source: String,
    retain_until: i64,
    retention_days: i64,
    held: i64,
}

/// SQL condition: the call ended without stored content, and its record has only basic fields, without numbers, text or
/// URLs. `CASE` skips the JSON of calls with another outcome.
macro_rules! bare {
    (sqlite) => {
        "(CASE WHEN outcome IN ('past_retention', 'opted_out') AND original_json IS NULL AND artifacts_json = '[]' \
         AND transcript_version = 0 AND quality_json IS NULL AND progress_json IS NULL THEN \
         COALESCE(json_extract(call_json, '$.agent_id'), json_extract(call_json, '$.phone_number_id'), \
         json_extract(call_json, '$.from_number'), json_extract(call_json, '$.to_number'), \
         json_extract(call_json, '$.recording_url'), json_extract(call_json, '$.dual_url'), \
         json_extract(call_json, '$.metadata'), json_extract(call_json, '$.analysis'), \
         json_extract(call_json, '$.raw'), json_extract(call_json, '$.turns[0]')) IS NULL ELSE FALSE END)"
    };
    (postgres) => {
        "(CASE WHEN outcome IN ('past_retention', 'opted_out') AND original_json IS NULL AND artifacts_json = '[]' \
         AND transcript_version = 0 AND quality_json IS NULL AND progress_json IS NULL THEN \
         COALESCE(call_json::json->>'agent_id', call_json::json->>'phone_number_id', \
         call_json::json->>'from_number', call_json::json->>'to_number', \
         call_json::json->>'recording_url', call_json::json->>'dual_url', \
         call_json::json->>'metadata', call_json::json->>'analysis', \
         call_json::json->>'raw', call_json::json#>>'{turns,0}') IS NULL ELSE FALSE END)"
    };
}

impl Store {
    /// Every active call past its term with content, longest overdue first. Held calls are included and marked. Calls
    /// with only basic fields are left out, because an erased call keeps the same fields.
    pub async fn due_calls(&self, now: Timestamp) -> Result<Vec<Due>, StoreError> {
        macro_rules! sql {
            ($engine:ident) => {
                concat!(
                    "SELECT uid, call_id, source, retain_until, retention_days, \
                     (SELECT COUNT(*) FROM hold WHERE call_uid = uid AND released_at IS NULL) AS held \
                     FROM call_record WHERE retention_state = 'active' AND retain_until <= $1 AND NOT ",
                    bare!($engine),
                    " ORDER BY retain_until, uid"
                )
            };
        }
        let due = self.db.sql(sql!(sqlite), sql!(postgres));
        let rows: Vec<DueRow> = on_pool!(&self.db, |pool| sqlx::query_as(due).bind(to_ms(now)).fetch_all(pool).await?);
        let read = |row: DueRow| {
            Ok(Due {
                uid: CallUid::parse(&row.uid).map_err(|err| corrupt("due call", &row.uid, err))?,
                call_id: row.call_id,
                source: row.source,
                retain_until: from_ms(row.retain_until),
                days: row.retention_days,
                held: row.held > 0,
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// Condemned calls with an unfinished erasure.
    pub async fn unfinished_erasures(&self) -> Result<Vec<CallUid>, StoreError> {
        let uids: Vec<String> = on_pool!(&self.db, |pool| sqlx::query_scalar(
            "SELECT uid FROM call_record WHERE retention_state IN ('condemned', 'blocked') ORDER BY uid"
        )
        .fetch_all(pool)
        .await?);
        uids.iter().map(|uid| CallUid::parse(uid).map_err(|err| corrupt("call uid", uid, err))).collect()
    }

    /// The number of calls with content that ended in the interval. A sweep one term later should find this many.
    pub async fn ended_between(&self, from: Timestamp, to: Timestamp) -> Result<u64, StoreError> {
        macro_rules! sql {
            ($engine:ident) => {
                concat!(
                    "SELECT COUNT(*) FROM call_record WHERE ended_at >= $1 AND ended_at < $2 AND NOT ",
                    bare!($engine)
                )
            };
        }
        let (from, to) = (to_ms(from), to_ms(to));
        let ended = self.db.sql(sql!(sqlite), sql!(postgres));
        let count: i64 =
            on_pool!(&self.db, |pool| sqlx::query_scalar(ended).bind(from).bind(to).fetch_one(pool).await?);
        Ok(count as u64)
    }

    /// Calls of a source that ended inside the interval and have no fetched recording, by the hour of their end, oldest
    /// first.
    pub async fn unfetched(
        &self,
        source: &SourceName,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Vec<Unfetched>, StoreError> {
        let rows: Vec<(i64, i64, i64)> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT ended_at / 3600000, COUNT(*), MIN(first_seen_at) FROM call_record \
             WHERE source = $1 AND ended_at >= $2 AND ended_at < $3 AND outcome IS NULL AND original_json IS NULL \
             AND retention_state = 'active' GROUP BY 1 ORDER BY 1"
        )
        .bind(source.as_str())
        .bind(to_ms(from))
        .bind(to_ms(to))
        .fetch_all(pool)
        .await?);
        let hour = |(hour, calls, seen): (i64, i64, i64)| Unfetched {
            ended_from: from_ms(hour * 3_600_000),
            calls: calls as u64,
            first_seen_at: from_ms(seen),
        };
        Ok(rows.into_iter().map(hour).collect())
    }

    /// A named fact, such as the time of the last sweep.
    pub async fn fact(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(on_pool!(&self.db, |pool| sqlx::query_scalar("SELECT value FROM fact WHERE name = $1")
            .bind(name)
            .fetch_optional(pool)
            .await?))
    }

    /// Sets a named fact.
    pub async fn set_fact(&self, name: &str, value: &str) -> Result<(), StoreError> {
        on_pool!(&self.db, |pool| sqlx::query(
            "INSERT INTO fact (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        )
        .bind(name)
        .bind(value)
        .execute(pool)
        .await
        .map(drop)?);
        Ok(())
    }
}
