//! `/v1/backfills`: list, start and control backfills. A backfill covers a whole source, so keys and requests limited
//! to one organisation get 403.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::keys::Caller;
use super::problem::Problem;
use super::query::NoQuery;
use crate::app::App;
use crate::domain::{CallFlag, Outcome, SourceName};
use crate::jobs::backfill;
use crate::jobs::backfill_plan;
use crate::jobs::backfill_status;
use crate::store::{Backfill, NewBackfill, Orders, Origin, OurCalls, Scope, Steering};

/// Request body that starts a backfill.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackfillRequest {
    source: SourceName,
    from: Timestamp,
    to: Option<Timestamp>,
    #[serde(default)]
    again: bool,
    rate_per_minute: Option<u32>,
    where_outcome: Option<Outcome>,
    where_flag: Option<CallFlag>,
    #[serde(default)]
    dry_run: bool,
}

fn allowed(caller: &Caller) -> Result<(), Problem> {
    caller.require(Scope::CallsWrite)?;
    match caller.organizations() {
        [None, None] => Ok(()),
        _ => Err(Problem::new(StatusCode::FORBIDDEN, "forbidden")
            .saying("a backfill is of a whole source; this key or request is of one organisation")),
    }
}

/// `GET /v1/backfills`: all backfills, newest first.
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller, _: NoQuery) -> Result<Json<Value>, Problem> {
    allowed(&caller)?;
    let all = app.store.backfills().await?;
    Ok(Json(json!({ "backfills": backfill_status::all_shown(&app, &all).await? })))
}

async fn found(app: &App, id: &str) -> Result<Backfill, Problem> {
    let nothing = || Problem::new(StatusCode::NOT_FOUND, "not_found").saying("there is no such backfill");
    app.store.backfill(id).await?.ok_or_else(nothing)
}

/// `GET /v1/backfills/{id}`: one backfill.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    caller: Caller,
    _: NoQuery,
) -> Result<Json<Value>, Problem> {
    allowed(&caller)?;
    Ok(Json(backfill_status::shown(&app, &found(&app, &id).await?).await?))
}

/// `POST /v1/backfills`: starts a backfill (201), or returns the plan only (`dry_run`, 200).
pub(super) async fn start(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: NoQuery,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    allowed(&caller)?;
    let wanted: BackfillRequest = read(body)?;
    if app.platform(&wanted.source).is_none() {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_source")
            .saying(format!("there is no source `{}` in the configuration", wanted.source)));
    }
    let (now, source, from) = (app.now(), &wanted.source, wanted.from);
    let to = wanted.to.unwrap_or(now);
    if from >= to {
        return Err(invalid("from: must be before to".to_owned()));
    }
    let only = match (wanted.where_outcome, wanted.where_flag) {
        (Some(_), Some(_)) => return Err(invalid("where_outcome and where_flag: name one of them".to_owned())),
        (Some(outcome), None) => Some(OurCalls::Outcome(outcome)),
        (None, flag) => flag.map(OurCalls::Flag),
    };
    let orders = Orders { rate_per_minute: checked_rate(wanted.rate_per_minute)?, only };
    if wanted.dry_run {
        let plan = backfill_plan::plan(&app, source, (from, to), wanted.again, orders).await?;
        let plan = serde_json::to_value(plan).map_err(|err| Problem::internal(&err.to_string()))?;
        return Ok((StatusCode::OK, Json(plan)));
    }
    let new = NewBackfill { source, from, to, again: wanted.again, origin: Origin::Command, now };
    let id = backfill::start_ordered(&app, &new, orders).await?;
    let id = id.ok_or_else(|| Problem::new(StatusCode::CONFLICT, "already_running"))?;
    let shown = backfill_status::shown(&app, &found(&app, &id).await?).await?;
    Ok((StatusCode::CREATED, Json(shown)))
}

/// Request body that changes a running backfill.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackfillChange {
    /// Calls per minute. Null removes the limit. The member is required, because a change without content is a client
    /// error.
    #[serde(deserialize_with = "Option::deserialize")]
    rate_per_minute: Option<u32>,
}

/// `PATCH …/{id}`: sets another rate. It applies from the next call on.
pub(super) async fn change(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    caller: Caller,
    _: NoQuery,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    allowed(&caller)?;
    let change: BackfillChange = read(body)?;
    let rate = checked_rate(change.rate_per_minute)?;
    let changed = app.store.rate_backfill(&id, rate).await?;
    answered(&app, &id, changed).await
}

fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    let body = body.map_err(|rejection| Problem::unread(&rejection))?;
    serde_json::from_slice(&body).map_err(|err| invalid(err.to_string()))
}

fn invalid(said: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_body").saying(said)
}

fn checked_rate(rate: Option<u32>) -> Result<Option<u32>, Problem> {
    if rate == Some(0) {
        return Err(invalid("rate_per_minute: must be at least 1".to_owned()));
    }
    Ok(rate)
}

/// The backfill after a change. A finished backfill accepts no change (409).
async fn answered(app: &App, id: &str, changed: bool) -> Result<Json<Value>, Problem> {
    let backfill = found(app, id).await?;
    if !changed {
        return Err(Problem::new(StatusCode::CONFLICT, "is_over").saying("this backfill is over"));
    }
    Ok(Json(backfill_status::shown(app, &backfill).await?))
}

/// An empty body or an empty object. `steer` accepts no members.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `POST …/{id}/pause`, `resume`, `cancel`.
pub(super) async fn steer(
    State(app): State<Arc<App>>,
    Path((id, verb)): Path<(String, String)>,
    caller: Caller,
    _: NoQuery,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    allowed(&caller)?;
    let steering = match verb.as_str() {
        "pause" => Steering::Paused,
        "resume" => Steering::Run,
        "cancel" => Steering::Cancelled,
        _ => return Err(Problem::new(StatusCode::NOT_FOUND, "not_found")),
    };
    let body = body.map_err(|rejection| Problem::unread(&rejection))?;
    if !body.iter().all(u8::is_ascii_whitespace) {
        let Nothing {} = read(Ok(body))?;
    }
    let changed = app.store.steer_backfill(&id, steering).await?;
    answered(&app, &id, changed).await
}
