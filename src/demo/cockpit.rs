//! KrosAI Cockpit API 1.3.0: `data`, `page` from 1, `limit` 20. The same calls with other names, and no text in lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::entries::CallEntry;
use super::host::Links;
use super::krosai::{self, QueryParams, Times, number};
use super::sample::{Api, SampleCall};
use super::state::Inner;
use super::text;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;
const PHONE_NUMBER_ID: &str = "0b0f6c0e-0000-4000-8000-0000000000aa";
const STATUSES: [&str; 5] = ["completed", "failed", "in_progress", "no_answer", "busy"];

/// This document has no `offset`, so it is ignored. A client that pages by offset gets page 1 every time.
pub(super) async fn list(
    State(inner): State<Arc<Inner>>,
    Query(asked): Query<QueryParams>,
    headers: HeaderMap,
) -> Response {
    let Ok(organization) = organization(&inner, &headers) else {
        return foreign_organization();
    };
    let (page, limit) = (number(&asked, "page", 1), number(&asked, "limit", DEFAULT_LIMIT));
    let (Some(page @ 1..), Some(limit @ 1..=MAX_LIMIT)) = (page, limit) else {
        return krosai::bad_request("page must be at least 1 and limit from 1 to 100");
    };
    let wanted = |entry: &CallEntry| {
        let call = &entry.call;
        let same = |name: &str, actual: &str| asked.get(name).is_none_or(|wanted| wanted == actual);
        Some(&call.organization) == organization.as_ref()
            && same("status", krosai::status(call))
            && same("direction", krosai::direction(call.direction))
            && same("phone_number_id", PHONE_NUMBER_ID)
    };
    match asked.get("action").map(String::as_str) {
        None => {
            let (total, rows) = inner.page(Api::KrosaiCockpit, ((page - 1) * limit, limit), wanted);
            let links = Links::new(&inner, &headers);
            let data: Vec<Value> =
                rows.iter().map(|entry| common(&entry.call, links.listed(entry).as_deref())).collect();
            let total_pages = text::pages(total, limit);
            Json(json!({ "data": data, "total": total, "page": page, "limit": limit, "total_pages": total_pages }))
                .into_response()
        }
        Some("stats") => {
            let (_, all) = inner.page(Api::KrosaiCockpit, (0, usize::MAX), wanted);
            Json(by_status(all.iter().map(|entry| &entry.call))).into_response()
        }
        Some("trends") => {
            let (_, all) = inner.page(Api::KrosaiCockpit, (0, usize::MAX), wanted);
            Json(by_day(&all)).into_response()
        }
        Some(_) => krosai::bad_request("action must be stats or trends"),
    }
}

pub(super) async fn detail(State(inner): State<Arc<Inner>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let Ok(organization) = organization(&inner, &headers) else {
        return foreign_organization();
    };
    let entry = inner.calls().get(Api::KrosaiCockpit, &id);
    let Some(entry) = entry.filter(|entry| Some(&entry.call.organization) == organization.as_ref()) else {
        return krosai::not_found();
    };
    let (links, call) = (Links::new(&inner, &headers), &entry.call);
    let mut body = common(call, links.looked(&entry).as_deref());
    let network = &call.network;
    if network.mos.is_some() || network.jitter_ms.is_some() || network.packet_loss_raw.is_some() {
        body["quality_metrics"] =
            json!({ "mos": network.mos, "jitter_ms": network.jitter_ms, "packet_loss": network.packet_loss_raw });
    }
    body["events"] = json!(krosai::timeline(call));
    body["transcript"] = json!(text::transcript(call));
    Json(body).into_response()
}

fn common(call: &SampleCall, recording_url: Option<&str>) -> Value {
    let (from, to) = call.numbers();
    let times = Times::of(call);
    json!({
        "id": call.id,
        "from_number": from,
        "to_number": to,
        "direction": krosai::direction(call.direction),
        "status": krosai::status(call),
        "duration": times.duration,
        "cost": krosai::cost_cents(call) as f64 + 0.5,
        "latency_ms": call.network.latency_ms,
        "phone_number_id": PHONE_NUMBER_ID,
        "endpoint_id": call.agent,
        "recording_url": recording_url,
        "hangup_cause": call.end_reason,
        "organization_id": call.organization,
        "created_at": text::seconds(times.created),
        "answered_at": times.answered.map(text::seconds),
        "completed_at": text::seconds(times.completed),
    })
}

/// The requested organisation. Without the header it is the first one, as the document says.
fn organization(inner: &Inner, headers: &HeaderMap) -> Result<Option<String>, ()> {
    let calls = inner.calls();
    let mut known = calls.of(Api::KrosaiCockpit).iter().map(|entry| &entry.call.organization);
    match headers.get("x-organization-id") {
        None => Ok(known.next().cloned()),
        Some(wanted) => match known.find(|known| known.as_bytes() == wanted.as_bytes()) {
            Some(known) => Ok(Some(known.clone())),
            None => Err(()),
        },
    }
}

fn foreign_organization() -> Response {
    krosai::error(StatusCode::FORBIDDEN, "FORBIDDEN", "No access to this organization")
}

fn by_status<'a>(calls: impl Iterator<Item = &'a SampleCall>) -> Map<String, Value> {
    let mut counts = STATUSES.map(|word| (word, 0));
    for call in calls {
        let word = krosai::status(call);
        if let Some((_, count)) = counts.iter_mut().find(|(known, _)| *known == word) {
            *count += 1;
        }
    }
    counts.into_iter().map(|(word, count)| (word.to_owned(), json!(count))).collect()
}

/// A bare array, as in the document.
fn by_day(entries: &[Arc<CallEntry>]) -> Value {
    let mut days: BTreeMap<String, Vec<&SampleCall>> = BTreeMap::new();
    for entry in entries {
        let day = text::seconds(entry.call.created_at()).chars().take(10).collect();
        days.entry(day).or_default().push(&entry.call);
    }
    let rows = days.into_iter().map(|(day, calls)| {
        let mut row = by_status(calls.into_iter());
        row.insert("date".to_owned(), json!(day));
        Value::Object(row)
    });
    Value::Array(rows.collect())
}
