//! Platforms that forget, repeat themselves or only ask for patience: nothing that is kept is given up for it, nothing
//! is asked for ever, and whoever waits learns how it stands.

use aftercall::demo::{Api, FaultAnswer, RequestKind, SampleCall};
use aftercall::domain::Outcome;
use aftercall::queue::JobState;
use aftercall::store::BackfillState;
use jiff::SignedDuration;
use std::time::Duration;

use super::{done, short};
use crate::harness::{Backend, Fixture, eventually, on_every_backend};

on_every_backend!(
    a_repeat_gives_nothing_up_that_the_source_has_forgotten,
    a_backfill_whose_list_cannot_be_read_ends_and_can_be_put_back_to_work,
    a_platform_that_only_asks_for_patience_does_not_hold_a_worker,
    an_empty_answer_is_looked_into_again_now_and_then,
    calls_with_unusable_ids_are_in_the_balance,
    a_failing_reconciliation_leaves_one_dead_letter,
    signatures_of_urls_are_forgotten_with_the_job,
);

const ID: &str = "call_000001";

async fn one_call(backend: Backend) -> Fixture {
    Fixture::start(backend, |now| vec![short(Api::KrosaiV1, 1, now)]).await
}

async fn a_repeat_gives_nothing_up_that_the_source_has_forgotten(backend: Backend) {
    let fixture = one_call(backend).await;
    fixture.trigger(Api::KrosaiV1, ID).await;
    fixture.run_pending().await;
    let before = fixture.record(Api::KrosaiV1, ID).await;
    done(&fixture, &before).await;
    fixture.platform.remove_call(Api::KrosaiV1, ID);
    fixture.trigger_again(Api::KrosaiV1, ID).await;
    fixture.advance(Duration::from_secs(3600)).await;
    fixture.run_pending().await;
    let after = fixture.record(Api::KrosaiV1, ID).await;
    assert_eq!((after.outcome, after.transcript_version), (Some(Outcome::Done), 1));
    assert_eq!(after.artifacts, before.artifacts);
    assert_eq!(after.quality, before.quality);
}

async fn a_backfill_whose_list_cannot_be_read_ends_and_can_be_put_back_to_work(backend: Backend) {
    let fixture = one_call(backend).await;
    fixture.platform.set_faults(|asked| (asked.kind == RequestKind::List).then(|| FaultAnswer::status(400)));
    let id = fixture.start_backfill(Api::KrosaiV1).await;
    fixture.run_pending().await;
    let backfill = fixture.backfill(&id).await;
    assert_eq!(backfill.state, BackfillState::Failed);
    assert!(backfill.reason.is_some_and(|reason| !reason.is_empty()));
    let dead = fixture.jobs().await.into_iter().find(|job| job.kind == "backfill").unwrap();
    assert_eq!(dead.state, JobState::DeadLetter);

    fixture.platform.clear_faults();
    assert!(fixture.queue.retry(dead.id).await.unwrap());
    fixture.run_pending().await;
    let backfill = fixture.backfill(&id).await;
    assert_eq!((backfill.state, backfill.done, backfill.reason), (BackfillState::Done, 1, None));
}

async fn a_platform_that_only_asks_for_patience_does_not_hold_a_worker(backend: Backend) {
    let fixture = one_call(backend).await;
    fixture
        .platform
        .set_faults(|asked| (asked.kind == RequestKind::Detail).then(|| FaultAnswer::throttled(Api::KrosaiV1, 0.3)));
    let job = fixture.trigger(Api::KrosaiV1, ID).await.job_id.unwrap();
    let a_minute_passes = async {
        eventually("a second look", async || (fixture.asked(RequestKind::Detail, ID) >= 2).then_some(())).await;
        fixture.set_clock(SignedDuration::from_mins(1));
    };
    tokio::join!(fixture.run_pending(), a_minute_passes);
    let waiting = fixture.job(job).await;
    assert!(!waiting.state.is_finished() && waiting.attempt == 0, "{waiting:?}");
    let failure = waiting.failure.expect("somebody who looks should see why it waits");
    assert_eq!(failure.fault, "throttled");
    fixture.platform.clear_faults();
    fixture.advance(Duration::from_secs(60)).await;
    fixture.run_pending().await;
    done(&fixture, &fixture.record(Api::KrosaiV1, ID).await).await;
}

async fn an_empty_answer_is_looked_into_again_now_and_then(backend: Backend) {
    let fixture = one_call(backend).await;
    fixture.platform.set_faults(|asked| (asked.kind == RequestKind::Recording).then_some(FaultAnswer::Empty));
    fixture.trigger(Api::KrosaiV1, ID).await;
    fixture.advance(Duration::from_secs(3600)).await;
    fixture.run_pending().await;
    assert_eq!(fixture.record(Api::KrosaiV1, ID).await.outcome, Some(Outcome::NoRecording));
    let asked = fixture.asked(RequestKind::Recording, ID);
    let balance = fixture.reconcile(Api::KrosaiV1).await;
    assert_eq!((balance.running, balance.terminal["no_recording"]), (0, 1), "{balance:?}");
    fixture.run_pending().await;
    assert_eq!(fixture.asked(RequestKind::Recording, ID), asked);

    fixture.advance(Duration::from_secs(2 * 3600)).await;
    fixture.platform.clear_faults();
    assert_eq!(fixture.reconcile(Api::KrosaiV1).await.running, 1);
    fixture.run_pending().await;
    assert_eq!(fixture.record(Api::KrosaiV1, ID).await.outcome, Some(Outcome::Done));
}

async fn calls_with_unusable_ids_are_in_the_balance(backend: Backend) {
    let fixture = Fixture::start(backend, |now| {
        vec![short(Api::KrosaiV1, 1, now), SampleCall { id: "x".repeat(300), ..short(Api::KrosaiV1, 2, now) }]
    })
    .await;
    let balance = fixture.reconcile(Api::KrosaiV1).await;
    assert_eq!((balance.listed, balance.completed, balance.unreadable), (2, 1, 1), "{balance:?}");
    assert_eq!(balance.unreadable_ids, ["x".repeat(200)]);
    fixture.run_pending().await;
}

async fn a_failing_reconciliation_leaves_one_dead_letter(backend: Backend) {
    use aftercall::jobs::Job;
    use aftercall::queue::Lane;
    let fixture = one_call(backend).await;
    fixture.platform.set_faults(|asked| (asked.kind == RequestKind::List).then(|| FaultAnswer::status(400)));
    let source = crate::harness::source(Api::KrosaiV1);
    for _ in 0..3 {
        let now = fixture.now();
        let job = Job::Reconcile { source: source.clone(), from: now - SignedDuration::from_hours(48), to: now };
        fixture.enqueue(job.queued(&fixture.app, Lane::Maintenance)).await;
        fixture.run_pending().await;
    }
    let dead = fixture.jobs().await.into_iter().filter(|job| job.state == JobState::DeadLetter).count();
    assert_eq!(dead, 1);
}

async fn signatures_of_urls_are_forgotten_with_the_job(backend: Backend) {
    let fixture = one_call(backend).await;
    fixture.trigger(Api::KrosaiV1, ID).await;
    fixture.run_pending().await;
    for _ in 0..2 {
        let record = fixture.record(Api::KrosaiV1, ID).await;
        let url = record.call.unwrap().recording_url.expect("where it was is kept");
        assert_eq!(url.as_url().unwrap().query(), None);
        // The list shows a fresh link; a finished call has no use for it.
        fixture.reconcile(Api::KrosaiV1).await;
    }
}
