//! A call record, as a database row and as a value.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{StoreError, corrupt, from_ms, read_json};
use crate::domain::{
    Artifact, CallId, CallUid, OrgUid, Outcome, RetentionState, RetentionTerm, SourceCall, SourceName,
};

/// A call record.
#[derive(Debug, Clone)]
pub struct CallRecord {
    pub uid: CallUid,
    pub source: SourceName,
    pub call_id: CallId,
    pub org_uid: OrgUid,
    pub org_id: Option<String>,
    /// `None` after scrubbing, and for a triggered call before the first request to its source.
    pub call: Option<SourceCall>,
    pub direction: Option<String>,
    pub status: String,
    pub ended_at: Option<Timestamp>,
    pub duration_ms: Option<u64>,
    pub first_seen_at: Timestamp,
    pub retain_until: Timestamp,
    pub retention_basis: String,
    pub retention_term: RetentionTerm,
    pub retention_state: RetentionState,
    pub retention_reason: Option<String>,
    pub generation: i64,
    pub outcome: Option<Outcome>,
    pub outcome_reason: Option<String>,
    pub outcome_at: Option<Timestamp>,
    pub original: Option<Artifact>,
    /// Results of the audio steps of an unfinished run, and paid answers.
    pub progress: Option<serde_json::Value>,
    pub artifacts: Vec<Artifact>,
    pub quality: Option<serde_json::Value>,
    pub flags: Vec<String>,
    pub transcript_version: u32,
}

/// The earlier outcome of a call and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    pub outcome: Outcome,
    pub at: Timestamp,
    /// The outcome has a reason: the source or its host had something that was not usable.
    pub explained: bool,
    /// The term counts from here if the source has no time for the call.
    pub first_seen_at: Timestamp,
    pub term: RetentionTerm,
}

impl CallRecord {
    /// The outcome, if the call has one.
    #[must_use]
    pub fn earlier(&self) -> Option<Earlier> {
        let at = self.outcome_at.unwrap_or(Timestamp::UNIX_EPOCH);
        self.outcome.map(|outcome| Earlier {
            outcome,
            at,
            explained: self.outcome_reason.is_some(),
            first_seen_at: self.first_seen_at,
            term: self.retention_term,
        })
    }

    /// Whether content beyond the basic fields is stored.
    #[must_use]
    pub fn holds_content(&self) -> bool {
        self.original.is_some() || !self.artifacts.is_empty() || self.transcript_version > 0
    }
}

#[derive(Debug, FromRow)]
pub(super) struct CallRow {
    uid: String,
    source: String,
    call_id: String,
    org_uid: String,
    org_id: Option<String>,
    direction: Option<String>,
    status: String,
    ended_at: Option<i64>,
    duration_ms: Option<i64>,
    call_json: String,
    first_seen_at: i64,
    retain_until: i64,
    retention_basis: String,
    retention_days: i64,
    retention_state: String,
    retention_reason: Option<String>,
    generation: i64,
    outcome: Option<String>,
    outcome_reason: Option<String>,
    outcome_at: Option<i64>,
    original_json: Option<String>,
    progress_json: Option<String>,
    artifacts_json: String,
    quality_json: Option<String>,
    flags_json: String,
    transcript_version: i64,
}

impl CallRow {
    pub(super) fn into_record(self) -> Result<CallRecord, StoreError> {
        let id = self.uid.as_str();
        let call = match self.call_json.as_str() {
            "{}" => None,
            text => Some(read_json("call", id, text)?),
        };
        Ok(CallRecord {
            uid: CallUid::parse(id).map_err(|err| corrupt("call uid", id, err))?,
            source: SourceName::parse(&self.source).map_err(|err| corrupt("source", id, err))?,
            call_id: CallId::parse(&self.call_id).map_err(|err| corrupt("call id", id, err))?,
            org_uid: OrgUid::parse(&self.org_uid).map_err(|err| corrupt("organisation", id, err))?,
            org_id: self.org_id,
            call,
            direction: self.direction,
            status: self.status,
            ended_at: self.ended_at.map(from_ms),
            duration_ms: self.duration_ms.map(|ms| ms as u64),
            first_seen_at: from_ms(self.first_seen_at),
            retain_until: from_ms(self.retain_until),
            retention_basis: self.retention_basis,
            retention_term: RetentionTerm::parse(self.retention_days).map_err(|err| corrupt("term", id, err))?,
            retention_state: RetentionState::parse(&self.retention_state).map_err(|err| corrupt("state", id, err))?,
            retention_reason: self.retention_reason,
            generation: self.generation,
            outcome: self.outcome.map(|o| o.parse()).transpose().map_err(|err| corrupt("outcome", id, err))?,
            outcome_reason: self.outcome_reason,
            outcome_at: self.outcome_at.map(from_ms),
            original: self.original_json.map(|text| read_json("original", id, &text)).transpose()?,
            progress: self.progress_json.map(|text| read_json("progress", id, &text)).transpose()?,
            artifacts: read_json("artifacts", id, &self.artifacts_json)?,
            quality: self.quality_json.map(|text| read_json("quality", id, &text)).transpose()?,
            flags: read_json("flags", id, &self.flags_json)?,
            transcript_version: self.transcript_version as u32,
        })
    }
}
