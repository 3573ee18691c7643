//! What the queue promises, on every engine. Whoever swaps the engine below has to keep these.

mod crash;
mod ownership;
mod progress;
mod schedules;
mod stopping;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aftercall::domain::{CallId, Side, SourceName, Stage};
use aftercall::jobs::admit::{self, Repeat};
use aftercall::queue::{Failure, FinishedJobs, JobState, Lane, NewJob, Verdict};
use aftercall::store::{Admitted, AuditEntry, Db};
use futures::future::join_all;

use crate::harness::{Backend, TestApp, eventually, failure, job, on_every_backend, script};

const HOUR: Duration = Duration::from_secs(3600);

on_every_backend!(
    a_rolled_back_enqueue_leaves_nothing,
    duplicates_coalesce,
    a_job_that_has_ended_is_no_duplicate,
    a_failed_job_backs_off_durably,
    a_snooze_costs_no_attempt,
    a_permanent_fault_is_a_dead_letter_at_once,
    a_source_that_left_the_configuration_is_a_dead_letter_that_says_so,
    attempts_that_run_out_end_as_a_dead_letter,
    a_dead_letter_can_be_retried,
    a_dead_letter_whose_work_is_queued_anew_stays_dead,
    a_panic_is_a_failure_like_another,
    a_cancelled_job_stops_and_stays_stopped,
    kinds_of_a_newer_build_stay_queued,
    a_live_job_does_not_wait_behind_a_backfill,
);

async fn a_rolled_back_enqueue_leaves_nothing(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let mut tx = app.store.begin().await.unwrap();
    app.queue.enqueue(&mut tx, job("a")).await.unwrap();
    app.store.audit(&mut tx, &note("a")).await.unwrap();
    drop(tx);
    assert_eq!(app.jobs().await.len(), 0);
    assert_eq!(app.store.audit_entries(None).await.unwrap().len(), 0);
    // Not even the memory of it: the same job can be enqueued afterwards.
    assert!(!app.enqueue(job("a")).await.duplicate);
    app.leave_queue();
}

async fn duplicates_coalesce(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let answers = join_all((0..50).map(|_| app.enqueue(job("same")))).await;
    assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1);
    let ids: std::collections::BTreeSet<i64> = answers.iter().map(|answer| answer.id).collect();
    assert_eq!(ids.len(), 1, "every caller learns the one job's id");
    // The key alone decides, whatever else the jobs say; another key, or another kind, is another job.
    let again = NewJob { payload: serde_json::json!({ "other": true }), lane: Lane::Backfill, ..job("same") };
    assert!(app.enqueue(again).await.duplicate);
    assert!(!app.enqueue(job("another")).await.duplicate);
    assert!(!app.enqueue(NewJob { kind: aftercall::queue::Kind::EraseCall, ..job("same") }).await.duplicate);
    assert_eq!(app.jobs().await.len(), 3);
    app.leave_queue();
}

async fn a_job_that_has_ended_is_no_duplicate(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let crew = app.crew("w", 2, script(|_| async { Verdict::Complete })).await;
    let first = app.enqueue(job("a")).await.id;
    completed(&app, first).await;
    let second = app.enqueue(job("a")).await;
    assert!(!second.duplicate);
    completed(&app, second.id).await;
    crew.drain().await;
}

async fn a_failed_job_backs_off_durably(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let id = app.enqueue(job("a")).await.id;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let seen = attempts.clone();
    let handler = script(move |job| {
        if job.payload["key"] == "a" {
            seen.lock().unwrap().push(job.attempt);
        }
        async move {
            if job.attempt == 1 && job.payload["key"] == "a" {
                return Verdict::Retry { failure: failure("not this time"), after: HOUR };
            }
            Verdict::Complete
        }
    });
    let crew = app.crew("before", 2, handler.clone()).await;
    let waiting = eventually("the first attempt to fail", async || {
        Some(app.job(id).await).filter(|job| job.state == JobState::Retryable)
    })
    .await;
    crew.drain().await;
    assert_eq!(waiting.attempt, 1);
    assert_eq!(waiting.failure.unwrap().cause, "not this time");
    let pause = waiting.next_at.unwrap().duration_since(jiff::Timestamp::now());
    assert!((3500..=3600).contains(&pause.as_secs()), "{pause}");

    // Another process finds attempt and pause as they were.
    let later = app.again().await;
    let crew = later.crew("after", 2, handler).await;
    let marker = later.enqueue(job("marker")).await.id;
    completed(&later, marker).await;
    assert_eq!(later.job(id).await.state, JobState::Retryable, "the new worker looked for work and left it alone");
    later.advance(HOUR).await;
    completed(&later, id).await;
    assert_eq!(*attempts.lock().unwrap(), [1, 2]);
    crew.drain().await;
}

