//! Records the outcome of a run. The outcome, the transcript and the completion of the job are written in one
//! transaction. A run that lost its job or its call writes nothing.

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::{Artifact, Classify, Fault, Outcome, Side, Transcript};
use crate::queue::{JobAttempt, Queue, QueueError};
use crate::store::{CallRecord, FinishedCall, Store, StoreError, Tx};

/// The results of a run.
#[derive(Debug)]
pub struct Ending<'a> {
    pub outcome: Outcome,
    pub reason: Option<String>,
    pub artifacts: &'a [Artifact],
    pub quality: Option<&'a Value>,
    pub flags: &'a [String],
    /// The transcript and its text form, where there are words.
    pub transcript: Option<(&'a Transcript, &'a str)>,
    /// State that a later run of the call can resume from.
    pub left: Option<Value>,
    pub now: Timestamp,
}

/// A failed write.
#[derive(Debug, thiserror::Error)]
pub enum RecordOutcomeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl Classify for RecordOutcomeError {
    fn fault(&self) -> Fault {
        match self {
            Self::Store(err) => err.fault(),
            Self::Queue(err) => err.fault(),
        }
    }

    fn side(&self) -> Side {
        Side::Database
    }
}

/// Completes the job and records the outcome in the caller's transaction. Returns the record's transcript version (0
/// where it has none). Returns `None` when the job or the call has another owner; then the caller must roll back.
pub async fn write(
    store: &Store,
    queue: &Queue,
    tx: &mut Tx,
    job: &JobAttempt,
    record: &CallRecord,
    ending: &Ending<'_>,
) -> Result<Option<u32>, RecordOutcomeError> {
    // The record is locked before the job, as in every enqueue of a call. One lock order prevents deadlocks.
    if !store.own_generation(tx, record.uid, record.generation).await? || !queue.complete(tx, job).await? {
        return Ok(None);
    }
    let version = match ending.transcript {
        Some((transcript, text)) => Some(store.add_transcript(tx, record.uid, transcript, text, ending.now).await?),
        None => None,
    };
    let finished = FinishedCall {
        outcome: ending.outcome,
        reason: ending.reason.clone(),
        artifacts: ending.artifacts,
        quality: ending.quality,
        flags: ending.flags,
        transcript_version: version,
        left: ending.left.as_ref(),
        now: ending.now,
    };
    if !store.finish_call(tx, record.uid, record.generation, &finished).await? {
        return Ok(None);
    }
    store.forget_permissions(tx, record).await?;
    Ok(Some(version.unwrap_or(record.transcript_version)))
}
