//! Steady load for days in a turned clock: every table that is not a record of a call keeps its size, and so does the
//! process.
//!
//! `AFTERCALL_STEADY_CALLS=100 cargo test --release --test it steady::sqlite -- --nocapture --test-threads=1` is the full
//! run: 100 calls every simulated hour for three days, with the memory of the process said at every look.

use std::collections::BTreeMap;
use std::time::Duration;

use aftercall::demo::{Api, SampleCall};
use aftercall::domain::RetentionState;
use aftercall::jobs::schedule::Schedules;
use aftercall::store::{CallFilter, Db};
use jiff::SignedDuration;

use crate::harness::{Backend, Fixture, Plan, TestApp, forget_logs, on_every_backend};

on_every_backend!(no_table_grows_beyond_what_it_keeps);

/// What a finished job, a single attempt and a call are kept for.
const SETTINGS: &str = "[worker]\nkeep_finished_jobs = \"2h\"\n[ledger]\nkeep = \"6h\"\n[retention]\ndays = 1\n\
                        [log]\nlevel = \"warn\"\n";
const HOUR: Duration = Duration::from_secs(3600);
/// Drift that is not believed to be growth.
const DRIFT_PERCENT: f64 = 5.0;

/// Calls in each step, and the step. The form of the suite takes long steps.
fn load() -> (u32, Duration) {
    match std::env::var("AFTERCALL_STEADY_CALLS") {
        Ok(calls) => (calls.parse().unwrap(), HOUR),
        Err(_) => (2, 3 * HOUR),
    }
}

/// The full run, which is the only test of its process.
fn alone() -> bool {
    std::env::var_os("AFTERCALL_STEADY_CALLS").is_some()
}

/// Grow with the calls there ever were, and are meant to: tombstones, and the audit of what was done to them.
const OF_EVERY_CALL: [&str; 2] = ["audit", "call_record"];
/// Kept small by the queue's own upkeep, which goes by the machine's clock; its jobs are looked at by themselves.
const OF_THE_QUEUE: &str = "river_";

async fn tables(app: &TestApp) -> BTreeMap<String, i64> {
    let names: Vec<String> = match app.store.db() {
        Db::Sqlite(pool) => {
            let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
            sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
        }
        Db::Postgres(pool) => {
            let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'";
            sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
        }
    };
    let mut rows = BTreeMap::new();
    for name in names {
        let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {name}"));
        let count: i64 = match app.store.db() {
            Db::Sqlite(pool) => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
            Db::Postgres(pool) => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
        };
        rows.insert(name, count);
    }
    rows
}

/// Finished jobs grow older with the turned clock, as `advance` makes waiting ones.
async fn age_finished_jobs(app: &TestApp, by: Duration) {
    let seconds = by.as_secs_f64();
    match app.store.db() {
        Db::Sqlite(pool) => sqlx::query(
            "UPDATE river_job SET finalized_at = strftime('%Y-%m-%d %H:%M:%f', finalized_at, '-' || $1 || ' seconds') \
             WHERE finalized_at IS NOT NULL",
        )
        .bind(seconds)
        .execute(pool)
        .await
        .map(drop)
        .unwrap(),
        Db::Postgres(pool) => sqlx::query(
            "UPDATE river_job SET finalized_at = finalized_at - make_interval(secs => $1) WHERE finalized_at IS NOT NULL",
        )
        .bind(seconds)
        .execute(pool)
        .await
        .map(drop)
        .unwrap(),
    }
}

/// Memory of this process that is in use, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// One step of the load, polls and sweeps and all; old calls leave the platform as they leave us.
async fn step(fixture: &Fixture, schedules: &Schedules, number: u32, (calls, step): (u32, Duration)) {
    fixture.advance(step).await;
    age_finished_jobs(fixture, step).await;
    for n in 0..calls {
        let ended = fixture.now() - SignedDuration::from_mins(2) - SignedDuration::from_secs(i64::from(n));
        fixture.platform.add_call(SampleCall::numbered(Api::KrosaiV1, number * calls + n, ended));
    }
    let a_day = u32::try_from(2 * 86_400 / step.as_secs()).unwrap();
    if let Some(old) = number.checked_sub(a_day) {
        for n in 0..calls {
            fixture.platform.remove_call(Api::KrosaiV1, &format!("call_{:06}", old * calls + n));
        }
    }
    schedules.tick(fixture).await;
    fixture.run_pending().await;
}

