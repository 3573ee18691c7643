//! Remote STT services: `[[engine]]`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::key_files::{KeyFiles, read_again};
use super::span::Span;
use crate::domain::SourceName;

/// The protocol of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteKind {
    /// OpenAI's transcription API. speaches, vLLM and the whisper.cpp server implement it too.
    Openai,
    Deepgram,
}

/// The answer format that is requested from an OpenAI-compatible service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerFormat {
    /// Words and segments with times.
    VerboseJson,
    /// Segments with speakers.
    DiarizedJson,
}

/// A remote STT service. Audio of organisations that are not listed is never sent.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteEngine {
    /// Its name in provenance and in the ledger.
    pub name: String,
    pub kind: RemoteKind,
    /// Base URL including the version: `https://api.openai.com/v1`, `https://api.deepgram.com/v1`.
    pub base_url: Url,
    pub model: String,
    pub api_key: Option<SecretString>,
    pub api_key_file: Option<PathBuf>,
    /// The files that the key can be read from again.
    #[serde(skip)]
    pub key_files: KeyFiles,
    /// Organisations whose audio may be sent to the service, by the platform's names.
    pub organizations: Vec<String>,
    /// Only calls of these sources. Empty: all sources.
    #[serde(default)]
    pub sources: Vec<SourceName>,
    /// Price per minute of each channel that is sent, in the operator's currency.
    pub price_per_minute: Option<f64>,
    /// Requested answer format. Absent: `diarized_json` where the model's name says that it diarizes.
    pub response_format: Option<AnswerFormat>,
    /// Prompt for the model. A prompt can produce words that nobody said, so it is absent by default.
    pub prompt: Option<String>,
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    pub requests_per_second: Option<f64>,
    pub requests_per_day: Option<u64>,
    pub requests_at_once: Option<u64>,
}

const fn default_timeout() -> Span {
    Span(Duration::from_secs(600))
}

impl RemoteEngine {
    /// Reads the key's file again, where there is one.
    ///
    /// # Errors
    /// Names the engine, the setting and the file.
    pub fn read_key(&mut self) -> Result<()> {
        let key = format!("engine `{}`: api_key_file", self.name);
        read_again(&key, &mut self.api_key, self.key_files.key.as_deref())
    }

    /// True when calls of this organisation from this source may be sent to the service.
    #[must_use]
    pub fn may_hear(&self, source: &SourceName, organization: Option<&str>) -> bool {
        let named = |organization: &str| self.organizations.iter().any(|one| one.eq_ignore_ascii_case(organization));
        organization.is_some_and(named) && (self.sources.is_empty() || self.sources.contains(source))
    }

    /// The price in words.
    #[must_use]
    pub fn price(&self) -> String {
        self.price_per_minute.map_or_else(|| "an unnamed price".to_owned(), |price| format!("{price} a minute"))
    }

    /// The name of its rate limiter, stored beside the rate limiters of the sources.
    ///
    /// # Errors
    /// The name is not valid.
    pub fn rate_limit_name(&self) -> Result<SourceName> {
        Ok(SourceName::parse(&format!("engine-{}", self.name))?)
    }

    pub(super) fn validate(&self) -> Result<()> {
        if SourceName::parse(&self.name).is_err() || self.rate_limit_name().is_err() {
            bail!("name: must be 1 to 57 of a-z, 0-9, _ and -");
        }
        if !matches!(self.base_url.scheme(), "http" | "https") {
            bail!("base_url: must be http or https");
        }
        if self.organizations.is_empty() {
            bail!("organizations: name those whose calls may be sent there");
        }
        if self.model.is_empty() {
            bail!("model: must be set");
        }
        if self.kind == RemoteKind::Deepgram && self.api_key.is_none() {
            bail!("api_key: must be set (or api_key_file)");
        }
        if self.price_per_minute.is_some_and(|price| !price.is_finite() || price < 0.0) {
            bail!("price_per_minute: must be 0 or more");
        }
        if self.requests_per_second.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            bail!("requests_per_second: must be more than 0");
        }
        if self.requests_at_once == Some(0) {
            bail!("requests_at_once: must be at least 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use crate::domain::SourceName;

    const ENGINE: &str = "[[engine]]\nname = \"heard\"\nkind = \"deepgram\"\nbase_url = \"https://api.deepgram.com/v1\"\n\
                          model = \"nova-3\"\napi_key = \"k\"\n";

    #[test]
    fn a_service_hears_only_whom_the_configuration_names() {
        let config =
            Config::from_toml(&format!("{ENGINE}organizations = [\"org-1\"]\nsources = [\"krosai\"]")).unwrap();
        let (krosai, zudu) = (SourceName::parse("krosai").unwrap(), SourceName::parse("zudu").unwrap());
        let engine = &config.engine[0];
        assert!(engine.may_hear(&krosai, Some("org-1")));
        assert!(!engine.may_hear(&krosai, Some("org-2")));
        assert!(!engine.may_hear(&krosai, None));
        assert!(!engine.may_hear(&zudu, Some("org-1")));
    }

    #[test]
    fn what_is_wrong_with_a_service_is_named() {
        let said = |text: &str| format!("{:#}", Config::from_toml(text).unwrap_err());
        assert!(said(ENGINE).contains("organizations"));
        let all = format!("{ENGINE}organizations = [\"o\"]");
        assert!(said(&format!("{all}\nprice_per_minute = -1.0")).contains("engine `heard`: price_per_minute"));
        // Without a price the budget could never take effect.
        assert!(said(&format!("[transcript]\nbudget = 5.0\n{all}")).contains("price_per_minute"));
        assert!(said(&format!("{all}\n{all}")).contains("used twice"));
    }
}
