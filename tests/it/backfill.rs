//! Backfills as an operation: planned, steered, in turns, what expires first; and workers that stay fair and fit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aftercall::demo::{Api, RequestKind, SampleCall};
use aftercall::domain::{OrgUid, Outcome};
use aftercall::jobs::{backfill, backfill_plan, backfill_status};
use aftercall::queue::{JobState, Lane, NewJob, Verdict};
use aftercall::store::{BackfillState, NewBackfill, NewItem, Orders, Origin, OurCalls, Steering};
use jiff::{SignedDuration, Timestamp};

use crate::harness::{Backend, Fixture, Plan, TestApp, eventually, job, on_every_backend, script, source, source_call};

on_every_backend!(
    a_plan_counts_and_writes_nothing,
    a_paused_backfill_feeds_nothing_until_it_is_resumed,
    a_cancelled_backfill_takes_back_what_has_not_begun,
    a_rate_is_kept,
    organisations_take_turns_and_what_expires_goes_first,
    a_backfill_by_outcome_repeats_those_calls_only,
    ones_flood_does_not_hold_up_anothers_call,
    a_worker_that_cannot_work_rests_and_goes_on_by_itself,
);

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn some(api: Api, count: u32) -> impl FnOnce(Timestamp) -> Vec<SampleCall> {
    move |now| {
        (0..count).map(|n| SampleCall::numbered(api, n, now - SignedDuration::from_hours(i64::from(n) + 2))).collect()
    }
}

async fn start(fixture: &Fixture, api: Api, orders: Orders) -> String {
    let now = fixture.now();
    let (source, from) = (source(api), now - DAY * 30);
    let new = NewBackfill { source: &source, from, to: now, again: false, origin: Origin::Command, now };
    backfill::start_ordered(&fixture.app, &new, orders).await.unwrap().unwrap()
}

async fn processing_jobs(app: &TestApp) -> usize {
    app.jobs().await.iter().filter(|job| job.kind == "process_call").count()
}

async fn a_plan_counts_and_writes_nothing(backend: Backend) {
    let plan = Plan {
        sources: &[("language = \"en\"\n", "language = \"en\"\nrecordings_kept = \"1d\"\n")],
        ..Plan::default()
    };
    let fixture = Fixture::planned(backend, plan, |now| {
        let mut calls = some(Api::Atoms, 10)(now);
        calls[0].channel = aftercall::domain::CallChannel::Chat;
        calls[1].status = aftercall::domain::CallStatus::Failed;
        calls
    })
    .await;
    let (from, to) = (fixture.now() - DAY * 30, fixture.now());
    let orders = Orders { rate_per_minute: Some(4), only: None };
    let look =
        async || backfill_plan::plan(&fixture.app, &source(Api::Atoms), (from, to), false, orders).await.unwrap();
    let plan = look().await;
    assert_eq!((plan.listed, plan.to_do), (10, 8), "{plan:?}");
    assert_eq!(plan.skipped.values().sum::<u64>(), 2, "{plan:?}");
    assert_eq!(plan.estimated_minutes, Some(2.0));
    assert_eq!(plan.expiring_within_a_day, 8);
    assert!(plan.audio_hours > 0.0 && plan.bytes_estimated > 0);
    assert_eq!(fixture.store.calls(&aftercall::store::CallFilter::default()).await.unwrap().len(), 0);
    assert!(fixture.jobs().await.is_empty());
    assert_eq!(fixture.platform.requests().count(RequestKind::Recording), 0);
    // What has been done is not planned again.
    start(&fixture, Api::Atoms, Orders::default()).await;
    fixture.run_pending().await;
    assert_eq!(look().await.to_do, 0);
}

