//! The command `calls`. It lists and shows call records and exchanges wrong roles. An id or a filter goes in. A table,
//! a page or JSON comes out.

pub(super) mod show;

use std::sync::Arc;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use self::show::Shown;
use super::{Ended, Failed, Purpose, out};
use crate::app::App;
use crate::domain::{CallFlag, CallId, CallUid, Outcome, SourceName};
use crate::jobs::correct;
use crate::jobs::correct::Corrected;
use crate::store::{CallFilter, CallRecord};
use crate::transcript;
use crate::transcript::Correction;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List call records, newest first
    #[command(
        after_help = "Examples:\n  aftercall calls list --outcome no_recording\n  aftercall calls list --flag missing_object\n  aftercall calls list --json | jq '.[] | select(.flags | index(\"clipped\"))'"
    )]
    List {
        #[arg(long)]
        source: Option<SourceName>,
        /// Only calls with this outcome, such as done, no_engine or no_recording
        #[arg(long)]
        outcome: Option<Outcome>,
        /// Only calls with this flag, such as missing_object or clipped
        #[arg(long)]
        flag: Option<CallFlag>,
        #[arg(long)]
        limit: Option<u64>,
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Exchange the roles of agent and caller and write the next transcript version
    #[command(
        after_help = "What was put right stays so when the call is processed again.\n\nExamples:\n  aftercall calls swap-roles call_abc123\n  aftercall calls swap-roles call_abc123 --agent 2      Speaker 2 is the agent, where no roles were known"
    )]
    SwapRoles {
        /// The platform's id of the call, or the id in aftercall
        id: String,
        /// The call's source, needed when two sources share the id
        #[arg(long)]
        source: Option<SourceName>,
        /// The number of the speaker that is the agent, for a transcript without roles
        #[arg(long, value_name = "N")]
        agent: Option<usize>,
        /// Your name, for the audit trail
        #[arg(long, default_value = "command line", value_name = "NAME")]
        by: String,
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Show one record with outcome, quality, written-back results, jobs and transcript
    #[command(
        after_help = "Examples:\n  aftercall calls show call_abc123\n  aftercall calls show call_abc123 --keys      with the keys of its stored objects\n  aftercall calls show call_abc123 --json | jq .quality"
    )]
    Show {
        /// The platform's id of the call, or the id in aftercall
        id: String,
        /// The call's source, needed when two sources share the id
        #[arg(long)]
        source: Option<SourceName>,
        /// Also show the keys of the stored objects
        #[arg(long)]
        keys: bool,
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    pub(super) const fn purpose(&self) -> Purpose {
        if matches!(self, Self::List { .. } | Self::Show { .. }) { Purpose::Look } else { Purpose::Change }
    }
}

/// Runs the subcommand.
pub(super) async fn run(app: &Arc<App>, command: Command) -> Result<Ended> {
    match command {
        Command::List { source, outcome, flag, limit, json } => {
            let filter = CallFilter { source, outcome, flag, limit, ..CallFilter::default() };
            let calls = app.store.calls(&filter).await?;
            if json {
                out::json(&calls.iter().map(row).collect::<Vec<_>>())?;
            } else {
                let empty = if filter.source.is_some() || outcome.is_some() || flag.is_some() {
                    "no call record fits; `aftercall calls list` shows all"
                } else {
                    "no call record yet; `aftercall trigger` and `aftercall backfill start` bring calls in"
                };
                table(&calls, empty);
            }
        }
        Command::SwapRoles { id, source, agent, by, json } => {
            let correction = agent.map_or(Correction::Swap, Correction::Agent);
            swap_roles(app, &find(app, &id, source.as_ref()).await?, correction, &by, json).await?;
        }
        Command::Show { id, source, keys, json } => {
            let shown = Shown::read(app, &find(app, &id, source.as_ref()).await?).await?;
            if json { out::json(&shown.json())? } else { shown.print(keys) }
        }
    }
    Ok(Ended::Well)
}

async fn swap_roles(app: &App, record: &CallRecord, correction: Correction, by: &str, json: bool) -> Result<()> {
    let call = &record.call_id;
    match correct::correct(app, record.uid, correction, by).await.map_err(Failed::from)? {
        Corrected::Refused(err) => bail!("the transcript of {call}: {err}"),
        Corrected::NoTranscript => bail!("{call} has no transcript to put right"),
        Corrected::Version(version, words) if json => out::json(&json!({
            "id": call,
            "source": record.source,
            "transcript_version": version,
            "speakers": words.speakers,
            "transcript": transcript::text(&words),
        })),
        Corrected::Version(version, words) => {
            out::line(&format!("{call}: transcript version {version}\n"));
            out::line(&transcript::text(&words).unwrap_or_default());
            Ok(())
        }
    }
}

/// Finds the one record with this id. The id is the platform's or the one in this store.
pub(super) async fn find(app: &App, id: &str, source: Option<&SourceName>) -> Result<CallRecord> {
    if let Ok(uid) = CallUid::parse(id)
        && let Some(record) = app.store.call(uid).await?
    {
        return Ok(record);
    }
    let mut records = app.store.calls_by_id(&CallId::parse(id)?, source).await?;
    match records.len() {
        0 => {
            bail!("no call record `{id}`{}", source.map(|source| format!(" of source `{source}`")).unwrap_or_default())
        }
        1 => Ok(records.remove(0)),
        _ => {
            let sources: Vec<String> = records.iter().map(|record| record.source.to_string()).collect();
            bail!("two sources know a call `{id}`: name one with --source ({})", sources.join(", "))
        }
    }
}

/// A call record as JSON, as `calls list` prints it.
pub(super) fn row(record: &CallRecord) -> Value {
    json!({
        "id": record.call_id,
        "uid": record.uid,
        "source": record.source,
        "org_id": record.org_id,
        "direction": record.direction,
        "status": record.status,
        "outcome": record.outcome,
        "outcome_reason": record.outcome_reason,
        "ended_at": record.ended_at,
        "retain_until": record.retain_until,
        "retention_state": record.retention_state,
        "duration_ms": record.duration_ms,
        "transcript_version": record.transcript_version,
        "flags": record.flags,
    })
}

fn table(calls: &[CallRecord], empty: &str) {
    let rows = calls.iter().map(|call| {
        vec![
            call.call_id.to_string(),
            call.source.to_string(),
            out::or_dash(call.direction.as_deref()),
            out::or_dash(call.ended_at.map(|at| format!("{at:.0}"))),
            call.duration_ms.map_or_else(|| "–".to_owned(), out::minutes),
            call.outcome.map_or_else(|| "…".to_owned(), |outcome| outcome.to_string()),
            if call.transcript_version == 0 { "–".to_owned() } else { format!("v{}", call.transcript_version) },
            call.flags.join(" "),
        ]
    });
    let columns = [
        out::Column::kept("call"),
        out::Column::spare("source", 2),
        out::Column::spare("direction", 4),
        out::Column::spare("ended", 1),
        out::Column::kept("duration"),
        out::Column::kept("outcome"),
        out::Column::spare("transcript", 5),
        out::Column::spare("flags", 3),
    ];
    out::table(&columns, rows, empty);
}
