//! Atoms' JSON, written for a server of this dialect.

use serde_json::{Value, json};

use super::super::status::{end_reason_word, status_word};
use crate::domain::{CallChannel, Direction, ProviderTurn, RecordingUrl, Role, SourceCall};

/// A list of [`row`]s. `page` counts from 1.
#[must_use]
pub fn list(rows: &[Value], total: u64, page: u64, limit: u64) -> Value {
    let pages = total.div_ceil(limit.max(1));
    json!({
        "status": true,
        "data": {
            "logs": rows,
            "pagination": { "total": total, "page": page, "limit": limit, "hasMore": page < pages, "totalPages": pages },
        },
    })
}

/// A call in a list, without a transcript.
#[must_use]
pub fn row(call: &SourceCall) -> Value {
    let mut row = common(call);
    row["agentId"] = json!(call.agent_id);
    row["createdAt"] = json!(call.created_at.filter(|_| !call.created_at_derived));
    row
}

/// One call in its envelope, with the transcript and without a creation time.
#[must_use]
pub fn detail(call: &SourceCall) -> Value {
    let mut detail = common(call);
    detail["agent"] = json!({ "_id": call.agent_id });
    detail["transcript"] = call.turns.iter().map(|said| turn(call, said)).collect();
    detail["postCallAnalytics"] = json!(call.analysis);
    detail["variables"] = json!(call.metadata);
    detail["turnLatencyMetrics"] =
        json!(call.network.platform_response_ms.map(|median| json!({ "medianLatency": median })));
    json!({ "status": true, "data": detail })
}

/// The answer of `GET /conversation/{callId}/recording/download-url`.
#[must_use]
pub fn download_url(url: &RecordingUrl) -> Value {
    json!({ "status": true, "data": { "presignedUrl": url } })
}

/// An error body.
#[must_use]
pub fn error(message: &str) -> Value {
    json!({ "status": false, "errors": [message] })
}

/// The body of a 429.
#[must_use]
pub fn rate_limited(retry_after_seconds: u64) -> Value {
    json!({
        "status": false,
        "error": "Rate limit exceeded",
        "code": "RATE_LIMIT_EXCEEDED",
        "retry_after": retry_after_seconds,
    })
}

fn common(call: &SourceCall) -> Value {
    let url = |url: &Option<RecordingUrl>| url.clone().map_or(String::new(), String::from);
    json!({
        "callId": call.id,
        "status": status_word(call.status),
        "duration": call.duration_ms.map(|ms| ms as f64 / 1000.0),
        "from": call.from_number,
        "to": call.to_number,
        "type": kind(call),
        "recordingUrl": url(&call.recording_url),
        "recordingDualUrl": url(&call.dual_url),
        "disconnectionReason": call.end_reason.map(end_reason_word),
        "callCost": call.cost.map(|cost| cost.amount),
    })
}

const fn kind(call: &SourceCall) -> Option<&'static str> {
    match (call.channel, call.direction) {
        (CallChannel::Chat, _) => Some("chat"),
        (CallChannel::Web, _) => Some("webcall"),
        (CallChannel::Phone, Some(Direction::Inbound)) => Some("telephony_inbound"),
        (CallChannel::Phone, Some(Direction::Outbound)) => Some("telephony_outbound"),
        (CallChannel::Phone, None) => None,
    }
}

fn turn(call: &SourceCall, turn: &ProviderTurn) -> Value {
    let from = call.answered_at.or(call.created_at);
    let at = from.zip(turn.start_ms).and_then(|(from, ms)| super::super::time::later(from, ms));
    json!({
        "role": match turn.role {
            Role::Agent => "agent",
            Role::Caller => "user",
            Role::Transfer => "transfer_target",
            Role::System | Role::Unknown => "unknown",
        },
        "content": turn.text,
        "timestamp": at,
    })
}
