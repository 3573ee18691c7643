//! KrosAI. Two of its documents describe the same URL with two forms: "Call logs" (`calls`, limit and offset) and the
//! Cockpit API (`data`, page and limit). Requests carry the parameters of both forms. The answer shows which form it
//! has.

pub mod call_logs;
pub mod cockpit;

use serde_json::{Value, json};

use super::fields::{self, member, number, object, seconds_as_ms, text};
use super::page::PageRows;
use super::record::{call_id, direction, finished, phone, url, without_queries};
use super::scan::{Answer, Names};
use super::status::{end_reason, status};
use super::text as transcript;
use super::time::moment;
use super::{Cursor, LossUnit, Page, RecordingLink, Request, WireError};
use crate::domain::{CallId, Cost, CostUnit, Network, SourceCall};

/// Members of every row.
const NAMES: Names = Names { id: "id", status: "status" };

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KrosaiForm {
    CallLogs,
    Cockpit,
}

pub(super) fn list(at: &Cursor) -> Request {
    let mut request = Request::get("/calls");
    request.query =
        vec![("limit", at.limit.to_string()), ("offset", at.offset.to_string()), ("page", at.number(1).to_string())];
    // The call logs' name of the filter. The Cockpit form has dates for its trends only, and ignores this.
    request.query.extend(at.since.map(|since| ("from_date", since.to_string())));
    request
}

/// Reads a list in either form, and returns the form.
///
/// # Errors
/// [`WireError`] when it has neither form.
pub fn read_page(body: &[u8], at: &Cursor, unit: LossUnit) -> Result<(KrosaiForm, Page), WireError> {
    let Answer { envelope: answer, lists } = fields::page(body, &[&["calls"], &["data"]], NAMES)?;
    let found =
        lists.into_iter().zip([KrosaiForm::CallLogs, KrosaiForm::Cockpit]).find_map(|(rows, form)| Some((form, rows?)));
    let Some((form, rows)) = found else {
        return Err(refusal(&answer, "calls", "a list of calls (nor is `data`)"));
    };
    let listed = PageRows::read(rows, NAMES, |row| read_call(row, form, unit, None));
    let total = fields::count(&answer, &["total"]);
    let pages = fields::count(&answer, &["total_pages"]).filter(|_| form == KrosaiForm::Cockpit);
    Ok((form, listed.page(at, total, pages.map(|pages| at.number(1) < pages))))
}

pub(super) fn read_detail(body: &[u8], asked: &CallId, unit: LossUnit) -> Result<SourceCall, WireError> {
    let answer = fields::json(body)?;
    let wrapped = || object(&answer, &["data"]).or_else(|| object(&answer, &["call"]));
    let call = if answer.get("id").is_some() { Some(&answer) } else { wrapped().or(Some(&answer)) };
    let call = call.filter(|call| call.is_object());
    let Some(call) = call.filter(|call| call.get("id").is_some() || call.get("status").is_some()) else {
        return Err(refusal(&answer, "id", "in the answer, which should be a call"));
    };
    read_call(call, form_of(call), unit, Some(asked))
}

/// An error object with a successful status, or an unknown shape.
fn refusal(answer: &Value, path: &'static str, expected: &'static str) -> WireError {
    match text(answer, &["code"]).or_else(|| text(answer, &["error"])) {
        Some(said) => WireError::Refused { said },
        None => WireError::Shape { path, expected },
    }
}

/// A single call has no envelope, so the members that only one document has decide.
fn form_of(call: &Value) -> KrosaiForm {
    let has = |path: &[&str]| member(call, path).is_some();
    let call_logs = has(&["cost_cents"])
        || has(&["endpoint"])
        || has(&["phone_number"])
        || has(&["quality_metrics", "latency_ms"])
        || has(&["quality_metrics", "audio_codec"]);
    let cockpit = has(&["organization_id"])
        || has(&["cost"])
        || has(&["latency_ms"])
        || has(&["events"])
        || has(&["quality_metrics", "mos"])
        || has(&["quality_metrics", "jitter_ms"]);
    if cockpit && !call_logs { KrosaiForm::Cockpit } else { KrosaiForm::CallLogs }
}

fn read_call(call: &Value, form: KrosaiForm, unit: LossUnit, asked: Option<&CallId>) -> Result<SourceCall, WireError> {
    let id = call_id(fields::id(call, &["id"]), asked)?;
    let end_reason = text(call, &["hangup_cause"]).map(|word| end_reason(&word));
    let status_raw = text(call, &["status"]);
    Ok(finished(SourceCall {
        org_id: text(call, &["organization_id"]),
        agent_id: text(call, &["endpoint_id"]).or_else(|| text(call, &["endpoint", "id"])),
        phone_number_id: text(call, &["phone_number_id"]).or_else(|| text(call, &["phone_number", "id"])),
        direction: direction(text(call, &["direction"])),
        from_number: phone(text(call, &["from_number"])),
        to_number: phone(text(call, &["to_number"])),
        status: status(status_raw.as_deref(), end_reason),
        status_raw,
        end_reason,
        created_at: moment(call, &["created_at"]),
        answered_at: moment(call, &["answered_at"]),
        ended_at: moment(call, &["completed_at"]),
        duration_ms: number(call, &["duration"]).and_then(seconds_as_ms),
        cost: cost(call),
        recording_url: url(text(call, &["recording_url"])),
        turns: text(call, &["transcript"]).map(|text| transcript::read(&text)).unwrap_or_default(),
        language: text(call, &["language"]),
        network: network(call, form, unit),
        metadata: object(call, &["metadata"]).map(without_queries),
        raw: without_queries(call),
        ..SourceCall::named(id)
    }))
}

