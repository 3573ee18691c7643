//! Object storage for artifacts: one trait and two stores. `dir` is a durable local directory, `s3` is any
//! S3-compatible service. `tests/it/objects.rs` tests both with the same suite.

mod bucket;
mod digest;
mod dir;
mod error;
mod local;
mod s3;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::config::Objects;
use crate::config::ObjectsKind;
use crate::domain::{Artifact, ArtifactKey, ArtifactKind, CallUid, OrgUid, Sha256};
use crate::telemetry;
use crate::telemetry::Use;

pub use bucket::S3Store;
pub use dir::DirStore;
pub use error::ObjectError;
use error::Result;

/// The content to be stored.
#[derive(Clone)]
pub enum Body {
    Bytes(Bytes),
    /// A local file. It is read more than once and must not change meanwhile.
    File(PathBuf),
    /// A local file that was written for the store. Its size and digest were taken while it was written, and it is
    /// never written again. A store on the same file system links it without a copy.
    Made(PathBuf),
}

/// Prefix of all keys of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallPrefix(String);

impl CallPrefix {
    /// The prefix of this call.
    #[must_use]
    pub fn new(org: OrgUid, call: CallUid) -> Self {
        Self(ArtifactKey::call_prefix(org, call))
    }

    /// The prefix as text; it ends with `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CallPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Type of a listing entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// The version that a read returns.
    Current,
    /// An older version that is still stored.
    Superseded,
    DeleteMarker,
    /// A multipart upload that was never completed.
    Upload,
    /// A temporary file that a crash left behind.
    Temporary,
}

/// One entry of a listing. The key is text, because a store may contain objects of other programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub size_bytes: u64,
    pub modified: Option<Timestamp>,
    pub kind: EntryKind,
    /// Version id, or the upload id of an [`EntryKind::Upload`].
    pub version: Option<String>,
}

/// Metadata of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    pub size_bytes: u64,
    pub content_type: Option<String>,
    /// The digest that was recorded at writing, where the store keeps it.
    pub sha256: Option<Sha256>,
}

/// Counts of an erasure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Current objects.
    pub objects: u64,
    /// Older versions and delete markers.
    pub versions: u64,
    /// Unfinished uploads and temporary files.
    pub unfinished: u64,
}

/// Result of a successful check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    pub place: String,
    pub server_date: Option<Timestamp>,
}

/// An object store for artifacts. A write is durable and complete when it returns. A read is verified against the
/// digest of the write.
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug {
    /// The store in words: `directory …`, `bucket … at …`.
    fn place(&self) -> String;

    /// Stores the body under the artifact's key. Idempotent.
    async fn put(&self, artifact: &Artifact, body: Body) -> Result<()>;

    /// The object's bytes, verified.
    async fn get(&self, artifact: &Artifact) -> Result<Bytes>;

    /// Writes the object to `dest`, verified. `dest` is complete or does not exist.
    async fn get_to_file(&self, artifact: &Artifact, dest: &Path) -> Result<()>;

    /// Size and type. `None` where the object does not exist.
    async fn head(&self, key: &ArtifactKey) -> Result<Option<ObjectHead>>;

    /// All current objects after this key, sorted by key.
    fn list_all(&self, after: Option<String>) -> BoxStream<'static, Result<Entry>>;

    /// Everything of a call, including versions, delete markers, unfinished uploads and temporary files.
    async fn list_call(&self, call: &CallPrefix) -> Result<Vec<Entry>>;

    /// Removes every version of one object. A missing object is no error.
    async fn delete(&self, key: &ArtifactKey) -> Result<()>;

    /// Removes everything of a call for good. `known` are the keys of the record. They are removed even when the
    /// listing does not show them.
    async fn delete_prefix(&self, call: &CallPrefix, known: &[ArtifactKey]) -> Result<Erased>;

    /// Fails with [`ObjectError::StillThere`] while anything of the call can be listed, or any known key can be read.
    async fn verify_empty(&self, call: &CallPrefix, known: &[ArtifactKey]) -> Result<()>;

    /// Writes, reads and removes a probe object to test the configuration.
    async fn check(&self) -> Result<StoreHealth>;

    /// The store's own clock, where it has one.
    async fn server_date(&self) -> Result<Option<Timestamp>>;
}

/// The configured store. It makes no request and creates nothing.
///
/// # Errors
/// [`ObjectError::Configuration`] names the missing setting.
pub fn open(config: &Objects) -> Result<Arc<dyn ObjectStore>> {
    Ok(match config.kind {
        ObjectsKind::Dir => Arc::new(DirStore::new(config.path.clone())),
        ObjectsKind::S3 => Arc::new(S3Store::new(config)?),
    })
}

/// Describes bytes as an artifact of a call.
#[must_use]
pub fn artifact_of_bytes(org: OrgUid, call: CallUid, kind: ArtifactKind, bytes: &[u8]) -> Artifact {
    describe(org, call, kind, digest::of_bytes(bytes))
}

/// Describes a local file as an artifact of a call.
///
/// # Errors
/// [`ObjectError::Io`] when the file cannot be read.
pub async fn artifact_of_file(org: OrgUid, call: CallUid, kind: ArtifactKind, path: &Path) -> Result<Artifact> {
    let path = path.to_owned();
    let digest = blocking(move || digest::of_file(&path)).await?;
    Ok(describe(org, call, kind, digest))
}

/// Describes a file by the size (bytes) and digest that were taken while it was written.
#[must_use]
pub fn artifact_of_made(org: OrgUid, call: CallUid, kind: ArtifactKind, size_bytes: u64, sha256: Sha256) -> Artifact {
    describe(org, call, kind, digest::Digest { size_bytes, sha256 })
}

fn describe(org: OrgUid, call: CallUid, kind: ArtifactKind, digest: digest::Digest) -> Artifact {
    Artifact {
        name: kind.name(),
        key: ArtifactKey::new(org, call, kind, &digest.sha256),
        size_bytes: digest.size_bytes,
        sha256: digest.sha256,
        content_type: kind.content_type().as_str().to_owned(),
    }
}

/// Runs blocking file-system work on a blocking thread.
async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|stopped| {
        Err(ObjectError::Unavailable {
            place: "this machine".to_owned(),
            action: "file-system work",
            cause: Box::new(stopped),
        })
    })
}

/// Counts a write in the usage of the current job.
fn count_write(artifact: &Artifact) {
    telemetry::used(Use::ObjectWrites, 1);
    telemetry::used(Use::BytesStored, artifact.size_bytes);
}
