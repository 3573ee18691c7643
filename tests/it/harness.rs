//! What the suites that drive the real `App` stand on: a database of one's own on either engine, a clock that is
//! turned by hand, workers whose every job is scripted, and a platform that speaks all four dialects.
//!
//! A test that ends well leaves no unfinished job behind; the harness looks when it is dropped.

mod child;
mod crew;
pub mod dice;
mod logs;
mod platform;
mod samples;
mod space;
pub mod vast;
mod working;

pub use child::{Child, Orders};
pub use crew::{failure, script};
pub use logs::{forget_logs, keep_logs, logs};
pub use platform::{Fixture, Plan, source};
pub use samples::{source_call, transcript};
pub use space::Space;

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use aftercall::app::{App, Clock};
use aftercall::queue::{Enqueued, JobView, Kind, Lane, NewJob};
use aftercall::worker::{self, DataLock, Signals, Until};

use crate::postgres;

/// How long anything that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The database engines everything is tested on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    /// Whether this machine has it.
    pub fn is_here(self) -> bool {
        self == Self::Sqlite || postgres::cluster().is_some()
    }
}

/// Makes a test of every case for every backend. The cases are `async fn case(backend: Backend)`.
macro_rules! on_every_backend {
    ($($case:ident),+ $(,)?) => {
        $crate::harness::on_backend!(sqlite, Sqlite, $($case),+);
        $crate::harness::on_backend!(postgres, Postgres, $($case),+);
    };
}

/// Makes a test of every case for one backend.
macro_rules! on_backend {
    ($module:ident, $backend:ident, $($case:ident),+) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    if $crate::harness::Backend::$backend.is_here() {
                        super::$case($crate::harness::Backend::$backend).await;
                    }
                }
            )+
        }
    };
}
pub(crate) use {on_backend, on_every_backend};

/// Waits for a condition, however the machine is loaded, and fails the test with `what` when it does not come.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A real `App` on a database and a directory of its own. Clones of the process are made with [`TestApp::again`].
pub struct TestApp {
    pub app: Arc<App>,
    pub space: Arc<Space>,
    offset: Arc<AtomicI64>,
}

impl Deref for TestApp {
    type Target = App;
    fn deref(&self) -> &App {
        &self.app
    }
}

impl TestApp {
    /// An app whose settings are the tests' own with `extra` (TOML) laid over them.
    pub async fn start(backend: Backend, extra: &str) -> Self {
        Self::over(Arc::new(Space::new(backend, extra)), Arc::default()).await
    }

    /// What the same configuration gives in another process, or after a restart.
    pub async fn again(&self) -> Self {
        Self::over(self.space.clone(), self.offset.clone()).await
    }

    /// An app in this place, whose clock is this far ahead of the machine's (milliseconds).
    pub async fn over(space: Arc<Space>, offset: Arc<AtomicI64>) -> Self {
        let app = App::build(space.config(), Clock::offset_by(offset.clone())).await.unwrap();
        Self { app, space, offset }
    }

    /// Says that this test ends with jobs left over on purpose.
    pub fn leave_queue(&self) {
        self.space.leave_queue();
    }

    /// Turns the clock, for our own code and for the queue.
    pub async fn advance(&self, by: Duration) {
        self.offset.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
        self.queue.bring_forward(by).await.unwrap();
    }

    /// Sets how far our own code's clock is ahead of where it stands; jobs stay as due as they are.
    pub fn set_clock(&self, ahead: jiff::SignedDuration) {
        self.offset.fetch_add(i64::try_from(ahead.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// A worker runs until nothing is due.
    pub async fn run_pending(&self) {
        let lock = DataLock::take(self.data_dir()).unwrap();
        worker::run(self.app.clone(), &lock, Until::Idle, Signals::default()).await.unwrap();
    }

    pub fn data_dir(&self) -> &Path {
        self.space.data_dir()
    }

    /// Enqueues a job that a script will run.
    pub async fn enqueue(&self, new: NewJob) -> Enqueued {
        let mut tx = self.store.begin().await.unwrap();
        let enqueued = self.queue.enqueue(&mut tx, new).await.unwrap();
        tx.commit().await.unwrap();
        enqueued
    }

    /// The job as it stands.
    pub async fn job(&self, id: i64) -> JobView {
        let all = self.queue.jobs(aftercall::queue::FinishedJobs::Included, u64::MAX).await.unwrap();
        all.into_iter().find(|job| job.id == id).unwrap_or_else(|| panic!("job {id} is gone"))
    }

    /// Every job there is, oldest first.
    pub async fn jobs(&self) -> Vec<JobView> {
        let mut all = self.queue.jobs(aftercall::queue::FinishedJobs::Included, u64::MAX).await.unwrap();
        all.reverse();
        all
    }
}

/// A job for a script, known by its key.
pub fn job(key: &str) -> NewJob {
    NewJob {
        kind: Kind::Deliver,
        unique: key.to_owned(),
        subject: Some(key.to_owned()),
        tenant: None,
        payload: serde_json::json!({ "key": key }),
        lane: Lane::Live,
        priority: 1,
        max_attempts: 4,
    }
}