fn cost(call: &Value) -> Option<Cost> {
    let amount = number(call, &["cost_cents"]).or_else(|| number(call, &["cost"]))?;
    // Only our own answers name a unit.
    let unit = match text(call, &["cost_unit"]).as_deref() {
        Some("credits") => CostUnit::Credits,
        Some("unknown") => CostUnit::Unknown,
        _ => CostUnit::Cents,
    };
    Some(Cost { amount, unit })
}

fn network(call: &Value, form: KrosaiForm, unit: LossUnit) -> Network {
    let quality = |key| number(call, &["quality_metrics", key]);
    let loss = quality("packet_loss");
    let percent_per_unit = match (unit, form) {
        (LossUnit::Percent, _) | (LossUnit::Documented, KrosaiForm::Cockpit) => Some(1.0),
        (LossUnit::Ratio, _) => Some(100.0),
        // The document names no unit, so "0.01" may mean a good call or a bad one.
        (LossUnit::Documented, KrosaiForm::CallLogs) => None,
    };
    Network {
        latency_ms: quality("latency_ms").or_else(|| number(call, &["latency_ms"])),
        jitter_ms: quality("jitter_ms"),
        packet_loss_raw: loss,
        packet_loss_percent: loss.zip(percent_per_unit).map(|(loss, factor)| loss * factor),
        mos: quality("mos"),
        codec: text(call, &["quality_metrics", "audio_codec"]).or_else(|| codec_of_events(call)),
        platform_response_ms: None,
    }
}

fn codec_of_events(call: &Value) -> Option<String> {
    let events = fields::list(call, &["events"])?;
    let media = |event: &&Value| text(event, &["event_type"]).as_deref() == Some("sip_media_established");
    events.iter().filter(media).find_map(|event| text(event, &["event_data", "codec"]))
}

pub(super) fn read_recording(body: &[u8]) -> Result<Option<RecordingLink>, WireError> {
    let answer = fields::json(body)?;
    if !answer.is_object() {
        return Err(WireError::Shape { path: "recording_url", expected: "in the answer" });
    }
    Ok(url(text(&answer, &["recording_url"])).map(|url| RecordingLink {
        url,
        expires_at: moment(&answer, &["expires_at"]),
        duration_ms: number(&answer, &["duration_seconds"]).and_then(seconds_as_ms),
        size_bytes: fields::count(&answer, &["size_bytes"]).filter(|size| *size > 0),
    }))
}

/// A length in whole seconds, as the document has it.
fn seconds(ms: u64) -> Value {
    json!(ms.saturating_add(500) / 1000)
}

/// A number as these documents write it: whole numbers without a fraction.
#[must_use]
pub fn number_shown(number: f64) -> Value {
    // Beyond 2^53 a double cannot represent every whole number.
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 { json!(number as i64) } else { json!(number) }
}

/// The cost of a call in cents. Null where its unit is another one or unknown.
fn cents(cost: Option<Cost>) -> Value {
    json!(cost.filter(|cost| cost.unit == CostUnit::Cents).map(|cost| number_shown(cost.amount)))
}

/// Whether a request has the header `x-organization-id`. Only Cockpit's document has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrganizationHeader {
    Present,
    Absent,
}

/// The form that a list request to a server of both forms selects. `None` when the request does not show it. Our own
/// requests carry the paging of both forms and count as Call logs.
pub fn form_asked<'a>(query_keys: impl IntoIterator<Item = &'a str>, header: OrganizationHeader) -> Option<KrosaiForm> {
    let mut cockpit = header == OrganizationHeader::Present;
    for key in query_keys {
        match key {
            "offset" | "from_date" | "to_date" | "endpoint_id" => return Some(KrosaiForm::CallLogs),
            "page" | "action" | "start_date" | "end_date" => cockpit = true,
            _ => {}
        }
    }
    cockpit.then_some(KrosaiForm::Cockpit)
}

