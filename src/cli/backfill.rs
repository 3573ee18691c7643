//! `backfill`: bring in the calls a source holds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Ended, Failed, out};
use crate::app::App;
use crate::domain::SourceName;
use crate::jobs::backfill;
use crate::store::{Backfill, BackfillState, NewBackfill, Origin};

const LOOK: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List a window of a source's calls and feed them to the workers, oldest first
    #[command(
        after_help = "Examples:\n  aftercall backfill start --source krosai --from 2026-11-01\n  aftercall backfill start --source krosai --from 2026-11-01 --to 2026-11-08 --wait"
    )]
    Start(Start),
    /// Progress of one backfill, or of all
    Show {
        /// Its id, as `start` printed it
        id: Option<String>,
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub struct Start {
    #[arg(long)]
    source: SourceName,
    /// A date (2026-11-01, midnight UTC) or a moment (2026-11-01T08:00:00Z)
    #[arg(long, value_parser = moment)]
    from: Timestamp,
    /// The same [default: now]
    #[arg(long, value_parser = moment)]
    to: Option<Timestamp>,
    /// Also process finished calls once more
    #[arg(long)]
    again: bool,
    /// Follow it to the end
    #[arg(long)]
    wait: bool,
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Reads a date or a moment.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    let date = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    text.parse::<Timestamp>()
        .ok()
        .or_else(|| date().map(|zoned| zoned.timestamp()))
        .ok_or_else(|| "expected a date such as 2026-11-01 or a moment such as 2026-11-01T08:00:00Z".to_owned())
}

/// Dispatches.
pub async fn run(app: &Arc<App>, command: Command) -> Result<Ended> {
    match command {
        Command::Start(args) => start(app, args).await,
        Command::Show { id: Some(id), json } => {
            let backfill = app.store.backfill(&id).await?.with_context(|| format!("there is no backfill {id}"))?;
            if json {
                out::json(&shown(&backfill))?;
            } else {
                table(std::slice::from_ref(&backfill));
            }
            Ok(Ended::Well)
        }
        Command::Show { id: None, json } => {
            let all = app.store.backfills().await?;
            if json {
                out::json(&all.iter().map(shown).collect::<Vec<_>>())?;
            } else {
                table(&all);
            }
            Ok(Ended::Well)
        }
    }
}

async fn start(app: &Arc<App>, args: Start) -> Result<Ended> {
    if app.platform(&args.source).is_none() {
        bail!("source `{}` is not in the configuration", args.source);
    }
    let now = app.now();
    let to = args.to.unwrap_or(now);
    if args.from >= to {
        bail!("--from {} is not before --to {to}", args.from);
    }
    let new =
        NewBackfill { source: &args.source, from: args.from, to, again: args.again, origin: Origin::Command, now };
    let id = backfill::start(app, &new).await.map_err(Failed::from)?.context("the backfill was refused")?;
    if !args.wait {
        if args.json {
            out::json(&json!({ "id": id }))?;
        } else {
            out::line(&format!("backfill {id} started; follow it with: aftercall backfill show {id}"));
        }
        return Ok(Ended::Well);
    }
    follow(app, &id, args.json).await
}

async fn follow(app: &Arc<App>, id: &str, json: bool) -> Result<Ended> {
    let bar = out::bar(0, "backfill");
    loop {
        let backfill = app.store.backfill(id).await?.with_context(|| format!("backfill {id} has vanished"))?;
        bar.set_length(backfill.listed);
        bar.set_position(backfill.done + backfill.failed + backfill.skipped.values().sum::<u64>());
        if matches!(backfill.state, BackfillState::Done | BackfillState::Failed) {
            bar.finish_and_clear();
            if json {
                out::json(&shown(&backfill))?;
            } else {
                table(std::slice::from_ref(&backfill));
            }
            return Ok(if backfill.failed == 0 { Ended::Well } else { Ended::Failed });
        }
        if app.queue.live_workers(app.config.worker.silent_after.0).await? == 0 {
            bar.finish_and_clear();
            out::error("no worker is alive; start one with `aftercall work`, the backfill goes on by itself");
            if json {
                out::json(&shown(&backfill))?;
            }
            return Ok(Ended::TryAgain);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn shown(backfill: &Backfill) -> Value {
    json!({
        "id": backfill.id, "source": backfill.source, "state": backfill.state, "from": backfill.from,
        "to": backfill.to, "origin": backfill.origin, "again": backfill.again, "listed": backfill.listed,
        "enqueued": backfill.enqueued, "done": backfill.done, "failed": backfill.failed,
        "skipped": backfill.skipped, "reason": backfill.reason, "created_at": backfill.created_at,
        "updated_at": backfill.updated_at,
    })
}

fn table(all: &[Backfill]) {
    let header = ["id", "source", "state", "listed", "enqueued", "done", "failed", "skipped"];
    let rows = all.iter().map(|backfill| {
        let skipped: Vec<String> = backfill.skipped.iter().map(|(why, n)| format!("{why} {n}")).collect();
        vec![
            backfill.id.clone(),
            backfill.source.to_string(),
            backfill.state.as_str().to_owned(),
            backfill.listed.to_string(),
            backfill.enqueued.to_string(),
            backfill.done.to_string(),
            backfill.failed.to_string(),
            skipped.join(", "),
        ]
    });
    out::table(&header, rows);
}
