//! `/v1/backfills`: every route, what it takes and what it refuses, and that a worker does as it was told.

use std::time::Duration;

use aftercall::api;
use aftercall::demo::{Api, RequestKind, SampleCall};
use aftercall::queue::FinishedJobs;
use aftercall::store::{CallFilter, Scope};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::server::{Answer, Server, answer};
use crate::harness::{Backend, Fixture, on_every_backend};

on_every_backend!(
    a_plan_counts_and_writes_nothing,
    a_backfill_started_here_runs_to_its_end,
    a_worker_obeys_pause_resume_and_cancel,
    a_worker_obeys_a_new_rate,
);

const FROM: &str = "2026-01-01T00:00:00Z";

/// The API over an app that has a platform beside it, and a key for it.
struct Site {
    fixture: Fixture,
    client: Client,
    base: String,
    key: String,
    _stop: DropGuard,
}

impl Site {
    async fn start(backend: Backend, count: u32) -> Self {
        let fixture = Fixture::start(backend, move |now: Timestamp| {
            let call = |n| SampleCall::numbered(Api::Atoms, n, now - SignedDuration::from_mins(i64::from(n) + 5));
            (0..count).map(call).collect()
        })
        .await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(api::serve(fixture.app.app.clone(), listener, stop.clone()));
        let key = "ac_test".to_owned();
        fixture.store.add_key("test", &key, &[Scope::CallsWrite], None, fixture.now()).await.unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        Self { fixture, client, base, key, _stop: stop.drop_guard() }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.client.request(method, format!("{}{path}", self.base)).header("x-api-key", &self.key);
        answer(request.body(body.map(|body| body.to_string()).unwrap_or_default())).await
    }

    /// Starts a backfill of everything, with `more` in the body, and returns its id.
    async fn begin(&self, more: Value) -> String {
        let started = self.ask(Method::POST, "/v1/backfills", Some(of("atoms", more))).await;
        assert_eq!(started.status, StatusCode::CREATED, "{}", started.text);
        started.json()["id"].as_str().unwrap().to_owned()
    }

    async fn shown(&self, id: &str) -> Value {
        let shown = self.ask(Method::GET, &format!("/v1/backfills/{id}"), None).await;
        assert_eq!(shown.status, StatusCode::OK, "{}", shown.text);
        shown.json()
    }

    async fn post(&self, id: &str, verb: &str) -> Answer {
        self.ask(Method::POST, &format!("/v1/backfills/{id}/{verb}"), None).await
    }

    async fn processing(&self) -> usize {
        let jobs = self.fixture.queue.jobs(FinishedJobs::Included, u64::MAX).await.unwrap();
        jobs.iter().filter(|job| job.kind == "process_call").count()
    }
}

/// The body that asks for a backfill of a source since [`FROM`].
fn of(source: &str, more: Value) -> Value {
    let mut body = json!({ "source": source, "from": FROM });
    let Value::Object(more) = more else { panic!("{more}") };
    body.as_object_mut().unwrap().extend(more);
    body
}

