//! The second half of a backfill: it feeds the listed calls into the queue's lane. Calls that expire soonest go first,
//! then the oldest call of each organisation in turn.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::admit::{self, Repeat};
use super::backfill_steering::{PAUSED_REST, look_ahead, obey};
use super::{At, Stop};
use crate::app::App;
use crate::domain::Stage;
use crate::queue;
use crate::queue::Lane;
use crate::store::{Backfill, Fed, Steering};

/// Calls fed per transaction.
const BATCH: u32 = 25;
/// Shortest pause between checks of the lane and the fed jobs within one run. It is used while calls end fast.
const LOOK: Duration = Duration::from_millis(100);
/// Longest pause, used while calls end slowly.
const LAZY_LOOK: Duration = Duration::from_millis(400);
/// A run of the job ends after this time, to free its worker slot.
const RUN: Duration = Duration::from_secs(3);
/// Snooze until the job's next run.
const REST: Duration = Duration::from_millis(300);
/// The job does not wait longer than this within a run.
const LONGEST_LOOK: Duration = Duration::from_secs(3);
/// Fed calls per slot of every live worker. No slot runs empty between two checks.
const FED_PER_SLOT: u64 = 4;
/// Feeding stops when this many shares of calls wait for their next attempt.
const RETRYING_SHARES: u64 = 10;
/// Calls with a recording that expires at the source within this time go first.
const URGENT: SignedDuration = SignedDuration::from_hours(24);

/// Keeps the lane filled until every listed call has been fed and has ended. Active calls and calls that the source
/// throttles take a place in the lane. Calls that wait for their recording or their next attempt take none.
pub(super) async fn feed(app: &App, job: &queue::JobAttempt, backfill: &mut Backfill) -> Result<(), Stop> {
    let (mut looked, mut pause) = (Duration::ZERO, LOOK);
    let mut rest = Duration::ZERO;
    while looked < RUN {
        if obey(app, backfill).await? == Steering::Cancelled {
            return cancel(app, backfill).await;
        }
        let fed = settle(app, job, backfill).await?;
        let share = share(app).await?;
        let added = fill(app, job, backfill, room(fed, share)).await?;
        if fed.open() + added == 0 && app.store.waiting_items(&backfill.id, app.now()).await.at(Stage::Backfill)?.0 == 0
        {
            return Ok(());
        }
        rest = if fed.active + added > 0 { Duration::ZERO } else { until_next(app, backfill, fed) };
        if rest > LONGEST_LOOK {
            break;
        }
        pause = match backfill.orders.rate_per_minute {
            None if added * 4 < share => (pause * 2).min(LAZY_LOOK),
            None if added * 2 < share => pause,
            // A rate limit is applied at every check.
            _ => LOOK,
        };
        tokio::time::sleep(pause).await;
        looked += pause;
    }
    look_ahead(app, backfill).await?;
    Err(Stop::Snooze { after: REST.max(rest.min(PAUSED_REST)) })
}

/// How many more calls may be fed.
pub(super) fn room(fed: Fed, share: u64) -> u64 {
    // Feeding more calls would add failures while nearly all calls fail, such as during an outage of a host.
    if fed.retrying >= RETRYING_SHARES * share { 0 } else { share.saturating_sub(fed.active + fed.held) }
}

/// Feeds as many calls as the free places and the rate allow. Returns their count.
async fn fill(app: &App, job: &queue::JobAttempt, backfill: &mut Backfill, room: u64) -> Result<u64, Stop> {
    let mut room = room.min(allowed(app, backfill));
    let mut added = 0;
    while room > 0 {
        let batch = u32::try_from(room).unwrap_or(BATCH).min(BATCH);
        let count = feed_batch(app, backfill, batch).await?;
        if count > 0 {
            app.queue.advance(job).await.at(Stage::Backfill)?;
        }
        added += count;
        room = room.saturating_sub(count);
        if count < u64::from(batch) {
            break;
        }
    }
    Ok(added)
}

/// The wait while no call is active: until the rate allows a call, or until a waiting call is due.
fn until_next(app: &App, backfill: &Backfill, fed: Fed) -> Duration {
    let left = |at: Timestamp| Duration::try_from(at.duration_since(app.now())).ok().filter(|left| !left.is_zero());
    let next_feed = backfill.next_feed_at.and_then(left);
    match (next_feed, fed.next_in) {
        (Some(feed), Some(due)) => feed.min(due),
        (Some(next), None) | (None, Some(next)) => next,
        (None, None) => Duration::ZERO,
    }
}

