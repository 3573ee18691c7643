//! Local files that are complete or do not exist.

use std::fs::File;
use std::path::Path;

use tempfile::NamedTempFile;

use super::Result;
use super::error::ObjectError;

/// Prefix of temporary names. A key's name has no leading dot, so a listing can separate them from objects.
pub(super) const TEMPORARY: &str = ".tmp-";

/// The directory that contains a file.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."))
}

/// A file of mode 0600. It is deleted unless it is [persisted](persist).
pub(super) fn temporary_in(dir: &Path) -> Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(dir)
        .map_err(|err| ObjectError::from_io("create a file in", dir, err))
}

/// Renames a written file to its name. The bytes are made durable first, then the name, then the directory.
pub(super) fn persist(temporary: NamedTempFile, path: &Path) -> Result<()> {
    temporary.as_file().sync_all().map_err(|err| ObjectError::from_io("write", path, err))?;
    temporary.persist(path).map_err(|err| ObjectError::from_io("write", path, err.error))?;
    sync_dir(parent(path))
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|err| ObjectError::from_io("flush", dir, err))
}
