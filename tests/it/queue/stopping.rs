//! Stopping a worker: what runs may finish, what cannot goes back unharmed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aftercall::queue::{JobState, Verdict};
use aftercall::worker::{self, DataLock, Locked, Signals, Until};
use tokio::sync::Semaphore;

use super::completed;
use crate::harness::{Backend, TestApp, eventually, job, on_every_backend, script};

on_every_backend!(
    a_stop_lets_running_jobs_finish_and_starts_no_new_ones,
    a_second_stop_gives_the_job_back_without_counting_the_attempt,
    the_end_of_the_grace_gives_the_job_back_without_counting_the_attempt,
    signals_stop_a_worker,
    two_workers_on_one_data_directory_are_refused,
);

async fn running(app: &TestApp, id: i64) {
    eventually("the job to run", async || (app.job(id).await.state == JobState::Running).then_some(())).await;
}

async fn a_stop_lets_running_jobs_finish_and_starts_no_new_ones(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let gate = Arc::new(Semaphore::new(0));
    let wait = gate.clone();
    let handler = script(move |_| {
        let wait = wait.clone();
        async move {
            wait.acquire().await.unwrap().forget();
            Verdict::Complete
        }
    });
    let crew = app.crew("w", 1, handler).await;
    let (first, second) = (app.enqueue(job("a")).await.id, app.enqueue(job("b")).await.id);
    running(&app, first).await;
    let draining = tokio::spawn(crew.drain());
    // A permit for each: a second job that started after all would end too.
    gate.add_permits(2);
    draining.await.unwrap();
    assert_eq!(app.job(first).await.state, JobState::Completed);
    let left = app.job(second).await;
    // Between the first one's end and the stop the second may have had its turn; it was not begun and then dropped.
    assert!(matches!((left.state, left.attempt), (JobState::Available, 0) | (JobState::Completed, 1)), "{left:?}");
    app.leave_queue();
}

/// A job that never ends by itself, given back: how it stands.
async fn given_back(app: &TestApp, id: i64) {
    let job = app.job(id).await;
    assert_eq!((job.state, job.attempt), (JobState::Available, 0), "{job:?}");
    assert_eq!(job.last_error, None, "a stop is no failure");
    let crew = app.crew("next", 1, script(|_| async { Verdict::Complete })).await;
    completed(app, id).await;
    crew.drain().await;
}

async fn a_second_stop_gives_the_job_back_without_counting_the_attempt(backend: Backend) {
    let app = TestApp::start(backend, "[worker]\ndrain_grace = \"1h\"").await;
    let crew = app.crew("w", 1, script(|_| std::future::pending::<Verdict>())).await;
    let id = app.enqueue(job("a")).await.id;
    running(&app, id).await;
    let stop = crew.running.stopper();
    let draining = tokio::spawn(crew.drain());
    let asked = Instant::now();
    stop();
    draining.await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(10), "at once took {:?}", asked.elapsed());
    given_back(&app, id).await;
}

async fn the_end_of_the_grace_gives_the_job_back_without_counting_the_attempt(backend: Backend) {
    let app = TestApp::start(backend, "[worker]\ndrain_grace = \"200ms\"").await;
    let crew = app.crew("w", 1, script(|_| std::future::pending::<Verdict>())).await;
    let id = app.enqueue(job("a")).await.id;
    running(&app, id).await;
    crew.drain().await;
    given_back(&app, id).await;
}

async fn signals_stop_a_worker(backend: Backend) {
    let app = TestApp::start(backend, "[schedule]\nenabled = false").await;
    let lock = DataLock::take(app.data_dir()).unwrap();
    for second in [false, true] {
        let signals = Signals::default();
        let (inner, signalled) = (app.app.clone(), signals.clone());
        let worker = async { worker::run(inner, &lock, Until::Stopped, signalled).await.unwrap() };
        let signal = async {
            eventually("the worker to be there", async || {
                (app.queue.live_workers(Duration::from_secs(20)).await.unwrap() == 1).then_some(())
            })
            .await;
            signals.drain.cancel();
            if second {
                signals.stop.cancel();
            }
        };
        tokio::join!(worker, signal);
        assert_eq!(app.queue.live_workers(Duration::from_secs(20)).await.unwrap(), 0, "it left in good order");
    }
}

async fn two_workers_on_one_data_directory_are_refused(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let held = DataLock::take(app.data_dir()).unwrap();
    let refused = DataLock::take(app.data_dir()).unwrap_err();
    assert!(refused.is::<Locked>(), "{refused:#}");
    assert!(refused.to_string().contains(&app.data_dir().display().to_string()), "{refused}");
    drop(held);
    DataLock::take(app.data_dir()).unwrap();
}
