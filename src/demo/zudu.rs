//! Zudu AI: an envelope with `status`, pages from 0, times in milliseconds of the epoch, writable metadata.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::domain::{CallChannel, CallStatus, Direction, ProviderTurn};

use super::entries::CallEntry;
use super::host::Links;
use super::sample::{Api, SampleCall, SampleText};
use super::state::{Inner, ZuduDetail};
use super::text;

const DEFAULT_LIMIT: usize = 20;
/// The limit of the sibling list of batch calls. The document of this list names none.
const MAX_LIMIT: usize = 100;

/// The body of a list request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListBody {
    page: usize,
    limit: Option<usize>,
    sort_by: Option<String>,
    sort_order: Option<String>,
    filter_criteria: Map<String, Value>,
}

/// The first page of 20. It takes no parameters, because the document shows none.
pub(super) async fn list(State(inner): State<Arc<Inner>>, headers: HeaderMap) -> Response {
    page(&inner, &headers, ListBody::default())
}

pub(super) async fn search(
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    wanted: Option<Json<ListBody>>,
) -> Response {
    page(&inner, &headers, wanted.map(|Json(wanted)| wanted).unwrap_or_default())
}

fn page(inner: &Inner, headers: &HeaderMap, wanted: ListBody) -> Response {
    let limit = wanted.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let (total, rows) =
        inner.page(Api::Zudu, (wanted.page * limit, limit), |entry| matches(&wanted.filter_criteria, &entry.call));
    let links = Links::new(inner, headers);
    let calls: Vec<Value> = rows.iter().map(|entry| row(entry, links.listed(entry).as_deref())).collect();
    let pages = text::pages(total, limit);
    success(
        "Calls retrieved successfully",
        &json!({
            "organization_id": rows.first().map(|entry| &entry.call.organization),
            "returned_count": calls.len(),
            "calls": calls,
            "pagination": {
                "page": wanted.page,
                "limit": limit,
                "total_count": total,
                "total_pages": pages,
                "has_next_page": wanted.page + 1 < pages,
                "has_previous_page": wanted.page > 0,
            },
            "sort_order": wanted.sort_order.unwrap_or_else(|| "descending".to_owned()),
            "sort_by": wanted.sort_by.unwrap_or_else(|| "start_timestamp".to_owned()),
            "applied_filters": wanted.filter_criteria,
        }),
    )
}

pub(super) async fn detail(State(inner): State<Arc<Inner>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let Some(entry) = inner.calls().get(Api::Zudu, &id) else {
        return not_found(&id);
    };
    let url = Links::new(&inner, &headers).looked(&entry);
    let body = match inner.zudu_detail {
        ZuduDetail::Documented => brief(&entry),
        ZuduDetail::Full => row(&entry, url.as_deref()),
    };
    success("Call retrieved successfully", &body)
}

/// Changes only `metadata`. A client must not change what a call was.
pub(super) async fn update(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    let Some(entry) = inner.calls().get(Api::Zudu, &id) else {
        return not_found(&id);
    };
    if let Some(changes) = body.get("metadata").and_then(Value::as_object) {
        entry.merge_metadata(changes);
    }
    let data = json!({ "operation": "update", "organization_id": entry.call.organization, "call": brief(&entry) });
    success("Call updated successfully", &data)
}

fn row(entry: &CallEntry, recording_url: Option<&str>) -> Value {
    let call = &entry.call;
    let mut body = brief(entry);
    // The document's list shows no creation time.
    if let Some(members) = body.as_object_mut() {
        members.remove("created_at");
        members.remove("updated_at");
    }
    let spoken = if call.text == SampleText::Turns { &*call.turns } else { &[] };
    let extra = json!({
        "id": record_id(&call.id),
        "call_duration": call.duration_ms,
        "disconnection_reason": call.end_reason,
        "recording_url": recording_url,
        "public_log_url": format!("https://api.example.test/logs/{}", record_id(&call.id)),
        "opt_out_sensitive_data_storage": call.opt_out,
        "transcript": transcript(call),
        "transcript_object": spoken.iter().map(spoken_turn).collect::<Vec<_>>(),
        "transcript_with_tool_calls": [],
        "latency": latency(call),
        "call_analysis": { "call_successful": true, "call_summary": null, "user_sentiment": "Neutral", "in_voicemail": false },
        "call_cost": { "combined_cost": 0.25 },
        "telephony_identifier": { "call_sid": null, "conference_sid": null },
    });
    merge(&mut body, extra);
    body
}

