//! The real worker at work inside the test, beside the platform, as `aftercall work` would be.

use aftercall::worker::{self, DataLock, Signals, Until};
use tokio::task::JoinHandle;

use super::{Fixture, eventually};

/// A worker at work.
pub struct Working {
    signals: Signals,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Fixture {
    /// Sets the fixture's app to work.
    pub fn work(&self) -> Working {
        let (app, signals) = (self.app.app.clone(), Signals::default());
        let lock = DataLock::take(self.data_dir()).unwrap();
        let told = signals.clone();
        let ended = tokio::spawn(async move { worker::run(app, &lock, Until::Stopped, told).await });
        Working { signals, ended }
    }

    /// Why a worker takes no work.
    pub async fn resting_for(&self) -> Option<String> {
        self.queue.workers().await.unwrap().into_iter().find_map(|worker| worker.3)
    }

    /// Waits until a worker takes no work; says why.
    pub async fn rests(&self) -> String {
        eventually("the worker to rest", async || self.resting_for().await).await
    }
}

impl Working {
    /// Ends it in good order.
    pub async fn drain(self) {
        self.signals.drain.cancel();
        self.ended.await.unwrap().unwrap();
    }
}
