//! What the work used, entered with it: compared with what the platform and the object store saw.

use aftercall::demo::{self, Api, FaultAnswer, RequestKind, SampleCall, SampleText};
use aftercall::domain::{CallUid, OrgUid, Outcome, SourceName};
use aftercall::jobs::schedule::Schedules;
use aftercall::store::{By, LedgerEntry, Pricing, Sum};
use aftercall::telemetry::Used;
use jiff::{SignedDuration, Timestamp};

use crate::harness::{Backend, Fixture, Plan, TestApp, on_every_backend};

on_every_backend!(
    the_ledger_agrees_with_what_others_counted,
    an_attempt_that_failed_is_entered_too,
    time_of_an_engine_is_entered_where_one_listened,
    old_days_are_summed_up_and_every_sum_stays_as_it_was,
    a_sweep_sums_up_what_is_past_its_term,
);

fn some(count: u32) -> impl FnOnce(Timestamp) -> Vec<SampleCall> {
    move |now| (0..count).map(|n| SampleCall::numbered(Api::KrosaiV1, n, now - SignedDuration::from_mins(5))).collect()
}

async fn sums(fixture: &Fixture, by: By) -> Vec<Sum> {
    let day = SignedDuration::from_hours(24);
    fixture.store.ledger(by, (fixture.now() - day, fixture.now() + day)).await.unwrap()
}

async fn the_ledger_agrees_with_what_others_counted(backend: Backend) {
    let fixture = Fixture::start(backend, some(3)).await;
    for n in 0..3 {
        fixture.trigger(Api::KrosaiV1, &format!("call_{n:06}")).await;
    }
    fixture.run_pending().await;
    let all = sums(&fixture, By::Source).await;
    assert_eq!(all.len(), 1);
    let sum = &all[0];
    assert_eq!((sum.of.as_deref(), sum.calls, sum.attempts), (Some("krosai"), 3, 3));
    let requests = fixture.platform.requests();
    let asked = requests.count(RequestKind::Detail)
        + requests.count(RequestKind::RecordingLink)
        + requests.count(RequestKind::List);
    assert_eq!(sum.platform_requests, asked as i64);
    let (mut writes, mut bytes, mut original) = (0, 0, 0);
    for n in 0..3 {
        let record = fixture.record(Api::KrosaiV1, &format!("call_{n:06}")).await;
        writes += record.artifacts.len() as i64;
        bytes += record.artifacts.iter().map(|artifact| artifact.size_bytes as i64).sum::<i64>();
        original += record.original.map_or(0, |artifact| artifact.size_bytes as i64);
    }
    assert_eq!((sum.object_writes, sum.bytes_stored, sum.bytes_fetched), (writes, bytes, original));
    assert!(sum.audio_ms > 0);
    assert_eq!((sum.free, sum.unpriced, sum.priced, sum.cost_micros), (3, 0, 0, 0));
    assert_eq!(sums(&fixture, By::Call).await.len(), 3);
    assert_eq!(sums(&fixture, By::Organization).await.len(), 1);
    let today = fixture.now().strftime("%Y-%m-%d").to_string();
    assert_eq!(sums(&fixture, By::Day).await[0].of.as_deref(), Some(today.as_str()));
    assert_eq!(fixture.store.spent_since(Timestamp::UNIX_EPOCH).await.unwrap(), 0);
}

async fn an_attempt_that_failed_is_entered_too(backend: Backend) {
    let fixture = Fixture::start(backend, some(1)).await;
    fixture.platform.set_faults(|request| {
        (request.kind == RequestKind::Recording && request.nth == 1).then(|| FaultAnswer::status(500))
    });
    fixture.trigger(Api::KrosaiV1, "call_000000").await;
    fixture.run_pending().await;
    let all = sums(&fixture, By::Call).await;
    assert_eq!((all.len(), all[0].calls, all[0].attempts), (1, 1, 2));
    assert_eq!(all[0].platform_requests, fixture.asked(RequestKind::Detail, "call_000000") as i64);
}

async fn time_of_an_engine_is_entered_where_one_listened(backend: Backend) {
    let plan = Plan { settings: "[transcript]\nmodel = \"sample\"\n", ..Plan::default() };
    // One without words, and one whose words have their places already.
    let wanted = |call: &SampleCall| match call.api {
        Api::KrosaiV1 => call.text == SampleText::None,
        api => api == Api::Zudu,
    };
    let fixture = Fixture::planned(backend, plan, |now| {
        let done = demo::sample_calls(now).unwrap().into_iter().filter(|sample| sample.expected == Outcome::Done);
        done.map(|sample| sample.call).filter(wanted).collect()
    })
    .await;
    for api in [Api::KrosaiV1, Api::Zudu] {
        fixture.reconcile(api).await;
    }
    fixture.run_pending().await;
    let all = sums(&fixture, By::Engine).await;
    let of = |engine: Option<&str>| all.iter().find(|sum| sum.of.as_deref() == engine).unwrap();
    assert!(of(Some("embedded")).calls == 1 && of(Some("embedded")).engine_ms > 0, "{all:?}");
    assert_eq!((of(None).calls, of(None).engine_ms), (1, 0), "{all:?}");
}

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// What an attempt is told apart by.
struct Attempt<'a> {
    at: Timestamp,
    source: &'a str,
    org: OrgUid,
    call: CallUid,
    engine: Option<&'a str>,
    pricing: Pricing,
}

