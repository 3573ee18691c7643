//! Errors of the object stores. Each message names the object and the remedy.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::{Classify, Fault, Side};

pub(super) type Result<T, E = ObjectError> = std::result::Result<T, E>;

/// A failure of the object store, or of the local file to be stored.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The object does not exist.
    #[error("{key} is not in {place}")]
    Missing { place: String, key: String },
    /// The stored or returned content differs from what was written.
    #[error("{key} in {place} is not what was written: {difference}")]
    WrongContent { place: String, key: String, difference: String },
    /// The bytes to be stored do not match their description. Nothing was stored.
    #[error("the bytes for {key} are not the ones described: {difference}")]
    BodyChanged { key: String, difference: String },
    /// The store refused the credentials or the action.
    #[error("{place} denied {action} ({said}); check the access key and what its policy allows")]
    Denied { place: String, action: &'static str, said: String },
    /// The store is full, or a quota is used up.
    #[error("{place} has no room for {action} ({said}); raise its quota or free space; work continues by itself")]
    Full { place: String, action: &'static str, said: String },
    /// The bucket does not exist, or it is in another region.
    #[error("{place} cannot be used for {action}: {said}")]
    NoBucket { place: String, action: &'static str, said: String },
    /// The local disk is full.
    #[error("no space left for {}; free space or move it to a larger disk; work continues by itself", path.display())]
    DiskFull { path: PathBuf, source: io::Error },
    /// The file system does not allow this user to write, or to read.
    #[error("{} cannot be used by this user ({source}); check its owner and mode, and that it is not mounted read-only", path.display())]
    NotWritable { path: PathBuf, source: io::Error },
    /// The store asked for a pause.
    #[error("{place} asked for a pause of {} s ({said})", retry_after.as_secs_f64())]
    Throttled { place: String, retry_after: Duration, said: String },
    /// No answer, an incomplete answer or a 5xx.
    #[error("{place} did not complete {action}")]
    Unavailable {
        place: String,
        action: &'static str,
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The store refused the request as invalid.
    #[error("{place} rejected {action}: {said}")]
    Rejected { place: String, action: &'static str, said: String },
    /// The store did not confirm the encryption of `objects.sse`. The object was deleted again.
    #[error("{place} did not confirm objects.sse = \"{wanted}\" for {key} (it answered {answered})")]
    NotEncrypted { place: String, key: String, wanted: &'static str, answered: String },
    /// Something of an erased call can still be listed or read.
    #[error("{left} entries of {prefix} are still in {place}, the first is {example}")]
    StillThere { place: String, prefix: String, left: u64, example: String },
    /// A setting is missing or invalid.
    #[error("{key}: {reason}")]
    Configuration { key: &'static str, reason: String },
    /// Another failure of the local file system.
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl ObjectError {
    /// Classifies a file-system error by its remedy.
    pub(crate) fn from_io(action: &'static str, path: &Path, source: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let path = path.to_owned();
        match source.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => Self::DiskFull { path, source },
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Self::NotWritable { path, source },
            _ => Self::Io { action, path, source },
        }
    }
}

impl Classify for ObjectError {
    fn fault(&self) -> Fault {
        match self {
            Self::Throttled { retry_after, .. } => Fault::Throttled { retry_after: *retry_after },
            // An operator must fix a full or read-only disk, and a bucket that is full, missing or refuses us. The fix
            // applies to all waiting jobs. Dead-lettering them would only add a redrive, so the worker pauses and
            // retries.
            Self::Full { .. }
            | Self::Denied { .. }
            | Self::NoBucket { .. }
            | Self::Rejected { .. }
            | Self::NotEncrypted { .. }
            | Self::WrongContent { .. }
            | Self::BodyChanged { .. }
            | Self::DiskFull { .. }
            | Self::NotWritable { .. }
            | Self::Unavailable { .. }
            | Self::StillThere { .. }
            | Self::Io { .. } => Fault::Transient,
            Self::Missing { .. } | Self::Configuration { .. } => Fault::Permanent,
        }
    }

    fn side(&self) -> Side {
        match self {
            Self::BodyChanged { .. } => Side::Worker,
            Self::Configuration { .. } => Side::Configuration,
            _ => Side::ObjectStore,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_os(code: i32) -> ObjectError {
        ObjectError::from_io("write", Path::new("/data/objects/x"), io::Error::from_raw_os_error(code))
    }

    #[test]
    fn a_full_disk_is_waited_for_and_named() {
        // ENOSPC and EDQUOT, errno(3) on Linux.
        for code in [28, 122] {
            let err = from_os(code);
            assert_eq!(err.fault(), Fault::Transient);
            let text = err.to_string();
            assert!(text.contains("no space left") && text.contains("/data/objects/x"), "{text}");
        }
    }

    #[test]
    fn a_read_only_directory_says_what_to_check() {
        // EACCES and EROFS.
        for code in [13, 30] {
            let text = from_os(code).to_string();
            assert!(text.contains("read-only") && text.contains("/data/objects/x"), "{text}");
        }
    }
}
