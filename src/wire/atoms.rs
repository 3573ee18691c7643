//! smallest.ai Atoms: pages from 1, times in seconds, ids that contain the creation time, lists without transcripts. A
//! recording that does not exist yet is an empty text.

use jiff::Timestamp;
use serde_json::Value;

use super::fields::{self, flag, member, number, object, seconds_as_ms, text};
use super::page::PageRows;
use super::record::{call_id, direction, finished, phone, twin_url, url, without_queries};
use super::scan::{Answer, Names};
use super::status::{end_reason, status};
use super::text as transcript;
use super::time::{as_moment, between_ms, moment};
use super::{Cursor, Page, RecordingLink, Request, WireError};
use crate::domain::{CallChannel, CallId, Cost, CostUnit, Network, ProviderTurn, RecordingUrl, SourceCall};

/// Members of every row.
const NAMES: Names = Names { id: "callId", status: "status" };

/// Without `callAttemptFilter` the list leaves out retried attempts. Sorting by creation and date filters are not used,
/// because they answer 504 on large accounts.
pub(super) fn list(at: &Cursor) -> Request {
    let mut request = Request::get("/conversation");
    request.query = vec![
        ("page", at.number(1).to_string()),
        ("limit", at.limit.to_string()),
        ("callAttemptFilter", "all".to_owned()),
    ];
    request
}

/// The `data` of an answer, unless the answer is a refusal.
fn data(mut answer: Value) -> Result<Value, WireError> {
    if flag(&answer, &["status"]) == Some(false) || flag(&answer, &["success"]) == Some(false) {
        let said =
            text(&answer, &["code"]).or_else(|| text(&answer, &["error"])).or_else(|| text(&answer, &["errors"]));
        let said = said.unwrap_or_else(|| "without a reason".to_owned());
        let missing = |said: &str| said.starts_with("call not found") || said.starts_with("conversation not found");
        return Err(if missing(&said.to_ascii_lowercase()) {
            WireError::NotFound
        } else {
            WireError::Refused { said }
        });
    }
    match answer.get_mut("data").map(Value::take) {
        Some(data) if !data.is_null() => Ok(data),
        _ => Err(WireError::Shape { path: "data", expected: "in the answer" }),
    }
}

pub(super) fn read_page(body: &[u8], at: &Cursor) -> Result<Page, WireError> {
    let Answer { envelope, mut lists } = fields::page(body, &[&["data", "logs"]], NAMES)?;
    let data = data(envelope)?;
    let Some(rows) = lists.pop().flatten() else {
        return Err(WireError::Shape { path: "data.logs", expected: "a list" });
    };
    let listed = PageRows::read(rows, NAMES, |row| read_call(row, None));
    let paging = |key| fields::count(&data, &["pagination", key]);
    let total = paging("total").or_else(|| fields::count(&data, &["total"]));
    let by_pages = || paging("totalPages").map(|pages| at.number(1) < pages);
    Ok(listed.page(at, total, flag(&data, &["pagination", "hasMore"]).or_else(by_pages)))
}

pub(super) fn read_detail(body: &[u8], asked: &CallId) -> Result<SourceCall, WireError> {
    let data = data(fields::json(body)?)?;
    if !data.is_object() {
        return Err(WireError::Shape { path: "data", expected: "a call" });
    }
    read_call(&data, Some(asked))
}

pub(super) fn read_recording(body: &[u8]) -> Result<Option<RecordingLink>, WireError> {
    let data = data(fields::json(body)?)?;
    let link = |url: RecordingUrl| RecordingLink { url, expires_at: None, duration_ms: None, size_bytes: None };
    Ok(url(text(&data, &["presignedUrl"])).map(link))
}

/// Reads the body of a post-conversation webhook. It is only a hint, because it does not come from the platform's own
/// API. So a call is always fetched again before it is processed.
///
/// # Errors
/// [`WireError`] when it names no call.
pub fn post_conversation(body: &[u8]) -> Result<SourceCall, WireError> {
    let body = fields::json(body)?;
    match object(&body, &["metadata"]) {
        Some(call) => read_call(call, None),
        None => Err(WireError::Shape { path: "metadata", expected: "in the webhook" }),
    }
}

/// Reads a list row, a detail or a webhook's `metadata`. They have the same members at different places.
fn read_call(call: &Value, asked: Option<&CallId>) -> Result<SourceCall, WireError> {
    let either = |plain: &[&str], data: &str| text(call, plain).or_else(|| text(call, &["callData", data]));
    // `_id` is a database id that no path accepts.
    let id = call_id(fields::id(call, &["callId"]), asked)?;
    let kind = text(call, &["type"]).or_else(|| text(call, &["conversationType"]));
    let end_reason = either(&["disconnectionReason"], "disconnectionReason").map(|word| end_reason(&word));
    let status_raw = either(&["status"], "callStatus");
    let status = status(status_raw.as_deref(), end_reason);
    let given = moment(call, &["createdAt"]);
    let created = given.or_else(|| time_in_id(id.as_str()));
    let answered = moment(call, &["callData", "answerTime"]).or_else(|| moment(call, &["answerTime"]));
    let ended = moment(call, &["callData", "endTime"]).or_else(|| moment(call, &["endTime"]));
    // Seconds here. Under /agent and /analytics the same member is in milliseconds; those routes are not used.
    let duration_ms =
        number(call, &["duration"]).or_else(|| number(call, &["callData", "callDuration"])).and_then(seconds_as_ms);
    Ok(finished(SourceCall {
        org_id: text(call, &["organizationId"]),
        agent_id: text(call, &["agentId"]).or_else(|| text(call, &["agent", "_id"])),
        direction: direction(kind.clone()).or_else(|| direction(text(call, &["callData", "callDirection"]))),
        channel: channel(kind),
        from_number: phone(either(&["from"], "fromNumber")),
        to_number: phone(either(&["to"], "toNumber")),
        status,
        status_raw,
        end_reason,
        created_at: created,
        created_at_derived: given.is_none() && created.is_some(),
        answered_at: answered,
        ended_at: ended,
        duration_ms,
        cost: number(call, &["callCost"]).map(|amount| Cost { amount, unit: CostUnit::Credits }),
        recording_url: url(text(call, &["recordingUrl"])),
        dual_url: twin_url(text(call, &["recordingDualUrl"])),
        turns: turns(call, answered),
        language: text(call, &["language"]),
        network: Network {
            platform_response_ms: number(call, &["turnLatencyMetrics", "medianLatency"]),
            ..Network::default()
        },
        metadata: object(call, &["variables"]).map(without_queries),
        analysis: object(call, &["postCallAnalytics"]).map(without_queries),
        raw: without_queries(call),
        ..SourceCall::named(id)
    }))
}

