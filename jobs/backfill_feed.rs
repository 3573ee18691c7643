//! The second half of a backfill: keeps the queue's lane filled from what was listed, what expires soonest first, then
//! the oldest call of every organisation in turn.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::admit::{self, Repeat};
use super::backfill::{PAUSED_REST, look_ahead, obey};
use super::{At, Stop};
use crate::app::App;
use crate::domain::Stage;
use crate::queue::Lane;
use crate::store::{Backfill, Steering};

/// Calls fed per transaction.
const BATCH: u32 = 25;
/// Between looks at the lane and at the fed jobs, within a run of the job: the shortest, where calls end fast.
const LOOK: Duration = Duration::from_millis(100);
/// Where they end slowly.
const LAZY_LOOK: Duration = Duration::from_millis(400);
/// A run of the job ends after so long, so that it never holds its slot for long.
const RUN: Duration = Duration::from_secs(3);
/// Until the job runs again.
const REST: Duration = Duration::from_millis(300);
/// A rate that lets nothing go for longer than this is not waited for within a run.
const LONGEST_LOOK: SignedDuration = SignedDuration::from_secs(3);
/// Fed calls per slot of every live worker: enough that none waits between two looks.
const FED_PER_SLOT: u64 = 4;
/// A source copy that is gone within this time goes first.
const URGENT: SignedDuration = SignedDuration::from_hours(24);

/// Keeps the lane filled, no more, until every found call has been fed and has ended.
pub(super) async fn feed(app: &App, backfill: &mut Backfill) -> Result<(), Stop> {
    let (mut looked, mut pause) = (Duration::ZERO, LOOK);
    while looked < RUN {
        if obey(app, backfill).await? == Steering::Cancelled {
            return cancel(app, backfill).await;
        }
        let open = settle(app, backfill).await?;
        let share = share(app).await?;
        let mut room = share.saturating_sub(open).min(allowed(app, backfill));
        let mut fed = 0;
        while room > 0 {
            let batch = u32::try_from(room).unwrap_or(BATCH).min(BATCH);
            let count = feed_batch(app, backfill, batch).await?;
            fed += count;
            room = room.saturating_sub(count);
            if count < u64::from(batch) {
                break;
            }
        }
        if open + fed == 0 && app.store.waiting_items(&backfill.id, app.now()).await.at(Stage::Backfill)?.0 == 0 {
            return Ok(());
        }
        let next = backfill.next_feed_at.unwrap_or(Timestamp::MIN);
        if open + fed == 0 && next.duration_since(app.now()) > LONGEST_LOOK {
            break;
        }
        pause = match backfill.orders.rate_per_minute {
            None if fed * 4 < share => (pause * 2).min(LAZY_LOOK),
            None if fed * 2 < share => pause,
            // A rate is given out look by look.
            _ => LOOK,
        };
        tokio::time::sleep(pause).await;
        looked += pause;
    }
    look_ahead(app, backfill).await?;
    // A slow rate needs no look before the next call is due.
    let now = app.now();
    let due = backfill
        .next_feed_at
        .map_or(Duration::ZERO, |at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    Err(Stop::LookAgain { after: REST.max(due.min(PAUSED_REST)) })
}

/// Notes what has ended; returns how many fed calls have not.
async fn settle(app: &App, backfill: &mut Backfill) -> Result<u64, Stop> {
    let mut tx = app.store.begin().await.at(Stage::Backfill)?;
    let (done, failed) = (backfill.done, backfill.failed);
    let open = app.store.settle_backfill(&mut tx, backfill).await.at(Stage::Backfill)?;
    if (backfill.done, backfill.failed) != (done, failed) {
        app.store.save_backfill(&mut tx, backfill, app.now()).await.at(Stage::Backfill)?;
        tx.commit().await.at(Stage::Backfill)?;
    }
    Ok(open)
}

/// This backfill's part of the lane: all workers' slots, shared by the backfills that feed.
async fn share(app: &App) -> Result<u64, Stop> {
    let workers = app.queue.live_workers(app.config.worker.silent_after.0).await.at(Stage::Backfill)?.max(1);
    let feeding = app.store.feeding_backfills().await.at(Stage::Backfill)?.max(1);
    Ok((FED_PER_SLOT * app.config.worker.concurrency as u64 * workers / feeding).max(1))
}

/// How many calls the rate lets go now.
fn allowed(app: &App, backfill: &Backfill) -> u64 {
    let Some(rate) = backfill.orders.rate_per_minute else { return u64::MAX };
    let now = app.now();
    let waited = now.duration_since(backfill.next_feed_at.unwrap_or(now));
    if waited.is_negative() {
        return 0;
    }
    // What a pause or a restart left unused is not made up for, beyond a few seconds' worth.
    let most = (u64::from(rate) / 20).clamp(1, u64::from(BATCH));
    let due = waited.as_millis() as u64 * u64::from(rate) / 60_000 + 1;
    due.min(most)
}

async fn feed_batch(app: &App, backfill: &mut Backfill, batch: u32) -> Result<u64, Stop> {
    let now = app.now();
    let urgent = now.checked_add(URGENT).unwrap_or(now);
    let items = app.store.next_backfill_items(&backfill.id, urgent, batch).await.at(Stage::Backfill)?;
    // Read before the transaction begins: a second connection inside it would be one too many while every other
    // waits for it to end.
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

/// Takes back what was fed and has not begun; what runs goes on to its end.
async fn cancel(app: &App, backfill: &mut Backfill) -> Result<(), Stop> {
    for job in app.store.fed_jobs(&backfill.id).await.at(Stage::Backfill)? {
        app.queue.withdraw(job).await.at(Stage::Backfill)?;
    }
    let open = settle(app, backfill).await?;
    if open > 0 {
        return Err(Stop::LookAgain { after: REST });
    }
    let (waiting, _) = app.store.waiting_items(&backfill.id, app.now()).await.at(Stage::Backfill)?;
    backfill.skipped.insert("cancelled".to_owned(), waiting);
    Ok(())
}