async fn enter(app: &TestApp, attempt: Attempt<'_>) {
    let entry = LedgerEntry {
        at: attempt.at,
        source: &SourceName::parse(attempt.source).unwrap(),
        org: attempt.org,
        call: attempt.call,
        ended: if attempt.engine.is_some() { "done" } else { "failed" },
        used: &Used::default(),
        audio_ms: 1000,
        engine: attempt.engine,
        pricing: attempt.pricing,
    };
    let mut tx = app.store.begin().await.unwrap();
    app.store.enter_ledger(&mut tx, &entry).await.unwrap();
    tx.commit().await.unwrap();
}

/// Five days of calls of two organisations: some fail first, on the same day or the day before; some have an engine's words.
async fn five_days(app: &TestApp, first: Timestamp) {
    let orgs = [OrgUid::new(), OrgUid::new()];
    for n in 0..40_i32 {
        let (org, call) = (orgs[usize::from(n % 3 == 0)], CallUid::new());
        let source = if n % 4 == 0 { "atoms" } else { "krosai" };
        let at = first + DAY * (n / 8) + SignedDuration::from_mins(i64::from(n) * 7 + 1);
        let (engine, pricing) = match n % 5 {
            0 => ("embedded", Pricing::Free),
            1 => ("foreign", Pricing::Cost { micros: 1500 }),
            _ => ("foreign", Pricing::Unpriced),
        };
        if n % 3 == 1 {
            let before = if n % 2 == 0 { SignedDuration::from_secs(30) } else { DAY };
            let pricing = Pricing::Free;
            enter(app, Attempt { at: at - before, source, org, call, engine: None, pricing }).await;
        }
        enter(app, Attempt { at, source, org, call, engine: Some(engine), pricing }).await;
    }
}

async fn old_days_are_summed_up_and_every_sum_stays_as_it_was(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let first: Timestamp = "2026-03-02T00:00:00Z".parse().unwrap();
    five_days(&app, first).await;
    let whole = (first - DAY * 2, first + DAY * 9);
    let every = [By::Source, By::Organization, By::Engine, By::Day];
    let look = async |period| {
        let mut sums = Vec::new();
        for by in every {
            sums.push(app.store.ledger(by, period).await.unwrap());
        }
        sums
    };
    let (before, spent) = (look(whole).await, app.store.spent_since(first).await.unwrap());
    assert_eq!(before[0].iter().map(|sum| sum.calls).sum::<i64>(), 40);
    assert!(before[2].len() == 3 && before[3].len() >= 5 && spent == 8 * 1500, "{before:?} {spent}");
    // The day that the moment lies in stays, and so does what comes after it.
    let until = first + DAY * 3 + SignedDuration::from_hours(5);
    let mut summed = 0;
    loop {
        let rows = app.store.roll_up_ledger_day(until).await.unwrap();
        summed += rows;
        assert_eq!((look(whole).await, app.store.spent_since(first).await.unwrap()), (before.clone(), spent));
        if rows == 0 {
            break;
        }
    }
    assert!(summed >= 24, "{summed}");
    assert_eq!(app.store.ledger(By::Call, whole).await.unwrap().len(), 16, "single calls of the days that are left");
    // A period that ends or begins between the days.
    let (early, late) = ((first - DAY * 2, first + DAY * 2), (first + DAY * 2, first + DAY * 9));
    let attempts = async |period| {
        let sums = app.store.ledger(By::Source, period).await.unwrap();
        sums.iter().map(|sum| sum.attempts).sum::<i64>()
    };
    let all: i64 = before[0].iter().map(|sum| sum.attempts).sum();
    assert_eq!(attempts(early).await + attempts(late).await, all);
}

async fn a_sweep_sums_up_what_is_past_its_term(backend: Backend) {
    let app = TestApp::start(backend, "[ledger]\nkeep = \"2d\"\n").await;
    let now = app.now();
    for days in 0..6 {
        let (org, call) = (OrgUid::new(), CallUid::new());
        let at = now - DAY * days;
        let attempt = Attempt { at, source: "krosai", org, call, engine: Some("embedded"), pricing: Pricing::Free };
        enter(&app, attempt).await;
    }
    let schedules = Schedules::load(&app).unwrap();
    schedules.tick(&app).await;
    app.advance(std::time::Duration::from_secs(2 * 3600)).await;
    schedules.tick(&app).await;
    app.run_pending().await;
    let single = app.store.ledger(By::Call, (now - DAY * 10, now + DAY)).await.unwrap();
    assert!((2..=3).contains(&single.len()), "{single:?}");
    let all = app.store.ledger(By::Source, (now - DAY * 10, now + DAY)).await.unwrap();
    assert_eq!((all[0].calls, all[0].attempts), (6, 6), "{all:?}");
}
