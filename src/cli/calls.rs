//! `calls`: what the records say.

use std::sync::Arc;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{Ended, Failed, Purpose, out};
use crate::app::App;
use crate::domain::{CallFlag, CallId, CallUid, Outcome, RetentionState, SourceName};
use crate::jobs::correct;
use crate::jobs::correct::Corrected;
use crate::queue::JobView;
use crate::store::{CallFilter, CallRecord};
use crate::transcript;
use crate::transcript::Correction;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Call records, newest first
    #[command(
        after_help = "Examples:\n  aftercall calls list --outcome no_recording\n  aftercall calls list --flag missing_object\n  aftercall calls list --json | jq '.[] | select(.flags | index(\"clipped\"))'"
    )]
    List {
        #[arg(long)]
        source: Option<SourceName>,
        /// done, no_engine, no_recording, …
        #[arg(long)]
        outcome: Option<Outcome>,
        /// missing_object, clipped, …
        #[arg(long)]
        flag: Option<CallFlag>,
        #[arg(long)]
        limit: Option<u64>,
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Agent and caller were taken for each other: writes the next transcript version with their roles exchanged
    #[command(
        after_help = "What was put right stays so when the call is processed again.\n\nExamples:\n  aftercall calls swap-roles call_abc123\n  aftercall calls swap-roles call_abc123 --agent 2      Speaker 2 is the agent, where no roles were known"
    )]
    SwapRoles {
        /// The platform's id, or ours
        id: String,
        /// Where two sources share the id
        #[arg(long)]
        source: Option<SourceName>,
        /// Which nameless speaker is the agent, where the transcript names nobody
        #[arg(long, value_name = "N")]
        agent: Option<usize>,
        /// Who says so, for the audit trail
        #[arg(long, default_value = "command line", value_name = "NAME")]
        by: String,
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// One record: outcome, transcript, quality, artifacts, jobs
    Show {
        /// The platform's id, or ours
        id: String,
        /// Where two sources share the id
        #[arg(long)]
        source: Option<SourceName>,
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

/// Dispatches.
pub async fn run(app: &Arc<App>, command: Command) -> Result<Ended> {
    match command {
        Command::List { source, outcome, flag, limit, json } => {
            let filter = CallFilter { source, outcome, flag, limit, ..CallFilter::default() };
            let calls = app.store.calls(&filter).await?;
            if json {
                out::json(&calls.iter().map(row).collect::<Vec<_>>())?;
            } else {
                table(&calls);
            }
        }
        Command::SwapRoles { id, source, agent, by, json } => {
            let correction = agent.map_or(Correction::Swap, Correction::Agent);
            swap_roles(app, &find(app, &id, source.as_ref()).await?, correction, &by, json).await?;
        }
        Command::Show { id, source, json } => show(app, &find(app, &id, source.as_ref()).await?, json).await?,
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

/// The one record with this id, ours or the platform's.
pub async fn find(app: &App, id: &str, source: Option<&SourceName>) -> Result<CallRecord> {
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

/// The shape of a listed call.
pub fn row(record: &CallRecord) -> Value {
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

fn table(calls: &[CallRecord]) {
    let header = ["call", "source", "direction", "ended", "duration", "outcome", "transcript", "flags"];
    let rows = calls.iter().map(|call| {
        vec![
            call.call_id.to_string(),
            call.source.to_string(),
            out::or_dash(call.direction.as_deref()),
            out::or_dash(call.ended_at),
            call.duration_ms.map_or_else(|| "–".to_owned(), out::minutes),
            call.outcome.map_or_else(|| "…".to_owned(), |outcome| outcome.to_string()),
            if call.transcript_version == 0 { "–".to_owned() } else { format!("v{}", call.transcript_version) },
            call.flags.join(" "),
        ]
    });
    out::table(&header, rows);
}

/// A job of the call, when it was queued and how long its last attempt took.
fn timed(job: &JobView) -> String {
    let queued = out::or_dash(job.queued_at);
    let took = job.took_ms().map_or_else(|| "not ended".to_owned(), |ms| format!("{ms} ms"));
    format!("job {} {}: {:?}, queued {queued}, attempt {}, {took}", job.id, job.kind, job.state, job.attempt)
}

async fn show(app: &App, record: &CallRecord, json: bool) -> Result<()> {
    let shell;
    // Once erasure is decided the content is nobody's to read.
    let (record, versions) = if record.retention_state == RetentionState::Active {
        (record, app.store.transcripts(record.uid).await?)
    } else {
        shell = CallRecord { artifacts: Vec::new(), quality: None, ..record.clone() };
        (&shell, Vec::new())
    };
    let text = versions.last().map(|version| version.text.as_str());
    let jobs = app.queue.jobs_about(&record.uid.to_string()).await?;
    if !json {
        table(std::slice::from_ref(record));
        if let Some(reason) = &record.outcome_reason {
            out::line(&format!("reason: {reason}"));
        }
        out::line(&format!("kept until {} ({})", record.retain_until, record.retention_basis));
        for artifact in &record.artifacts {
            out::line(&format!("{:>10} bytes  {}", artifact.size_bytes, artifact.key));
        }
        out::line(&format!("trace {}", record.uid.trace_id()));
        jobs.iter().rev().for_each(|job| out::line(&timed(job)));
        out::line(&format!("\n{}", text.unwrap_or("(no transcript)")));
        return Ok(());
    }
    let jobs: Vec<Value> = jobs
        .iter()
        .map(|job| {
            let cause = job.failure.as_ref().map(|failure| failure.cause.as_str()).or(job.last_error.as_deref());
            json!({
                "id": job.id, "kind": job.kind, "state": job.state, "attempt": job.attempt, "cause": cause,
                "queued_at": job.queued_at, "started_at": job.started_at, "ended_at": job.finished_at,
                "took_ms": job.took_ms(),
            })
        })
        .collect();
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let (number, made) = (version.version, version.created_at);
            json!({ "version": number, "created_at": made, "source": version.transcript.source })
        })
        .collect();
    let mut shown = row(record);
    shown["transcript"] = json!(text);
    shown["transcript_versions"] = json!(versions);
    shown["quality"] = json!(record.quality);
    shown["artifacts"] = json!(record.artifacts);
    shown["jobs"] = json!(jobs);
    shown["trace_id"] = json!(record.uid.trace_id());
    out::json(&shown)
}
