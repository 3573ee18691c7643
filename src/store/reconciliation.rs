//! Reconciliation state of a source, known calls of a list page, and the time at which a list last showed a call.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::FromRow;

use super::record::Earlier;
use super::{Store, StoreError, corrupt, from_ms, on_pool, to_ms};
use crate::domain::{CallUid, RetentionState, RetentionTerm, SourceName};

/// The record data needed for a listed call.
#[derive(Debug, Clone, Copy)]
pub struct KnownCall {
    pub uid: CallUid,
    pub earlier: Option<Earlier>,
    pub retention_state: RetentionState,
}

/// The reconciliation state of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReconcileState {
    /// Start of the next tail poll. `None` uses the start of the window.
    pub tail_from: Option<Timestamp>,
    /// Whether the source applies date filters; `None` if not yet known.
    pub obeys_filter: Option<bool>,
    pub probed_at: Option<Timestamp>,
    /// Calls before this time were never listed.
    pub since_at: Option<Timestamp>,
    /// Start of the last completed pass over the recent window.
    pub passed_at: Option<Timestamp>,
    /// Start of the last completed pass over all calls.
    pub full_passed_at: Option<Timestamp>,
    /// The current pass.
    pub pass: Option<serde_json::Value>,
}

#[derive(Debug, FromRow)]
struct StateRow {
    tail_from: Option<i64>,
    filter: Option<String>,
    probed_at: Option<i64>,
    since_at: Option<i64>,
    passed_at: Option<i64>,
    full_passed_at: Option<i64>,
    pass_json: Option<String>,
}

#[derive(Debug, FromRow)]
struct KnownRow {
    call_id: String,
    uid: String,
    outcome: Option<String>,
    outcome_at: Option<i64>,
    explained: bool,
    retention_state: String,
    first_seen_at: i64,
    retention_days: i64,
}

/// SQL condition: the value is one of the texts in the JSON list `$2`.
macro_rules! among {
    (sqlite) => {
        "IN (SELECT value FROM json_each($2))"
    };
    (postgres) => {
        "= ANY(ARRAY(SELECT json_array_elements_text($2::json)))"
    };
}

impl Store {
    /// The known calls of a source among these platform ids.
    pub async fn known(&self, source: &SourceName, ids: &[&str]) -> Result<HashMap<String, KnownCall>, StoreError> {
        macro_rules! sql {
            ($among:expr) => {
                concat!(
                    "SELECT call_id, uid, outcome, outcome_at, outcome_reason IS NOT NULL AS explained, \
                     retention_state, first_seen_at, retention_days FROM call_record WHERE source = $1 AND call_id ",
                    $among
                )
            };
        }
        let known = self.db.sql(sql!(among!(sqlite)), sql!(among!(postgres)));
        let rows: Vec<KnownRow> = on_pool!(&self.db, |pool| sqlx::query_as(known)
            .bind(source.as_str())
            .bind(serde_json::Value::from(ids).to_string())
            .fetch_all(pool)
            .await?);
        let read = |row: KnownRow| {
            let id = row.uid.as_str();
            let outcome = row.outcome.map(|o| o.parse()).transpose().map_err(|err| corrupt("outcome", id, err))?;
            let at = from_ms(row.outcome_at.unwrap_or(0));
            let term = RetentionTerm::parse(row.retention_days).map_err(|err| corrupt("term", id, err))?;
            let known = KnownCall {
                uid: CallUid::parse(id).map_err(|err| corrupt("call uid", id, err))?,
                earlier: outcome.map(|outcome| Earlier {
                    outcome,
                    at,
                    explained: row.explained,
                    first_seen_at: from_ms(row.first_seen_at),
                    term,
                }),
                retention_state: RetentionState::parse(&row.retention_state)
                    .map_err(|err| corrupt("state", id, err))?,
            };
            Ok((row.call_id, known))
        };
        rows.into_iter().map(read).collect()
    }

