//! The command `jobs`. It lists, shows, retries and cancels jobs and dead letters. Job ids or filters go in. A table,
//! JSON or one line for each changed job comes out.

use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Ended, Failed, Purpose, out};
use crate::app::App;
use crate::domain::CallUid;
use crate::jobs::cancel;
use crate::jobs::cancel::Cancelled;
use crate::queue::{FinishedJobs, JobState, JobView};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List unfinished jobs and dead letters, newest first
    List {
        /// Also list finished jobs
        #[arg(long)]
        all: bool,
        #[arg(long, default_value_t = 1000)]
        limit: u64,
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Show one job with the whole chain of causes, as JSON
    Show {
        #[arg(value_parser = job_id)]
        id: i64,
        /// JSON on stdout, which is also the default here
        #[arg(long)]
        json: bool,
    },
    /// Retry dead letters, or jobs that wait between attempts, now
    #[command(
        after_help = "Examples:\n  aftercall jobs retry 4711\n  aftercall jobs retry --where stage=fetch      keys: stage, kind, side, fault, call"
    )]
    Retry {
        #[arg(required_unless_present = "filter", value_parser = job_id)]
        ids: Vec<i64>,
        /// Every dead letter with this value
        #[arg(long = "where", value_name = "KEY=VALUE", conflicts_with = "ids", value_parser = filter)]
        filter: Option<Filter>,
    },
    /// End dead letters or waiting jobs for good. A call without another job ends as `cancelled`
    #[command(
        after_help = "A running job is left alone. What was ended is in the audit trail; `aftercall trigger CALL_ID --source NAME --again` brings a call back.\n\nExamples:\n  aftercall jobs cancel 4711 --reason \"recording lost at the host\"\n  aftercall jobs cancel --where state=dead_letter --where stage=fetch      keys: stage, kind, side, fault, call, state"
    )]
    Cancel {
        #[arg(required_unless_present = "filters", value_parser = job_id)]
        ids: Vec<i64>,
        /// Every dead letter and waiting job with this value. Several filters must all match
        #[arg(long = "where", value_name = "KEY=VALUE", conflicts_with = "ids", value_parser = filter)]
        filters: Vec<Filter>,
        /// The reason, for the audit trail and the call's record
        #[arg(long)]
        reason: Option<String>,
        /// Your name, for the audit trail
        #[arg(long, default_value = "command line", value_name = "NAME")]
        by: String,
    },
}

fn job_id(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "a job id is a number; `aftercall jobs list` shows them".to_owned())
}

impl Command {
    pub(super) const fn purpose(&self) -> Purpose {
        if matches!(self, Self::List { .. } | Self::Show { .. }) { Purpose::Look } else { Purpose::Change }
    }
}

/// A filter for jobs. A job matches when its `column`, as JSON shows it, equals `value`.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    column: &'static str,
    value: String,
}

fn filter(text: &str) -> Result<Filter, String> {
    const COLUMNS: [(&str, &str); 6] = [
        ("stage", "stage"),
        ("kind", "kind"),
        ("side", "side"),
        ("fault", "fault"),
        ("call", "call_id"),
        ("state", "state"),
    ];
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as stage=fetch")?;
    match COLUMNS.iter().find(|(name, _)| *name == key) {
        Some((_, column)) => Ok(Filter { column, value: value.to_owned() }),
        None => Err(format!("`{key}` is none of stage, kind, side, fault, call, state")),
    }
}

/// Runs the subcommand.
pub(super) async fn run(app: &Arc<App>, command: Command) -> Result<Ended> {
    match command {
        Command::List { all, limit, json } => list(app, all, limit, json).await,
        Command::Show { id, json: _ } => {
            let jobs = app.queue.jobs(FinishedJobs::Included, u64::MAX).await?;
            let job = jobs.into_iter().find(|job| job.id == id).with_context(|| format!("there is no job {id}"))?;
            out::json(&shown(app, &job).await?)?;
            Ok(Ended::Well)
        }
        Command::Retry { ids, filter } => retry(app, ids, filter).await,
        Command::Cancel { ids, filters, reason, by } => cancel_all(app, &ids, &filters, &by, reason.as_deref()).await,
    }
}

