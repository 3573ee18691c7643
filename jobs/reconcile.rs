//! Proof that nothing is lost: every completed call of a source is done, running, or ended with a reason. What has
//! neither is let in now, so sources whose webhooks never retry, and recordings that came late, are covered.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::admit::{self, Admission, Repeat};
use super::{At, Stop};
use crate::app::App;
use crate::domain::{Outcome, SourceCall, SourceName, Stage};
use crate::queue::Lane;
use crate::wire::Window;

/// A call older than this is no live call any more and waits with the backfills.
const LIVE: SignedDuration = SignedDuration::from_hours(1);

/// The balance of a source within a window.
#[derive(Debug, Clone, Serialize)]
pub struct Balance {
    pub source: SourceName,
    /// Calls the source listed.
    pub listed: u64,
    /// Those of them that are completed.
    pub completed: u64,
    pub done: u64,
    /// Have a job that has not ended, made now or before.
    pub running: u64,
    /// Ended without being done, by reason; dead letters among them.
    pub terminal: BTreeMap<String, u64>,
    /// Completed, and neither of the above: must be 0.
    pub missing: u64,
    /// Jobs made by this pass.
    pub enqueued: u64,
}

/// Goes through the source's list and accounts for every completed call.
pub async fn balance(app: &App, source: &SourceName, window: Window) -> Result<Balance, Stop> {
    let Some(platform) = app.platform(source) else {
        return Err(Stop::permanent(format!("source `{source}` is not in the configuration")));
    };
    let mut balance = Balance {
        source: source.clone(),
        listed: 0,
        completed: 0,
        done: 0,
        running: 0,
        terminal: BTreeMap::new(),
        missing: 0,
        enqueued: 0,
    };
    let mut walk = platform.source.walk(window);
    while let Some(calls) = walk.next().await.at(Stage::Reconcile)? {
        for call in &calls {
            account(app, &mut balance, call).await?;
        }
    }
    Ok(balance)
}

async fn account(app: &App, balance: &mut Balance, call: &SourceCall) -> Result<(), Stop> {
    balance.listed += 1;
    let mut tx = app.store.begin().await.at(Stage::Reconcile)?;
    let (admission, record) = admit::see(app, &mut tx, &balance.source, call).await.at(Stage::Reconcile)?;
    match (admission, record) {
        (Admission::NotCompleted, _) => return Ok(()),
        (Admission::Ended(Outcome::Done), _) => balance.done += 1,
        (Admission::Ended(outcome), _) => *balance.terminal.entry(outcome.to_string()).or_default() += 1,
        (Admission::Due, Some(record))
            if admit::is_dead_letter(app, &mut tx, &record).await.at(Stage::Reconcile)? =>
        {
            *balance.terminal.entry("dead_letter".to_owned()).or_default() += 1;
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

pub(super) async fn run(app: &App, source: &SourceName, from: Timestamp, to: Timestamp) -> Result<&'static str, Stop> {
    let balance = balance(app, source, Window { from, to }).await?;
    tracing::info!(
        source = %source,
        listed = balance.listed,
        completed = balance.completed,
        done = balance.done,
        running = balance.running,
        enqueued = balance.enqueued,
        missing = balance.missing,
        "reconciled"
    );
    Ok(if balance.missing == 0 { "balanced" } else { "missing" })
}