async fn no_table_grows_beyond_what_it_keeps(backend: Backend) {
    let load = load();
    let (calls, pause) = load;
    let plan = Plan { settings: SETTINGS, sources: &[("poll = \"off\"", "poll = \"10m\"")], ..Plan::default() };
    let fixture = Fixture::planned(backend, plan, |_| Vec::new()).await;
    let schedules = Schedules::load(&fixture).unwrap();
    let a_day = u32::try_from(86_400 / pause.as_secs()).unwrap();
    let mut looks = Vec::new();
    let mut memory = Vec::new();
    for number in 0..3 * a_day {
        step(&fixture, &schedules, number, load).await;
        if alone() {
            // What the test and its platform note of every request is theirs, not the worker's.
            fixture.platform.forget_requests();
            forget_logs();
        }
        memory.push(resident());
        // Calls are kept a day and the ledger's single attempts up to two: from here on as many go as come.
        if (number + 1) % a_day == 0 {
            looks.push(tables(&fixture).await);
            eprintln!("{backend:?} after {} h: {} KiB resident, {:?}", 24 * looks.len(), resident(), looks.last());
        }
    }
    let [_, second, third] = looks.as_slice() else { unreachable!() };
    for (table, rows) in third {
        let before = second[table];
        if table.starts_with(OF_THE_QUEUE) {
            continue;
        }
        let grown = rows - before;
        // What stood at the edge of a term at one look and not at the other; a row for every call would be many times it.
        let edge = 4 + i64::from(calls);
        let most = if OF_EVERY_CALL.contains(&table.as_str()) { 4 * i64::from(calls * a_day) } else { edge };
        assert!(grown <= most, "{table} had {before} rows and has {rows}");
    }
    let kept = fixture.store.calls(&CallFilter::default()).await.unwrap();
    let active = kept.iter().filter(|record| record.retention_state == RetentionState::Active).count();
    assert!(active <= (calls * (a_day + 1)) as usize, "{active} of {} calls are kept", kept.len());
    assert_eq!(third["transcript"], active as i64, "{third:?}");
    assert!(third["call_sighting"] <= active as i64, "{third:?}");
    let jobs = old_jobs(&fixture).await;
    assert_eq!(jobs, 0, "finished jobs older than they are kept");
    assert!(std::fs::read_dir(fixture.data_dir().join("spool")).map_or(0, Iterator::count) == 0);
    if alone() {
        flat(&memory, a_day as usize);
    }
}

/// Finished jobs past their term, once the queue had its chance to forget them.
async fn old_jobs(fixture: &Fixture) -> i64 {
    let sql = match fixture.store.db() {
        Db::Sqlite(_) => "SELECT COUNT(*) FROM river_job WHERE finalized_at < datetime('now', '-3 hours')",
        Db::Postgres(_) => "SELECT COUNT(*) FROM river_job WHERE finalized_at < now() - interval '3 hours'",
    };
    let crew =
        fixture.crew("upkeep", 1, crate::harness::script(|_| async { aftercall::queue::Verdict::Complete })).await;
    let mut left = i64::MAX;
    for _ in 0..1200 {
        left = match fixture.store.db() {
            Db::Sqlite(pool) => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
            Db::Postgres(pool) => sqlx::query_scalar(sql).fetch_one(pool).await.unwrap(),
        };
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    crew.drain().await;
    left
}

/// The last day's memory against the second day's, by their middles.
fn flat(memory: &[u64], a_day: usize) {
    let middle = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2] as f64
    };
    let (second, third) = (middle(&memory[a_day..2 * a_day]), middle(&memory[2 * a_day..]));
    let drift = (third / second - 1.0) * 100.0;
    eprintln!("memory: {second:.0} KiB on the second day, {third:.0} KiB on the third: {drift:+.1} %");
    assert!(drift < DRIFT_PERCENT, "{memory:?}");
}
