//! The local object store: `<root>/<key>` in a directory. A crash at any moment leaves either no object or the complete
//! object. File modes are 0700 and 0600. The media type follows from the extension.

mod entries;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use tempfile::TempPath;
use tokio::sync::mpsc;

use self::entries::{before, entries_of, sorted_names};
use super::digest::{self, CopyFailure, Digest};
use super::error::ObjectError;
use super::local::{TEMPORARY, parent, persist, sync_dir, temporary_in};
use super::{Body, CallPrefix, Entry, EntryKind, Erased, ObjectHead, ObjectStore, Result, StoreHealth, blocking};
use crate::domain::{Artifact, ArtifactKey};

/// A concurrent erasure of the call may remove the directory between its creation and its use. A few tries are enough
/// then.
const PUT_TRIES: u32 = 3;

/// The durable local directory.
#[derive(Debug, Clone)]
pub struct DirStore {
    root: PathBuf,
    /// Size of the latest object that did not fit, 0 when there is none. A probe must find this much space.
    wanted_bytes: Arc<AtomicU64>,
}

/// Smallest probe.
const PROBE_BYTES: u64 = 65_536;
/// Largest probe, for any object size.
const MOST_PROBE_BYTES: u64 = 256 << 20;

impl DirStore {
    /// A store in this directory. The first write creates the directory.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, wanted_bytes: Arc::default() }
    }

    fn path(&self, key: &ArtifactKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn missing(&self, key: &ArtifactKey) -> ObjectError {
        ObjectError::Missing { place: self.place(), key: key.to_string() }
    }

    /// Fails when the root is missing. A missing root is a lost mount, not an empty store, so it proves nothing.
    fn require_root(&self) -> Result<()> {
        match fs::metadata(&self.root) {
            Ok(meta) if meta.is_dir() => Ok(()),
            Ok(_) => Err(ObjectError::from_io("use", &self.root, io::ErrorKind::NotADirectory.into())),
            Err(err) => Err(ObjectError::from_io("use", &self.root, err)),
        }
    }

    fn put_now(&self, artifact: &Artifact, body: &Body) -> Result<()> {
        let path = self.path(&artifact.key);
        let dir = parent(&path);
        let mut tries = 1;
        loop {
            self.make_dirs(dir)?;
            match write_whole(artifact, body, dir, &path) {
                Err(ObjectError::Io { source, path, .. })
                    if source.kind() == io::ErrorKind::NotFound && path.starts_with(dir) && tries < PUT_TRIES =>
                {
                    tries += 1;
                }
                Err(full @ ObjectError::DiskFull { .. }) => {
                    self.wanted_bytes.store(artifact.size_bytes, Ordering::Relaxed);
                    return Err(full);
                }
                done => return done,
            }
        }
    }

    /// Creates `dir` below the root and makes each new directory entry durable.
    fn make_dirs(&self, dir: &Path) -> Result<()> {
        if !self.root.is_dir() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.root)
                .map_err(|err| ObjectError::from_io("create", &self.root, err))?;
            sync_dir(parent(&self.root))?;
        }
        let mut made = self.root.clone();
        for part in dir.strip_prefix(&self.root).unwrap_or(Path::new("")) {
            made.push(part);
            match DirBuilder::new().mode(0o700).create(&made) {
                Ok(()) => sync_dir(parent(&made))?,
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                Err(err) => return Err(ObjectError::from_io("create", &made, err)),
            }
        }
        Ok(())
    }

    /// Opens an object. An object of another size is refused before it is read.
    fn open(&self, artifact: &Artifact) -> Result<(File, PathBuf)> {
        let path = self.path(&artifact.key);
        let failed = |err: io::Error| match err.kind() {
            io::ErrorKind::NotFound => self.missing(&artifact.key),
            _ => ObjectError::from_io("read", &path, err),
        };
        let file = File::open(&path).map_err(failed)?;
        let size_bytes = file.metadata().map_err(failed)?.len();
        if size_bytes != artifact.size_bytes {
            return Err(self.wrong(artifact, format!("{size_bytes} bytes instead of {}", artifact.size_bytes)));
        }
        Ok((file, path))
    }

    fn wrong(&self, artifact: &Artifact, difference: String) -> ObjectError {
        ObjectError::WrongContent { place: self.place(), key: artifact.key.to_string(), difference }
    }

    fn get_now(&self, artifact: &Artifact) -> Result<Bytes> {
        let (mut file, path) = self.open(artifact)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|err| ObjectError::from_io("read", &path, err))?;
        match digest::of_bytes(&bytes).difference(artifact) {
            Some(difference) => Err(self.wrong(artifact, difference)),
            None => Ok(bytes.into()),
        }
    }

    fn get_to_file_now(&self, artifact: &Artifact, dest: &Path) -> Result<()> {
        let (mut file, path) = self.open(artifact)?;
        let mut temporary = temporary_in(parent(dest))?;
        let digest = digest::copy(&mut file, &mut temporary).map_err(|failure| match failure {
            CopyFailure::Read(err) => ObjectError::from_io("read", &path, err),
            CopyFailure::Write(err) => ObjectError::from_io("write", dest, err),
        })?;
        if let Some(difference) = digest.difference(artifact) {
            return Err(self.wrong(artifact, difference));
        }
        persist(temporary, dest)
    }

    fn head_now(&self, key: &ArtifactKey) -> Result<Option<ObjectHead>> {
        let path = self.path(key);
        match fs::symlink_metadata(&path) {
            Ok(meta) => {
                let content_type = content_type(key.as_str()).map(str::to_owned);
                Ok(Some(ObjectHead { size_bytes: meta.len(), content_type, sha256: None }))
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(ObjectError::from_io("look at", &path, err)),
        }
    }

    fn list_call_now(&self, call: &CallPrefix) -> Result<Vec<Entry>> {
        self.require_root()?;
        entries_of(&self.root.join(call.as_str()), call.as_str())
    }

    fn delete_now(&self, key: &ArtifactKey) -> Result<()> {
        self.require_root()?;
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(parent(&path)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(err) => Err(ObjectError::from_io("remove", &path, err)),
        }
    }

    fn delete_prefix_now(&self, call: &CallPrefix) -> Result<Erased> {
        let entries = self.list_call_now(call)?;
        let dir = self.root.join(call.as_str());
        match fs::remove_dir_all(&dir) {
            Ok(()) => sync_dir(parent(&dir))?,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(ObjectError::from_io("remove", &dir, err)),
        }
        let unfinished = entries.iter().filter(|entry| entry.kind == EntryKind::Temporary).count() as u64;
        Ok(Erased { objects: entries.len() as u64 - unfinished, versions: 0, unfinished })
    }

    fn check_now(&self) -> Result<StoreHealth> {
        self.make_dirs(&self.root)?;
        let probe = self.root.join(format!(".probe-{}", uuid::Uuid::now_v7()));
        let written = b"aftercall probe";
        let room = self.wanted_bytes.load(Ordering::Relaxed).clamp(PROBE_BYTES, MOST_PROBE_BYTES);
        let failed = |action| move |err| (action, err);
        let outcome = write_probe(&probe, written, room).map_err(failed("write")).and_then(|()| {
            let mut read = vec![0; written.len()];
            let mut file = File::open(&probe).map_err(failed("read"))?;
            file.read_exact(&mut read).map_err(failed("read")).map(|()| read)
        });
        let removed = fs::remove_file(&probe).map_err(failed("remove"));
        let read = outcome
            .and_then(|read| removed.map(|()| read))
            .map_err(|(action, err)| ObjectError::from_io(action, &probe, err))?;
        if read != written {
            return Err(ObjectError::WrongContent {
                place: self.place(),
                key: probe.display().to_string(),
                difference: "the probe came back changed".to_owned(),
            });
        }
        self.wanted_bytes.store(0, Ordering::Relaxed);
        Ok(StoreHealth { place: self.place(), server_date: None })
    }

    /// Sends all objects after `after`, sorted by key.
    fn walk(&self, after: &str, send: &mpsc::Sender<Result<Entry>>) -> Result<()> {
        self.require_root()?;
        for org in sorted_names(&self.root.join("v1"))? {
            let org = format!("v1/{org}/");
            if before(&org, after) {
                continue;
            }
            for call in sorted_names(&self.root.join(&org))? {
                let prefix = format!("{org}{call}/");
                if before(&prefix, after) {
                    continue;
                }
                let entries = entries_of(&self.root.join(&prefix), &prefix)?;
                let wanted = |entry: &Entry| entry.kind == EntryKind::Current && entry.key.as_str() > after;
                for entry in entries.into_iter().filter(wanted) {
                    if send.blocking_send(Ok(entry)).is_err() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for DirStore {
    fn place(&self) -> String {
        format!("directory {}", self.root.display())
    }

    async fn put(&self, artifact: &Artifact, body: Body) -> Result<()> {
        super::count_write(artifact);
        let (store, artifact) = (self.clone(), artifact.clone());
        blocking(move || store.put_now(&artifact, &body)).await
    }

    async fn get(&self, artifact: &Artifact) -> Result<Bytes> {
        let (store, artifact) = (self.clone(), artifact.clone());
        blocking(move || store.get_now(&artifact)).await
    }

    async fn get_to_file(&self, artifact: &Artifact, dest: &Path) -> Result<()> {
        let (store, artifact, dest) = (self.clone(), artifact.clone(), dest.to_owned());
        blocking(move || store.get_to_file_now(&artifact, &dest)).await
    }

    async fn head(&self, key: &ArtifactKey) -> Result<Option<ObjectHead>> {
        let (store, key) = (self.clone(), key.clone());
        blocking(move || store.head_now(&key)).await
    }

    fn list_all(&self, after: Option<String>) -> BoxStream<'static, Result<Entry>> {
        let store = self.clone();
        // The walk waits for the reader, so the memory use does not grow with the number of objects.
        let (send, receive) = mpsc::channel(256);
        tokio::task::spawn_blocking(move || {
            if let Err(err) = store.walk(after.as_deref().unwrap_or_default(), &send) {
                // The receiver may be gone.
                let _ = send.blocking_send(Err(err));
            }
        });
        stream::unfold(receive, async |mut receive| receive.recv().await.map(|entry| (entry, receive))).boxed()
    }

    async fn list_call(&self, call: &CallPrefix) -> Result<Vec<Entry>> {
        let (store, call) = (self.clone(), call.clone());
        blocking(move || store.list_call_now(&call)).await
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<()> {
        let (store, key) = (self.clone(), key.clone());
        blocking(move || store.delete_now(&key)).await
    }

    /// The directory listing is complete, so the known keys are not needed here.
    async fn delete_prefix(&self, call: &CallPrefix, _known: &[ArtifactKey]) -> Result<Erased> {
        let (store, call) = (self.clone(), call.clone());
        blocking(move || store.delete_prefix_now(&call)).await
    }

    async fn verify_empty(&self, call: &CallPrefix, _known: &[ArtifactKey]) -> Result<()> {
        let left = self.list_call(call).await?;
        let Some(first) = left.first() else { return Ok(()) };
        Err(ObjectError::StillThere {
            place: self.place(),
            prefix: call.to_string(),
            left: left.len() as u64,
            example: first.key.clone(),
        })
    }

    async fn check(&self) -> Result<StoreHealth> {
        let store = self.clone();
        blocking(move || store.check_now()).await
    }

    async fn server_date(&self) -> Result<Option<Timestamp>> {
        Ok(None)
    }
}

/// Writes a file with this start and this size in bytes.
fn write_probe(path: &Path, begins: &[u8], room: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(begins)?;
    io::copy(&mut io::repeat(0).take(room.saturating_sub(begins.len() as u64)), &mut file)?;
    file.sync_all()
}

fn write_whole(artifact: &Artifact, body: &Body, dir: &Path, path: &Path) -> Result<()> {
    if let Body::Made(from) = body
        && let Some(name) = second_name(from, dir)
    {
        return take_over(artifact, name, path);
    }
    let mut temporary = temporary_in(dir)?;
    let digest = match body {
        Body::Bytes(bytes) => digest::copy(&mut bytes.as_ref(), &mut temporary),
        Body::File(from) | Body::Made(from) => {
            let mut file = File::open(from).map_err(|err| ObjectError::from_io("read", from, err))?;
            digest::copy(&mut file, &mut temporary)
        }
    };
    let digest = digest.map_err(|failure| match (failure, body) {
        (CopyFailure::Read(err), Body::File(from) | Body::Made(from)) => ObjectError::from_io("read", from, err),
        (CopyFailure::Read(err) | CopyFailure::Write(err), _) => ObjectError::from_io("write", path, err),
    })?;
    digest.as_described(artifact)?;
    persist(temporary, path)
}

/// Links the file under a temporary name in `dir`. None on another file system, or where hard links do not exist.
fn second_name(from: &Path, dir: &Path) -> Option<TempPath> {
    let linked = tempfile::Builder::new().prefix(TEMPORARY).make_in(dir, |name| fs::hard_link(from, name));
    Some(linked.ok()?.into_temp_path())
}

/// Makes the file durable and renames it to the object's path.
fn take_over(artifact: &Artifact, name: TempPath, path: &Path) -> Result<()> {
    let failed = |err| ObjectError::from_io("write", path, err);
    let file = File::open(&name).map_err(failed)?;
    let size_bytes = file.metadata().map_err(failed)?.len();
    Digest { size_bytes, sha256: artifact.sha256 }.as_described(artifact)?;
    file.sync_all().map_err(failed)?;
    let temporary = name.to_path_buf();
    name.persist(path).map_err(|err| failed(err.error))?;
    // rename(2) does nothing when both names belong to one file. Then the object was stored before, and the temporary
    // name is still there.
    match fs::remove_file(&temporary) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(failed(err)),
        _ => {}
    }
    sync_dir(parent(path))
}

fn content_type(key: &str) -> Option<&'static str> {
    use crate::domain::Container;
    let extension = key.rsplit_once('.')?.1;
    if extension == "json" {
        return Some("application/json");
    }
    Container::KNOWN.into_iter().find(|container| container.extension() == extension).map(Container::content_type)
}
