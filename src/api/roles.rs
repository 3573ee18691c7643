//! `POST /v1/calls/{id}/swap-roles`: corrects the roles of a transcript. Agent and caller were swapped, or no speaker
//! had a role.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::calls::find;
use super::keys::Caller;
use super::problem::Problem;
use crate::app::App;
use crate::jobs::correct;
use crate::jobs::correct::Corrected;
use crate::store::Scope;
use crate::transcript::Correction;

/// Writes the next transcript version. An empty body swaps the roles. `{"agent": N}` makes Speaker N the agent.
pub(super) async fn swap(
    State(app): State<Arc<App>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    caller.require(Scope::CallsWrite)?;
    let correction = read(&body)?;
    let record = find(&app, &caller, path, query.as_deref()).await?;
    match correct::correct(&app, record.uid, correction, caller.key_id()).await? {
        Corrected::Version(version, words) => Ok(Json(json!({
            "uid": record.uid,
            "transcript_version": version,
            "speakers": words.speakers,
        }))),
        Corrected::Refused(err) => {
            Err(Problem::new(StatusCode::CONFLICT, "nothing_to_correct").saying(format!("the transcript: {err}")))
        }
        Corrected::NoTranscript => {
            Err(Problem::new(StatusCode::CONFLICT, "no_transcript").saying("this call has no transcript"))
        }
    }
}

fn read(body: &[u8]) -> Result<Correction, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Correction::Swap);
    }
    let invalid = || Problem::new(StatusCode::BAD_REQUEST, "invalid_body");
    let body: Value = serde_json::from_slice(body).map_err(|_| invalid().saying("the body is not JSON"))?;
    if let Some(stranger) = body.as_object().and_then(|body| body.keys().find(|key| *key != "agent")) {
        let said = format!("{stranger}: there is no such member; there is agent");
        return Err(invalid().saying(said).detailed(json!({ "field": stranger })));
    }
    match body.get("agent") {
        None if body.is_object() => Ok(Correction::Swap),
        Some(number) => {
            let number = number.as_u64().and_then(|number| usize::try_from(number).ok());
            let wrong =
                || invalid().saying("agent: must be the number of a speaker").detailed(json!({ "field": "agent" }));
            number.map(Correction::Agent).ok_or_else(wrong)
        }
        None => Err(invalid().saying("the body must be empty or an object")),
    }
}
