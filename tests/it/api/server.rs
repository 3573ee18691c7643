//! A server on loopback over an application of its own, and calls put into its records the way jobs put them there.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aftercall::api;
use aftercall::app::{App, Clock};
use aftercall::config::Config;
use aftercall::domain::{CallId, CallUid, Outcome, ProviderTurn, Role, SourceCall, SourceName, Transcript};
use aftercall::store::{Admitted, CallRecord, FinishedCall, NewHold, Scope};
use aftercall::transcript;
use aftercall::wire::{Dialect, KeyHeaders, LossUnit, Vendor};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::Backend;
use crate::postgres;

pub const DAY: i64 = 86_400_000;

/// A running API.
pub struct Server {
    pub app: Arc<App>,
    pub base: String,
    pub client: Client,
    pub stop: CancellationToken,
    pub dir: TempDir,
    clock: Arc<AtomicI64>,
}

/// What a request got.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|err| panic!("{err}: {}", self.text))
    }

    /// The answer as an error, whose shape is checked on the way.
    pub fn code(&self) -> String {
        let body = self.json();
        let members: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(members, ["code", "details", "error"], "{body}");
        assert!(body["error"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        format!("{} {}", self.status.as_u16(), body["code"].as_str().unwrap())
    }
}

impl Server {
    pub async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let store = format!("sqlite://{}/store.db", dir.path().display());
        Self::over(dir, &store).await
    }

    pub async fn on(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => Self::start().await,
            Backend::Postgres => Self::over(TempDir::new().unwrap(), &postgres::cluster().unwrap().database()).await,
        }
    }

    /// The same over any database.
    pub async fn over(dir: TempDir, store: &str) -> Self {
        let root = dir.path().display();
        let source = |name: &str| {
            format!(
                "[[source]]\nname = \"{name}\"\ndialect = \"krosai\"\nbase_url = \"http://127.0.0.1:1/\"\napi_key = \"k\"\n"
            )
        };
        let toml = format!(
            "data_dir = \"{root}\"\n[store]\nurl = \"{store}\"\n[objects]\npath = \"{root}/objects\"\n\
             [api]\nmax_body_bytes = 20000\n{}{}",
            source("desk"),
            source("branch"),
        );
        let clock = Arc::new(AtomicI64::new(0));
        let app = App::build(Config::from_toml(&toml).unwrap(), Clock::offset_by(clock.clone())).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(api::serve(app.clone(), listener, stop.clone()));
        let client = Client::builder().no_proxy().build().unwrap();
        Self { app, base, client, stop, dir, clock }
    }

    pub fn turn_clock(&self, by_ms: i64) {
        self.clock.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// A new key with these scopes, confined to an organisation or not.
    pub async fn key(&self, scopes: &[Scope], org_id: Option<&str>) -> String {
        let secret = format!("ac_{}", CallUid::new());
        self.app.store.add_key("test", &secret, scopes, org_id, self.app.now()).await.unwrap();
        secret
    }

    pub fn request(&self, method: Method, key: &str, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).header("x-api-key", key)
    }

    pub async fn get(&self, key: &str, path: &str) -> Answer {
        answer(self.request(Method::GET, key, path)).await
    }

    pub async fn trigger(&self, key: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, key, "/v1/triggers").body(body.to_string())).await
    }

    /// Writes a call into the records as a backfill would.
    pub async fn admit(&self, source: &str, call: &SourceCall) -> CallRecord {
        let source = SourceName::parse(source).unwrap();
        let term = self.app.config.retention_term(&source);
        let mut tx = self.app.store.begin().await.unwrap();
        let admitted = Admitted { source: &source, call_id: &call.id, call: Some(call), now: self.app.now(), term };
        let record = self.app.store.admit(&mut tx, admitted).await.unwrap();
        tx.commit().await.unwrap();
        record
    }

    /// Ends a call as a job would, with words or without.
    pub async fn finish(&self, record: &CallRecord, outcome: Outcome, words: Option<&Transcript>) {
        let now = self.app.now();
        let mut tx = self.app.store.begin().await.unwrap();
        let version = match words {
            Some(words) => {
                let text = transcript::text(words).unwrap();
                Some(self.app.store.add_transcript(&mut tx, record.uid, words, &text, now).await.unwrap())
            }
            None => None,
        };
        let quality = json!({ "schema": "aftercall.quality/1", "mos": { "mos_cqe": 4.2 } });
        let finished = FinishedCall {
            outcome,
            reason: None,
            artifacts: &[],
            quality: words.map(|_| &quality),
            flags: &["narrowband".to_owned()],
            transcript_version: version,
            left: None,
            now,
        };
        assert!(self.app.store.finish_call(&mut tx, record.uid, record.generation, &finished).await.unwrap());
        tx.commit().await.unwrap();
    }

    /// A finished call with the words of [`spoken`].
    pub async fn done(&self, source: &str, call: &SourceCall) -> CallRecord {
        let record = self.admit(source, call).await;
        self.finish(&record, Outcome::Done, Some(&spoken())).await;
        self.app.store.call(record.uid).await.unwrap().unwrap()
    }

    pub async fn hold(&self, record: &CallRecord) {
        let now = self.app.now();
        let hold = NewHold { call_uid: record.uid, matter: "m", placed_by: "p", now, review_by: now };
        let mut tx = self.app.store.begin().await.unwrap();
        self.app.store.place_hold(&mut tx, hold).await.unwrap().unwrap();
        tx.commit().await.unwrap();
    }

    /// Decides a call's erasure, as the sweep does once its term is over.
    pub async fn condemn(&self, record: &CallRecord) {
        let mut tx = self.app.store.begin().await.unwrap();
        assert!(self.app.store.condemn(&mut tx, record.uid, record.retain_until).await.unwrap());
        tx.commit().await.unwrap();
    }

    /// What the audit says of a call: who did what.
    pub async fn audit(&self, record: &CallRecord) -> Vec<String> {
        let entries = self.app.store.audit_entries(Some(&record.uid.to_string())).await.unwrap();
        entries.into_iter().map(|entry| format!("{} {}", entry.action, entry.detail)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    Answer { status, headers, text: response.text().await.unwrap() }
}

/// The platform's own description of a call, read by the client's half of the dialect.
pub fn call(id: &str) -> SourceCall {
    let now = Timestamp::now();
    let at = |seconds: i64| now + SignedDuration::from_secs(seconds - 3600);
    let whole = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap().to_string();
    let body = json!({
        "id": id, "from_number": "+14155550101", "to_number": "+2348000000001", "direction": "inbound",
        "status": "completed", "duration": 42, "cost_cents": 3,
        "endpoint": { "id": "ep_1" }, "phone_number": { "id": "pn_1", "number": "+2348000000001" },
        "recording_url": format!("https://storage.example.test/{id}.mp3?sig=canary-signature"),
        "transcript": "[Agent]: canary-platform-text\n[Caller]: canary-platform-text",
        "quality_metrics": { "latency_ms": 120, "audio_codec": "opus", "packet_loss": 0.01 },
        "hangup_cause": "normal_clearing",
        "created_at": whole(at(0)), "answered_at": whole(at(5)), "completed_at": whole(at(47)),
    });
    dialect().read_detail(body.to_string().as_bytes(), &CallId::parse(id).unwrap()).unwrap()
}

/// A client of the platform this API is compatible with.
pub fn dialect() -> Dialect {
    Dialect {
        platform: Vendor::Krosai,
        loss_unit: LossUnit::Documented,
        key_headers: KeyHeaders::Both,
        organization: None,
    }
}

/// A transcript with times, longer than a list shows.
pub fn spoken() -> Transcript {
    let turn = |role, text: &str, start_ms: u64| ProviderTurn {
        role,
        text: text.to_owned(),
        start_ms: Some(start_ms),
        end_ms: Some(start_ms + 2000),
        words: Vec::new(),
        approximate: false,
    };
    let turns = [
        turn(Role::Agent, "Good morning, canary-words, how may I help you with your order today?", 0),
        turn(Role::Caller, "Where is my parcel?", 3000),
    ];
    transcript::from_turns(&turns, None)
}
