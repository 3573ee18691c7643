//! Bringing in what a source holds: list a window, then feed the queue in small batches as its lane frees, what
//! expires soonest first, then the oldest call of every organisation in turn. All progress is in the database: a
//! restart goes on, and a person can pause, resume and cancel.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::admit::{self, Admission, Repeat};
use super::foresight::foresee;
use super::{At, Job, Stop};
use crate::app::{App, Platform};
use crate::domain::{Outcome, RetentionState, SourceCall, Stage};
use crate::queue;
use crate::queue::Lane;
use crate::store::{Backfill, BackfillState, Known, NewBackfill, NewItem, Orders, Steering, Tx};
use crate::wire::Window;

/// Calls fed per transaction.
const BATCH: u32 = 25;
/// Between looks at the lane and at the fed jobs, within a run of the job.
const LOOK: Duration = Duration::from_millis(100);
/// A run of the job ends after so many looks, so that it never holds its slot for long.
const LOOKS: usize = 30;
/// Until the job runs again.
const REST: Duration = Duration::from_millis(300);
const PAUSED_REST: Duration = Duration::from_secs(5);
/// A rate that lets nothing go for longer than this is not waited for within a run.
const LONGEST_LOOK: SignedDuration = SignedDuration::from_secs(3);
/// Fed calls per slot of every live worker: enough that none waits between two looks.
const FED_PER_SLOT: u64 = 4;
/// A source copy that is gone within this time goes first.
const URGENT: SignedDuration = SignedDuration::from_hours(24);
/// A rate is reckoned from at least this much feeding.
const SHORTEST_MEASURE: SignedDuration = SignedDuration::from_secs(10);

/// Writes a backfill and its job. None when one of the same source's schedule is still running.
pub async fn start(app: &App, new: &NewBackfill<'_>) -> Result<Option<String>, Stop> {
    start_ordered(app, new, Orders::default()).await
}

/// The same with orders.
pub async fn start_ordered(app: &App, new: &NewBackfill<'_>, orders: Orders) -> Result<Option<String>, Stop> {
    let mut tx = app.store.begin().await.at(Stage::Backfill)?;
    let Some(id) = start_in(app, &mut tx, new, orders).await? else { return Ok(None) };
    tx.commit().await.at(Stage::Backfill)?;
    Ok(Some(id))
}

/// The same inside a transaction of the caller's.
pub(super) async fn start_in(
    app: &App,
    tx: &mut Tx,
    new: &NewBackfill<'_>,
    orders: Orders,
) -> Result<Option<String>, Stop> {
    let Some(id) = app.store.add_backfill(tx, new).await.at(Stage::Backfill)? else { return Ok(None) };
    app.store.order_backfill(tx, &id, orders).await.at(Stage::Backfill)?;
    let job = Job::Backfill { backfill: id.clone() };
    app.queue.enqueue(tx, job.queued(app, Lane::Upkeep)).await.at(Stage::Backfill)?;
    Ok(Some(id))
}

pub(super) async fn run(app: &App, job: &queue::Job, id: &str) -> Result<&'static str, Stop> {
    let ended = go_on(app, job, id).await;
    if let Err(Stop::Trouble(trouble)) = &ended
        && trouble.ends(job)
    {
        // Its job becomes a dead letter: whoever waits for it must see that, and the next one may start.
        fail(app, id, &trouble.cause).await?;
    }
    ended
}

async fn fail(app: &App, id: &str, cause: &str) -> Result<(), Stop> {
    let Some(mut backfill) = app.store.backfill(id).await.at(Stage::Backfill)? else { return Ok(()) };
    (backfill.state, backfill.reason) = (BackfillState::Failed, Some(cause.to_owned()));
    let mut tx = app.store.begin().await.at(Stage::Backfill)?;
    app.store.save_backfill(&mut tx, &backfill, app.now()).await.at(Stage::Backfill)?;
    tx.commit().await.at(Stage::Backfill)
}

async fn go_on(app: &App, job: &queue::Job, id: &str) -> Result<&'static str, Stop> {
    let Some(mut backfill) = app.store.backfill(id).await.at(Stage::Backfill)? else {
        return Err(Stop::permanent(format!("there is no backfill {id}")));
    };
    if backfill.state == BackfillState::Failed {
        // Its dead letter was put back to work: it goes on where it stood.
        backfill.state = if backfill.fed_from.is_some() { BackfillState::Feeding } else { BackfillState::Listing };
        backfill.reason = None;
    }
    if backfill.state == BackfillState::Listing {
        list(app, &mut backfill).await?;
    }
    if backfill.state == BackfillState::Feeding {
        feed(app, &mut backfill).await?;
    }
    let mut tx = app.store.begin().await.at(Stage::Backfill)?;
    if !app.queue.complete(&mut tx, job).await.at(Stage::Backfill)? {
        return Err(Stop::Fenced);
    }
    backfill.state = BackfillState::Done;
    app.store.save_backfill(&mut tx, &backfill, app.now()).await.at(Stage::Backfill)?;
    app.store.forget_backfill_items(&mut tx, id).await.at(Stage::Backfill)?;
    tx.commit().await.at(Stage::Backfill)?;
    Ok(if backfill.steering == Steering::Cancelled { "cancelled" } else { "done" })
}