async fn a_snooze_costs_no_attempt(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    let handler = script(move |job| {
        let look = counted.fetch_add(1, Ordering::SeqCst);
        assert_eq!(job.attempt, 1);
        async move { if look < 6 { Verdict::Snooze(HOUR) } else { Verdict::Complete } }
    });
    let crew = app.crew("w", 1, handler).await;
    // More looks than the job has attempts.
    let id = app.enqueue(job("a")).await.id;
    for look in 1..=6 {
        eventually("the job to be put off", async || {
            (looks.load(Ordering::SeqCst) == look && app.job(id).await.state == JobState::Scheduled).then_some(())
        })
        .await;
        assert_eq!(app.job(id).await.attempt, 0);
        app.advance(HOUR).await;
    }
    completed(&app, id).await;
    crew.drain().await;
}

async fn a_permanent_fault_is_a_dead_letter_at_once(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let why = Failure {
        stage: Some(Stage::Audio),
        fault: "permanent".to_owned(),
        side: Side::Recording,
        cause: "cannot decode: frame 7: no sync".to_owned(),
    };
    let said = why.clone();
    let crew = app.crew("w", 1, script(move |_| std::future::ready(Verdict::DeadLetter(said.clone())))).await;
    let id = app.enqueue(job("a")).await.id;
    let dead = dead_letter(&app, id).await;
    assert_eq!((dead.attempt, dead.failure), (1, Some(why)));
    crew.drain().await;
    // It is kept, and listed without asking for finished jobs.
    let listed = app.queue.jobs(FinishedJobs::Left, 10).await.unwrap();
    assert_eq!(listed.iter().map(|job| job.id).collect::<Vec<_>>(), [id]);
}

async fn a_source_that_left_the_configuration_is_a_dead_letter_that_says_so(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let (source, call_id) = (SourceName::parse("gone").unwrap(), CallId::parse("c-1").unwrap());
    let mut tx = app.store.begin().await.unwrap();
    let term = app.config.retention.days;
    let admitted = Admitted { source: &source, call_id: &call_id, call: None, now: app.now(), term };
    let record = app.store.admit(&mut tx, admitted).await.unwrap();
    let id = admit::enqueue(&app, &mut tx, &record, Lane::Live, Repeat::Never).await.unwrap().id;
    tx.commit().await.unwrap();
    app.run_pending().await;
    let failure = dead_letter(&app, id).await.failure.unwrap();
    assert_eq!((failure.stage, failure.side), (Some(Stage::Source), Side::Configuration));
    assert!(failure.cause.contains("`gone`"), "{}", failure.cause);
    assert_eq!(app.queue.jobs_about(&record.uid.to_string()).await.unwrap().len(), 1);
}

async fn attempts_that_run_out_end_as_a_dead_letter(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let handler = script(|_| async { Verdict::Retry { failure: failure("never works"), after: Duration::ZERO } });
    let crew = app.crew("w", 1, handler).await;
    let id = app.enqueue(NewJob { max_attempts: 3, ..job("a") }).await.id;
    let dead = dead_letter(&app, id).await;
    assert_eq!((dead.attempt, dead.failure), (3, Some(failure("never works"))));
    crew.drain().await;
}

async fn a_dead_letter_can_be_retried(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let works = Arc::new(AtomicUsize::new(0));
    let switch = works.clone();
    let handler = script(move |_| {
        let works = switch.load(Ordering::SeqCst) > 0;
        async move { if works { Verdict::Complete } else { Verdict::DeadLetter(failure("broken")) } }
    });
    let crew = app.crew("w", 1, handler).await;
    let id = app.enqueue(NewJob { max_attempts: 1, ..job("a") }).await.id;
    dead_letter(&app, id).await;
    works.store(1, Ordering::SeqCst);
    assert!(app.queue.retry(id).await.unwrap());
    completed(&app, id).await;
    assert!(!app.queue.retry(id).await.unwrap(), "it has ended well");
    assert!(!app.queue.retry(id + 1000).await.unwrap(), "there is no such job");
    crew.drain().await;
}

async fn a_dead_letter_whose_work_is_queued_anew_stays_dead(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let crew = app.crew("w", 1, script(|_| async { Verdict::DeadLetter(failure("broken")) })).await;
    let dead = app.enqueue(job("a")).await.id;
    dead_letter(&app, dead).await;
    crew.drain().await;
    let anew = app.enqueue(job("a")).await;
    assert!(!anew.duplicate);
    assert!(!app.queue.retry(dead).await.unwrap(), "two unfinished jobs of one key");
    assert_eq!(app.job(dead).await.state, JobState::DeadLetter);
    app.leave_queue();
}

