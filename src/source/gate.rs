//! Leave to ask: who may send a request to a platform, and when. What the leave rests on (a budget, a pause the
//! platform asked for, a platform that is down) is shared by all workers and lives behind this.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

/// What is served first when there is not enough for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// Details of calls that have a job, tail polls.
    First,
    /// Full passes and the listings of backfills: what is left.
    Rest,
    /// Somebody wants to know whether the platform answers: asked whatever is held, one page.
    Check,
}

impl Precedence {
    /// The word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Rest => "rest",
            Self::Check => "check",
        }
    }
}

/// Why there is no leave, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub reason: &'static str,
    pub pause: Duration,
}

/// A leave for one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// Names the request where only so many may be under way.
    pub id: Option<String>,
}

/// What came of a request, as far as the next one is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// An answer, and the pause that its rate headers ask for where they say that nothing is left.
    Well { rest: Option<Duration> },
    /// Too many requests; how long to stay away, where it was said.
    Throttled { pause: Option<Duration> },
    /// None, or one that says that the platform is in trouble.
    Badly,
    /// The account's key is not taken: nobody else needs to ask with it.
    Refused,
    /// A connection that broke and is made anew at once: only the last try tells something.
    AskedAgain,
}

/// Gives leave to ask.
#[async_trait]
pub trait Gate: Send + Sync + fmt::Debug {
    /// Waits a little for leave; says how long to stay away when that is longer.
    async fn enter(&self, precedence: Precedence) -> Result<Pass, Held>;
    /// Tells what came of it.
    async fn leave(&self, pass: Pass, answered: Answered);
    /// Tells that the key is another one now: that the one before was refused counts no more.
    async fn renewed(&self);
}

/// Lets everybody through: where nobody shares a source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open;

#[async_trait]
impl Gate for Open {
    async fn enter(&self, _: Precedence) -> Result<Pass, Held> {
        Ok(Pass::default())
    }

    async fn leave(&self, _: Pass, _: Answered) {}

    async fn renewed(&self) {}
}
