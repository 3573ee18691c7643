//! Keys that come from files. A changed key is read again without a restart.

use std::path::{Path, PathBuf};

use anyhow::Result;
use secrecy::SecretString;

use super::{RemoteEngine, Source, read_secret};

/// The files of key and secret. They are read again after a refusal.
#[derive(Debug, Clone, Default)]
pub struct KeyFiles {
    pub(super) key: Option<PathBuf>,
    pub(super) secret: Option<PathBuf>,
}

impl KeyFiles {
    /// True when at least one key comes from a file.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.key.is_some() || self.secret.is_some()
    }
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
}

impl Source {
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
}

fn read_again(key: &str, secret: &mut Option<SecretString>, file: Option<&Path>) -> Result<()> {
    if let Some(path) = file {
        *secret = Some(read_secret(key, path)?);
    }
    Ok(())
}
