//! Why a job stops before its end.

use std::error::Error;
use std::time::Duration;

use crate::domain::{Classify, Fault, Side, Stage};
use crate::queue;

/// Why a job stops before its end.
#[derive(Debug)]
pub enum Stop {
    /// Nothing is wrong, it is only too early.
    LookAgain { after: Duration },
    /// Somebody else owns the job or the call now: write nothing.
    Fenced,
    /// The other side does not take our key. Attempts are kept: it is mended by hand, and everything that waits with it.
    Barred(Trouble),
    /// Something failed.
    Trouble(Trouble),
}

/// A failure with everything the worker and a reader of the dead letter need.
#[derive(Debug)]
pub struct Trouble {
    pub stage: Option<Stage>,
    pub fault: Fault,
    pub side: Side,
    /// The chain of causes, outermost first.
    pub cause: String,
}

impl Stop {
    /// A failure of the work itself that no retry can mend.
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

/// Names the stage an error of any part came from, and turns it into a [`Stop`].
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

/// An error and what caused it, `outer: inner`, without saying anything twice.
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
