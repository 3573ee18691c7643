//! Secrets: which settings are secret, and how they are read from files and hidden.

use std::path::Path;

use anyhow::{Context, Result, bail};
use secrecy::SecretString;
use url::Url;

/// Keys with secret values, in any table.
const SECRETS: [&str; 4] = ["api_key", "api_secret", "webhook_secret", "secret_access_key"];

/// True when a setting's path, such as `source[0].api_key`, names a secret.
pub(super) fn is_secret(path: &str) -> bool {
    path.split('.').any(|part| SECRETS.contains(&part.split('[').next().unwrap_or(part)) || part == "headers")
}

pub(super) fn hide_secrets(table: &mut toml::Table) {
    for (key, value) in table.iter_mut() {
        match value {
            toml::Value::Table(inner) if key == "headers" => inner.iter_mut().for_each(|(_, value)| *value = hidden()),
            toml::Value::Table(inner) => hide_secrets(inner),
            toml::Value::Array(all) => all.iter_mut().filter_map(toml::Value::as_table_mut).for_each(hide_secrets),
            value if SECRETS.contains(&key.as_str()) => *value = hidden(),
            toml::Value::String(text) if key == "url" => hide_password(text),
            _ => {}
        }
    }
}

fn hidden() -> toml::Value {
    toml::Value::String("***".to_owned())
}

fn hide_password(text: &mut String) {
    if let Ok(mut url) = Url::parse(text)
        && url.password().is_some()
        && url.set_password(Some("***")).is_ok()
    {
        *text = url.into();
    }
}

/// Reads a secret from its file, where it is not set itself.
pub(super) fn fill(key: &str, secret: &mut Option<SecretString>, file: Option<&Path>) -> Result<()> {
    if let (None, Some(path)) = (&secret, file) {
        *secret = Some(read_secret(key, path)?);
    }
    Ok(())
}

pub(super) fn read_secret(key: &str, path: &Path) -> Result<SecretString> {
    read_text(key, path).map(SecretString::from)
}

pub(super) fn read_text(key: &str, path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{key}: cannot read {}", path.display()))?;
    let text = text.trim();
    if text.is_empty() {
        bail!("{key}: {} is empty", path.display());
    }
    Ok(text.to_owned())
}
