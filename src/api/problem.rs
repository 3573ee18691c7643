//! The error body of the API: `{error, code, details}`.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::domain::{Classify, Fault, Side};
use crate::jobs::Stop;
use crate::queue::QueueError;
use crate::store::{Scope, StoreError};
use crate::telemetry;
use crate::wire::krosai;

/// An error answer.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Option<Value>,
}

impl Problem {
    /// An error whose message is its code.
    pub(super) fn new(status: StatusCode, code: &'static str) -> Self {
        Self { status, code, message: code.replace('_', " "), details: None }
    }

    pub(super) fn saying(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    pub(super) fn detailed(self, details: Value) -> Self {
        Self { details: Some(details), ..self }
    }

    /// An invalid query parameter. The value is not repeated.
    pub(super) fn parameter(name: &str, expected: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter")
            .saying(format!("{name}: must be {expected}"))
            .detailed(json!({ "parameter": name }))
    }

    /// An unknown query parameter. A filter that is silently ignored would return the calls of everybody.
    pub(super) fn unknown_parameter(name: &str, known: &[&str]) -> Self {
        let known =
            if known.is_empty() { "it takes none".to_owned() } else { format!("it takes {}", known.join(", ")) };
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter")
            .saying(format!("{name}: this route has no such parameter; {known}"))
            .detailed(json!({ "parameter": name }))
    }

    /// A body that did not arrive completely.
    pub(super) fn unread(rejection: &BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            _ => Self::new(StatusCode::BAD_REQUEST, "invalid_body").saying("the body ended early"),
        }
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized")
            .saying("a valid API key is needed, as `x-api-key` or `Authorization: Bearer`")
    }

    pub(super) fn forbidden(scope: Scope) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden")
            .saying(format!("this key lacks the scope {scope}"))
            .detailed(json!({ "scope": scope.to_string() }))
    }

    /// Also the answer for calls that this key may not see.
    pub(super) fn no_such_call() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found").saying("there is no such call")
    }

    /// An internal error. The cause is logged, not sent.
    pub(super) fn internal(cause: &str) -> Self {
        tracing::error!(cause, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal")
    }

    fn of(fault: Fault, side: Side, cause: &str) -> Self {
        if matches!(fault, Fault::Permanent) {
            return Self::internal(cause);
        }
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
        if telemetry::outage(side).is_some() {
            telemetry::out_of_reach(side, &format!("request not answered: {cause}"));
        } else {
            tracing::warn!(cause, "request not answered, it may be tried again");
        }
        let whose = side.as_str();
        problem.saying(format!("not available at the moment ({whose}), try again")).detailed(json!({ "side": whose }))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = krosai::error(&self.message, self.code, self.details.as_ref());
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        match self.status {
            // RFC 9110 section 11.6.1 requires a challenge with every 401.
            StatusCode::UNAUTHORIZED => headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            StatusCode::SERVICE_UNAVAILABLE => headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5")),
            _ => None,
        };
        response
    }
}

impl From<StoreError> for Problem {
    fn from(err: StoreError) -> Self {
        Self::of(err.fault(), err.side(), &err.to_string())
    }
}

impl From<QueueError> for Problem {
    fn from(err: QueueError) -> Self {
        Self::of(err.fault(), err.side(), &err.to_string())
    }
}

impl From<Stop> for Problem {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Trouble(trouble) | Stop::Barred(trouble) => Self::of(trouble.fault, trouble.side, &trouble.cause),
            Stop::Snooze { .. } | Stop::Fenced => {
                Self::of(Fault::Transient, Side::Worker, "somebody else was at the call")
            }
        }
    }
}
