//! Classification of errors. Every module's error type reports one of five faults. The worker decides by the fault
//! only.

use std::error::Error;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How to handle an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Retry with growing pauses, a limited number of times.
    Transient,
    /// The other side asked for this pause.
    Throttled { retry_after: Duration },
    /// Not an error yet: snooze until this moment.
    NotReady { until: Timestamp },
    /// A retry cannot help: dead-letter at once.
    Permanent,
    /// Another attempt owns this work: write nothing.
    Fenced,
}

/// The side that caused a failure. It tells the reader of a dead letter where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The platform's API.
    Source,
    /// The host that serves recordings.
    RecordingHost,
    /// The bytes of the recording.
    Recording,
    ObjectStore,
    Database,
    /// A delivery receiver.
    Receiver,
    /// A speech-to-text engine.
    Engine,
    /// This machine or this program.
    Worker,
    Configuration,
}

/// The step of a job.
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
    /// The word in logs, metrics, dead letters and `--where 'stage=…'`.
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
    /// The word in dead letters and logs.
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

/// Implemented by every module's error type.
pub trait Classify: Error + Send + Sync + 'static {
    /// How to handle the error.
    fn fault(&self) -> Fault;
    /// The side that caused the error.
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
