//! Reconciliation proves that no call is lost: every completed call of a source is done, running, or ended with a
//! reason. Other calls are admitted here. This covers sources without webhook retries, and late recordings.
//!
//! A poll reads the top of the list. A pass reads a whole window, some pages per poll, with the remaining requests of
//! the budget. A pass also detects vanished calls.

mod balance;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::balance::Balance;

use super::admit::{self, Admission, Repeat};
use super::capacity_warning::warn_of_losses;
use super::redrive::RedriveTrigger;
use super::{At, Stop, backfill, redrive};
use crate::app::{App, Platform};
use crate::domain::{CallStatus, Classify, Fault, Outcome, SourceCall, SourceName, Stage};
use crate::queue;
use crate::queue::{Kind, Lane};
use crate::source::Walk;
use crate::store::ReconcileState;
use crate::telemetry;
use crate::wire::{Cursor, Window};

/// An older call is not live and goes to the backfill lane.
const LIVE: SignedDuration = SignedDuration::from_hours(1);
/// Tail polls stop waiting for a call that is still in progress after this time. A pass still finds it.
const GOING_FOR_LONG: SignedDuration = SignedDuration::from_hours(24);
/// Interval between tests whether a source applies date filters.
const PROBE_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// A pass that continues at every poll.
#[derive(Debug, Serialize, Deserialize)]
struct Pass {
    full: bool,
    window: Window,
    started_at: Timestamp,
    cursor: Option<Cursor>,
    balance: Balance,
}

/// Reads the source's list and accounts for every completed call.
pub async fn balance(app: &App, source: &SourceName, window: Window) -> Result<Balance, Stop> {
    let platform = platform(app, source)?;
    let mut balance = Balance::new(source);
    let started_at = app.now();
    let mut walk = platform.source.walk(window);
    while let Some(calls) = walk.next().await.at(Stage::Reconcile)? {
        account(app, &mut balance, &walk, &calls, RedriveTrigger::ByPerson).await?;
    }
    balance.vanished = vanished(app, source, window, started_at).await?;
    balance.missing_objects =
        app.store.missing_objects_of(source, (window.from, window.to)).await.at(Stage::Reconcile)?;
    Ok(balance)
}

fn platform<'a>(app: &'a App, source: &SourceName) -> Result<&'a Platform, Stop> {
    app.platform(source).ok_or_else(|| Stop::permanent(format!("source `{source}` is not in the configuration")))
}

/// Accounts for the calls of the walk's current page.
async fn account(
    app: &App,
    balance: &mut Balance,
    walk: &Walk<'_>,
    calls: &[SourceCall],
    asked: RedriveTrigger,
) -> Result<(), Stop> {
    balance.count_unreadable(walk.unreadable());
    let unreadable = walk.unreadable().iter().filter_map(|row| row.id.as_deref());
    let ids: Vec<&str> = calls.iter().map(|call| call.id.as_str()).chain(unreadable).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let known = app.store.known(&balance.source, &ids).await.at(Stage::Reconcile)?;
    for call in calls {
        balance.listed += u64::from(!walk.came_before(&call.id));
        let known = known.get(call.id.as_str());
        match known.and_then(|known| backfill::settled(known, call, app.now())) {
            Some(Outcome::Done) => {
                balance.completed += 1;
                balance.done += 1;
            }
            Some(outcome) => {
                balance.completed += 1;
                *balance.terminal.entry(outcome.to_string()).or_default() += 1;
            }
            None => {
                let revivable = redrive::revivable(app, known.map(|known| known.uid), asked).await?;
                let_in(app, balance, call, revivable).await?;
            }
        }
    }
    app.store.sight(&balance.source, &ids, app.now()).await.at(Stage::Reconcile)
}

/// Admits a call that is neither done nor running. `revivable` is its dead letter if the cause of the failure has
/// ended.
async fn let_in(app: &App, balance: &mut Balance, call: &SourceCall, revivable: Option<i64>) -> Result<(), Stop> {
    let mut tx = app.store.begin().await.at(Stage::Reconcile)?;
    let (admission, record) = admit::see(app, &mut tx, &balance.source, call).await.at(Stage::Reconcile)?;
    let revived = match (admission, revivable) {
        (Admission::Due, Some(job)) => app.queue.revive(&mut tx, job).await.at(Stage::Reconcile)?,
        _ => false,
    };
    match (admission, record) {
        (Admission::Due, Some(_)) if revived => {
            balance.running += 1;
            balance.enqueued += 1;
        }
        (Admission::NotCompleted, _) => return Ok(()),
        (Admission::Ended(Outcome::Done), _) => balance.done += 1,
        (Admission::Ended(outcome), _) => *balance.terminal.entry(outcome.to_string()).or_default() += 1,
        (Admission::Due, Some(record))
            if admit::is_dead_letter(app, &mut tx, &record).await.at(Stage::Reconcile)? =>
        {
            balance.dead_letters += 1;
        }
        (Admission::Due, Some(record)) => {
            let lane = if is_live(app.now(), call) { Lane::Live } else { Lane::Backfill };
            let job = admit::enqueue(app, &mut tx, &record, lane, Repeat::Never).await.at(Stage::Reconcile)?;
            balance.running += 1;
            balance.enqueued += u64::from(!job.duplicate);
        }
        (Admission::Due, None) => balance.missing += 1,
    }
    balance.completed += 1;
    tx.commit().await.at(Stage::Reconcile)
}

