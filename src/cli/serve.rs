//! The command `serve`. The configuration goes in. The HTTP API is served until a signal ends it.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Ended, signals};
use crate::api;
use crate::app::{App, Clock};
use crate::config::Config;
use crate::worker::Signals;

/// Serves the API until a signal drains the process.
pub(super) async fn run(config: Config) -> Result<Ended> {
    let listen_at = config.api.listen;
    let listener =
        TcpListener::bind(listen_at).await.with_context(|| format!("api.listen: cannot listen on {listen_at}"))?;
    let app = App::build(config, Clock::system()).await?;
    let signals = Signals::default();
    signals::listen(&signals)?;
    signals::read_keys_on_hangup(&app)?;
    let ops = ops(&app).await?;
    until(app, listener, signals.drain).await?;
    if let Some(ops) = ops {
        ops.stop().await?;
    }
    Ok(Ended::Well)
}

/// The running listener of health and metrics. It keeps serving while the process drains.
pub(super) struct Ops {
    stop: CancellationToken,
    serving: JoinHandle<Result<()>>,
}

impl Ops {
    /// Stops the listener and waits for its end.
    pub(super) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.serving.await.context("ops.listen")?
    }
}

/// Opens the listener of health and metrics. `None` where `ops.listen` is not set.
pub(super) async fn ops(app: &Arc<App>) -> Result<Option<Ops>> {
    let Some(listen_at) = app.config.ops.listen else { return Ok(None) };
    let listener =
        TcpListener::bind(listen_at).await.with_context(|| format!("ops.listen: cannot listen on {listen_at}"))?;
    tracing::info!(listen = %listener.local_addr()?, "health and metrics listening");
    let stop = CancellationToken::new();
    let serving = tokio::spawn(api::serve_ops(app.clone(), listener, stop.clone()));
    Ok(Some(Ops { stop, serving }))
}

/// Serves the API on an open listener until `stop`.
pub(super) async fn until(app: Arc<App>, listener: TcpListener, stop: CancellationToken) -> Result<()> {
    tracing::info!(listen = %listener.local_addr()?, "API listening");
    api::serve(app, listener, stop).await
}
