//! `POST /v1/triggers`: processes the named calls now.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::keys::Caller;
use super::problem::Problem;
use super::query::NoQuery;
use crate::app::App;
use crate::domain::{CallId, RetentionState, SourceName};
use crate::jobs::admit::Repeat;
use crate::jobs::trigger;
use crate::jobs::trigger::{TriggerState, Triggered};
use crate::store::{CallRecord, Scope};

/// Calls per request. Use a backfill for more.
const MOST: usize = 100;

/// One call of the request body.
struct TriggerRequest {
    source: SourceName,
    call_id: CallId,
    repeat: Repeat,
}

/// Enqueues each call once. Answers 202 when at least one job is queued, 200 when all calls have ended already.
pub(super) async fn trigger(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: NoQuery,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    caller.require(Scope::CallsWrite)?;
    let all = read(&body.map_err(|rejection| Problem::unread(&rejection))?)?;
    for wanted in &all {
        check(&app, &caller, wanted).await?;
    }
    let mut triggers: Vec<Triggered> = Vec::with_capacity(all.len());
    for TriggerRequest { source, call_id, repeat } in &all {
        triggers.push(trigger::trigger(&app, source, call_id, *repeat).await?);
    }
    let queued = triggers.iter().any(|triggered| triggered.state == TriggerState::Queued);
    let status = if queued { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(json!({ "triggers": triggers }))))
}

/// Checks one call. Nothing is enqueued until every call of the request has passed.
async fn check(app: &App, caller: &Caller, wanted: &TriggerRequest) -> Result<(), Problem> {
    if app.platform(&wanted.source).is_none() {
        return Err(unknown_source(wanted.source.as_str()));
    }
    let records = app.store.calls_by_id(&wanted.call_id, Some(&wanted.source)).await?;
    match records.first() {
        Some(record) if !is_unasked(record) && !caller.reaches(record.org_id.as_deref()) => {
            Err(Problem::no_such_call().detailed(json!({ "source": wanted.source, "call_id": wanted.call_id })))
        }
        _ => Ok(()),
    }
}

/// True for a record that only a trigger has created. Its organisation is unknown until the source has been queried.
fn is_unasked(record: &CallRecord) -> bool {
    record.call.is_none() && record.org_id.is_none() && record.retention_state == RetentionState::Active
}

fn unknown_source(name: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_source")
        .saying(format!("there is no source `{name}` in the configuration"))
        .detailed(json!({ "source": name }))
}

fn read(body: &[u8]) -> Result<Vec<TriggerRequest>, Problem> {
    let body: Value = serde_json::from_slice(body).map_err(|err| {
        // The parser's message may repeat parts of the body, so only line and column are returned.
        let (line, column) = (err.line(), err.column());
        invalid("the body is not JSON", json!({ "line": line, "column": column }))
    })?;
    let calls = match body {
        Value::Object(mut members) => match members.remove("calls") {
            Some(_) if !members.is_empty() => {
                let field = members.keys().next().map(String::as_str).unwrap_or_default();
                return Err(invalid(&format!("{field}: must not stand beside calls"), json!({ "field": field })));
            }
            Some(Value::Array(calls)) => calls,
            Some(_) => return Err(invalid("calls: must be a list", json!({ "field": "calls" }))),
            None => vec![Value::Object(members)],
        },
        _ => return Err(invalid("the body must be an object with source and call_id, or with calls", Value::Null)),
    };
    if calls.is_empty() || calls.len() > MOST {
        return Err(invalid(&format!("calls: must be 1 to {MOST} calls"), json!({ "field": "calls" })));
    }
    calls.iter().enumerate().map(|(at, call)| wanted(at, call)).collect()
}

/// Members of a call in a request.
const MEMBERS: [&str; 3] = ["source", "call_id", "again"];

fn wanted(at: usize, call: &Value) -> Result<TriggerRequest, Problem> {
    let wrong =
        |field: &str, reason: &str| invalid(&format!("{field}: {reason}"), json!({ "index": at, "field": field }));
    if let Some(stranger) = call.as_object().and_then(|call| call.keys().find(|key| !MEMBERS.contains(&key.as_str()))) {
        return Err(wrong(stranger, &format!("there is no such member; there are {}", MEMBERS.join(", "))));
    }
    let text = |field: &str| call.get(field).and_then(Value::as_str).ok_or_else(|| wrong(field, "must be a text"));
    let source = text("source")?;
    let source = SourceName::parse(source).map_err(|_| unknown_source(source))?;
    let call_id = CallId::parse(text("call_id")?).map_err(|err| wrong("call_id", &err.to_string()))?;
    let repeat = match call.get("again") {
        None | Some(Value::Null | Value::Bool(false)) => Repeat::Never,
        Some(Value::Bool(true)) => Repeat::Again,
        Some(_) => return Err(wrong("again", "must be true or false")),
    };
    Ok(TriggerRequest { source, call_id, repeat })
}

fn invalid(message: &str, details: Value) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_body").saying(message).detailed(details)
}
