//! Signals of the operating system.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::worker::Signals;

/// SIGHUP: keys are read again from their files.
pub(super) fn read_keys_on_hangup(app: &Arc<App>) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    // The app lives as long as the process; this holds nothing that would have to end before it.
    let app = app.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            app.read_keys_again().await;
        }
    });
    Ok(())
}

/// The first SIGTERM or ctrl-c drains, the second stops at once.
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
