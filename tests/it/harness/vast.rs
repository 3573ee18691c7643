//! A platform too large to be held: each of its calls is reckoned from its number when it is asked for. It pages as the
//! "Call logs" document says (`calls`, `total`, `limit`, `offset`), newest first, and counts what it is asked by the day.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use aftercall::app::Clock;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub const KEY: &str = "vast_key";
/// From the first ring to the end.
pub const LASTS: SignedDuration = SignedDuration::from_secs(180);
const ANSWERED_AFTER: SignedDuration = SignedDuration::from_secs(5);
const LONGEST_PAGE: usize = 100;

/// Whether `from_date` is obeyed; the document has it, and not every platform does as documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateFilter {
    Obeyed,
    Ignored,
}

/// What it was asked on one day (UTC, by its own clock).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    pub lists: u64,
    pub details: u64,
}

impl Asked {
    pub const fn all(self) -> u64 {
        self.lists + self.details
    }
}

/// A call every `every`, the first at `first`.
pub struct Vast {
    pub first: Timestamp,
    pub every: SignedDuration,
    pub filter: DateFilter,
    pub clock: Clock,
    asked: Mutex<BTreeMap<i64, Asked>>,
}

impl Vast {
    pub fn new(first: Timestamp, every: SignedDuration, filter: DateFilter, clock: Clock) -> Arc<Self> {
        Arc::new(Self { first, every, filter, clock, asked: Mutex::default() })
    }

    /// Serves it; returns the base URL of a source.
    pub async fn serve(self: &Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let router =
            Router::new().route("/v1/calls", get(list)).route("/v1/calls/{id}", get(detail)).with_state(self.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        base
    }

    /// Requests by UTC day since 1970.
    pub fn asked(&self) -> BTreeMap<i64, Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Calls set up by a moment.
    pub fn made_by(&self, at: Timestamp) -> u64 {
        let since = at.duration_since(self.first);
        if since.is_negative() { 0 } else { (since.as_millis() / self.every.as_millis()) as u64 + 1 }
    }

    /// Calls that had ended by a moment.
    pub fn ended_by(&self, at: Timestamp) -> u64 {
        self.made_by(at - LASTS)
    }

    pub fn made_at(&self, n: u64) -> Timestamp {
        self.first + SignedDuration::from_millis(self.every.as_millis() as i64 * n as i64)
    }

    fn count(&self, add: impl FnOnce(&mut Asked)) {
        let day = self.clock.now().as_millisecond().div_euclid(86_400_000);
        add(self.asked.lock().unwrap().entry(day).or_default());
    }

    fn call(&self, n: u64, now: Timestamp) -> Value {
        let (made, text) = (self.made_at(n), |at: Timestamp| at.to_string());
        let ended = made + LASTS;
        let over = ended <= now;
        json!({
            "id": format!("call_{n}"), "from_number": "+14155550101", "to_number": "+2348000000001",
            "direction": if n.is_multiple_of(3) { "outbound" } else { "inbound" },
            "status": if over { "completed" } else { "in_progress" },
            "duration": if over { (LASTS - ANSWERED_AFTER).as_secs() } else { 0 },
            "cost_cents": if over { 3 } else { 0 },
            "recording_url": over.then(|| format!("https://storage.example.test/call_{n}.mp3")),
            "created_at": text(made), "answered_at": text(made + ANSWERED_AFTER),
            "completed_at": over.then(|| text(ended)),
        })
    }
}

fn refused(headers: &HeaderMap) -> Option<Response> {
    let right = headers.get("x-api-key").is_some_and(|key| key == KEY);
    let body = json!({ "error": "unauthorized", "code": "UNAUTHORIZED", "details": null });
    (!right).then(|| (StatusCode::UNAUTHORIZED, Json(body)).into_response())
}

async fn list(
    State(vast): State<Arc<Vast>>,
    Query(asked): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    vast.count(|asked| asked.lists += 1);
    if let Some(refused) = refused(&headers) {
        return refused;
    }
    let number = |name: &str, default: usize| asked.get(name).map_or(default, |text| text.parse().unwrap());
    let (limit, offset) = (number("limit", 50).min(LONGEST_PAGE), number("offset", 0));
    let now = vast.clock.now();
    let made = vast.made_by(now);
    let from: Option<Timestamp> = asked.get("from_date").map(|text| text.parse().unwrap());
    // Calls before this number are filtered out.
    let oldest = match (vast.filter, from) {
        (DateFilter::Obeyed, Some(from)) => vast.made_by(from - SignedDuration::from_millis(1)).min(made),
        _ => 0,
    };
    let total = made - oldest;
    let last = made.saturating_sub(offset as u64);
    let first = last.saturating_sub(limit as u64).max(oldest);
    let calls: Vec<Value> = (first..last.max(first))
        .rev()
        .map(|n| {
            let mut row = vast.call(n, now);
            row["endpoint_id"] = json!("ep_1");
            row["phone_number_id"] = json!("pn_1");
            row["transcript"] = json!("Hello, how can I help you today...");
            row
        })
        .collect();
    Json(json!({ "calls": calls, "total": total, "limit": limit, "offset": offset })).into_response()
}

async fn detail(State(vast): State<Arc<Vast>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    vast.count(|asked| asked.details += 1);
    if let Some(refused) = refused(&headers) {
        return refused;
    }
    let now = vast.clock.now();
    let known = id.strip_prefix("call_").and_then(|n| n.parse().ok()).filter(|n: &u64| *n < vast.made_by(now));
    let Some(n) = known else {
        let body = json!({ "error": "not found", "code": "CALL_NOT_FOUND", "details": null });
        return (StatusCode::NOT_FOUND, Json(body)).into_response();
    };
    let mut call = vast.call(n, now);
    call["endpoint"] = json!({ "id": "ep_1", "name": "Agent", "provider": "elevenlabs" });
    call["phone_number"] = json!({ "id": "pn_1", "number": "+2348000000001" });
    call["transcript"] = json!("[Agent]: Hello, how can I help you today?\n[Caller]: Where is my parcel?");
    call["hangup_cause"] = json!("normal_clearing");
    Json(call).into_response()
}
