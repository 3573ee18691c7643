//! The status of a backfill: state, counts, time left, and the cause of a stall.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::backfill_feed::{room, share};
use super::{At, Stop};
use crate::app::App;
use crate::domain::Stage;
use crate::queue::JobState;
use crate::store::{Backfill, BackfillState, Fed, OurCalls, Steering};

/// The throughput of the workers is measured over this time.
const LATELY: SignedDuration = SignedDuration::from_mins(10);
/// The shortest feeding time from which a throughput is calculated.
const SHORTEST_MEASURE: SignedDuration = SignedDuration::from_secs(10);

/// The status of a backfill at the time of the request.
#[derive(Debug, Clone, Default)]
pub struct BackfillStatus {
    /// Calls that have not ended.
    pub left: u64,
    /// Calls of `left` that wait for their recording or their next attempt.
    pub waiting: u64,
    /// Time left, at the rate limit or at the measured throughput. `None` if the backfill does not move or the
    /// remaining calls are unknown.
    pub eta: Option<Duration>,
    /// Recent throughput of its source in calls per second. `None` without enough data.
    pub per_second: Option<f64>,
    /// Why no call moves although some are left. `None` if a call moves or a person has paused the backfill.
    pub stalled: Option<String>,
}

/// Reads a backfill's calls, its job and the workers.
///
/// # Errors
/// [`Stop`] if the database fails.
pub async fn status(app: &App, backfill: &Backfill) -> Result<BackfillStatus, Stop> {
    if matches!(backfill.state, BackfillState::Done | BackfillState::Failed) {
        return Ok(BackfillStatus::default());
    }
    let skipped: u64 = backfill.skipped.values().sum();
    let left = backfill.listed.saturating_sub(skipped + backfill.done + backfill.failed);
    let fed = app.store.fed(&backfill.id).await.at(Stage::Backfill)?;
    let share = share(app).await?;
    let per_second = measured(app, backfill).await?;
    let stalled = match backfill.steering {
        Steering::Paused => None,
        Steering::Run | Steering::Cancelled => stalled(app, backfill, fed, share).await?,
    };
    let moves = stalled.is_none() && backfill.state == BackfillState::Feeding && backfill.steering == Steering::Run;
    let ordered = backfill.orders.rate_per_minute.map(|rate| f64::from(rate) / 60.0);
    let rate = match (ordered, per_second) {
        // The lane is full, so that the workers' throughput limits the rate.
        (Some(ordered), Some(managed)) if room(fed, share) == 0 => Some(ordered.min(managed)),
        (ordered, managed) => ordered.or(managed),
    };
    let eta = rate.filter(|rate| moves && *rate > 0.0);
    let eta = eta.and_then(|rate| Duration::try_from_secs_f64(left as f64 / rate).ok());
    Ok(BackfillStatus { left, waiting: fed.waiting + fed.retrying, eta, per_second, stalled })
}

async fn measured(app: &App, backfill: &Backfill) -> Result<Option<f64>, Stop> {
    let Some(fed_from) = backfill.fed_from else { return Ok(None) };
    let now = app.now();
    let measured = now.duration_since(fed_from).min(LATELY);
    if measured < SHORTEST_MEASURE {
        return Ok(None);
    }
    let from = now.checked_sub(measured).unwrap_or(fed_from);
    let ended = app.store.ended_since(&backfill.source, from).await.at(Stage::Backfill)?;
    Ok((ended > 0).then(|| ended as f64 / measured.as_secs_f64()))
}

