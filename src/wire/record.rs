//! Common steps of all dialects for a call's JSON: the empty record, the raw copy without signatures, and the few
//! members that may be kept of an opted-out call.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{WireError, status};
use crate::domain::{CallChannel, CallId, Direction, PhoneNumber, RecordingUrl, SourceCall};

/// The JSON with the query and fragment removed from every URL. They may contain signatures, and a signature grants
/// access.
pub(super) fn without_queries(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_query(text)),
        Value::Array(items) => items.iter().map(without_queries).collect(),
        Value::Object(members) => {
            let clean = members.iter().map(|(key, value)| (key.clone(), without_queries(value)));
            Value::Object(clean.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

fn without_query(text: &str) -> String {
    let trimmed = text.trim();
    let is_url = |scheme: &str| trimmed.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme));
    if (is_url("http://") || is_url("https://")) && !trimmed.contains(char::is_whitespace) {
        return trimmed.split(['?', '#']).next().unwrap_or_default().to_owned();
    }
    text.to_owned()
}

/// What may be kept of a call with an opt-out of storage: id, times, status and organisation, also in the raw copy.
pub(super) fn opted_out(call: SourceCall) -> SourceCall {
    let mut raw = Map::new();
    let mut keep = |key: &str, value: Option<String>| value.map(|value| raw.insert(key.to_owned(), value.into()));
    keep("id", Some(call.id.as_str().to_owned()));
    keep("organization_id", call.org_id.clone());
    keep("status", call.status_raw.clone());
    keep("created_at", call.created_at.map(|at| at.to_string()));
    keep("answered_at", call.answered_at.map(|at| at.to_string()));
    keep("ended_at", call.ended_at.map(|at| at.to_string()));
    raw.insert("opt_out".to_owned(), true.into());
    SourceCall {
        org_id: call.org_id,
        status: call.status,
        status_raw: call.status_raw,
        created_at: call.created_at,
        created_at_derived: call.created_at_derived,
        answered_at: call.answered_at,
        ended_at: call.ended_at,
        ended_at_estimated: call.ended_at_estimated,
        duration_ms: call.duration_ms,
        opt_out: true,
        etag: call.etag,
        raw: Value::Object(raw),
        ..SourceCall::named(call.id)
    }
}

/// The last step of reading a call. It drops implausible times, and it removes the content of an opted-out call.
pub(super) fn finished(call: SourceCall) -> SourceCall {
    let call = call.with_believable_times();
    if call.opt_out { opted_out(call) } else { call }
}

/// Merges a detail over its list row, with three rules beyond [`SourceCall::merged_over`]. The status of an "ended"
/// call depends on a reason that only the row may have. A detail without a type reads as a phone call. An opt-out on
/// either side empties both.
pub(super) fn joined(detail: SourceCall, row: SourceCall) -> SourceCall {
    let channel = if detail.channel == CallChannel::Phone { row.channel } else { detail.channel };
    let mut call = detail.merged_over(row);
    call.channel = channel;
    if let Some(word) = call.status_raw.as_deref() {
        call.status = status::status(Some(word), call.end_reason);
    }
    finished(call)
}

/// The calls of a page, each once. Of several rows of one call the one with the latest status wins. The others fill its
/// missing members.
pub(super) fn one_each(calls: Vec<SourceCall>) -> Vec<SourceCall> {
    let mut places: HashMap<CallId, usize> = HashMap::with_capacity(calls.len());
    let mut each: Vec<SourceCall> = Vec::with_capacity(calls.len());
    for call in calls {
        if let Some(known) = places.get(&call.id).and_then(|at| each.get_mut(*at)) {
            let before = std::mem::replace(known, SourceCall::named(call.id.clone()));
            let further = call.status.reached() > before.status.reached();
            *known = if further { joined(call, before) } else { joined(before, call) };
        } else {
            places.insert(call.id.clone(), each.len());
            each.push(call);
        }
    }
    each
}

/// The id of a record. The requested id is used where the record has none. Another id is an error.
pub(super) fn call_id(given: Option<String>, asked: Option<&CallId>) -> Result<CallId, WireError> {
    match (given, asked) {
        (Some(given), Some(asked)) if !given.eq_ignore_ascii_case(asked.as_str()) => {
            Err(WireError::OtherCall { asked: asked.to_string() })
        }
        (_, Some(asked)) => Ok(asked.clone()),
        // A replaced character was part of the id, so the rest names no call.
        (Some(given), None) if given.contains('\u{fffd}') => Err(WireError::UnusableId),
        (Some(given), None) => CallId::parse(&given).map_err(|_| WireError::UnusableId),
        (None, None) => Err(WireError::Shape { path: "id", expected: "there" }),
    }
}

