//! Gauges that are measured on each scrape. They describe the whole installation and come from the database.

use jiff::Timestamp;

use crate::app::App;
use crate::jobs::schedule::Schedules;
use crate::queue::QueueError;
use crate::telemetry;

/// Sets the gauges to their current values. Label values that have no rows any more are set to 0.
pub(super) async fn measure(app: &App, schedules: Option<&Schedules>) -> Result<(), QueueError> {
    let live = app.queue.live_workers(app.config.worker.silent_after.0).await?;
    metrics::gauge!(telemetry::WORKERS).set(live as f64);
    let resting = app.queue.workers().await?.iter().filter(|worker| worker.3.is_some()).count();
    metrics::gauge!(telemetry::WORKERS_RESTING).set(resting as f64);
    metrics::gauge!(telemetry::CLOCK_AHEAD_SECONDS).set(app.clock.ahead().as_secs_f64());
    outbox(app).await?;
    backfills(app).await?;
    let polls = app.store.polls().await?;
    for (source, at) in polls {
        metrics::gauge!(telemetry::SOURCE_POLLED, "source" => source).set(seconds(at));
    }
    let Some(schedules) = schedules else { return Ok(()) };
    for status in schedules.statuses(app).await? {
        let of = |name: &'static str| metrics::gauge!(name, "schedule" => status.name.clone());
        of(telemetry::SCHEDULE_LAG_SECONDS).set(status.lag.as_secs_f64());
        of(telemetry::SCHEDULE_FIRED).set(status.fired_at.map_or(0.0, seconds));
        of(telemetry::SCHEDULE_NEXT).set(status.next_at.map_or(0.0, seconds));
    }
    Ok(())
}

async fn outbox(app: &App) -> Result<(), QueueError> {
    let (pending, oldest) = app.store.pending_deliveries().await?;
    metrics::gauge!(telemetry::OUTBOX_DELIVERIES).set(pending as f64);
    let age = oldest.map_or(0.0, |at| app.now().duration_since(at).as_secs_f64().max(0.0));
    metrics::gauge!(telemetry::OUTBOX_OLDEST_SECONDS).set(age);
    Ok(())
}

async fn backfills(app: &App) -> Result<(), QueueError> {
    let all = app.store.backfill_progress().await?;
    for source in app.platforms.keys() {
        let of_source = all.iter().find(|progress| progress.source == source.as_str()).cloned().unwrap_or_default();
        let counts = [
            ("listed", of_source.listed),
            ("enqueued", of_source.enqueued),
            ("done", of_source.done),
            ("failed", of_source.failed),
        ];
        for (state, calls) in counts {
            metrics::gauge!(telemetry::BACKFILL_CALLS, "source" => source.to_string(), "state" => state)
                .set(calls as f64);
        }
    }
    Ok(())
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
