//! Backfills among calls that only wait: whoever waits for a recording or for a platform keeps nobody out, an old call
//! without a recording is not waited for long, and whoever looks learns why nothing moves.

use std::time::Duration;

use aftercall::demo::{Api, FaultAnswer, RequestKind, SampleCall, SampleRecording};
use aftercall::domain::Outcome;
use aftercall::jobs::{backfill, backfill_status};
use aftercall::queue::JobState;
use aftercall::store::{BackfillState, CallFilter, NewBackfill, Orders, Origin, Steering};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::harness::{Backend, Fixture, Plan, on_every_backend, source};

on_every_backend!(
    calls_that_only_wait_hold_no_place,
    old_calls_without_a_recording_end_within_two_minutes,
    a_recording_that_an_old_call_gets_late_is_fetched,
    the_grace_is_that_of_the_end_of_the_call,
    a_call_that_its_source_forgot_is_not_waited_for_either,
    what_waits_counts_as_cancelled,
    a_call_that_somebody_else_asked_for_is_not_taken_from_them,
    the_time_left_is_that_of_the_ordered_rate,
    a_stall_says_why,
    calls_that_fail_again_and_again_keep_nobody_out,
);

const API: Api = Api::KrosaiV1;
const MINUTE: Duration = Duration::from_secs(60);
/// As it is shipped.
const GRACE: &[(&str, &str)] = &[("recording_grace = \"2s\"", "recording_grace = \"15m\"")];
/// Four calls are fed at once, however many wait.
const SETTINGS: &str = "[worker]\nconcurrency = 1\n[fetch]\nnot_ready_pause = \"20s\"\n[schedule]\nenabled = false\n";

async fn fixture(backend: Backend, calls: impl FnOnce(Timestamp) -> Vec<SampleCall>) -> Fixture {
    Fixture::planned(backend, Plan { settings: SETTINGS, sources: GRACE, ..Plan::default() }, calls).await
}

/// Calls that ended this long ago, one second after the other.
fn calls(count: u32, ended_ago: SignedDuration) -> impl FnOnce(Timestamp) -> Vec<SampleCall> {
    move |now| {
        let ended = |n: u32| now - ended_ago - SignedDuration::from_secs(i64::from(n));
        (0..count).map(|n| SampleCall::numbered(API, n, ended(n))).collect()
    }
}

fn with(
    make: impl FnOnce(Timestamp) -> Vec<SampleCall>,
    recording: impl Fn(usize) -> SampleRecording,
) -> impl FnOnce(Timestamp) -> Vec<SampleCall> {
    move |now| {
        let all = make(now).into_iter().enumerate();
        all.map(|(n, call)| SampleCall { recording: recording(n), ..call }).collect()
    }
}

async fn start(fixture: &Fixture, rate_per_minute: Option<u32>) -> String {
    let now = fixture.now();
    let (source, from) = (source(API), now - SignedDuration::from_hours(24 * 30));
    let new = NewBackfill { source: &source, from, to: now, again: false, origin: Origin::Command, now };
    let orders = Orders { rate_per_minute, only: None };
    backfill::start_ordered(&fixture.app, &new, orders).await.unwrap().unwrap()
}

async fn shown(fixture: &Fixture, id: &str) -> Value {
    backfill_status::shown(&fixture.app, &fixture.backfill(id).await).await.unwrap()
}

async fn ended(fixture: &Fixture, outcome: Outcome) -> usize {
    let all = fixture.store.calls(&CallFilter::default()).await.unwrap();
    all.iter().filter(|record| record.outcome == Some(outcome)).count()
}

/// Turns the clock and lets the workers do what is due.
async fn after(fixture: &Fixture, pause: Duration) {
    fixture.advance(pause).await;
    fixture.run_pending().await;
}

async fn calls_that_only_wait_hold_no_place(backend: Backend) {
    const CALLS: u32 = 100;
    // Every twenty-fifth never has a recording; two of every twenty-five have one when it is looked for again.
    let recording = |n: usize| match n % 25 {
        0 => SampleRecording::Never,
        1 | 2 => SampleRecording::AfterReads(3),
        _ => SampleRecording::Ready,
    };
    // Whoever waits does so for minutes, however slow the machine is.
    let plan = Plan { settings: PATIENTLY, sources: GRACE, ..Plan::default() };
    let fixture = Fixture::planned(backend, plan, with(calls(CALLS, SignedDuration::from_secs(5)), recording)).await;
    let id = start(&fixture, None).await;
    fixture.run_pending().await;
    // Three times as many wait as there are places, and all others are through.
    assert_eq!(ended(&fixture, Outcome::Done).await, 88);
    let waits = shown(&fixture, &id).await;
    assert_eq!(
        (&waits["left"], &waits["waiting"], &waits["enqueued"]),
        (&12.into(), &12.into(), &100.into()),
        "{waits}"
    );
    assert_eq!((&waits["eta_seconds"], &waits["stalled"]), (&Value::Null, &true.into()), "{waits}");
    after(&fixture, 5 * MINUTE + Duration::from_secs(20)).await;
    assert_eq!(ended(&fixture, Outcome::Done).await, 96, "those that came late");
    after(&fixture, 5 * MINUTE + Duration::from_secs(20)).await;
    assert_eq!(ended(&fixture, Outcome::NoRecording).await, 0, "within the grace of their end");
    after(&fixture, 5 * MINUTE).await;
    after(&fixture, Duration::from_secs(10)).await;
    assert_eq!(ended(&fixture, Outcome::NoRecording).await, 4);
    let over = fixture.backfill(&id).await;
    assert_eq!((over.state, over.done, over.failed), (BackfillState::Done, 100, 0), "{over:?}");
}

