//! A server that is away: everybody says so within seconds, names it, and may be tried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aftercall::demo::{Api, SampleCall};
use aftercall::store::Scope;
use jiff::SignedDuration;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::api::server::{Server, answer};
use crate::postgres;
use crate::process::{Site, ago, terminate};

/// What is promised.
const SECONDS: Duration = Duration::from_secs(5);
/// What starting a process may take beside it on a busy machine.
const START: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_says_within_seconds_that_the_server_is_away() {
    // One that takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let nowhere = TempDir::new().unwrap();
    let urls = [
        "postgres://u@127.0.0.1:1/aftercall".to_owned(),
        format!("postgres://u@127.0.0.1:{port}/aftercall"),
        format!("postgres://u@localhost/aftercall?host={}", nowhere.path().display()),
        "postgres://u:s3cret@no-such-host.invalid/aftercall".to_owned(),
    ];
    let commands: [&[&str]; 5] = [
        &["calls", "list"],
        &["trigger", "c1", "--source", "krosai"],
        &["jobs", "list"],
        &["work", "--until-idle"],
        &["reconcile", "--source", "krosai"],
    ];
    for url in urls {
        let site = Site::start(Vec::new(), &format!("[store]\nurl = \"{url}\"")).await;
        for args in commands {
            let started = Instant::now();
            let said = site.run(args).await;
            assert!(started.elapsed() < SECONDS + START, "{args:?} took {:?}", started.elapsed());
            assert_eq!(said.code(), Some(75), "{args:?}: {said:?}");
            assert!(
                said.stderr.contains("database: postgres://u@") && said.stderr.contains("does not answer"),
                "{said:?}"
            );
            assert!(!said.stderr.contains("s3cret"), "{}", said.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_whose_database_is_away_answers_503_within_seconds() {
    let Some(cluster) = postgres::own() else { return };
    let cluster = Arc::new(cluster);
    let server = Server::over(TempDir::new().unwrap(), &cluster.database()).await;
    let key = server.key(&[Scope::CallsRead, Scope::Admin], None).await;
    assert_eq!(server.get(&key, "/v1/calls").await.status, 200);
    let stopping = cluster.clone();
    tokio::task::spawn_blocking(move || stopping.stop()).await.unwrap();
    for path in ["/v1/calls", "/v1/calls/c1", "/v1/backfills"] {
        let started = Instant::now();
        let said = server.get(&key, path).await;
        assert!(started.elapsed() < SECONDS, "{path} took {:?}", started.elapsed());
        assert_eq!(said.code(), "503 unavailable", "{path}");
        assert_eq!(said.json()["details"]["side"], "database", "{}", said.text);
        assert!(said.headers.contains_key("retry-after"), "{path}");
    }
    for path in ["/healthz", "/metrics"] {
        let said = answer(server.client.get(format!("{}{path}", server.base))).await;
        assert_eq!(said.status, 200, "{path}");
    }
    let ready = answer(server.client.get(format!("{}/readyz", server.base))).await;
    assert_eq!(ready.code(), "503 not_ready");
    let starting = cluster.clone();
    tokio::task::spawn_blocking(move || starting.restart("fast")).await.unwrap();
    assert_eq!(server.get(&key, "/v1/calls").await.status, 200, "it goes on by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_says_once_that_its_database_is_away_and_once_that_it_is_back() {
    let Some(cluster) = postgres::own() else { return };
    let cluster = Arc::new(cluster);
    let calls: Vec<SampleCall> =
        (0..8).map(|n| SampleCall::numbered(Api::KrosaiV1, n, ago(SignedDuration::from_mins(5)))).collect();
    let more = format!(
        "[store]\nurl = \"{}\"\n[worker]\nheartbeat = \"500ms\"\nsilent_after = \"10s\"\n[schedule]\nenabled = true",
        cluster.database()
    );
    let site = Site::start(calls, &more).await;
    let mut worker = site.spawn(&["work"], &[("AFTERCALL__LOG__LEVEL", "info")]);
    worker.hear("worker started").await;
    let stopping = cluster.clone();
    tokio::task::spawn_blocking(move || stopping.stop()).await.unwrap();
    worker.hear("out of reach").await;
    // An outage of some length, and others who notice it.
    for _ in 0..20 {
        assert_eq!(site.run(&["calls", "list"]).await.code(), Some(75));
    }
    let starting = cluster.clone();
    tokio::task::spawn_blocking(move || starting.restart("fast")).await.unwrap();
    worker.hear("within reach again").await;
    site.well(&["trigger", "call_000001", "--source", "krosai"]).await;
    worker.hear("job done").await;
    terminate(worker.id());
    let (ended, said) = worker.end().await;
    assert!(ended.success(), "{said:?}");
    let lines = |word: &str| said.iter().filter(|line| line.contains(word)).count();
    assert_eq!((lines("out of reach"), lines("within reach again")), (1, 1), "{said:#?}");
    let trouble = said.iter().filter(|line| line.contains("ERROR") || line.contains("WARN")).count();
    assert!(trouble <= 12, "{trouble} lines: {said:#?}");
}
