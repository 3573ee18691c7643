//! `GET /v1/calls/{id}/transcript.{txt,json,vtt,srt}`: the newest version in the requested form.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRef, FromRequestParts, Path, RawQuery};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::calls::find;
use super::keys::Caller;
use super::problem::Problem;
use crate::app::App;
use crate::store::Scope;
use crate::transcript;
use crate::transcript::{Form, TranscriptError};

/// A request for the transcript of a call.
#[derive(Debug)]
pub(super) struct TranscriptRequest {
    app: Arc<App>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    query: Option<String>,
}

impl<S> FromRequestParts<S> for TranscriptRequest
where
    S: Send + Sync,
    Arc<App>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let path = Path::from_request_parts(parts, state).await;
        let query = RawQuery::from_request_parts(parts, state).await.map_or(None, |RawQuery(query)| query);
        Ok(Self { app: Arc::from_ref(state), caller, path, query })
    }
}

/// Returns the newest version in this form.
pub(super) async fn written(asked: TranscriptRequest, form: Form) -> Result<Response, Problem> {
    let TranscriptRequest { app, caller, path, query } = asked;
    caller.require(Scope::TranscriptsRead)?;
    let record = find(&app, &caller, path, query.as_deref()).await?;
    let Some(newest) = app.store.transcripts(record.uid).await?.pop() else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "no_transcript")
            .saying("this call has no transcript")
            .detailed(json!({ "outcome": record.outcome })));
    };
    let body = match form {
        // The stored text is byte for byte the text that was recorded and delivered.
        Form::Text => newest.text,
        Form::Json | Form::Vtt | Form::Srt => match transcript::render(&newest.transcript, form) {
            Ok(body) => body,
            Err(TranscriptError::Omitted { reason, .. }) => return Err(omitted(form, &reason)),
            Err(err) => return Err(Problem::internal(&err.to_string())),
        },
    };
    caller.reads_text(&app, &[&record]).await?;
    Ok(([(header::CONTENT_TYPE, form.content_type())], body).into_response())
}

fn omitted(form: Form, reason: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_such_form")
        .saying(format!("this transcript has no {form} form: {reason}"))
        .detailed(json!({ "form": form.extension(), "reason": reason }))
}