/// The direction in a word such as `inbound`, `OUTBOUND`, `telephony_outbound`.
pub(super) fn direction(word: Option<String>) -> Option<Direction> {
    let word = word?.to_ascii_lowercase();
    match (word.contains("inbound"), word.contains("outbound")) {
        (true, false) => Some(Direction::Inbound),
        (false, true) => Some(Direction::Outbound),
        _ => None,
    }
}

/// A telephone number, where the text can be one.
pub(super) fn phone(text: Option<String>) -> Option<PhoneNumber> {
    PhoneNumber::parse(&text?).ok()
}

/// A recording's URL, also an unusable one. An empty text means "not ready yet".
pub(super) fn url(text: Option<String>) -> Option<RecordingUrl> {
    Some(RecordingUrl::told(&text?))
}

/// The URL of the two-channel recording. An unusable one is dropped, so that it cannot hide the mixed recording.
pub(super) fn twin_url(text: Option<String>) -> Option<RecordingUrl> {
    RecordingUrl::parse(&text?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::CallStatus;

    #[test]
    fn signatures_leave_the_raw_copy_wherever_they_are() {
        let raw = json!({"a": ["HTTPS://h.test/x.mp3?X-Amz-Signature=s3cret#f"], "b": {"c": "http://h.test/y?sig=s3cret"},
            "text": "is it https://h.test/a? yes", "n": 1.5});
        let clean = without_queries(&raw);
        assert!(!clean.to_string().contains("s3cret"), "{clean}");
        assert_eq!(clean["a"][0], "HTTPS://h.test/x.mp3");
        assert_eq!(clean["text"], raw["text"]);
        assert_eq!(clean["n"], raw["n"]);
    }

    #[test]
    fn a_text_type_of_the_row_and_its_end_reason_survive_a_bare_detail() {
        let id = CallId::parse("c").unwrap();
        let mut row = SourceCall::named(id.clone());
        row.channel = CallChannel::Chat;
        row.end_reason = Some(status::end_reason("dial_busy"));
        let detail =
            SourceCall { status: CallStatus::Completed, status_raw: Some("ENDED".to_owned()), ..SourceCall::named(id) };
        let call = joined(detail, row);
        assert_eq!((call.channel, call.status), (CallChannel::Chat, CallStatus::Busy));
    }

    #[test]
    fn of_several_rows_of_one_call_the_furthest_counts() {
        let row = |id: &str, status, duration_ms| SourceCall {
            status,
            status_raw: Some(status::status_word(status).to_owned()).filter(|_| status != CallStatus::Unknown),
            duration_ms,
            ..SourceCall::named(CallId::parse(id).unwrap())
        };
        let calls = vec![
            row("a", CallStatus::InProgress, Some(7)),
            row("b", CallStatus::Completed, Some(1)),
            row("a", CallStatus::Completed, None),
            row("b", CallStatus::Ringing, Some(9)),
            row("c", CallStatus::Failed, None),
            row("c", CallStatus::Unknown, Some(3)),
            row("b", CallStatus::Completed, Some(8)),
        ];
        let each: Vec<_> =
            one_each(calls).into_iter().map(|call| (call.id.to_string(), call.status, call.duration_ms)).collect();
        let expected = [
            ("a", CallStatus::Completed, Some(7)),
            ("b", CallStatus::Completed, Some(1)),
            ("c", CallStatus::Failed, Some(3)),
        ];
        assert_eq!(each, expected.map(|(id, status, length)| (id.to_owned(), status, length)));
    }

    #[test]
    fn opting_out_in_the_row_empties_the_detail() {
        let id = CallId::parse("c").unwrap();
        let row = SourceCall { opt_out: true, ..SourceCall::named(id.clone()) };
        let detail = SourceCall {
            from_number: phone(Some("+15550100".to_owned())),
            metadata: Some(json!({"k": "secret"})),
            raw: json!({"from_number": "+15550100"}),
            ..SourceCall::named(id)
        };
        let call = joined(detail, row);
        let stored = serde_json::to_string(&call).unwrap();
        assert!(call.opt_out && !stored.contains("15550100") && !stored.contains("secret"), "{stored}");
    }
}
