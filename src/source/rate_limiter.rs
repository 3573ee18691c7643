//! Permission to call a platform: rate limit, daily budget, Retry-After and circuit breaker, shared by all workers.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

/// Priority of a request when there are not enough permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// Details of calls with a job, and polls of the newest calls.
    First,
    /// Full passes and listings of backfills. They get the remaining permits.
    Rest,
    /// A check whether the platform answers. It ignores all holds, and it reads one page.
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

/// Why there is no permit, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermitDenied {
    pub reason: &'static str,
    pub pause: Duration,
}

/// A permit for one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permit {
    /// Id of the request, where the number of concurrent requests is limited.
    pub id: Option<String>,
}

/// Result of a request, as far as it affects the next ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// An answer. `rest` is the rest of the rate window, where the rate headers say that it is used up.
    Well { rest: Option<Duration> },
    /// Too many requests, with the pause where the platform named one.
    Throttled { pause: Option<Duration> },
    /// No answer, or an answer that reports a failure of the platform.
    Badly,
    /// The platform refused the account's key, so other requests with this key would fail too.
    Refused,
    /// A broken connection that is retried at once. Only the last try counts.
    AskedAgain,
}

/// A rate limiter.
#[async_trait]
pub trait RateLimiter: Send + Sync + fmt::Debug {
    /// Waits a short time for a permit. A longer wait is returned as an error.
    async fn acquire(&self, precedence: Precedence) -> Result<Permit, PermitDenied>;
    /// Reports the result of the request.
    async fn release(&self, permit: Permit, answered: Answered);
    /// Reports a new key. The refusal of the old key no longer counts.
    async fn renewed(&self);
}

/// A gate without limits, for a source that is not shared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unlimited;

#[async_trait]
impl RateLimiter for Unlimited {
    async fn acquire(&self, _: Precedence) -> Result<Permit, PermitDenied> {
        Ok(Permit::default())
    }

    async fn release(&self, _: Permit, _: Answered) {}

    async fn renewed(&self) {}
}
