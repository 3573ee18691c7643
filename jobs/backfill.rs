//! A backfill processes the calls that a source already holds. It lists a window, then feeds (`backfill_feed`) the
//! queue in small batches. All progress is in the database, so that a restart continues it. A person can pause, resume
//! and cancel it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::admit::{self, Admission};
use super::backfill_feed::feed;
use super::backfill_steering::obey;
use super::{At, Job, Stop};
use crate::app::{App, Platform};
use crate::domain::{Outcome, RetentionState, SourceCall, Stage};
use crate::queue;
use crate::queue::Lane;
use crate::store::{Backfill, BackfillState, KnownCall, NewBackfill, NewItem, Orders, Steering, Tx};
use crate::wire::Window;

/// Writes a backfill and its job. Returns its id, or `None` if a scheduled backfill of the same source is still
/// running.
pub async fn start(app: &App, new: &NewBackfill<'_>) -> Result<Option<String>, Stop> {
    start_ordered(app, new, Orders::default()).await
}

/// Like [`start`], with a rate limit or a filter.
pub async fn start_ordered(app: &App, new: &NewBackfill<'_>, orders: Orders) -> Result<Option<String>, Stop> {
    let mut tx = app.store.begin().await.at(Stage::Backfill)?;
    let Some(id) = start_in(app, &mut tx, new, orders).await? else { return Ok(None) };
    tx.commit().await.at(Stage::Backfill)?;
    Ok(Some(id))
}

/// Like [`start_ordered`], in the caller's transaction.
pub(super) async fn start_in(
    app: &App,
    tx: &mut Tx,
    new: &NewBackfill<'_>,
    orders: Orders,
) -> Result<Option<String>, Stop> {
    let Some(id) = app.store.add_backfill(tx, new).await.at(Stage::Backfill)? else { return Ok(None) };
    app.store.order_backfill(tx, &id, orders).await.at(Stage::Backfill)?;
    let job = Job::Backfill { backfill: id.clone() };
    app.queue.enqueue(tx, job.queued(app, Lane::Maintenance)).await.at(Stage::Backfill)?;
    Ok(Some(id))
}

pub(super) async fn run(app: &App, job: &queue::JobAttempt, id: &str) -> Result<&'static str, Stop> {
    let ended = go_on(app, job, id).await;
    if let Err(Stop::Trouble(trouble)) = &ended
        && trouble.ends(job)
    {
        // The job becomes a dead letter. The state shows the failure, and the next scheduled backfill may start.
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

async fn go_on(app: &App, job: &queue::JobAttempt, id: &str) -> Result<&'static str, Stop> {
    let Some(mut backfill) = app.store.backfill(id).await.at(Stage::Backfill)? else {
        return Err(Stop::permanent(format!("there is no backfill {id}")));
    };
    if backfill.state == BackfillState::Failed {
        // The dead letter was redriven. The backfill continues at its last position.
        backfill.state = if backfill.fed_from.is_some() { BackfillState::Feeding } else { BackfillState::Listing };
        backfill.reason = None;
    }
    if backfill.state == BackfillState::Listing {
        list(app, job, &mut backfill).await?;
    }
    if backfill.state == BackfillState::Feeding {
        feed(app, job, &mut backfill).await?;
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

/// Walks the source's list, or our own records, and writes the calls to process as items. It continues at the stored
/// position. A call becomes an item only once.
async fn list(app: &App, job: &queue::JobAttempt, backfill: &mut Backfill) -> Result<(), Stop> {
    if let Some(only) = backfill.orders.only {
        let mut tx = app.store.begin().await.at(Stage::Backfill)?;
        backfill.listed = app.store.add_backfill_items_of_ours(&mut tx, backfill, only).await.at(Stage::Backfill)?;
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
        (backfill.listed, backfill.skipped) = (0, BTreeMap::new());
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
            if walk.came_before(&call.id) {
                // A previous page counted the call as not completed.
                backfill.listed = backfill.listed.saturating_sub(1);
                take_back(&mut backfill.skipped, "not_completed");
            }
            note(app, &mut tx, backfill, platform, call, known.get(call.id.as_str())).await?;
        }
        let unreadable = walk.unreadable().len() as u64;
        if unreadable > 0 {
            backfill.listed += unreadable;
            *backfill.skipped.entry("unreadable".to_owned()).or_default() += unreadable;
        }
        backfill.cursor = walk.place().and_then(|place| serde_json::to_value(place).ok());
        app.store.save_backfill(&mut tx, backfill, app.now()).await.at(Stage::Backfill)?;
        tx.commit().await.at(Stage::Backfill)?;
        app.queue.advance(job).await.at(Stage::Backfill)?;
        tracing::debug!(backfill = backfill.id, listed = backfill.listed, "listing");
    }
    // The list is complete, so that the items of all organisations can be ordered in turns.
    let mut tx = app.store.begin().await.at(Stage::Backfill)?;
    app.store.take_turns(&mut tx, &backfill.id).await.at(Stage::Backfill)?;
    begin_feeding(app, tx, backfill).await
}

/// Subtracts one call from the count of a skip reason.
pub(super) fn take_back(skipped: &mut BTreeMap<String, u64>, reason: &str) {
    if let Some(count) = skipped.get_mut(reason) {
        *count = count.saturating_sub(1);
    }
    skipped.retain(|_, count| *count > 0);
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
    known: Option<&KnownCall>,
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

/// The final outcome of a known call, without reading its full record.
pub(super) fn settled(known: &KnownCall, call: &SourceCall, now: Timestamp) -> Option<Outcome> {
    if call.status != crate::domain::CallStatus::Completed || call.opt_out {
        return None;
    }
    match known.earlier {
        Some(earlier) if admit::can_return(known.retention_state, earlier.outcome) => {
            (!admit::reopens(earlier, call, now)).then_some(earlier.outcome)
        }
        earlier if known.retention_state != RetentionState::Active => Some(admit::gone(earlier)),
        _ => None,
    }
}

/// Outcomes that a run with `--again` may improve.
pub(super) const fn repeatable(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::Erased | Outcome::OptedOut | Outcome::PastRetention | Outcome::NotEligible)
}

/// The window of a rolling backfill that starts now.
pub(super) fn rolling(now: Timestamp, window: Duration) -> (Timestamp, Timestamp) {
    (now.checked_sub(window).unwrap_or(Timestamp::MIN), now)
}
