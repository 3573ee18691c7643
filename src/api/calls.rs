//! `GET /v1/calls` and `GET /v1/calls/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::keys::Caller;
use super::problem::Problem;
use super::{query, shape};
use crate::app::App;
use crate::domain::{CallId, CallUid, SourceName};
use crate::store::{CallRecord, Listed, Scope};
use crate::wire::krosai::{KrosaiForm, call_logs, cockpit};

/// `GET /v1/calls`: the list in the form that the request selects.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    caller.require(Scope::CallsRead)?;
    let asked = query::read(query.as_deref().unwrap_or_default(), &caller, app.now())?;
    let total = app.store.count_listed(&asked.listing).await?;
    let listed = app.store.listed(&asked.listing, asked.limit, asked.offset).await?;
    Ok(Json(match asked.form {
        KrosaiForm::CallLogs => {
            let rows = with_excerpts(&app, &caller, &listed).await?;
            call_logs::list(&rows, total, asked.limit, asked.offset)
        }
        KrosaiForm::Cockpit => {
            let rows: Vec<Value> = listed.iter().map(|listed| shape::cockpit_row(&listed.record)).collect();
            cockpit::list(&rows, total, asked.page, asked.limit)
        }
    }))
}

async fn with_excerpts(app: &App, caller: &Caller, listed: &[Listed]) -> Result<Vec<Value>, Problem> {
    let may_read = caller.may(Scope::TranscriptsRead);
    let excerpt = |listed: &Listed| listed.excerpt.clone().filter(|_| may_read);
    let read: Vec<&CallRecord> =
        listed.iter().filter(|listed| excerpt(listed).is_some()).map(|listed| &listed.record).collect();
    caller.reads_text(app, &read).await?;
    Ok(listed.iter().map(|listed| shape::call_logs_row(&listed.record, excerpt(listed).as_deref())).collect())
}

/// `GET /v1/calls/{id}`: one call.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    caller.require(Scope::CallsRead)?;
    let record = find(&app, &caller, path, query.as_deref()).await?;
    let transcript = if caller.may(Scope::TranscriptsRead) {
        app.store.transcripts(record.uid).await?.pop().map(|newest| newest.text)
    } else {
        None
    };
    if transcript.is_some() {
        caller.reads_text(&app, &[&record]).await?;
    }
    let held = app.store.is_held(record.uid).await?;
    Ok(Json(shape::detail(&record, transcript.as_deref(), &json!(held))))
}

/// Finds the call of a path. Our own id is tried first, then the platform's id among the calls that the caller may see.
///
/// # Errors
/// `not_found`; `ambiguous` where two sources know the id; `invalid_parameter` for any parameter except `source`.
pub(super) async fn find(
    app: &App,
    caller: &Caller,
    path: Result<Path<String>, PathRejection>,
    query: Option<&str>,
) -> Result<CallRecord, Problem> {
    let found = meant(app, caller, path, query).await?;
    query::only(query, &["source"])?;
    Ok(found)
}

async fn meant(
    app: &App,
    caller: &Caller,
    path: Result<Path<String>, PathRejection>,
    query: Option<&str>,
) -> Result<CallRecord, Problem> {
    let Ok(Path(id)) = path else { return Err(Problem::no_such_call()) };
    let source = source(query.unwrap_or_default())?;
    let now = app.now();
    if let Ok(uid) = CallUid::parse(&id)
        && let Some(record) = app.store.call(uid).await?
        && source.as_ref().is_none_or(|source| *source == record.source)
    {
        return if caller.sees(&record, now) { Ok(record) } else { Err(Problem::no_such_call()) };
    }
    let Ok(id) = CallId::parse(&id) else { return Err(Problem::no_such_call()) };
    let mut records = app.store.calls_by_id(&id, source.as_ref()).await?;
    records.retain(|record| caller.sees(record, now));
    if records.len() > 1 {
        let sources: Vec<&SourceName> = records.iter().map(|record| &record.source).collect();
        return Err(Problem::new(StatusCode::CONFLICT, "ambiguous")
            .saying("more than one source knows this id; name one with ?source=, or use the uid")
            .detailed(json!({ "sources": sources })));
    }
    records.pop().ok_or_else(Problem::no_such_call)
}

fn source(query: &str) -> Result<Option<SourceName>, Problem> {
    let named = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "source").map(|(_, value)| value);
    let read = named.map(|name| SourceName::parse(&name)).transpose();
    read.map_err(|_| Problem::parameter("source", "the name of a source"))
}
