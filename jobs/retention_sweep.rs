//! The retention sweep finds due calls and condemns them; `erase_call` erases them. It refuses to run on a wrong clock,
//! a wrong policy or an implausible number of due calls.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::condemn::{condemn, enqueue_erasure};
use super::object_check::Orphans;
use super::{At, Stop, object_check};
use crate::app::App;
use crate::domain::{CallUid, Stage};
use crate::queue;
use crate::store::operations::Due;
use crate::telemetry;

const HIGH_WATER: &str = "retention.high_water";
/// Largest accepted difference between our clock and the object store's clock.
const MAX_STORE_DIFFERENCE: SignedDuration = SignedDuration::from_mins(15);

/// Most ledger days that one sweep sums up. Later sweeps continue with a backlog.
const LEDGER_DAYS: usize = 40;

/// The plan or the result of a sweep.
#[derive(Debug, Clone, Serialize)]
pub struct SweepPlan {
    /// Calls past their term without a hold.
    pub due: u64,
    /// Calls past their term with a hold.
    pub held: u64,
    pub calls: Vec<PlannedCall>,
    /// Why a scheduled sweep would refuse. `--force` overrides it, with `--expect` for the number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    #[serde(skip)]
    dues: Vec<Due>,
    #[serde(skip)]
    doubt: Option<Doubt>,
}

/// One call of the plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedCall {
    pub id: String,
    pub source: String,
    pub retain_until: Timestamp,
    pub policy: String,
    pub held: bool,
}

/// Why a sweep refuses.
#[derive(Debug, Clone)]
enum Doubt {
    Clock(String),
    Volume(String),
}

/// What a person has confirmed at the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Nothing was confirmed; the rules of the schedule apply.
    Scheduled,
    /// `--force`: a person has checked the clock and the plan.
    Forced,
    /// `--force --expect N`: a person has also checked the number.
    Expecting(u64),
}

/// The calls to erase now, and whether a sweep would run.
pub async fn plan(app: &App) -> Result<SweepPlan, Stop> {
    let now = app.now();
    let dues = app.store.due_calls(now).await.at(Stage::Retention)?;
    let held = dues.iter().filter(|due| due.held).count() as u64;
    let due = dues.len() as u64 - held;
    let doubt = match clock_doubt(app, now).await? {
        Some(doubt) => Some(Doubt::Clock(doubt)),
        None => volume_doubt(app, now, due).await?.map(Doubt::Volume),
    };
    let calls = dues.iter().map(PlannedCall::of).collect();
    let refused = doubt.as_ref().map(|doubt| match doubt {
        Doubt::Clock(text) | Doubt::Volume(text) => text.clone(),
    });
    Ok(SweepPlan { due, held, calls, refused, dues, doubt })
}

/// Condemns all due calls and enqueues their erasure. Returns the executed plan, or a plan with `refused` set.
pub async fn sweep(app: &App, consent: Consent) -> Result<SweepPlan, Stop> {
    sweep_as(app, None, consent).await
}

async fn sweep_as(app: &App, job: Option<&queue::JobAttempt>, consent: Consent) -> Result<SweepPlan, Stop> {
    let mut plan = plan(app).await?;
    if !app.config.retention.enabled {
        plan.refused = Some("retention.enabled is false: nothing is erased".to_owned());
        return Ok(plan);
    }
    let allowed = match (&plan.doubt, consent) {
        (None, Consent::Scheduled | Consent::Forced) | (Some(Doubt::Clock(_)), Consent::Forced) => true,
        (_, Consent::Expecting(expected)) => {
            if expected != plan.due {
                plan.refused = Some(format!("--expect {expected}, but {} calls are due", plan.due));
            }
            expected == plan.due
        }
        _ => false,
    };
    if !allowed {
        return Ok(plan);
    }
    plan.refused = None;
    for due in plan.dues.iter().filter(|due| !due.held) {
        condemn_due(app, due, consent).await?;
        if let Some(job) = job {
            app.queue.advance(job).await.at(Stage::Retention)?;
        }
    }
    for call in app.store.unfinished_erasures().await.at(Stage::Retention)? {
        erase_again(app, call).await?;
    }
    app.store.unenroll_voices_of_erased().await.at(Stage::Retention)?;
    object_check::check(app, Orphans::Delete).await?;
    app.store.set_fact(HIGH_WATER, &app.now().to_string()).await.at(Stage::Retention)?;
    Ok(plan)
}

