//! What a platform is asked, and how often: budgets, rates and pauses that all workers share, and polls that find what
//! is new without reading everything.

use std::time::Duration;

use aftercall::demo::{Api, FaultAnswer, ListOrder, RequestKind, SampleCall};
use aftercall::domain::{CallId, CallStatus, Classify, Fault};
use aftercall::jobs::{Stop, reconcile};
use aftercall::source::SourceError;
use aftercall::wire::Window;
use jiff::{SignedDuration, Timestamp};

use crate::harness::{Backend, Fixture, Plan, TestApp, on_every_backend, source};

on_every_backend!(
    a_days_budget_is_shared_and_begins_anew_at_midnight,
    a_pause_asked_of_one_worker_holds_all,
    a_window_that_is_used_up_is_waited_for,
    only_so_many_requests_are_under_way_at_once,
    a_dead_platform_is_left_alone_and_found_alive_again,
    a_poll_reads_the_top_of_the_list_only,
    a_long_call_is_found_when_it_ends,
    a_date_filter_is_used_where_it_is_obeyed,
    a_list_in_another_order_is_read_whole,
    a_pass_goes_on_over_many_polls_and_tells_what_vanished,
    a_pass_takes_what_a_budget_leaves,
);

const HOUR: Duration = Duration::from_secs(3600);

fn one_each(now: Timestamp) -> Vec<SampleCall> {
    Api::ALL.into_iter().map(|api| SampleCall::numbered(api, 1, now - SignedDuration::from_mins(5))).collect()
}

/// Calls one a minute, newest last.
fn many(api: Api, count: u32) -> impl FnOnce(Timestamp) -> Vec<SampleCall> {
    move |now| {
        let call = |n| SampleCall::numbered(api, n, now - SignedDuration::from_mins(i64::from(count - n) + 5));
        (0..count).map(call).collect()
    }
}

async fn ask(app: &TestApp, api: Api, id: &str) -> Result<(), SourceError> {
    let platform = app.platform(&source(api)).unwrap();
    platform.source.get(&CallId::parse(id).unwrap()).await.map(drop)
}

fn pause(err: &SourceError) -> Duration {
    match err.fault() {
        Fault::Throttled { retry_after } => retry_after,
        fault => panic!("{err}: {fault:?}"),
    }
}

/// Turns the clock to when it is next this time of the day, which is what a day's budget goes by.
async fn wait_until(fixture: &Fixture, time: Duration) {
    let now = fixture.now().as_millisecond().rem_euclid(86_400_000);
    let ahead = (i64::try_from(time.as_millis()).unwrap() - now).rem_euclid(86_400_000);
    fixture.advance(Duration::from_millis(ahead.unsigned_abs())).await;
}

/// One poll of a source, and how many pages it asked for. The jobs it makes are left unrun: they are looked at elsewhere.
async fn poll(fixture: &Fixture, api: Api, window: SignedDuration) -> usize {
    fixture.leave_queue();
    let before = fixture.platform.requests().count(RequestKind::List);
    let window = Window { from: fixture.now() - window, to: fixture.now() };
    match reconcile::poll(fixture, &source(api), window).await {
        Ok(missing) => assert_eq!(missing, 0),
        Err(Stop::Trouble(trouble)) if matches!(trouble.fault, Fault::Throttled { .. }) => {}
        Err(stop) => panic!("{stop:?}"),
    }
    fixture.platform.requests().count(RequestKind::List) - before
}

const BUDGET: &[(&str, &str)] = &[("language = \"en\"\n", "language = \"en\"\nrequests_per_day = 6\n")];