async fn a_paused_backfill_feeds_nothing_until_it_is_resumed(backend: Backend) {
    let fixture = Fixture::start(backend, some(Api::KrosaiV1, 6)).await;
    let id = start(&fixture, Api::KrosaiV1, Orders::default()).await;
    assert!(fixture.store.steer_backfill(&id, Steering::Paused).await.unwrap());
    fixture.run_pending().await;
    assert_eq!(processing_jobs(&fixture).await, 0);
    let shown = backfill_status::shown(&fixture.app, &fixture.backfill(&id).await).await.unwrap();
    assert_eq!((shown["state"].as_str(), shown["left"].as_u64()), (Some("paused"), Some(0)), "{shown}");
    // Whoever asks for it, in whatever process.
    assert!(fixture.app.again().await.store.steer_backfill(&id, Steering::Run).await.unwrap());
    fixture.advance(Duration::from_secs(10)).await;
    fixture.run_pending().await;
    let backfill = fixture.backfill(&id).await;
    assert_eq!((backfill.state, backfill.done, backfill.enqueued), (BackfillState::Done, 6, 6), "{backfill:?}");
    assert!(!fixture.store.steer_backfill(&id, Steering::Paused).await.unwrap(), "it is over");
    assert!(!fixture.store.steer_backfill("nothing", Steering::Paused).await.unwrap());
}

async fn a_cancelled_backfill_takes_back_what_has_not_begun(backend: Backend) {
    let fixture = Fixture::start(backend, some(Api::KrosaiV1, 30)).await;
    let id = start(&fixture, Api::KrosaiV1, Orders { rate_per_minute: Some(1), only: None }).await;
    fixture.run_pending().await;
    assert_eq!(fixture.backfill(&id).await.done, 1, "at one a minute");
    assert!(fixture.store.steer_backfill(&id, Steering::Cancelled).await.unwrap());
    assert!(!fixture.store.steer_backfill(&id, Steering::Run).await.unwrap(), "cancelled is for good");
    fixture.advance(Duration::from_secs(10)).await;
    fixture.run_pending().await;
    let backfill = fixture.backfill(&id).await;
    assert_eq!(backfill_status::state_of(&backfill), "cancelled");
    assert_eq!((backfill.done, backfill.skipped["cancelled"]), (1, 29), "{backfill:?}");
    assert_eq!(processing_jobs(&fixture).await, 1);
}

async fn a_rate_is_kept(backend: Backend) {
    let fixture = Fixture::start(backend, some(Api::KrosaiV1, 5)).await;
    let id = start(&fixture, Api::KrosaiV1, Orders { rate_per_minute: Some(2), only: None }).await;
    for done in 1..=5 {
        fixture.run_pending().await;
        assert_eq!(fixture.backfill(&id).await.enqueued, done, "two a minute");
        let shown = backfill_status::shown(&fixture.app, &fixture.backfill(&id).await).await.unwrap();
        assert_eq!(shown["left"], 5 - done, "{shown}");
        fixture.advance(Duration::from_secs(31)).await;
    }
    fixture.run_pending().await;
    assert_eq!(fixture.backfill(&id).await.state, BackfillState::Done);
}

async fn organisations_take_turns_and_what_expires_goes_first(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let now = app.now();
    let source_name = source(Api::KrosaiV1);
    let new =
        NewBackfill { source: &source_name, from: now - DAY, to: now, again: false, origin: Origin::Command, now };
    let mut tx = app.store.begin().await.unwrap();
    let id = app.store.add_backfill(&mut tx, &new).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    let (big, small) = (OrgUid::new(), OrgUid::new());
    let mut names = BTreeMap::new();
    for n in 0..12_i64 {
        let record = super::store::admit(&app.store, &source_call(&format!("c-{n}")), now).await;
        // Ten of one organisation, all older; two of the other; the newest of the first is about to expire.
        let org = if n < 10 { big } else { small };
        let expires_at = Some(if n == 9 { now + SignedDuration::from_hours(1) } else { now + DAY * 40 });
        let ended_at = now - DAY * 2 + SignedDuration::from_mins(n);
        let item = NewItem { call: record.uid, org: Some(org), ended_at, expires_at };
        let mut tx = app.store.begin().await.unwrap();
        assert!(app.store.add_backfill_item(&mut tx, &id, item).await.unwrap());
        tx.commit().await.unwrap();
        names.insert(record.uid, n);
    }
    let mut tx = app.store.begin().await.unwrap();
    app.store.take_turns(&mut tx, &id).await.unwrap();
    tx.commit().await.unwrap();
    let next = app.store.next_backfill_items(&id, now + DAY, 6).await.unwrap();
    let order: Vec<i64> = next.iter().map(|item| names[&item.call_uid]).collect();
    assert_eq!(order, [9, 0, 10, 1, 11, 2]);
    assert_eq!(app.store.waiting_items(&id, now + DAY).await.unwrap(), (12, 1));
}

