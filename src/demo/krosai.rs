//! KrosAI "Call logs": `calls`, `limit` and `offset`; times in whole seconds, cost in cents.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp, civil};
use serde_json::{Value, json};

use crate::domain::{CallStatus, Direction};

use super::entries::CallEntry;
use super::host::Links;
use super::sample::{Api, SampleCall};
use super::state::Inner;
use super::text;

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 100;
/// Characters of a transcript that a list shows.
const PREVIEW: usize = 34;

pub(super) type QueryParams = HashMap<String, String>;

pub(super) async fn list(
    State(inner): State<Arc<Inner>>,
    Query(asked): Query<QueryParams>,
    headers: HeaderMap,
) -> Response {
    let (Some(limit), Some(offset)) = (number(&asked, "limit", DEFAULT_LIMIT), number(&asked, "offset", 0)) else {
        return bad_request("limit and offset must be whole numbers");
    };
    if limit == 0 {
        return bad_request("limit must be at least 1");
    }
    let limit = limit.min(MAX_LIMIT);
    let Some(filter) = ListFilter::read(&asked) else {
        return bad_request("from_date and to_date must be ISO 8601");
    };
    let (total, page) = inner.page(Api::KrosaiV1, (offset, limit), |entry| filter.wants(&entry.call));
    let links = Links::new(&inner, &headers);
    let calls: Vec<Value> = page.iter().map(|entry| row(entry, &links)).collect();
    Json(json!({ "calls": calls, "total": total, "limit": limit, "offset": offset })).into_response()
}

pub(super) async fn detail(State(inner): State<Arc<Inner>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let Some(entry) = inner.calls().get(Api::KrosaiV1, &id) else {
        return not_found();
    };
    let (links, call) = (Links::new(&inner, &headers), &entry.call);
    let mut body = common(call, links.looked(&entry).as_deref());
    body["endpoint"] = json!({ "id": call.agent, "name": "Sample Agent", "provider": "elevenlabs" });
    body["phone_number"] = json!({ "id": "pn_sample", "number": call.platform_number });
    body["transcript"] = json!(text::transcript(call));
    body["hangup_cause"] = json!(call.end_reason);
    if call.network != crate::domain::Network::default() {
        body["quality_metrics"] = json!({
            "latency_ms": call.network.latency_ms,
            "audio_codec": call.network.codec,
            "packet_loss": call.network.packet_loss_raw,
        });
    }
    Json(body).into_response()
}

pub(super) async fn recording(State(inner): State<Arc<Inner>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let Some(entry) = inner.calls().get(Api::KrosaiV1, &id) else {
        return not_found();
    };
    let (links, call) = (Links::new(&inner, &headers), &entry.call);
    match links.looked(&entry) {
        Some(url) => Json(json!({
            "recording_url": url,
            "expires_at": text::seconds(links.expires_at),
            "duration_seconds": Times::of(call).duration,
            "format": "mp3",
            "size_bytes": call.audio.as_ref().map(|audio| audio.bytes.len()),
        }))
        .into_response(),
        None => error(StatusCode::NOT_FOUND, "RECORDING_NOT_FOUND", "Recording not available"),
    }
}

pub(super) async fn events(State(inner): State<Arc<Inner>>, Path(id): Path<String>) -> Response {
    match inner.calls().get(Api::KrosaiV1, &id) {
        Some(entry) => Json(json!({ "events": timeline(&entry.call) })).into_response(),
        None => not_found(),
    }
}

pub(super) async fn hangup(State(inner): State<Arc<Inner>>, Path(id): Path<String>) -> Response {
    match inner.calls().get(Api::KrosaiV1, &id) {
        Some(entry) if entry.call.status == CallStatus::InProgress => {
            Json(json!({ "success": true, "message": "Call hangup initiated" })).into_response()
        }
        Some(_) => error(StatusCode::CONFLICT, "CALL_NOT_ACTIVE", "The call is over"),
        None => not_found(),
    }
}

pub(super) async fn stats(State(inner): State<Arc<Inner>>, Query(asked): Query<QueryParams>) -> Response {
    let Some(filter) = ListFilter::read(&asked) else {
        return bad_request("from_date and to_date must be ISO 8601");
    };
    let (total, all) = inner.page(Api::KrosaiV1, (0, usize::MAX), |entry| filter.wants(&entry.call));
    let count = |wanted: &dyn Fn(&SampleCall) -> bool| all.iter().filter(|entry| wanted(&entry.call)).count();
    let completed = count(&|call| call.status == CallStatus::Completed);
    let seconds: i64 = all.iter().map(|entry| Times::of(&entry.call).duration).sum();
    let cents: i64 = all.iter().map(|entry| cost_cents(&entry.call)).sum();
    Json(json!({
        "total_calls": total,
        "completed_calls": completed,
        "failed_calls": total - completed,
        "total_duration_seconds": seconds,
        "average_duration_seconds": seconds / i64::try_from(completed.max(1)).unwrap_or(1),
        "total_cost_cents": cents,
        "inbound_calls": count(&|call| call.direction == Direction::Inbound),
        "outbound_calls": count(&|call| call.direction == Direction::Outbound),
        "success_rate": completed as f64 / total.max(1) as f64,
    }))
    .into_response()
}

