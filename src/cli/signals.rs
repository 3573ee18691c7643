//! Signals of the operating system. SIGHUP reads the keys again. SIGTERM and ctrl-c end the process.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::worker::Signals;

/// Reads the keys from their files again at each SIGHUP.
pub(super) fn read_keys_on_hangup(app: &Arc<App>) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    // The app lives as long as the process, so the task may hold it.
    let app = app.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            app.read_keys_again().await;
        }
    });
    Ok(())
}

/// Listens for SIGTERM and ctrl-c. The first signal drains the process. The second signal stops it at once.
pub(super) fn listen(signals: &Signals) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let signals = signals.clone();
    tokio::spawn(async move {
        for token in [&signals.drain, &signals.stop] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    });
    Ok(())
}
