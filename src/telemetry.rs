//! Logs to stderr, the metrics registry, and the resource usage of a running job. Every module may use it.

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
use crate::config::{LogFormat, LogSettings};

/// Ended jobs, by kind and outcome.
pub const JOBS_TOTAL: &str = "aftercall_jobs_total";
/// Duration of a step in seconds, by stage.
pub const STAGE_SECONDS: &str = "aftercall_stage_duration_seconds";
/// Age of the oldest available job, seconds.
pub const QUEUE_OLDEST_SECONDS: &str = "aftercall_queue_oldest_age_seconds";
/// Jobs by kind and state.
pub const QUEUE_JOBS: &str = "aftercall_queue_jobs";
/// How long the longest overdue erasure has been due, seconds.
pub const RETENTION_OVERDUE_SECONDS: &str = "aftercall_retention_overdue_seconds";
/// Erased calls.
pub const ERASED_TOTAL: &str = "aftercall_calls_erased_total";
/// Retention sweeps that refused to run, by reason.
pub const SWEEPS_REFUSED_TOTAL: &str = "aftercall_retention_sweeps_refused_total";
/// Jobs of dead workers that were requeued or dead-lettered.
pub const REQUEUED_TOTAL: &str = "aftercall_jobs_rescued_total";
/// Unknown statuses from a platform, by source.
pub const UNKNOWN_STATUS_TOTAL: &str = "aftercall_unknown_call_status_total";
/// Downloaded bytes of recordings.
pub const FETCHED_BYTES_TOTAL: &str = "aftercall_fetched_bytes_total";

/// Requests to platforms, by source and precedence.
pub const SOURCE_REQUESTS_TOTAL: &str = "aftercall_source_requests_total";
/// Requests that were not sent because of a budget, a rate limit, a requested pause or an open circuit breaker; by
/// source and reason.
pub const SOURCE_HELD_TOTAL: &str = "aftercall_source_requests_held_total";
/// 1 while a platform refuses the key, by source.
pub const SOURCE_KEY_REFUSED: &str = "aftercall_source_key_refused";
/// Calls that a list showed earlier and the latest full pass did not, by source.
pub const VANISHED_CALLS: &str = "aftercall_vanished_calls";

/// 1 while a receiver refuses our key and its deliveries wait, by source.
pub const RECEIVER_KEY_REFUSED: &str = "aftercall_receiver_key_refused";
/// Calls with stored objects that are missing or have another size, by source.
pub const MISSING_OBJECTS: &str = "aftercall_calls_missing_objects";

/// Capacity warning: recordings that their source will delete before they can be fetched at the present rate, by
/// source.
pub const RECORDINGS_AT_RISK: &str = "aftercall_recordings_at_risk";

/// Live workers.
pub const WORKERS: &str = "aftercall_workers";
/// Live workers that take no jobs because of a local failure.
pub const WORKERS_RESTING: &str = "aftercall_workers_resting";
/// Time of the latest poll of a source, by source.
pub const SOURCE_POLLED: &str = "aftercall_source_last_poll_timestamp_seconds";
/// Pending deliveries to receivers.
pub const OUTBOX_DELIVERIES: &str = "aftercall_outbox_deliveries";
/// Age of the oldest pending delivery, seconds.
pub const OUTBOX_OLDEST_SECONDS: &str = "aftercall_outbox_oldest_age_seconds";
/// Calls of unfinished backfills, by source and state.
pub const BACKFILL_CALLS: &str = "aftercall_backfill_calls";
/// Failed delivery attempts, by source.
pub const DELIVERY_FAILURES_TOTAL: &str = "aftercall_writeback_failures_total";
/// How far this machine's clock is ahead of the database's clock, seconds.
pub const CLOCK_AHEAD_SECONDS: &str = "aftercall_clock_ahead_seconds";
/// Time of the latest run of a schedule, by schedule.
pub const SCHEDULE_FIRED: &str = "aftercall_schedule_last_firing_timestamp_seconds";
/// Time of the next run of a schedule, by schedule.
pub const SCHEDULE_NEXT: &str = "aftercall_schedule_next_firing_timestamp_seconds";
/// How long a schedule is overdue, by schedule, seconds.
pub const SCHEDULE_LAG_SECONDS: &str = "aftercall_schedule_lag_seconds";

/// 1 while this worker takes no jobs because of a local failure.
pub const WORKER_RESTING: &str = "aftercall_worker_resting";

/// A resource that a job uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    PlatformRequests,
    ObjectWrites,
    BytesFetched,
    BytesStored,
    /// Milliseconds that a speech engine worked.
    EngineMs,
    /// Milliseconds of audio that a remote STT service bills.
    BilledMs,
}

/// Resource usage of a job so far.
#[derive(Debug, Default)]
pub struct Used([AtomicU64; 6]);

impl Used {
    /// Adds usage from outside of the counted job.
    pub fn add(&self, what: Use, amount: u64) {
        self.0[what as usize].fetch_add(amount, Ordering::Relaxed);
    }

    /// The usage of one resource.
    #[must_use]
    pub fn of(&self, what: Use) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }
}

tokio::task_local! {
    static USED: Arc<Used>;
}

/// Counts the usage of `work`.
pub async fn counting<T>(used: Arc<Used>, work: impl Future<Output = T>) -> T {
    USED.scope(used, work).await
}

/// Counts usage of the current job. Outside of a job it does nothing.
pub fn used(what: Use, amount: u64) {
    let _ = USED.try_with(|used| used.0[what as usize].fetch_add(amount, Ordering::Relaxed));
}

/// The usage of the current job so far.
#[must_use]
pub fn used_so_far() -> Arc<Used> {
    USED.try_with(Arc::clone).unwrap_or_default()
}

const STAGE_BUCKETS: [f64; 11] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// Starts logging to stderr. HTTP, SDK and SQL crates log at `warn`, because their `warn` messages contain no URL and
/// no header.
///
/// # Errors
/// An invalid level or filter.
pub fn start_logs(settings: &LogSettings) -> Result<()> {
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

/// The process's metrics registry. It is installed on first use.
///
/// # Errors
/// Another registry is already installed.
pub fn metrics_handle() -> Result<PrometheusHandle> {
    // One initialiser. If two threads each built a registry, one would return the handle of a registry that records
    // nothing.
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
    metrics::describe_counter!(REQUEUED_TOTAL, "jobs taken back from dead workers");
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
    metrics::describe_gauge!(OUTBOX_DELIVERIES, "pending deliveries to receivers");
    metrics::describe_gauge!(OUTBOX_OLDEST_SECONDS, "how long the oldest pending delivery has been pending");
    metrics::describe_gauge!(BACKFILL_CALLS, "calls of backfills that have not ended, by source and state");
    metrics::describe_counter!(DELIVERY_FAILURES_TOTAL, "attempts to bring an outcome to its receiver that failed");
    metrics::describe_gauge!(CLOCK_AHEAD_SECONDS, "how far this machine's clock is ahead of the database's");
    metrics::describe_gauge!(SCHEDULE_FIRED, "when a schedule last fired");
    metrics::describe_gauge!(SCHEDULE_NEXT, "when a schedule fires next");
    metrics::describe_gauge!(SCHEDULE_LAG_SECONDS, "how long a schedule should have fired already");
    metrics::describe_gauge!(VANISHED_CALLS, "calls a list once showed and the last whole pass did not");
    metrics::describe_counter!(FETCHED_BYTES_TOTAL, "bytes of recordings downloaded");
}