fn row(entry: &CallEntry, links: &Links<'_>) -> Value {
    let call = &entry.call;
    let mut body = common(call, links.listed(entry).as_deref());
    body["endpoint_id"] = json!(call.agent);
    body["phone_number_id"] = json!("pn_sample");
    // The text is unlabelled and truncated. The document's example ends in dots.
    body["transcript"] = json!(text::transcript(call).map(|_| {
        let words: String = text::joined(call, " ", |turn| turn.text.clone()).chars().take(PREVIEW).collect();
        format!("{words}...")
    }));
    body
}

fn common(call: &SampleCall, recording_url: Option<&str>) -> Value {
    let (from, to) = call.numbers();
    let times = Times::of(call);
    json!({
        "id": call.id,
        "from_number": from,
        "to_number": to,
        "direction": direction(call.direction),
        "status": status(call),
        "duration": times.duration,
        "cost_cents": cost_cents(call),
        "recording_url": recording_url,
        "created_at": text::seconds(times.created),
        "answered_at": times.answered.map(text::seconds),
        "completed_at": text::seconds(times.completed),
    })
}

/// The times of a call in whole seconds. The duration is exactly the time between answer and end.
pub(super) struct Times {
    pub created: Timestamp,
    pub answered: Option<Timestamp>,
    pub completed: Timestamp,
    pub duration: i64,
}

impl Times {
    pub(super) fn of(call: &SampleCall) -> Self {
        let whole = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap_or(at);
        let duration = (call.duration_ms as i64 + 500) / 1000;
        let completed = whole(call.ended_at);
        let answered = call.answered_at().map(|_| completed - SignedDuration::from_secs(duration));
        Self { created: whole(call.created_at()), answered, completed, duration }
    }
}

struct ListFilter<'a> {
    asked: &'a QueryParams,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl<'a> ListFilter<'a> {
    /// A date without a time means its first moment, for both ends, because the document does not say otherwise.
    fn read(asked: &'a QueryParams) -> Option<Self> {
        let moment = |name: &str| match asked.get(name) {
            None => Some(None),
            Some(text) => text
                .parse::<Timestamp>()
                .or_else(|_| {
                    text.parse::<civil::Date>()?.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp())
                })
                .ok()
                .map(Some),
        };
        Some(Self { asked, from: moment("from_date")?, to: moment("to_date")? })
    }

    fn wants(&self, call: &SampleCall) -> bool {
        let same = |name: &str, actual: &str| self.asked.get(name).is_none_or(|wanted| wanted == actual);
        same("status", status(call))
            && same("direction", direction(call.direction))
            && same("endpoint_id", &call.agent)
            && same("phone_number_id", "pn_sample")
            && self.from.is_none_or(|from| call.created_at() >= from)
            && self.to.is_none_or(|to| call.created_at() <= to)
    }
}

/// The events of a finished call. Both KrosAI documents use them.
pub(super) fn timeline(call: &SampleCall) -> Vec<Value> {
    let times = Times::of(call);
    let event = |n: u32, kind: &str, at: Timestamp, data: Value| json!({ "id": event_id(call, n), "event_type": kind, "created_at": text::seconds(at), "event_data": data });
    let mut events = vec![
        event(1, "call_initiated", times.created, json!({})),
        event(2, "sip_invite_sent", times.created, json!({ "sip_uri": "sip:agent@sip.example.test" })),
    ];
    if let Some(answered) = times.answered {
        let media = json!({ "codec": call.network.codec, "latency_ms": call.network.latency_ms });
        events.push(event(3, "call_answered", answered, json!({})));
        events.push(event(4, "sip_media_established", answered, media));
    }
    let end = json!({ "duration": times.duration, "hangup_cause": call.end_reason });
    events.push(event(5, "call_completed", times.completed, end));
    events
}

fn event_id(call: &SampleCall, n: u32) -> String {
    match call.api {
        Api::KrosaiCockpit => format!("0b0f6c0e-0000-4000-a000-{n:012x}"),
        _ => format!("evt_{n:03}"),
    }
}

pub(super) fn cost_cents(call: &SampleCall) -> i64 {
    (call.duration_ms as i64).div_euclid(15_000)
}

pub(super) const fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

/// The status words of the KrosAI documents.
pub(super) fn status(call: &SampleCall) -> &str {
    let word = match call.status {
        CallStatus::Queued => "initiated",
        CallStatus::Ringing => "ringing",
        CallStatus::InProgress => "in_progress",
        CallStatus::Completed => "completed",
        CallStatus::Failed | CallStatus::Cancelled => "failed",
        CallStatus::Busy => "busy",
        CallStatus::NoAnswer => "no_answer",
        CallStatus::Unknown => "unknown",
    };
    call.status_word.as_deref().unwrap_or(word)
}

/// A parameter that must be a whole number from 0.
pub(super) fn number(asked: &QueryParams, name: &str, default: usize) -> Option<usize> {
    asked.get(name).map_or(Some(default), |text| text.parse().ok())
}

pub(super) fn unauthorized() -> Response {
    error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "Invalid or missing API key")
}

pub(super) fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "NOT_FOUND", "Call not found")
}

pub(super) fn bad_request(text: &str) -> Response {
    error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", text)
}

pub(super) fn error(status: StatusCode, code: &str, text: &str) -> Response {
    (status, Json(json!({ "error": text, "code": code, "details": {} }))).into_response()
}
