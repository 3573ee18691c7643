//! Attempts are used up by coming to the same place again, not by starting again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aftercall::queue::{JobState, NewJob, Requeued, Verdict};

use super::{completed, dead_letter};
use crate::harness::{Backend, Child, TestApp, failure, job, on_every_backend, script};

const CHILD: &str = "queue::crash::the_child";

on_every_backend!(
    a_job_that_moves_forward_outlives_any_number_of_workers,
    a_failure_after_progress_uses_up_nothing,
    a_dead_letter_that_is_revived_has_all_its_attempts,
);

async fn a_job_that_moves_forward_outlives_any_number_of_workers(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let id = app.enqueue(NewJob { max_attempts: 2, ..job("long") }).await.id;
    for _ in 0..6 {
        Child::start(&app, CHILD, "advance").end().await;
        let requeued = app.queue.requeue_expired("me", Duration::ZERO).await.unwrap();
        assert_eq!(requeued, Requeued { returned: 1, dead_lettered: 0 });
    }
    // Now it dies at the same place every time.
    let deaths = [(1, 0), (0, 1)];
    for (returned, dead_lettered) in deaths {
        Child::start(&app, CHILD, "abort").end().await;
        let requeued = app.queue.requeue_expired("me", Duration::ZERO).await.unwrap();
        assert_eq!(requeued, Requeued { returned, dead_lettered });
    }
    let dead = app.job(id).await;
    assert_eq!(dead.state, JobState::DeadLetter);
    assert!(dead.failure.unwrap().cause.contains("same place"));
}

async fn a_failure_after_progress_uses_up_nothing(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let id = app.enqueue(NewJob { max_attempts: 2, ..job("long") }).await.id;
    let (queue, starts) = (app.queue.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = starts.clone();
    let handler = script(move |job| {
        let (queue, start) = (queue.clone(), counted.fetch_add(1, Ordering::SeqCst));
        async move {
            if start < 7 {
                queue.advance(&job).await.unwrap();
                assert!(!job.is_last_attempt());
            }
            match start {
                12 => Verdict::Complete,
                // Once it has come no further than before, its attempts count.
                _ => Verdict::Retry { failure: failure("broke off"), after: Duration::ZERO },
            }
        }
    });
    let crew = app.crew("w", 1, handler).await;
    let dead = dead_letter(&app, id).await;
    crew.drain().await;
    assert_eq!(dead.failure, Some(failure("broke off")));
    let starts = starts.load(Ordering::SeqCst);
    // The one after a pause is the one that was paused.
    assert!((9..=10).contains(&starts), "seven with progress, then its two attempts: {starts}");
}

async fn a_dead_letter_that_is_revived_has_all_its_attempts(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let id = app.enqueue(NewJob { max_attempts: 2, ..job("a") }).await.id;
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = failures.clone();
    let handler = script(move |_| {
        let failed = counted.fetch_add(1, Ordering::SeqCst);
        // Both attempts of the first life, one of the second.
        async move {
            if failed < 3 {
                Verdict::Retry { failure: failure("down"), after: Duration::ZERO }
            } else {
                Verdict::Complete
            }
        }
    });
    let crew = app.crew("w", 1, handler).await;
    dead_letter(&app, id).await;
    let mut tx = app.store.begin().await.unwrap();
    assert!(app.queue.revive(&mut tx, id).await.unwrap());
    assert!(!app.queue.revive(&mut tx, id).await.unwrap(), "it is none any more");
    tx.commit().await.unwrap();
    completed(&app, id).await;
    crew.drain().await;
    assert_eq!(failures.load(Ordering::SeqCst), 4);
    // One whose work was enqueued anew is left alone.
    let handler = script(|_| async { Verdict::DeadLetter(failure("bad")) });
    let crew = app.crew("w", 1, handler).await;
    let old = app.enqueue(job("b")).await.id;
    dead_letter(&app, old).await;
    crew.drain().await;
    app.enqueue(job("b")).await;
    let mut tx = app.store.begin().await.unwrap();
    assert!(!app.queue.revive(&mut tx, old).await.unwrap());
    drop(tx);
    app.leave_queue();
}
