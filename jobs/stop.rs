//! The reasons why a job stops before its end.

use std::time::Duration;

use crate::domain::{Classify, Fault, Side, Stage, chain};
use crate::queue;

/// The reason why a job stops before its end.
#[derive(Debug)]
pub enum Stop {
    /// Snooze: it is too early, and nothing has failed.
    Snooze { after: Duration },
    /// Another owner has the job or the call now. The attempt must write nothing.
    Fenced,
    /// The receiver refuses our key. The attempt is not counted, because an operator must replace the key.
    Barred(Trouble),
    /// A failure.
    Trouble(Trouble),
}

/// A failure, with the data for the worker and for the reader of the dead letter.
#[derive(Debug)]
pub struct Trouble {
    pub stage: Option<Stage>,
    pub fault: Fault,
    pub side: Side,
    /// The error chain, outermost error first.
    pub cause: String,
}

impl Stop {
    /// A failure that no retry can fix.
    #[must_use]
    pub fn permanent(cause: String) -> Self {
        Self::trouble(None, Fault::Permanent, Side::Worker, cause)
    }

    pub(super) fn trouble(stage: impl Into<Option<Stage>>, fault: Fault, side: Side, cause: String) -> Self {
        Self::Trouble(Trouble { stage: stage.into(), fault, side, cause })
    }
}

impl Trouble {
    /// Whether this failure makes the job a dead letter.
    #[must_use]
    pub fn ends(&self, job: &queue::JobAttempt) -> bool {
        match self.fault {
            Fault::Permanent => true,
            Fault::Transient => job.is_last_attempt(),
            Fault::Throttled { .. } | Fault::NotReady { .. } | Fault::Fenced => false,
        }
    }
}

/// Adds the stage to an error and turns it into a [`Stop`].
pub trait At<T> {
    /// # Errors
    /// The same error, as a [`Stop`].
    fn at(self, stage: Stage) -> Result<T, Stop>;
}

impl<T, E: Classify> At<T> for Result<T, E> {
    fn at(self, stage: Stage) -> Result<T, Stop> {
        self.map_err(|err| match err.fault() {
            Fault::Fenced => Stop::Fenced,
            fault => Stop::trouble(stage, fault, err.side(), chain(&err)),
        })
    }
}
