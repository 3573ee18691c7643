//! Logs to stderr, the metrics registry, and what a job uses up while it runs. Open to every part.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

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
/// Calls a list once showed and a whole pass did not, by source.
pub const VANISHED_CALLS: &str = "aftercall_vanished_calls";

/// 1 while a receiver refuses our key and its deliveries wait, by source.
pub const RECEIVER_KEY_REFUSED: &str = "aftercall_receiver_key_refused";
/// Calls of which stored objects are missing or have another size, by source.
pub const MISSING_OBJECTS: &str = "aftercall_calls_missing_objects";

/// Recordings that will be deleted at their source before they can be fetched at the present pace, by source.
pub const RECORDINGS_AT_RISK: &str = "aftercall_recordings_at_risk";

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
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let started = match settings.format {
        LogFormat::Text => builder.with_ansi(colour).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
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
    metrics::describe_gauge!(RECEIVER_KEY_REFUSED, "1 while a receiver refuses our key and its deliveries wait");
    metrics::describe_gauge!(MISSING_OBJECTS, "calls of which stored objects are missing or have another size");
    metrics::describe_gauge!(RECORDINGS_AT_RISK, "recordings that will be gone before they can be fetched");
    metrics::describe_gauge!(WORKER_RESTING, "1 while this worker takes no work because of a trouble of its own");
    metrics::describe_gauge!(VANISHED_CALLS, "calls a list once showed and the last whole pass did not");
    metrics::describe_counter!(FETCHED_BYTES_TOTAL, "bytes of recordings downloaded");
}
