//! The "Call logs" form, written for a server: `calls` with limit and offset, and a short excerpt of the transcript in
//! lists.

use serde_json::{Value, json};

use crate::domain::{Direction, SourceCall};

use super::super::status::{end_reason_word, status_word};
use super::super::text;
use super::{cents, number_shown};

/// Characters of a transcript in a list.
const EXCERPT: usize = 40;

/// A list of [`row`]s.
#[must_use]
pub fn list(rows: &[Value], total: u64, limit: u64, offset: u64) -> Value {
    json!({ "calls": rows, "total": total, "limit": limit, "offset": offset })
}

/// A call in a list.
#[must_use]
pub fn row(call: &SourceCall) -> Value {
    let mut row = common(call);
    row["endpoint_id"] = json!(call.agent_id);
    row["phone_number_id"] = json!(call.phone_number_id);
    row["transcript"] = json!(excerpt(call));
    row
}

/// One call.
#[must_use]
pub fn detail(call: &SourceCall) -> Value {
    let mut detail = common(call);
    detail["endpoint"] = json!(call.agent_id.as_ref().map(|id| json!({ "id": id })));
    let ours = match call.direction {
        Some(Direction::Outbound) => &call.from_number,
        _ => &call.to_number,
    };
    detail["phone_number"] = json!(call.phone_number_id.as_ref().map(|id| json!({ "id": id, "number": ours })));
    detail["transcript"] = json!((!call.turns.is_empty()).then(|| text::write(&call.turns)));
    detail["quality_metrics"] = json!({
        "latency_ms": call.network.latency_ms.map(number_shown),
        "audio_codec": call.network.codec,
        "packet_loss": call.network.packet_loss_raw.map(number_shown),
    });
    detail["hangup_cause"] = json!(call.end_reason.map(end_reason_word));
    detail
}

fn common(call: &SourceCall) -> Value {
    json!({
        "id": call.id,
        "from_number": call.from_number,
        "to_number": call.to_number,
        "direction": call.direction,
        "status": status_word(call.status),
        "duration": call.duration_ms.map(super::seconds),
        "cost_cents": cents(call.cost),
        "recording_url": call.recording_url,
        "created_at": call.created_at,
        "answered_at": call.answered_at,
        "completed_at": call.ended_at,
    })
}

/// The words without speakers, with "..." at the cut.
fn excerpt(call: &SourceCall) -> Option<String> {
    let words: Vec<&str> = call.turns.iter().map(|turn| turn.text.as_str()).collect();
    let words = words.join(" ");
    if words.is_empty() {
        return None;
    }
    let head: String = words.chars().take(EXCERPT).collect();
    Some(if head.len() < words.len() { format!("{head}...") } else { words })
}
