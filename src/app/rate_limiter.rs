//! Rate limiter of one source or remote STT service. All workers share it through the database. It enforces requests
//! per second, per day and at the same time, the pauses that a platform asks for, and a circuit breaker.

mod row;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

use self::row::{LONGEST_REQUEST, LOOK, Limits, PATIENCE, TOLERANCE};
use super::Clock;
use crate::config;
use crate::domain::{Side, SourceName};
use crate::source::{Answered, Permit, PermitDenied, Precedence, RateLimiter};
use crate::store::{RateLimitRow, Store, StoreError};
use crate::telemetry;

/// Maximum age of the cached row. A worker's own updates are in its cache at once.
const FRESH: Duration = Duration::from_millis(500);
/// A request to a remote STT service counts as finished this long after its own timeout.
const SLACK: Duration = Duration::from_secs(30);

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
            tracing::warn!(source = %self.source, "the source's rate limit was set by a wrong clock and is corrected");
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
                tracing::error!(source = %self.source, "the platform refuses the key; one request a minute is sent");
            } else if before.is_refused() && !row.is_refused() {
                tracing::info!(source = %self.source, "the platform accepts the key again");
            } else if row.openings > before.openings {
                tracing::warn!(source = %self.source, openings = row.openings, "the platform counts as down for now");
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
                    telemetry::out_of_reach(Side::Database, &format!("cannot read a source's rate limit: {err}"));
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
            telemetry::out_of_reach(Side::Database, &format!("cannot record a source's answer: {err}"));
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
            telemetry::out_of_reach(Side::Database, &format!("cannot record that a source's key has changed: {err}"));
        }
    }
}
