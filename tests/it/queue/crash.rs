//! Workers that die: really, as processes, by SIGKILL or by their own hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aftercall::app::{App, Clock};
use aftercall::config::Config;
use aftercall::domain::Side;
use aftercall::queue::{JobState, Lanes, NewJob, Requeued, Verdict};
use aftercall::store::{Db, Store};
use sqlx::Connection;

use super::{completed, note};
use crate::harness::{Backend, Child, Orders, TestApp, eventually, failure, job, on_backend, on_every_backend, script};

const CHILD: &str = "queue::crash::the_child";
const SILENT: Duration = Duration::from_secs(20);

on_every_backend!(
    a_job_that_kills_its_workers_is_a_dead_letter_after_its_attempts,
    jobs_of_a_silent_worker_are_given_back_and_resume_once,
    a_machine_of_its_own_takes_its_orphans_back_at_once,
    a_worker_that_is_merely_slow_keeps_its_jobs,
);
on_backend!(sqlite_lock, Sqlite, a_foreign_write_lock_ends_nothing_and_loses_nothing);

/// Not a test of its own: what the child process of the tests below runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in a child process, started by the tests beside it"]
async fn the_child() {
    let Some(orders) = Orders::read() else { return };
    let app = App::build(Config::from_toml(&orders.config).unwrap(), Clock::system()).await.unwrap();
    let worker = format!("child-{}", std::process::id());
    app.queue.heartbeat(&worker, "test").await.unwrap();
    app.queue.requeue_expired(&worker, Duration::ZERO).await.unwrap();
    let what = orders.what.clone();
    let queue = app.queue.clone();
    let handler = script(move |job| {
        let (what, queue) = (what.clone(), queue.clone());
        async move {
            if what == "advance" {
                queue.advance(&job).await.unwrap();
                std::process::abort();
            }
            if what == "abort" {
                std::process::abort();
            }
            Orders::say("running");
            std::future::pending().await
        }
    });
    let lanes = Lanes { live: 4, backfill: 4, maintenance: 4 };
    let _running = app.queue.start(&worker, handler, lanes, &app.config.worker).unwrap();
    std::future::pending::<()>().await;
}

async fn a_job_that_kills_its_workers_is_a_dead_letter_after_its_attempts(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let poison = app.enqueue(NewJob { max_attempts: 3, ..job("poison") }).await.id;
    for attempt in 1..=3 {
        let status = Child::start(&app, CHILD, "abort").end().await;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6), "{status}");
        let left = app.job(poison).await;
        assert_eq!((left.state, left.attempt), (JobState::Running, attempt));
    }
    let requeued = app.queue.requeue_expired("me", Duration::ZERO).await.unwrap();
    assert_eq!(requeued, Requeued { returned: 0, dead_lettered: 1 });
    let dead = app.job(poison).await;
    let failure = dead.failure.unwrap();
    assert_eq!((dead.state, failure.side), (JobState::DeadLetter, Side::Worker));
    assert!(failure.cause.contains("died"), "{}", failure.cause);
    // It is a dead letter like another: once the bug is mended it can be retried.
    assert!(app.queue.retry(poison).await.unwrap());
    let crew = app.crew("mended", 1, script(|_| async { Verdict::Complete })).await;
    completed(&app, poison).await;
    crew.drain().await;
}

/// A child runs four of six jobs and is killed.
async fn killed_in_the_middle(app: &TestApp) -> Vec<i64> {
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(app.enqueue(job(&n.to_string())).await.id);
    }
    let mut child = Child::start(app, CHILD, "hang");
    for _ in 0..4 {
        child.hear("running").await;
    }
    child.kill();
    let running = app.jobs().await.iter().filter(|job| job.state == JobState::Running).count();
    assert_eq!(running, 4);
    ids
}

/// Everything runs to its end, in one go each.
async fn resumes_once(app: &TestApp, ids: &[i64]) {
    let runs: Arc<Mutex<BTreeMap<i64, usize>>> = Arc::default();
    let count = runs.clone();
    let handler = script(move |job| {
        *count.lock().unwrap().entry(job.id).or_default() += 1;
        async { Verdict::Complete }
    });
    let crew = app.crew("after", 2, handler).await;
    for id in ids {
        completed(app, *id).await;
    }
    crew.drain().await;
    assert_eq!(*runs.lock().unwrap(), ids.iter().map(|id| (*id, 1)).collect());
}