async fn a_days_budget_is_shared_and_begins_anew_at_midnight(backend: Backend) {
    let fixture = Fixture::planned(backend, Plan { sources: BUDGET, ..Plan::default() }, one_each).await;
    wait_until(&fixture, 12 * HOUR).await;
    let other = fixture.app.again().await;
    for _ in 0..3 {
        ask(&fixture, Api::KrosaiV1, "call_000001").await.unwrap();
        ask(&other, Api::KrosaiV1, "call_000001").await.unwrap();
    }
    for app in [&fixture.app, &other] {
        let wait = pause(&ask(app, Api::KrosaiV1, "call_000001").await.unwrap_err());
        let midnight = 86_400 - app.now().as_second().rem_euclid(86_400);
        assert!(wait.as_secs().abs_diff(midnight.unsigned_abs()) <= 2, "{wait:?} until {midnight}");
    }
    assert_eq!(fixture.asked(RequestKind::Detail, "call_000001"), 6);
    // Another source has its own.
    ask(&other, Api::KrosaiCockpit, "0b0f6c0e-0000-4000-9000-000000000001").await.unwrap();
    fixture.advance(24 * HOUR).await;
    ask(&other, Api::KrosaiV1, "call_000001").await.unwrap();
}

const RATE: &[(&str, &str)] = &[("language = \"en\"\n", "language = \"en\"\nrequests_per_second = 1000\n")];