fn is_live(now: Timestamp, call: &SourceCall) -> bool {
    call.ended_at.is_some_and(|ended| now.duration_since(ended) < LIVE)
}

/// Counts the calls inside the window that the pass did not list. The last hour is left out, because calls may have
/// ended while the pass ran.
async fn vanished(app: &App, source: &SourceName, window: Window, started_at: Timestamp) -> Result<u64, Stop> {
    let to = window.to.min(earlier(started_at, SignedDuration::from_hours(1)));
    let found = app.store.unlisted(source, (window.from, to), started_at).await.at(Stage::Reconcile)?;
    metrics::gauge!(telemetry::VANISHED_CALLS, "source" => source.to_string()).set(found as f64);
    if found > 0 {
        tracing::warn!(source = %source, calls = found, "calls that the source once listed have vanished from its list");
    }
    Ok(found)
}

fn earlier(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

fn is_due(now: Timestamp, last: Option<Timestamp>, every: SignedDuration) -> bool {
    last.is_none_or(|last| now.duration_since(last) >= every)
}

pub(super) async fn run(
    app: &App,
    job: &queue::JobAttempt,
    source: &SourceName,
    from: Timestamp,
    to: Timestamp,
) -> Result<&'static str, Stop> {
    // This poll covers what failed polls missed. One dead letter per source is enough.
    app.queue.drop_dead_letters(Kind::Reconcile, source.as_str()).await.at(Stage::Reconcile)?;
    Ok(if poll_as(app, Some(job), source, Window { from, to }).await? == 0 { "balanced" } else { "missing" })
}

/// One poll: the top of the list, then some pages of a due pass. Returns the number of completed calls that it could
/// not account for, which must be 0.
pub async fn poll(app: &App, source: &SourceName, window: Window) -> Result<u64, Stop> {
    poll_as(app, None, source, window).await
}

async fn poll_as(app: &App, job: Option<&queue::JobAttempt>, source: &SourceName, window: Window) -> Result<u64, Stop> {
    let platform = platform(app, source)?;
    let state = app.store.reconcile_state(source).await.at(Stage::Reconcile)?;
    let mut poll = Poll { app, job, platform, window, state };
    let top = poll.tail().await?;
    let mut missing = top.missing;
    top.report("polled");
    if let Some(mut pass) = poll.under_way() {
        let ended = poll.go_on(&mut pass).await?;
        if ended {
            missing += pass.balance.missing;
            pass.balance.report(if pass.full { "reconciled in full" } else { "reconciled" });
        }
    }
    poll.save().await?;
    warn_of_losses(app, platform).await?;
    Ok(missing)
}

/// Reports durable progress of the job to the queue.
async fn moved(app: &App, job: Option<&queue::JobAttempt>) -> Result<(), Stop> {
    match job {
        Some(job) => app.queue.advance(job).await.at(Stage::Reconcile),
        None => Ok(()),
    }
}

/// One poll of a source.
struct Poll<'a> {
    app: &'a App,
    job: Option<&'a queue::JobAttempt>,
    platform: &'a Platform,
    window: Window,
    state: ReconcileState,
}

