//! The Cockpit form, written for a server: `data` with page and limit, no transcript in lists.

use serde_json::{Value, json};

use crate::domain::SourceCall;

use super::super::status::{end_reason_word, status_word};
use super::number_shown;

/// A list of [`row`]s. `page` counts from 1.
#[must_use]
pub fn list(rows: &[Value], total: u64, page: u64, limit: u64) -> Value {
    json!({ "data": rows, "total": total, "page": page, "limit": limit, "total_pages": total.div_ceil(limit.max(1)) })
}

/// A call in a list.
#[must_use]
pub fn row(call: &SourceCall) -> Value {
    json!({
        "id": call.id,
        "from_number": call.from_number,
        "to_number": call.to_number,
        "direction": call.direction,
        "status": status_word(call.status),
        "duration": call.duration_ms.map(super::seconds),
        "cost": call.cost.map(|cost| number_shown(cost.amount)),
        "latency_ms": call.network.latency_ms.map(number_shown),
        "phone_number_id": call.phone_number_id,
        "endpoint_id": call.agent_id,
        "recording_url": call.recording_url,
        "hangup_cause": call.end_reason.map(end_reason_word),
        "organization_id": call.org_id,
        "created_at": call.created_at,
        "answered_at": call.answered_at,
        "completed_at": call.ended_at,
    })
}
