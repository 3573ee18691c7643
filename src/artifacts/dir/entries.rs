//! The listing of a directory: names and objects, sorted by key.

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;

use crate::artifacts::error::ObjectError;
use crate::artifacts::{Entry, EntryKind, Result};

/// The names in a directory, sorted. Empty where the directory does not exist.
pub(super) fn sorted_names(dir: &Path) -> Result<Vec<String>> {
    let failed = |err| ObjectError::from_io("list", dir, err);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(err) => return Err(failed(err)),
    };
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed)?;
    names.sort_unstable();
    Ok(names)
}

/// Everything in a call's directory, sorted.
pub(super) fn entries_of(dir: &Path, prefix: &str) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for name in sorted_names(dir)? {
        let path = dir.join(&name);
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            // Another process erased it after the listing.
            Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
            Err(err) => return Err(ObjectError::from_io("look at", &path, err)),
        };
        let modified = meta.modified().ok().and_then(|at| Timestamp::try_from(at).ok());
        let kind = if name.starts_with('.') { EntryKind::Temporary } else { EntryKind::Current };
        let key = format!("{prefix}{name}");
        entries.push(Entry { key, size_bytes: meta.len(), modified, kind, version: None });
    }
    Ok(entries)
}

/// True when everything under `prefix` sorts at or before `after`.
pub(super) fn before(prefix: &str, after: &str) -> bool {
    prefix < after && !after.starts_with(prefix)
}
