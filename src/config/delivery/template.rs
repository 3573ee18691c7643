//! Templates of a delivery: which members they may use, and how they are rendered.

use std::error::Error;

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Output, State, UndefinedBehavior, Value as Inserted};
use serde_json::{Value, json};

use super::error::RequestError;
use crate::domain::address::percent_encoded;

pub(super) fn plain(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(undefined);
    environment
}

pub(super) fn for_urls(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut environment = plain(undefined);
    environment.set_formatter(into_url);
    environment
}

/// A value that must not be inserted into a URL.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unfit(&'static str);

/// Percent-encodes everything except unreserved characters (RFC 3986 section 2.3). A single `.` or `..` is refused,
/// because it would still remove a path segment (section 5.2.4).
fn into_url(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Inserted) -> Result<(), minijinja::Error> {
    let unfit = |why| Err(minijinja::Error::new(ErrorKind::InvalidOperation, why).with_source(Unfit(why)));
    // Only the sample call may lack a member. Strict templates fail before this.
    if value.is_undefined() {
        return Ok(out.write_str("sample")?);
    }
    if value.is_none() {
        return unfit("a value that this call does not have is inserted");
    }
    let text = value.to_string();
    match text.as_str() {
        "." => return unfit("`.` is inserted, which would name another record"),
        ".." => return unfit("`..` is inserted, which would name another record"),
        _ => {}
    }
    write!(out, "{}", percent_encoded(&text))?;
    Ok(())
}

pub(super) fn render(
    environment: &Environment<'_>,
    field: &str,
    template: &str,
    document: &Value,
) -> Result<String, RequestError> {
    environment.render_str(template, Serde(document)).map_err(|err| {
        let unfit = err.source().and_then(|source| source.downcast_ref::<Unfit>());
        match unfit {
            Some(unfit) => RequestError::call(field, format!("{unfit}{}", climbing(document))),
            None => RequestError::table(field, format!("cannot be filled in: {}", told(field, &err))),
        }
    })
}

/// The member of the call's document that is `.` or `..`.
fn climbing(document: &Value) -> String {
    let at = |value: &Value| matches!(value.as_str(), Some("." | ".."));
    let mut call = document["call"].as_object().into_iter().flatten();
    call.find(|(_, value)| at(value)).map(|(key, _)| format!(" (call.{key})")).unwrap_or_default()
}

/// The error text of a template. The text of a header's template is not shown, because it may be a key.
fn told(field: &str, err: &minijinja::Error) -> String {
    if field.starts_with("headers.") { err.kind().to_string() } else { err.to_string() }
}

/// Checks the template's syntax and its members.
pub(super) fn compiles(
    environment: &Environment<'_>,
    field: &str,
    template: &str,
    members: &[&str],
) -> Result<(), RequestError> {
    let compiled = environment.template_from_str(template);
    let compiled = compiled.map_err(|err| RequestError::table(field, told(field, &err)))?;
    let call = sample()["call"].as_object().cloned().unwrap_or_default();
    let known = |name: &str| {
        let mut steps = name.split('.');
        match (steps.next(), steps.next()) {
            (Some("call"), Some(member)) => call.contains_key(member),
            (Some(member), _) => members.contains(&member) || environment.globals().any(|(name, _)| name == member),
            (None, _) => false,
        }
    };
    let mut unknown: Vec<String> =
        compiled.undeclared_variables(true).into_iter().filter(|name| !known(name)).collect();
    unknown.sort();
    match unknown.first() {
        Some(name) => {
            Err(RequestError::table(field, format!("there is no `{name}`; there are {}", members.join(", "))))
        }
        None => Ok(()),
    }
}

/// A sample document for templates.
pub(super) fn sample() -> Value {
    json!({
        "call": {
            "id": "call_sample", "uid": "01890000-0000-7000-8000-000000000000", "source": "sample", "org_id": "org",
            "direction": "inbound", "duration_ms": 60_000, "ended_at": "2026-01-01T00:00:00Z",
        },
        "outcome": "done",
        "transcript": "[Agent]: Hello",
        "transcript_version": 1,
        "quality_metrics": {},
        "flags": [],
        "artifacts": [],
        "retain_until": "2026-04-01T00:00:00Z",
        "idempotency_key": "01890000-0000-7000-8000-000000000001",
    })
}
