//! Health, metrics, unknown paths, and how the server stops.

use std::time::Duration;

use aftercall::api;
use aftercall::store::Scope;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::server::{Server, answer, call};

#[tokio::test]
async fn a_working_process_is_healthy_and_ready() {
    let server = Server::start().await;
    let health = answer(server.client.get(format!("{}/healthz", server.base))).await;
    assert_eq!((health.status, health.text.as_str()), (StatusCode::OK, "ok"));
    let ready = answer(server.client.get(format!("{}/readyz", server.base))).await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!(ready.json(), json!({ "status": "ready", "parts": { "database": "ok", "objects": "ok" } }));
}

#[tokio::test]
async fn a_broken_part_is_named_and_nothing_of_it_told() {
    let server = Server::start().await;
    // A file where the directory should be.
    std::fs::write(server.dir.path().join("objects"), "x").unwrap();
    let answer = answer(server.client.get(format!("{}/readyz", server.base))).await;
    assert_eq!(answer.code(), "503 not_ready");
    assert_eq!(answer.json()["details"], json!({ "database": "ok", "objects": "failed" }));
    assert!(!answer.text.contains(server.dir.path().to_str().unwrap()));
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_closed_database_is_not_ready_but_the_process_is_up() {
    let server = Server::start().await;
    let key = server.key(&[Scope::CallsRead], None).await;
    server.app.store.close().await;
    let get = async |path: &str| server.get(&key, path).await;
    assert_eq!(get("/readyz").await.json()["details"], json!({ "database": "failed", "objects": "ok" }));
    assert_eq!(get("/healthz").await.status, StatusCode::OK);
    assert_eq!(get("/v1/calls").await.code(), "503 unavailable");
    assert_eq!(get("/metrics").await.status, StatusCode::OK);
}

#[tokio::test]
async fn metrics_show_the_queue_without_a_key_and_without_ids() {
    let server = Server::start().await;
    let key = server.key(&[Scope::Admin], None).await;
    let triggered = server.trigger(&key, &json!({ "source": "desk", "call_id": "c-metrics" })).await.json();
    let get = async || answer(server.client.get(format!("{}/metrics", server.base))).await;
    let metrics = get().await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(metrics.text.contains("# TYPE aftercall_queue_jobs gauge"), "{}", metrics.text);
    assert!(metrics.text.contains("aftercall_queue_oldest_age_seconds"), "{}", metrics.text);
    for id in ["c-metrics", triggered["triggers"][0]["id"].as_str().unwrap(), key.as_str()] {
        assert!(!metrics.text.contains(id));
    }
}

#[tokio::test]
async fn a_call_that_misses_objects_is_shown_and_turns_nobody_away() {
    let server = Server::start().await;
    let record = server.done("desk", &call("c1")).await;
    let (store, flag) = (&server.app.store, aftercall::domain::RecordFlag::MissingObject);
    let mut tx = store.begin().await.unwrap();
    assert!(store.set_flag(&mut tx, record.uid, flag).await.unwrap(), "it is news");
    assert!(!store.set_flag(&mut tx, record.uid, flag).await.unwrap());
    tx.commit().await.unwrap();
    let ready = answer(server.client.get(format!("{}/readyz", server.base))).await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!(ready.json()["parts"], json!({ "database": "ok", "objects": "incomplete" }));
    let metrics = answer(server.client.get(format!("{}/metrics", server.base))).await;
    assert!(metrics.text.contains("# TYPE aftercall_calls_missing_objects gauge"), "{}", metrics.text);
    // What is erased misses nothing.
    server.condemn(&record).await;
    let mut tx = store.begin().await.unwrap();
    store.scrub(&mut tx, record.uid, server.app.now()).await.unwrap();
    assert!(!store.set_flag(&mut tx, record.uid, flag).await.unwrap());
    tx.commit().await.unwrap();
    assert!(store.missing_objects().await.unwrap().is_empty());
}

#[tokio::test]
async fn unknown_paths_and_methods_are_json_errors() {
    let server = Server::start().await;
    server.done("desk", &call("c1")).await;
    let key = server.key(&[Scope::Admin], None).await;
    for path in ["/", "/v1", "/v1/nothing", "/v1/calls/c1/events", "/v1/calls/c1/recording", "/v2/calls"] {
        assert_eq!(server.get(&key, path).await.code(), "404 not_found", "{path}");
    }
    for (method, path) in [
        (Method::DELETE, "/v1/calls/c1"),
        (Method::POST, "/v1/calls"),
        (Method::GET, "/v1/triggers"),
        (Method::PUT, "/v1/calls/c1/transcript.txt"),
        (Method::POST, "/metrics"),
    ] {
        let answer = answer(server.request(method, &key, path)).await;
        assert_eq!(answer.code(), "405 method_not_allowed", "{path}");
        assert!(answer.headers.contains_key("allow"), "{path}");
    }
}

#[tokio::test]
async fn a_stop_ends_the_server_though_clients_keep_their_connections() {
    let server = Server::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(api::serve(server.app.clone(), listener, stop.clone()));
    // One connection rests between requests, one never ends its request.
    assert_eq!(answer(server.client.get(format!("http://{at}/healthz"))).await.text, "ok");
    let half = tokio::net::TcpStream::connect(at).await.unwrap();
    half.writable().await.unwrap();
    half.try_write(b"POST /v1/triggers HTTP/1.1\r\nhost: x\r\n").unwrap();
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), serving).await.expect("the server stops");
    ended.unwrap().unwrap();
    assert!(server.client.get(format!("http://{at}/healthz")).send().await.is_err());
}
