//! The states of a job.

use serde::Serialize;

/// A job's state in our terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Available,
    Running,
    /// Waits for its due time: snoozed, or between attempts.
    Scheduled,
    Retryable,
    Completed,
    Cancelled,
    /// A dead letter.
    DeadLetter,
}

impl JobState {
    /// Maps River's word.
    pub(super) fn of(text: &str) -> Self {
        match text {
            "running" => Self::Running,
            "scheduled" | "pending" => Self::Scheduled,
            "retryable" => Self::Retryable,
            "completed" => Self::Completed,
            "cancelled" => Self::Cancelled,
            "discarded" => Self::DeadLetter,
            _ => Self::Available,
        }
    }

    /// The word that JSON has.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Running => "running",
            Self::Scheduled => "scheduled",
            Self::Retryable => "retryable",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::DeadLetter => "dead_letter",
        }
    }

    /// True when the job has ended.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::DeadLetter)
    }
}
