//! The description of a model that can be pulled.

use std::path::Path;

/// Names of the files that the engine loads.
pub(super) const WEIGHTS: &str = "model.onnx";
pub(super) const TOKENS: &str = "tokens.txt";

/// A file of a model.
#[derive(Debug, Clone, Copy)]
pub struct ModelFile {
    /// The file's name in the model's folder.
    pub name: &'static str,
    /// Address pinned to a revision, so that its content cannot change.
    pub url: &'static str,
    /// Length in bytes. Length and hash are `None` if they could not be verified here. The user then confirms the hash
    /// at the first pull.
    pub bytes: Option<u64>,
    pub sha256: Option<&'static str>,
}

/// A model that can be pulled.
#[derive(Debug, Clone, Copy)]
pub struct KnownModel {
    pub name: &'static str,
    pub description: &'static str,
    /// BCP 47 primary tags. An empty list means many languages.
    pub languages: &'static [&'static str],
    pub licence: &'static str,
    /// Approximate size, from its publisher.
    pub megabytes: u32,
    /// Empty if the model is not published as single files. Then unpack or export `source` and pull with `--from` its
    /// folder.
    pub files: &'static [ModelFile],
    pub source: &'static str,
    /// The `model.json` to write beside the files, with data that they lack.
    pub(super) manifest: &'static str,
}

impl KnownModel {
    /// The files that its folder must contain.
    pub(super) fn names(&self) -> Vec<&'static str> {
        // A model without single published files has the files that the engine loads.
        if self.files.is_empty() { vec![WEIGHTS, TOKENS] } else { self.files.iter().map(|file| file.name).collect() }
    }

    /// Whether the model is installed.
    #[must_use]
    pub fn is_in(&self, models_dir: &Path) -> bool {
        let dir = models_dir.join(self.name);
        self.names().iter().all(|name| dir.join(name).is_file())
    }
}
