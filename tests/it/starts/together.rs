//! Many processes at once. `AFTERCALL_START_ROUNDS=20 cargo test --test it starts::together` is the full run.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use aftercall::demo::{Api, SampleCall};
use aftercall::store::{Db, Store, StoreError};
use jiff::SignedDuration;
use sqlx::Connection;
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::{Backend, Space, on_every_backend};
use crate::process::{Site, ago, terminate};

on_every_backend!(twelve_processes_at_once_start_on_an_empty_database, a_schema_that_is_being_changed_is_waited_for,);

fn rounds() -> u32 {
    std::env::var("AFTERCALL_START_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap())
}

/// What is started at once. On a file only one process may run jobs.
fn crowd(backend: Backend) -> Vec<Vec<&'static str>> {
    let workers = if backend == Backend::Sqlite { 1 } else { 4 };
    let mut crowd = vec![vec!["work", "--until-idle"]; workers];
    crowd.extend([
        vec!["trigger", "call_1", "--source", "krosai"],
        vec!["calls", "list"],
        vec!["jobs", "list", "--json"],
    ]);
    crowd.extend([vec!["hold", "list"], vec!["retention", "plan", "--json"], vec!["backfill", "list"]]);
    while crowd.len() < 12 {
        crowd.push(vec!["keys", "add", "one-of-many", "--scope", "calls:read"]);
    }
    crowd
}

async fn twelve_processes_at_once_start_on_an_empty_database(backend: Backend) {
    let mut failures = Vec::new();
    for round in 0..rounds() {
        let place = TempDir::new().unwrap();
        let url = match backend {
            Backend::Sqlite => format!("sqlite://{}/shared/aftercall.db", place.path().display()),
            Backend::Postgres => crate::postgres::cluster().unwrap().database(),
        };
        // No source answers: what is triggered waits.
        let source = "[[source]]\nname = \"krosai\"\ndialect = \"krosai\"\nbase_url = \"http://127.0.0.1:1/\"\napi_key = \"k\"\n";
        let mut running = Vec::new();
        for (n, args) in crowd(backend).into_iter().enumerate() {
            let config = place.path().join(format!("{n}.toml"));
            let data = place.path().join(format!("data-{n}"));
            let text = format!("data_dir = \"{}\"\n[store]\nurl = \"{url}\"\n{source}", data.display());
            std::fs::write(&config, text).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_aftercall"));
            command.env_clear().arg("--config").arg(config).args(&args).stdin(Stdio::null()).kill_on_drop(true);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            running.push((args, child.wait_with_output()));
        }
        for (args, ended) in running {
            let ended = ended.await.unwrap();
            if !ended.status.success() {
                failures.push(format!("round {round}: {args:?}: {}", String::from_utf8_lossy(&ended.stderr)));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), 12 * rounds(), failures.join("\n"));
}

async fn a_schema_that_is_being_changed_is_waited_for(backend: Backend) {
    let space = Arc::new(Space::new(backend, "[store]\nschema_wait = \"300ms\""));
    space.leave_queue();
    let mut settings = space.config().store;
    // Somebody else is at it, and does not come to an end.
    let file = space.data_dir().join("aftercall.db-schema");
    let (mut session, mut lock) = (None, None);
    match backend {
        Backend::Sqlite => {
            let held = std::fs::File::create(&file).unwrap();
            held.lock().unwrap();
            lock = Some(held);
        }
        Backend::Postgres => {
            let mut held = sqlx::PgConnection::connect(space.url()).await.unwrap();
            // The key that the program takes: "aftercal" in ASCII.
            sqlx::query("SELECT pg_advisory_lock(7018425048363131244)").execute(&mut held).await.unwrap();
            session = Some(held);
        }
    }
    let refused = Store::connect(&settings).await.unwrap_err();
    assert!(matches!(refused, StoreError::SchemaBusy { .. }), "{refused}");
    assert!(refused.to_string().contains("schema_wait"), "{refused}");
    // It comes to an end while this one waits.
    settings.schema_wait.0 = Duration::from_secs(60);
    let waiting = tokio::spawn(async move { Store::connect(&settings).await });
    tokio::task::yield_now().await;
    drop(lock);
    if let Some(session) = session {
        session.close().await.unwrap();
    }
    let store = waiting.await.unwrap().unwrap();
    assert_eq!(store.fact("ready").await.unwrap(), None);
}

/// Jobs that one process runs are not taken back by another that starts with a data directory of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_worker_on_a_database_file_is_refused_and_takes_nothing_back() {
    let call = SampleCall::numbered(Api::KrosaiV1, 1, ago(SignedDuration::from_mins(5)));
    let site = Site::start(vec![call], "").await;
    site.well(&["trigger", "call_000001", "--source", "krosai"]).await;
    let mut first = site.parking_worker("original");
    first.hear("parked").await;
    for command in [vec!["work"], vec!["work", "--until-idle"], vec!["run"]] {
        let elsewhere = site.place().join("elsewhere");
        let env = [("AFTERCALL__DATA_DIR", elsewhere.to_str().unwrap()), ("AFTERCALL__API__LISTEN", "127.0.0.1:0")];
        let second = site.run_with(&command, &env).await;
        assert_eq!(second.code(), Some(75), "{second:?}");
        let file = site.data_dir().join("aftercall.db").display().to_string();
        assert!(second.stderr.contains(&file) && second.stderr.contains("runs jobs"), "{}", second.stderr);
    }
    let jobs = site.well(&["jobs", "list", "--json"]).await.json();
    let running: Vec<_> = jobs.as_array().unwrap().iter().filter(|job| job["state"] == "running").collect();
    assert_eq!((running.len(), &running[0]["attempt"]), (1, &1.into()), "{jobs}");
    // The claim ends with its process, however that ends.
    first.kill().await;
    let elsewhere = site.place().join("elsewhere");
    let env = [("AFTERCALL__DATA_DIR", elsewhere.to_str().unwrap())];
    let next = site.run_with(&["work", "--until-idle"], &env).await;
    assert_eq!(next.code(), Some(0), "{next:?}");
    assert_eq!(site.well(&["calls", "list", "--json"]).await.json()[0]["outcome"], "done");
}

/// Workers of one server share its database as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_one_server_do_not_claim_it() {
    let Some(cluster) = crate::postgres::cluster() else { return };
    let url = cluster.database();
    let site = Site::start(Vec::new(), &format!("[store]\nurl = \"{url}\"\n[log]\nlevel = \"info\"")).await;
    let mut workers = Vec::new();
    for n in 0..3 {
        let data = site.place().join(format!("data-{n}"));
        workers.push(site.spawn(&["work"], &[("AFTERCALL__DATA_DIR", data.to_str().unwrap())]));
    }
    for worker in &mut workers {
        worker.hear("worker started").await;
    }
    let Db::Postgres(pool) = &site.app().await.store.db().clone() else { unreachable!() };
    let beating: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM worker").fetch_one(pool).await.unwrap();
    assert_eq!(beating, 3);
    for worker in workers {
        terminate(worker.id());
        let (ended, said) = worker.end().await;
        assert!(ended.success(), "{said:?}");
    }
}