async fn a_panic_is_a_failure_like_another(backend: Backend) {
    let app = TestApp::start(backend, "[worker]\nbackoff_base = \"1ms\"").await;
    let handler = script(|job| async move {
        assert!(job.payload["key"] != "bad", "it says +4915112345678");
        Verdict::Complete
    });
    let crew = app.crew("w", 1, handler).await;
    let bad = app.enqueue(NewJob { max_attempts: 2, ..job("bad") }).await.id;
    let dead = dead_letter(&app, bad).await;
    assert_eq!(dead.attempt, 2);
    assert_eq!(dead.failure.as_ref().map(|failure| failure.side), Some(Side::Worker));
    assert!(!format!("{dead:?}").contains("+49"), "what a panic says may be anybody's words: {dead:?}");
    // The slot is free and the worker alive.
    let good = app.enqueue(job("good")).await.id;
    completed(&app, good).await;
    crew.drain().await;
}

async fn a_cancelled_job_stops_and_stays_stopped(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let crew = app.crew("w", 1, script(|_| std::future::pending::<Verdict>())).await;
    let id = app.enqueue(job("a")).await.id;
    eventually("the job to run", async || (app.job(id).await.state == JobState::Running).then_some(())).await;
    // Said once it may be missed by a worker that does not listen yet; that one looks by itself only once a minute.
    eventually("the job to stop", async || {
        assert!(app.queue.cancel(id).await.unwrap());
        (app.job(id).await.state == JobState::Cancelled).then_some(())
    })
    .await;
    assert!(!app.queue.cancel(id + 1000).await.unwrap(), "there is no such job");
    crew.drain().await;
}

async fn kinds_of_a_newer_build_stay_queued(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let queued = "INSERT INTO river_job (kind, args, max_attempts, queue, priority) \
                  VALUES ('from_the_future', '{}', 3, 'live', 1)";
    let running = "INSERT INTO river_job (kind, args, max_attempts, queue, priority, state, attempt, attempted_by) \
                   VALUES ('from_the_future', '{}', 3, 'live', 1, 'running', 1, ";
    match app.store.db() {
        Db::Sqlite(pool) => {
            sqlx::raw_sql(queued).execute(pool).await.unwrap();
            let sql = format!("{running} jsonb('[\"newer\"]'))");
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await.unwrap();
        }
        Db::Postgres(pool) => {
            sqlx::raw_sql(queued).execute(pool).await.unwrap();
            let sql = format!("{running} ARRAY['newer'])");
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await.unwrap();
        }
    }
    let before: Vec<i64> = app.jobs().await.iter().map(|job| job.id).collect();
    // The worker of the second is dead: its job is given back, not judged.
    assert_eq!(app.queue.requeue_expired("me", HOUR).await.unwrap().returned, 1);
    let known = app.enqueue(job("known")).await.id;
    let crew = app.crew("w", 4, script(|_| async { Verdict::Complete })).await;
    completed(&app, known).await;
    crew.drain().await;
    // A run until idle does not wait for what it can never do.
    app.run_pending().await;
    for id in before {
        let job = app.job(id).await;
        assert_eq!((job.state, job.kind.as_str()), (JobState::Available, "from_the_future"));
        assert!(job.attempt <= 1, "an attempt was spent on it");
    }
    app.leave_queue();
}

async fn a_live_job_does_not_wait_behind_a_backfill(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let shut = gate.clone();
    let handler = script(move |job| {
        let gate = shut.clone();
        async move {
            if job.payload["key"] != "live" {
                gate.acquire().await.unwrap().forget();
            }
            Verdict::Complete
        }
    });
    for n in 0..20 {
        app.enqueue(NewJob { lane: Lane::Backfill, ..job(&format!("old-{n}")) }).await;
    }
    let crew = app.crew("w", 2, handler).await;
    let running = async || app.jobs().await.iter().filter(|job| job.state == JobState::Running).count();
    eventually("the backfill's slots to be taken", async || (running().await == 2).then_some(())).await;
    let live = app.enqueue(job("live")).await.id;
    completed(&app, live).await;
    let open = async || app.jobs().await.iter().filter(|job| !job.state.is_finished()).count();
    assert_eq!(open().await, 20);
    gate.add_permits(20);
    eventually("the backfill to end", async || (open().await == 0).then_some(())).await;
    crew.drain().await;
}

/// A line whose presence tells whether a transaction was committed.
fn note(subject: &str) -> AuditEntry {
    AuditEntry {
        at: jiff::Timestamp::now(),
        actor: "test".to_owned(),
        action: "wrote".to_owned(),
        subject: subject.to_owned(),
        detail: String::new(),
    }
}

async fn completed(app: &TestApp, id: i64) {
    eventually("a job to be completed", async || (app.job(id).await.state == JobState::Completed).then_some(())).await;
}

async fn dead_letter(app: &TestApp, id: i64) -> aftercall::queue::JobView {
    eventually("a dead letter", async || Some(app.job(id).await).filter(|job| job.state == JobState::DeadLetter)).await
}