/// Counts the calls that have ended. Returns the fed calls that have not ended.
async fn settle(app: &App, job: &queue::JobAttempt, backfill: &mut Backfill) -> Result<Fed, Stop> {
    let mut tx = app.store.begin().await.at(Stage::Backfill)?;
    let (done, failed) = (backfill.done, backfill.failed);
    let fed = app.store.settle_backfill(&mut tx, backfill).await.at(Stage::Backfill)?;
    if (backfill.done, backfill.failed) != (done, failed) {
        app.store.save_backfill(&mut tx, backfill, app.now()).await.at(Stage::Backfill)?;
        tx.commit().await.at(Stage::Backfill)?;
        app.queue.advance(job).await.at(Stage::Backfill)?;
    }
    Ok(fed)
}

/// This backfill's share of the lane: the slots of all workers, divided by the feeding backfills.
pub(super) async fn share(app: &App) -> Result<u64, Stop> {
    let workers = app.queue.live_workers(app.config.worker.silent_after.0).await.at(Stage::Backfill)?.max(1);
    let feeding = app.store.feeding_backfills().await.at(Stage::Backfill)?.max(1);
    Ok((FED_PER_SLOT * app.config.worker.concurrency as u64 * workers / feeding).max(1))
}

/// How many calls the rate allows now.
fn allowed(app: &App, backfill: &Backfill) -> u64 {
    let Some(rate) = backfill.orders.rate_per_minute else { return u64::MAX };
    let now = app.now();
    let waited = now.duration_since(backfill.next_feed_at.unwrap_or(now));
    if waited.is_negative() {
        return 0;
    }
    // The limit of a few seconds' worth prevents a burst after a pause or a restart.
    let most = (u64::from(rate) / 20).clamp(1, u64::from(BATCH));
    let due = waited.as_millis() as u64 * u64::from(rate) / 60_000 + 1;
    due.min(most)
}

async fn feed_batch(app: &App, backfill: &mut Backfill, batch: u32) -> Result<u64, Stop> {
    let now = app.now();
    let urgent = now.checked_add(URGENT).unwrap_or(now);
    let items = app.store.next_backfill_items(&backfill.id, urgent, batch).await.at(Stage::Backfill)?;
    // Read before the transaction begins. A second connection inside it could deadlock when all connections wait for
    // this transaction.
    let mut records = Vec::with_capacity(items.len());
    for item in items {
        records.extend(app.store.call(item.call_uid).await.at(Stage::Backfill)?);
    }
    if records.is_empty() {
        return Ok(0);
    }
    let again = backfill.again || backfill.orders.only.is_some();
    let repeat = if again { Repeat::Again } else { Repeat::Never };
    let mut tx = app.store.begin().await.at(Stage::Backfill)?;
    for record in &records {
        let job = admit::enqueue(app, &mut tx, record, Lane::Backfill, repeat).await.at(Stage::Backfill)?;
        app.store.feed_backfill_item(&mut tx, &backfill.id, record.uid, job.id).await.at(Stage::Backfill)?;
    }
    let fed = records.len() as u64;
    backfill.enqueued += fed;
    if let Some(rate) = backfill.orders.rate_per_minute {
        let step = Duration::from_millis(60_000 * fed / u64::from(rate.max(1)));
        let behind = now.checked_sub(Duration::from_secs(3)).unwrap_or(now);
        backfill.next_feed_at = backfill.next_feed_at.unwrap_or(now).max(behind).checked_add(step).ok();
    }
    app.store.save_backfill(&mut tx, backfill, now).await.at(Stage::Backfill)?;
    tx.commit().await.at(Stage::Backfill)?;
    Ok(fed)
}

/// Removes the fed jobs that are not running, whether new or waiting. Running jobs continue to their end.
async fn cancel(app: &App, backfill: &mut Backfill) -> Result<(), Stop> {
    let mut tx = app.store.begin().await.at(Stage::Backfill)?;
    let taken = app.store.take_back_fed(&mut tx, &backfill.id).await.at(Stage::Backfill)?;
    backfill.enqueued = backfill.enqueued.saturating_sub(taken);
    let fed = app.store.settle_backfill(&mut tx, backfill).await.at(Stage::Backfill)?;
    app.store.save_backfill(&mut tx, backfill, app.now()).await.at(Stage::Backfill)?;
    tx.commit().await.at(Stage::Backfill)?;
    if fed.open() > 0 {
        return Err(Stop::Snooze { after: REST });
    }
    let (waiting, _) = app.store.waiting_items(&backfill.id, app.now()).await.at(Stage::Backfill)?;
    backfill.skipped.insert("cancelled".to_owned(), waiting);
    Ok(())
}
