//! Faults decide what happens next: every part's error says which of five things it is, and the worker
//! looks at nothing else.

use std::error::Error;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Try again later, with growing pauses, a bounded number of times.
    Transient,
    /// The other side named a pause; keep it.
    Throttled { retry_after: Duration },
    /// Nothing is wrong yet: look again quietly until this moment.
    NotReady { until: Timestamp },
    /// Trying again changes nothing: dead-letter at once.
    Permanent,
    /// Someone else owns this work now: write nothing.
    Fenced,
}

/// Which side a failure came from, so that a reader of a dead letter knows whom to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The call platform's API.
    Source,
    /// The host that serves recordings.
    RecordingHost,
    /// The recording's own bytes.
    Recording,
    ObjectStore,
    Database,
    /// A write-back receiver.
    Receiver,
    /// A speech-to-text engine.
    Engine,
    /// This machine or this program.
    Worker,
    Configuration,
}

/// The step of a job in which something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Source,
    Fetch,
    Original,
    Audio,
    Quality,
    Transcript,
    Artifacts,
    Writeback,
    Deliver,
    Backfill,
    Reconcile,
    Retention,
    Erase,
}

impl Stage {
    /// The word used in logs, metrics, dead letters and `--where 'stage=…'`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Fetch => "fetch",
            Self::Original => "original",
            Self::Audio => "audio",
            Self::Quality => "quality",
            Self::Transcript => "transcript",
            Self::Artifacts => "artifacts",
            Self::Writeback => "writeback",
            Self::Deliver => "deliver",
            Self::Backfill => "backfill",
            Self::Reconcile => "reconcile",
            Self::Retention => "retention",
            Self::Erase => "erase",
        }
    }
}

impl Side {
    /// The word used in dead letters and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::RecordingHost => "recording_host",
            Self::Recording => "recording",
            Self::ObjectStore => "object_store",
            Self::Database => "database",
            Self::Receiver => "receiver",
            Self::Engine => "engine",
            Self::Worker => "worker",
            Self::Configuration => "configuration",
        }
    }
}

/// Implemented by every part's error type.
pub trait Classify: Error + Send + Sync + 'static {
    /// What to do about it.
    fn fault(&self) -> Fault;
    /// Whose side it was.
    fn side(&self) -> Side;
}

/// An error with all its causes on one line.
#[must_use]
pub fn chain(err: &(dyn Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    text
}
