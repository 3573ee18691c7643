//! The commands `run` and `work`. The configuration goes in. Both run jobs and schedules until a signal ends them, and
//! `run` also serves the API.

use anyhow::{Context, Result};
use tokio::net::TcpListener;

use super::{Ended, serve, signals};
use crate::app::{App, Clock};
use crate::config::Config;
use crate::worker;
use crate::worker::{DataLock, Signals, Until};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  aftercall work                 until SIGTERM or ctrl-c; a second one stops at once\n  aftercall work --until-idle    drain what is due now and exit (for cron, tests, CI)"
)]
pub(super) struct Args {
    /// Run the jobs that are due now, then exit 0. Schedules do not fire
    #[arg(long)]
    until_idle: bool,
}

/// Runs the worker and the schedules.
pub(super) async fn run(config: Config, args: Args) -> Result<Ended> {
    let lock = DataLock::take(&config.data_dir)?;
    let until = if args.until_idle { Until::Idle } else { Until::Stopped };
    let app = App::build(config, Clock::system()).await?;
    let signals = Signals::default();
    signals::listen(&signals)?;
    signals::read_keys_on_hangup(&app)?;
    // A worker with `--until-idle` ends soon and needs no health listener.
    let ops = match until {
        Until::Stopped => serve::ops(&app).await?,
        Until::Idle => None,
    };
    let ended = worker::run(app, &lock, until, signals).await;
    if let Some(ops) = ops {
        ops.stop().await?;
    }
    ended?;
    Ok(Ended::Well)
}

/// Runs the worker, the schedules and the API.
pub(super) async fn run_all(config: Config) -> Result<Ended> {
    let lock = DataLock::take(&config.data_dir)?;
    let listen_at = config.api.listen;
    let listener =
        TcpListener::bind(listen_at).await.with_context(|| format!("api.listen: cannot listen on {listen_at}"))?;
    let app = App::build(config, Clock::system()).await?;
    let signals = Signals::default();
    signals::listen(&signals)?;
    signals::read_keys_on_hangup(&app)?;
    let ops = serve::ops(&app).await?;
    let api = tokio::spawn(serve::until(app.clone(), listener, signals.drain.clone()));
    let ended = worker::run(app, &lock, Until::Stopped, signals.clone()).await;
    signals.drain.cancel();
    api.await.context("API")??;
    if let Some(ops) = ops {
        ops.stop().await?;
    }
    ended?;
    Ok(Ended::Well)
}
