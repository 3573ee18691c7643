//! `serve`: the HTTP API.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Ended, work};
use crate::api;
use crate::app::{App, Clock};
use crate::config::Config;
use crate::worker::Signals;

/// Serves until told to stop.
pub async fn run(config: Config) -> Result<Ended> {
    let listen_at = config.api.listen;
    let listener =
        TcpListener::bind(listen_at).await.with_context(|| format!("api.listen: cannot listen on {listen_at}"))?;
    let app = App::build(config, Clock::system()).await?;
    let signals = Signals::default();
    work::listen(&signals)?;
    until(app, listener, signals.drain).await?;
    Ok(Ended::Well)
}

/// Serves on an open listener until `stop`.
pub async fn until(app: Arc<App>, listener: TcpListener, stop: CancellationToken) -> Result<()> {
    tracing::info!(listen = %listener.local_addr()?, "API listening");
    api::serve(app, listener, stop).await
}
