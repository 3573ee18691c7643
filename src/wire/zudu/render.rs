//! Zudu's JSON, written for a server of this dialect.

use serde_json::{Value, json};

use super::super::status::end_reason_word;
use super::super::text;
use crate::domain::{CallChannel, CallStatus, CostUnit, Direction, ProviderTurn, Role, SourceCall};

/// The envelope of a success.
#[must_use]
pub fn success(message: &str, data: &Value) -> Value {
    json!({ "message": message, "status": "success", "error": null, "data": data })
}

/// The envelope of an error. This platform may send it with status 200.
#[must_use]
pub fn error(message: &str, code: &str) -> Value {
    json!({ "message": message, "status": "error", "error": code, "data": null })
}

/// The organisation and the position of a page.
#[derive(Debug, Clone, Copy)]
pub struct Paging<'a> {
    pub organization_id: Option<&'a str>,
    /// From 0.
    pub page: u64,
    pub limit: u64,
    pub total: u64,
}

/// A list of [`row`]s.
#[must_use]
pub fn list(rows: &[Value], paging: Paging<'_>) -> Value {
    let pages = paging.total.div_ceil(paging.limit.max(1));
    let returned = rows.len();
    let data = json!({
        "organization_id": paging.organization_id,
        "calls": rows,
        "pagination": {
            "page": paging.page,
            "limit": paging.limit,
            "total_count": paging.total,
            "total_pages": pages,
            "has_next_page": paging.page + 1 < pages,
            "has_previous_page": paging.page > 0,
        },
        "returned_count": returned,
        "sort_order": "descending",
        "sort_by": "start_timestamp",
        "applied_filters": {},
    });
    success("Calls retrieved successfully", &data)
}

/// A call in a list, with all members.
#[must_use]
pub fn row(call: &SourceCall) -> Value {
    let ms = |at: Option<jiff::Timestamp>| at.map(jiff::Timestamp::as_millisecond);
    let started = call.answered_at.or(call.created_at.filter(|_| call.created_at_derived));
    json!({
        "id": format!("row-{}", call.id),
        "call_id": call.id,
        "agent_id": call.agent_id,
        "organization_id": call.org_id,
        "call_status": status_word(call.status),
        "call_type": match call.channel {
            CallChannel::Phone => "PHONE_CALL",
            CallChannel::Web => "WEB_CALL",
            CallChannel::Chat => "CHAT",
        },
        "direction": call.direction.map(|direction| match direction {
            Direction::Inbound => "INBOUND",
            Direction::Outbound => "OUTBOUND",
        }),
        "from_number": call.from_number,
        "to_number": call.to_number,
        "created_at": ms(call.created_at.filter(|_| !call.created_at_derived)),
        "start_timestamp": ms(started),
        "end_timestamp": ms(call.ended_at),
        "call_duration": call.duration_ms,
        "disconnection_reason": disconnection_reason(call),
        "recording_url": call.recording_url,
        "opt_out_sensitive_data_storage": call.opt_out,
        "metadata": call.metadata,
        "events": [],
        "transcript": (!call.turns.is_empty()).then(|| plain_transcript(&call.turns)),
        "transcript_object": call.turns.iter().map(turn).collect::<Vec<_>>(),
        "transcript_with_tool_calls": [],
        "latency": call.network.platform_response_ms.map(|p50| json!({ "e2e": { "p50": p50 } })),
        "call_analysis": call.analysis,
        "call_cost": call.cost.filter(|cost| cost.unit == CostUnit::Unknown)
            .map(|cost| json!({ "combined_cost": cost.amount })),
    })
}

/// One call in its envelope. Its documented members leave out the recording and the transcript.
#[must_use]
pub fn detail(call: &SourceCall) -> Value {
    let mut detail = row(call);
    if let Some(members) = detail.as_object_mut() {
        for key in ["recording_url", "transcript", "transcript_object", "transcript_with_tool_calls"] {
            members.remove(key);
        }
    }
    success("Call retrieved successfully", &detail)
}

/// This platform writes ENDED for every call that was dialled. The reason tells how it ended.
const fn status_word(status: CallStatus) -> &'static str {
    match status {
        CallStatus::Queued | CallStatus::Ringing => "REGISTERED",
        CallStatus::InProgress => "ONGOING",
        CallStatus::Completed | CallStatus::NoAnswer | CallStatus::Busy => "ENDED",
        CallStatus::Failed => "ERROR",
        CallStatus::Cancelled => "CANCELLED",
        CallStatus::Unknown => "UNKNOWN",
    }
}

fn disconnection_reason(call: &SourceCall) -> Option<String> {
    let word = match call.status {
        CallStatus::NoAnswer => "dial_no_answer",
        CallStatus::Busy => "dial_busy",
        _ => end_reason_word(call.end_reason?),
    };
    Some(word.to_ascii_uppercase())
}

fn turn(turn: &ProviderTurn) -> Value {
    let seconds = |ms: Option<u64>| ms.map(|ms| ms as f64 / 1000.0);
    let words = turn
        .words
        .iter()
        .map(|word| json!({ "word": word.text, "start": seconds(word.start_ms), "end": seconds(word.end_ms) }));
    json!({
        "role": match turn.role {
            Role::Agent => "agent",
            Role::Caller => "user",
            Role::Transfer => "transfer_target",
            Role::System | Role::Unknown => "unknown",
        },
        "content": turn.text,
        "start": seconds(turn.start_ms),
        "end": seconds(turn.end_ms),
        "words": words.collect::<Vec<_>>(),
    })
}

/// `Agent: …` and `User: …`, without brackets.
fn plain_transcript(turns: &[ProviderTurn]) -> String {
    let lines = turns.iter().map(|turn| match turn.role {
        Role::Agent => format!("Agent: {}", turn.text),
        Role::Caller => format!("User: {}", turn.text),
        _ => text::write(std::slice::from_ref(turn)),
    });
    lines.collect::<Vec<_>>().join("\n")
}
