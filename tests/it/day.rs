//! A day of a large customer: 200,000 new calls on a platform that holds a million, the clock turned from poll to
//! poll. Everything is accounted for, and the platform itself counts what it was asked.
//!
//! The queue, the schedules, the polls and passes, the budget and the client are the real ones. Of a call's own job the
//! question to the platform, the record, the ledger and the completion are; its recording is left out, which is no
//! request to the platform and whose cost is measured elsewhere.
//!
//! `AFTERCALL_DAY_CALLS=200000 cargo test --release --test it day:: -- --nocapture --test-threads=1` is the full run;
//! the form of the suite is a five-hundredth of it, budget and all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aftercall::app::App;
use aftercall::domain::{CallId, Classify, Fault, Outcome, Side, SourceName, Stage};
use aftercall::jobs::schedule::Schedules;
use aftercall::jobs::{Job, Jobs, reconcile};
use aftercall::queue::{self, Failure, FinishedJobs, Handler, Kind, Lanes, Verdict};
use aftercall::record_outcome::{self, Ending};
use aftercall::store::{Admitted, Db, LedgerEntry, Pricing, ReconcileState};
use aftercall::telemetry::{self, Used};
use aftercall::wire::Window;
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use crate::harness::vast::{DateFilter, KEY, Vast};
use crate::harness::{Backend, Space, TestApp, on_every_backend};

on_every_backend!(a_day_is_accounted_for_within_its_budget, a_day_is_accounted_for_where_date_filters_are_obeyed,);

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Days of calls that the platform holds when the day begins.
const HELD_DAYS: i64 = 4;
/// How long a moment's work may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

const FIRST_IS_DONE: &str = "UPDATE call_record SET outcome = 'done', outcome_at = ended_at WHERE call_id = 'call_0'";

/// New calls of the day.
fn calls_a_day() -> u64 {
    std::env::var("AFTERCALL_DAY_CALLS").map_or(400, |calls| calls.parse().unwrap())
}

/// Between two polls: five minutes as shipped; fewer polls in the form of the suite.
fn poll_minutes() -> u64 {
    if calls_a_day() >= 20_000 { 5 } else { 15 }
}

/// Requests a day: 500,000 for 200,000 calls.
fn budget() -> u64 {
    calls_a_day() * 5 / 2
}

/// Everything but recordings.
struct WithoutMedia {
    app: Arc<App>,
    jobs: Jobs,
}

#[async_trait]
impl Handler for WithoutMedia {
    async fn run(&self, job: queue::JobAttempt) -> Verdict {
        if job.kind != Kind::ProcessCall {
            return self.jobs.run(job).await;
        }
        match self.process(&job).await {
            Ok(()) => Verdict::Complete,
            Err((cause, Fault::Throttled { retry_after })) => {
                let failure = failure(&cause, "throttled");
                Verdict::Throttled { failure, after: retry_after, since_ms: self.app.now().as_millisecond() }
            }
            Err((cause, _)) => {
                Verdict::Retry { failure: failure(&cause, "transient"), after: Duration::from_millis(100) }
            }
        }
    }
}

