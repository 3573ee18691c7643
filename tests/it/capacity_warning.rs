//! A source whose recording links work for an hour and whose recordings are gone after three days: nothing is lost while
//! there is time for all, and a loss is predicted a day before it happens.

use std::time::Duration;

use aftercall::demo::{Api, FaultAnswer, SampleCall};
use aftercall::domain::Outcome;
use aftercall::jobs::backfill;
use aftercall::store::{CallFilter, NewBackfill, Orders, Origin, Steering};
use aftercall::telemetry;
use jiff::{SignedDuration, Timestamp};

use crate::harness::{Backend, Fixture, Plan, logs, on_every_backend, source};

on_every_backend!(recordings_that_are_deleted_are_fetched_before_or_warned_of);

const KEPT: SignedDuration = SignedDuration::from_hours(72);
const MINUTE: Duration = Duration::from_secs(60);

/// One after the other: the metric and the log that they read are the whole process's.
async fn recordings_that_are_deleted_are_fetched_before_or_warned_of(backend: Backend) {
    nothing_is_lost_while_there_is_time_for_all(backend).await;
    a_loss_is_predicted_a_day_before_it_happens(backend).await;
    a_pause_that_costs_recordings_is_warned_of(backend).await;
}

/// Tests of both engines run side by side in one process, whose metrics are one: each has a source of its own.
const fn api(backend: Backend) -> Api {
    match backend {
        Backend::Sqlite => Api::KrosaiV1,
        Backend::Postgres => Api::KrosaiCockpit,
    }
}

/// A platform that deletes recordings three days after the call, and says when they were asked for too late.
async fn forgetful(backend: Backend, ended_ago: impl Fn(u32) -> SignedDuration, count: u32) -> Fixture {
    let sources: &[(&str, &str)] = match backend {
        Backend::Sqlite => &[("name = \"krosai\"\n", "name = \"krosai\"\nrecordings_kept = \"3d\"\n")],
        Backend::Postgres => {
            &[("name = \"krosai-cockpit\"\n", "name = \"krosai-cockpit\"\nrecordings_kept = \"3d\"\n")]
        }
    };
    let plan = Plan { builder: |builder| builder.link_ttl(SignedDuration::from_hours(1)), sources, ..Plan::default() };
    let mut ends = Vec::new();
    let fixture = Fixture::planned(backend, plan, |now| {
        let all: Vec<SampleCall> =
            (0..count).map(|n| SampleCall::numbered(api(backend), n, now - ended_ago(n))).collect();
        ends.extend(all.iter().map(|call| (call.id.clone(), call.ended_at)));
        all
    })
    .await;
    let clock = fixture.app.clock.clone();
    let is_gone = move |id: &str| ends.iter().any(|(known, ended)| known == id && *ended + KEPT <= clock.now());
    fixture.platform.set_faults(move |request| {
        let recording = request.kind == aftercall::demo::RequestKind::Recording;
        let gone = recording && request.call_id.as_deref().is_some_and(&is_gone);
        gone.then(|| FaultAnswer::status(404))
    });
    telemetry::metrics_handle().unwrap();
    fixture
}

async fn start(fixture: &Fixture, backend: Backend, rate_per_minute: Option<u32>) -> String {
    let source = source(api(backend));
    let (from, to) = (fixture.now() - KEPT * 2, fixture.now());
    let new = NewBackfill { source: &source, from, to, again: false, origin: Origin::Command, now: fixture.now() };
    let orders = Orders { rate_per_minute, only: None };
    backfill::start_ordered(fixture, &new, orders).await.unwrap().unwrap()
}

/// Turns the clock and lets the workers do what is due.
async fn after(fixture: &Fixture, pause: Duration) {
    fixture.advance(pause).await;
    fixture.run_pending().await;
}

async fn ended(fixture: &Fixture, outcome: Outcome) -> usize {
    let all = fixture.store.calls(&CallFilter::default()).await.unwrap();
    all.iter().filter(|record| record.outcome == Some(outcome)).count()
}

/// What the metric says of the recordings at risk.
fn at_risk(backend: Backend) -> Option<u64> {
    let metrics = telemetry::metrics_handle().unwrap().render();
    let name = format!("{}{{source=\"{}\"}} ", telemetry::RECORDINGS_AT_RISK, source(api(backend)));
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map(|value| value.parse().unwrap())
}

