//! Health of this worker. Jobs may fail one after another for a local cause: a full disk, or no access to the bucket or
//! the database. Such failures would only use up attempts. After `rest_after` of them the worker pauses and reports the
//! cause.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::App;
use crate::domain::Side;
use crate::telemetry;

/// One block of the disk space probe. All blocks together are larger than the smallest recordings.
static PROBE: [u8; 65_536] = [0; 65_536];
const PROBES: usize = 16;

/// Counts consecutive failures with a local cause.
#[derive(Debug)]
pub struct Health {
    in_a_row: AtomicU32,
    rest_after: u32,
    cause: watch::Sender<Option<String>>,
}

impl Health {
    pub(super) fn new(rest_after: u32) -> Self {
        Self { in_a_row: AtomicU32::new(0), rest_after, cause: watch::Sender::new(None) }
    }

    /// A job succeeded.
    pub fn worked(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
        telemetry::within_reach(Side::Database);
    }

    /// A job failed with a transient fault. Only faults of the worker, the object store or the database count.
    pub fn failed(&self, side: Side, cause: &str) {
        if !matches!(side, Side::Worker | Side::ObjectStore | Side::Database) || self.rest_after == 0 {
            return;
        }
        if self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= self.rest_after {
            self.cause.send_replace(Some(cause.to_owned()));
        }
    }

    /// Waits until the worker should pause. Returns the cause.
    pub async fn unfit(&self) -> String {
        let mut cause = self.cause.subscribe();
        loop {
            if let Some(cause) = cause.borrow_and_update().clone() {
                return cause;
            }
            // The sender lives as long as `self`.
            let _ = cause.changed().await;
        }
    }

    /// True when the worker pauses or is about to pause.
    pub fn is_unfit(&self) -> bool {
        self.cause.borrow().is_some()
    }

    fn fit_again(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
        self.cause.send_replace(None);
    }
}

impl App {
    /// Checks what a job needs locally: disk space in the spool, the object store and the database. When all checks
    /// pass, the worker is healthy again.
    ///
    /// # Errors
    /// The failed check, in words for an operator.
    pub async fn probe_health(&self) -> Result<(), String> {
        let spool = self.config.spool_dir();
        write_and_remove(&spool.join("probe")).await.map_err(|err| format!("spool {}: {err}", spool.display()))?;
        // The full chain of causes includes the object store's own message.
        self.objects.check().await.map_err(|err| format!("object store: {:#}", anyhow::Error::from(err)))?;
        telemetry::within_reach(Side::ObjectStore);
        self.store.fact("ready").await.map_err(|err| err.to_string())?;
        telemetry::within_reach(Side::Database);
        self.health.fit_again();
        Ok(())
    }
}

async fn write_and_remove(path: &std::path::Path) -> std::io::Result<()> {
    let written = async {
        if let Some(dir) = path.parent() {
            tokio::fs::create_dir_all(dir).await?;
        }
        let mut file = tokio::fs::File::create(path).await?;
        for _ in 0..PROBES {
            file.write_all(&PROBE).await?;
        }
        file.sync_all().await
    };
    let written = written.await;
    let _ = tokio::fs::remove_file(path).await;
    written
}
