//! Rate limiter of one source or remote STT service. All workers share it through the database. It enforces requests
//! per second, per day and at the same time, the pauses that a platform asks for, and a circuit breaker.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{CLOCK_TOLERANCE, Clock};
use crate::config;
use crate::domain::{Side, SourceName};
use crate::source::{Answered, Permit, PermitDenied, Precedence, REFUSED_PAUSE, RateLimiter};
use crate::store::{RateLimitRow, Store, StoreError};
use crate::telemetry;

/// Longest wait for a permit inside a request. For a longer wait the job is snoozed, because the queue keeps waits
/// durably.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(40);
/// Maximum age of the cached row. A worker's own updates are in its cache at once.
const FRESH: Duration = Duration::from_millis(500);
/// A request to a platform counts as finished after this time, even if its worker died. It is longer than the client's
/// own timeout.
const LONGEST_REQUEST: Duration = Duration::from_secs(90);
/// A request to a remote STT service counts as finished this long after its own timeout.
const SLACK: Duration = Duration::from_secs(30);
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
struct Limits {
    per_second: Option<f64>,
    per_day: Option<i64>,
    at_once: Option<u64>,
}

impl Limits {
    fn of(per_second: Option<f64>, per_day: Option<u64>, at_once: Option<u64>) -> Self {
        Self { per_second, per_day: per_day.map(|day| i64::try_from(day).unwrap_or(i64::MAX)), at_once }
    }

    const fn any(self) -> bool {
        self.per_second.is_some() || self.per_day.is_some() || self.at_once.is_some()
    }
}

/// The rate limiter of one source or one remote STT service.
#[derive(Debug)]
pub(super) struct SharedRateLimiter {
    source: SourceName,
    limits: Limits,
    longest_request: Duration,
    /// True when a metric shows that the key is refused.
    shows_refusals: bool,
    store: Store,
    clock: Clock,
    seen: Mutex<Option<(Instant, RateLimitRow)>>,
}

impl SharedRateLimiter {
    pub(super) fn of_source(settings: &config::Source, store: Store, clock: Clock) -> Self {
        let limits = Limits::of(settings.requests_per_second, settings.requests_per_day, settings.requests_at_once);
        let source = settings.name.clone();
        let (longest_request, seen) = (LONGEST_REQUEST, Mutex::new(None));
        Self { source, limits, longest_request, shows_refusals: true, store, clock, seen }
    }

    /// Its row is stored beside the rows of the sources, under a name that no source can have.
    pub(super) fn of_engine(name: SourceName, settings: &config::RemoteEngine, store: Store, clock: Clock) -> Self {
        let limits = Limits::of(settings.requests_per_second, settings.requests_per_day, settings.requests_at_once);
        let longest_request = settings.timeout.0 + SLACK;
        let seen = Mutex::new(None);
        Self { source: name, limits, longest_request, shows_refusals: false, store, clock, seen }
    }

    fn remember(&self, row: &RateLimitRow) {
        if self.shows_refusals {
            let refused = if row.is_refused() { 1.0 } else { 0.0 };
            metrics::gauge!(telemetry::SOURCE_KEY_REFUSED, "source" => self.source.to_string()).set(refused);
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), row.clone()));
    }

    async fn recent(&self) -> Result<RateLimitRow, StoreError> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, row)) = seen
            && at.elapsed() < FRESH
        {
            return Ok(row);
        }
        let row = self.store.rate_limit(&self.source).await?;
        self.remember(&row);
        Ok(row)
    }

    /// One try: a permit with the wait before its use, or the reason why there is none.
    async fn once(&self, precedence: Precedence) -> Result<Result<(Permit, Duration), PermitDenied>, StoreError> {
        let now = self.clock.now();
        if !self.limits.any() {
            let mut row = self.recent().await?;
            row.put_right(self.limits, now);
            if precedence == Precedence::Check {
                return Ok(Ok((Permit::default(), Duration::ZERO)));
            }
            if row.openings == 0 && !row.is_refused() {
                return Ok(row.free_of_holds(now).map(|()| (Permit::default(), Duration::ZERO)));
            }
        }
        let mut tx = self.store.begin().await?;
        let mut row = self.store.lock_rate_limit(&mut tx, &self.source).await?;
        let astray = row.put_right(self.limits, now);
        let latest = now.checked_add(self.longest_request + TOLERANCE).unwrap_or(Timestamp::MAX);
        let under_way = match self.limits.at_once {
            Some(_) => self.store.requests_under_way(&mut tx, &self.source, (now, latest)).await?,
            None => 0,
        };
        let wait = match row.admit(self.limits, under_way, precedence, now) {
            Ok(wait) => wait,
            Err(held) => {
                self.remember(&row);
                return Ok(Err(held));
            }
        };
        let id = self.limits.at_once.map(|_| uuid::Uuid::now_v7().to_string());
        if let Some(id) = &id {
            let until = now.checked_add(self.longest_request).unwrap_or(now);
            self.store.begin_request(&mut tx, &self.source, id, until).await?;
        }
        self.store.save_rate_limit(&mut tx, &self.source, &row).await?;
        tx.commit().await?;
        if astray {
            tracing::warn!(source = %self.source, "the source's rate limit was set by a clock that was wrong; put right");
        }
        self.remember(&row);
        Ok(Ok((Permit { id }, wait)))
    }

    async fn note(&self, permit: Permit, answered: Answered) -> Result<(), StoreError> {
        if let Some(id) = &permit.id {
            self.store.end_request(id).await?;
        }
        if answered == Answered::AskedAgain {
            return Ok(());
        }
        let nothing_to_say = matches!(answered, Answered::Well { rest: None });
        if nothing_to_say && self.recent().await?.is_well() {
            return Ok(());
        }
        let mut tx = self.store.begin().await?;
        let mut row = self.store.lock_rate_limit(&mut tx, &self.source).await?;
        let before = row.clone();
        let now = self.clock.now();
        row.put_right(self.limits, now);
        row.observe(answered, now);
        if row != before {
            self.store.save_rate_limit(&mut tx, &self.source, &row).await?;
            tx.commit().await?;
            if row.is_refused() && !before.is_refused() {
                tracing::error!(source = %self.source, "the platform refuses the key: nothing is asked but once a minute");
            } else if before.is_refused() && !row.is_refused() {
                tracing::info!(source = %self.source, "the platform takes the key again");
            } else if row.openings > before.openings {
                tracing::warn!(source = %self.source, openings = row.openings, "the platform is taken for dead for now");
            } else if row.openings == 0 && before.openings > 0 {
                tracing::info!(source = %self.source, "the platform answers again");
            }
        }
        self.remember(&row);
        Ok(())
    }
}

