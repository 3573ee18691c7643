//! The headers with an account's keys. The key files are read again after a refusal.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;

use super::SourceError;
use crate::config;
use crate::wire::{Credentials, Dialect};

/// The keys of one account as headers.
pub(super) struct AccountKeys {
    settings: config::Source,
    dialect: Dialect,
    current: Mutex<Arc<HeaderMap>>,
}

impl fmt::Debug for AccountKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl AccountKeys {
    /// # Errors
    /// [`SourceError::Configuration`] when a key is missing or is not valid in a header.
    pub(super) fn new(settings: config::Source, dialect: Dialect) -> Result<Self, SourceError> {
        let current = Mutex::new(Arc::new(headers(&settings, &dialect)?));
        Ok(Self { settings, dialect, current })
    }

    /// The headers as last read.
    pub(super) fn current(&self) -> Arc<HeaderMap> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Headers that differ from the refused ones. Another request may have read them meanwhile, or they are read now.
    /// None where the files have not changed.
    pub(super) fn others_than(&self, refused: &HeaderMap) -> Option<Arc<HeaderMap>> {
        let current = self.current();
        if *current != *refused {
            return Some(current);
        }
        if !self.settings.key_files.any() {
            return None;
        }
        let mut settings = self.settings.clone();
        if let Err(err) = settings.read_keys() {
            tracing::warn!(error = format!("{err:#}"), "cannot read the key again");
            return None;
        }
        match headers(&settings, &self.dialect) {
            Ok(read) if read != *refused => {
                let read = Arc::new(read);
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = read.clone();
                tracing::info!(source = %self.settings.name, "a new key was read from its file");
                Some(read)
            }
            Ok(_) => None,
            Err(err) => {
                tracing::warn!(error = %err, "cannot use the key that was read again");
                None
            }
        }
    }
}

fn headers(settings: &config::Source, dialect: &Dialect) -> Result<HeaderMap, SourceError> {
    let wrong =
        |reason: String| SourceError::Configuration { source_name: settings.name.clone(), key: "api_key", reason };
    let key = settings.api_key.clone().ok_or_else(|| wrong("must be set".to_owned()))?;
    let credentials = Credentials { key, secret: settings.api_secret.clone() };
    let mut headers = HeaderMap::new();
    for (name, value) in dialect.headers(&credentials) {
        let mut value = HeaderValue::from_str(value.expose_secret())
            .map_err(|_| wrong(format!("holds characters that the header {name} cannot carry")))?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(headers)
}