async fn list(app: &Arc<App>, all: bool, limit: u64, json: bool) -> Result<Ended> {
    let finished = if all { FinishedJobs::Included } else { FinishedJobs::Left };
    let mut rows = Vec::new();
    for job in app.queue.jobs(finished, limit).await? {
        rows.push(shown(app, &job).await?);
    }
    if json {
        out::json(&rows)?;
        return Ok(Ended::Well);
    }
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".to_owned(),
        other => other.to_string(),
    };
    let keys = ["id", "kind", "state", "attempt", "call_id", "stage", "fault", "cause", "next_at"];
    let columns = [
        out::Column::kept("id"),
        out::Column::kept("kind"),
        out::Column::kept("state"),
        out::Column::spare("attempt", 4),
        out::Column::kept("call_id"),
        out::Column::spare("stage", 2),
        out::Column::spare("fault", 3),
        out::Column::spare("cause", 1),
        out::Column::spare("next_at", 5),
    ];
    let empty = if all { "no job" } else { "no unfinished job and no dead letter; --all lists finished jobs too" };
    out::table(&columns, rows.iter().map(|row| keys.iter().map(|key| text(&row[key])).collect()), empty);
    Ok(Ended::Well)
}

async fn shown(app: &App, job: &JobView) -> Result<Value> {
    let call = match job.subject.as_deref().and_then(|subject| CallUid::parse(subject).ok()) {
        Some(uid) => app.store.call(uid).await?,
        None => None,
    };
    let failure = job.failure.as_ref();
    Ok(json!({
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "call_id": call.as_ref().map(|call| call.call_id.as_str()),
        "source": call.as_ref().map(|call| call.source.as_str()),
        "stage": job.stage().map(crate::domain::Stage::as_str),
        "fault": failure.map(|failure| failure.fault.as_str()),
        "side": failure.map(|failure| failure.side.as_str()),
        "cause": failure.map(|failure| failure.cause.as_str()).or(job.last_error.as_deref()),
        "next_at": job.next_at,
    }))
}

async fn retry(app: &Arc<App>, mut ids: Vec<i64>, filter: Option<Filter>) -> Result<Ended> {
    if let Some(Filter { column, value }) = filter {
        for job in app.queue.jobs(FinishedJobs::Left, u64::MAX).await? {
            if job.state == JobState::DeadLetter && shown(app, &job).await?[column] == value {
                ids.push(job.id);
            }
        }
    }
    let mut missed = 0;
    for id in &ids {
        if app.queue.retry(*id).await? {
            out::line(&format!("job {id} will be tried again now"));
        } else {
            out::note(&format!("job {id} is neither a dead letter nor waiting"));
            missed += 1;
        }
    }
    out::note(&format!("{} of {} jobs put back to work", ids.len() - missed, ids.len()));
    Ok(if missed == 0 { Ended::Well } else { Ended::Failed })
}

async fn cancel_all(app: &Arc<App>, ids: &[i64], filters: &[Filter], by: &str, reason: Option<&str>) -> Result<Ended> {
    let (mut chosen, mut missed) = (Vec::new(), 0);
    let jobs = app.queue.jobs(FinishedJobs::Left, u64::MAX).await?;
    for id in ids.iter().filter(|id| !jobs.iter().any(|job| job.id == **id)) {
        out::note(&format!("job {id} is neither a dead letter nor waiting"));
        missed += 1;
    }
    for job in jobs {
        let named = ids.contains(&job.id);
        let shown = if filters.is_empty() { Value::Null } else { shown(app, &job).await? };
        let meant = !filters.is_empty() && filters.iter().all(|filter| shown[filter.column] == filter.value);
        // A filter never selects a running job. A running job with a named id is selected and reported with a note.
        if named || meant && job.state != JobState::Running {
            chosen.push(job);
        }
    }
    let all = chosen.len() + missed;
    for job in chosen {
        let id = job.id;
        match cancel::cancel(app, &job, by, reason).await.map_err(Failed::from)? {
            Cancelled::Job => out::line(&format!("job {id} is cancelled")),
            Cancelled::JobAndCall => out::line(&format!("job {id} is cancelled, and its call ends as `cancelled`")),
            Cancelled::NotWaiting => {
                out::note(&format!("job {id} is neither a dead letter nor waiting"));
                missed += 1;
            }
            Cancelled::Refused(instead) => {
                out::note(&format!("job {id} is not cancelled: {instead}"));
                missed += 1;
            }
        }
    }
    out::note(&format!("{} of {all} jobs cancelled", all - missed));
    Ok(if missed == 0 { Ended::Well } else { Ended::Failed })
}