/// What a person wants of it now. Paused: look again later.
async fn obey(app: &App, backfill: &mut Backfill) -> Result<Steering, Stop> {
    if let Some(now) = app.store.backfill(&backfill.id).await.at(Stage::Backfill)? {
        backfill.steering = now.steering;
        if backfill.orders.rate_per_minute != now.orders.rate_per_minute {
            // The new rate counts from now: what the old one made wait waits no longer.
            (backfill.orders.rate_per_minute, backfill.next_feed_at) = (now.orders.rate_per_minute, None);
        }
    }
    match backfill.steering {
        Steering::Paused => {
            // Recordings are deleted at their source all the same.
            look_ahead(app, backfill).await?;
            Err(Stop::LookAgain { after: PAUSED_REST })
        }
        steering => Ok(steering),
    }
}

async fn look_ahead(app: &App, backfill: &Backfill) -> Result<(), Stop> {
    match app.platform(&backfill.source) {
        Some(platform) => foresee(app, platform).await,
        None => Ok(()),
    }
}

/// Goes through the source's list, or our own records, and notes what is to be done. It goes on where it stood; a call
/// it has noted before is noted once.
async fn list(app: &App, backfill: &mut Backfill) -> Result<(), Stop> {
    if let Some(outcome) = backfill.orders.outcome {
        let mut tx = app.store.begin().await.at(Stage::Backfill)?;
        backfill.listed =
            app.store.add_backfill_items_by_outcome(&mut tx, backfill, outcome).await.at(Stage::Backfill)?;
        return begin_feeding(app, tx, backfill).await;
    }
    let Some(platform) = app.platform(&backfill.source) else {
        return Err(Stop::permanent(format!("source `{}` is not in the configuration", backfill.source)));
    };
    let window = Window { from: backfill.from, to: backfill.to };
    let mut walk = platform.source.walk(window);
    let stood = backfill.cursor.take().and_then(|cursor| serde_json::from_value(cursor).ok());
    let state = app.store.reconcile_state(&backfill.source).await.at(Stage::Backfill)?;
    if let Some(cursor) = stood {
        walk = walk.resumed(cursor);
    } else {
        (backfill.listed, backfill.skipped) = (0, std::collections::BTreeMap::new());
        if state.obeys_filter == Some(true) {
            walk = walk.filtered();
        }
    }
    while obey(app, backfill).await? == Steering::Run {
        let Some(calls) = walk.step().await.at(Stage::Backfill)? else { break };
        let ids: Vec<&str> = calls.iter().map(|call| call.id.as_str()).collect();
        let known = app.store.known(&backfill.source, &ids).await.at(Stage::Backfill)?;
        let mut tx = app.store.begin().await.at(Stage::Backfill)?;
        for call in &calls {
            note(app, &mut tx, backfill, platform, call, known.get(call.id.as_str())).await?;
        }
        backfill.cursor = walk.place().and_then(|place| serde_json::to_value(place).ok());
        app.store.save_backfill(&mut tx, backfill, app.now()).await.at(Stage::Backfill)?;
        tx.commit().await.at(Stage::Backfill)?;
        tracing::debug!(backfill = backfill.id, listed = backfill.listed, "listing");
    }
    // The list is whole: every organisation's calls get their turns.
    let mut tx = app.store.begin().await.at(Stage::Backfill)?;
    app.store.take_turns(&mut tx, &backfill.id).await.at(Stage::Backfill)?;
    begin_feeding(app, tx, backfill).await
}

async fn begin_feeding(app: &App, mut tx: Tx, backfill: &mut Backfill) -> Result<(), Stop> {
    (backfill.state, backfill.cursor, backfill.fed_from) = (BackfillState::Feeding, None, Some(app.now()));
    app.store.save_backfill(&mut tx, backfill, app.now()).await.at(Stage::Backfill)?;
    tx.commit().await.at(Stage::Backfill)
}

