//! Where artifacts are kept: one trait, two real stores. `dir` is a durable local directory, `s3` any
//! S3-compatible service. What is true of both is written once, in `tests/it/objects.rs`.

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

type Result<T, E = ObjectError> = std::result::Result<T, E>;

/// What is to be stored.
#[derive(Clone)]
pub enum Body {
    Bytes(Bytes),
    /// A local file; it is read more than once and must not change meanwhile.
    File(PathBuf),
    /// A local file that was made for the store: described as it was written, and nobody ever writes to it again (a new
    /// one of its name is another file). A store on the same file system takes it over as it is.
    Made(PathBuf),
}

/// All keys of one call and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallPrefix(String);

impl CallPrefix {
    /// The prefix of this call.
    #[must_use]
    pub fn new(org: OrgUid, call: CallUid) -> Self {
        Self(ArtifactKey::call_prefix(org, call))
    }

    /// As the store sees it; ends in `/`.
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

/// What an entry of a listing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// What a read answers.
    Current,
    /// An older version, still in the store.
    Superseded,
    DeleteMarker,
    /// A multipart upload nobody completed.
    Upload,
    /// A file a crash left behind before it got its name.
    Temporary,
}

/// One line of a listing. The key is text: a store may hold what this program never wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub size_bytes: u64,
    pub modified: Option<Timestamp>,
    pub kind: EntryKind,
    /// Version id, or upload id of an [`EntryKind::Upload`].
    pub version: Option<String>,
}

/// What the store says about an object without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    pub size_bytes: u64,
    pub content_type: Option<String>,
    /// As recorded at writing, where the store keeps such a thing.
    pub sha256: Option<Sha256>,
}

/// What an erasure took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Current objects.
    pub objects: u64,
    /// Older versions and delete markers.
    pub versions: u64,
    /// Unfinished uploads and temporary files.
    pub unfinished: u64,
}

/// The answer of a store that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub place: String,
    pub server_date: Option<Timestamp>,
}

/// A place for artifacts. Every write is durable and whole when it returns, every read is checked against the
/// digest it was written with.
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug {
    /// The store in words: `directory …`, `bucket … at …`.
    fn place(&self) -> String;

    /// Stores the body under the artifact's key. Repeating it is harmless.
    async fn put(&self, artifact: &Artifact, body: Body) -> Result<()>;

    /// The object's bytes, verified.
    async fn get(&self, artifact: &Artifact) -> Result<Bytes>;

    /// The object as a file, verified; `dest` appears whole or not at all.
    async fn get_to_file(&self, artifact: &Artifact, dest: &Path) -> Result<()>;

    /// Size and type, `None` where there is no such object.
    async fn head(&self, key: &ArtifactKey) -> Result<Option<ObjectHead>>;

    /// All current objects after this key, sorted by key.
    fn list_all(&self, after: Option<String>) -> BoxStream<'static, Result<Entry>>;

    /// Everything of a call: versions, delete markers, unfinished uploads and temporary files too.
    async fn list_call(&self, call: &CallPrefix) -> Result<Vec<Entry>>;

    /// Removes every version of one object; one that is not there is removed already.
    async fn delete(&self, key: &ArtifactKey) -> Result<()>;

    /// Removes everything of a call, irrevocably. `known` are the keys the record names: they are removed even when
    /// the store's listing does not show them.
    async fn delete_prefix(&self, call: &CallPrefix, known: &[ArtifactKey]) -> Result<Erased>;

    /// Fails with [`ObjectError::StillThere`] while anything of the call can be listed or any known key be read.
    async fn verify_empty(&self, call: &CallPrefix, known: &[ArtifactKey]) -> Result<()>;

    /// Writes, reads and removes a probe: the store works for this program as it is configured.
    async fn check(&self) -> Result<Health>;

    /// The store's own clock, where it has one.
    async fn server_date(&self) -> Result<Option<Timestamp>>;
}

/// The store the configuration names. No request is made and nothing is created.
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

/// Describes a file as its maker has: that many bytes, with that digest.
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

/// Runs file-system work where it may wait.
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

/// Counts a write against the job that makes it.
fn count_write(artifact: &Artifact) {
    telemetry::used(Use::ObjectWrites, 1);
    telemetry::used(Use::BytesStored, artifact.size_bytes);
}
