//! The types of the configuration: one struct per table of the file. Unknown keys are refused.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::delivery::HttpDelivery;
pub use super::engines::{AnswerFormat, RemoteEngine, RemoteKind};
use super::{KeyFiles, Span, parse_span};
use crate::domain::{DualChannels, KeyHeaders, LossUnit, RetentionTerm, SourceName, Vendor};

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

/// Where the organisation id is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrganizationPlacement {
    #[default]
    Header,
    Query,
    None,
}

/// Where outcomes are written in addition to our own record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryTarget {
    /// Our record only.
    #[default]
    Record,
    /// The platform's metadata (Zudu).
    Metadata,
    /// The request of `[source.http]`.
    Http,
}

impl DeliveryTarget {
    /// The target name of its deliveries. None where nothing is delivered.
    #[must_use]
    pub const fn target(self) -> Option<&'static str> {
        match self {
            Self::Record => None,
            Self::Metadata => Some("metadata"),
            Self::Http => Some("http"),
        }
    }
}

/// How often a source is reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    Off,
    Every(Duration),
}

impl<'de> Deserialize<'de> for Poll {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(Self::Off);
        }
        parse_span(&text).map(Self::Every).map_err(serde::de::Error::custom)
    }
}

/// One platform account.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub name: SourceName,
    pub dialect: Vendor,
    pub base_url: Url,
    pub api_key: Option<SecretString>,
    pub api_key_file: Option<PathBuf>,
    pub api_secret: Option<SecretString>,
    pub api_secret_file: Option<PathBuf>,
    /// The files that key and secret can be read from again.
    #[serde(skip)]
    pub key_files: KeyFiles,
    #[serde(default)]
    pub auth: KeyHeaders,
    pub organization_id: Option<String>,
    #[serde(default)]
    pub organization_in: OrganizationPlacement,
    pub webhook_secret: Option<SecretString>,
    pub webhook_secret_file: Option<PathBuf>,
    #[serde(default)]
    pub recording_hosts: Vec<String>,
    #[serde(default = "default_poll")]
    pub poll: Poll,
    #[serde(default = "default_recording_grace")]
    pub recording_grace: Span,
    #[serde(default)]
    pub packet_loss_unit: LossUnit,
    pub language: Option<String>,
    pub requests_per_day: Option<u64>,
    pub requests_per_second: Option<f64>,
    pub requests_at_once: Option<u64>,
    /// How long the platform keeps a recording after the end of its call. Recordings that are deleted soonest are
    /// fetched first.
    pub recordings_kept: Option<Span>,
    #[serde(default, rename = "write_back")]
    pub delivery: DeliveryTarget,
    #[serde(default)]
    pub dual_channels: DualChannels,
    /// Retention term of this source's calls in days. Absent: the term of `[retention]`.
    pub retention_days: Option<RetentionTerm>,
    pub http: Option<HttpDelivery>,
    #[serde(default)]
    pub agent: Vec<Agent>,
}

/// Known facts about an agent of a source.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// The platform's id of the agent. Absent: every agent of the source without its own table.
    pub id: Option<String>,
    /// Text that the agent is known to say, such as greeting, prompt or script.
    pub text: Option<String>,
    pub text_file: Option<PathBuf>,
    /// The agent is a synthetic voice, so its voice profile may be stored.
    #[serde(default)]
    pub synthetic: bool,
}

impl Source {
    /// Text that this agent is known to say.
    #[must_use]
    pub fn agent_text(&self, id: Option<&str>) -> Option<&str> {
        self.agent_of(id).and_then(|agent| agent.text.as_deref())
    }

    /// The agent of a call, where it is declared synthetic. The call must name its agent, because an unnamed agent may
    /// be a person.
    #[must_use]
    pub fn synthetic_agent<'a>(&self, id: Option<&'a str>) -> Option<&'a str> {
        id.filter(|id| self.agent_of(Some(id)).is_some_and(|agent| agent.synthetic))
    }

    fn agent_of(&self, id: Option<&str>) -> Option<&Agent> {
        let own = self.agent.iter().find(|agent| agent.id.is_some() && agent.id.as_deref() == id);
        own.or_else(|| self.agent.iter().find(|agent| agent.id.is_none()))
    }
}

fn default_poll() -> Poll {
    Poll::Every(Duration::from_secs(300))
}

const fn default_recording_grace() -> Span {
    Span(Duration::from_secs(900))
}
