//! The output files of one recording. Bytes go in. Whole files and a manifest with their digests come out.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::config;
use crate::digest;
use crate::digest::CopyFailure;
use crate::domain::artifact::MANIFEST_SCHEMA;
use crate::domain::transcript::EngineInfo;

/// The files written so far. Each file appears only when it is complete. The manifest is written last.
pub(super) struct Files {
    dir: PathBuf,
    all: Vec<Value>,
}

impl Files {
    pub(super) fn in_folder(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), all: Vec::new() }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.all.iter().filter_map(|file| file["name"].as_str().map(str::to_owned)).collect()
    }

    pub(super) fn bytes(&mut self, name: &str, content_type: &str, bytes: &[u8]) -> Result<()> {
        self.copy(bytes, name, content_type)
    }

    pub(super) fn copy(&mut self, mut from: impl std::io::Read, name: &str, content_type: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir).context("--out: cannot write there")?;
        let digest = digest::copy(&mut from, &mut file).map_err(|failure| match failure {
            CopyFailure::Read(err) => anyhow::Error::new(err).context(format!("cannot read what is to be {name}")),
            CopyFailure::Write(err) => {
                anyhow::Error::new(err).context(format!("cannot write {name} (is the disk full?)"))
            }
        })?;
        open_to_all(file.path())?;
        file.persist(self.dir.join(name)).with_context(|| format!("cannot write {name}"))?;
        self.note(name, content_type, digest.size_bytes, &digest.sha256.to_string());
        Ok(())
    }

    pub(super) fn json<T: serde::Serialize>(&mut self, name: &str, value: &T) -> Result<()> {
        self.bytes(name, "application/json", &serde_json::to_vec_pretty(value)?)
    }

    pub(super) fn note(&mut self, name: &str, content_type: &str, size: u64, sha256: &str) {
        self.all.push(
            json!({ "name": name, "key": name, "size_bytes": size, "sha256": sha256, "content_type": content_type }),
        );
    }

    pub(super) fn manifest(mut self, settings: &config::Audio, engine: Option<&EngineInfo>) -> Result<Vec<String>> {
        let manifest = json!({
            "schema": MANIFEST_SCHEMA,
            "software": concat!("aftercall ", env!("CARGO_PKG_VERSION")),
            "artifacts": self.all,
            "engine": engine,
            "parameters": { "target_lufs": settings.target_lufs, "ceiling_dbtp": settings.ceiling_dbtp, "rate_hz": 48_000 },
        });
        let mut names = self.names();
        self.json("manifest.json", &manifest)?;
        names.push("manifest.json".to_owned());
        Ok(names)
    }
}

/// Sets mode 0644. A temporary file is readable only for its owner until then.
pub(super) fn open_to_all(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path, mode).with_context(|| format!("cannot set the mode of {}", path.display()))
}