/// `CALL-<13 digits of epoch milliseconds>-<hex>` contains the creation time. Details have it nowhere else.
fn time_in_id(id: &str) -> Option<Timestamp> {
    let digits = id.strip_prefix("CALL-")?.split('-').next()?;
    let plain = digits.len() == 13 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| Timestamp::from_millisecond(digits.parse().ok()?).ok())?
}

fn channel(kind: Option<String>) -> CallChannel {
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    if kind.contains("chat") {
        CallChannel::Chat
    } else if kind.contains("web") {
        CallChannel::Web
    } else {
        CallChannel::Phone
    }
}

/// The start of a turn with a wall-clock time is its distance to the answer of the call, approximately.
fn turns(call: &Value, answered: Option<Timestamp>) -> Vec<ProviderTurn> {
    let Some(items) = fields::list(call, &["transcript"]) else {
        return text(call, &["transcript"]).map(|text| transcript::read(&text)).unwrap_or_default();
    };
    let start = |item: &Value| between_ms(answered?, member(item, &["timestamp"]).and_then(as_moment)?);
    transcript::read_timed_list(items, start)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn detail(call: &Value) -> SourceCall {
        let body = json!({ "status": true, "data": call });
        read_detail(body.to_string().as_bytes(), &CallId::parse("CALL-1737000000000-abc123").unwrap()).unwrap()
    }

    #[test]
    fn pages_count_from_one_and_retried_attempts_are_asked_for() {
        let query = list(&Cursor::first(100)).query;
        let expected = [("page", "1"), ("limit", "100"), ("callAttemptFilter", "all")];
        assert_eq!(query, expected.map(|(key, value)| (key, value.to_owned())));
    }

    #[test]
    fn the_id_tells_when_but_a_given_time_is_better() {
        assert_eq!(time_in_id("CALL-1778226705739-7e4c17").unwrap().to_string(), "2026-05-08T07:51:45.739Z");
        for id in ["CALL-17782267057-7e4c17", "CALL-17782267x5739-7e", "1778226705739", "CALL-", "call_1"] {
            assert_eq!(time_in_id(id), None, "{id}");
        }
        let given = detail(&json!({"createdAt": "2026-01-15T10:30:00Z"}));
        assert_eq!(
            (given.created_at.unwrap().to_string().as_str(), given.created_at_derived),
            ("2026-01-15T10:30:00Z", false)
        );
        assert!(detail(&json!({})).created_at_derived);
    }

    #[test]
    fn an_end_is_estimated_only_for_calls_that_are_over() {
        let end = |status: &str, duration: u64| detail(&json!({"status": status, "duration": duration})).ended_at;
        assert_eq!(end("completed", 10).unwrap().to_string(), "2025-01-16T04:00:10Z");
        assert_eq!(end("in_progress", 10), None);
        assert_eq!(end("completed", 0), None);
    }

    #[test]
    fn a_recording_that_is_not_ready_is_an_empty_text() {
        let call = detail(&json!({"recordingUrl": "", "recordingDualUrl": " "}));
        assert_eq!((call.recording_url, call.dual_url), (None, None));
        assert_eq!(read_recording(br#"{"status":true,"data":{"presignedUrl":""}}"#), Ok(None));
        let link = read_recording(br#"{"status":true,"data":{"presignedUrl":"https://s3.test/a?X-Amz-Signature=1"}}"#);
        assert_eq!(link.unwrap().unwrap().url.as_url().unwrap().query(), Some("X-Amz-Signature=1"));
    }

    #[test]
    fn texts_are_never_calls_with_sound() {
        let chat = detail(&json!({"type": "chat", "status": "completed"}));
        assert!(chat.channel == CallChannel::Chat && !chat.eligible());
        assert_eq!(detail(&json!({"type": "webcall"})).channel, CallChannel::Web);
        assert_eq!(detail(&json!({"type": "webcall"})).direction, None);
    }

    #[test]
    fn refusals_come_in_two_spellings() {
        let read = |body: Value| read_page(body.to_string().as_bytes(), &Cursor::first(1)).unwrap_err();
        assert_eq!(read(json!({"status": false, "errors": ["bad"]})), WireError::Refused { said: "bad".to_owned() });
        assert_eq!(read(json!({"success": false, "code": "X"})), WireError::Refused { said: "X".to_owned() });
        assert!(read(json!({"status": true, "data": {}})).to_string().contains("data.logs"));
    }
}
