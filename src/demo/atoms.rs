//! smallest.ai Atoms: `data.logs`, pages from 1, no text in lists. A recording that does not exist yet is an empty
//! string.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::domain::{CallChannel, CallStatus, Direction};

use super::entries::CallEntry;
use super::host::Links;
use super::krosai::{QueryParams, number};
use super::sample::{Api, SampleCall, SampleText};
use super::state::Inner;
use super::text;

const DEFAULT_LIMIT: usize = 5;
/// A larger limit is reduced to this without an error.
const MAX_LIMIT: usize = 500;
const MAX_SEARCH: usize = 100;

pub(super) async fn list(
    State(inner): State<Arc<Inner>>,
    Query(asked): Query<QueryParams>,
    headers: HeaderMap,
) -> Response {
    let page = number(&asked, "page", 1).unwrap_or(1).max(1);
    let limit = number(&asked, "limit", DEFAULT_LIMIT).unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let (total, rows) = inner.page(Api::Atoms, ((page - 1) * limit, limit), |entry| matches(&asked, &entry.call));
    let links = Links::new(&inner, &headers);
    let logs: Vec<Value> = rows.iter().map(|entry| row(entry, &links)).collect();
    let pages = text::pages(total, limit);
    let pagination =
        json!({ "total": total, "page": page, "limit": limit, "hasMore": page < pages, "totalPages": pages });
    success(&json!({ "logs": logs, "pagination": pagination }))
}

/// Body of a search.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Searched {
    call_ids: Vec<String>,
}

/// Finds calls by id, including retries, which the list leaves out.
pub(super) async fn search(
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    Json(searched): Json<Searched>,
) -> Response {
    if searched.call_ids.is_empty() || searched.call_ids.len() > MAX_SEARCH {
        return failure(StatusCode::BAD_REQUEST, "callIds must hold 1 to 100 ids");
    }
    let links = Links::new(&inner, &headers);
    let calls = inner.calls();
    let found = searched.call_ids.iter().filter_map(|id| calls.get(Api::Atoms, id));
    let logs: Vec<Value> = found.map(|entry| row(&entry, &links)).collect();
    success(&json!({ "total": logs.len(), "logs": logs, "requestedCount": searched.call_ids.len() }))
}

/// This answer has no `createdAt`. The id contains that time.
pub(super) async fn detail(State(inner): State<Arc<Inner>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let Some(entry) = inner.calls().get(Api::Atoms, &id) else {
        return not_found();
    };
    let (links, call, there) = (Links::new(&inner, &headers), &entry.call, entry.look());
    let mut body = common(call);
    body["agent"] = json!({ "_id": call.agent, "name": "Sample Agent" });
    body["recordingUrl"] = json!(there.then(|| links.mono(call)).flatten().unwrap_or_default());
    body["recordingDualUrl"] = json!(there.then(|| links.dual(call)).flatten().unwrap_or_default());
    body["transcript"] = transcript(call);
    body["postCallAnalytics"] = json!({ "summary": null });
    if let Some(median) = call.network.platform_response_ms {
        body["turnLatencyMetrics"] = json!({ "medianLatency": median });
    }
    success(&body)
}

pub(super) async fn download_url(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(entry) = inner.calls().get(Api::Atoms, &id) else {
        return not_found();
    };
    let links = Links::new(&inner, &headers);
    match links.looked(&entry) {
        Some(url) => success(&json!({ "presignedUrl": url })),
        None => failure(StatusCode::NOT_FOUND, "Recording not found"),
    }
}

fn row(entry: &CallEntry, links: &Links<'_>) -> Value {
    let call = &entry.call;
    let mut body = common(call);
    body["agentId"] = json!(call.agent);
    body["createdAt"] = json!(text::millis(call.created_at()));
    body["recordingUrl"] = json!(links.listed(entry).unwrap_or_default());
    body["recordingDualUrl"] = json!(entry.listed().then(|| links.dual(call)).flatten().unwrap_or_default());
    body
}

fn common(call: &SampleCall) -> Value {
    let (from, to) = call.numbers();
    json!({
        "_id": &hex::encode(Sha256::digest(&call.id))[..24],
        "callId": call.id,
        "status": status(call),
        "duration": (call.duration_ms + 500) / 1000,
        "from": from,
        "to": to,
        "type": kind(call),
        "disconnectionReason": call.end_reason,
        "callCost": 3.2,
        "retryCallId": call.retry_of,
    })
}

/// Turns with roles and wall-clock times. Without roles, plain strings as in the specification's example.
fn transcript(call: &SampleCall) -> Value {
    let spoken = &*call.turns;
    match call.text {
        SampleText::None => json!([]),
        SampleText::Unlabelled => json!(spoken.iter().map(|turn| &turn.text).collect::<Vec<_>>()),
        SampleText::Labelled | SampleText::Turns => {
            let answered = call.answered_at().unwrap_or(call.created_at());
            let turns = spoken.iter().map(|turn| {
                let at = answered + std::time::Duration::from_millis(turn.start_ms.unwrap_or(0));
                json!({ "role": text::role(turn.role), "content": turn.text, "timestamp": text::millis(at) })
            });
            Value::Array(turns.collect())
        }
    }
}

fn status(call: &SampleCall) -> &str {
    let word = match call.status {
        CallStatus::Queued => "in_queue",
        CallStatus::Ringing => "pending",
        CallStatus::InProgress => "in_progress",
        CallStatus::Completed => "completed",
        CallStatus::Failed => "failed",
        CallStatus::Busy => "busy",
        CallStatus::NoAnswer => "no_answer",
        CallStatus::Cancelled => "cancelled",
        CallStatus::Unknown => "unknown",
    };
    call.status_word.as_deref().unwrap_or(word)
}

const fn kind(call: &SampleCall) -> &'static str {
    match (call.channel, call.direction) {
        (CallChannel::Phone, Direction::Inbound) => "telephony_inbound",
        (CallChannel::Phone, Direction::Outbound) => "telephony_outbound",
        (CallChannel::Web, _) => "webcall",
        (CallChannel::Chat, _) => "chat",
    }
}

fn matches(asked: &QueryParams, call: &SampleCall) -> bool {
    let any =
        |name: &str, actual: &str| asked.get(name).is_none_or(|wanted| wanted.split(',').any(|one| one == actual));
    let (from, to) = call.numbers();
    let attempt = match asked.get("callAttemptFilter").map(String::as_str) {
        Some("all") => true,
        Some("retry") => call.retry_of.is_some(),
        _ => call.retry_of.is_none(),
    };
    attempt
        && any("statusFilter", status(call))
        && any("callTypes", kind(call))
        && any("agentIds", &call.agent)
        && asked.get("search").is_none_or(|part| [&call.id, from, to].iter().any(|text| text.contains(part.as_str())))
}

fn success(data: &Value) -> Response {
    Json(json!({ "status": true, "data": data })).into_response()
}

pub(super) fn unauthorized() -> Response {
    failure(StatusCode::UNAUTHORIZED, "Unauthorized")
}

fn not_found() -> Response {
    failure(StatusCode::NOT_FOUND, "Conversation not found")
}

fn failure(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "status": false, "errors": [text] }))).into_response()
}
