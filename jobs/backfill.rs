//! Bringing in what a source holds: list a window, then feed the queue oldest first (source retention and signed URLs
//! run out), in small batches as its lane frees. All progress is in the database; a restart goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::admit::{self, Admission, Repeat};
use super::{At, Job, Stop};
use crate::app::App;
use crate::domain::{Outcome, SourceCall, Stage};
use crate::queue;
use crate::queue::Lane;
use crate::store::{Backfill, BackfillState, NewBackfill, Tx};
use crate::wire::Window;

/// Calls fed per transaction.
const BATCH: u32 = 25;
/// Between looks at the lane and at the fed jobs.
const LOOK: Duration = Duration::from_millis(500);

/// Writes a backfill and its job. None when one of the same source's schedule is still running.
pub async fn start(app: &App, new: &NewBackfill<'_>) -> Result<Option<String>, Stop> {
    let mut tx = app.store.begin().await.at(Stage::Backfill)?;
    let Some(id) = start_in(app, &mut tx, new).await? else { return Ok(None) };
    tx.commit().await.at(Stage::Backfill)?;
    Ok(Some(id))
}

/// The same inside a transaction of the caller's.
pub(super) async fn start_in(app: &App, tx: &mut Tx, new: &NewBackfill<'_>) -> Result<Option<String>, Stop> {
    let Some(id) = app.store.add_backfill(tx, new).await.at(Stage::Backfill)? else { return Ok(None) };
    let job = Job::Backfill { backfill: id.clone() };
    app.queue.enqueue(tx, job.queued(app, Lane::Upkeep)).await.at(Stage::Backfill)?;
    Ok(Some(id))
}

pub(super) async fn run(app: &App, job: &queue::Job, id: &str) -> Result<&'static str, Stop> {
    let Some(mut backfill) = app.store.backfill(id).await.at(Stage::Backfill)? else {
        return Err(Stop::permanent(format!("there is no backfill {id}")));
    };
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
    Ok("done")
}

/// Goes through the source's list and notes what lies in the window. Started anew it counts anew and finds the calls
/// it knows already.
async fn list(app: &App, backfill: &mut Backfill) -> Result<(), Stop> {
    let Some(platform) = app.platform(&backfill.source) else {
        return Err(Stop::permanent(format!("source `{}` is not in the configuration", backfill.source)));
    };
    (backfill.listed, backfill.skipped) = (0, BTreeMap::new());
    let mut walk = platform.source.walk(Window { from: backfill.from, to: backfill.to });
    while let Some(calls) = walk.next().await.at(Stage::Backfill)? {
        let mut tx = app.store.begin().await.at(Stage::Backfill)?;
        for call in &calls {
            note(app, &mut tx, backfill, call).await?;
        }
        app.store.save_backfill(&mut tx, backfill, app.now()).await.at(Stage::Backfill)?;
        tx.commit().await.at(Stage::Backfill)?;
        tracing::debug!(backfill = backfill.id, listed = backfill.listed, "listing");
    }
    backfill.state = BackfillState::Feeding;
    save(app, backfill).await
}

async fn note(app: &App, tx: &mut Tx, backfill: &mut Backfill, call: &SourceCall) -> Result<(), Stop> {
    backfill.listed += 1;
    let (admission, record) = admit::see(app, tx, &backfill.source, call).await.at(Stage::Backfill)?;
    let skipped = match admission {
        Admission::Due => None,
        Admission::Ended(outcome) if backfill.again && repeatable(outcome) => None,
        Admission::Ended(outcome) => Some(outcome.as_str()),
        Admission::NotCompleted => Some("not_completed"),
    };
    match (skipped, record) {
        (None, Some(record)) => {
            let ended = call.ended_at.or(call.created_at).unwrap_or(record.first_seen_at);
            app.store.add_backfill_item(tx, &backfill.id, record.uid, ended).await.at(Stage::Backfill)?;
        }
        (reason, _) => *backfill.skipped.entry(reason.unwrap_or("not_completed").to_owned()).or_default() += 1,
    }
    Ok(())
}

/// Ends that a run with `--again` may improve on.
pub(super) const fn repeatable(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::Erased | Outcome::OptedOut | Outcome::PastRetention | Outcome::NotEligible)
}

/// Keeps the lane filled, no more, until every found call has been fed and has ended.
async fn feed(app: &App, backfill: &mut Backfill) -> Result<(), Stop> {
    let room = 2 * app.config.worker.concurrency as u64;
    let again = if backfill.again { Repeat::Again } else { Repeat::Never };
    while app.queue.waiting_in(Lane::Backfill).await.at(Stage::Backfill)? < room {
        let items = app.store.next_backfill_items(&backfill.id, BATCH).await.at(Stage::Backfill)?;
        if items.is_empty() {
            break;
        }
        // Read before the transaction begins: a second connection inside it would be one too many while every other
        // waits for it to end.
        let mut records = Vec::with_capacity(items.len());
        for item in items {
            records.extend(app.store.call(item.call_uid).await.at(Stage::Backfill)?);
        }
        let mut tx = app.store.begin().await.at(Stage::Backfill)?;
        for record in records {
            let job = admit::enqueue(app, &mut tx, &record, Lane::Backfill, again).await.at(Stage::Backfill)?;
            app.store.feed_backfill_item(&mut tx, &backfill.id, record.uid, job.id).await.at(Stage::Backfill)?;
        }
        tx.commit().await.at(Stage::Backfill)?;
    }
    let counts = app.store.settle_backfill(&backfill.id).await.at(Stage::Backfill)?;
    let of = |state: &str| counts.get(state).copied().unwrap_or(0);
    (backfill.done, backfill.failed) = (of("done"), of("failed"));
    backfill.enqueued = of("enqueued") + backfill.done + backfill.failed;
    save(app, backfill).await?;
    if of("listed") + of("enqueued") > 0 {
        return Err(Stop::LookAgain { after: LOOK });
    }
    Ok(())
}

async fn save(app: &App, backfill: &Backfill) -> Result<(), Stop> {
    let mut tx = app.store.begin().await.at(Stage::Backfill)?;
    app.store.save_backfill(&mut tx, backfill, app.now()).await.at(Stage::Backfill)?;
    tx.commit().await.at(Stage::Backfill)
}

/// The window of a rolling backfill that fires now.
pub(super) fn rolling(now: Timestamp, window: Duration) -> (Timestamp, Timestamp) {
    (now.checked_sub(window).unwrap_or(Timestamp::MIN), now)
}