/// An error body, the same in both forms.
#[must_use]
pub fn error(message: &str, code: &str, details: Option<&Value>) -> Value {
    json!({ "error": message, "code": code, "details": details })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(body: &Value, unit: LossUnit) -> SourceCall {
        let id = CallId::parse("c").unwrap();
        read_detail(body.to_string().as_bytes(), &id, unit).unwrap()
    }

    #[test]
    fn both_forms_paging_is_asked_for_at_once() {
        let mut at = Cursor::first(100);
        (at.page, at.offset) = (2, 200);
        let query = list(&at).query;
        let expected = [("limit", "100"), ("offset", "200"), ("page", "3")];
        assert_eq!(query, expected.map(|(key, value)| (key, value.to_owned())));
    }

    #[test]
    fn the_unit_of_packet_loss_follows_the_form_and_the_setting() {
        let call_logs = json!({"id": "c", "cost_cents": 1, "quality_metrics": {"packet_loss": 0.5}});
        let cockpit = json!({"id": "c", "cost": 1.0, "quality_metrics": {"packet_loss": 0.5, "mos": 4.1}});
        let percent = |body, unit| detail(body, unit).network.packet_loss_percent;
        assert_eq!(percent(&call_logs, LossUnit::Documented), None);
        assert_eq!(percent(&cockpit, LossUnit::Documented), Some(0.5));
        assert_eq!(percent(&call_logs, LossUnit::Percent), Some(0.5));
        assert_eq!(percent(&call_logs, LossUnit::Ratio), Some(50.0));
        assert_eq!(detail(&call_logs, LossUnit::Documented).network.packet_loss_raw, Some(0.5));
    }

    #[test]
    fn cockpits_codec_is_found_in_its_events() {
        let body = json!({"id": "c", "events": [
            {"event_type": "call_answered"},
            {"event_type": "sip_media_established", "event_data": {"codec": "opus", "latency_ms": 120}}]});
        assert_eq!(detail(&body, LossUnit::Documented).network.codec.as_deref(), Some("opus"));
    }

    #[test]
    fn a_lying_or_foreign_answer_is_named() {
        let id = CallId::parse("c").unwrap();
        let read = |body: &str| read_detail(body.as_bytes(), &id, LossUnit::Documented).unwrap_err();
        assert_eq!(read(r#"{"id":"d"}"#), WireError::OtherCall { asked: "c".to_owned() });
        assert_eq!(read(r#"{"error":"x","code":"BAD"}"#), WireError::Refused { said: "BAD".to_owned() });
        assert!(read("[]").to_string().contains("`id`"));
        let page = read_page(br#"{"completed": 3}"#, &Cursor::first(10), LossUnit::Documented).unwrap_err();
        assert!(page.to_string().contains("`calls`"), "{page}");
    }

    #[test]
    fn rows_without_an_id_are_counted_not_fatal() {
        let body = br#"{"calls":[{"id":""},{"status":"completed"},{"id":"a\nb"},7,{"id":"ok"}],"total":5}"#;
        let (form, page) = read_page(body, &Cursor::first(100), LossUnit::Documented).unwrap();
        assert_eq!((form, page.calls.len(), page.unreadable.len(), page.next), (KrosaiForm::CallLogs, 1, 4, None));
    }

    #[test]
    fn money_of_another_unit_is_no_cents_and_whole_numbers_are_whole() {
        let id = CallId::parse("c").unwrap();
        let mut call = SourceCall::named(id);
        call.network.latency_ms = Some(120.0);
        let shown = |unit, amount| {
            let call = SourceCall { cost: Some(Cost { amount, unit }), ..call.clone() };
            (call_logs::detail(&call), cockpit::row(&call))
        };
        let (call_logs, cockpit) = shown(CostUnit::Cents, 3.0);
        assert_eq!((call_logs["cost_cents"].to_string(), cockpit["cost"].to_string()), ("3".into(), "3".into()));
        assert_eq!(call_logs["quality_metrics"]["latency_ms"].to_string(), "120");
        let (call_logs, cockpit) = shown(CostUnit::Credits, 3.25);
        assert_eq!((&call_logs["cost_cents"], &cockpit["cost"]), (&Value::Null, &json!(3.25)));
        assert_eq!(shown(CostUnit::Unknown, 1.0).0["cost_cents"], Value::Null);
        assert_eq!((number_shown(1e300), number_shown(-2.0)), (json!(1e300), json!(-2)));
        assert_eq!(number_shown(-0.0).to_string(), "0");
    }

    #[test]
    fn a_server_of_both_forms_tells_them_apart() {
        use OrganizationHeader::{Absent, Present};
        assert_eq!(form_asked(["limit", "offset", "page"], Absent), Some(KrosaiForm::CallLogs));
        assert_eq!(form_asked(["page"], Absent), Some(KrosaiForm::Cockpit));
        assert_eq!(form_asked(["limit"], Present), Some(KrosaiForm::Cockpit));
        assert_eq!(form_asked(["limit", "status"], Absent), None);
    }

    #[test]
    fn a_recording_link_tells_its_size_and_end() {
        let body = br#"{"recording_url":"https://h.test/a.mp3?sig=1","expires_at":"2026-01-10T11:00:00Z","duration_seconds":42,"size_bytes":504000}"#;
        let link = read_recording(body).unwrap().unwrap();
        assert_eq!((link.duration_ms, link.size_bytes), (Some(42_000), Some(504_000)));
        assert_eq!(read_recording(br#"{"recording_url":null}"#), Ok(None));
    }
}