    /// Notes that a list showed these calls. Ids without an active record are skipped.
    pub async fn sight(&self, source: &SourceName, ids: &[&str], now: Timestamp) -> Result<(), StoreError> {
        // The order keeps two processes from waiting for each other's rows.
        macro_rules! sql {
            ($among:expr) => {
                concat!(
                    "INSERT INTO call_sighting (call_uid, listed_at) SELECT uid, $3 FROM call_record \
                     WHERE source = $1 AND call_id ",
                    $among,
                    " AND retention_state = 'active' ORDER BY uid \
                     ON CONFLICT (call_uid) DO UPDATE SET listed_at = excluded.listed_at"
                )
            };
        }
        let sight = self.db.sql(sql!(among!(sqlite)), sql!(among!(postgres)));
        on_pool!(&self.db, |pool| sqlx::query(sight)
            .bind(source.as_str())
            .bind(serde_json::Value::from(ids).to_string())
            .bind(to_ms(now))
            .execute(pool)
            .await
            .map(drop)?);
        Ok(())
    }

    /// The number of kept calls that ended inside the interval and were last listed before `since`.
    pub async fn unlisted(
        &self,
        source: &SourceName,
        (from, to): (Timestamp, Timestamp),
        since: Timestamp,
    ) -> Result<u64, StoreError> {
        let count: i64 = on_pool!(&self.db, |pool| sqlx::query_scalar(
            "SELECT COUNT(*) FROM call_record c JOIN call_sighting s ON s.call_uid = c.uid \
             WHERE c.ended_at >= $2 AND c.ended_at < $3 AND c.source = $1 AND c.retention_state = 'active' \
             AND s.listed_at < $4"
        )
        .bind(source.as_str())
        .bind(to_ms(from))
        .bind(to_ms(to))
        .bind(to_ms(since))
        .fetch_one(pool)
        .await?);
        Ok(count as u64)
    }

    /// The reconciliation state of a source.
    pub async fn reconcile_state(&self, source: &SourceName) -> Result<ReconcileState, StoreError> {
        let row: Option<StateRow> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT tail_from, filter, probed_at, since_at, passed_at, full_passed_at, pass_json \
             FROM reconcile_state WHERE source = $1"
        )
        .bind(source.as_str())
        .fetch_optional(pool)
        .await?);
        let Some(row) = row else { return Ok(ReconcileState::default()) };
        Ok(ReconcileState {
            tail_from: row.tail_from.map(from_ms),
            obeys_filter: row.filter.map(|word| word == "honoured"),
            probed_at: row.probed_at.map(from_ms),
            since_at: row.since_at.map(from_ms),
            passed_at: row.passed_at.map(from_ms),
            full_passed_at: row.full_passed_at.map(from_ms),
            // A pass of another build that cannot be read is restarted.
            pass: row.pass_json.and_then(|text| serde_json::from_str(&text).ok()),
        })
    }

    /// Writes the reconciliation state of a source.
    pub async fn save_reconcile_state(&self, source: &SourceName, state: &ReconcileState) -> Result<(), StoreError> {
        let filter = state.obeys_filter.map(|obeys| if obeys { "honoured" } else { "ignored" });
        on_pool!(&self.db, |pool| sqlx::query(
            "INSERT INTO reconcile_state (source, tail_from, filter, probed_at, since_at, passed_at, full_passed_at, \
             pass_json) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (source) DO UPDATE SET \
             tail_from = excluded.tail_from, filter = excluded.filter, probed_at = excluded.probed_at, \
             since_at = excluded.since_at, passed_at = excluded.passed_at, \
             full_passed_at = excluded.full_passed_at, pass_json = excluded.pass_json"
        )
        .bind(source.as_str())
        .bind(state.tail_from.map(to_ms))
        .bind(filter)
        .bind(state.probed_at.map(to_ms))
        .bind(state.since_at.map(to_ms))
        .bind(state.passed_at.map(to_ms))
        .bind(state.full_passed_at.map(to_ms))
        .bind(state.pass.as_ref().map(ToString::to_string))
        .execute(pool)
        .await
        .map(drop)?);
        Ok(())
    }
}