/// The moments from which on the log says that recordings of this source will be lost, as it was said.
fn warned(backend: Backend) -> Vec<Timestamp> {
    let (text, name) = (String::from_utf8(logs()).unwrap(), format!("source={} ", source(api(backend))));
    let of_loss = |line: &&str| line.contains("will be deleted at the source") && line.contains(&name);
    let first = |line: &str| line.split("first_lost=").nth(1)?.split_whitespace().next()?.parse().ok();
    text.lines().filter(of_loss).filter_map(first).collect()
}

/// The links of the list are long dead when their turn comes, and each recording is fetched minutes before it is deleted.
async fn nothing_is_lost_while_there_is_time_for_all(backend: Backend) {
    const CALLS: u32 = 10;
    // The n-th is gone two hours and five minutes per call from now; they are listed in another order.
    let order = |n: u32| n * 7 % CALLS;
    let ended_ago = |n: u32| KEPT - SignedDuration::from_mins(125 + 5 * i64::from(order(n)));
    let fixture = forgetful(backend, ended_ago, CALLS).await;
    let id = start(&fixture, backend, Some(1)).await;
    fixture.run_pending().await;
    assert_eq!(ended(&fixture, Outcome::Done).await, 1, "the first of them");
    assert!(fixture.store.steer_backfill(&id, Steering::Paused).await.unwrap());
    after(&fixture, MINUTE * 115).await;
    assert_eq!(ended(&fixture, Outcome::Done).await, 1);
    assert!(fixture.store.steer_backfill(&id, Steering::Run).await.unwrap());
    // Room for one call in five minutes, and one recording is deleted every five minutes.
    for _ in 0..=CALLS {
        after(&fixture, MINUTE * 5).await;
    }
    assert_eq!(ended(&fixture, Outcome::Done).await, CALLS as usize);
    assert_eq!(fixture.backfill(&id).await.failed, 0);
}

async fn a_loss_is_predicted_a_day_before_it_happens(backend: Backend) {
    const CALLS: u32 = 48;
    // All are gone some forty hours from now.
    let ended_ago = |n: u32| KEPT - SignedDuration::from_hours(40) + SignedDuration::from_secs(i64::from(n));
    let fixture = forgetful(backend, ended_ago, CALLS).await;
    let before = warned(backend).len();
    let id = start(&fixture, backend, Some(1)).await;
    fixture.run_pending().await;
    assert_eq!(warned(backend).len(), before, "nobody knows yet how fast they go");
    // One an hour: forty of them in time, the rest not.
    for _ in 0..2 {
        after(&fixture, MINUTE * 60).await;
    }
    let lost = at_risk(backend).unwrap();
    assert!((3..=12).contains(&lost), "{lost}");
    let said = warned(backend);
    assert!(said.len() > before, "it is said in the log");
    let notice = said.last().unwrap().duration_since(fixture.now());
    assert!(notice >= SignedDuration::from_hours(24), "{notice}");
    assert_eq!(ended(&fixture, Outcome::SourceExpired).await, 0);
    // Somebody acts on it, with a day left.
    assert!(fixture.store.rate_backfill(&id, None).await.unwrap());
    after(&fixture, MINUTE * 10).await;
    after(&fixture, MINUTE * 10).await;
    assert_eq!(ended(&fixture, Outcome::Done).await, CALLS as usize, "none was lost");
}

async fn a_pause_that_costs_recordings_is_warned_of(backend: Backend) {
    let ended_ago = |n: u32| KEPT - SignedDuration::from_hours(30) + SignedDuration::from_secs(i64::from(n));
    let fixture = forgetful(backend, ended_ago, 4).await;
    let id = start(&fixture, backend, Some(1)).await;
    fixture.run_pending().await;
    let before = warned(backend).len();
    assert!(fixture.store.steer_backfill(&id, Steering::Paused).await.unwrap());
    after(&fixture, MINUTE * 75).await;
    assert_eq!(warned(backend).len(), before + 1);
    for _ in 0..3 {
        after(&fixture, MINUTE * 5).await;
    }
    assert_eq!(warned(backend).len(), before + 1, "said once an hour, not at every look");
    assert!(fixture.store.steer_backfill(&id, Steering::Run).await.unwrap());
    assert!(fixture.store.rate_backfill(&id, None).await.unwrap());
    after(&fixture, MINUTE).await;
    assert_eq!(ended(&fixture, Outcome::Done).await, 4);
}