impl Poll<'_> {
    async fn save(&self) -> Result<(), Stop> {
        self.app.store.save_reconcile_state(&self.platform.settings.name, &self.state).await.at(Stage::Reconcile)
    }

    /// Reads the list from its top back to where the poll before began, and a little further.
    async fn tail(&mut self) -> Result<Balance, Stop> {
        let Self { app, platform, window, .. } = *self;
        let state = &mut self.state;
        let source = &platform.settings.name;
        let started_at = app.now();
        let overlap = SignedDuration::try_from(app.config.reconcile.tail_overlap.0).unwrap_or(SignedDuration::ZERO);
        let from = state.tail_from.map_or(window.from, |seen| earlier(seen, overlap).max(window.from));
        let mut walk = platform.source.walk(Window { from, to: window.to }).tail();
        if state.obeys_filter == Some(true) {
            walk = walk.filtered();
        }
        let mut balance = Balance::new(source);
        let mut open = started_at;
        while let Some(calls) = walk.next().await.at(Stage::Reconcile)? {
            let going = |call: &&SourceCall| {
                matches!(call.status, CallStatus::Queued | CallStatus::Ringing | CallStatus::InProgress)
            };
            let oldest = calls.iter().filter(going).filter_map(|call| call.created_at).min();
            open = open.min(oldest.unwrap_or(open));
            let before = balance.enqueued;
            account(app, &mut balance, &walk, &calls, RedriveTrigger::BySchedule).await?;
            if balance.enqueued > before {
                moved(app, self.job).await?;
            }
        }
        if state.tail_from.is_none() {
            // The first poll of a source has gone through the whole window.
            state.since_at = Some(window.from);
            (state.passed_at, state.full_passed_at) = (Some(started_at), Some(started_at));
        }
        state.tail_from = Some(open.max(earlier(started_at, GOING_FOR_LONG)));
        self.save().await?;
        app.store.note_poll(source, app.now()).await.at(Stage::Reconcile)?;
        Ok(balance)
    }

    /// The pass to go on with: the one under way, else one that is due.
    fn under_way(&mut self) -> Option<Pass> {
        let Self { app, platform, window, .. } = *self;
        let (source, state) = (&platform.settings.name, &mut self.state);
        let settings = &app.config.reconcile;
        let span = |span: crate::config::Span| SignedDuration::try_from(span.0).unwrap_or(SignedDuration::MAX);
        let now = app.now();
        if let Some(pass) = state.pass.take().and_then(|pass| serde_json::from_value(pass).ok()) {
            return Some(pass);
        }
        let full = is_due(now, state.full_passed_at, span(settings.full_pass_every));
        if !full && !is_due(now, state.passed_at, span(settings.pass_every)) {
            return None;
        }
        let term = SignedDuration::from_hours(24 * app.config.retention_term(source).days());
        let from = if full { state.since_at.unwrap_or(window.from).max(earlier(now, term)) } else { window.from };
        let window = Window { from, to: window.to };
        Some(Pass { full, window, started_at: now, cursor: None, balance: Balance::new(source) })
    }

    /// Some pages of a pass; true at its end. One that a budget stops is gone on with at the next poll.
    async fn go_on(&mut self, pass: &mut Pass) -> Result<bool, Stop> {
        match self.some_pages(pass).await {
            Ok(false) | Err(Stop::Trouble(super::Trouble { fault: Fault::Throttled { .. }, .. })) => {
                self.state.pass = serde_json::to_value(pass).ok();
                Ok(false)
            }
            Ok(true) => {
                pass.balance.vanished =
                    vanished(self.app, &self.platform.settings.name, pass.window, pass.started_at).await?;
                self.state.passed_at = Some(pass.started_at);
                if pass.full {
                    self.state.full_passed_at = Some(pass.started_at);
                }
                Ok(true)
            }
            Err(stop) => Err(stop),
        }
    }

    async fn some_pages(&mut self, pass: &mut Pass) -> Result<bool, Stop> {
        let Self { app, platform, .. } = *self;
        let state = &mut self.state;
        if is_due(app.now(), state.probed_at, PROBE_EVERY) {
            match platform.source.obeys_date_filter().await {
                Ok(obeys) => (state.obeys_filter, state.probed_at) = (obeys, Some(app.now())),
                Err(err) if matches!(err.fault(), Fault::Permanent) => {
                    (state.obeys_filter, state.probed_at) = (Some(false), Some(app.now()));
                }
                Err(err) => return Err(err).at(Stage::Reconcile),
            }
        }
        let mut walk: Walk<'_> = platform.source.walk(pass.window);
        walk = match (pass.cursor.take(), state.obeys_filter) {
            (Some(cursor), _) => walk.resumed(cursor),
            (None, Some(true)) => walk.filtered(),
            (None, _) => walk,
        };
        loop {
            pass.cursor = walk.place().cloned();
            let Some(calls) = walk.step().await.at(Stage::Reconcile)? else {
                return Ok(true);
            };
            account(app, &mut pass.balance, &walk, &calls, RedriveTrigger::BySchedule).await?;
            if walk.place().is_some() {
                // Whoever goes on after this worker's death goes on here.
                pass.cursor = walk.place().cloned();
                self.state.pass = serde_json::to_value(&*pass).ok();
                self.save().await?;
                moved(app, self.job).await?;
            }
            if walk.pages() >= app.config.reconcile.pages_per_poll && walk.place().is_some() {
                pass.cursor = walk.place().cloned();
                return Ok(false);
            }
        }
    }
}