async fn a_backfill_by_outcome_repeats_those_calls_only(backend: Backend) {
    let fixture = Fixture::start(backend, |now| {
        let mut calls = some(Api::KrosaiV1, 4)(now);
        calls[0].text = aftercall::demo::SampleText::None;
        calls
    })
    .await;
    start(&fixture, Api::KrosaiV1, Orders::default()).await;
    fixture.run_pending().await;
    assert_eq!(fixture.record(Api::KrosaiV1, "call_000000").await.outcome, Some(Outcome::NoEngine));
    let before = fixture.platform.requests().count(RequestKind::Detail);
    let id = start(
        &fixture,
        Api::KrosaiV1,
        Orders { rate_per_minute: None, only: Some(OurCalls::Outcome(Outcome::NoEngine)) },
    )
    .await;
    fixture.run_pending().await;
    let backfill = fixture.backfill(&id).await;
    assert_eq!((backfill.listed, backfill.done), (1, 1), "{backfill:?}");
    assert_eq!(fixture.platform.requests().count(RequestKind::Detail) - before, 1, "the other calls are left alone");
    assert_eq!(fixture.asked(RequestKind::Recording, "call_000000"), 1, "its recording is in our store");
}

async fn ones_flood_does_not_hold_up_anothers_call(backend: Backend) {
    const FLOOD: usize = 300;
    let app = TestApp::start(backend, "").await;
    let of = |tenant: &str, n: usize| NewJob { tenant: Some(tenant.to_owned()), ..job(&format!("{tenant}-{n}")) };
    for n in 0..FLOOD {
        app.enqueue(of("a", n)).await;
    }
    let began = Arc::new(Mutex::new(Vec::new()));
    let seen = began.clone();
    let handler = script(move |job| {
        seen.lock().unwrap().push(job.payload["key"].as_str().unwrap().to_owned());
        async move { Verdict::Complete }
    });
    app.enqueue(of("b", 0)).await;
    let crew = app.crew("w", 4, handler).await;
    eventually("all jobs to end", async || {
        app.jobs().await.iter().all(|job| job.state == JobState::Completed).then_some(())
    })
    .await;
    crew.drain().await;
    let began = began.lock().unwrap().clone();
    let place = began.iter().position(|key| key == "b-0").unwrap();
    assert!(place <= 12, "{place} jobs of the flood began before the other's one");
    // In another lane a tenant has its own front, and what has ended makes room.
    let other = NewJob { lane: Lane::Backfill, ..of("a", FLOOD) };
    app.enqueue(other).await;
    app.leave_queue();
}

async fn a_worker_that_cannot_work_rests_and_goes_on_by_itself(backend: Backend) {
    let settings = "[worker]\nrest_after = 3\nrest_look = \"100ms\"\nmax_attempts = 50\nbackoff_base = \"20ms\"\n\
                    backoff_max = \"50ms\"\nheartbeat = \"1s\"\n[schedule]\nenabled = false\n";
    let plan = Plan { settings, ..Plan::default() };
    let fixture = Fixture::planned(backend, plan, some(Api::KrosaiV1, 4)).await;
    // A file where the objects' directory should be: every write fails until it is gone.
    let objects = fixture.data_dir().join("objects");
    let _ = std::fs::remove_dir_all(&objects);
    std::fs::write(&objects, b"in the way").unwrap();
    for n in 0..4 {
        fixture.trigger(Api::KrosaiV1, &format!("call_{n:06}")).await;
    }
    let working = fixture.work();
    let cause = fixture.rests().await;
    assert!(cause.contains("object"), "{cause}");
    let attempts: i64 = fixture.jobs().await.iter().map(|job| job.attempt).sum();
    assert!(attempts <= 12, "{attempts} attempts were used up before it rested");
    assert!(fixture.jobs().await.iter().all(|job| job.state != JobState::DeadLetter));
    std::fs::remove_file(&objects).unwrap();
    eventually("the calls to be done", async || {
        fixture.jobs().await.iter().all(|job| job.state == JobState::Completed).then_some(())
    })
    .await;
    assert_eq!(fixture.resting_for().await, None);
    working.drain().await;
}