#[async_trait]
impl RateLimiter for SharedRateLimiter {
    async fn acquire(&self, precedence: Precedence) -> Result<Permit, PermitDenied> {
        let from = Instant::now();
        loop {
            let held = match self.once(precedence).await {
                Ok(Ok((permit, wait))) => {
                    if !wait.is_zero() {
                        tokio::time::sleep(wait).await;
                    }
                    metrics::counter!(telemetry::SOURCE_REQUESTS_TOTAL,
                        "source" => self.source.to_string(), "precedence" => precedence.as_str())
                    .increment(1);
                    return Ok(permit);
                }
                Ok(Err(held)) => held,
                Err(err) if self.limits.any() => {
                    telemetry::out_of_reach(Side::Database, &format!("cannot see a source's rate limit: {err}"));
                    PermitDenied { reason: "the shared rate limit cannot be read", pause: PATIENCE }
                }
                // Without configured limits nothing has to be counted, and the platform repeats its pauses. So a
                // database error does not block requests.
                Err(_) => return Ok(Permit::default()),
            };
            if from.elapsed() + held.pause.min(LOOK) > PATIENCE || held.pause > PATIENCE {
                metrics::counter!(telemetry::SOURCE_HELD_TOTAL,
                    "source" => self.source.to_string(), "reason" => held.reason)
                .increment(1);
                return Err(held);
            }
            tokio::time::sleep(held.pause.clamp(Duration::from_millis(1), LOOK).mul_f64(rand::random_range(1.0..1.5)))
                .await;
        }
    }

    async fn release(&self, permit: Permit, answered: Answered) {
        if let Err(err) = self.note(permit, answered).await {
            telemetry::out_of_reach(Side::Database, &format!("cannot note what a source answered: {err}"));
        }
    }

    async fn renewed(&self) {
        let forgotten = async {
            let mut tx = self.store.begin().await?;
            let mut row = self.store.lock_rate_limit(&mut tx, &self.source).await?;
            row.forget_refusal();
            self.store.save_rate_limit(&mut tx, &self.source, &row).await?;
            tx.commit().await?;
            self.remember(&row);
            Ok::<_, StoreError>(())
        };
        if let Err(err) = forgotten.await {
            telemetry::out_of_reach(Side::Database, &format!("cannot note that a source's key is another one: {err}"));
        }
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
const TOLERANCE: Duration = CLOCK_TOLERANCE.unsigned_abs();

impl RateLimitRow {
    /// Resets values that a correct clock cannot have set: moments further ahead than any rule allows. True when
    /// something was reset.
    fn put_right(&mut self, limits: Limits, now: Timestamp) -> bool {
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
    fn is_well(&self) -> bool {
        self.failures == 0 && self.openings == 0 && !self.is_refused()
    }

    /// True when the platform's latest answer refused the key.
    fn is_refused(&self) -> bool {
        self.held_for.as_deref() == Some(REFUSED)
    }

    fn forget_refusal(&mut self) {
        if self.is_refused() {
            (self.held_until, self.held_for) = (0, None);
        }
    }

    fn free_of_holds(&self, now: Timestamp) -> Result<(), PermitDenied> {
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
    fn admit(
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
    fn observe(&mut self, answered: Answered, now: Timestamp) {
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