fn failure(cause: &str, fault: &str) -> Failure {
    Failure { stage: Some(Stage::Source), fault: fault.to_owned(), side: Side::Source, cause: cause.to_owned() }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn faulty<T: Classify + ToString>(err: T) -> (String, Fault) {
    (err.to_string(), err.fault())
}

impl WithoutMedia {
    async fn process(&self, job: &queue::JobAttempt) -> Result<(), (String, Fault)> {
        let app = &self.app;
        let Ok(Job::ProcessCall { call, .. }) = serde_json::from_value(job.payload.clone()) else { unreachable!() };
        let record = app.store.call(call).await.map_err(faulty)?.unwrap();
        let platform = app.platform(&record.source).unwrap();
        let used = Arc::new(Used::default());
        let asked = telemetry::counting(used.clone(), Box::pin(platform.source.get(&record.call_id))).await;
        assert!(asked.map_err(faulty)?.is_some(), "{} is not there", record.call_id);
        let mut tx = app.store.begin().await.map_err(faulty)?;
        let (outcome, now) = (Outcome::Done, app.now());
        let ending = Ending {
            outcome,
            reason: None,
            artifacts: &[],
            quality: None,
            flags: &[],
            transcript: None,
            left: None,
            now,
        };
        let written = record_outcome::write(&app.store, &app.queue, &mut tx, job, &record, &ending).await;
        assert!(written.map_err(faulty)?.is_some(), "somebody else's");
        let entry = LedgerEntry {
            at: now,
            source: &record.source,
            org: record.org_uid,
            call: record.uid,
            ended: outcome.as_str(),
            used: &used,
            audio_ms: 0,
            engine: None,
            pricing: Pricing::Free,
        };
        app.store.enter_ledger(&mut tx, &entry).await.map_err(faulty)?;
        tx.commit().await.map_err(faulty)
    }
}

fn vast() -> SourceName {
    SourceName::parse("vast").unwrap()
}

/// The platform and an app that has kept up with it until now, on the morning of a day.
async fn morning(backend: Backend, filter: DateFilter) -> (TestApp, Arc<Vast>) {
    // The first midnight from here, so that a whole day of the budget lies ahead.
    let offset = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let clock = aftercall::app::Clock::offset_by(offset.clone());
    let midnight = (clock.now().as_millisecond().div_euclid(86_400_000) + 1) * 86_400_000;
    offset.store(midnight - clock.now().as_millisecond() + 1000, std::sync::atomic::Ordering::SeqCst);
    let every = SignedDuration::from_millis(86_400_000 / calls_a_day() as i64);
    let platform = Vast::new(clock.now() - DAY * HELD_DAYS as i32, every, filter, clock.clone());
    let settings = format!(
        "[log]\nlevel = \"warn\"\n[[source]]\nname = \"vast\"\ndialect = \"krosai\"\nbase_url = \"{}\"\n\
         api_key = \"{KEY}\"\npoll = \"{}m\"\nlanguage = \"en\"\nrequests_per_day = {}\n",
        platform.serve().await,
        poll_minutes(),
        budget()
    );
    let app = TestApp::over(Arc::new(Space::new(backend, &settings)), offset).await;
    keep_up(&app, &platform).await;
    (app, platform)
}

/// Puts all that the platform holds into the records, as four days of the same would have left them.
async fn keep_up(app: &TestApp, platform: &Vast) {
    let now = app.now();
    let held = platform.ended_by(now);
    let call = app.platform(&vast()).unwrap().source.get(&CallId::parse("call_0").unwrap()).await.unwrap().unwrap();
    let mut tx = app.store.begin().await.unwrap();
    let term = app.config.retention_term(&vast());
    let admitted = Admitted { source: &vast(), call_id: &call.id, call: Some(&call), now, term };
    app.store.admit(&mut tx, admitted).await.unwrap();
    tx.commit().await.unwrap();
    // The sample's every column, but for what names the call and tells when it was.
    let copy = |uid: &str| {
        format!(
            "WITH RECURSIVE number(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM number WHERE i + 1 < $1) \
             INSERT INTO call_record (uid, source, call_id, org_uid, org_id, direction, status, ended_at, duration_ms, \
             call_json, first_seen_at, updated_at, retain_until, retention_basis, retention_days, retention_state, \
             outcome, outcome_at) SELECT {uid}, source, 'call_' || i, org_uid, org_id, direction, status, \
             ended_at + i * $2, duration_ms, call_json, ended_at + i * $2, ended_at + i * $2, retain_until + i * $2, \
             retention_basis, retention_days, retention_state, 'done', ended_at + i * $2 \
             FROM call_record, number WHERE call_id = 'call_0'"
        )
    };
    let (count, every) = (held as i64, platform.every.as_millis() as i64);
    match app.store.db() {
        Db::Sqlite(pool) => {
            let sql = copy("'01890000-0000-7000-8000-' || printf('%012x', i)");
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(count).bind(every).execute(pool).await.unwrap();
            sqlx::query(FIRST_IS_DONE).execute(pool).await.unwrap();
        }
        Db::Postgres(pool) => {
            let sql = copy("'01890000-0000-7000-8000-' || lpad(to_hex(i), 12, '0')");
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(count).bind(every).execute(pool).await.unwrap();
            sqlx::query(FIRST_IS_DONE).execute(pool).await.unwrap();
            sqlx::query("ANALYZE").execute(pool).await.unwrap();
        }
    }
    // A week since the last whole pass ends in the afternoon: this is a day with everything in it.
    let state = ReconcileState {
        tail_from: Some(now - SignedDuration::from_mins(30)),
        since_at: Some(platform.first),
        passed_at: Some(now - SignedDuration::from_hours(3)),
        full_passed_at: Some(now - SignedDuration::from_hours(7 * 24 - 14)),
        ..ReconcileState::default()
    };
    app.store.save_reconcile_state(&vast(), &state).await.unwrap();
}

/// Waits until nothing is due: the moment's work is done.
async fn settle(app: &TestApp) {
    let from = Instant::now();
    loop {
        if app.queue.due(Duration::from_secs(1), Timestamp::MIN).await.unwrap() == 0 {
            return;
        }
        assert!(from.elapsed() < PATIENCE, "{:?}", app.queue.depth().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn count(app: &TestApp, sql: &'static str) -> u64 {
    let count: i64 = match app.store.db() {
        Db::Sqlite(pool) => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
        Db::Postgres(pool) => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
    };
    count as u64
}

async fn a_day_is_accounted_for_within_its_budget(backend: Backend) {
    a_day(backend, DateFilter::Ignored).await;
}

async fn a_day_is_accounted_for_where_date_filters_are_obeyed(backend: Backend) {
    a_day(backend, DateFilter::Obeyed).await;
}

async fn a_day(backend: Backend, filter: DateFilter) {
    let (app, platform) = morning(backend, filter).await;
    let began = (app.now(), Instant::now());
    let held = platform.made_by(began.0);
    let schedules = Schedules::load(&app).unwrap();
    let handler = WithoutMedia { app: app.app.clone(), jobs: Jobs(app.app.clone()) };
    app.queue.heartbeat("day", "test").await.unwrap();
    let lanes = Lanes { live: 8, backfill: 8, maintenance: 4 };
    let mut running = app.queue.start("day", Arc::new(handler), lanes, &app.config.worker).unwrap();
    while app.now().duration_since(began.0) < DAY - SignedDuration::from_mins(20) {
        app.advance(Duration::from_secs(60 * poll_minutes())).await;
        schedules.tick(&app).await;
        settle(&app).await;
    }
    running.drain().await.unwrap();
    app.queue.leave("day").await.unwrap();

    // What had ended by the last poll has a record, and its record an end.
    let ended = platform.ended_by(app.now() - SignedDuration::from_mins(1));
    let done = count(&app, "SELECT COUNT(*) FROM call_record WHERE outcome = 'done'").await;
    let open = count(&app, "SELECT COUNT(*) FROM call_record WHERE outcome IS NULL").await;
    let asked = platform.asked();
    let today = began.0.as_millisecond().div_euclid(86_400_000);
    let counted = asked[&today];
    eprintln!(
        "{backend:?}, date filter {filter:?}: {} new calls on {held}, {done} of {ended} done, {open} open; the platform \
         counted {} requests of {} allowed ({} lists, {} details); {:?}",
        platform.made_by(app.now()) - held,
        counted.all(),
        budget(),
        counted.lists,
        counted.details,
        began.1.elapsed()
    );
    assert!(counted.all() <= budget(), "{counted:?}");
    assert_eq!(open, 0);
    assert!(done >= ended && done <= platform.ended_by(app.now()), "{done} of {ended}");
    let state = app.store.reconcile_state(&vast()).await.unwrap();
    assert!(state.full_passed_at.unwrap() > began.0, "the whole pass of the day has ended: {state:?}");
    assert_eq!(state.obeys_filter, Some(filter == DateFilter::Obeyed));
    let unwell = app.queue.jobs(FinishedJobs::Left, 10).await.unwrap();
    assert!(unwell.is_empty(), "{unwell:?}");

    // The next day: a pass over everything finds nothing that the day left out.
    app.advance(Duration::from_secs(1200)).await;
    let window = Window { from: platform.first - DAY, to: app.now() - SignedDuration::from_mins(25) };
    let balance = reconcile::balance(&app, &vast(), window).await.unwrap();
    assert_eq!((balance.done, balance.missing, balance.enqueued, balance.vanished), (balance.completed, 0, 0, 0));
    assert!(balance.completed >= ended - calls_a_day() / 40 && balance.listed >= balance.completed, "{balance:?}");
    eprintln!("listed {}, done {}, missing 0", balance.listed, balance.done);
}
