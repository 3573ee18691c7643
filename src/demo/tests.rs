//! Tests of the platform over real loopback HTTP. Their client follows the documents and uses none of the platform's
//! code.

mod dialects;
mod faults;
mod host;
mod receiver;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;

use super::*;

const NOW: &str = "2026-03-01T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A running platform whose clock the test controls.
struct Site {
    platform: SamplePlatform,
    running: RunningPlatform,
    client: Client,
    seconds: Arc<AtomicI64>,
}

impl Site {
    async fn with(build: impl FnOnce(Builder) -> Builder) -> Self {
        let seconds = Arc::new(AtomicI64::new(now().as_second()));
        let hand = Arc::clone(&seconds);
        let clock: Clock = Arc::new(move || Timestamp::from_second(hand.load(Ordering::SeqCst)).unwrap());
        let platform = build(SamplePlatform::builder(clock)).build();
        let running = platform.serve(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
        Self { platform, running, client: client(), seconds }
    }

    async fn of(calls: impl IntoIterator<Item = SampleCall>) -> Self {
        Self::with(|builder| builder.calls(calls)).await
    }

    fn turn_clock(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running.base_url())
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    /// The JSON at a path of a platform. The status must be 200.
    async fn read(&self, api: Api, path: &str) -> Value {
        let request = self.get(&format!("{}{path}", api.base_path()));
        json_of(signed(request, api).send().await.unwrap()).await
    }

    async fn post(&self, api: Api, path: &str, body: &Value) -> Value {
        let request = self.client.post(self.url(&format!("{}{path}", api.base_path()))).json(body);
        json_of(signed(request, api).send().await.unwrap()).await
    }

    async fn status(&self, api: Api, path: &str) -> (StatusCode, Value) {
        let request = self.get(&format!("{}{path}", api.base_path()));
        let answer = signed(request, api).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }
}

/// Adds the credentials that the platform of this path documents.
fn signed(request: RequestBuilder, api: Api) -> RequestBuilder {
    let keys = Keys::default();
    match api {
        Api::KrosaiV1 => request.header("x-api-key", keys.krosai),
        Api::KrosaiCockpit => request.bearer_auth(keys.cockpit),
        Api::Zudu => request.header("X-API-KEY", keys.zudu).header("X-API-SECRET", keys.zudu_secret),
        Api::Atoms => request.bearer_auth(keys.atoms),
    }
}

fn client() -> Client {
    // The first test installs it. In later tests it is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

async fn json_of(answer: Response) -> Value {
    assert_eq!(answer.status(), StatusCode::OK, "{}", answer.url());
    answer.json().await.unwrap()
}

/// Calls of one platform, one per minute. The last one ends now.
fn many(api: Api, count: u32) -> Vec<SampleCall> {
    (0..count)
        .map(|n| SampleCall::numbered(api, n, now() - std::time::Duration::from_secs(60 * u64::from(count - 1 - n))))
        .collect()
}

fn keys_of(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_demo_configuration_is_accepted() {
    let config = crate::config::Config::from_toml(&sources_toml("http://127.0.0.1:4321")).unwrap();
    let sources: Vec<(&str, &str)> =
        config.source.iter().map(|source| (source.name.as_str(), source.base_url.as_str())).collect();
    assert_eq!(
        sources,
        [
            ("krosai", "http://127.0.0.1:4321/krosai/v1"),
            ("krosai-cockpit", "http://127.0.0.1:4321/cockpit/v1"),
            ("zudu", "http://127.0.0.1:4321/zudu"),
            ("atoms", "http://127.0.0.1:4321/atoms/v1"),
        ]
    );
    let http = config.source[3].http.as_ref().unwrap();
    assert_eq!(http.url, "http://127.0.0.1:4321/receiver/calls/{{ call.id }}");
    assert!(http.if_match && http.headers.contains_key("authorization"));
}

#[tokio::test]
async fn the_samples_are_all_listed_and_their_recordings_arrive() {
    let clock: Clock = Arc::new(now);
    let (samples, platform) = sample(now(), clock).unwrap();
    let running = platform.serve(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
    let site = Site { platform, running, client: client(), seconds: Arc::default() };
    let v1 = site.read(Api::KrosaiV1, "/calls").await;
    let cockpit = site.read(Api::KrosaiCockpit, "/calls").await;
    let zudu = site.read(Api::Zudu, "/api/calls").await;
    let atoms = site.read(Api::Atoms, "/conversation?limit=100").await;
    let totals = [
        &v1["total"],
        &cockpit["total"],
        &zudu["data"]["pagination"]["total_count"],
        &atoms["data"]["pagination"]["total"],
    ];
    let listed: u64 = totals.iter().map(|total| total.as_u64().unwrap()).sum();
    assert_eq!(listed as usize, samples.len());
    let delivery = v1["calls"].as_array().unwrap().iter().find(|call| call["id"] == "call_delivery").unwrap();
    let bytes =
        site.client.get(delivery["recording_url"].as_str().unwrap()).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes, recordings::delivery().bytes);
    assert_eq!(site.platform.requests().of(RequestKind::Recording, "call_delivery"), 1);
    site.running.stop().await;
}
