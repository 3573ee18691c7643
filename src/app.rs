//! Shared state of a run: configuration, clock, store, queue, clients and limits. It is built once from the
//! configuration.

mod barred;
mod clock;
mod cpu_slots;
mod health;
mod rate_limiter;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use self::barred::Barred;
use self::health::Health;
use self::rate_limiter::SharedRateLimiter;
use crate::artifacts;
use crate::artifacts::ObjectStore;
use crate::audio::probe;
use crate::config::{self, Config};
use crate::domain::{CallUid, SourceName};
use crate::fetch::{Fetcher, HostPolicy};
use crate::queue::Queue;
use crate::source::{RateLimiter, Source};
use crate::store::Store;
use crate::transcript::engines::Engines;
use crate::transcript::remote::Remote;

pub use self::barred::ASK_AGAIN as ASK_BARRED_AGAIN;
pub use self::clock::{CLOCK_TOLERANCE, Clock};
pub use self::cpu_slots::{ComputeStopped, CpuSlot, CpuSlots, Urgency};
pub use crate::config::{own_dir, private_dir};

const RECEIVER_TIMEOUT: Duration = Duration::from_secs(60);

/// One configured platform: settings, client, and the hosts that its recordings may come from.
#[derive(Debug)]
pub struct Platform {
    pub settings: config::Source,
    pub source: Source,
    pub hosts: HostPolicy,
}

/// One configured remote STT service with its rate limiter.
#[derive(Debug)]
pub struct RemoteStt {
    pub remote: Remote,
    pub limiter: Arc<dyn RateLimiter>,
}

/// Shared state of a run.
#[derive(Debug)]
pub struct App {
    pub config: Config,
    pub clock: Clock,
    pub store: Store,
    pub queue: Queue,
    pub objects: Arc<dyn ObjectStore>,
    pub fetcher: Fetcher,
    pub platforms: BTreeMap<SourceName, Platform>,
    /// HTTP client for delivery receivers and remote STT services. The operator configures their URLs.
    pub receivers: reqwest::Client,
    /// Permits for downloads and platform requests of jobs.
    pub network: Arc<Semaphore>,
    /// CPU slots for decoding. Live calls pre-empt backfill jobs.
    pub cpu: CpuSlots,
    /// Local speech-to-text engines. A model is loaded on first use and then kept.
    pub engines: Arc<Engines>,
    /// Remote STT services in the order of the configuration. Empty where the configuration allows local engines only.
    pub remote_stt: Vec<RemoteStt>,
    /// Slots for local speech-to-text.
    pub speech: CpuSlots,
    pub health: Health,
    /// Receivers that currently refuse our key.
    pub barred: Barred,
}

/// The client for delivery receivers and remote STT. On a machine without CA certificates the client can use plain http
/// only.
fn receivers(config: &Config) -> Result<reqwest::Client> {
    let builder = || {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.fetch.connect_timeout.0)
            .timeout(RECEIVER_TIMEOUT)
            .user_agent(concat!("aftercall/", env!("CARGO_PKG_VERSION")))
    };
    builder().build().or_else(|_| builder().tls_certs_only([]).build()).context("HTTP client")
}

/// The usable remote STT services. Only the engine choice `auto` allows remote services.
fn remote_stt(config: &Config, client: &reqwest::Client, store: &Store, clock: &Clock) -> Result<Vec<RemoteStt>> {
    let allowed = config.transcript.engine == config::EngineChoice::Auto;
    let of = |settings: &config::RemoteEngine| -> Result<RemoteStt> {
        let limiter =
            Arc::new(SharedRateLimiter::of_engine(settings.rate_limit_name()?, settings, store.clone(), clock.clone()));
        Ok(RemoteStt { remote: Remote::new(settings.clone(), client.clone()), limiter })
    };
    config.engine.iter().filter(|_| allowed).map(of).collect()
}

impl App {
    /// Connects to everything that the configuration names, and migrates the database schema.
    ///
    /// # Errors
    /// The component that cannot be reached or used, with the cause.
    pub async fn build(config: Config, clock: Clock) -> Result<Arc<Self>> {
        own_dir(&config.data_dir).with_context(|| format!("data_dir: cannot use {}", config.data_dir.display()))?;
        let store = Store::connect(&config.store).await?;
        Self::over(store, config, clock).await
    }

    /// As `build`, but read only. It changes nothing in the database, and it does not migrate the schema.
    ///
    /// # Errors
    /// The component that cannot be reached or used, with the cause.
    pub async fn look(config: Config, clock: Clock) -> Result<Arc<Self>> {
        let store = Store::look(&config.store).await?;
        Self::over(store, config, clock).await
    }

    async fn over(store: Store, config: Config, clock: Clock) -> Result<Arc<Self>> {
        // ring is the only crypto provider in the build. A second install in one process changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        if let Some(place) = store.moved_to().await? {
            anyhow::bail!("store.url: this database was moved to {place}; set store.url to that");
        }
        let queue = Queue::open(&store)?;
        let objects = artifacts::open(&config.objects)?;
        let fetcher = Fetcher::new(&config.fetch, probe::looks_like_audio);
        let mut platforms = BTreeMap::new();
        for settings in &config.source {
            let source = Source::new(settings).with_context(|| format!("source `{}`", settings.name))?;
            let source = source.behind(Arc::new(SharedRateLimiter::of_source(settings, store.clone(), clock.clone())));
            let hosts = HostPolicy::new(&settings.base_url, &settings.recording_hosts);
            platforms.insert(settings.name.clone(), Platform { settings: settings.clone(), source, hosts });
        }
        let receivers = receivers(&config)?;
        let remote_stt = remote_stt(&config, &receivers, &store, &clock)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let decoders = if config.worker.cpu_concurrency == 0 { cores } else { config.worker.cpu_concurrency };
        let worker = &config.worker;
        let downloads = match worker.network_concurrency {
            0 => 2 * worker.concurrency,
            wanted => wanted,
        };
        let engines = Arc::new(Engines::new(&config, decoders));
        let app = Arc::new(Self {
            network: Arc::new(Semaphore::new(downloads)),
            cpu: CpuSlots::new(decoders, worker.backfill_cpu),
            speech: CpuSlots::new(worker.speech_concurrency, worker.backfill_cpu),
            health: Health::new(worker.rest_after),
            barred: Barred::default(),
            config,
            clock,
            store,
            queue,
            objects,
            fetcher,
            platforms,
            receivers,
            engines,
            remote_stt,
        });
        app.compare_clocks().await?;
        Ok(app)
    }

    /// The current time by the database's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The platform of this name. None when the configuration no longer contains it.
    #[must_use]
    pub fn platform(&self, name: &SourceName) -> Option<&Platform> {
        self.platforms.get(name)
    }

    /// Reads all key files of platforms and remote STT services again.
    pub async fn read_keys_again(&self) {
        let mut renewed = Vec::new();
        for (name, platform) in &self.platforms {
            if platform.source.read_keys_again().await {
                renewed.push(name.to_string());
            }
        }
        for engine in &self.remote_stt {
            if engine.remote.read_key_again() {
                renewed.push(engine.remote.settings().name.clone());
            }
        }
        tracing::info!(renewed = renewed.join(" "), "the key files were read again");
    }

    /// Spool directory of a call. It holds the call's files while its job runs.
    #[must_use]
    pub fn spool_of(&self, call: CallUid) -> PathBuf {
        self.config.spool_dir().join(call.to_string())
    }
}
