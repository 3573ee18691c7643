//! The types of the configuration: one struct per table of the file. Unknown keys are refused.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::Deserialize;

use super::engines::RemoteEngine;
use super::source::Source;
use super::span::Span;
use crate::domain::RetentionTerm;

/// The complete effective configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub data_dir: PathBuf,
    pub store: StoreSettings,
    pub objects: Objects,
    pub worker: Worker,
    pub fetch: Fetch,
    pub audio: Audio,
    pub transcript: TranscriptSettings,
    pub retention: Retention,
    pub api: ApiSettings,
    pub ops: Ops,
    pub log: LogSettings,
    pub schedule: ScheduleSettings,
    pub reconcile: Reconcile,
    pub ledger: Ledger,
    #[serde(default)]
    pub source: Vec<Source>,
    #[serde(default)]
    pub engine: Vec<RemoteEngine>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    pub url: SecretString,
    pub url_file: Option<PathBuf>,
    pub max_connections: u32,
    pub busy_timeout: Span,
    pub schema_wait: Span,
}

/// The type of object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectsKind {
    Dir,
    S3,
}

/// Server-side encryption that is requested from an S3 store. The store's answers must confirm it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Sse {
    #[serde(rename = "none")]
    None,
    #[serde(rename = "AES256")]
    Aes256,
    #[serde(rename = "aws:kms")]
    AwsKms,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objects {
    pub kind: ObjectsKind,
    pub path: PathBuf,
    pub bucket: String,
    pub endpoint: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: Option<SecretString>,
    pub secret_access_key_file: Option<PathBuf>,
    pub sse: Sse,
    pub timeout: Span,
}

/// CPU priority of backfill jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackfillCpu {
    /// Idle priority: only what other processes leave.
    Idle,
    /// Normal priority.
    Normal,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    pub concurrency: usize,
    pub cpu_concurrency: usize,
    pub network_concurrency: usize,
    pub speech_concurrency: usize,
    pub backfill_cpu: BackfillCpu,
    pub rest_after: u32,
    pub rest_look: Span,
    pub drain_grace: Span,
    pub heartbeat: Span,
    pub silent_after: Span,
    pub poll: Span,
    pub cooldown: Span,
    pub max_attempts: u16,
    pub backoff_base: Span,
    pub backoff_max: Span,
    pub keep_finished_jobs: Span,
    /// Name of a step boundary at which jobs stop. For tests of crash recovery.
    pub park_at: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    pub max_bytes: u64,
    pub connect_timeout: Span,
    pub total_timeout: Span,
    pub min_bytes_per_second: u64,
    pub max_redirects: u8,
    pub not_ready_pause: Span,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audio {
    pub target_lufs: f64,
    pub ceiling_dbtp: f64,
    pub max_duration: Span,
    pub memory_cap_bytes: u64,
}

/// Which speech engine may transcribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineChoice {
    /// A local model that knows the call's language, where there is one. Otherwise a configured remote STT service that
    /// may hear the call's organisation.
    Auto,
    Off,
    /// Local models only. At least one must be installed.
    Embedded,
}

/// The diarizer for one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiarizerChoice {
    /// The compiled-in diarizer.
    Own,
    /// Neural models, in builds with the feature `diarizer`.
    Neural,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranscriptSettings {
    pub engine: EngineChoice,
    pub diarizer: DiarizerChoice,
    pub model: String,
    pub models_dir: PathBuf,
    pub mirror: String,
    pub beam: u32,
    /// Largest cost of remote STT services in `budget_window`, in the currency of their prices.
    pub budget: Option<f64>,
    pub budget_window: Span,
    pub patience: Span,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    pub days: RetentionTerm,
    pub enabled: bool,
    pub guard_minimum: u64,
    pub max_clock_jump: Span,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSettings {
    pub listen: SocketAddr,
    pub max_body_bytes: usize,
    pub timeout: Span,
    pub connections_per_address: usize,
    /// Addresses and networks of reverse proxies.
    #[serde(deserialize_with = "networks")]
    pub proxies: Vec<IpNet>,
}

/// Listener for the orchestrator and the scraper.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ops {
    /// Separate listener for health and metrics. None: no separate listener.
    #[serde(deserialize_with = "address_or_none")]
    pub listen: Option<SocketAddr>,
}

fn address_or_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| serde::de::Error::custom(format!("`{text}` is not an address with a port such as 127.0.0.1:9090"));
    text.parse().map(Some).map_err(wrong)
}

fn networks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let read = |text: &String| {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse().ok().or_else(address).ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}` is not an address or a network such as 10.0.0.0/8"))
        })
    };
    Vec::<String>::deserialize(deserializer)?.iter().map(read).collect()
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSettings {
    pub file: String,
    pub enabled: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    pub tail_overlap: Span,
    pub pass_every: Span,
    pub full_pass_every: Span,
    pub pages_per_poll: u64,
}

/// The usage ledger.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    pub keep: Span,
}
