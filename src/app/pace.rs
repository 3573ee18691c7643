//! The pace of one source, shared by every worker through the database: requests per second, per day and at once, the
//! pauses it asks for, and a circuit breaker for when it is down.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

use super::Clock;
use crate::config;
use crate::domain::SourceName;
use crate::source::{Answered, Gate, Held, Pass, Precedence};
use crate::store::{PaceRow, Store, StoreError};
use crate::telemetry;

/// A leave that comes within this time is waited for; a longer wait is the job's, whose waiting is durable.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(40);
/// How old the row may be that a worker goes by; its own news it knows at once.
const FRESH: Duration = Duration::from_millis(500);
/// A request to a platform is over after this, whatever became of its worker: longer than the client's own limit.
const LONGEST_REQUEST: Duration = Duration::from_secs(90);
/// A request to a speech engine is over so long after its own limit.
const SLACK: Duration = Duration::from_secs(30);
/// Failures in a row, of all workers together, after which a platform is taken for dead.
const FAILURES_TO_OPEN: i64 = 20;
const FIRST_OPENING: Duration = Duration::from_secs(5);
const LONGEST_OPENING: Duration = Duration::from_secs(300);
/// A platform that is too busy and names no pause: one second, doubling while it goes on.
const UNNAMED_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_UNNAMED_PAUSE: Duration = Duration::from_secs(30);
/// Of a day's budget, kept for the requests that come first while it is not known how many those are.
const KEPT_PERCENT: i64 = 20;
/// Of a day's budget, kept for them to its last minute: a pass that takes all that is left would have a call that ends
/// before midnight wait for it.
const LEAST_PERCENT: i64 = 1;
const DAY_MS: i64 = 86_400_000;

/// What the configuration allows.
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

/// The gate of one source, or of one speech engine.
#[derive(Debug)]
pub(super) struct Pace {
    source: SourceName,
    limits: Limits,
    longest_request: Duration,
    store: Store,
    clock: Clock,
    seen: Mutex<Option<(Instant, PaceRow)>>,
}

impl Pace {
    pub(super) fn of_source(settings: &config::Source, store: Store, clock: Clock) -> Self {
        let limits = Limits::of(settings.requests_per_second, settings.requests_per_day, settings.requests_at_once);
        let source = settings.name.clone();
        Self { source, limits, longest_request: LONGEST_REQUEST, store, clock, seen: Mutex::new(None) }
    }

    /// Kept beside the sources', under a name that no source has.
    pub(super) fn of_engine(name: SourceName, settings: &config::RemoteEngine, store: Store, clock: Clock) -> Self {
        let limits = Limits::of(settings.requests_per_second, settings.requests_per_day, settings.requests_at_once);
        let longest_request = settings.timeout.0 + SLACK;
        Self { source: name, limits, longest_request, store, clock, seen: Mutex::new(None) }
    }

