//! The command `hold`. It places, releases and lists holds. A call with an open hold is not erased. A call or a hold id
//! goes in. A line, a table or JSON comes out.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::json;

use super::backfill::moment;
use super::calls::find;
use super::{Ended, Purpose, out};
use crate::app::App;
use crate::domain::SourceName;
use crate::store::{AuditEntry, NewHold};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Place a hold on a call
    #[command(
        after_help = "Example:\n  aftercall hold add --call call_abc123 --matter \"claim 4711\" --by \"J. Doe\" --review-by 2027-06-30"
    )]
    Add(Add),
    /// Release a hold. The call's original retention date applies again
    Release {
        /// The hold's id, as `add` printed it
        id: String,
        /// Your name, for the audit trail
        #[arg(long)]
        by: String,
    },
    /// List all holds, including released ones
    List {
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    pub(super) const fn purpose(&self) -> Purpose {
        if matches!(self, Self::List { .. }) { Purpose::Look } else { Purpose::Change }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The platform's id of the call, or the id in aftercall
    #[arg(long)]
    call: String,
    /// The call's source, needed when two sources share the id
    #[arg(long)]
    source: Option<SourceName>,
    /// The reason, such as a case number or a request
    #[arg(long)]
    matter: String,
    /// Your name, for the hold and the audit trail
    #[arg(long)]
    by: String,
    /// The date for the next review of the hold
    #[arg(long, value_parser = moment)]
    review_by: Timestamp,
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub(super) async fn run(app: &Arc<App>, command: Command) -> Result<Ended> {
    match command {
        Command::Add(args) => add(app, args).await,
        Command::Release { id, by } => release(app, &id, &by).await,
        Command::List { json } => list(app, json).await,
    }
}

async fn add(app: &Arc<App>, args: Add) -> Result<Ended> {
    let record = find(app, &args.call, args.source.as_ref()).await?;
    let now = app.now();
    if args.review_by <= now {
        bail!("--review-by {} is not in the future", args.review_by);
    }
    let mut tx = app.store.begin().await?;
    let hold =
        NewHold { call_uid: record.uid, matter: &args.matter, placed_by: &args.by, now, review_by: args.review_by };
    let id = app.store.place_hold(&mut tx, hold).await?.context("its erasure has been decided already; too late")?;
    app.store.audit(&mut tx, &entry(now, &args.by, "hold_placed", &record.uid.to_string(), &id)).await?;
    tx.commit().await?;
    if args.json {
        out::json(&json!({ "id": id, "call_id": record.call_id, "source": record.source }))?;
    } else {
        out::line(&format!("hold {id} on {}", record.call_id));
    }
    Ok(Ended::Well)
}

async fn release(app: &Arc<App>, id: &str, by: &str) -> Result<Ended> {
    let now = app.now();
    let hold = app.store.holds(None).await?.into_iter().find(|hold| hold.id == id);
    let hold = hold.with_context(|| format!("there is no hold {id}"))?;
    let mut tx = app.store.begin().await?;
    if !app.store.release_hold(&mut tx, id, by, now).await? {
        bail!("hold {id} was released before");
    }
    app.store.audit(&mut tx, &entry(now, by, "hold_released", &hold.call_uid.to_string(), id)).await?;
    tx.commit().await?;
    out::line(&format!("hold {id} released; {} follows its own date again", hold.call_id));
    Ok(Ended::Well)
}

fn entry(at: Timestamp, by: &str, action: &str, subject: &str, hold: &str) -> AuditEntry {
    AuditEntry {
        at,
        actor: by.to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        detail: format!("hold {hold}"),
    }
}

async fn list(app: &Arc<App>, json: bool) -> Result<Ended> {
    let holds = app.store.holds(None).await?;
    if json {
        out::json(&holds)?;
        return Ok(Ended::Well);
    }
    let rows = holds.iter().map(|hold| {
        vec![
            hold.id.clone(),
            hold.call_id.clone(),
            hold.source.clone(),
            hold.matter.clone(),
            hold.placed_by.clone(),
            hold.review_by.to_string(),
            hold.released_at.map_or_else(|| "open".to_owned(), |at| format!("released {at}")),
        ]
    });
    let columns = [
        out::Column::kept("id"),
        out::Column::kept("call"),
        out::Column::spare("source", 3),
        out::Column::spare("matter", 1),
        out::Column::spare("by", 4),
        out::Column::spare("review by", 2),
        out::Column::kept("state"),
    ];
    out::table(&columns, rows, "no hold was ever placed; `aftercall hold add --help` shows how");
    Ok(Ended::Well)
}
