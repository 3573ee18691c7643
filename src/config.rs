//! The configuration. Only this module reads the configuration file and the environment. The defaults are
//! `config.default.toml`, compiled in.

mod delivery;
mod engines;
mod key_files;
mod layers;
mod remarks;
mod secrets;
mod settings;
mod source;
mod span;

pub use delivery::{HttpDelivery, RequestBody, RequestError};
pub use engines::{AnswerFormat, RemoteEngine, RemoteKind};
pub use key_files::KeyFiles;
pub use layers::misread;
pub use remarks::Remark;
pub use settings::{
    ApiSettings, Audio, BackfillCpu, Config, DiarizerChoice, EngineChoice, Fetch, LogFormat, LogSettings, Objects,
    ObjectsKind, Ops, Reconcile, Retention, ScheduleSettings, Sse, StoreSettings, TranscriptSettings, Worker,
};
pub use source::{DeliveryTarget, OrganizationPlacement, Poll, Source};
pub use span::{Span, parse_span};

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use secrecy::ExposeSecret;

use self::layers::Layers;
use self::secrets::{fill, hide_secrets, read_secret, read_text};
use crate::domain::{RetentionTerm, SourceName};

/// Creates a directory that only this user can read, because the content is personal data. An existing directory is not
/// changed.
///
/// # Errors
/// As [`std::fs::DirBuilder::create`].
pub fn private_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Creates the data directory. Removes the permissions of other users from an existing one.
///
/// # Errors
/// The reason why it cannot be created or closed to other users.
pub fn own_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    private_dir(path)?;
    let mode = std::fs::metadata(path)?.permissions().mode();
    let of_others = mode & 0o077;
    if of_others == 0 {
        return Ok(());
    }
    let refused = |why: &str| {
        let what = format!("others may look into {}, {why}; name a directory of its own", path.display());
        std::io::Error::new(std::io::ErrorKind::PermissionDenied, what)
    };
    // A directory with other content is not changed.
    let ours = path.join("lock").exists() || std::fs::read_dir(path)?.next().is_none();
    if !ours || mode & 0o1000 != 0 {
        return Err(refused("and it holds other things than this program's"));
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .map_err(|_| refused("and it belongs to another user"))
}

impl Config {
    /// Messages about settings that are accepted and have no effect yet.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let ahead = self.source.iter().filter(|source| source.webhook_secret.is_some());
        let said = |source: &Source| {
            format!("source `{}`: webhook_secret is not used: this version takes no webhooks", source.name)
        };
        ahead.map(said).collect()
    }
}

