//! A platform account: `[[source]]`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::delivery::HttpDelivery;
use super::key_files::{KeyFiles, read_again};
use super::span::{Span, parse_span};
use crate::domain::{DualChannels, KeyHeaders, LossUnit, RetentionTerm, SourceName, Vendor};

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
    pub(super) fn validate(&self) -> Result<()> {
        if self.api_key.is_none() {
            bail!("api_key: must be set (or api_key_file)");
        }
        if self.dialect == Vendor::Zudu && self.api_secret.is_none() {
            bail!("api_secret: must be set for the zudu dialect (or api_secret_file)");
        }
        if !matches!(self.base_url.scheme(), "http" | "https") {
            bail!("base_url: must be http or https");
        }
        if self.requests_per_second.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            bail!("requests_per_second: must be more than 0");
        }
        if self.requests_at_once == Some(0) {
            bail!("requests_at_once: must be at least 1");
        }
        match self.delivery {
            DeliveryTarget::Metadata if self.dialect != Vendor::Zudu => {
                bail!("write_back: \"metadata\" exists on zudu only; this platform has no call to write to")
            }
            DeliveryTarget::Http if self.http.is_none() => {
                bail!("write_back: \"http\" needs a [source.http] table with a url")
            }
            _ => Ok(()),
        }
    }

    /// Reads the files of key and secret again, where they exist.
    ///
    /// # Errors
    /// Names the source, the setting and the file.
    pub fn read_keys(&mut self) -> Result<()> {
        let key = |field: &str| format!("source `{}`: {field}", self.name);
        let (api_key, api_secret) = (key("api_key_file"), key("api_secret_file"));
        read_again(&api_key, &mut self.api_key, self.key_files.key.as_deref())?;
        read_again(&api_secret, &mut self.api_secret, self.key_files.secret.as_deref())
    }

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
