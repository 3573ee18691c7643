//! The command `trigger`. A source and call ids go in. One result for each call comes out, such as the id of its job.

use std::sync::Arc;

use anyhow::Result;
use serde_json::json;

use super::{Ended, Failed, out};
use crate::app::App;
use crate::domain::{CallId, SourceName};
use crate::jobs::admit::Repeat;
use crate::jobs::trigger;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  aftercall trigger call_abc123 --source krosai\n  aftercall trigger call_abc123 --source krosai --again     a new transcript version"
)]
pub(super) struct Args {
    /// The platform's ids of the calls
    #[arg(required = true, value_name = "CALL_ID")]
    calls: Vec<CallId>,
    /// The source of the calls
    #[arg(long)]
    source: SourceName,
    /// Process a finished call once more, as a new transcript version
    #[arg(long)]
    again: bool,
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Enqueues each call and prints the results. A call that is already queued is not enqueued again.
pub(super) async fn run(app: &Arc<App>, args: Args) -> Result<Ended> {
    let repeat = if args.again { Repeat::Again } else { Repeat::Never };
    let (mut all, mut queued) = (Vec::new(), false);
    for call in &args.calls {
        let triggered = trigger::trigger(app, &args.source, call, repeat).await.map_err(Failed::from)?;
        if !args.json {
            out::line(&format!("{call}: {}", triggered.describe()));
            queued |= triggered.job_id.is_some();
        }
        all.push(json!({ "call_id": call, "source": args.source, "result": triggered }));
    }
    if args.json {
        out::json(&all)?;
    } else if queued {
        // Only the job finds out that the source does not know a call.
        out::note("a running worker takes it from here; `aftercall calls show CALL_ID` says how it ended");
    }
    Ok(Ended::Well)
}
