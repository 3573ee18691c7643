//! The HTTP API: calls in the platform's own shapes, their transcripts, triggers, and what an operator watches.
//!
//! ```text
//! GET  /v1/calls                               both of the platform's list forms
//! GET  /v1/calls/{id}                          the platform's detail, with ours added
//! GET  /v1/calls/{id}/transcript.{txt,json,vtt,srt}
//! POST /v1/calls/{id}/swap-roles               agent and caller were taken for each other
//! POST /v1/triggers                            process these calls now
//! GET  /v1/backfills                           and POST; /{id} and PATCH; /{id}/pause, /{id}/resume, /{id}/cancel
//! GET  /healthz  /readyz  /metrics             open: they hold no ids
//! ```
//!
//! Everything below `/v1` wants a key; a call the key may not see does not exist for it.

mod backfills;
mod calls;
mod connection;
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
use axum::extract::{DefaultBodyLimit, FromRef, MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use self::connection::Connections;
use self::ops::Readiness;
use self::problem::Problem;
use crate::app::App;
use crate::telemetry;
use crate::transcript::Form;

/// How long open requests may go on after a stop.
const GRACE: Duration = Duration::from_secs(5);
/// Histograms keep every sample until they are drained; a process nobody scrapes must not grow by that.
const DRAIN_METRICS: Duration = Duration::from_secs(5);

/// What handlers share.
#[derive(Debug, Clone)]
struct Api {
    app: Arc<App>,
    readiness: Arc<Readiness>,
}

impl FromRef<Api> for Arc<App> {
    fn from_ref(api: &Api) -> Self {
        api.app.clone()
    }
}

impl FromRef<Api> for Arc<Readiness> {
    fn from_ref(api: &Api) -> Self {
        api.readiness.clone()
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
        .route("/v1/backfills/{id}/{verb}", post(backfills::steer))
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics));
    for form in Form::ALL {
        let path = format!("/v1/calls/{{id}}/transcript.{form}");
        router = router.route(&path, get(move |asked: transcripts::Asked| transcripts::written(asked, form)));
    }
    let limit = app.config.api.max_body_bytes;
    let patience = app.config.api.timeout.0;
    Ok(router
        .method_not_allowed_fallback(async || Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not_found"))
        .layer(DefaultBodyLimit::max(limit))
        .layer(from_fn(move |request: Request, next: Next| in_time(patience, request, next)))
        .layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
            Problem::internal("a request panicked").into_response()
        }))
        .layer(from_fn(logged))
        .with_state(Api { app, readiness: Arc::default() }))
}

/// Serves until `stop`, and then until open requests are answered, for a few seconds at most.
///
/// # Errors
/// What kept it from serving.
pub async fn serve(app: Arc<App>, listener: TcpListener, stop: CancellationToken) -> Result<()> {
    let patience = app.config.api.timeout.0;
    let metrics = telemetry::metrics_handle()?;
    let router = router(app)?;
    let serving = axum::serve(Connections::new(listener, patience), router)
        .with_graceful_shutdown(stop.clone().cancelled_owned());
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
        ended = serving.into_future() => ended.context("API")?,
        () = too_late => tracing::warn!("requests were still open after the grace period, left unanswered"),
        () = draining_metrics => {}
    }
    Ok(())
}

/// Ends a request that takes too long; what it had begun to write is rolled back.
async fn in_time(patience: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(patience, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout").into_response(),
    }
}

/// One line a request, by its route: the path itself holds ids, the query more.
async fn logged(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    // Call data must not stay in caches, and must not be taken for anything but what it says it is.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let route = route.as_ref().map_or("-", MatchedPath::as_str);
    let status = response.status().as_u16();
    let took_ms = started.elapsed().as_millis() as u64;
    if route.starts_with("/v1/") {
        tracing::info!(%method, route, status, took_ms, "request");
    } else {
        tracing::debug!(%method, route, status, took_ms, "request");
    }
    response
}