/// The cause of a stall; `None` if a call moves.
async fn stalled(app: &App, backfill: &Backfill, fed: Fed, share: u64) -> Result<Option<String>, Stop> {
    if app.queue.live_workers(app.config.worker.silent_after.0).await.at(Stage::Backfill)? == 0 {
        return Ok(Some("no worker is alive".to_owned()));
    }
    let workers = app.queue.workers().await.at(Stage::Backfill)?;
    if let Some(cause) = workers.iter().map(|(.., resting)| resting.as_deref()).reduce(Option::and).flatten() {
        return Ok(Some(format!("no worker takes work: {cause}")));
    }
    if let Some(cause) = held_up(app, backfill).await? {
        return Ok(Some(cause));
    }
    if backfill.state != BackfillState::Feeding || fed.active > 0 {
        return Ok(None);
    }
    let (unfed, _) = app.store.waiting_items(&backfill.id, app.now()).await.at(Stage::Backfill)?;
    // A call can start after the next check or when the rate allows it.
    if fed.open() == 0 || (unfed > 0 && room(fed, share) > 0) {
        return Ok(None);
    }
    let cause = app.store.fed_cause(&backfill.id).await.at(Stage::Backfill)?;
    let waits = [(fed.held, "are held back"), (fed.retrying, "wait for their next attempt")];
    let mut said: Vec<String> =
        waits.iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{n} calls {why}")).collect();
    if fed.waiting > 0 {
        said.push(format!("{} calls wait for their recording", fed.waiting));
    }
    let said = said.join(", ");
    Ok(Some(cause.map_or_else(|| said.clone(), |cause| format!("{said}: {cause}"))))
}

/// Why the backfill's own job waits, such as for a list that cannot be read.
async fn held_up(app: &App, backfill: &Backfill) -> Result<Option<String>, Stop> {
    let jobs = app.queue.jobs_about(&backfill.id).await.at(Stage::Backfill)?;
    let waits = jobs
        .into_iter()
        .find(|job| job.state != JobState::Running && (job.state == JobState::Retryable || job.throttled));
    Ok(waits.and_then(|job| job.failure).map(|failure| failure.cause))
}

/// The state in one word.
#[must_use]
pub fn state_of(backfill: &Backfill) -> &'static str {
    match backfill.steering {
        Steering::Run => backfill.state.as_str(),
        Steering::Paused if backfill.state == BackfillState::Done => "done",
        steering => steering.as_str(),
    }
}

/// A backfill as JSON, for the command line and the API. `reason` holds the cause of a failure or a stall.
///
/// # Errors
/// The errors of [`status`].
pub async fn shown(app: &App, backfill: &Backfill) -> Result<Value, Stop> {
    let BackfillStatus { left, waiting, eta, per_second, stalled } = status(app, backfill).await?;
    let (outcome, flag) = match backfill.orders.only {
        Some(OurCalls::Outcome(outcome)) => (Some(outcome), None),
        Some(OurCalls::Flag(flag)) => (None, Some(flag)),
        None => (None, None),
    };
    Ok(json!({
        "id": backfill.id, "source": backfill.source, "state": state_of(backfill), "from": backfill.from,
        "to": backfill.to, "origin": backfill.origin, "again": backfill.again, "listed": backfill.listed,
        "enqueued": backfill.enqueued, "done": backfill.done, "failed": backfill.failed,
        "skipped": backfill.skipped, "stalled": stalled.is_some(),
        "reason": backfill.reason.as_ref().or(stalled.as_ref()), "created_at": backfill.created_at,
        "updated_at": backfill.updated_at, "rate_per_minute": backfill.orders.rate_per_minute,
        "where_outcome": outcome, "where_flag": flag, "left": left, "waiting": waiting,
        "eta_seconds": eta.map(|eta| eta.as_secs()),
        "calls_per_minute": per_second.map(|rate| (rate * 600.0).round() / 10.0),
    }))
}

/// All given backfills as JSON, in their order.
///
/// # Errors
/// The errors of [`status`].
pub async fn all_shown(app: &App, all: &[Backfill]) -> Result<Vec<Value>, Stop> {
    let mut shown_all = Vec::with_capacity(all.len());
    for backfill in all {
        shown_all.push(shown(app, backfill).await?);
    }
    Ok(shown_all)
}