impl Config {
    /// Reads the defaults, then `file` (or `./aftercall.toml` where it exists), then the environment.
    ///
    /// # Errors
    /// Names the file or variable, the key and the reason.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        Layers::read(file)?.config()
    }

    /// The effective configuration as a table. Secrets are shown as `***`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn effective(file: Option<&Path>) -> Result<toml::Table> {
        let layers = Layers::read(file)?;
        layers.config()?;
        let mut table = layers.table()?;
        hide_secrets(&mut table);
        Ok(table)
    }

    /// The defaults with `text` (TOML) applied on top. Reads no file and no environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(text: &str) -> Result<Self> {
        Layers::of_text(text)?.config()
    }

    fn read_secret_files(&mut self) -> Result<()> {
        if let Some(path) = &self.store.url_file {
            self.store.url = read_secret("store.url_file", path)?;
        }
        fill(
            "objects.secret_access_key_file",
            &mut self.objects.secret_access_key,
            self.objects.secret_access_key_file.as_deref(),
        )?;
        for source in &mut self.source {
            let key = |field: &str| format!("source `{}`: {field}", source.name);
            source.key_files = KeyFiles {
                key: source.api_key_file.clone().filter(|_| source.api_key.is_none()),
                secret: source.api_secret_file.clone().filter(|_| source.api_secret.is_none()),
            };
            let webhook = key("webhook_secret_file");
            fill(&webhook, &mut source.webhook_secret, source.webhook_secret_file.as_deref())?;
            source.read_keys()?;
            let key = |field: &str| format!("source `{}`: {field}", source.name);
            let key = key("agent.text_file");
            for agent in &mut source.agent {
                if let (None, Some(path)) = (&agent.text, &agent.text_file) {
                    agent.text = Some(read_text(&key, path)?);
                }
            }
        }
        for engine in &mut self.engine {
            engine.key_files.key = engine.api_key_file.clone().filter(|_| engine.api_key.is_none());
            engine.read_key()?;
        }
        Ok(())
    }

    fn validate(&self) -> Result<()> {
        if self.worker.concurrency == 0 {
            bail!("worker.concurrency: must be at least 1");
        }
        if self.worker.silent_after.0 < 2 * self.worker.heartbeat.0 {
            bail!("worker.silent_after: must be at least twice worker.heartbeat, or live workers are taken for dead");
        }
        if self.worker.poll < self.worker.cooldown {
            bail!("worker.poll: must not be shorter than worker.cooldown");
        }
        if !(-40.0..=-5.0).contains(&self.audio.target_lufs) {
            bail!("audio.target_lufs: must be between -40 and -5");
        }
        if !(-20.0..=0.0).contains(&self.audio.ceiling_dbtp) {
            bail!("audio.ceiling_dbtp: must be between -20 and 0");
        }
        if self.api.connections_per_address == 0 {
            bail!("api.connections_per_address: must be at least 1");
        }
        if self.ops.listen.is_some_and(|listen| listen.port() != 0 && listen == self.api.listen) {
            bail!("ops.listen: is the address of api.listen; health and metrics are answered there anyway");
        }
        if self.objects.kind == ObjectsKind::S3 && self.objects.bucket.is_empty() {
            bail!("objects.bucket: must be set when objects.kind = \"s3\"");
        }
        let scheme = self.store.url.expose_secret().split(':').next().unwrap_or_default().to_owned();
        if !matches!(scheme.as_str(), "sqlite" | "postgres" | "postgresql") {
            bail!("store.url: must start with sqlite:// or postgres://");
        }
        let mut seen = std::collections::BTreeSet::new();
        for (index, source) in self.source.iter().enumerate() {
            if !seen.insert(source.name.as_str()) {
                bail!("source `{}`: the name is used twice", source.name);
            }
            source.validate().with_context(|| format!("source `{}`", source.name))?;
            if let Some(Err(err)) = source.http.as_ref().map(HttpDelivery::check) {
                bail!("{}", err.in_source(index));
            }
        }
        if self.transcript.diarizer == DiarizerChoice::Neural && !cfg!(feature = "diarizer") {
            bail!("transcript.diarizer: this program was built without it (cargo install --features diarizer)");
        }
        self.validate_engines()
    }

    fn validate_engines(&self) -> Result<()> {
        let budget = self.transcript.budget;
        if budget.is_some_and(|most| !most.is_finite() || most < 0.0) {
            bail!("transcript.budget: must be 0 or more");
        }
        let mut seen = std::collections::BTreeSet::new();
        for engine in &self.engine {
            let named = || format!("engine `{}`", engine.name);
            engine.validate().with_context(named)?;
            if !seen.insert(engine.name.as_str()) {
                bail!("{}: the name is used twice", named());
            }
            if self.source(&engine.rate_limit_name()?).is_some() {
                bail!("{}: a source is named engine-{}; name one of them otherwise", named(), engine.name);
            }
            if budget.is_some() && engine.price_per_minute.is_none() {
                bail!("{}: price_per_minute: must be set where transcript.budget is", named());
            }
        }
        Ok(())
    }

    /// The source of this name.
    #[must_use]
    pub fn source(&self, name: &SourceName) -> Option<&Source> {
        self.source.iter().find(|source| source.name == *name)
    }

    /// The retention term of a source's calls.
    #[must_use]
    pub fn retention_term(&self, source: &SourceName) -> RetentionTerm {
        self.source(source).and_then(|source| source.retention_days).unwrap_or(self.retention.days)
    }

    /// Directory of the pulled models.
    #[must_use]
    pub fn models_dir(&self) -> PathBuf {
        let named = &self.transcript.models_dir;
        if named.as_os_str().is_empty() { self.data_dir.join("models") } else { named.clone() }
    }

    /// Directory of downloads and decoded audio while a job runs.
    #[must_use]
    pub fn spool_dir(&self) -> PathBuf {
        self.data_dir.join("spool")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_a_valid_configuration() {
        let config = Config::from_toml("").unwrap();
        assert_eq!(config.retention.days, RetentionTerm::DEFAULT);
        assert!(config.source.is_empty());
    }

    #[test]
    fn a_bad_value_is_named_with_its_key() {
        let err = Config::from_toml("[worker]\nheartbeat = \"soon\"").unwrap_err();
        let text = format!("{err:#}");
        assert!(text.contains("heartbeat") && text.contains("soon"), "{text}");
    }

    #[test]
    fn a_misspelt_key_is_refused_by_name() {
        let text = format!("{:#}", Config::from_toml("[retention]\ndayz = 3").unwrap_err());
        assert!(text.contains("dayz"), "{text}");
    }

    #[test]
    fn a_source_without_its_secret_is_refused_by_name() {
        let toml = "[[source]]\nname = \"z\"\ndialect = \"zudu\"\nbase_url = \"https://api.zudu.ai\"\napi_key = \"k\"";
        let text = format!("{:#}", Config::from_toml(toml).unwrap_err());
        assert!(text.contains("source `z`") && text.contains("api_secret"), "{text}");
    }

    #[test]
    fn an_agents_text_is_its_own_before_everybodys() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("greeting.txt");
        std::fs::write(&file, "Welcome to the desk.\n").unwrap();
        let source = "[[source]]\nname = \"k\"\ndialect = \"krosai\"\nbase_url = \"https://k.test\"\napi_key = \"k\"\n";
        let agents = "[[source.agent]]\ntext = \"Hello.\"\n[[source.agent]]\nid = \"a1\"\ntext_file = ";
        let config = Config::from_toml(&format!("{source}{agents}{file:?}")).unwrap();
        let said = |id: Option<&str>| config.source[0].agent_text(id);
        assert_eq!(
            (said(Some("a1")), said(Some("a2")), said(None)),
            (Some("Welcome to the desk."), Some("Hello."), Some("Hello."))
        );
        std::fs::remove_file(&file).unwrap();
        let text = format!("{:#}", Config::from_toml(&format!("{source}{agents}{file:?}")).unwrap_err());
        assert!(text.contains("source `k`: agent.text_file"), "{text}");
    }
}
