//! A rolling upgrade: the build before this one and this one on one database, with work in flight.
//!
//! `AFTERCALL_PREVIOUS` names the program of the build before (`git worktree add ../before TAG && cargo build` there);
//! without it there is nothing to compare with and the test says so.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use aftercall::app::{App, Clock};
use aftercall::config::Config;
use aftercall::demo::{self, Api, SampleCall, SamplePlatform};
use aftercall::domain::Outcome;
use aftercall::jobs::{backfill, reconcile};
use aftercall::queue::{FinishedJobs, JobState};
use aftercall::store::{BackfillState, By, CallFilter, Db, NewBackfill, Origin};
use aftercall::wire::Window;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::harness;
use crate::harness::{Backend, Fixture, eventually, on_every_backend};
use crate::process::{ago, source, terminate};

on_every_backend!(
    a_database_of_the_build_before_is_taken_over_with_its_work_in_flight,
    a_database_of_the_build_after_is_worked_on_all_the_same,
);

const CALLS: u32 = 60;

fn worker(program: &str, dir: &std::path::Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = Command::new(program);
    command.env_clear().current_dir(dir).args(["--config", "aftercall.toml", "work"]).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_build_before_and_this_one_share_a_database_and_lose_nothing() {
    let Ok(previous) = std::env::var("AFTERCALL_PREVIOUS") else {
        eprintln!("AFTERCALL_PREVIOUS is not set: no build to share a database with");
        return;
    };
    let Some(cluster) = crate::postgres::cluster() else { return };
    let calls: Vec<SampleCall> = (0..CALLS)
        .map(|n| SampleCall::numbered(Api::Atoms, n, ago(SignedDuration::from_mins(i64::from(n) + 2))))
        .collect();
    let platform = SamplePlatform::builder(std::sync::Arc::new(Timestamp::now)).calls(calls.clone()).build();
    for call in &calls {
        platform.register_record(&call.id, json!({ "call_id": call.id, "status": "completed" }));
    }
    let serving = platform.serve(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
    let place = tempfile::Builder::new().prefix("aftercall-upgrade-").tempdir().unwrap();
    let url = cluster.database();
    // Objects are shared as a bucket would be; only keys that the build before knows.
    let settings = |dir: &std::path::Path| {
        format!(
            "data_dir = \"{}\"\n[store]\nurl = \"{url}\"\n[objects]\npath = \"{}\"\n[worker]\nconcurrency = 2\n\
             poll = \"50ms\"\n[schedule]\nenabled = false\n[log]\nlevel = \"warn\"\n{}",
            dir.display(),
            place.path().join("objects").display(),
            demo::sources_toml(&serving.base_url())
        )
    };
    let make = |name: &str| -> PathBuf {
        let dir = place.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("aftercall.toml"), settings(&dir.join("data"))).unwrap();
        dir
    };
    let (old_dir, new_dir) = (make("old"), make("new"));
    let mut old = worker(&previous, &old_dir);
    let mut admin = sqlx::postgres::PgPoolOptions::new().connect_lazy(&url).unwrap();
    eventually("the build before to have made its tables and to beat", async || {
        let beating = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM worker").fetch_one(&admin).await;
        beating.is_ok_and(|workers| workers == 1).then_some(())
    })
    .await;
    let mut command = Command::new(&previous);
    command.env_clear().current_dir(&old_dir).args(["--config", "aftercall.toml", "backfill", "start"]);
    command.args(["--source", "atoms", "--from", "2020-01-01"]).stdin(Stdio::null());
    let said = command.output().await.unwrap();
    assert!(said.status.success(), "{said:?}");
    eventually("the build before to have begun", async || {
        let done = "SELECT COUNT(*) FROM call_record WHERE outcome IS NOT NULL";
        let done = sqlx::query_scalar::<_, i64>(done).fetch_one(&admin).await.unwrap_or(0);
        (done >= 3).then_some(())
    })
    .await;
    admin.close().await;

    // This build migrates the database under the other's hands, takes part, and starts work of its own.
    let mut new = worker(env!("CARGO_BIN_EXE_aftercall"), &new_dir);
    let app =
        App::build(Config::from_toml(&settings(&place.path().join("ours"))).unwrap(), Clock::system()).await.unwrap();
    let Db::Postgres(pool) = app.store.db() else { unreachable!() };
    admin = pool.clone();
    let (atoms, from, to) = (source(Api::Atoms), ago(SignedDuration::from_hours(900)), Timestamp::now());
    let again = NewBackfill { source: &atoms, from, to, again: true, origin: Origin::Command, now: app.now() };
    backfill::start(&app, &again).await.unwrap().unwrap();
    let mut looks = 0;
    loop {
        let left = app.queue.jobs(FinishedJobs::Left, 10).await.unwrap();
        if left.is_empty() {
            break;
        }
        looks += 1;
        assert!(looks < 2400, "not done: {left:?}");
        assert!(old.try_wait().unwrap().is_none(), "the build before has ended by itself");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let by: Vec<(String, i64)> = sqlx::query_as(
        "SELECT w.version, COUNT(*) FROM river_job j JOIN worker w ON w.id = j.attempted_by[array_length(attempted_by, 1)] \
         WHERE j.kind = 'process_call' GROUP BY w.id, w.version ORDER BY 2",
    )
    .fetch_all(&admin)
    .await
    .unwrap();
    eprintln!("processed by either worker: {by:?}");
    assert_eq!(by.len(), 2, "both builds took part: {by:?}");
    let window = Window { from, to };
    let balance = reconcile::balance(&app, &atoms, window).await.unwrap();
    assert_eq!((balance.done, balance.missing, balance.enqueued), (u64::from(CALLS), 0, 0), "{balance:?}");
    let jobs = app.queue.jobs(FinishedJobs::Included, u64::MAX).await.unwrap();
    let unwell: Vec<_> = jobs.iter().filter(|job| job.state != JobState::Completed).collect();
    assert!(unwell.is_empty(), "{unwell:?}");
    for record in app.store.calls(&CallFilter::default()).await.unwrap() {
        assert_eq!(record.outcome, Some(Outcome::Done));
        assert_eq!(app.store.transcripts(record.uid).await.unwrap().len(), record.transcript_version as usize);
    }
    for worker in [&mut old, &mut new] {
        terminate(worker.id().unwrap());
        assert!(worker.wait().await.unwrap().success());
    }
}

/// What the schema's last steps made, taken away again: the database as a build before leaves it.
const STEP_BACK: [&str; 12] = [
    "DROP INDEX outbox_open",
    "ALTER TABLE reconcile_state DROP COLUMN polled_at",
    "ALTER TABLE worker DROP COLUMN clock_ahead_ms",
    "ALTER TABLE schedule DROP COLUMN fired_at",
    "DROP INDEX call_record_erasing",
    "DROP TABLE agent_voice",
    "DROP INDEX backfill_item_expiry",
    "CREATE INDEX backfill_item_expiry ON backfill_item (backfill_id, state, expires_at)",
    "CREATE INDEX backfill_item_next ON backfill_item (backfill_id, state, ended_at)",
    "DROP INDEX call_record_open",
    "DROP TABLE ledger_day",
    "DELETE FROM _sqlx_migrations WHERE version IN (3, 4, 5, 6, 8)",
];

async fn a_database_of_the_build_before_is_taken_over_with_its_work_in_flight(backend: Backend) {
    let some = |now: Timestamp| {
        let of = |api| (0..6).map(move |n| SampleCall::numbered(api, n, now - SignedDuration::from_mins(5)));
        [Api::KrosaiV1, Api::Atoms].into_iter().flat_map(of).collect()
    };
    let fixture = Fixture::start(backend, some).await;
    for n in 0..3 {
        fixture.trigger(Api::KrosaiV1, &format!("call_{n:06}")).await;
    }
    fixture.run_pending().await;
    for n in 3..6 {
        fixture.trigger(Api::KrosaiV1, &format!("call_{n:06}")).await;
    }
    let backfill = fixture.start_backfill(Api::Atoms).await;
    // On one connection: another one may not have heard yet of what the first has dropped.
    match fixture.store.db() {
        Db::Sqlite(pool) => {
            let mut connection = pool.acquire().await.unwrap();
            for sql in STEP_BACK {
                sqlx::query(sql).execute(&mut *connection).await.unwrap();
            }
        }
        Db::Postgres(pool) => {
            let mut connection = pool.acquire().await.unwrap();
            for sql in STEP_BACK {
                sqlx::query(sql).execute(&mut *connection).await.unwrap();
            }
        }
    }
    fixture.app.app.store.close().await;
    let after = fixture.app.again().await;
    after.run_pending().await;
    let jobs = after.jobs().await;
    assert!(jobs.iter().all(|job| job.state == JobState::Completed), "{jobs:?}");
    let records = after.store.calls(&CallFilter::default()).await.unwrap();
    assert_eq!(records.iter().filter(|record| record.source == harness::source(Api::KrosaiV1)).count(), 6);
    assert!(records.iter().all(|record| record.outcome.is_some() && record.transcript_version <= 1), "{records:?}");
    let backfill = after.store.backfill(&backfill).await.unwrap().unwrap();
    assert_eq!((backfill.state, backfill.listed), (BackfillState::Done, 6), "{backfill:?}");
    let day = SignedDuration::from_hours(24);
    let sums = after.store.ledger(By::Source, (after.now() - day, after.now() + day)).await.unwrap();
    assert_eq!(sums.iter().map(|sum| sum.calls).sum::<i64>(), records.len() as i64, "{sums:?}");
}

/// The build after this one has migrated further, under this one's hands or before it starts again.
async fn a_database_of_the_build_after_is_worked_on_all_the_same(backend: Backend) {
    let some = |now: Timestamp| {
        (0..3).map(|n| SampleCall::numbered(Api::KrosaiV1, n, now - SignedDuration::from_mins(5))).collect()
    };
    let fixture = Fixture::start(backend, some).await;
    fixture.trigger(Api::KrosaiV1, "call_000000").await;
    // A step that is not known here, and the tables and columns it made where this build reads.
    let later = [
        "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
         SELECT 9000, 'later', installed_on, success, checksum, execution_time FROM _sqlx_migrations WHERE version = 1",
        "CREATE TABLE later (id TEXT NOT NULL PRIMARY KEY)",
        "ALTER TABLE ledger_day ADD COLUMN later BIGINT",
    ];
    for sql in later {
        match fixture.store.db() {
            Db::Sqlite(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
            Db::Postgres(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
        }
    }
    fixture.trigger(Api::KrosaiV1, "call_000001").await;
    fixture.run_pending().await;
    let again = fixture.app.again().await;
    fixture.trigger(Api::KrosaiV1, "call_000002").await;
    again.run_pending().await;
    let records = again.store.calls(&CallFilter::default()).await.unwrap();
    assert!(records.len() == 3 && records.iter().all(|record| record.outcome == Some(Outcome::Done)), "{records:?}");
}
