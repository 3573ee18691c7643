//! The sample platform: four dialects, a recording host and a delivery receiver on one listener.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, patch, post, put};
use jiff::SignedDuration;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, CuttableListener};
use super::fault::FaultAnswer;
use super::records::{IdempotencyKeys, Record, Records};
use super::request_log::{RequestInfo, RequestKind, RequestLog, Requests};
use super::sample::{Api, SampleCall};
use super::state::{Clock, Inner, Keys, ListOrder, ZuduDetail};
use super::watch::{RouteOwner, RouteWatch, watch};
use super::{DemoError, atoms, cockpit, host, krosai, receiver, zudu};

/// Open answers are dropped this long after a stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Settings of a platform before it is built.
pub struct Builder {
    inner: Inner,
}

/// The sample platform. Clones share the calls and the request log.
#[derive(Debug, Clone)]
pub struct SamplePlatform {
    inner: Arc<Inner>,
}

impl Builder {
    /// How long a recording link is valid. The default is 1 hour, as in KrosAI's documents.
    #[must_use]
    pub const fn link_ttl(mut self, ttl: SignedDuration) -> Self {
        self.inner.link_ttl = ttl;
        self
    }

    #[must_use]
    pub const fn order(mut self, order: ListOrder) -> Self {
        self.inner.order = order;
        self
    }

    #[must_use]
    pub const fn zudu_detail(mut self, detail: ZuduDetail) -> Self {
        self.inner.zudu_detail = detail;
        self
    }

    #[must_use]
    pub const fn idempotency_keys(mut self, keys: IdempotencyKeys) -> Self {
        self.inner.records.keys = keys;
        self
    }

    #[must_use]
    pub fn keys(mut self, keys: Keys) -> Self {
        self.inner.keys = keys;
        self
    }

    /// Scheme and host of recording links, where they differ from the request's host (a second listener of this
    /// platform).
    #[must_use]
    pub fn recording_base(mut self, base: impl Into<String>) -> Self {
        self.inner.recording_base = Some(base.into());
        self
    }

    /// Hook that is called for every request. A returned fault replaces the answer.
    #[must_use]
    pub fn faults(self, hook: impl Fn(&RequestInfo) -> Option<FaultAnswer> + Send + Sync + 'static) -> Self {
        self.inner.log.set_hook(Some(Arc::new(hook)));
        self
    }

    #[must_use]
    pub fn calls(mut self, calls: impl IntoIterator<Item = SampleCall>) -> Self {
        let entries = self.inner.entries.get_mut().unwrap_or_else(PoisonError::into_inner);
        calls.into_iter().for_each(|call| entries.add(call));
        self
    }

    #[must_use]
    pub fn build(self) -> SamplePlatform {
        SamplePlatform { inner: Arc::new(self.inner) }
    }
}

impl SamplePlatform {
    /// A platform without calls that uses `clock`.
    #[must_use]
    pub fn builder(clock: Clock) -> Builder {
        Builder {
            inner: Inner {
                clock,
                entries: RwLock::default(),
                log: RequestLog::default(),
                records: Records::default(),
                keys: Keys::default(),
                link_ttl: SignedDuration::from_hours(1),
                order: ListOrder::default(),
                zudu_detail: ZuduDetail::default(),
                recording_base: None,
            },
        }
    }

    /// Adds a call, or replaces the call with this id.
    pub fn add_call(&self, call: SampleCall) {
        self.inner.entries.write().unwrap_or_else(PoisonError::into_inner).add(call);
    }

    /// Removes a call. From now on it is answered with 404.
    pub fn remove_call(&self, api: Api, id: &str) {
        self.inner.entries.write().unwrap_or_else(PoisonError::into_inner).remove(api, id);
    }

    /// Replaces the fault hook.
    pub fn set_faults(&self, hook: impl Fn(&RequestInfo) -> Option<FaultAnswer> + Send + Sync + 'static) {
        self.inner.log.set_hook(Some(Arc::new(hook)));
    }

