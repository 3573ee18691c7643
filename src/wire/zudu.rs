//! Zudu AI: pages from 0, epoch milliseconds, an envelope that can report an error with status 200. Its call record is
//! the only one of the four that accepts deliveries.

use serde_json::{Value, json};

use super::fields::{self, flag, member, number, object, text, whole_ms};
use super::page::PageRows;
use super::record::{call_id, direction, finished, phone, twin_url, url, without_queries};
use super::scan::{Answer, Names};
use super::status::{end_reason, status};
use super::text as transcript;
use super::time::{between_ms, moment};
use super::{Cursor, Method, Page, Request, WireError};
use crate::domain::{CallChannel, CallId, Cost, CostUnit, Network, ProviderTurn, SourceCall};

const LIST: &str = "/api/calls";
/// Members of every row.
const NAMES: Names = Names { id: "call_id", status: "call_status" };

/// The documented list is a POST. `limit` is required, because a sibling route without it returns everything.
pub(super) fn list(at: &Cursor) -> Request {
    let body = json!({
        "page": at.number(0),
        "limit": at.limit,
        "sort_by": "start_timestamp",
        "sort_order": "descending",
        "filter_criteria": {},
    });
    Request { method: Method::Post, path: LIST.to_owned(), query: Vec::new(), body: Some(body) }
}

/// The older GET. No document names its parameters.
pub(super) fn list_by_get(at: &Cursor) -> Request {
    let mut request = Request::get(LIST);
    request.query = vec![("page", at.number(0).to_string()), ("limit", at.limit.to_string())];
    request
}

/// The platform merges metadata, so only our own member is sent. The transcript is never sent.
pub(super) fn write_metadata(id: &str, outcome: &Value) -> Request {
    let body = json!({ "metadata": { "aftercall": outcome } });
    Request { method: Method::Put, path: format!("{LIST}/{id}"), query: Vec::new(), body: Some(body) }
}

/// The `data` of an answer, unless the answer is a refusal.
fn data(mut answer: Value) -> Result<Value, WireError> {
    let failed = |word: &str| word.eq_ignore_ascii_case("error") || word.eq_ignore_ascii_case("failed");
    if text(&answer, &["status"]).is_some_and(|word| failed(&word)) {
        return Err(refusal(&answer));
    }
    match answer.get_mut("data").map(Value::take) {
        Some(data) if !data.is_null() => Ok(data),
        _ => Err(WireError::Shape { path: "data", expected: "in the answer" }),
    }
}

fn refusal(answer: &Value) -> WireError {
    let code = text(answer, &["error", "code"]).or_else(|| text(answer, &["error"]));
    let message = text(answer, &["message"]);
    let missing = |text: &Option<String>, words: &[&str]| {
        text.as_ref().is_some_and(|text| words.iter().any(|word| text.to_ascii_lowercase().starts_with(word)))
    };
    // Only messages about the call itself count. "agent not found" must not make a call vanish.
    if missing(&code, &["404", "not_found", "call_not_found", "call not found"])
        || missing(&message, &["call not found"])
    {
        return WireError::NotFound;
    }
    WireError::Refused { said: code.or(message).unwrap_or_else(|| "without a reason".to_owned()) }
}

pub(super) fn read_page(body: &[u8], at: &Cursor) -> Result<Page, WireError> {
    let Answer { envelope, mut lists } = fields::page(body, &[&["data", "calls"]], NAMES)?;
    let data = data(envelope)?;
    let Some(rows) = lists.pop().flatten() else {
        return Err(WireError::Shape { path: "data.calls", expected: "a list" });
    };
    let listed = PageRows::read(rows, NAMES, |row| read_call(row, None));
    let paging = |key| fields::count(&data, &["pagination", key]);
    let total = paging("total_count").or_else(|| paging("total"));
    let by_pages = || paging("total_pages").map(|pages| at.number(1) < pages);
    Ok(listed.page(at, total, flag(&data, &["pagination", "has_next_page"]).or_else(by_pages)))
}

pub(super) fn read_detail(body: &[u8], asked: &CallId) -> Result<SourceCall, WireError> {
    let data = data(fields::json(body)?)?;
    let call = object(&data, &["call"]).unwrap_or(&data);
    if !call.is_object() {
        return Err(WireError::Shape { path: "data", expected: "a call" });
    }
    read_call(call, Some(asked))
}

pub(super) fn read_written(body: &[u8]) -> Result<(), WireError> {
    // An update may answer with an empty or meaningless body. Only a reported error counts as a failure.
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    let answer = fields::json(body)?;
    match text(&answer, &["status"]) {
        Some(word) if word.eq_ignore_ascii_case("error") => Err(refusal(&answer)),
        _ => Ok(()),
    }
}

fn read_call(call: &Value, asked: Option<&CallId>) -> Result<SourceCall, WireError> {
    // `id` is a row id that no path accepts.
    let id = call_id(fields::id(call, &["call_id"]), asked)?;
    let end_reason = text(call, &["disconnection_reason"]).map(|word| end_reason(&word));
    let status_raw = text(call, &["call_status"]);
    let (started, ended) = (moment(call, &["start_timestamp"]), moment(call, &["end_timestamp"]));
    let created = moment(call, &["created_at"]);
    Ok(finished(SourceCall {
        org_id: text(call, &["organization_id"]),
        agent_id: text(call, &["agent_id"]),
        direction: direction(text(call, &["direction"])),
        channel: channel(text(call, &["call_type"])),
        from_number: phone(text(call, &["from_number"])),
        to_number: phone(text(call, &["to_number"])),
        status: status(status_raw.as_deref(), end_reason),
        status_raw,
        end_reason,
        created_at: created.or(started),
        created_at_derived: created.is_none() && started.is_some(),
        answered_at: started,
        ended_at: ended,
        duration_ms: number(call, &["call_duration"])
            .and_then(whole_ms)
            .or_else(|| started.zip(ended).and_then(|(from, to)| between_ms(from, to))),
        cost: number(call, &["call_cost", "combined_cost"]).map(|amount| Cost { amount, unit: CostUnit::Unknown }),
        recording_url: url(text(call, &["recording_url"])),
        dual_url: twin_url(text(call, &["recording_multi_channel_url"])),
        turns: turns(call),
        language: text(call, &["language"]),
        opt_out: storage_wish(call).unwrap_or(false),
        network: Network { platform_response_ms: number(call, &["latency", "e2e", "p50"]), ..Network::default() },
        metadata: object(call, &["metadata"]).map(without_queries),
        analysis: object(call, &["call_analysis"]).map(without_queries),
        raw: without_queries(call),
        ..SourceCall::named(id)
    }))
}

