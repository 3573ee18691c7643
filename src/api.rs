//! The HTTP API: calls in the platform's own shapes, transcripts, triggers, backfills, health and metrics.
//!
//! ```text
//! GET  /v1/calls                               both of the platform's list forms
//! GET  /v1/calls/{id}                          the platform's detail, plus our fields
//! GET  /v1/calls/{id}/transcript.{txt,json,vtt,srt}
//! POST /v1/calls/{id}/swap-roles               swaps agent and caller
//! POST /v1/triggers                            process these calls now
//! GET  /v1/backfills                           and POST; /{id} and PATCH; /{id}/pause, /{id}/resume, /{id}/cancel
//! GET  /healthz  /readyz  /metrics             no key needed, no ids inside; `ops.listen` serves only these
//! ```
//!
//! Every route below `/v1` needs a key. A call that the key may not see is answered with 404.

mod backfills;
mod calls;
mod connection;
mod gauges;
mod keys;
mod ops;
mod problem;
mod query;
mod roles;
mod shape;
mod transcripts;
mod triggers;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRef, MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use self::connection::{ConnectionRequests, Connections, Limits};
use self::keys::KeyUsed;
use self::ops::Watch;
use self::problem::Problem;
use crate::app::App;
use crate::jobs;
use crate::telemetry;
use crate::transcript::Form;

/// Time for open requests to finish after a stop.
const GRACE: Duration = Duration::from_secs(5);
/// Interval of the histogram drain. A histogram keeps every sample until it is drained, so memory would grow in a
/// process without a scraper.
const DRAIN_METRICS: Duration = Duration::from_secs(5);

/// Connections of the API at the same time.
const MOST: usize = 512;
/// Connections of `ops.listen` at the same time, in total and per address. They serve an orchestrator and a scraper.
const MOST_OPS: usize = 64;
const OPS_OF_ADDRESS: usize = 16;
/// Added to the request timeout to get the idle limit. A connection has no traffic while an answer is computed.
const REST: Duration = Duration::from_secs(30);
/// Idle limit of a connection without a request while few places are free.
const REST_WHEN_NEAR: Duration = Duration::from_secs(10);
/// A request that takes this long starts checks of the database connection.
const SLOW: Duration = Duration::from_secs(3);
/// Time limit of that check.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// State of the handlers.
#[derive(Debug, Clone)]
struct Api {
    app: Arc<App>,
    watch: Arc<Watch>,
}

impl FromRef<Api> for Arc<App> {
    fn from_ref(api: &Api) -> Self {
        api.app.clone()
    }
}

impl FromRef<Api> for Arc<Watch> {
    fn from_ref(api: &Api) -> Self {
        api.watch.clone()
    }
}

/// All routes.
///
/// # Errors
/// The metrics registry could not be installed.
pub fn router(app: Arc<App>) -> Result<Router> {
    telemetry::metrics_handle()?;
    let mut router = Router::new()
        .route("/v1/calls", get(calls::list))
        .route("/v1/calls/{id}", get(calls::one))
        .route("/v1/calls/{id}/swap-roles", post(roles::swap))
        .route("/v1/triggers", post(triggers::trigger))
        .route("/v1/backfills", get(backfills::list).post(backfills::start))
        .route("/v1/backfills/{id}", get(backfills::one).patch(backfills::change))
        .route("/v1/backfills/{id}/{verb}", post(backfills::steer));
    for form in Form::ALL {
        let path = format!("/v1/calls/{{id}}/transcript.{form}");
        router =
            router.route(&path, get(move |asked: transcripts::TranscriptRequest| transcripts::written(asked, form)));
    }
    let reached = app.clone();
    let router = router.layer(from_fn(move |request: Request, next: Next| {
        let app = reached.clone();
        async move { unless_away(&app, request, next).await }
    }));
    Ok(finished(router.merge(open_routes()), app))
}

/// Routes without a key.
fn open_routes() -> Router<Api> {
    Router::new()
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
}

