//! The rules on a rate limiter's row: whether a request may go, what it takes, and what an answer changes.

use std::time::Duration;

use jiff::Timestamp;

use crate::app::clock::CLOCK_TOLERANCE;
use crate::source::{Answered, PermitDenied, Precedence, REFUSED_PAUSE};
use crate::store::RateLimitRow;

/// Longest wait for a permit inside a request. For a longer wait the job is snoozed, because the queue keeps waits
/// durably.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
pub(super) const LOOK: Duration = Duration::from_millis(40);
/// A request to a platform counts as finished after this time, even if its worker died. It is longer than the client's
/// own timeout.
pub(super) const LONGEST_REQUEST: Duration = Duration::from_secs(90);
/// Consecutive failures over all workers that open the circuit breaker.
const FAILURES_TO_OPEN: i64 = 20;
const FIRST_OPENING: Duration = Duration::from_secs(5);
const LONGEST_OPENING: Duration = Duration::from_secs(300);
/// Pause after a throttled answer that names no pause: one second, doubled each time.
const UNNAMED_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_UNNAMED_PAUSE: Duration = Duration::from_secs(30);
/// Share of the daily budget that is reserved for requests of the first precedence while their usual number is unknown.
const KEPT_PERCENT: i64 = 20;
/// Share of the daily budget that stays reserved until the end of the day. Without it a full reconcile pass could use
/// everything, and a call that ends before midnight would wait for the next day.
const LEAST_PERCENT: i64 = 1;
/// Hold reason of a row whose key is refused.
const REFUSED: &str = "refused";
const DAY_MS: i64 = 86_400_000;
/// Longest pause that a platform may ask for (`wire::retry`).
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(86_400);

/// Limits of the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Limits {
    pub per_second: Option<f64>,
    pub per_day: Option<i64>,
    pub at_once: Option<u64>,
}

impl Limits {
    pub(super) fn of(per_second: Option<f64>, per_day: Option<u64>, at_once: Option<u64>) -> Self {
        Self { per_second, per_day: per_day.map(|day| i64::try_from(day).unwrap_or(i64::MAX)), at_once }
    }

    pub(super) const fn any(self) -> bool {
        self.per_second.is_some() || self.per_day.is_some() || self.at_once.is_some()
    }
}

/// Milliseconds from `now` until a moment, as a pause.
fn until(moment_ms: i64, now: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(moment_ms - now.as_millisecond()).unwrap_or(0))
}

fn after(now: Timestamp, pause: Duration) -> i64 {
    now.as_millisecond().saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))
}

/// [`CLOCK_TOLERANCE`] as a `Duration`.
pub(super) const TOLERANCE: Duration = CLOCK_TOLERANCE.unsigned_abs();

impl RateLimitRow {
    /// Resets values that a correct clock cannot have set: moments further ahead than any rule allows. True when
    /// something was reset.
    pub(super) fn put_right(&mut self, limits: Limits, now: Timestamp) -> bool {
        let before = self.clone();
        let longest_hold = match self.held_for.as_deref() {
            Some("broken") => LONGEST_OPENING.max(LONGEST_REQUEST),
            _ => LONGEST_ASKED_PAUSE,
        };
        if self.held_until > after(now, longest_hold + TOLERANCE) {
            (self.held_until, self.held_for) = (0, None);
        }
        let spacing = limits.per_second.map_or(Duration::ZERO, |rate| Duration::from_secs_f64((1.0 / rate).min(1e9)));
        let free_by_ms = after(now, PATIENCE + spacing + TOLERANCE);
        if self.next_free_us > free_by_ms.saturating_mul(1000) {
            self.next_free_us = 0;
        }
        if self.day > after(now, TOLERANCE).div_euclid(DAY_MS) {
            (self.day, self.asked_first, self.asked_rest, self.first_before) = (0, 0, 0, 0);
        }
        *self != before
    }

    /// True when a good answer would change nothing.
    pub(super) fn is_well(&self) -> bool {
        self.failures == 0 && self.openings == 0 && !self.is_refused()
    }

    /// True when the platform's latest answer refused the key.
    pub(super) fn is_refused(&self) -> bool {
        self.held_for.as_deref() == Some(REFUSED)
    }

    pub(super) fn forget_refusal(&mut self) {
        if self.is_refused() {
            (self.held_until, self.held_for) = (0, None);
        }
    }

    pub(super) fn free_of_holds(&self, now: Timestamp) -> Result<(), PermitDenied> {
        let pause = until(self.held_until, now);
        if pause.is_zero() {
            return Ok(());
        }
        let reason = match self.held_for.as_deref() {
            Some("broken") => "the platform is down",
            Some(REFUSED) => "the platform refuses the key",
            _ => "the platform asked for a pause",
        };
        Err(PermitDenied { reason, pause })
    }

