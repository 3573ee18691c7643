//! Middleware of the sample platform. It records every request, injects faults and checks the credentials.

use std::sync::Arc;

use axum::extract::{ConnectInfo, RawPathParams, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::connection::Connection;
use super::request_log::{RequestInfo, RequestKind};
use super::sample::Api;
use super::state::Inner;
use super::{atoms, krosai, receiver, zudu};

/// State of the middleware of one route.
#[derive(Clone)]
pub(super) struct RouteWatch {
    pub platform: Arc<Inner>,
    pub asked: RouteOwner,
    pub kind: RequestKind,
}

/// The owner of a route.
#[derive(Debug, Clone, Copy)]
pub(super) enum RouteOwner {
    Platform(Api),
    RecordingHost,
    Receiver,
}

const RECORDED: [&str; 10] = [
    "accept-encoding",
    "authorization",
    "x-api-key",
    "x-api-secret",
    "x-organization-id",
    "range",
    "if-range",
    "if-match",
    "idempotency-key",
    "cookie",
];

pub(super) async fn watch(
    State(watch): State<RouteWatch>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let (api, call_id) = watch.subject(&params);
    let seen = watch.platform.log.write_down(RequestInfo {
        kind: watch.kind,
        api,
        call_id,
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().map(str::to_owned),
        headers: recorded(request.headers()),
        nth: 0,
    });
    let fault = watch.platform.log.fault(&seen);
    let refused = watch.refusal(request.headers());
    let answer = async {
        match refused {
            Some(refused) => refused,
            None => next.run(request).await,
        }
    };
    match fault {
        Some(fault) => fault.carry_out(connection, answer).await,
        None => answer.await,
    }
}

impl RouteWatch {
    fn subject(&self, params: &RawPathParams) -> (Option<Api>, Option<String>) {
        let param = |wanted: &str| params.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned());
        match self.asked {
            RouteOwner::Platform(api) => (Some(api), param("id")),
            RouteOwner::Receiver => (None, param("id")),
            RouteOwner::RecordingHost => {
                let api = param("folder").and_then(|folder| Api::of_folder(&folder));
                let file = api.zip(param("file"));
                (api, file.and_then(|(api, file)| self.platform.calls().owner(api, &file)))
            }
        }
    }

    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let keys = &self.platform.keys;
        match self.asked {
            RouteOwner::Platform(Api::KrosaiV1) => (!is(headers, "x-api-key", &keys.krosai)).then(krosai::unauthorized),
            RouteOwner::Platform(Api::KrosaiCockpit) => (!is_bearer(headers, &keys.cockpit)
                && !is(headers, "x-api-key", &keys.cockpit))
            .then(krosai::unauthorized),
            RouteOwner::Platform(Api::Zudu) => (!is(headers, "x-api-key", &keys.zudu)
                || !is(headers, "x-api-secret", &keys.zudu_secret))
            .then(zudu::unauthorized),
            RouteOwner::Platform(Api::Atoms) => (!is_bearer(headers, &keys.atoms)).then(atoms::unauthorized),
            RouteOwner::Receiver => (!is_bearer(headers, &keys.receiver)).then(receiver::unauthorized),
            // Storage hosts refuse a signed link that is sent with other credentials.
            RouteOwner::RecordingHost => headers
                .contains_key("authorization")
                .then(|| (StatusCode::BAD_REQUEST, "only one auth mechanism allowed").into_response()),
        }
    }
}

fn recorded(headers: &HeaderMap) -> Vec<(String, String)> {
    let known = headers.iter().filter(|(name, _)| RECORDED.contains(&name.as_str()));
    known.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

fn is(headers: &HeaderMap, name: &str, expected: &str) -> bool {
    headers.get(name).is_some_and(|value| value.as_bytes() == expected.as_bytes())
}

fn is_bearer(headers: &HeaderMap, expected: &str) -> bool {
    is(headers, "authorization", &format!("Bearer {expected}"))
}
