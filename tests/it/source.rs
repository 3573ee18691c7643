//! The source client against small platforms on loopback that page wrongly, throttle, lie and break.

mod packed;
mod rows;
mod special;

use std::sync::{Arc, Mutex};

use aftercall::config::Config;
use aftercall::domain::{CallId, Classify, Fault, Side, SourceCall};
use aftercall::source::{Source, SourceError};
use aftercall::wire::Window;
use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A request as it arrived.
#[derive(Debug, Clone)]
struct Seen {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn asked(&self, key: &str) -> Option<u64> {
        let pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.into_iter().find(|(name, _)| name == key).and_then(|(_, value)| value.parse().ok())
    }
}

/// A platform whose every answer is the given function's; it remembers what it was asked.
struct Platform {
    base: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Platform {
    /// `answer` gets the request and how many came before it.
    async fn start<R: IntoResponse>(answer: impl Fn(&Seen, usize) -> R + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let handler = async move |request: Request| -> Response {
            let (parts, body) = request.into_parts();
            let seen = Seen {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                headers: parts.headers,
                body: to_bytes(body, usize::MAX).await.unwrap(),
            };
            let before = {
                let mut log = log.lock().unwrap();
                log.push(seen.clone());
                log.len() - 1
            };
            answer(&seen, before).into_response()
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
        Self { base, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn source(&self, dialect: &str, more: &str) -> Source {
        source(&self.base, dialect, more)
    }
}

fn source(base: &str, dialect: &str, more: &str) -> Source {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let toml = format!(
        "[[source]]\nname = \"here\"\ndialect = \"{dialect}\"\nbase_url = \"{base}\"\napi_key = \"s3cret-key\"\napi_secret = \
         \"s3cret-half\"\n{more}"
    );
    Source::new(&Config::from_toml(&toml).unwrap().source[0]).unwrap()
}

fn id(text: &str) -> CallId {
    CallId::parse(text).unwrap()
}

fn body(value: &Value) -> Response {
    ([("content-type", "application/json")], value.to_string()).into_response()
}

fn status(code: u16, value: &Value) -> Response {
    (StatusCode::from_u16(code).unwrap(), value.to_string()).into_response()
}

/// Row `index` of a KrosAI list, newest first, one every ten minutes.
fn row(index: u64) -> Value {
    let at = jiff::Timestamp::from_second(1_770_000_000 - i64::try_from(index).unwrap() * 600).unwrap();
    json!({ "id": format!("c{index}"), "status": "completed", "created_at": at, "completed_at": at })
}

fn rows(from: u64, to: u64) -> Vec<Value> {
    (from..to).map(row).collect()
}

fn ids(calls: &[SourceCall]) -> Vec<&str> {
    calls.iter().map(|call| call.id.as_str()).collect()
}

#[tokio::test]
async fn a_list_by_offset_is_read_whole_and_oldest_first() {
    let platform = Platform::start(|seen, _| {
        let offset = seen.asked("offset").unwrap();
        body(&json!({ "calls": rows(offset, 250.min(offset + 100)), "total": 250, "limit": 100, "offset": offset }))
    })
    .await;
    let calls = platform.source("krosai", "").collect(Window::ALWAYS).await.unwrap();
    assert_eq!((calls.len(), calls[0].id.as_str(), calls[249].id.as_str()), (250, "c249", "c0"));
    let offsets: Vec<_> = platform.seen().iter().map(|seen| (seen.asked("offset"), seen.asked("page"))).collect();
    let pages = [(Some(0), Some(1)), (Some(100), Some(2)), (Some(200), Some(3)), (Some(0), Some(1))];
    assert_eq!(offsets, pages, "three pages, and the first once more");
    assert!(platform.seen().iter().all(|seen| seen.asked("limit") == Some(100)));
}

#[tokio::test]
async fn a_list_by_page_that_clamps_its_length_is_read_whole() {
    let platform = Platform::start(|seen, _| {
        let page = seen.asked("page").unwrap();
        body(&json!({ "data": rows((page - 1) * 20, 60.min(page * 20)), "total": 60, "page": page, "limit": 20 }))
    })
    .await;
    assert_eq!(platform.source("krosai", "").collect(Window::ALWAYS).await.unwrap().len(), 60);
}

#[tokio::test]
async fn a_server_that_repeats_its_first_page_is_soon_left() {
    let platform = Platform::start(|_, _| body(&json!({ "calls": rows(0, 100), "total": 100_000 }))).await;
    let calls = platform.source("krosai", "").collect(Window::ALWAYS).await.unwrap();
    assert_eq!((calls.len(), platform.seen().len()), (100, 3));
}

#[tokio::test]
async fn a_call_that_moved_up_while_the_pages_were_read_is_found() {
    let log = |name: &str| json!({ "callId": name, "status": "completed" });
    let platform = Platform::start(move |seen, before| {
        let names = match (seen.asked("page").unwrap(), before) {
            (1, 0) => ["a", "b"],
            (2, _) => ["c", "d"],
            // `late` was changed: it left the page we had not reached for the one we had read.
            _ => ["late", "a"],
        };
        body(&json!({ "status": true, "data": { "logs": names.map(log), "pagination": { "total": 4 } } }))
    })
    .await;
    let calls = platform.source("atoms", "").collect(Window::ALWAYS).await.unwrap();
    assert_eq!(ids(&calls), ["a", "b", "c", "d", "late"]);
}

#[tokio::test]
async fn a_list_that_has_fallen_past_the_window_is_left() {
    let platform = Platform::start(|seen, _| {
        let offset = seen.asked("offset").unwrap();
        body(&json!({ "calls": rows(offset, offset + 100), "total": 100_000 }))
    })
    .await;
    let at = |index| row(index)["created_at"].as_str().unwrap().parse().unwrap();
    let window = Window { from: at(5), to: at(2) };
    let calls = platform.source("krosai", "").collect(window).await.unwrap();
    assert_eq!(ids(&calls), ["c5", "c4", "c3"]);
    assert!(platform.seen().len() <= 5, "{} of 1000 pages", platform.seen().len());
}

#[tokio::test]
async fn a_list_out_of_order_is_read_to_its_end() {
    let platform = Platform::start(|seen, _| {
        let offset = seen.asked("offset").unwrap();
        let calls: Vec<Value> = (offset..offset + 100).map(|index| row(index * 7919 % 1000)).collect();
        body(&json!({ "calls": calls, "total": 1000 }))
    })
    .await;
    let at = |index| row(index)["created_at"].as_str().unwrap().parse().unwrap();
    let window = Window { from: at(3), to: at(1) };
    assert_eq!(ids(&platform.source("krosai", "").collect(window).await.unwrap()), ["c3", "c2"]);
}

#[tokio::test]
async fn a_pass_outlives_passing_faults() {
    let platform = Platform::start(|seen, before| {
        if before % 2 == 0 {
            return ([("retry-after", "0.01")], status(503, &json!({ "error": "busy" }))).into_response();
        }
        let offset = seen.asked("offset").unwrap();
        body(&json!({ "calls": rows(offset, 500.min(offset + 100)), "total": 500 }))
    })
    .await;
    assert_eq!(platform.source("krosai", "").collect(Window::ALWAYS).await.unwrap().len(), 500);
}

#[tokio::test]
async fn an_answer_too_long_to_take_in_is_asked_for_in_halves() {
    let platform = Platform::start(|seen, _| {
        let (limit, offset) = (seen.asked("limit").unwrap(), seen.asked("offset").unwrap());
        let mut calls = rows(offset, 100.min(offset + limit));
        for call in &mut calls {
            call["padding"] = "x".repeat(200_000).into();
        }
        body(&json!({ "calls": calls, "total": 100, "limit": limit }))
    })
    .await;
    assert_eq!(platform.source("krosai", "").collect(Window::ALWAYS).await.unwrap().len(), 100);
    assert_eq!(platform.seen().iter().map(|seen| seen.asked("limit").unwrap()).collect::<Vec<_>>()[..2], [100, 50]);
}

async fn refused(answer: impl Fn(&Seen, usize) -> Response + Clone + Send + Sync + 'static) -> SourceError {
    let err = Platform::start(answer).await.source("krosai", "").get(&id("c1")).await.unwrap_err();
    let text = format!("{:#}", anyhow::Error::new(copy(&err)));
    assert!(text.contains("`here`") && !text.contains("s3cret"), "{text}");
    assert_eq!(err.side(), Side::Source);
    err
}

/// The text of an error and of all its causes.
fn copy(err: &SourceError) -> std::io::Error {
    let causes = std::iter::successors(Some(err as &dyn std::error::Error), |err| err.source());
    std::io::Error::other(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

#[tokio::test]
async fn a_platform_that_asks_to_wait_is_heard() {
    let pause = |seconds: f64| Fault::Throttled { retry_after: std::time::Duration::from_secs_f64(seconds) };
    let header =
        refused(|_, _| ([("retry-after", "1.5")], status(429, &json!({ "error": "x" }))).into_response()).await;
    assert_eq!(header.fault(), pause(1.5));
    let member = refused(|_, _| status(429, &json!({ "error": "x", "retry_after": 60 }))).await;
    assert_eq!(member.fault(), pause(60.0));
    let unnamed = refused(|_, _| status(429, &json!({ "error": "x" }))).await;
    assert_eq!(unnamed.fault(), pause(30.0));
    let date = |_: &Seen, _| {
        let headers = [("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
        (headers, status(503, &json!({}))).into_response()
    };
    assert_eq!(refused(date).await.fault(), pause(30.0));
}

#[tokio::test]
async fn a_wrong_key_waits_for_another_and_names_what_to_change() {
    // 403 about one call may be about that call alone.
    let waits = Fault::Throttled { retry_after: std::time::Duration::from_secs(60) };
    for (code, fault) in [(401, waits), (403, Fault::Transient)] {
        let err = refused(move |_, _| status(code, &json!({ "error": "bad key s3cret-key" }))).await;
        assert_eq!(err.fault(), fault);
        assert!(err.to_string().contains("api_key") && !err.to_string().contains("s3cret"), "{err}");
    }
}

#[tokio::test]
async fn trouble_and_nonsense_are_tried_again() {
    for code in [500, 502, 408, 425] {
        assert_eq!(refused(move |_, _| status(code, &json!({}))).await.fault(), Fault::Transient, "{code}");
    }
    for code in [200, 404] {
        let page = move |_: &Seen, _: usize| {
            (StatusCode::from_u16(code).unwrap(), " <!DOCTYPE html><html>Welcome</html>").into_response()
        };
        let err = refused(page).await;
        assert_eq!(err.fault(), Fault::Transient);
        assert!(err.to_string().contains("HTML") && err.to_string().contains("/calls/c1"), "{err}");
    }
    let err = refused(|_, _| "{\"id\": \"c1\", \"sta".into_response()).await;
    assert_eq!(err.fault(), Fault::Transient);
    assert!(copy(&err).to_string().contains("line 1"), "{}", copy(&err));
    let err = refused(|_, _| body(&json!({ "id": "c2", "status": "completed" }))).await;
    assert_eq!(err.fault(), Fault::Permanent, "another call's record");
    assert_eq!(refused(|_, _| status(418, &json!({ "error": "teapot" }))).await.fault(), Fault::Permanent);
}

#[tokio::test]
async fn a_call_the_platform_does_not_know_has_vanished() {
    let platform = Platform::start(|_, _| status(404, &json!({ "error": "Call not found" }))).await;
    assert_eq!(platform.source("krosai", "").get(&id("c1")).await.unwrap(), None);
    let zudu =
        Platform::start(|_, _| body(&json!({ "status": "error", "message": "Call not found", "data": null }))).await;
    assert_eq!(zudu.source("zudu", "").get(&id("c1")).await.unwrap(), None);
}

#[tokio::test]
async fn a_list_that_is_not_there_is_an_address_to_correct() {
    let platform = Platform::start(|_, _| StatusCode::NOT_FOUND).await;
    let err = platform.source("krosai", "").list_page(None).await.unwrap_err();
    assert_eq!(err.fault(), Fault::Permanent);
    assert!(err.to_string().contains("base_url"), "{err}");
}

#[tokio::test]
async fn keys_do_not_follow_a_redirect() {
    let elsewhere = Platform::start(|_, _| body(&json!({ "id": "c1" }))).await;
    let target = format!("{}/calls/c1", elsewhere.base);
    let platform =
        Platform::start(move |_, _| (StatusCode::FOUND, [("location", target.clone())]).into_response()).await;
    let err = platform.source("krosai", "").get(&id("c1")).await.unwrap_err();
    assert_eq!(err.fault(), Fault::Permanent);
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn an_id_that_climbs_stays_in_its_place() {
    let platform = Platform::start(|_, _| body(&json!({ "status": "completed" }))).await;
    let krosai = platform.source("krosai", "");
    let call = krosai.get(&id("../../admin?x=1")).await.unwrap().unwrap();
    assert_eq!(call.id.as_str(), "../../admin?x=1");
    assert_eq!(platform.seen()[0].path, "/calls/..%2F..%2Fadmin%3Fx%3D1");
    assert_eq!(krosai.get(&id("..")).await.unwrap_err().fault(), Fault::Permanent);
    assert_eq!(platform.seen().len(), 1);
}

#[tokio::test]
async fn the_organisation_is_named_and_another_ones_calls_are_refused() {
    let answer = json!({ "data": [{ "id": "c1", "organization_id": "org-2" }], "total": 1 });
    let platform = Platform::start(move |_, _| body(&answer)).await;
    let named = platform.source("krosai", "organization_id = \"org-1\"");
    let err = named.list_page(None).await.unwrap_err();
    assert_eq!(err.fault(), Fault::Permanent);
    assert!(err.to_string().contains("organization_id"), "{err}");
    assert_eq!(platform.seen()[0].headers["x-organization-id"], "org-1");
    assert_eq!(platform.seen()[0].headers["authorization"], "Bearer s3cret-key");
    let unnamed = platform.source("krosai", "").list_page(None).await.unwrap();
    assert_eq!(unnamed.calls[0].org_id.as_deref(), Some("org-2"));
}

#[tokio::test]
async fn a_version_tag_is_kept() {
    let platform =
        Platform::start(|_, _| ([("etag", "\"v7\"")], body(&json!({ "id": "c1", "status": "completed" })))).await;
    let call = platform.source("krosai", "").get(&id("c1")).await.unwrap().unwrap();
    assert_eq!(call.etag.as_deref(), Some("\"v7\""));
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let broken = tokio::spawn(async move {
        let (first, _) = listener.accept().await.unwrap();
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = second.read(&mut request).await.unwrap();
        second.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"id\":\"c1\"}").await.unwrap();
    });
    assert!(source(&base, "krosai", "").get(&id("c1")).await.unwrap().is_some());
    broken.await.unwrap();
}

#[tokio::test]
async fn a_platform_that_is_not_there_is_transient_and_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let err = source(&base, "krosai", "").get(&id("c1")).await.unwrap_err();
    assert_eq!(err.fault(), Fault::Transient);
    assert!(err.to_string().contains("127.0.0.1"), "{err}");
}
