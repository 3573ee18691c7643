//! An app under test and the sample platform beside it, over real loopback HTTP and with one clock.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use aftercall::app::Clock;
use aftercall::demo::{self, Api, Builder, RequestKind, RunningPlatform, SampleCall, SamplePlatform};
use aftercall::domain::{CallId, SourceName};
use aftercall::jobs::admit::Repeat;
use aftercall::jobs::backfill;
use aftercall::jobs::reconcile::{self, Balance};
use aftercall::jobs::trigger::{self, Triggered};
use aftercall::store::{Backfill, CallRecord, NewBackfill, Origin};
use aftercall::wire::Window;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;

use super::{Backend, Space, TestApp, logs};

/// An app and its neighbour.
pub struct Fixture {
    pub app: TestApp,
    pub platform: SamplePlatform,
    _running: RunningPlatform,
}

impl Deref for Fixture {
    type Target = TestApp;
    fn deref(&self) -> &TestApp {
        &self.app
    }
}

/// What a test may change before both start.
pub struct Plan {
    pub builder: fn(Builder) -> Builder,
    pub settings: &'static str,
    /// Replacements in the sources' settings.
    pub sources: &'static [(&'static str, &'static str)],
}

impl Default for Plan {
    fn default() -> Self {
        Self { builder: |builder| builder, settings: "", sources: &[] }
    }
}

impl Fixture {
    /// A platform with these calls and an app that knows its four sources.
    pub async fn start(backend: Backend, calls: impl FnOnce(Timestamp) -> Vec<SampleCall>) -> Self {
        Self::planned(backend, Plan::default(), calls).await
    }

    pub async fn planned(backend: Backend, plan: Plan, calls: impl FnOnce(Timestamp) -> Vec<SampleCall>) -> Self {
        logs::keep_logs();
        let offset = Arc::new(AtomicI64::new(0));
        let clock = Clock::offset_by(offset.clone());
        let now = clock.now();
        let builder = SamplePlatform::builder(Arc::new(move || clock.now()));
        let platform = (plan.builder)(builder).calls(calls(now)).build();
        let running = platform.serve(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
        let mut sources = demo::sources_toml(&running.base_url());
        for (from, to) in plan.sources {
            assert!(sources.contains(from), "{from} is not in {sources}");
            sources = sources.replace(from, to);
        }
        let space = Arc::new(Space::new(backend, &format!("{}\n{sources}", plan.settings)));
        Self { app: TestApp::over(space, offset).await, platform, _running: running }
    }

    /// The record of a platform's call.
    pub async fn record(&self, api: Api, id: &str) -> CallRecord {
        self.find(api, id).await.unwrap_or_else(|| panic!("there is no record of {id}"))
    }

    pub async fn find(&self, api: Api, id: &str) -> Option<CallRecord> {
        let id = CallId::parse(id).unwrap();
        self.store.calls_by_id(&id, Some(&source(api))).await.unwrap().pop()
    }

    pub async fn trigger(&self, api: Api, id: &str) -> Triggered {
        trigger::trigger(&self.app, &source(api), &CallId::parse(id).unwrap(), Repeat::Never).await.unwrap()
    }

    pub async fn trigger_again(&self, api: Api, id: &str) -> Triggered {
        trigger::trigger(&self.app, &source(api), &CallId::parse(id).unwrap(), Repeat::Again).await.unwrap()
    }

    /// Reconciles the last 200 days.
    pub async fn reconcile(&self, api: Api) -> Balance {
        reconcile::balance(&self.app, &source(api), self.window()).await.unwrap()
    }

    /// Starts a backfill of the last 200 days.
    pub async fn start_backfill(&self, api: Api) -> String {
        let (source, Window { from, to }) = (source(api), self.window());
        let new = NewBackfill { source: &source, from, to, again: false, origin: Origin::Command, now: self.now() };
        backfill::start(&self.app, &new).await.unwrap().unwrap()
    }

    pub async fn backfill(&self, id: &str) -> Backfill {
        self.store.backfill(id).await.unwrap().unwrap()
    }

    fn window(&self) -> Window {
        let now = self.now();
        Window { from: now - SignedDuration::from_hours(24 * 200), to: now + SignedDuration::from_mins(1) }
    }

    /// How many requests of a kind there were about a call.
    pub fn asked(&self, kind: RequestKind, id: &str) -> usize {
        self.platform.requests().of(kind, id)
    }
}

/// The source that stands for a dialect.
pub fn source(api: Api) -> SourceName {
    SourceName::parse(demo::source_name(api)).unwrap()
}
