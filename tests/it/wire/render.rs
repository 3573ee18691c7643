//! Calls as the platforms write them, for reading them back. Our own API writes KrosAI's forms; these are the others.

use aftercall::domain::{CallStatus, Direction, EndReason, ProviderTurn, Role, SourceCall};
use aftercall::wire::{krosai, text};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// A call of KrosAI's Cockpit by itself.
pub fn cockpit_detail(call: &SourceCall) -> Value {
    let mut detail = krosai::cockpit::row(call);
    detail["quality_metrics"] = json!({
        "mos": call.network.mos,
        "jitter_ms": call.network.jitter_ms,
        "packet_loss": call.network.packet_loss_percent,
    });
    detail["events"] = json!([{
        "event_type": "sip_media_established",
        "event_data": { "codec": call.network.codec },
        "created_at": call.answered_at,
    }]);
    detail["transcript"] = json!((!call.turns.is_empty()).then(|| text::write(&call.turns)));
    detail
}

pub fn zudu_list(rows: &[Value]) -> Value {
    zudu_answer(&json!({
        "organization_id": "org",
        "calls": rows,
        "pagination": { "page": 0, "limit": 64, "total_count": rows.len(), "total_pages": 1, "has_next_page": false },
        "returned_count": rows.len(),
    }))
}

/// A call of Zudu in a list: everything there is.
pub fn zudu_row(call: &SourceCall) -> Value {
    let ms = |at: Option<Timestamp>| at.map(Timestamp::as_millisecond);
    json!({
        "id": format!("row-{}", call.id),
        "call_id": call.id,
        "agent_id": call.agent_id,
        "organization_id": call.org_id,
        "call_status": match call.status {
            CallStatus::Queued => "REGISTERED",
            CallStatus::InProgress => "ONGOING",
            CallStatus::Failed => "ERROR",
            _ => "ENDED",
        },
        "call_type": "PHONE_CALL",
        "direction": call.direction.map(|direction| match direction {
            Direction::Inbound => "INBOUND",
            Direction::Outbound => "OUTBOUND",
        }),
        "from_number": call.from_number,
        "to_number": call.to_number,
        "created_at": ms(call.created_at),
        "start_timestamp": ms(call.answered_at),
        "end_timestamp": ms(call.ended_at),
        "call_duration": call.duration_ms,
        "disconnection_reason": match call.status {
            CallStatus::NoAnswer => "DIAL_NO_ANSWER".to_owned(),
            CallStatus::Busy => "DIAL_BUSY".to_owned(),
            _ => end_reason(call).to_ascii_uppercase(),
        },
        "recording_url": call.recording_url,
        "opt_out_sensitive_data_storage": call.opt_out,
        "metadata": call.metadata,
        "events": [],
        "transcript": text::write(&call.turns),
        "transcript_object": call.turns.iter().map(zudu_turn).collect::<Vec<_>>(),
        "transcript_with_tool_calls": [],
        "latency": { "e2e": { "p50": call.network.platform_response_ms } },
        "call_analysis": call.analysis,
        "call_cost": call.cost.map(|cost| json!({ "combined_cost": cost.amount })),
    })
}

/// A call of Zudu by itself. Its documented members leave out the recording and the transcript.
pub fn zudu_detail(call: &SourceCall) -> Value {
    let mut detail = zudu_row(call);
    for key in ["recording_url", "transcript", "transcript_object", "transcript_with_tool_calls"] {
        detail.as_object_mut().unwrap().remove(key);
    }
    zudu_answer(&detail)
}

fn zudu_answer(data: &Value) -> Value {
    json!({ "message": "retrieved successfully", "status": "success", "error": null, "data": data })
}

fn zudu_turn(turn: &ProviderTurn) -> Value {
    let seconds = |ms: Option<u64>| ms.map(|ms| ms as f64 / 1000.0);
    let words = turn
        .words
        .iter()
        .map(|word| json!({ "word": word.text, "start": seconds(word.start_ms), "end": seconds(word.end_ms) }));
    json!({
        "role": role(turn),
        "content": turn.text,
        "start": seconds(turn.start_ms),
        "end": seconds(turn.end_ms),
        "words": words.collect::<Vec<_>>(),
    })
}

pub fn atoms_list(rows: &[Value]) -> Value {
    let pagination = json!({ "total": rows.len(), "page": 1, "limit": 100, "hasMore": false, "totalPages": 1 });
    json!({ "status": true, "data": { "logs": rows, "pagination": pagination } })
}

/// A call of Atoms in a list: no transcript.
pub fn atoms_row(call: &SourceCall) -> Value {
    let mut row = atoms_call(call);
    row["agentId"] = json!(call.agent_id);
    row["createdAt"] = json!(call.created_at);
    row
}

/// A call of Atoms by itself: the transcript, and no creation time.
pub fn atoms_detail(call: &SourceCall) -> Value {
    let turn = |turn: &ProviderTurn| {
        let after = turn.start_ms.map(|ms| SignedDuration::from_millis(ms as i64));
        let at = call.answered_at.zip(after).map(|(from, after)| from + after);
        json!({ "role": role(turn), "content": turn.text, "timestamp": at })
    };
    let mut detail = atoms_call(call);
    detail["agent"] = json!({ "_id": call.agent_id });
    detail["transcript"] = call.turns.iter().map(turn).collect();
    detail["postCallAnalytics"] = json!(call.analysis);
    detail["variables"] = json!(call.metadata);
    detail["turnLatencyMetrics"] = json!({ "medianLatency": call.network.platform_response_ms });
    json!({ "status": true, "data": detail })
}

fn atoms_call(call: &SourceCall) -> Value {
    json!({
        "callId": call.id,
        "status": call.status,
        "duration": call.duration_ms.map(|ms| ms as f64 / 1000.0),
        "from": call.from_number,
        "to": call.to_number,
        "type": call.direction.map(|direction| match direction {
            Direction::Inbound => "telephony_inbound",
            Direction::Outbound => "telephony_outbound",
        }),
        "recordingUrl": call.recording_url.clone().map_or(String::new(), String::from),
        "recordingDualUrl": call.dual_url.clone().map_or(String::new(), String::from),
        "disconnectionReason": end_reason(call),
        "callCost": call.cost.map(|cost| cost.amount),
    })
}

fn role(turn: &ProviderTurn) -> &'static str {
    match turn.role {
        Role::Agent => "agent",
        Role::Caller => "user",
        Role::Transfer => "transfer_target",
        Role::System | Role::Unknown => "unknown",
    }
}

fn end_reason(call: &SourceCall) -> &'static str {
    match call.end_reason {
        Some(EndReason::Normal) => "normal_clearing",
        Some(EndReason::UserHangup) => "user_hangup",
        Some(EndReason::AgentHangup) => "agent_hangup",
        Some(EndReason::Timeout) => "timeout",
        Some(EndReason::Transferred) => "transfer_complete",
        Some(EndReason::Voicemail) => "voicemail_reached",
        Some(EndReason::Error) => "network_error",
        _ => "other",
    }
}