async fn old_calls_without_a_recording_end_within_two_minutes(backend: Backend) {
    let old = calls(9, SignedDuration::from_hours(72));
    let fixture = fixture(backend, with(old, |_| SampleRecording::Never)).await;
    let id = start(&fixture, None).await;
    fixture.run_pending().await;
    assert_eq!(ended(&fixture, Outcome::NoRecording).await, 0, "one look proves nothing");
    for _ in 0..3 {
        after(&fixture, Duration::from_secs(30)).await;
    }
    assert_eq!(ended(&fixture, Outcome::NoRecording).await, 9);
    for n in 0..9 {
        assert_eq!(
            fixture.asked(RequestKind::Detail, &format!("call_{n:06}")) / 2,
            3,
            "three looks, each at two places"
        );
    }
    after(&fixture, Duration::from_secs(6)).await;
    assert_eq!(fixture.backfill(&id).await.state, BackfillState::Done);
}

async fn a_recording_that_an_old_call_gets_late_is_fetched(backend: Backend) {
    let old = calls(5, SignedDuration::from_hours(72));
    let fixture = fixture(backend, with(old, |_| SampleRecording::AfterReads(3))).await;
    let id = start(&fixture, None).await;
    for _ in 0..4 {
        after(&fixture, Duration::from_secs(25)).await;
    }
    assert_eq!(ended(&fixture, Outcome::Done).await, 5);
    assert_eq!(fixture.backfill(&id).await.failed, 0);
}

async fn the_grace_is_that_of_the_end_of_the_call(backend: Backend) {
    let ten_minutes_ago = calls(1, SignedDuration::from_mins(10));
    let fixture = fixture(backend, with(ten_minutes_ago, |_| SampleRecording::Never)).await;
    fixture.trigger(API, "call_000000").await;
    fixture.run_pending().await;
    after(&fixture, 4 * MINUTE).await;
    assert_eq!(ended(&fixture, Outcome::NoRecording).await, 0, "a minute of its grace is left");
    for _ in 0..3 {
        after(&fixture, MINUTE).await;
    }
    assert_eq!(ended(&fixture, Outcome::NoRecording).await, 1, "not a quarter of an hour after it was seen");
}

async fn a_call_that_its_source_forgot_is_not_waited_for_either(backend: Backend) {
    let fixture = fixture(backend, calls(3, SignedDuration::from_hours(72))).await;
    let id = start(&fixture, Some(1)).await;
    // Listed, and gone when its turn comes.
    fixture.platform.set_faults(|asked| (asked.kind == RequestKind::Detail).then(|| FaultAnswer::status(404)));
    assert!(fixture.store.rate_backfill(&id, None).await.unwrap());
    for _ in 0..4 {
        after(&fixture, Duration::from_secs(30)).await;
    }
    assert_eq!(ended(&fixture, Outcome::Vanished).await, 3);
    assert_eq!(fixture.backfill(&id).await.state, BackfillState::Done);
}

async fn what_waits_counts_as_cancelled(backend: Backend) {
    let fixture = fixture(
        backend,
        with(calls(12, SignedDuration::from_secs(5)), |n| {
            if n < 10 { SampleRecording::Never } else { SampleRecording::Ready }
        }),
    )
    .await;
    let id = start(&fixture, None).await;
    fixture.run_pending().await;
    assert_eq!(shown(&fixture, &id).await["waiting"], 10);
    assert!(fixture.store.steer_backfill(&id, Steering::Cancelled).await.unwrap());
    fixture.advance(Duration::from_secs(10)).await;
    fixture.run_pending().await;
    let over = fixture.backfill(&id).await;
    assert_eq!((over.state, over.done, over.failed), (BackfillState::Done, 2, 0), "{over:?}");
    assert_eq!((over.skipped["cancelled"], over.enqueued), (10, 2), "{over:?}");
    let left = fixture.jobs().await.into_iter().filter(|job| !job.state.is_finished()).count();
    assert_eq!(left, 0, "nobody waits for them any more");
}