async fn a_plan_counts_and_writes_nothing(backend: Backend) {
    let site = Site::start(backend, 7).await;
    let dry = |more: Value| {
        let mut body = of("atoms", json!({ "dry_run": true }));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        site.ask(Method::POST, "/v1/backfills", Some(body))
    };
    let planned = dry(json!({ "rate_per_minute": 2 })).await;
    assert_eq!(planned.status, StatusCode::OK, "{}", planned.text);
    let plan = planned.json();
    let skipped: u64 = plan["skipped"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    let to_do = plan["to_do"].as_u64().unwrap();
    assert_eq!((plan["listed"].as_u64(), to_do + skipped), (Some(7), 7), "{plan}");
    assert_eq!(plan["estimated_minutes"].as_f64(), Some(to_do as f64 / 2.0), "{plan}");
    assert!(plan["audio_hours"].as_f64().unwrap() > 0.0 && plan["platform_requests"].as_u64().unwrap() > to_do);
    let none = dry(json!({ "where_outcome": "no_engine" })).await.json();
    assert_eq!((none["listed"].as_u64(), none["to_do"].as_u64()), (Some(0), Some(0)), "{none}");
    // Nothing has come of either.
    let all = site.ask(Method::GET, "/v1/backfills", None).await.json();
    assert_eq!(all, json!({ "backfills": [] }));
    assert!(site.fixture.queue.jobs(FinishedJobs::Included, 10).await.unwrap().is_empty());
    assert_eq!(site.fixture.store.calls(&CallFilter::default()).await.unwrap().len(), 0);
    assert_eq!(site.fixture.platform.requests().count(RequestKind::Recording), 0);
}

async fn a_backfill_started_here_runs_to_its_end(backend: Backend) {
    let site = Site::start(backend, 4).await;
    let id = site.begin(json!({})).await;
    let begun = site.shown(&id).await;
    assert_eq!(
        (&begun["state"], &begun["listed"], &begun["origin"]),
        (&json!("listing"), &json!(0), &json!("command"))
    );
    site.fixture.run_pending().await;
    let ended = site.shown(&id).await;
    let skipped: u64 = ended["skipped"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    let done = ended["done"].as_u64().unwrap();
    assert_eq!((&ended["state"], &ended["failed"], &ended["left"]), (&json!("done"), &json!(0), &json!(0)), "{ended}");
    assert_eq!((ended["listed"].as_u64(), done + skipped), (Some(4), 4), "{ended}");
    assert_eq!(site.processing().await as u64, done);
    for verb in ["pause", "resume", "cancel"] {
        assert_eq!(site.post(&id, verb).await.code(), "409 is_over", "{verb}");
    }
    let path = format!("/v1/backfills/{id}");
    let rated = site.ask(Method::PATCH, &path, Some(json!({ "rate_per_minute": 5 }))).await;
    assert_eq!(rated.code(), "409 is_over");
    // Once more, of those that ended well: a new version of each.
    let again = site.begin(json!({ "where_outcome": "done" })).await;
    site.fixture.run_pending().await;
    let repeated = site.shown(&again).await;
    assert_eq!((&repeated["state"], &repeated["where_outcome"]), (&json!("done"), &json!("done")), "{repeated}");
    assert!(repeated["done"].as_u64().unwrap() > 0, "{repeated}");
    let all = site.ask(Method::GET, "/v1/backfills", None).await.json();
    let ids: Vec<&str> = all["backfills"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [again.as_str(), id.as_str()], "newest first");
    assert_eq!(all["backfills"][1], ended);
}

async fn a_worker_obeys_pause_resume_and_cancel(backend: Backend) {
    let site = Site::start(backend, 12).await;
    let id = site.begin(json!({ "rate_per_minute": 1 })).await;
    assert_eq!(site.post(&id, "pause").await.json()["state"], "paused");
    site.fixture.run_pending().await;
    assert_eq!(site.processing().await, 0);
    let resumed = site.post(&id, "resume").await;
    assert_eq!((resumed.status, &resumed.json()["state"]), (StatusCode::OK, &json!("listing")));
    site.fixture.advance(Duration::from_secs(10)).await;
    site.fixture.run_pending().await;
    assert_eq!(site.processing().await, 1, "one a minute");
    // Without a worker there is nothing to tell the time by.
    assert_eq!(site.shown(&id).await["eta_seconds"], json!(null));
    site.fixture.queue.heartbeat("w", "test").await.unwrap();
    let shown = site.shown(&id).await;
    assert_eq!((&shown["state"], &shown["rate_per_minute"]), (&json!("feeding"), &json!(1)), "{shown}");
    assert!(shown["left"].as_u64().unwrap() > 0 && shown["eta_seconds"].as_u64().unwrap() > 60, "{shown}");
    assert_eq!(site.post(&id, "cancel").await.json()["state"], "cancelled");
    site.fixture.advance(Duration::from_secs(10)).await;
    site.fixture.run_pending().await;
    let ended = site.shown(&id).await;
    assert_eq!((&ended["state"], &ended["left"]), (&json!("cancelled"), &json!(0)), "{ended}");
    assert!(ended["skipped"]["cancelled"].as_u64().unwrap() > 5, "{ended}");
    assert_eq!(site.processing().await, 1);
}

async fn a_worker_obeys_a_new_rate(backend: Backend) {
    let site = Site::start(backend, 8).await;
    let id = site.begin(json!({ "rate_per_minute": 1 })).await;
    site.fixture.run_pending().await;
    assert_eq!(site.processing().await, 1);
    let path = format!("/v1/backfills/{id}");
    let faster = site.ask(Method::PATCH, &path, Some(json!({ "rate_per_minute": null }))).await;
    assert_eq!((faster.status, &faster.json()["rate_per_minute"]), (StatusCode::OK, &Value::Null));
    site.fixture.advance(Duration::from_secs(10)).await;
    site.fixture.run_pending().await;
    let ended = site.shown(&id).await;
    assert_eq!((&ended["state"], &ended["left"]), (&json!("done"), &json!(0)), "{ended}");
    assert_eq!(site.processing().await as u64, ended["done"].as_u64().unwrap());
}

#[tokio::test]
async fn one_that_was_steered_says_how_it_stands() {
    let server = Server::start().await;
    let key = server.key(&[Scope::CallsWrite], None).await;
    let start = |source: &str| {
        let body = of(source, json!({ "to": "2026-02-01T00:00:00Z", "again": true, "rate_per_minute": 120 }));
        answer(server.request(Method::POST, &key, "/v1/backfills").body(body.to_string()))
    };
    let (first, second) = (start("desk").await, start("branch").await);
    assert_eq!((first.status, second.status), (StatusCode::CREATED, StatusCode::CREATED));
    let begun = first.json();
    let as_asked = ["source", "from", "to", "again", "rate_per_minute", "state", "where_outcome"];
    let expected =
        json!(["desk", FROM, "2026-02-01T00:00:00Z", true, 120, "listing", null]).as_array().unwrap().clone();
    assert_eq!(as_asked.map(|name| begun[name].clone()).to_vec(), expected);
    let path = format!("/v1/backfills/{}", begun["id"].as_str().unwrap());
    assert_eq!(server.get(&key, &path).await.json(), begun);
    assert_eq!(server.get(&key, "/v1/backfills").await.json()["backfills"][0], second.json(), "newest first");
    let steps = [("pause", "paused"), ("pause", "paused"), ("resume", "listing"), ("cancel", "cancelled")];
    for (verb, state) in steps {
        let steered = answer(server.request(Method::POST, &key, &format!("{path}/{verb}"))).await;
        assert_eq!((steered.status, &steered.json()["state"]), (StatusCode::OK, &json!(state)), "{verb}");
    }
    for verb in ["pause", "resume", "cancel"] {
        let refused = answer(server.request(Method::POST, &key, &format!("{path}/{verb}"))).await;
        assert_eq!(refused.code(), "409 is_over", "cancelled is for good: {verb}");
    }
    assert_eq!(server.get(&key, &path).await.json()["state"], "cancelled");
    // One job for each, whatever was asked of them since.
    assert_eq!(server.app.queue.jobs(FinishedJobs::Included, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_read_starts_and_changes_nothing() {
    let server = Server::start().await;
    let key = server.key(&[Scope::CallsWrite], None).await;
    let post = |body: String| answer(server.request(Method::POST, &key, "/v1/backfills").body(body));
    let wrong = [
        json!([]),
        json!({}),
        json!({ "source": "desk" }),
        json!({ "from": FROM }),
        json!({ "source": "Not A Name", "from": FROM }),
        json!({ "source": "desk", "from": "yesterday" }),
        json!({ "source": "desk", "from": "2026-02-01T00:00:00Z", "to": FROM }),
        json!({ "source": "desk", "from": FROM, "to": FROM }),
        of("desk", json!({ "rate_per_minute": 0 })),
        of("desk", json!({ "rate_per_minute": -1 })),
        of("desk", json!({ "rate_per_minute": "120/min" })),
        of("desk", json!({ "where_outcome": "no_such_outcome" })),
        of("desk", json!({ "again": "yes" })),
        of("desk", json!({ "rate": 5 })),
    ];
    for body in wrong {
        assert_eq!(post(body.to_string()).await.code(), "400 invalid_body", "{body}");
    }
    assert_eq!(post("{\"source\": \"desk".to_owned()).await.code(), "400 invalid_body");
    assert_eq!(post("x".repeat(30_000)).await.code(), "413 too_large");
    assert_eq!(post(of("nowhere", json!({})).to_string()).await.code(), "422 unknown_source");
    assert_eq!(server.get(&key, "/v1/backfills").await.json(), json!({ "backfills": [] }));
    assert!(server.app.queue.jobs(FinishedJobs::Included, 10).await.unwrap().is_empty());

    let begun = post(of("desk", json!({ "rate_per_minute": 7 })).to_string()).await.json();
    let path = format!("/v1/backfills/{}", begun["id"].as_str().unwrap());
    for body in [json!({}), json!({ "rate_per_minute": 0 }), json!({ "rate_per_minute": 1.5 }), json!({ "rate": 1 })] {
        let changed = answer(server.request(Method::PATCH, &key, &path).body(body.to_string())).await;
        assert_eq!(changed.code(), "400 invalid_body", "{body}");
    }
    let unknown = format!("{path}/hurry");
    assert_eq!(answer(server.request(Method::POST, &key, &unknown)).await.code(), "404 not_found");
    assert_eq!(server.get(&key, &path).await.json()["rate_per_minute"], 7);
    let nothing = "/v1/backfills/nothing";
    assert_eq!(server.get(&key, nothing).await.code(), "404 not_found");
    assert_eq!(answer(server.request(Method::POST, &key, &format!("{nothing}/pause"))).await.code(), "404 not_found");
    let rated = server.request(Method::PATCH, &key, nothing).body("{\"rate_per_minute\": 1}");
    assert_eq!(answer(rated).await.code(), "404 not_found");
    assert_eq!(answer(server.request(Method::DELETE, &key, &path)).await.code(), "405 method_not_allowed");
}

#[tokio::test]
async fn only_who_may_write_calls_of_every_organisation_sees_backfills() {
    let server = Server::start().await;
    let whole = server.key(&[Scope::CallsWrite], None).await;
    let reader = server.key(&[Scope::CallsRead], None).await;
    let confined = server.key(&[Scope::CallsWrite], Some("org-a")).await;
    let start = of("desk", json!({})).to_string();
    let begun = answer(server.request(Method::POST, &whole, "/v1/backfills").body(start.clone())).await.json();
    let one = format!("/v1/backfills/{}", begun["id"].as_str().unwrap());
    let pause = format!("{one}/pause");
    let routes = [
        (Method::GET, "/v1/backfills", ""),
        (Method::POST, "/v1/backfills", start.as_str()),
        (Method::GET, one.as_str(), ""),
        (Method::PATCH, one.as_str(), "{\"rate_per_minute\": 1}"),
        (Method::POST, pause.as_str(), ""),
    ];
    for (method, path, body) in routes {
        let with = |key: &str| server.request(method.clone(), key, path).body(body.to_owned());
        let nobody = server.client.request(method.clone(), format!("{}{path}", server.base)).body(body.to_owned());
        assert_eq!(answer(nobody).await.code(), "401 unauthorized", "{method} {path}");
        assert_eq!(answer(with("ac_wrong")).await.code(), "401 unauthorized", "{method} {path}");
        let refused = answer(with(&reader)).await;
        assert_eq!(refused.code(), "403 forbidden", "{method} {path}");
        assert_eq!(refused.json()["details"], json!({ "scope": "calls:write" }));
        assert_eq!(answer(with(&confined)).await.code(), "403 forbidden", "{method} {path}");
        let named = with(&whole).header("x-organization-id", "org-a");
        assert_eq!(answer(named).await.code(), "403 forbidden", "{method} {path}");
    }
    let all = server.get(&whole, "/v1/backfills").await.json();
    assert_eq!(all, json!({ "backfills": [begun] }), "nothing was started or changed");
}