    /// Takes one permit and returns the wait before its use. Changes nothing when there is no permit.
    pub(super) fn admit(
        &mut self,
        limits: Limits,
        under_way: u64,
        precedence: Precedence,
        now: Timestamp,
    ) -> Result<Duration, PermitDenied> {
        if precedence == Precedence::Check {
            return Ok(Duration::ZERO);
        }
        self.free_of_holds(now)?;
        let today = now.as_millisecond().div_euclid(DAY_MS);
        let mut next = self.clone();
        if today > next.day {
            next.first_before = if today == next.day + 1 { next.asked_first } else { 0 };
            (next.day, next.asked_first, next.asked_rest) = (today, 0, 0);
        }
        if let Some(budget) = limits.per_day {
            let used = next.asked_first.saturating_add(next.asked_rest);
            if used.saturating_add(next.kept(budget, precedence, now)) >= budget {
                let pause = until((today + 1) * DAY_MS, now);
                return Err(match precedence {
                    Precedence::First | Precedence::Check => {
                        PermitDenied { reason: "the day's requests are used up", pause }
                    }
                    // The reserved share shrinks during the day.
                    Precedence::Rest => {
                        let soon = Duration::from_secs(600);
                        PermitDenied { reason: "the day's other requests are kept for calls", pause: pause.min(soon) }
                    }
                });
            }
        }
        if limits.at_once.is_some_and(|most| under_way >= most) {
            return Err(PermitDenied { reason: "as many requests as allowed are under way", pause: LOOK });
        }
        let mut wait = Duration::ZERO;
        if let Some(rate) = limits.per_second {
            let now_us = now.as_microsecond();
            let free = next.next_free_us.max(now_us);
            wait = Duration::from_micros(u64::try_from(free - now_us).unwrap_or(0));
            if wait > PATIENCE {
                return Err(PermitDenied { reason: "the rate is used up", pause: wait });
            }
            next.next_free_us = free.saturating_add((1_000_000.0 / rate) as i64);
        }
        match precedence {
            Precedence::First | Precedence::Check => next.asked_first += 1,
            Precedence::Rest => next.asked_rest += 1,
        }
        if next.openings > 0 || next.is_refused() {
            // This one request tests whether the platform works again. All other requests wait for its result.
            next.held_until = after(now, LONGEST_REQUEST);
            next.held_for = if next.is_refused() { next.held_for } else { Some("broken".to_owned()) };
        }
        *self = next;
        Ok(wait)
    }

    /// The part of today's budget that requests of this precedence may not use. It is the largest of four values:
    /// yesterday's number of first requests scaled to the rest of the day, what remains of that number today,
    /// [`KEPT_PERCENT`] of the budget scaled to the rest of the day, and [`LEAST_PERCENT`] of the budget.
    fn kept(&self, budget: i64, precedence: Precedence, now: Timestamp) -> i64 {
        if precedence == Precedence::First {
            return 0;
        }
        let left_ms = DAY_MS - now.as_millisecond().rem_euclid(DAY_MS);
        let share = |of: i64| i64::try_from(i128::from(of) * i128::from(left_ms) / i128::from(DAY_MS)).unwrap_or(of);
        let percent = |of: i64| i64::try_from(i128::from(budget) * i128::from(of) / 100).unwrap_or(budget);
        // A budget of one request cannot be shared.
        let least = percent(LEAST_PERCENT).max(1).min(budget - 1);
        share(self.first_before).max(share(percent(KEPT_PERCENT))).max(self.first_before - self.asked_first).max(least)
    }

    /// Updates the row from the answer of a request.
    pub(super) fn observe(&mut self, answered: Answered, now: Timestamp) {
        match answered {
            Answered::AskedAgain => {}
            Answered::Well { rest } => {
                if self.openings > 0 || self.is_refused() {
                    (self.held_until, self.held_for) = (0, None);
                }
                (self.failures, self.openings) = (0, 0);
                if let Some(rest) = rest {
                    self.hold(after(now, rest), "throttled");
                }
            }
            Answered::Throttled { pause } => {
                // A throttled answer shows that the platform is up.
                self.openings = 0;
                self.failures += 1;
                let doublings = u32::try_from(self.failures - 1).unwrap_or(0).min(10);
                let unnamed = UNNAMED_PAUSE.saturating_mul(2_u32.pow(doublings)).min(LONGEST_UNNAMED_PAUSE);
                self.hold(after(now, pause.unwrap_or(unnamed)), "throttled");
            }
            Answered::Refused => {
                // A refusal shows that the platform is up.
                self.openings = 0;
                (self.held_until, self.held_for) = (after(now, REFUSED_PAUSE), Some(REFUSED.to_owned()));
            }
            Answered::Badly => {
                self.failures += 1;
                if self.openings > 0 || self.failures >= FAILURES_TO_OPEN {
                    let doublings = u32::try_from(self.openings).unwrap_or(0).min(10);
                    let pause = FIRST_OPENING.saturating_mul(2_u32.pow(doublings)).min(LONGEST_OPENING);
                    self.openings += 1;
                    // Replaces the hold that was in force during the test request.
                    (self.held_until, self.held_for) = (after(now, pause), Some("broken".to_owned()));
                }
            }
        }
    }

    fn hold(&mut self, until_ms: i64, reason: &str) {
        if until_ms > self.held_until {
            (self.held_until, self.held_for) = (until_ms, Some(reason.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests;
