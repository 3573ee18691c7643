//! The command `reconcile`. A source and a time window go in. The command admits missing calls and prints the balance
//! of all completed calls.

use std::sync::Arc;

use anyhow::{Result, bail};
use jiff::Timestamp;

use super::backfill::moment;
use super::{Ended, Failed, out};
use crate::app::App;
use crate::domain::SourceName;
use crate::jobs::reconcile;
use crate::wire::Window;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exits 1 when a completed call is neither done, running nor ended with a reason, when one is a dead letter, and when rows\nof the list cannot be read, or when stored objects are lost.\n\nExamples:\n  aftercall reconcile --source krosai\n  aftercall reconcile --source krosai --from 2026-11-01 --to 2026-11-08 --json"
)]
pub(super) struct Args {
    #[arg(long)]
    source: SourceName,
    /// A date or a moment [default: everything the source lists]
    #[arg(long, value_parser = moment)]
    from: Option<Timestamp>,
    /// A date or a moment [default: one hour from now]
    #[arg(long, value_parser = moment)]
    to: Option<Timestamp>,
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Lists the source's calls, admits missing ones and prints the balance.
pub(super) async fn run(app: &Arc<App>, args: Args) -> Result<Ended> {
    if app.platform(&args.source).is_none() {
        bail!("source `{}` is not in the configuration", args.source);
    }
    // The window also covers calls that end during this run on a platform with a fast clock.
    let now = app.now();
    let soon = now.checked_add(jiff::SignedDuration::from_hours(1)).unwrap_or(now);
    let window = Window { from: args.from.unwrap_or(Timestamp::UNIX_EPOCH), to: args.to.unwrap_or(soon) };
    let balance = reconcile::balance(app, &args.source, window).await.map_err(Failed::from)?;
    if args.json {
        out::json(&balance)?;
    } else {
        let ended: Vec<String> = balance.terminal.iter().map(|(why, n)| format!("{why} {n}")).collect();
        let row = vec![
            balance.source.to_string(),
            balance.listed.to_string(),
            balance.completed.to_string(),
            balance.done.to_string(),
            balance.running.to_string(),
            ended.join(", "),
            balance.dead_letters.to_string(),
            balance.unreadable.to_string(),
            balance.missing.to_string(),
            balance.missing_objects.to_string(),
        ];
        let columns = [
            out::Column::kept("source"),
            out::Column::kept("calls listed"),
            out::Column::kept("completed"),
            out::Column::kept("done"),
            out::Column::kept("unfinished"),
            out::Column::kept("other outcomes"),
            out::Column::kept("dead letters"),
            out::Column::spare("unreadable rows", 2),
            out::Column::kept("missing"),
            out::Column::spare("calls with lost objects", 1),
        ];
        out::table(&columns, [row], "");
        if !balance.unreadable_ids.is_empty() {
            out::note(&format!("rows that cannot be read: {}", balance.unreadable_ids.join(", ")));
        }
    }
    Ok(if balance.is_clear() { Ended::Well } else { Ended::Failed })
}
