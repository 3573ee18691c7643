//! `GET /healthz`, `/readyz`, `/metrics`: for whoever keeps the process running. Open, so they name no call and no cause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::Mutex;

use super::problem::Problem;
use crate::app::App;
use crate::jobs::object_check;
use crate::queue::{Kind, QueueError};
use crate::telemetry;

/// A look at the object store writes to it; an open route must not let anybody have that done at will.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// A part that takes longer is not ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the last look found, and when that was.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Ready)>>);

#[derive(Debug, Clone, Copy)]
struct Ready {
    database: bool,
    objects: bool,
    /// No call is known to miss objects.
    complete: bool,
}

impl Readiness {
    /// What was found a moment ago, or is found now.
    async fn recent(&self, app: &App) -> Ready {
        let mut last = self.0.lock().await;
        if let Some((at, ready)) = *last
            && at.elapsed() < LOOK_AGAIN_AFTER
        {
            return ready;
        }
        let ready = look(app).await;
        *last = Some((Instant::now(), ready));
        ready
    }
}

/// The process is up.
pub(super) async fn healthz() -> &'static str {
    "ok"
}

/// The database answers and the object store works.
pub(super) async fn readyz(State(app): State<Arc<App>>, State(readiness): State<Arc<Readiness>>) -> Response {
    let ready = readiness.recent(&app).await;
    let word = |works: bool| if works { "ok" } else { "failed" };
    // Calls that miss objects are no reason to turn readers of all others away.
    let objects = if ready.objects && !ready.complete { "incomplete" } else { word(ready.objects) };
    let parts = json!({ "database": word(ready.database), "objects": objects });
    if ready.database && ready.objects {
        return Json(json!({ "status": "ready", "parts": parts })).into_response();
    }
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready").detailed(parts).into_response()
}

async fn look(app: &App) -> Ready {
    let database = async {
        match tokio::time::timeout(PATIENCE, app.store.missing_objects()).await {
            Ok(Ok(missing)) => (true, missing.is_empty()),
            Ok(Err(err)) => (failed("database", &err.to_string()), true),
            Err(_) => (failed("database", "no answer in time"), true),
        }
    };
    let objects = async {
        match tokio::time::timeout(PATIENCE, app.objects.check()).await {
            Ok(Ok(_)) => true,
            Ok(Err(err)) => failed("objects", &format!("{:#}", anyhow::Error::from(err))),
            Err(_) => failed("objects", "no answer in time"),
        }
    };
    let ((database, complete), objects) = tokio::join!(database, objects);
    Ready { database, objects, complete }
}

fn failed(part: &str, cause: &str) -> bool {
    tracing::warn!(part, cause, "not ready");
    false
}

/// All metrics as Prometheus reads them.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let handle = telemetry::metrics_handle().map_err(|err| Problem::internal(&err.to_string()))?;
    // Without the database the rest is still worth a look.
    if let Err(err) = measure(&app).await {
        tracing::warn!(error = %err, "cannot measure the queue");
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()).into_response())
}

/// States a job of the queue's gauge can be in.
const STATES: [&str; 6] = ["available", "pending", "scheduled", "running", "retryable", "discarded"];

/// The queue's gauges, as they are now. What has emptied since the last look is set to nothing.
async fn measure(app: &App) -> Result<(), QueueError> {
    let (counts, oldest) = app.queue.depth().await?;
    for kind in Kind::ALL.iter().map(|kind| kind.as_str()) {
        for state in STATES {
            let counted = counts.iter().find(|(of, is, _)| of == kind && is == state);
            let count = counted.map_or(0, |(_, _, count)| *count);
            metrics::gauge!(telemetry::QUEUE_JOBS, "kind" => kind, "state" => state).set(count as f64);
        }
    }
    metrics::gauge!(telemetry::QUEUE_OLDEST_SECONDS).set(oldest);
    object_check::measure(app).await?;
    Ok(())
}
