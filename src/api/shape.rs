//! A call record as JSON: the platform's own shape, plus our own fields.

use serde_json::{Value, json};

use crate::domain::SourceCall;
use crate::store::{CallRecord, EXCERPT};
use crate::wire::krosai::{call_logs, cockpit, number_shown};

/// The call as the platform's shapes need it. It leaves out the platform's text, because our transcript replaces it. It
/// leaves out the recording URLs, because they give access to the platform's storage.
fn told(record: &CallRecord) -> SourceCall {
    let known = record.call.clone().unwrap_or_else(|| SourceCall::named(record.call_id.clone()));
    let org_id = known.org_id.clone().or_else(|| record.org_id.clone());
    SourceCall { org_id, turns: Vec::new(), recording_url: None, dual_url: None, ..known }
}

/// A row of a "Call logs" list.
pub(super) fn call_logs_row(record: &CallRecord, excerpt: Option<&str>) -> Value {
    let mut row = call_logs::row(&told(record));
    row["transcript"] = json!(excerpt.map(cut));
    with_ours(row, record)
}

/// A row of a Cockpit list.
pub(super) fn cockpit_row(record: &CallRecord) -> Value {
    with_ours(cockpit::row(&told(record)), record)
}

/// The detail of one call.
pub(super) fn detail(record: &CallRecord, transcript: Option<&str>, legal_hold: &Value) -> Value {
    let mut detail = call_logs::detail(&told(record));
    detail["transcript"] = json!(transcript);
    add_quality(&mut detail, record);
    detail["quality"] = json!(record.quality);
    detail["outcome_reason"] = json!(record.outcome_reason);
    detail["artifacts"] = json!(record.artifacts);
    detail["legal_hold"] = legal_hold.clone();
    with_ours(detail, record)
}

fn with_ours(mut call: Value, record: &CallRecord) -> Value {
    call["uid"] = json!(record.uid);
    call["source"] = json!(record.source);
    let cost = record.call.as_ref().and_then(|call| call.cost);
    call["cost"] = json!(cost.map(|cost| number_shown(cost.amount)));
    call["cost_unit"] = json!(cost.map(|cost| cost.unit));
    call["org_id"] = json!(record.org_id);
    call["outcome"] = json!(record.outcome);
    call["transcript_version"] = json!(record.transcript_version);
    call["flags"] = json!(record.flags);
    call["retain_until"] = json!(record.retain_until);
    call
}

/// Adds the network figures and the score under the names of the platform's documents. `packet_loss` keeps the
/// platform's value and unit. `packet_loss_percent` is added where the unit is known.
fn add_quality(detail: &mut Value, record: &CallRecord) {
    let network = record.call.as_ref().map(|call| call.network.clone()).unwrap_or_default();
    let estimate = record.quality.as_ref().and_then(|quality| quality.pointer("/mos/mos_cqe")?.as_f64());
    let (mos, source) = match (network.mos, estimate) {
        (Some(mos), _) => (Some(mos), Some("provider")),
        (None, Some(mos)) => (Some(mos), Some("e-model")),
        (None, None) => (None, None),
    };
    let metrics = &mut detail["quality_metrics"];
    metrics["mos"] = json!(mos.map(number_shown));
    metrics["mos_source"] = json!(source);
    metrics["jitter_ms"] = json!(network.jitter_ms.map(number_shown));
    metrics["packet_loss_percent"] = json!(network.packet_loss_percent.map(number_shown));
}

/// The start of a text with "..." at the cut, as in the platform's own list.
fn cut(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_goes_on_is_visibly_cut() {
        let (fits, long) = ("ä".repeat(EXCERPT), "ä".repeat(EXCERPT + 1));
        assert_eq!(cut(&fits), fits);
        assert_eq!(cut(&long), format!("{fits}..."));
    }
}
