//! Logs to stderr, the metrics registry, and what a job uses up while it runs. Open to every part.

mod outage;
mod seldom;

pub use outage::{Outage, out_of_reach, outage, within_reach};

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use self::seldom::Seldom;
use crate::config::{Log, LogFormat};

/// Jobs that ended, by kind and outcome.
pub const JOBS_TOTAL: &str = "aftercall_jobs_total";
/// Time a step took, by stage.
pub const STAGE_SECONDS: &str = "aftercall_stage_duration_seconds";
/// Age of the oldest job that could run.
pub const QUEUE_OLDEST_SECONDS: &str = "aftercall_queue_oldest_age_seconds";
/// Jobs by kind and state.
pub const QUEUE_JOBS: &str = "aftercall_queue_jobs";
/// How long ago the longest overdue call should have been erased.
pub const RETENTION_OVERDUE_SECONDS: &str = "aftercall_retention_overdue_seconds";
/// Calls erased.
pub const ERASED_TOTAL: &str = "aftercall_calls_erased_total";
/// Sweeps that refused to run, by reason.
pub const SWEEPS_REFUSED_TOTAL: &str = "aftercall_retention_sweeps_refused_total";
/// Jobs taken back from dead workers.
pub const RESCUED_TOTAL: &str = "aftercall_jobs_rescued_total";
/// Statuses a platform sent that we do not know, by source.
pub const UNKNOWN_STATUS_TOTAL: &str = "aftercall_unknown_call_status_total";
/// Bytes of recordings downloaded.
pub const FETCHED_BYTES_TOTAL: &str = "aftercall_fetched_bytes_total";

/// Requests sent to platforms, by source and urgency.
pub const SOURCE_REQUESTS_TOTAL: &str = "aftercall_source_requests_total";
/// Requests not sent because of a budget, a rate, a pause asked for or a platform that is down; by source and reason.
pub const SOURCE_HELD_TOTAL: &str = "aftercall_source_requests_held_total";
/// 1 while a platform refuses the key, by source.
pub const SOURCE_KEY_REFUSED: &str = "aftercall_source_key_refused";
/// Calls a list once showed and a whole pass did not, by source.
pub const VANISHED_CALLS: &str = "aftercall_vanished_calls";

/// 1 while a receiver refuses our key and its deliveries wait, by source.
pub const RECEIVER_KEY_REFUSED: &str = "aftercall_receiver_key_refused";
/// Calls of which stored objects are missing or have another size, by source.
pub const MISSING_OBJECTS: &str = "aftercall_calls_missing_objects";

/// Recordings that will be deleted at their source before they can be fetched at the present pace, by source.
pub const RECORDINGS_AT_RISK: &str = "aftercall_recordings_at_risk";

/// Workers that are alive.
pub const WORKERS: &str = "aftercall_workers";
/// Of those, the ones that take no work because of a trouble of their own.
pub const WORKERS_RESTING: &str = "aftercall_workers_resting";
/// When a source was last polled, by source.
pub const SOURCE_POLLED: &str = "aftercall_source_last_poll_timestamp_seconds";
/// Deliveries that are owed to receivers.
pub const OUTBOX_DELIVERIES: &str = "aftercall_outbox_deliveries";
/// How long the oldest of them has been owed.
pub const OUTBOX_OLDEST_SECONDS: &str = "aftercall_outbox_oldest_age_seconds";
/// Calls of backfills that have not ended, by source and state.
pub const BACKFILL_CALLS: &str = "aftercall_backfill_calls";
/// Attempts to bring an outcome to its receiver that failed, by source.
pub const WRITEBACK_FAILURES_TOTAL: &str = "aftercall_writeback_failures_total";
/// How far this machine's clock is ahead of the database's.
pub const CLOCK_AHEAD_SECONDS: &str = "aftercall_clock_ahead_seconds";
/// When a schedule last fired, by schedule.
pub const SCHEDULE_FIRED: &str = "aftercall_schedule_last_firing_timestamp_seconds";
/// When a schedule fires next, by schedule.
pub const SCHEDULE_NEXT: &str = "aftercall_schedule_next_firing_timestamp_seconds";
/// How long a schedule should have fired already, by schedule.
pub const SCHEDULE_LAG_SECONDS: &str = "aftercall_schedule_lag_seconds";

/// 1 while this worker takes no work because of a trouble of its own.
pub const WORKER_RESTING: &str = "aftercall_worker_resting";

/// What a job can use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    PlatformRequests,
    ObjectWrites,
    BytesFetched,
    BytesStored,
    /// Milliseconds a speech engine worked.
    EngineMs,
    /// Milliseconds of audio that a foreign engine bills.
    BilledMs,
}

/// What a job has used up so far.
#[derive(Debug, Default)]
pub struct Used([AtomicU64; 6]);

impl Used {
    /// Counts something outside of the job that is being counted.
    pub fn add(&self, what: Use, amount: u64) {
        self.0[what as usize].fetch_add(amount, Ordering::Relaxed);
    }

    /// One of its figures.
    #[must_use]
    pub fn of(&self, what: Use) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }
}

tokio::task_local! {
    static USED: Arc<Used>;
}

/// Counts what `work` uses up.
pub async fn counting<T>(used: Arc<Used>, work: impl Future<Output = T>) -> T {
    USED.scope(used, work).await
}