/// Adds the layers that every listener needs.
fn finished(router: Router<Api>, app: Arc<App>) -> Router {
    jobs::count_from_zero(&app);
    let limit = app.config.api.max_body_bytes;
    let patience = app.config.api.timeout.0;
    router
        .method_not_allowed_fallback(async || Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not_found"))
        .layer(DefaultBodyLimit::max(limit))
        .layer(from_fn(move |request: Request, next: Next| in_time(patience, request, next)))
        .layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
            Problem::internal("a request panicked").into_response()
        }))
        .layer(from_fn(logged))
        .layer(from_fn(answering))
        .with_state(Api { watch: Arc::new(Watch::of(&app)), app })
}

/// Serves until `stop`. Then open requests have 5 s to finish.
///
/// # Errors
/// The reason why it cannot serve.
pub async fn serve(app: Arc<App>, listener: TcpListener, stop: CancellationToken) -> Result<()> {
    let settings = &app.config.api;
    let limits = Limits {
        most: MOST,
        of_address: settings.connections_per_address,
        proxies: settings.proxies.clone(),
        idle: settings.timeout.0.saturating_add(REST),
        idle_when_near: REST_WHEN_NEAR,
    };
    until(router(app)?, Connections::new(listener, limits), stop).await.context("API")
}

/// Serves health and metrics only, as [`serve`] does. They answer even when the API has no free connection.
///
/// # Errors
/// The reason why it cannot serve.
pub async fn serve_ops(app: Arc<App>, listener: TcpListener, stop: CancellationToken) -> Result<()> {
    let limits = Limits {
        most: MOST_OPS,
        of_address: OPS_OF_ADDRESS,
        proxies: Vec::new(),
        idle: app.config.api.timeout.0.saturating_add(REST),
        idle_when_near: REST_WHEN_NEAR,
    };
    telemetry::metrics_handle()?;
    until(finished(open_routes(), app), Connections::new(listener, limits), stop).await.context("ops.listen")
}

async fn until(router: Router, connections: Connections, stop: CancellationToken) -> Result<()> {
    let metrics = telemetry::metrics_handle()?;
    let service = router.into_make_service_with_connect_info::<ConnectionRequests>();
    let serving = axum::serve(connections, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    let too_late = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let draining_metrics = async {
        loop {
            tokio::time::sleep(DRAIN_METRICS).await;
            metrics.run_upkeep();
        }
    };
    tokio::select! {
        ended = serving.into_future() => ended?,
        () = too_late => tracing::warn!("requests were still open after the grace period, left unanswered"),
        () = draining_metrics => {}
    }
    Ok(())
}

/// Counts the request on its connection.
async fn answering(request: Request, next: Next) -> Response {
    let requests = request.extensions().get::<ConnectInfo<ConnectionRequests>>().cloned();
    let _answering = requests.map(|ConnectInfo(requests)| requests.one());
    next.run(request).await
}

/// Ends a request early when the database does not answer. The connection pool's own timeout is much longer.
async fn unless_away(app: &App, request: Request, next: Next) -> Response {
    let away = async {
        loop {
            tokio::time::sleep(SLOW).await;
            if let Err(err) = app.store.answers(ANSWERS_WITHIN).await {
                return err;
            }
        }
    };
    tokio::select! {
        response = next.run(request) => response,
        err = away => Problem::from(err).into_response(),
    }
}

/// Ends a request after the time limit. Its open transaction is rolled back.
async fn in_time(patience: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(patience, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout").into_response(),
    }
}

/// Writes one log line per request, with the route and the key id. The path and the query are not logged, because they
/// contain ids.
async fn logged(mut request: Request, next: Next) -> Response {
    let (started, key) = (Instant::now(), KeyUsed::default());
    request.extensions_mut().insert(key.clone());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    // Call data must not stay in caches, and a browser must not guess another content type.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let route = route.as_ref().map_or("-", MatchedPath::as_str);
    let status = response.status().as_u16();
    let took_ms = started.elapsed().as_millis() as u64;
    if route.starts_with("/v1/") {
        tracing::info!(%method, route, status, took_ms, key = key.id(), "request");
    } else {
        tracing::debug!(%method, route, status, took_ms, "request");
    }
    response
}