/// Exactly the members that the page of `GET /api/calls/{callId}` shows.
fn brief(entry: &CallEntry) -> Value {
    let call = &entry.call;
    let (from, to) = call.numbers();
    json!({
        "call_id": call.id,
        "agent_id": call.agent,
        "organization_id": call.organization,
        "call_status": status(call),
        "call_type": if call.channel == CallChannel::Web { "WEB_CALL" } else { "PHONE_CALL" },
        "from_number": from,
        "to_number": to,
        "direction": match call.direction { Direction::Inbound => "INBOUND", Direction::Outbound => "OUTBOUND" },
        "created_at": call.created_at().as_millisecond(),
        "updated_at": call.ended_at.as_millisecond(),
        "start_timestamp": call.answered_at().unwrap_or(call.created_at()).as_millisecond(),
        "end_timestamp": call.ended_at.as_millisecond(),
        "metadata": entry.metadata(),
        "events": [],
    })
}

fn merge(body: &mut Value, extra: Value) {
    if let (Some(body), Value::Object(extra)) = (body.as_object_mut(), extra) {
        body.extend(extra);
    }
}

/// `Agent: …` and `User: …` lines, or the words only.
fn transcript(call: &SampleCall) -> Option<String> {
    match call.text {
        SampleText::None => None,
        SampleText::Unlabelled => text::transcript(call),
        SampleText::Labelled | SampleText::Turns => Some(text::joined(call, "\n", |turn| {
            let label = if text::role(turn.role) == "agent" { "Agent" } else { "User" };
            format!("{label}: {}", turn.text)
        })),
    }
}

fn spoken_turn(turn: &ProviderTurn) -> Value {
    let seconds = |ms: Option<u64>| ms.map(|ms| ms as f64 / 1000.0);
    let words: Vec<Value> = turn
        .words
        .iter()
        .map(|word| json!({ "word": word.text, "start": seconds(word.start_ms), "end": seconds(word.end_ms) }))
        .collect();
    json!({ "role": text::role(turn.role), "content": turn.text, "words": words })
}

fn latency(call: &SampleCall) -> Value {
    call.network.platform_response_ms.map_or_else(
        || json!({}),
        |p50| json!({ "e2e": { "min": p50 * 0.8, "p50": p50, "max": p50 * 1.9, "num": call.turns.len(), "values": [] } }),
    )
}

/// ENDED does not tell whether the call was answered; the disconnection reason does.
fn status(call: &SampleCall) -> &str {
    let word = match call.status {
        CallStatus::Queued | CallStatus::Ringing => "REGISTERED",
        CallStatus::InProgress => "ONGOING",
        CallStatus::Completed | CallStatus::Busy | CallStatus::NoAnswer | CallStatus::Cancelled => "ENDED",
        CallStatus::Failed => "ERROR",
        CallStatus::Unknown => "UNKNOWN",
    };
    call.status_word.as_deref().unwrap_or(word)
}

/// The UUID beside `call_id`. No path accepts it.
fn record_id(call_id: &str) -> String {
    let hash = hex::encode(Sha256::digest(call_id));
    format!("{}-{}-4{}-8{}-{}", &hash[..8], &hash[8..12], &hash[13..16], &hash[17..20], &hash[20..32])
}

fn matches(criteria: &Map<String, Value>, call: &SampleCall) -> bool {
    let any = |name: &str, actual: &str| match criteria.get(name) {
        None | Some(Value::Null) => true,
        Some(Value::Array(wanted)) => wanted.iter().any(|wanted| same(wanted, actual)),
        Some(wanted) => same(wanted, actual),
    };
    let bound = |name: &str| criteria.get("duration_ms").and_then(|range| range.get(name)).and_then(Value::as_u64);
    let kind = if call.channel == CallChannel::Web { "WEB_CALL" } else { "PHONE_CALL" };
    any("call_status", status(call))
        && any("call_type", kind)
        && any("agent_id", &call.agent)
        && bound("lower_threshold").is_none_or(|least| call.duration_ms >= least)
        && bound("upper_threshold").is_none_or(|most| call.duration_ms <= most)
}

fn same(wanted: &Value, actual: &str) -> bool {
    wanted.as_str().is_some_and(|wanted| wanted.eq_ignore_ascii_case(actual))
}

fn success(message: &str, data: &Value) -> Response {
    Json(json!({ "message": message, "status": "success", "error": null, "data": data })).into_response()
}

pub(super) fn unauthorized() -> Response {
    failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Missing or invalid API key or secret")
}

fn not_found(id: &str) -> Response {
    failure(StatusCode::NOT_FOUND, "Call not found", &format!("Call with ID '{id}' does not exist"))
}

fn failure(status: StatusCode, message: &str, error: &str) -> Response {
    (status, Json(json!({ "message": message, "status": "error", "error": error, "data": null }))).into_response()
}