/// Counts something that the job running here used up. Outside of a job nobody asks.
pub fn used(what: Use, amount: u64) {
    let _ = USED.try_with(|used| used.0[what as usize].fetch_add(amount, Ordering::Relaxed));
}

/// What the job running here has used up so far.
#[must_use]
pub fn used_so_far() -> Arc<Used> {
    USED.try_with(Arc::clone).unwrap_or_default()
}

const STAGE_BUCKETS: [f64; 11] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// Starts logging to stderr. HTTP, SDK and SQL crates are held at `warn`, where they name no URL and no header.
///
/// # Errors
/// A level or filter that cannot be read.
pub fn start_logs(settings: &Log) -> Result<()> {
    let quiet = "hyper=warn,hyper_util=warn,reqwest=warn,h2=warn,rustls=warn,aws=warn,aws_sdk_s3=warn,aws_smithy_runtime=warn,sqlx=warn,riverqueue=warn,symphonia=error,symphonia_core=error,symphonia_bundle_mp3=error,symphonia_format_isomp4=error,symphonia_format_riff=error";
    let filter = format!("{},{quiet}", settings.level);
    let filter =
        EnvFilter::try_new(&filter).with_context(|| format!("log.level: `{}` is not a filter", settings.level))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let registry = tracing_subscriber::registry();
    let started = match settings.format {
        LogFormat::Text => registry.with(lines.with_ansi(colour).with_filter(filter.and(Seldom::default()))).try_init(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            registry.with(lines.with_filter(filter.and(Seldom::default()))).try_init()
        }
    };
    // A second start in one process (tests) keeps the first.
    drop(started);
    Ok(())
}

/// The process's metrics registry, installed on first use.
///
/// # Errors
/// Another registry was installed by somebody else.
pub fn metrics_handle() -> Result<PrometheusHandle> {
    // One initialiser: of two threads that both built a registry, one would hand out the handle of a registry that
    // records nothing.
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    HANDLE.get_or_init(|| install_metrics().map_err(|err| format!("{err:#}"))).clone().map_err(anyhow::Error::msg)
}

fn install_metrics() -> Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(STAGE_SECONDS.to_owned()), &STAGE_BUCKETS)
        .context("metrics buckets")?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("the metrics registry")?;
    describe();
    Ok(handle)
}

fn describe() {
    metrics::describe_counter!(JOBS_TOTAL, "jobs that ended, by kind and outcome");
    metrics::describe_histogram!(STAGE_SECONDS, "time a step took");
    metrics::describe_gauge!(QUEUE_OLDEST_SECONDS, "age of the oldest job that could run");
    metrics::describe_gauge!(QUEUE_JOBS, "unfinished jobs and dead letters, by kind and state");
    metrics::describe_gauge!(RETENTION_OVERDUE_SECONDS, "how long the longest overdue call has been due");
    metrics::describe_counter!(ERASED_TOTAL, "calls erased");
    metrics::describe_counter!(SWEEPS_REFUSED_TOTAL, "retention sweeps that refused to run");
    metrics::describe_counter!(RESCUED_TOTAL, "jobs taken back from dead workers");
    metrics::describe_counter!(UNKNOWN_STATUS_TOTAL, "call statuses this build does not know");
    metrics::describe_counter!(SOURCE_REQUESTS_TOTAL, "requests sent to platforms");
    metrics::describe_counter!(SOURCE_HELD_TOTAL, "requests to platforms that had to wait for another time");
    metrics::describe_gauge!(SOURCE_KEY_REFUSED, "1 while a platform refuses the key");
    metrics::describe_gauge!(RECEIVER_KEY_REFUSED, "1 while a receiver refuses our key and its deliveries wait");
    metrics::describe_gauge!(MISSING_OBJECTS, "calls of which stored objects are missing or have another size");
    metrics::describe_gauge!(RECORDINGS_AT_RISK, "recordings that will be gone before they can be fetched");
    metrics::describe_gauge!(WORKER_RESTING, "1 while this worker takes no work because of a trouble of its own");
    metrics::describe_gauge!(WORKERS, "workers that are alive");
    metrics::describe_gauge!(WORKERS_RESTING, "workers that take no work because of a trouble of their own");
    metrics::describe_gauge!(SOURCE_POLLED, "when a source was last polled");
    metrics::describe_gauge!(OUTBOX_DELIVERIES, "deliveries that are owed to receivers");
    metrics::describe_gauge!(OUTBOX_OLDEST_SECONDS, "how long the oldest owed delivery has been owed");
    metrics::describe_gauge!(BACKFILL_CALLS, "calls of backfills that have not ended, by source and state");
    metrics::describe_counter!(WRITEBACK_FAILURES_TOTAL, "attempts to bring an outcome to its receiver that failed");
    metrics::describe_gauge!(CLOCK_AHEAD_SECONDS, "how far this machine's clock is ahead of the database's");
    metrics::describe_gauge!(SCHEDULE_FIRED, "when a schedule last fired");
    metrics::describe_gauge!(SCHEDULE_NEXT, "when a schedule fires next");
    metrics::describe_gauge!(SCHEDULE_LAG_SECONDS, "how long a schedule should have fired already");
    metrics::describe_gauge!(VANISHED_CALLS, "calls a list once showed and the last whole pass did not");
    metrics::describe_counter!(FETCHED_BYTES_TOTAL, "bytes of recordings downloaded");
}