    fn remember(&self, row: &PaceRow) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), row.clone()));
    }

    async fn recent(&self) -> Result<PaceRow, StoreError> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, row)) = seen
            && at.elapsed() < FRESH
        {
            return Ok(row);
        }
        let row = self.store.pace(&self.source).await?;
        self.remember(&row);
        Ok(row)
    }

    /// One try: leave and the pause before using it, or why not.
    async fn once(&self, precedence: Precedence) -> Result<Result<(Pass, Duration), Held>, StoreError> {
        let now = self.clock.now();
        if !self.limits.any() {
            let row = self.recent().await?;
            if row.openings == 0 {
                return Ok(row.free_of_holds(now).map(|()| (Pass::default(), Duration::ZERO)));
            }
        }
        let mut tx = self.store.begin().await?;
        let mut row = self.store.lock_pace(&mut tx, &self.source).await?;
        let under_way = match self.limits.at_once {
            Some(_) => self.store.requests_under_way(&mut tx, &self.source, now).await?,
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
            self.store.enter_request(&mut tx, &self.source, id, until).await?;
        }
        self.store.save_pace(&mut tx, &self.source, &row).await?;
        tx.commit().await?;
        self.remember(&row);
        Ok(Ok((Pass { id }, wait)))
    }

    async fn note(&self, pass: Pass, answered: Answered) -> Result<(), StoreError> {
        if let Some(id) = &pass.id {
            self.store.leave_request(id).await?;
        }
        if answered == Answered::AskedAgain {
            return Ok(());
        }
        let nothing_to_say = matches!(answered, Answered::Well { rest: None });
        if nothing_to_say && self.recent().await?.is_well() {
            return Ok(());
        }
        let mut tx = self.store.begin().await?;
        let mut row = self.store.lock_pace(&mut tx, &self.source).await?;
        let before = row.clone();
        row.learn(answered, self.clock.now());
        if row != before {
            self.store.save_pace(&mut tx, &self.source, &row).await?;
            tx.commit().await?;
            if row.openings > before.openings {
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
impl Gate for Pace {
    async fn enter(&self, precedence: Precedence) -> Result<Pass, Held> {
        let from = Instant::now();
        loop {
            let held = match self.once(precedence).await {
                Ok(Ok((pass, wait))) => {
                    if !wait.is_zero() {
                        tokio::time::sleep(wait).await;
                    }
                    metrics::counter!(telemetry::SOURCE_REQUESTS_TOTAL,
                        "source" => self.source.to_string(), "precedence" => precedence.as_str())
                    .increment(1);
                    return Ok(pass);
                }
                Ok(Err(held)) => held,
                Err(err) if self.limits.any() => {
                    tracing::warn!(source = %self.source, error = %err, "cannot see the source's pace");
                    Held { reason: "the shared pace cannot be read", pause: PATIENCE }
                }
                // Nothing is counted, and pauses will be asked for again: no reason to stand still.
                Err(_) => return Ok(Pass::default()),
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

    async fn leave(&self, pass: Pass, answered: Answered) {
        if let Err(err) = self.note(pass, answered).await {
            tracing::warn!(source = %self.source, error = %err, "cannot note what the source answered");
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

impl PaceRow {
    /// Nothing to take back when the next answer is a good one.
    const fn is_well(&self) -> bool {
        self.failures == 0 && self.openings == 0
    }

    fn free_of_holds(&self, now: Timestamp) -> Result<(), Held> {
        let pause = until(self.held_until, now);
        if pause.is_zero() {
            return Ok(());
        }
        let reason = match self.held_for.as_deref() {
            Some("broken") => "the platform is down",
            _ => "the platform asked for a pause",
        };
        Err(Held { reason, pause })
    }

    /// Takes one request out of what is allowed and says how long it has to wait; changes nothing when it may not.
    fn admit(
        &mut self,
        limits: Limits,
        under_way: u64,
        precedence: Precedence,
        now: Timestamp,
    ) -> Result<Duration, Held> {
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
                    Precedence::First => Held { reason: "the day's requests are used up", pause },
                    // What the day keeps for others shrinks as it goes on.
                    Precedence::Rest => {
                        let soon = Duration::from_secs(600);
                        Held { reason: "the day's other requests are kept for calls", pause: pause.min(soon) }
                    }
                });
            }
        }
        if limits.at_once.is_some_and(|most| under_way >= most) {
            return Err(Held { reason: "as many requests as allowed are under way", pause: LOOK });
        }
        let mut wait = Duration::ZERO;
        if let Some(rate) = limits.per_second {
            let now_us = now.as_microsecond();
            let free = next.next_free_us.max(now_us);
            wait = Duration::from_micros(u64::try_from(free - now_us).unwrap_or(0));
            if wait > PATIENCE {
                return Err(Held { reason: "the rate is used up", pause: wait });
            }
            next.next_free_us = free.saturating_add((1_000_000.0 / rate) as i64);
        }
        match precedence {
            Precedence::First => next.asked_first += 1,
            Precedence::Rest => next.asked_rest += 1,
        }
        if next.openings > 0 {
            // This one request finds out whether the platform is back; everybody else waits for it.
            next.held_until = after(now, LONGEST_REQUEST);
            next.held_for = Some("broken".to_owned());
        }
        *self = next;
        Ok(wait)
    }

    /// What of today's budget is kept from requests of this precedence: for the rest of the day, as many as the day
    /// before had that came first, or a share of the budget where that is more; never less than a hundredth.
    fn kept(&self, budget: i64, precedence: Precedence, now: Timestamp) -> i64 {
        if precedence == Precedence::First {
            return 0;
        }
        let left_ms = DAY_MS - now.as_millisecond().rem_euclid(DAY_MS);
        let share = |of: i64| i64::try_from(i128::from(of) * i128::from(left_ms) / i128::from(DAY_MS)).unwrap_or(of);
        let percent = |of: i64| i64::try_from(i128::from(budget) * i128::from(of) / 100).unwrap_or(budget);
        // A budget of one request has nothing to share out.
        let least = percent(LEAST_PERCENT).max(1).min(budget - 1);
        share(self.first_before).max(share(percent(KEPT_PERCENT))).max(self.first_before - self.asked_first).max(least)
    }

    /// Takes in what came of a request.
    fn learn(&mut self, answered: Answered, now: Timestamp) {
        match answered {
            Answered::AskedAgain => {}
            Answered::Well { rest } => {
                if self.openings > 0 {
                    (self.held_until, self.held_for) = (0, None);
                }
                (self.failures, self.openings) = (0, 0);
                if let Some(rest) = rest {
                    self.hold(after(now, rest), "throttled");
                }
            }
            Answered::Throttled { pause } => {
                // It answers, so it lives.
                self.openings = 0;
                self.failures += 1;
                let doublings = u32::try_from(self.failures - 1).unwrap_or(0).min(10);
                let unnamed = UNNAMED_PAUSE.saturating_mul(2_u32.pow(doublings)).min(LONGEST_UNNAMED_PAUSE);
                self.hold(after(now, pause.unwrap_or(unnamed)), "throttled");
            }
            Answered::Badly => {
                self.failures += 1;
                if self.openings > 0 || self.failures >= FAILURES_TO_OPEN {
                    let doublings = u32::try_from(self.openings).unwrap_or(0).min(10);
                    let pause = FIRST_OPENING.saturating_mul(2_u32.pow(doublings)).min(LONGEST_OPENING);
                    self.openings += 1;
                    // Replaces the hold under which it was tried.
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
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn noon() -> Timestamp {
        at("2026-03-02T12:00:00Z")
    }

    #[test]
    fn a_rate_spaces_requests_evenly() {
        let limits = Limits { per_second: Some(4.0), ..Limits::default() };
        let mut row = PaceRow::default();
        let waits: Vec<u128> =
            (0..4).map(|_| row.admit(limits, 0, Precedence::First, noon()).unwrap().as_millis()).collect();
        assert_eq!(waits, [0, 250, 500, 750]);
        let later = noon() + Duration::from_secs(60);
        assert_eq!(
            row.admit(limits, 0, Precedence::First, later).unwrap(),
            Duration::ZERO,
            "what was not used is not saved up"
        );
    }

    #[test]
    fn a_rate_that_is_used_up_for_long_is_refused_without_being_used() {
        let limits = Limits { per_second: Some(1.0), ..Limits::default() };
        let mut row = PaceRow::default();
        for _ in 0..3 {
            row.admit(limits, 0, Precedence::First, noon()).unwrap();
        }
        let before = row.clone();
        assert!(row.admit(limits, 0, Precedence::First, noon()).is_err());
        assert_eq!(row, before);
    }

    #[test]
    fn full_passes_take_what_the_day_leaves() {
        let limits = Limits { per_day: Some(1000), ..Limits::default() };
        let mut row = PaceRow::default();
        let rest = (0..2000).take_while(|_| row.admit(limits, 0, Precedence::Rest, noon()).is_ok()).count();
        assert_eq!(rest, 900, "half a day is left, so half of the fifth is kept");
        let first = (0..2000).take_while(|_| row.admit(limits, 0, Precedence::First, noon()).is_ok()).count();
        assert_eq!(first, 100);
        let held = row.admit(limits, 0, Precedence::First, noon()).unwrap_err();
        assert_eq!(held.pause, Duration::from_secs(12 * 3600));
        // The next day: as many are kept as came first the day before.
        let morning = at("2026-03-03T00:00:00Z");
        assert!(row.admit(limits, 0, Precedence::Rest, morning).is_ok());
        assert_eq!((row.first_before, row.asked_first, row.asked_rest), (100, 0, 1));
    }

    #[test]
    fn the_last_minute_of_a_day_keeps_something_for_calls() {
        let late = at("2026-03-02T23:59:30Z");
        for (budget, kept) in [(1000, 10), (50, 1), (6, 1), (2, 1), (1, 0)] {
            let limits = Limits { per_day: Some(budget), ..Limits::default() };
            let mut row = PaceRow::default();
            let rest = (0..2000).take_while(|_| row.admit(limits, 0, Precedence::Rest, late).is_ok()).count();
            let first = (0..2000).take_while(|_| row.admit(limits, 0, Precedence::First, late).is_ok()).count();
            assert_eq!((rest as i64, first as i64), (budget - kept, kept));
        }
    }

    #[test]
    fn only_so_many_at_once() {
        let limits = Limits { at_once: Some(2), ..Limits::default() };
        let mut row = PaceRow::default();
        assert!(row.admit(limits, 1, Precedence::First, noon()).is_ok());
        assert!(row.admit(limits, 2, Precedence::First, noon()).is_err());
    }

    #[test]
    fn a_pause_asked_for_holds_everybody() {
        let mut row = PaceRow::default();
        row.learn(Answered::Throttled { pause: Some(Duration::from_secs(7)) }, noon());
        let held = row.admit(Limits::default(), 0, Precedence::First, noon()).unwrap_err();
        assert_eq!(held.pause, Duration::from_secs(7));
        assert!(row.admit(Limits::default(), 0, Precedence::First, noon() + Duration::from_secs(7)).is_ok());
        // A shorter one asked for later does not cut it short.
        row.learn(Answered::Throttled { pause: Some(Duration::from_secs(1)) }, noon());
        assert_eq!(row.free_of_holds(noon()).unwrap_err().pause, Duration::from_secs(7));
    }

    #[test]
    fn a_dead_platform_is_left_alone_and_tried_by_one() {
        let mut row = PaceRow::default();
        for _ in 0..FAILURES_TO_OPEN - 1 {
            row.learn(Answered::Badly, noon());
            assert!(row.free_of_holds(noon()).is_ok());
        }
        row.learn(Answered::Badly, noon());
        assert_eq!(row.free_of_holds(noon()).unwrap_err().pause, FIRST_OPENING);
        let later = noon() + FIRST_OPENING;
        assert!(row.admit(Limits::default(), 0, Precedence::First, later).is_ok(), "one may try");
        assert!(row.admit(Limits::default(), 0, Precedence::First, later).is_err(), "the others wait for it");
        row.learn(Answered::Badly, later);
        assert_eq!(row.free_of_holds(later).unwrap_err().pause, FIRST_OPENING * 2);
        row.learn(Answered::Well { rest: None }, later);
        assert!(row.admit(Limits::default(), 0, Precedence::First, later).is_ok());
        assert!(row.is_well());
    }
}