    pub fn clear_faults(&self) {
        self.inner.log.set_hook(None);
    }

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.inner.log.requests()
    }

    /// Clears the request log and its counters, so that the log does not fill the memory of a long run.
    pub fn forget_requests(&self) {
        self.inner.log.forget();
    }

    /// Zudu's current metadata of a call.
    #[must_use]
    pub fn metadata(&self, call_id: &str) -> Option<Value> {
        self.inner.calls().get(Api::Zudu, call_id).map(|entry| Value::Object(entry.metadata()))
    }

    /// The number of Zudu updates that changed something.
    #[must_use]
    pub fn effects(&self, call_id: &str) -> u64 {
        self.inner.calls().get(Api::Zudu, call_id).map_or(0, |entry| entry.effects())
    }

    /// Adds a record at version 1 to the receiver.
    pub fn register_record(&self, call_id: &str, body: Value) {
        self.inner.records.register(call_id, body);
    }

    /// The receiver's record of a call.
    #[must_use]
    pub fn record(&self, call_id: &str) -> Option<Record> {
        self.inner.records.get(call_id)
    }

    /// Serves everything on `listener` until stopped.
    pub fn serve(&self, listener: TcpListener) -> Result<RunningPlatform, DemoError> {
        let addr = listener.local_addr().map_err(DemoError::Listener)?;
        let stop = CancellationToken::new();
        let service = router(&self.inner).into_make_service_with_connect_info::<Connection>();
        let server = axum::serve(CuttableListener::new(listener, stop.clone()), service)
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let task = tokio::spawn(server.into_future());
        Ok(RunningPlatform { addr, stop, task: Some(task) })
    }
}

/// A running platform. Drop stops it.
#[derive(Debug)]
pub struct RunningPlatform {
    pub addr: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<std::io::Result<()>>>,
}

impl RunningPlatform {
    /// `http://` and the address.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Accepts no more connections, ends the open ones, and waits for their end.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let Some(mut task) = self.task.take() else {
            return;
        };
        if tokio::time::timeout(STOP_GRACE, &mut task).await.is_err() {
            task.abort();
        }
    }
}

impl Drop for RunningPlatform {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

type Routes = MethodRouter<Arc<Inner>>;

fn router(inner: &Arc<Inner>) -> Router {
    let watched = |asked: RouteOwner, kind: RequestKind, routes: Routes| {
        routes.route_layer(from_fn_with_state(RouteWatch { platform: Arc::clone(inner), asked, kind }, watch))
    };
    let of = |api: Api| move |kind: RequestKind, routes: Routes| watched(RouteOwner::Platform(api), kind, routes);
    let (v1, cockpit_api, zudu_api, atoms_api) =
        (of(Api::KrosaiV1), of(Api::KrosaiCockpit), of(Api::Zudu), of(Api::Atoms));
    let link = RequestKind::RecordingLink;
    Router::new()
        .route("/krosai/v1/calls", v1(RequestKind::List, get(krosai::list)))
        .route("/krosai/v1/calls/stats", v1(RequestKind::Other, get(krosai::stats)))
        .route("/krosai/v1/calls/{id}", v1(RequestKind::Detail, get(krosai::detail)))
        .route("/krosai/v1/calls/{id}/recording", v1(link, get(krosai::recording)))
        .route("/krosai/v1/calls/{id}/events", v1(RequestKind::Other, get(krosai::events)))
        .route("/krosai/v1/calls/{id}/hangup", v1(RequestKind::Other, post(krosai::hangup)))
        .route("/cockpit/v1/calls", cockpit_api(RequestKind::List, get(cockpit::list)))
        .route("/cockpit/v1/calls/{id}", cockpit_api(RequestKind::Detail, get(cockpit::detail)))
        .route("/zudu/api/calls", zudu_api(RequestKind::List, get(zudu::list).post(zudu::search)))
        .route(
            "/zudu/api/calls/{id}",
            zudu_api(RequestKind::Detail, get(zudu::detail))
                .merge(zudu_api(RequestKind::MetadataWrite, put(zudu::update))),
        )
        .route("/atoms/v1/conversation", atoms_api(RequestKind::List, get(atoms::list)))
        .route("/atoms/v1/conversation/search", atoms_api(RequestKind::List, post(atoms::search)))
        .route("/atoms/v1/conversation/{id}", atoms_api(RequestKind::Detail, get(atoms::detail)))
        .route("/atoms/v1/conversation/{id}/recording/download-url", atoms_api(link, get(atoms::download_url)))
        .route(
            "/recordings/{folder}/{file}",
            watched(RouteOwner::RecordingHost, RequestKind::Recording, get(host::recording)),
        )
        .route(
            "/receiver/calls/{id}",
            watched(RouteOwner::Receiver, RequestKind::RecordRead, get(receiver::read)).merge(watched(
                RouteOwner::Receiver,
                RequestKind::RecordWrite,
                put(receiver::replace).merge(patch(receiver::change)),
            )),
        )
        .with_state(Arc::clone(inner))
}
