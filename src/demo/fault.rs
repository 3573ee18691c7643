//! Faults that a hook can inject in place of the platform's own answer.

use std::convert::Infallible;
use std::future::Future;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde_json::json;

use super::connection::Connection;
use super::sample::Api;

/// Long bodies are sent in pieces of this many bytes.
const PIECE: usize = 16 * 1024;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// One injected fault.
#[derive(Debug, Clone)]
pub enum FaultAnswer {
    /// This answer. The request is not carried out.
    Status { code: u16, headers: Vec<(&'static str, String)>, body: String },
    /// 200 with a web page in place of data.
    Html,
    /// 200 with an empty body.
    Empty,
    /// The first bytes of the real answer, declared as the complete answer.
    Truncate(usize),
    /// The head and the first bytes of the real answer, then a broken connection.
    ResetAfter(usize),
    /// The head and the first bytes of the real answer, then silence until the server stops.
    StallAfter(usize),
    /// Silence until the server stops. The request is not carried out.
    Hang,
    /// A reset. The request is not carried out.
    Drop,
    /// The request is carried out, then a reset replaces the answer.
    CommitThenDrop,
    /// 200 with this content length, then that many zeros.
    HugeLength(u64),
    /// 200 with this many zeros and no content length.
    HugeBody(u64),
}

impl FaultAnswer {
    /// A status with an error body in KrosAI's form.
    #[must_use]
    pub fn status(code: u16) -> Self {
        Self::Status { code, headers: vec![], body: json!({ "error": "injected fault" }).to_string() }
    }

    /// The platform's own 429 with a pause in seconds. KrosAI documents `Retry-After: 1.5`, which is not an HTTP
    /// integer. Atoms names the pause in the body only. Zudu documents none.
    #[must_use]
    pub fn throttled(api: Api, seconds: f64) -> Self {
        let (headers, body) = match api {
            Api::KrosaiV1 | Api::KrosaiCockpit => (
                vec![("retry-after", seconds.to_string()), ("x-ratelimit-remaining", "0".to_owned())],
                json!({ "error": "Rate limit exceeded", "code": "RATE_LIMIT_EXCEEDED", "retry_after": seconds }),
            ),
            Api::Atoms => (
                vec![],
                json!({ "status": false, "error": "Rate limit exceeded", "code": "RATE_LIMIT_EXCEEDED",
                        "retry_after": seconds }),
            ),
            Api::Zudu => (vec![], json!({ "message": "Too many requests", "status": "error", "error": "rate limit" })),
        };
        Self::Status { code: 429, headers, body: body.to_string() }
    }

    /// Carries out the fault. `answer` carries out the request. It is not polled where the request must not be carried
    /// out.
    pub(super) async fn carry_out(self, connection: Connection, answer: impl Future<Output = Response>) -> Response {
        match self {
            Self::Status { code, headers, body } => written(code, &headers, body),
            Self::Html => {
                let page = "<!doctype html><title>Sign in</title><p>Your session has ended.";
                ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
            }
            Self::Empty => StatusCode::OK.into_response(),
            Self::Truncate(length) => cut_short(answer.await, length).await,
            Self::ResetAfter(length) => broken_off(answer.await, length, ConnectionEnd::Close, connection).await,
            Self::StallAfter(length) => broken_off(answer.await, length, ConnectionEnd::Silence, connection).await,
            Self::Hang => {
                connection.until_stop().await;
                connection.cut();
                StatusCode::OK.into_response()
            }
            Self::Drop => {
                connection.cut();
                StatusCode::OK.into_response()
            }
            Self::CommitThenDrop => {
                let answer = answer.await;
                connection.cut();
                answer
            }
            Self::HugeLength(length) => ([(header::CONTENT_LENGTH, length.to_string())], zeros(length)).into_response(),
            Self::HugeBody(length) => zeros(length).into_response(),
        }
    }
}

fn written(code: u16, headers: &[(&'static str, String)], body: String) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut map = HeaderMap::new();
    map.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            map.insert(HeaderName::from_static(name), value);
        }
    }
    (status, map, body).into_response()
}

async fn whole(body: Body) -> Bytes {
    to_bytes(body, usize::MAX).await.unwrap_or_default()
}

async fn cut_short(answer: Response, length: usize) -> Response {
    let (mut head, body) = answer.into_parts();
    let mut bytes = whole(body).await;
    bytes.truncate(length);
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(bytes))
}

enum ConnectionEnd {
    Close,
    Silence,
}

/// The bytes are sent piece by piece, so that all of them leave before the connection ends.
async fn broken_off(answer: Response, length: usize, end: ConnectionEnd, connection: Connection) -> Response {
    let (mut head, body) = answer.into_parts();
    let bytes = whole(body).await;
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let first = bytes.slice(..length.min(bytes.len()));
    let silent = matches!(end, ConnectionEnd::Silence);
    let pieces = stream::unfold(first, move |mut left| {
        let connection = connection.clone();
        async move {
            tokio::task::yield_now().await;
            if !left.is_empty() {
                let piece = left.split_to(PIECE.min(left.len()));
                return Some((Ok(piece), left));
            }
            if silent {
                connection.until_stop().await;
            }
            Some((Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted)), left))
        }
    });
    Response::from_parts(head, Body::from_stream(pieces))
}

fn zeros(length: u64) -> Body {
    let piece = Bytes::from_static(&ZEROS);
    Body::from_stream(stream::unfold(length, move |left| {
        let next = piece.slice(..PIECE.min(usize::try_from(left).unwrap_or(PIECE)));
        async move { (left > 0).then(|| (Ok::<_, Infallible>(next.clone()), left - next.len() as u64)) }
    }))
}