async fn jobs_of_a_silent_worker_are_given_back_and_resume_once(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let ids = killed_in_the_middle(&app).await;
    let requeued = app.queue.requeue_expired("me", SILENT).await.unwrap();
    assert_eq!(requeued, Requeued::default(), "it was heard of a moment ago");
    silence(&app.store, SILENT).await;
    let requeued = app.queue.requeue_expired("me", SILENT).await.unwrap();
    assert_eq!(requeued, Requeued { returned: 4, dead_lettered: 0 });
    assert_eq!(app.queue.requeue_expired("me", SILENT).await.unwrap(), Requeued::default());
    resumes_once(&app, &ids).await;
    assert!(ids.len() == 6 && app.job(ids[0]).await.attempt == 2, "an attempt its worker died in counts");
}

async fn a_machine_of_its_own_takes_its_orphans_back_at_once(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let ids = killed_in_the_middle(&app).await;
    let requeued = app.queue.requeue_expired("me", Duration::ZERO).await.unwrap();
    assert_eq!(requeued, Requeued { returned: 4, dead_lettered: 0 });
    resumes_once(&app, &ids).await;
}

async fn a_worker_that_is_merely_slow_keeps_its_jobs(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let wait = gate.clone();
    let handler = script(move |_| {
        let wait = wait.clone();
        async move {
            wait.notified().await;
            Verdict::Complete
        }
    });
    let crew = app.crew("slow", 1, handler).await;
    let id = app.enqueue(job("a")).await.id;
    eventually("the job to run", async || (app.job(id).await.state == JobState::Running).then_some(())).await;
    // However old the attempt is: it has a heartbeat.
    silence(&app.store, 100 * SILENT).await;
    app.queue.heartbeat("slow", "test").await.unwrap();
    assert_eq!(app.queue.requeue_expired("me", SILENT).await.unwrap(), Requeued::default());
    assert_eq!(app.queue.live_workers(SILENT).await.unwrap(), 1);
    gate.notify_one();
    completed(&app, id).await;
    assert_eq!(app.job(id).await.attempt, 1);
    crew.drain().await;
    assert_eq!(app.queue.live_workers(SILENT).await.unwrap(), 0);
}

/// Every worker was last heard of this much earlier.
pub(super) async fn silence(store: &Store, by: Duration) {
    const SQL: &str = "UPDATE worker SET beat_at = beat_at - $1 - 1";
    let by = i64::try_from(by.as_millis()).unwrap();
    match store.db() {
        Db::Sqlite(pool) => drop(sqlx::query(SQL).bind(by).execute(pool).await.unwrap()),
        Db::Postgres(pool) => drop(sqlx::query(SQL).bind(by).execute(pool).await.unwrap()),
    }
}

/// Longer than our own connections wait for the lock, so that its absence really shows as errors.
async fn a_foreign_write_lock_ends_nothing_and_loses_nothing(backend: Backend) {
    let app = TestApp::start(backend, "[store]\nbusy_timeout = \"1s\"").await;
    let ids: Vec<i64> = {
        let mut ids = Vec::new();
        for n in 0..12 {
            ids.push(app.enqueue(NewJob { max_attempts: 100, ..job(&n.to_string()) }).await.id);
        }
        ids
    };
    let inner = app.app.clone();
    let handler = script(move |job| {
        let app = inner.clone();
        async move {
            let committed = async {
                let mut tx = app.store.begin().await?;
                let mine = app.queue.complete(&mut tx, &job).await.unwrap_or(false);
                app.store.audit(&mut tx, &note(&job.id.to_string())).await?;
                if mine { tx.commit().await.map(|()| true) } else { Ok(false) }
            };
            match committed.await {
                Ok(true) => Verdict::Complete,
                Ok(false) => Verdict::Fenced,
                Err(err) => Verdict::Retry { failure: failure(&err.to_string()), after: Duration::from_millis(50) },
            }
        }
    });
    let mut foreign = sqlx::SqliteConnection::connect(app.space.url()).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut foreign).await.unwrap();
    let inner = app.queue.clone();
    // The worker's row is there from before; no heartbeat can be written while the lock is held.
    assert!(inner.heartbeat("w", "test").await.is_err(), "the lock is not felt");
    let lanes = Lanes { live: 4, backfill: 4, maintenance: 4 };
    let mut running = app.queue.start("w", handler, lanes, &app.config.worker).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(4), running.wait()).await;
    assert!(ended.is_err(), "the lock ended the worker: {ended:?}");
    sqlx::raw_sql("ROLLBACK").execute(&mut foreign).await.unwrap();
    for id in &ids {
        completed(&app, *id).await;
    }
    running.drain().await.unwrap();
    let mut written: Vec<i64> =
        app.store.audit_entries(None).await.unwrap().iter().map(|entry| entry.subject.parse().unwrap()).collect();
    written.sort_unstable();
    assert_eq!(written, ids, "each job wrote once");
}