pub(super) async fn run(app: &App, job: &queue::JobAttempt) -> Result<&'static str, Stop> {
    roll_up_ledger(app).await?;
    let keep = app.config.worker.keep_finished_jobs.0;
    app.store
        .forget_scheduled_backfills(app.now().checked_sub(keep).unwrap_or(Timestamp::MIN))
        .await
        .at(Stage::Retention)?;
    let plan = sweep_as(app, Some(job), Consent::Scheduled).await?;
    let overdue = plan.dues.iter().filter(|due| !due.held).map(|due| due.retain_until).min();
    let overdue = overdue.map_or(0.0, |at| app.now().duration_since(at).as_secs_f64());
    metrics::gauge!(telemetry::RETENTION_OVERDUE_SECONDS).set(if plan.refused.is_some() { overdue } else { 0.0 });
    if let Some(reason) = plan.refused {
        tracing::error!(reason, due = plan.due, "retention sweep refused to run; check `aftercall retention plan`");
        metrics::counter!(telemetry::SWEEPS_REFUSED_TOTAL).increment(1);
        // Missing objects must be reported also when the sweep refuses.
        object_check::check(app, Orphans::Leave).await?;
        return Ok("refused");
    }
    if plan.due > 0 {
        tracing::info!(condemned = plan.due, held = plan.held, "retention sweep");
    } else {
        tracing::debug!(held = plan.held, "retention sweep: nothing is due");
    }
    Ok("swept")
}

/// Replaces old attempts of the ledger by sums per day. The rows contain only our own ids, so that a refused sweep does
/// not delay this.
async fn roll_up_ledger(app: &App) -> Result<(), Stop> {
    let keep = SignedDuration::try_from(app.config.ledger.keep.0).unwrap_or(SignedDuration::MAX);
    let Ok(before) = app.now().checked_sub(keep) else { return Ok(()) };
    for _ in 0..LEDGER_DAYS {
        let rows = app.store.roll_up_ledger_day(before).await.at(Stage::Retention)?;
        if rows == 0 {
            break;
        }
        tracing::info!(rows, "a day of the ledger was summed up");
    }
    Ok(())
}

/// Checks for a clock before the last sweep, far after the last sweep, or different from the object store's clock.
async fn clock_doubt(app: &App, now: Timestamp) -> Result<Option<String>, Stop> {
    let seen = app.store.fact(HIGH_WATER).await.at(Stage::Retention)?;
    if let Some(seen) = seen.and_then(|text| text.parse::<Timestamp>().ok()) {
        if now < seen {
            return Ok(Some(format!("clock doubt: this machine's clock shows {now}, but a sweep has run at {seen}")));
        }
        let jump = app.config.retention.max_clock_jump.0;
        if now.duration_since(seen) > SignedDuration::try_from(jump).unwrap_or(SignedDuration::MAX) {
            return Ok(Some(format!(
                "clock doubt: this machine's clock shows {now}, and the last sweep ran at {seen}"
            )));
        }
    }
    let theirs = app.objects.server_date().await.at(Stage::Retention)?;
    if let Some(theirs) = theirs.filter(|theirs| now.duration_since(*theirs).abs() > MAX_STORE_DIFFERENCE) {
        return Ok(Some(format!("clock doubt: this machine's clock shows {now}, the object store's shows {theirs}")));
    }
    Ok(None)
}

/// Checks whether more calls are due than the history of call ends explains.
async fn volume_doubt(app: &App, now: Timestamp, due: u64) -> Result<Option<String>, Stop> {
    let floor = app.config.retention.guard_minimum;
    if due <= floor {
        return Ok(None);
    }
    let seen = app.store.fact(HIGH_WATER).await.at(Stage::Retention)?;
    let last = seen.and_then(|text| text.parse::<Timestamp>().ok()).unwrap_or(now);
    let term = SignedDuration::from_hours(24 * app.config.retention.days.days());
    let (from, to) = (last.checked_sub(term).unwrap_or(last), now.checked_sub(term).unwrap_or(now));
    let predicted = app.store.ended_between(from, to).await.at(Stage::Retention)?;
    let most = floor.max(2 * predicted);
    Ok((due > most).then(|| format!("{due} calls are due, the call history explains at most {most}")))
}

async fn condemn_due(app: &App, due: &Due, consent: Consent) -> Result<(), Stop> {
    let actor = if consent == Consent::Scheduled { "schedule" } else { "command" };
    let why = format!("term of {} ended {}", days(due.days), due.retain_until);
    let mut tx = app.store.begin().await.at(Stage::Retention)?;
    if condemn(app, &mut tx, due.uid, actor, why).await.at(Stage::Retention)? {
        tx.commit().await.at(Stage::Retention)?;
    }
    Ok(())
}

/// Enqueues the erasure again if its job is a dead letter. Every sweep does this, so that no call stays past its term.
async fn erase_again(app: &App, call: CallUid) -> Result<(), Stop> {
    let mut tx = app.store.begin().await.at(Stage::Retention)?;
    enqueue_erasure(app, &mut tx, call).await.at(Stage::Retention)?;
    tx.commit().await.at(Stage::Retention)
}

fn days(count: i64) -> String {
    if count == 1 { "1 day".to_owned() } else { format!("{count} days") }
}

impl PlannedCall {
    fn of(due: &Due) -> Self {
        Self {
            id: due.call_id.clone(),
            source: due.source.clone(),
            retain_until: due.retain_until,
            policy: days(due.days),
            held: due.held,
        }
    }
}