async fn a_pause_asked_of_one_worker_holds_all(backend: Backend) {
    let fixture = Fixture::planned(backend, Plan { sources: RATE, ..Plan::default() }, one_each).await;
    let other = fixture.app.again().await;
    fixture.platform.set_faults(|_| Some(FaultAnswer::throttled(Api::KrosaiV1, 40.0)));
    assert_eq!(pause(&ask(&fixture, Api::KrosaiV1, "call_000001").await.unwrap_err()), Duration::from_secs(40));
    fixture.platform.clear_faults();
    let wait = pause(&ask(&other, Api::KrosaiV1, "call_000001").await.unwrap_err());
    assert!((30..=40).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(fixture.asked(RequestKind::Detail, "call_000001"), 1, "the other worker asked during the pause");
    fixture.advance(Duration::from_secs(41)).await;
    ask(&other, Api::KrosaiV1, "call_000001").await.unwrap();
}

async fn a_window_that_is_used_up_is_waited_for(backend: Backend) {
    let fixture = Fixture::planned(backend, Plan { sources: RATE, ..Plan::default() }, one_each).await;
    let body = serde_json::json!({ "id": "call_000001", "status": "completed" }).to_string();
    let reset = (fixture.now() + SignedDuration::from_secs(50)).as_second().to_string();
    let date = fixture.now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    fixture.platform.set_faults(move |_| {
        let headers = vec![
            ("x-ratelimit-remaining", "0".to_owned()),
            ("x-ratelimit-reset", reset.clone()),
            ("date", date.clone()),
        ];
        Some(FaultAnswer::Status { code: 200, headers, body: body.clone() })
    });
    ask(&fixture, Api::KrosaiV1, "call_000001").await.unwrap();
    let wait = pause(&ask(&fixture, Api::KrosaiV1, "call_000001").await.unwrap_err());
    assert!((40..=50).contains(&wait.as_secs()), "{wait:?}");
}

const AT_ONCE: &[(&str, &str)] = &[("language = \"en\"\n", "language = \"en\"\nrequests_at_once = 1\n")];

async fn only_so_many_requests_are_under_way_at_once(backend: Backend) {
    let fixture = Fixture::planned(backend, Plan { sources: AT_ONCE, ..Plan::default() }, one_each).await;
    let other = fixture.app.again().await;
    let (send, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    fixture.platform.set_faults(move |_| {
        send.send(()).unwrap();
        Some(FaultAnswer::Hang)
    });
    let first = fixture.app.app.clone();
    let asking = tokio::spawn(async move {
        let platform = first.platform(&source(Api::KrosaiV1)).unwrap();
        platform.source.get(&CallId::parse("call_000001").unwrap()).await.map(drop)
    });
    arrived.recv().await.unwrap();
    let wait = pause(&ask(&other, Api::KrosaiV1, "call_000001").await.unwrap_err());
    assert!(wait < Duration::from_secs(1), "{wait:?}");
    // Its worker dies: the place is taken until the request cannot be under way any more.
    asking.abort();
    fixture.platform.clear_faults();
    fixture.advance(Duration::from_secs(91)).await;
    ask(&other, Api::KrosaiV1, "call_000001").await.unwrap();
    ask(&fixture, Api::KrosaiV1, "call_000001").await.unwrap();
}

async fn a_dead_platform_is_left_alone_and_found_alive_again(backend: Backend) {
    let fixture = Fixture::planned(backend, Plan { sources: RATE, ..Plan::default() }, one_each).await;
    let other = fixture.app.again().await;
    fixture.platform.set_faults(|_| Some(FaultAnswer::status(503)));
    for round in 0..60 {
        let app = if round % 2 == 0 { &fixture.app } else { &other };
        ask(app, Api::KrosaiV1, "call_000001").await.unwrap_err();
    }
    assert_eq!(fixture.asked(RequestKind::Detail, "call_000001"), 20, "a dead platform is asked no more");
    fixture.advance(Duration::from_secs(6)).await;
    ask(&fixture, Api::KrosaiV1, "call_000001").await.unwrap_err();
    ask(&other, Api::KrosaiV1, "call_000001").await.unwrap_err();
    assert_eq!(fixture.asked(RequestKind::Detail, "call_000001"), 21, "one request finds out for all");
    fixture.platform.clear_faults();
    fixture.advance(Duration::from_secs(11)).await;
    for app in [&fixture.app, &other] {
        ask(app, Api::KrosaiV1, "call_000001").await.unwrap();
    }
}

async fn a_poll_reads_the_top_of_the_list_only(backend: Backend) {
    let fixture = Fixture::start(backend, many(Api::KrosaiCockpit, 600)).await;
    let two_days = SignedDuration::from_hours(48);
    assert!(poll(&fixture, Api::KrosaiCockpit, two_days).await >= 6, "the first poll reads the whole window");
    fixture.advance(Duration::from_secs(300)).await;
    let asked = poll(&fixture, Api::KrosaiCockpit, two_days).await;
    assert!(asked <= 3, "{asked} pages for a list of which nothing is new");
    let new = SampleCall::numbered(Api::KrosaiCockpit, 9999, fixture.now() - SignedDuration::from_secs(5));
    fixture.platform.add_call(new.clone());
    fixture.advance(Duration::from_secs(300)).await;
    let asked = poll(&fixture, Api::KrosaiCockpit, two_days).await;
    assert!(asked <= 3, "{asked} pages for one new call");
    assert!(fixture.find(Api::KrosaiCockpit, &new.id).await.is_some(), "the new call was not found");
}

async fn a_long_call_is_found_when_it_ends(backend: Backend) {
    let fixture = Fixture::start(backend, |now| {
        let mut calls = many(Api::KrosaiCockpit, 600)(now);
        calls[300].status = CallStatus::InProgress;
        calls
    })
    .await;
    let two_days = SignedDuration::from_hours(48);
    poll(&fixture, Api::KrosaiCockpit, two_days).await;
    let mut long = many(Api::KrosaiCockpit, 600)(fixture.now()).remove(300);
    assert!(fixture.find(Api::KrosaiCockpit, &long.id).await.is_none());
    long.status = CallStatus::Completed;
    fixture.platform.add_call(long.clone());
    fixture.advance(Duration::from_secs(300)).await;
    poll(&fixture, Api::KrosaiCockpit, two_days).await;
    assert!(fixture.find(Api::KrosaiCockpit, &long.id).await.is_some(), "it began five hours before the poll");
}

async fn a_date_filter_is_used_where_it_is_obeyed(backend: Backend) {
    let settings = "[reconcile]\npass_every = \"1m\"\n";
    let plan = || Plan { settings, ..Plan::default() };
    let two_days = SignedDuration::from_hours(48);
    for (api, obeys) in [(Api::KrosaiV1, true), (Api::KrosaiCockpit, false)] {
        let fixture = Fixture::planned(backend, plan(), many(api, 150)).await;
        poll(&fixture, api, two_days).await;
        fixture.advance(Duration::from_secs(120)).await;
        poll(&fixture, api, two_days).await;
        let state = fixture.store.reconcile_state(&source(api)).await.unwrap();
        assert_eq!(state.obeys_filter, Some(obeys), "{api:?}");
        fixture.advance(Duration::from_secs(120)).await;
        let before = fixture.platform.requests().iter().count();
        poll(&fixture, api, two_days).await;
        let requests = fixture.platform.requests();
        let filtered = requests.iter().skip(before).filter(|request| request.kind == RequestKind::List);
        let filtered = filtered.filter(|request| request.query.as_deref().unwrap_or("").contains("from_date")).count();
        assert_eq!(filtered > 0, obeys, "{api:?}");
    }
}

async fn a_list_in_another_order_is_read_whole(backend: Backend) {
    let plan = Plan { builder: |builder| builder.order(ListOrder::OldestFirst), ..Plan::default() };
    let fixture = Fixture::planned(backend, plan, many(Api::Atoms, 450)).await;
    let two_days = SignedDuration::from_hours(48);
    poll(&fixture, Api::Atoms, two_days).await;
    let new = SampleCall::numbered(Api::Atoms, 9999, fixture.now() - SignedDuration::from_secs(5));
    fixture.platform.add_call(new.clone());
    fixture.advance(Duration::from_secs(300)).await;
    poll(&fixture, Api::Atoms, two_days).await;
    assert!(fixture.find(Api::Atoms, &new.id).await.is_some(), "the new call stands on the last page");
}

async fn a_pass_goes_on_over_many_polls_and_tells_what_vanished(backend: Backend) {
    let settings = "[reconcile]\npass_every = \"3h\"\npages_per_poll = 2\n";
    let fixture = Fixture::planned(backend, Plan { settings, ..Plan::default() }, many(Api::KrosaiCockpit, 700)).await;
    let two_days = SignedDuration::from_hours(48);
    poll(&fixture, Api::KrosaiCockpit, two_days).await;
    let gone = SampleCall::numbered(Api::KrosaiCockpit, 350, fixture.now()).id;
    fixture.platform.remove_call(Api::KrosaiCockpit, &gone);
    fixture.advance(3 * HOUR).await;
    let mut polls = 0;
    let state = loop {
        let asked = poll(&fixture, Api::KrosaiCockpit, two_days).await;
        polls += 1;
        assert!(asked <= 8, "{asked} pages in one poll");
        assert!(polls < 20, "the pass never ends");
        let state = fixture.store.reconcile_state(&source(Api::KrosaiCockpit)).await.unwrap();
        if state.pass.is_none() {
            break state;
        }
        fixture.advance(Duration::from_secs(300)).await;
    };
    assert!(polls >= 3, "{polls}");
    let since = state.passed_at.unwrap();
    let window = (fixture.now() - two_days, fixture.now() - SignedDuration::from_hours(1));
    assert_eq!(fixture.store.unlisted(&source(Api::KrosaiCockpit), window, since).await.unwrap(), 1);
    assert_eq!(fixture.reconcile(Api::KrosaiCockpit).await.vanished, 1);
}

const TIGHT: &[(&str, &str)] = &[("language = \"en\"\n", "language = \"en\"\nrequests_per_day = 400\n")];

async fn a_pass_takes_what_a_budget_leaves(backend: Backend) {
    let settings = "[reconcile]\npass_every = \"1h\"\npages_per_poll = 1000\n";
    let plan = Plan { settings, sources: TIGHT, ..Plan::default() };
    let fixture = Fixture::planned(backend, plan, |now| {
        let mut calls = many(Api::KrosaiCockpit, 30)(now);
        for call in &mut calls {
            call.status = CallStatus::Failed;
        }
        calls
    })
    .await;
    // So that thirty hours on, it is a quarter to twelve of the day after.
    wait_until(&fixture, 17 * HOUR + HOUR * 3 / 4).await;
    let two_days = SignedDuration::from_hours(48);
    poll(&fixture, Api::KrosaiCockpit, two_days).await;
    for _ in 0..30 {
        fixture.advance(HOUR).await;
        poll(&fixture, Api::KrosaiCockpit, two_days).await;
    }
    let requests = fixture.platform.requests().iter().count();
    assert!(requests <= 2 * 400, "{requests} requests within two days of 400 each");
    // A listing may use what is left, and leaves enough for calls.
    let platform = fixture.platform(&source(Api::KrosaiCockpit)).unwrap();
    let listing = async {
        for _ in 0..500 {
            if platform.source.walk(Window::ALWAYS).next().await.is_err() {
                return true;
            }
        }
        false
    };
    assert!(listing.await, "listings were never stopped");
    ask(&fixture, Api::KrosaiCockpit, "0b0f6c0e-0000-4000-9000-000000000001").await.unwrap();
}
