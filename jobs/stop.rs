//! The reasons why a job stops before its end.

use std::error::Error;
use std::time::Duration;

use crate::domain::{Classify, Fault, Side, Stage};
use crate::queue;

/// The reason why a job stops before its end.
#[derive(Debug)]
pub enum Stop {
    /// Snooze: it is too early, and nothing has failed.
    LookAgain { after: Duration },
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
        Self::Trouble(Trouble { stage: None, fault: Fault::Permanent, side: Side::Worker, cause })
    }
}

impl Trouble {
    /// Whether this failure makes the job a dead letter.
    #[must_use]
    pub fn ends(&self, job: &queue::Job) -> bool {
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
            fault => Stop::Trouble(Trouble { stage: Some(stage), fault, side: err.side(), cause: chain(&err) }),
        })
    }
}

/// The error chain as `outer: inner`, without repeated text.
fn chain(err: &dyn Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}
