//! Removes the outcome of a call because the source's data has changed.

use jiff::{SignedDuration, Timestamp};

use super::record::CallRecord;
use super::{Store, StoreError, Tx, on_tx, to_ms};
use crate::domain::{CallUid, RetentionBasis, RetentionState};

impl Store {
    /// Removes an outcome because the source now has what was missing.
    pub async fn reopen(&self, tx: &mut Tx, uid: CallUid) -> Result<(), StoreError> {
        on_tx!(tx, |conn| sqlx::query(
            "UPDATE call_record SET outcome = NULL, outcome_reason = NULL, outcome_at = NULL \
             WHERE uid = $1 AND retention_state = 'active'"
        )
        .bind(uid.to_string())
        .execute(conn)
        .await
        .map(drop)?);
        Ok(())
    }

    /// Removes the outcome `past_retention` and the times on which it was based. Until the source is requested again,
    /// the term counts from `now`. Also reactivates a scrubbed record; the caller must ensure that it never held
    /// content.
    pub async fn reopen_untouched(
        &self,
        tx: &mut Tx,
        record: &CallRecord,
        now: Timestamp,
    ) -> Result<CallRecord, StoreError> {
        let term = SignedDuration::from_hours(24 * record.retention_term.days());
        let open = CallRecord {
            call: None,
            outcome: None,
            outcome_reason: None,
            outcome_at: None,
            ended_at: None,
            retention_state: RetentionState::Active,
            retain_until: now.checked_add(term).unwrap_or(Timestamp::MAX),
            retention_basis: RetentionBasis::FirstSeen.as_str().to_owned(),
            ..record.clone()
        };
        on_tx!(tx, |conn| sqlx::query(
            "UPDATE call_record SET call_json = '{}', outcome = NULL, outcome_reason = NULL, outcome_at = NULL, \
             ended_at = NULL, retention_state = 'active', retain_until = $2, retention_basis = $3, updated_at = $4 \
             WHERE uid = $1 AND outcome = 'past_retention' AND retention_state IN ('active', 'erased')"
        )
        .bind(record.uid.to_string())
        .bind(to_ms(open.retain_until))
        .bind(&open.retention_basis)
        .bind(to_ms(now))
        .execute(conn)
        .await
        .map(drop)?);
        Ok(open)
    }
}