async fn note(
    app: &App,
    tx: &mut Tx,
    backfill: &mut Backfill,
    platform: &Platform,
    call: &SourceCall,
    known: Option<&Known>,
) -> Result<(), Stop> {
    let settled = known.and_then(|known| settled(known, call, app.now())).filter(|_| !backfill.again);
    if let Some(outcome) = settled {
        backfill.listed += 1;
        *backfill.skipped.entry(outcome.as_str().to_owned()).or_default() += 1;
        return Ok(());
    }
    let (admission, record) = admit::see(app, tx, &backfill.source, call).await.at(Stage::Backfill)?;
    let skipped = match admission {
        Admission::Due => None,
        Admission::Ended(outcome) if backfill.again && repeatable(outcome) => None,
        Admission::Ended(outcome) => Some(outcome.as_str()),
        Admission::NotCompleted => Some("not_completed"),
    };
    backfill.listed += 1;
    match (skipped, record) {
        (None, Some(record)) => {
            let ended_at = call.ended_at.or(call.created_at).unwrap_or(record.first_seen_at);
            let kept = platform.settings.recordings_kept;
            let expires_at = kept.and_then(|kept| ended_at.checked_add(kept.0).ok());
            let item = NewItem { call: record.uid, org: Some(record.org_uid), ended_at, expires_at };
            if !app.store.add_backfill_item(tx, &backfill.id, item).await.at(Stage::Backfill)? {
                backfill.listed -= 1;
            }
        }
        (reason, _) => *backfill.skipped.entry(reason.unwrap_or("not_completed").to_owned()).or_default() += 1,
    }
    Ok(())
}

/// How a call has ended for good, seen without opening its record.
pub(super) fn settled(known: &Known, call: &SourceCall, now: Timestamp) -> Option<Outcome> {
    if call.status != crate::domain::CallStatus::Completed || call.opt_out {
        return None;
    }
    match known.earlier {
        _ if known.retention_state != RetentionState::Active => Some(Outcome::Erased),
        Some(earlier) if !admit::reopens(earlier, call, now) => Some(earlier.outcome),
        _ => None,
    }
}

/// Ends that a run with `--again` may improve on.
pub(super) const fn repeatable(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::Erased | Outcome::OptedOut | Outcome::PastRetention | Outcome::NotEligible)
}

/// Keeps the lane filled, no more, until every found call has been fed and has ended.
async fn feed(app: &App, backfill: &mut Backfill) -> Result<(), Stop> {
    for _ in 0..LOOKS {
        if obey(app, backfill).await? == Steering::Cancelled {
            return cancel(app, backfill).await;
        }
        let open = settle(app, backfill).await?;
        let mut room = share(app).await?.saturating_sub(open).min(allowed(app, backfill));
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
        tokio::time::sleep(LOOK).await;
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
    let again = backfill.again || backfill.orders.outcome.is_some();
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

/// Calls that end per second, since feeding began; none while there is too little to go by.
#[must_use]
pub fn per_second(backfill: &Backfill, now: Timestamp) -> Option<f64> {
    let fed = now.duration_since(backfill.fed_from?);
    let ended = backfill.done + backfill.failed;
    (fed >= SHORTEST_MEASURE && ended > 0).then(|| ended as f64 / fed.as_secs_f64())
}

/// Calls that have not ended, and how long they take at the present pace.
#[must_use]
pub fn left(backfill: &Backfill, now: Timestamp) -> (u64, Option<Duration>) {
    let skipped: u64 = backfill.skipped.values().sum();
    let left = backfill.listed.saturating_sub(skipped + backfill.done + backfill.failed);
    let ordered = backfill.orders.rate_per_minute.map(|rate| f64::from(rate) / 60.0);
    let pace = per_second(backfill, now).or(ordered);
    (left, pace.and_then(|pace| Duration::try_from_secs_f64(left as f64 / pace).ok()))
}

/// The window of a rolling backfill that fires now.
pub(super) fn rolling(now: Timestamp, window: Duration) -> (Timestamp, Timestamp) {
    (now.checked_sub(window).unwrap_or(Timestamp::MIN), now)
}

/// How it stands, in one word.
#[must_use]
pub fn state_of(backfill: &Backfill) -> &'static str {
    match backfill.steering {
        Steering::Run => backfill.state.as_str(),
        Steering::Paused if backfill.state == BackfillState::Done => "done",
        steering => steering.as_str(),
    }
}

/// A backfill as JSON, for the command line and the API alike.
#[must_use]
pub fn shown(backfill: &Backfill, now: Timestamp) -> Value {
    let over = matches!(backfill.state, BackfillState::Done | BackfillState::Failed);
    let (left, eta) = if over { (0, None) } else { left(backfill, now) };
    json!({
        "id": backfill.id, "source": backfill.source, "state": state_of(backfill), "from": backfill.from,
        "to": backfill.to, "origin": backfill.origin, "again": backfill.again, "listed": backfill.listed,
        "enqueued": backfill.enqueued, "done": backfill.done, "failed": backfill.failed,
        "skipped": backfill.skipped, "reason": backfill.reason, "created_at": backfill.created_at,
        "updated_at": backfill.updated_at, "rate_per_minute": backfill.orders.rate_per_minute,
        "where_outcome": backfill.orders.outcome, "left": left, "eta_seconds": eta.map(|eta| eta.as_secs()),
        "calls_per_minute": per_second(backfill, now).filter(|_| !over).map(|pace| (pace * 600.0).round() / 10.0),
    })
}
