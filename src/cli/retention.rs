//! The command `retention`. It lists the calls after their retention date and condemns them. Workers erase condemned
//! calls. The list goes to stdout.

use std::sync::Arc;

use anyhow::Result;

use super::{Ended, Failed, Purpose, out};
use crate::app::App;
use crate::jobs::retention_sweep::{self, Consent, SweepPlan};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List exactly the calls that a run would erase now
    Plan {
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Condemn the due calls, so that workers erase them. Without --force this is a dry run
    #[command(
        after_help = "Examples:\n  aftercall retention run                       a dry run\n  aftercall retention run --force               after looking at the plan and the clock\n  aftercall retention run --force --expect 812  past the volume guard: the number the plan shows"
    )]
    Run {
        /// Condemn the calls instead of a dry run
        #[arg(long)]
        force: bool,
        /// The expected number of due calls, which passes the volume guard
        #[arg(long, requires = "force", value_name = "N")]
        expect: Option<u64>,
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    pub(super) const fn purpose(&self) -> Purpose {
        if matches!(self, Self::Plan { .. } | Self::Run { force: false, .. }) { Purpose::Look } else { Purpose::Change }
    }
}

/// Runs the subcommand.
pub(super) async fn run(app: &Arc<App>, command: Command) -> Result<Ended> {
    match command {
        Command::Plan { json } | Command::Run { force: false, json, .. } => {
            let plan = retention_sweep::plan(app).await.map_err(Failed::from)?;
            print(&plan, json)?;
            if !json {
                out::note("nothing was erased: this is what `aftercall retention run --force` would do");
            }
            Ok(Ended::Well)
        }
        Command::Run { force: true, expect, json } => {
            let consent = expect.map_or(Consent::Forced, Consent::Expecting);
            let plan = retention_sweep::sweep(app, consent).await.map_err(Failed::from)?;
            print(&plan, json)?;
            if let Some(reason) = &plan.refused {
                out::error(&format!("refused: {reason}; nothing was erased"));
                return Ok(Ended::Failed);
            }
            if !json {
                out::note(&format!("{} calls condemned; running workers erase them now", plan.due));
            }
            Ok(Ended::Well)
        }
    }
}

fn print(plan: &SweepPlan, json: bool) -> Result<()> {
    if json {
        return out::json(plan);
    }
    let rows = plan.calls.iter().map(|call| {
        let held = if call.held { "held" } else { "" };
        vec![call.id.clone(), call.source.clone(), call.retain_until.to_string(), call.policy.clone(), held.to_owned()]
    });
    let columns = [
        out::Column::kept("call"),
        out::Column::spare("source", 1),
        out::Column::kept("retain until"),
        out::Column::spare("policy", 2),
        out::Column::kept("hold"),
    ];
    out::table(&columns, rows, "no call is past its term");
    out::line(&format!("{} due, {} held", plan.due, plan.held));
    if let Some(reason) = &plan.refused {
        out::line(&format!("a scheduled sweep would refuse: {reason}"));
    }
    Ok(())
}
