//! `GET /healthz`, `/readyz`, `/metrics` for the orchestrator and the scraper. These routes need no key, so they
//! contain no call ids and no error causes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::Mutex;

use super::gauges;
use super::problem::Problem;
use crate::app::App;
use crate::domain::Side;
use crate::jobs::object_check;
use crate::jobs::schedule::Schedules;
use crate::queue::{Kind, QueueError};
use crate::telemetry;

/// Lifetime of a readiness result. The check writes to the object store, and an open route must not let anybody trigger
/// that at will.
const RECHECK_AFTER: Duration = Duration::from_secs(5);
/// A component that takes longer is not ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lifetime of a measurement. It queries the database, so scrapes within this time share one result.
const MEASURE_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Time limit of a measurement.
const MEASURED_WITHIN: Duration = Duration::from_secs(4);

/// The latest readiness result and the time of the latest measurement.
#[derive(Debug)]
pub(super) struct Watch {
    ready: Mutex<Option<(Instant, Ready)>>,
    measured: Mutex<Option<Instant>>,
    schedules: Option<Schedules>,
}

#[derive(Debug, Clone, Copy)]
struct Ready {
    database: bool,
    objects: bool,
    /// True when no call is known to miss objects.
    complete: bool,
}

impl Watch {
    pub(super) fn of(app: &App) -> Self {
        let schedules = Schedules::load(app)
            .inspect_err(|err| tracing::warn!(error = format!("{err:#}"), "schedules are not among the metrics"));
        Self { ready: Mutex::default(), measured: Mutex::default(), schedules: schedules.ok() }
    }

    /// Updates the gauges, unless they are recent.
    async fn measure(&self, app: &App) {
        let mut measured = self.measured.lock().await;
        if measured.is_some_and(|at| at.elapsed() < MEASURE_AGAIN_AFTER) {
            return;
        }
        let cause = match tokio::time::timeout(MEASURED_WITHIN, measure(app, self.schedules.as_ref())).await {
            Ok(Ok(())) => None,
            Ok(Err(err)) => Some(err.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        // Without the database the other metrics are still served.
        match cause {
            None => telemetry::within_reach(Side::Database),
            Some(cause) => telemetry::out_of_reach(Side::Database, &format!("cannot measure the queue: {cause}")),
        }
        *measured = Some(Instant::now());
    }

    /// The latest readiness result, or a new one when it is too old.
    async fn recent(&self, app: &App) -> Ready {
        let mut last = self.ready.lock().await;
        if let Some((at, ready)) = *last
            && at.elapsed() < RECHECK_AFTER
        {
            return ready;
        }
        let ready = look(app).await;
        *last = Some((Instant::now(), ready));
        ready
    }
}

/// The process runs.
pub(super) async fn healthz() -> &'static str {
    "ok"
}

/// Ready when the database answers, the object store works, and the worker in this process takes jobs.
pub(super) async fn readyz(State(app): State<Arc<App>>, State(watch): State<Arc<Watch>>) -> Response {
    let ready = watch.recent(&app).await;
    let word = |works: bool| if works { "ok" } else { "failed" };
    // Calls that miss objects do not make the service unready, because all other calls can be read.
    let objects = if ready.objects && !ready.complete { "incomplete" } else { word(ready.objects) };
    let mut parts = json!({ "database": word(ready.database), "objects": objects });
    let rests = app.health.is_unfit();
    if rests {
        parts["worker"] = json!("resting");
    }
    if ready.database && ready.objects && !rests {
        return Json(json!({ "status": "ready", "parts": parts })).into_response();
    }
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready").detailed(parts).into_response()
}

async fn look(app: &App) -> Ready {
    let database = async {
        match tokio::time::timeout(PATIENCE, app.store.missing_objects()).await {
            Ok(Ok(missing)) => (works(Side::Database), missing.is_empty()),
            Ok(Err(err)) => (failed(Side::Database, &err.to_string()), true),
            Err(_) => (failed(Side::Database, "no answer in time"), true),
        }
    };
    let objects = async {
        match tokio::time::timeout(PATIENCE, app.objects.check()).await {
            Ok(Ok(_)) => works(Side::ObjectStore),
            Ok(Err(err)) => failed(Side::ObjectStore, &format!("{:#}", anyhow::Error::from(err))),
            Err(_) => failed(Side::ObjectStore, "no answer in time"),
        }
    };
    let ((database, complete), objects) = tokio::join!(database, objects);
    Ready { database, objects, complete }
}

fn failed(side: Side, cause: &str) -> bool {
    telemetry::out_of_reach(side, &format!("not ready: {cause}"));
    false
}

fn works(side: Side) -> bool {
    telemetry::within_reach(side);
    true
}

/// All metrics in the Prometheus text format.
pub(super) async fn metrics(State(app): State<Arc<App>>, State(watch): State<Arc<Watch>>) -> Result<Response, Problem> {
    let handle = telemetry::metrics_handle().map_err(|err| Problem::internal(&err.to_string()))?;
    watch.measure(&app).await;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()).into_response())
}

/// Job states of the queue gauge.
const STATES: [&str; 6] = ["available", "pending", "scheduled", "running", "retryable", "discarded"];

/// Sets the gauges to their current values. States without jobs are set to 0.
async fn measure(app: &App, schedules: Option<&Schedules>) -> Result<(), QueueError> {
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
    gauges::measure(app, schedules).await
}
