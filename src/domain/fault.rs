//! Classification of errors. Every module's error type reports one of five faults. The worker decides by the fault
//! only.

use std::error::Error;
use std::time::Duration;

use jiff::Timestamp;

use super::words;

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

words! {
    /// The side that caused a failure. It tells the reader of a dead letter where to look.
    pub enum Side {
        /// The platform's API.
        Source = "source",
        /// The host that serves recordings.
        RecordingHost = "recording_host",
        /// The bytes of the recording.
        Recording = "recording",
        ObjectStore = "object_store",
        Database = "database",
        /// A delivery receiver.
        Receiver = "receiver",
        /// A speech-to-text engine.
        Engine = "engine",
        /// This machine or this program.
        Worker = "worker",
        Configuration = "configuration",
    }
}

words! {
    /// The step of a job.
    #[derive(Hash)]
    pub enum Stage {
        Source = "source",
        Fetch = "fetch",
        Original = "original",
        Audio = "audio",
        Quality = "quality",
        Transcript = "transcript",
        Artifacts = "artifacts",
        Writeback = "writeback",
        Deliver = "deliver",
        Backfill = "backfill",
        Reconcile = "reconcile",
        Retention = "retention",
        Erase = "erase",
    }
}

/// Implemented by every module's error type.
pub trait Classify: Error + Send + Sync + 'static {
    /// How to handle the error.
    fn fault(&self) -> Fault;
    /// The side that caused the error.
    fn side(&self) -> Side;
}

/// An error and what caused it, `outer: inner`, without saying anything twice.
#[must_use]
pub fn chain(err: &(dyn Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        let inner = err.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        cause = err.source();
    }
    text
}
