//! One job, two workers who both think it is theirs: the one that was given up for dead writes nothing and ends nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aftercall::app::App;
use aftercall::queue::{JobAttempt, JobState, Lane, NewJob, Requeued, Verdict};
use tokio::sync::Semaphore;

use super::crash::silence;
use super::{completed, note};
use crate::harness::{Backend, TestApp, eventually, failure, job, on_every_backend, script};

const SILENT: Duration = Duration::from_secs(20);

on_every_backend!(
    a_stale_completion_is_refused_and_writes_nothing,
    a_stale_success_does_not_end_the_new_owners_job,
    a_stale_failure_does_not_touch_the_new_owners_job,
    a_stale_dead_letter_does_not_touch_the_new_owners_job,
    a_stale_snooze_does_not_touch_the_new_owners_job,
    a_job_whose_call_was_taken_away_ends_quietly,
    three_workers_do_everything_once,
);

/// What a handler does once the test lets it go on.
type Ending = fn(Arc<App>, JobAttempt) -> std::pin::Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// Completion and note in one transaction, or neither.
fn commit(app: Arc<App>, job: JobAttempt) -> std::pin::Pin<Box<dyn Future<Output = Verdict> + Send>> {
    Box::pin(async move {
        let mut tx = app.store.begin().await.unwrap();
        app.store.audit(&mut tx, &note("committed")).await.unwrap();
        if !app.queue.complete(&mut tx, &job).await.unwrap() {
            return Verdict::Fenced;
        }
        tx.commit().await.unwrap();
        Verdict::Complete
    })
}

/// Two workers on one job: the first is given up while it works, then ends as told, while the second still works.
async fn two_owners(backend: Backend, stale: Ending) {
    let app = TestApp::start(backend, "").await;
    let (stale_gate, owner_gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let elsewhere = Arc::new(AtomicUsize::new(0));
    let handler = |gate: &Arc<Semaphore>, ending: Ending, others: &Arc<AtomicUsize>| {
        let (gate, app, others) = (gate.clone(), app.app.clone(), others.clone());
        script(move |job| {
            let (gate, app, others) = (gate.clone(), app.clone(), others.clone());
            async move {
                if job.payload["key"] != "shared" {
                    others.fetch_add(1, Ordering::SeqCst);
                    return Verdict::Complete;
                }
                gate.acquire().await.unwrap().forget();
                ending(app, job).await
            }
        })
    };
    let first = app.crew("stale", 1, handler(&stale_gate, stale, &elsewhere)).await;
    let id = app.enqueue(NewJob { max_attempts: 9, ..job("shared") }).await.id;
    eventually("the first worker to have it", async || (app.job(id).await.state == JobState::Running).then_some(()))
        .await;
    silence(&app.store, SILENT).await;
    // The second worker writes heartbeats, so it alone is alive. The first has one slot for such jobs, and that is taken.
    app.queue.heartbeat("owner", "test").await.unwrap();
    assert_eq!(app.queue.requeue_expired("owner", SILENT).await.unwrap(), Requeued { returned: 1, dead_lettered: 0 });
    let second = app.crew("owner", 1, handler(&owner_gate, commit, &Arc::default())).await;
    eventually("the second attempt", async || (app.job(id).await.attempt == 2).then_some(())).await;

    stale_gate.add_permits(1);
    // By the time the first worker has done other things its answer is long written.
    let mut n = 0;
    while elsewhere.load(Ordering::SeqCst) < 3 {
        n += 1;
        let other = app.enqueue(NewJob { lane: Lane::Maintenance, ..job(&format!("other-{n}")) }).await.id;
        completed(&app, other).await;
    }
    let shared = app.job(id).await;
    assert_eq!((shared.state, shared.attempt), (JobState::Running, 2), "{shared:?}");
    assert_eq!(app.store.audit_entries(None).await.unwrap().len(), 0, "the stale worker wrote");

    owner_gate.add_permits(1);
    completed(&app, id).await;
    first.drain().await;
    second.drain().await;
    let ended = app.job(id).await;
    assert_eq!((ended.state, ended.attempt, ended.failure), (JobState::Completed, 2, None));
    assert_eq!(app.store.audit_entries(None).await.unwrap().len(), 1);
}

async fn a_stale_completion_is_refused_and_writes_nothing(backend: Backend) {
    two_owners(backend, commit).await;
}

async fn a_stale_success_does_not_end_the_new_owners_job(backend: Backend) {
    two_owners(backend, |_, _| Box::pin(async { Verdict::Complete })).await;
}

async fn a_stale_failure_does_not_touch_the_new_owners_job(backend: Backend) {
    two_owners(backend, |_, _| Box::pin(async { Verdict::Retry { failure: failure("late"), after: Duration::ZERO } }))
        .await;
}

async fn a_stale_dead_letter_does_not_touch_the_new_owners_job(backend: Backend) {
    two_owners(backend, |_, _| Box::pin(async { Verdict::DeadLetter(failure("late")) })).await;
}

async fn a_stale_snooze_does_not_touch_the_new_owners_job(backend: Backend) {
    two_owners(backend, |_, _| Box::pin(async { Verdict::Snooze(Duration::ZERO) })).await;
}

async fn a_job_whose_call_was_taken_away_ends_quietly(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    // Fenced, but not by another owner of the job: retention has condemned its call.
    let crew = app.crew("w", 1, script(|_| async { Verdict::Fenced })).await;
    let (one, other) = (app.enqueue(job("a")).await.id, app.enqueue(job("b")).await.id);
    completed(&app, one).await;
    completed(&app, other).await;
    crew.drain().await;
}

async fn three_workers_do_everything_once(backend: Backend) {
    const JOBS: usize = 200;
    let app = TestApp::start(backend, "").await;
    let mut crews = Vec::new();
    let apps = [app.again().await, app.again().await, app.again().await];
    for (n, worker) in apps.iter().enumerate() {
        let inner = worker.app.clone();
        let handler = script(move |job| commit(inner.clone(), job));
        crews.push(worker.crew(&format!("w{n}"), 4, handler).await);
    }
    let mut tx = app.store.begin().await.unwrap();
    for n in 0..JOBS {
        app.queue.enqueue(&mut tx, job(&n.to_string())).await.unwrap();
    }
    tx.commit().await.unwrap();
    eventually("all of them to end", async || {
        app.jobs().await.iter().all(|job| job.state == JobState::Completed).then_some(())
    })
    .await;
    for crew in crews {
        crew.drain().await;
    }
    assert_eq!(app.store.audit_entries(None).await.unwrap().len(), JOBS);
    assert!(app.jobs().await.iter().all(|job| job.attempt == 1), "something ran twice");
}
