//! The command `costs`. A time window and a grouping go in. The sums of usage and cost come out as a table or JSON.

use std::sync::Arc;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};

use super::backfill::moment;
use super::{Ended, out};
use crate::app::App;
use crate::store::{By, Sum};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "What costs money, what is free and what has no price are counted apart.\n\nExamples:\n  aftercall costs --by organization --from 2026-11-01\n  aftercall costs --by engine --json"
)]
pub(super) struct Args {
    #[arg(long, value_enum, default_value = "source")]
    by: Key,
    /// A date or a moment [default: 30 days ago]
    #[arg(long, value_parser = moment)]
    from: Option<Timestamp>,
    /// A date or a moment [default: now]
    #[arg(long, value_parser = moment)]
    to: Option<Timestamp>,
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Key {
    Source,
    Organization,
    Engine,
    Call,
    Day,
}

impl Key {
    const fn head(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Organization => "organization",
            Self::Engine => "engine",
            Self::Call => "call",
            Self::Day => "day",
        }
    }
}

/// Prints the sums.
pub(super) async fn run(app: &Arc<App>, args: Args) -> Result<Ended> {
    let now = app.now();
    let from = args.from.unwrap_or_else(|| now.checked_sub(SignedDuration::from_hours(24 * 30)).unwrap_or(now));
    let to = args.to.unwrap_or_else(|| now.checked_add(SignedDuration::from_secs(1)).unwrap_or(now));
    let by = match args.by {
        Key::Source => By::Source,
        Key::Organization => By::Organization,
        Key::Engine => By::Engine,
        Key::Call => By::Call,
        Key::Day => By::Day,
    };
    let sums = app.store.ledger(by, (from, to)).await?;
    if args.json {
        out::json(&sums)?;
    } else {
        let columns = [
            out::Column::kept(args.by.head()),
            out::Column::kept("calls"),
            out::Column::spare("attempts", 3),
            out::Column::spare("platform requests", 2),
            out::Column::spare("object writes", 5),
            out::Column::spare("stored", 1),
            out::Column::kept("audio minutes"),
            out::Column::spare("engine seconds", 4),
            out::Column::kept("billed minutes"),
            out::Column::spare("free attempts", 8),
            out::Column::spare("attempts without a price", 7),
            out::Column::spare("attempts with a price", 6),
            out::Column::kept("cost"),
        ];
        out::table(&columns, sums.iter().map(row), "no work was done between these dates; --from names an earlier one");
    }
    Ok(Ended::Well)
}

fn row(sum: &Sum) -> Vec<String> {
    vec![
        out::or_dash(sum.of.as_deref()),
        sum.calls.to_string(),
        sum.attempts.to_string(),
        sum.platform_requests.to_string(),
        sum.object_writes.to_string(),
        out::bytes(sum.bytes_stored.unsigned_abs()),
        format!("{:.1}", sum.audio_ms as f64 / 60_000.0),
        format!("{:.1}", sum.engine_ms as f64 / 1000.0),
        format!("{:.1}", sum.billed_ms as f64 / 60_000.0),
        sum.free.to_string(),
        sum.unpriced.to_string(),
        sum.priced.to_string(),
        format!("{:.2}", sum.cost_micros as f64 / 1_000_000.0),
    ]
}
