//! A worker whose every job is a closure of the test.

use std::sync::Arc;

use aftercall::domain::Side;
use aftercall::queue::{Failure, Handler, JobAttempt, Lanes, Running, Verdict};
use async_trait::async_trait;

use super::TestApp;

/// A handler that is a closure.
pub struct Script<F>(F);

/// A handler made of what each job should do.
pub fn script<F, R>(run: F) -> Arc<Script<F>>
where
    F: Fn(JobAttempt) -> R + Send + Sync + 'static,
    R: Future<Output = Verdict> + Send + 'static,
{
    Arc::new(Script(run))
}

#[async_trait]
impl<F, R> Handler for Script<F>
where
    F: Fn(JobAttempt) -> R + Send + Sync + 'static,
    R: Future<Output = Verdict> + Send + 'static,
{
    async fn run(&self, job: JobAttempt) -> Verdict {
        (self.0)(job).await
    }
}

/// A failure as handlers report it.
pub fn failure(cause: &str) -> Failure {
    Failure { stage: None, fault: "transient".to_owned(), side: Side::Worker, cause: cause.to_owned() }
}

/// A worker at work.
pub struct Crew {
    pub running: Running,
    name: String,
    app: Arc<aftercall::app::App>,
}

impl TestApp {
    /// Enters a worker of this name and sets it to work, with this many slots in every lane.
    pub async fn crew(&self, name: &str, slots: usize, handler: Arc<dyn Handler>) -> Crew {
        self.queue.heartbeat(name, "test").await.unwrap();
        let lanes = Lanes { live: slots, backfill: slots, maintenance: slots };
        let running = self.queue.start(name, handler, lanes, &self.config.worker).unwrap();
        Crew { running, name: name.to_owned(), app: self.app.clone() }
    }
}

impl Crew {
    /// Ends it in good order.
    pub async fn drain(mut self) {
        self.running.drain().await.unwrap();
        self.app.queue.leave(&self.name).await.unwrap();
    }
}