async fn a_call_that_somebody_else_asked_for_is_not_taken_from_them(backend: Backend) {
    let fixture = fixture(backend, with(calls(3, SignedDuration::from_secs(5)), |_| SampleRecording::Never)).await;
    let job = fixture.trigger(API, "call_000000").await.job_id.unwrap();
    let (cancelled, other) = (start(&fixture, None).await, start(&fixture, None).await);
    fixture.run_pending().await;
    assert!(fixture.store.steer_backfill(&cancelled, Steering::Cancelled).await.unwrap());
    fixture.advance(Duration::from_secs(10)).await;
    fixture.run_pending().await;
    assert_eq!(fixture.backfill(&cancelled).await.skipped["cancelled"], 3);
    assert_eq!(fixture.job(job).await.state, JobState::Scheduled, "the trigger's call is looked for all the same");
    let open = fixture.jobs().await.into_iter().filter(|job| job.kind == "process_call" && !job.state.is_finished());
    assert_eq!(open.count(), 3, "and those of the other backfill");
    for _ in 0..4 {
        after(&fixture, 8 * MINUTE).await;
    }
    assert_eq!(ended(&fixture, Outcome::NoRecording).await, 3);
    assert_eq!(fixture.backfill(&other).await.failed, 0);
}

async fn the_time_left_is_that_of_the_ordered_rate(backend: Backend) {
    let fixture = fixture(backend, calls(7, SignedDuration::from_hours(72))).await;
    let id = start(&fixture, Some(2)).await;
    fixture.run_pending().await;
    let worker = fixture.queue.clone();
    worker.heartbeat("w", "test").await.unwrap();
    let fed = shown(&fixture, &id).await;
    assert_eq!((&fed["left"], &fed["eta_seconds"]), (&6.into(), &180.into()), "{fed}");
    // A pause of an hour slows nothing down once it is over.
    assert!(fixture.store.steer_backfill(&id, Steering::Paused).await.unwrap());
    fixture.set_clock(SignedDuration::from_hours(1));
    let paused = shown(&fixture, &id).await;
    assert_eq!((&paused["eta_seconds"], &paused["stalled"]), (&Value::Null, &false.into()), "{paused}");
    assert!(fixture.store.steer_backfill(&id, Steering::Run).await.unwrap());
    let resumed = shown(&fixture, &id).await;
    assert_eq!(resumed["eta_seconds"], 180, "{resumed}");
    worker.leave("w").await.unwrap();
    let alone = shown(&fixture, &id).await;
    assert_eq!((&alone["eta_seconds"], &alone["reason"]), (&Value::Null, &"no worker is alive".into()), "{alone}");
    assert!(fixture.store.rate_backfill(&id, None).await.unwrap());
    after(&fixture, Duration::from_secs(10)).await;
    assert_eq!(fixture.backfill(&id).await.done, 7);
}

async fn a_stall_says_why(backend: Backend) {
    let fixture = fixture(backend, calls(9, SignedDuration::from_hours(72))).await;
    fixture.platform.set_faults(|asked| (asked.kind == RequestKind::Detail).then(|| FaultAnswer::status(401)));
    let id = start(&fixture, None).await;
    fixture.run_pending().await;
    fixture.queue.heartbeat("w", "test").await.unwrap();
    let stalled = shown(&fixture, &id).await;
    let reason = stalled["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("are held back") && reason.contains("key"), "{stalled}");
    assert_eq!((&stalled["stalled"], &stalled["eta_seconds"]), (&true.into(), &Value::Null), "{stalled}");
    assert!(
        stalled["enqueued"].as_u64().unwrap() < 9,
        "a source that answers nothing is not asked for more: {stalled}"
    );
    fixture.platform.clear_faults();
    for _ in 0..3 {
        after(&fixture, 2 * MINUTE).await;
    }
    let over = fixture.backfill(&id).await;
    assert_eq!((over.state, over.done, over.reason), (BackfillState::Done, 9, None));
    fixture.queue.leave("w").await.unwrap();
}

async fn calls_that_fail_again_and_again_keep_nobody_out(backend: Backend) {
    // Eight of forty meet a broken file at the recording host; four calls have a place.
    const SLOWLY: &str = "[worker]\nconcurrency = 1\nbackoff_base = \"10m\"\n[schedule]\nenabled = false\n";
    let plan = Plan { settings: SLOWLY, sources: GRACE, ..Plan::default() };
    let fixture = Fixture::planned(backend, plan, calls(40, SignedDuration::from_hours(72))).await;
    fixture.platform.set_faults(|asked| {
        let broken = asked.call_id.as_deref().is_some_and(|id| id.ends_with('0') || id.ends_with('5'));
        (asked.kind == RequestKind::Recording && broken).then(|| FaultAnswer::status(500))
    });
    let id = start(&fixture, None).await;
    // The platform goes on while they rest between attempts.
    fixture.run_pending().await;
    after(&fixture, Duration::from_secs(5)).await;
    assert_eq!(ended(&fixture, Outcome::Done).await, 32);
    fixture.platform.clear_faults();
    for _ in 0..4 {
        after(&fixture, 60 * MINUTE).await;
    }
    assert_eq!((ended(&fixture, Outcome::Done).await, fixture.backfill(&id).await.failed), (40, 0));
}

const PATIENTLY: &str = "[worker]\nconcurrency = 1\n[fetch]\nnot_ready_pause = \"5m\"\n[schedule]\nenabled = false\n";
