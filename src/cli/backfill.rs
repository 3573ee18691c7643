//! The command `backfill`. It plans, starts, shows, pauses, resumes and cancels the import of a source's calls. The
//! source, the time window and the rate go in. The plan or the progress goes to stdout.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::json;

use super::{BadUsage, Ended, Failed, Purpose, out};
use crate::app::App;
use crate::domain::SourceName;
use crate::jobs::backfill;
use crate::jobs::backfill_plan;
use crate::jobs::backfill_plan::BackfillPlan;
use crate::jobs::backfill_status;
use crate::jobs::backfill_status::BackfillStatus;
use crate::store::{Backfill, BackfillState, NewBackfill, Orders, Origin, OurCalls, Steering};

const LOOK: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Estimate the calls, hours, bytes, requests and time of a backfill. Nothing is written
    Plan(Which),
    /// List a source's calls in a time window and queue them for the workers, those that expire soonest first
    #[command(
        after_help = "Examples:\n  aftercall backfill start --source krosai --from 2026-11-01\n  aftercall backfill start --source krosai --from 2026-11-01 --to 2026-11-08 --wait\n  aftercall backfill start --source krosai --from 2026-01-01 --rate 120/min\n  aftercall backfill start --source krosai --from 2026-01-01 --where outcome=no_engine\n  aftercall backfill start --source krosai --from 2026-01-01 --where flag=missing_object"
    )]
    Start(Start),
    /// List all backfills, newest first
    List {
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Show the progress of one backfill, or of all
    Show {
        /// The backfill's id, as `start` printed it
        id: Option<String>,
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Queue no more calls. Running calls are finished
    Pause { id: String },
    /// Continue a paused backfill
    Resume { id: String },
    /// Limit the calls per minute from now on, such as 120/min. `none` removes the limit
    Rate {
        id: String,
        #[arg(value_parser = new_rate, value_name = "N/min|none")]
        rate: NewRate,
    },
    /// End a backfill for good. Running calls are finished, and waiting calls count as cancelled
    Cancel { id: String },
}

impl Command {
    pub(super) const fn purpose(&self) -> Purpose {
        if matches!(self, Self::List { .. } | Self::Show { .. }) { Purpose::Look } else { Purpose::Change }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Which {
    #[arg(long)]
    source: SourceName,
    /// A date (2026-11-01, midnight UTC) or a moment (2026-11-01T08:00:00Z)
    #[arg(long, value_parser = moment)]
    from: Timestamp,
    /// A date or a moment [default: now]
    #[arg(long, value_parser = moment)]
    to: Option<Timestamp>,
    /// Also process finished calls once more, as a new transcript version
    #[arg(long)]
    again: bool,
    /// The most calls per minute, such as 120/min
    #[arg(long, value_parser = rate, value_name = "N/min")]
    rate: Option<u32>,
    /// Process again only the stored calls with this outcome or flag, such as outcome=no_engine or flag=missing_object
    #[arg(long = "where", value_parser = only, value_name = "outcome=…|flag=…")]
    only: Option<OurCalls>,
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Start {
    #[command(flatten)]
    which: Which,
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait for the end of the backfill and show its progress
    #[arg(long)]
    wait: bool,
}

/// Parses a date or a moment. A date means midnight UTC.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    let date = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    text.parse::<Timestamp>()
        .ok()
        .or_else(|| date().map(|zoned| zoned.timestamp()))
        .ok_or_else(|| "expected a date such as 2026-11-01 or a moment such as 2026-11-01T08:00:00Z".to_owned())
}

fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/min").unwrap_or(text);
    number.parse().ok().filter(|rate| *rate > 0).ok_or_else(|| "expected calls per minute such as 120/min".to_owned())
}

/// A new rate in calls per minute. `None` removes the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewRate(Option<u32>);

fn new_rate(text: &str) -> Result<NewRate, String> {
    if text == "none" { Ok(NewRate(None)) } else { rate(text).map(|rate| NewRate(Some(rate))) }
}

fn only(text: &str) -> Result<OurCalls, String> {
    match text.split_once('=') {
        Some(("outcome", word)) => {
            word.parse().map(OurCalls::Outcome).map_err(|err: crate::domain::ParseError| err.to_string())
        }
        Some(("flag", word)) => {
            word.parse().map(OurCalls::Flag).map_err(|err: crate::domain::flag::UnknownFlag| err.to_string())
        }
        _ => Err("expected outcome=… such as outcome=no_engine, or flag=… such as flag=missing_object".to_owned()),
    }
}

/// Runs the subcommand.
pub(super) async fn run(app: &Arc<App>, command: Command) -> Result<Ended> {
    match command {
        Command::Plan(which) => plan(app, &which).await,
        Command::Start(args) if args.dry_run => plan(app, &args.which).await,
        Command::Start(args) => start(app, args).await,
        Command::Show { id: Some(id), json } => {
            let backfill = app.store.backfill(&id).await?.with_context(|| format!("there is no backfill {id}"))?;
            if json {
                out::json(&backfill_status::shown(app, &backfill).await.map_err(Failed::from)?)?;
            } else {
                table(app, std::slice::from_ref(&backfill)).await?;
            }
            Ok(Ended::Well)
        }
        Command::Show { id: None, json } | Command::List { json } => {
            let all = app.store.backfills().await?;
            if json {
                out::json(&backfill_status::all_shown(app, &all).await.map_err(Failed::from)?)?;
            } else {
                table(app, &all).await?;
            }
            Ok(Ended::Well)
        }
        Command::Pause { id } => steer(app, &id, Steering::Paused, "paused").await,
        Command::Resume { id } => steer(app, &id, Steering::Run, "goes on").await,
        Command::Rate { id, rate: NewRate(rate) } => {
            let changed = app.store.rate_backfill(&id, rate).await?;
            let what = rate.map_or_else(|| "is fed as the workers take it".to_owned(), |n| format!("is fed {n}/min"));
            steered(app, &id, changed, &what).await
        }
        Command::Cancel { id } => steer(app, &id, Steering::Cancelled, "is cancelled").await,
    }
}

async fn steer(app: &App, id: &str, steering: Steering, what: &str) -> Result<Ended> {
    let changed = app.store.steer_backfill(id, steering).await?;
    steered(app, id, changed, what).await
}

async fn steered(app: &App, id: &str, changed: bool, what: &str) -> Result<Ended> {
    if changed {
        out::line(&format!("backfill {id} {what}"));
        return Ok(Ended::Well);
    }
    match app.store.backfill(id).await? {
        None => bail!("there is no backfill {id}"),
        Some(backfill) => bail!("backfill {id} is over ({})", backfill_status::state_of(&backfill)),
    }
}

impl Which {
    /// The time window. An unknown source or an empty window is an error.
    fn window(&self, app: &App) -> Result<(Timestamp, Timestamp)> {
        if app.platform(&self.source).is_none() {
            bail!("source `{}` is not in the configuration", self.source);
        }
        let to = self.to.unwrap_or_else(|| app.now());
        if self.from >= to {
            return Err(BadUsage(format!("--from {} is not before --to {to}", self.from)).into());
        }
        Ok((self.from, to))
    }

    const fn orders(&self) -> Orders {
        Orders { rate_per_minute: self.rate, only: self.only }
    }
}

async fn plan(app: &Arc<App>, which: &Which) -> Result<Ended> {
    let window = which.window(app)?;
    let plan = backfill_plan::plan(app, &which.source, window, which.again, which.orders()).await;
    let plan = plan.map_err(Failed::from)?;
    if which.json {
        out::json(&plan)?;
    } else {
        planned(&plan);
    }
    Ok(Ended::Well)
}

fn planned(plan: &BackfillPlan) {
    let skipped: Vec<String> = plan.skipped.iter().map(|(why, n)| format!("{why} {n}")).collect();
    let rows = [
        ("calls listed", plan.listed.to_string()),
        ("to do", plan.to_do.to_string()),
        ("skipped", if skipped.is_empty() { "–".to_owned() } else { skipped.join(", ") }),
        ("hours of audio", format!("{:.1}", plan.audio_hours)),
        ("bytes, about", plan.bytes_estimated.to_string()),
        ("requests to the platform", plan.platform_requests.to_string()),
        ("minutes, about", out::or_dash(plan.estimated_minutes.map(|minutes| format!("{minutes:.0}")))),
        ("speech minutes at most", format!("{:.0}", plan.speech_minutes_at_most)),
        ("gone at the source within a day", plan.expiring_within_a_day.to_string()),
    ];
    let columns = [out::Column::kept("what"), out::Column::kept("how much")];
    out::table(&columns, rows.into_iter().map(|(what, much)| vec![what.to_owned(), much]), "");
}

async fn start(app: &Arc<App>, args: Start) -> Result<Ended> {
    let which = &args.which;
    let (from, to) = which.window(app)?;
    let (source, again, now) = (&which.source, which.again, app.now());
    let new = NewBackfill { source, from, to, again, origin: Origin::Command, now };
    let id = backfill::start_ordered(app, &new, which.orders()).await.map_err(Failed::from)?;
    let id = id.context("the backfill was refused")?;
    if !args.wait {
        if which.json {
            out::json(&json!({ "id": id }))?;
        } else {
            out::line(&format!("backfill {id} started; follow it with: aftercall backfill show {id}"));
        }
        return Ok(Ended::Well);
    }
    follow(app, &id, which.json).await
}

async fn follow(app: &Arc<App>, id: &str, json: bool) -> Result<Ended> {
    let bar = out::bar(0, "backfill");
    loop {
        let backfill = app.store.backfill(id).await?.with_context(|| format!("backfill {id} has vanished"))?;
        bar.set_length(backfill.listed);
        bar.set_position(backfill.done + backfill.failed + backfill.skipped.values().sum::<u64>());
        let BackfillStatus { eta, stalled, .. } =
            backfill_status::status(app, &backfill).await.map_err(Failed::from)?;
        bar.set_message(match (backfill.steering, stalled, eta) {
            (Steering::Paused, ..) => "paused".to_owned(),
            (_, Some(why), _) => format!("stalled: {why}"),
            (_, None, Some(eta)) => format!("{} left", out::minutes(eta.as_millis() as u64)),
            (_, None, None) => String::new(),
        });
        if matches!(backfill.state, BackfillState::Done | BackfillState::Failed) {
            bar.finish_and_clear();
            if json {
                out::json(&backfill_status::shown(app, &backfill).await.map_err(Failed::from)?)?;
            } else {
                table(app, std::slice::from_ref(&backfill)).await?;
            }
            if let Some(reason) = &backfill.reason {
                out::error(&format!("backfill {id} failed: {reason}"));
            }
            let well = backfill.state == BackfillState::Done && backfill.failed == 0;
            return Ok(if well { Ended::Well } else { Ended::Failed });
        }
        if app.queue.live_workers(app.config.worker.silent_after.0).await? == 0 {
            bar.finish_and_clear();
            out::error("no worker is alive; start one with `aftercall work`, the backfill goes on by itself");
            if json {
                out::json(&backfill_status::shown(app, &backfill).await.map_err(Failed::from)?)?;
            }
            return Ok(Ended::TryAgain);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn table(app: &App, all: &[Backfill]) -> Result<()> {
    let columns = [
        out::Column::kept("id"),
        out::Column::spare("source", 2),
        out::Column::kept("state"),
        out::Column::spare("listed", 3),
        out::Column::spare("enqueued", 5),
        out::Column::kept("done"),
        out::Column::kept("failed"),
        out::Column::kept("left"),
        out::Column::spare("eta", 1),
        out::Column::spare("skipped", 4),
    ];
    let (mut rows, mut notes) = (Vec::with_capacity(all.len()), Vec::new());
    for backfill in all {
        let skipped: Vec<String> = backfill.skipped.iter().map(|(why, n)| format!("{why} {n}")).collect();
        let status = backfill_status::status(app, backfill).await.map_err(Failed::from)?;
        if let Some(why) = status.stalled {
            notes.push(format!("backfill {} is stalled: {why}", backfill.id));
        }
        rows.push(vec![
            backfill.id.clone(),
            backfill.source.to_string(),
            backfill_status::state_of(backfill).to_owned(),
            backfill.listed.to_string(),
            backfill.enqueued.to_string(),
            backfill.done.to_string(),
            backfill.failed.to_string(),
            status.left.to_string(),
            out::or_dash(status.eta.map(|eta| out::minutes(eta.as_millis() as u64))),
            skipped.join(", "),
        ]);
    }
    out::table(&columns, rows, "no backfill yet; `aftercall backfill start --source NAME --from DATE` starts one");
    for note in &notes {
        out::note(note);
    }
    Ok(())
}
