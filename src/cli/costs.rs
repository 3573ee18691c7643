//! `costs`: what the work used and what it cost.

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
pub struct Args {
    #[arg(long, value_enum, default_value = "source")]
    by: Key,
    /// A date or a moment [default: 30 days ago]
    #[arg(long, value_parser = moment)]
    from: Option<Timestamp>,
    /// The same [default: now]
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

/// Prints the sums.
pub async fn run(app: &Arc<App>, args: Args) -> Result<Ended> {
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
        let header = [
            "of",
            "calls",
            "attempts",
            "requests",
            "writes",
            "stored",
            "audio min",
            "engine s",
            "billed min",
            "free",
            "unpriced",
            "priced",
            "cost",
        ];
        out::table(&header, sums.iter().map(row));
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
        sum.bytes_stored.to_string(),
        format!("{:.1}", sum.audio_ms as f64 / 60_000.0),
        format!("{:.1}", sum.engine_ms as f64 / 1000.0),
        format!("{:.1}", sum.billed_ms as f64 / 60_000.0),
        sum.free.to_string(),
        sum.unpriced.to_string(),
        sum.priced.to_string(),
        format!("{:.2}", sum.cost_micros as f64 / 1_000_000.0),
    ]
}
