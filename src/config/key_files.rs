//! Keys that come from files. A changed key is read again without a restart.

use std::path::{Path, PathBuf};

use anyhow::Result;
use secrecy::SecretString;

use super::secrets::read_secret;

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

/// Reads a key from its file again, where there is one.
pub(super) fn read_again(key: &str, secret: &mut Option<SecretString>, file: Option<&Path>) -> Result<()> {
    if let Some(path) = file {
        *secret = Some(read_secret(key, path)?);
    }
    Ok(())
}
