//! Middleware of the sample platform. It records every request, injects faults and checks the credentials.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{ConnectInfo, RawPathParams, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::connection::Connection;
use super::fault::FaultAnswer;
use super::platform::Inner;
use super::sample::Api;
use super::{atoms, krosai, receiver, zudu};

/// The type of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestKind {
    /// A page of calls, in any form.
    List,
    /// One call.
    Detail,
    /// A fresh link to a recording.
    RecordingLink,
    /// Bytes of a recording.
    Recording,
    /// A change of a platform's own call (Zudu).
    MetadataWrite,
    /// A read of the receiver's record of a call.
    RecordRead,
    /// A write of the receiver's record of a call.
    RecordWrite,
    /// Statistics, events, hang-up.
    Other,
}

/// One received request.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    pub kind: RequestKind,
    /// None for the receiver.
    pub api: Option<Api>,
    pub call_id: Option<String>,
    pub method: String,
    pub path: String,
    pub query: Option<String>,
    /// Names in lower case. Only credentials, ranges, conditions, codings and idempotency keys are kept.
    pub headers: Vec<(String, String)>,
    /// 1 for the first request of this kind about this call. Without a call, requests of this kind and platform are
    /// counted.
    pub nth: u64,
}

impl RequestInfo {
    /// The value of a recorded header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Decides which requests get a fault.
pub type Hook = Arc<dyn Fn(&RequestInfo) -> Option<FaultAnswer> + Send + Sync>;

/// All requests up to one moment, in order of arrival.
#[derive(Debug, Clone, Default)]
pub struct Requests(Vec<Arc<RequestInfo>>);

impl Requests {
    /// All requests.
    pub fn iter(&self) -> impl Iterator<Item = &RequestInfo> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// The number of requests of a kind.
    #[must_use]
    pub fn count(&self, kind: RequestKind) -> usize {
        self.iter().filter(|request| request.kind == kind).count()
    }

    /// The number of requests of a kind about one call.
    #[must_use]
    pub fn of(&self, kind: RequestKind, call_id: &str) -> usize {
        self.iter().filter(|request| request.kind == kind && request.call_id.as_deref() == Some(call_id)).count()
    }
}

type Subject = (RequestKind, Option<Api>, Option<String>);

#[derive(Default)]
struct RequestHistory {
    requests: Vec<Arc<RequestInfo>>,
    counts: HashMap<Subject, u64>,
}

#[derive(Default)]
pub(super) struct RequestLog {
    seen: Mutex<RequestHistory>,
    hook: Mutex<Option<Hook>>,
}

impl fmt::Debug for RequestLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

impl RequestLog {
    pub(super) fn set_hook(&self, hook: Option<Hook>) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = hook;
    }

    pub(super) fn requests(&self) -> Requests {
        Requests(self.seen.lock().unwrap_or_else(PoisonError::into_inner).requests.clone())
    }

    pub(super) fn forget(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = RequestHistory::default();
    }

    fn write_down(&self, mut request: RequestInfo) -> Arc<RequestInfo> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = seen.counts.entry((request.kind, request.api, request.call_id.clone())).or_default();
        *nth += 1;
        request.nth = *nth;
        let request = Arc::new(request);
        seen.requests.push(Arc::clone(&request));
        request
    }

    fn fault(&self, request: &RequestInfo) -> Option<FaultAnswer> {
        let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).clone();
        hook.and_then(|hook| hook(request))
    }
}

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