fn channel(word: Option<String>) -> CallChannel {
    let word = word.unwrap_or_default().to_ascii_lowercase();
    if word.contains("web") {
        CallChannel::Web
    } else if word.contains("chat") {
        CallChannel::Chat
    } else {
        CallChannel::Phone
    }
}

/// The opt-out of storage; `None` where the call does not have it. An unknown value counts as an opt-out, because the
/// opposite would store what must not be stored.
pub(super) fn storage_wish(call: &Value) -> Option<bool> {
    let path = &["opt_out_sensitive_data_storage"];
    member(call, path).map(|_| flag(call, path).unwrap_or(true))
}

fn turns(call: &Value) -> Vec<ProviderTurn> {
    ["transcript_object", "transcript_with_tool_calls"]
        .into_iter()
        .filter_map(|key| fields::list(call, &[key]))
        .map(|items| transcript::read_list(items))
        .find(|turns| !turns.is_empty())
        .or_else(|| text(call, &["transcript"]).map(|text| transcript::read(&text)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(call: &Value) -> Result<SourceCall, WireError> {
        let body = json!({ "status": "success", "data": call });
        read_detail(body.to_string().as_bytes(), &CallId::parse("call_1").unwrap())
    }

    #[test]
    fn pages_count_from_zero_and_the_limit_is_always_said() {
        let first = Cursor::first(64);
        let body = list(&first).body.unwrap();
        assert_eq!((&body["page"], &body["limit"]), (&json!(0), &json!(64)));
        assert_eq!(list_by_get(&first).query[0], ("page", "0".to_owned()));
    }

    #[test]
    fn an_error_may_come_with_status_200() {
        let read = |body: Value| read_page(body.to_string().as_bytes(), &Cursor::first(1)).unwrap_err();
        let refused = read(json!({"status": "ERROR", "error": {"code": "QUOTA"}, "message": "m", "data": null}));
        assert_eq!(refused, WireError::Refused { said: "QUOTA".to_owned() });
        assert_eq!(read(json!({"status": "error", "message": "Call not found: x"})), WireError::NotFound);
        let agent = read(json!({"status": "error", "message": "Agent not found"}));
        assert_eq!(agent, WireError::Refused { said: "Agent not found".to_owned() });
        assert!(read(json!({"status": "success", "data": {"calls": {}}})).to_string().contains("data.calls"));
        assert!(read_written(br#"{"status":"error","message":"no"}"#).is_err());
        assert_eq!(read_written(br#"{"status":"success","data":{"operation":"update"}}"#), Ok(()));
    }

    #[test]
    fn the_row_id_is_not_the_call_id() {
        let body = br#"{"status":"success","data":{"calls":[{"id":"550e8400","call_id":"call_1"},{"id":"x"}]}}"#;
        let page = read_page(body, &Cursor::first(64)).unwrap();
        assert_eq!((page.calls[0].id.as_str(), page.unreadable.len()), ("call_1", 1));
        assert_eq!(detail(&json!({"id": "550e8400"})).unwrap().id.as_str(), "call_1");
        assert!(matches!(detail(&json!({"call_id": "call_2"})), Err(WireError::OtherCall { .. })));
    }

    #[test]
    fn the_richest_transcript_is_taken() {
        let call = json!({"transcript_object": [], "transcript": "Agent: a", "transcript_with_tool_calls": [
            {"role": "tool_call_invocation", "name": "x"}, {"role": "user", "content": "b"}]});
        assert_eq!(detail(&call).unwrap().turns[0].text, "b");
        let call = json!({"transcript_object": [], "transcript": "Agent: a", "transcript_with_tool_calls": []});
        assert_eq!(detail(&call).unwrap().turns[0].text, "a");
    }

    #[test]
    fn nothing_of_an_opted_out_call_is_kept() {
        for word in [json!(true), json!("true"), json!(1), json!("ja"), json!([])] {
            let call = detail(&json!({"call_id": "call_1", "organization_id": "org", "call_status": "ENDED",
                "opt_out_sensitive_data_storage": word, "from_number": "+15550100", "to_number": "+15550101",
                "start_timestamp": 1_703_097_600_000_i64, "recording_url": "https://h.test/secret.mp4",
                "transcript": "secret", "metadata": {"k": "secret"}, "call_analysis": {"s": "secret"}}));
            let call = call.unwrap();
            let stored = serde_json::to_string(&call).unwrap();
            assert!(call.opt_out && !call.eligible() && call.answered_at.is_some());
            assert_eq!(call.org_id.as_deref(), Some("org"));
            assert!(!stored.contains("1555") && !stored.contains("secret"), "{stored}");
        }
        for word in [json!(false), json!(null), json!("false"), json!(0)] {
            assert!(!detail(&json!({"opt_out_sensitive_data_storage": word})).unwrap().opt_out);
        }
    }
}
