//! The S3 object store: `ObjectStore` over S3 requests.
//!
//! It relies on the service only to store bytes. Every write carries digests and is checked afterwards. Every read is
//! hashed again. The database row decides between concurrent writers, because not every service supports conditional
//! writes.

use std::path::Path;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::digest::{self, Hasher};
use super::error::ObjectError;
use super::local::{parent, persist, temporary_in};
use super::s3::{Incoming, S3Requests, Sent};
use super::{Body, CallPrefix, Entry, EntryKind, Erased, ObjectHead, ObjectStore, Result, StoreHealth, blocking};
use crate::config::{Objects, Sse};
use crate::domain::{Artifact, ArtifactKey};

/// Larger bodies are uploaded in parts. Both values are far above S3's minimum part size of 5 MiB.
const MULTIPART_ABOVE_BYTES: u64 = 64 * 1024 * 1024;
const PART_BYTES: usize = 16 * 1024 * 1024;
/// Concurrent deletes of one erasure.
const DELETES_AT_ONCE: usize = 8;
/// Prefix of the probes of `check`, outside the prefixes of the calls.
const PROBE_PREFIX: &str = "aftercall-probe/";
/// Prefix of all artifact keys.
const ARTIFACT_PREFIX: &str = "v1/";

/// A bucket of an S3-compatible service.
#[derive(Debug, Clone)]
pub struct S3Store {
    requests: S3Requests,
    sse: Sse,
    multipart_above_bytes: u64,
    part_bytes: usize,
}

impl S3Store {
    /// A store in the configured bucket. It makes no request.
    ///
    /// # Errors
    /// [`ObjectError::Configuration`] names the missing or unusable setting.
    pub fn new(config: &Objects) -> Result<Self> {
        Ok(Self {
            requests: S3Requests::new(config)?,
            sse: config.sse,
            multipart_above_bytes: MULTIPART_ABOVE_BYTES,
            part_bytes: PART_BYTES,
        })
    }

    /// Sets the size above which a body is uploaded in parts, and the size of a part, both in bytes. S3 requires at
    /// least 5 MiB per part.
    #[must_use]
    pub fn with_parts(self, multipart_above_bytes: u64, part_bytes: usize) -> Self {
        Self { multipart_above_bytes, part_bytes, ..self }
    }

    fn wrong(&self, key: &str, difference: String) -> ObjectError {
        ObjectError::WrongContent { place: self.place(), key: key.to_owned(), difference }
    }

    async fn put_single(&self, artifact: &Artifact, body: &Body) -> Result<Sent> {
        let sending = match body {
            Body::Bytes(bytes) => digest::sending_bytes(bytes),
            Body::File(path) | Body::Made(path) => {
                let path = path.clone();
                blocking(move || digest::sending_file(&path)).await?
            }
        };
        sending.digest.as_described(artifact)?;
        self.requests.put(artifact.key.as_str(), &artifact.content_type, body, &sending).await
    }

    /// Uploads a body in parts. The object becomes visible with the last request. A failure aborts the upload.
    async fn put_in_parts(&self, artifact: &Artifact, body: &Body) -> Result<Sent> {
        let key = artifact.key.as_str();
        let upload = self.requests.begin_upload(key, &artifact.content_type, &artifact.sha256).await?;
        let sent = match body {
            Body::Bytes(bytes) => self.send_parts(artifact, &upload, &mut bytes.as_ref()).await,
            Body::File(path) | Body::Made(path) => match tokio::fs::File::open(path).await {
                Ok(mut file) => self.send_parts(artifact, &upload, &mut file).await,
                Err(err) => Err(ObjectError::from_io("read", path, err)),
            },
        };
        if sent.is_err() {
            // Best effort: the erasure of the call finds and removes a remaining upload.
            let _ = self.requests.abort_upload(key, &upload).await;
        }
        sent
    }

    async fn send_parts<R>(&self, artifact: &Artifact, upload: &str, from: &mut R) -> Result<Sent>
    where
        R: AsyncRead + Unpin + Send,
    {
        let key = artifact.key.as_str();
        let mut whole = Hasher::default();
        let mut parts = Vec::new();
        for number in 1.. {
            let bytes = read_part(from, self.part_bytes)
                .await
                .map_err(|err| self.requests.unavailable("reading a part to send", err))?;
            if bytes.is_empty() {
                break;
            }
            whole.update(&bytes);
            parts.push(self.requests.put_part(key, upload, number, bytes).await?);
        }
        whole.finish().as_described(artifact)?;
        if let Some(sent) = self.requests.end_upload(key, upload, parts).await? {
            return Ok(sent);
        }
        match self.requests.look_at(key).await? {
            Some(stored) => Ok(stored.sent),
            None => Err(self.wrong(key, "another process ended its upload".to_owned())),
        }
    }

    /// Deletes an object that the service did not encrypt as configured.
    async fn confirm_encryption(&self, key: &str, sent: &Sent) -> Result<()> {
        let wanted = match self.sse {
            Sse::None => return Ok(()),
            Sse::Aes256 => "AES256",
            Sse::AwsKms => "aws:kms",
        };
        if sent.encryption.as_deref() == Some(wanted) {
            return Ok(());
        }
        self.requests.delete(key, sent.version.as_deref()).await?;
        let answered = sent.encryption.clone().unwrap_or_else(|| "nothing".to_owned());
        Err(ObjectError::NotEncrypted { place: self.place(), key: key.to_owned(), wanted, answered })
    }

    /// Checks that the service stores what was sent.
    async fn confirm_stored(&self, artifact: &Artifact) -> Result<()> {
        let key = artifact.key.as_str();
        let Some(stored) = self.head(&artifact.key).await? else {
            return Err(self.wrong(key, "it cannot be found after the write".to_owned()));
        };
        if stored.size_bytes != artifact.size_bytes {
            return Err(self.wrong(key, format!("{} bytes instead of {}", stored.size_bytes, artifact.size_bytes)));
        }
        match stored.sha256 {
            Some(sha256) if sha256 != artifact.sha256 => {
                Err(self.wrong(key, format!("it is recorded with sha256 {sha256}")))
            }
            _ => Ok(()),
        }
    }

    async fn open(&self, artifact: &Artifact) -> Result<Incoming<'_>> {
        let key = artifact.key.as_str();
        let Some(incoming) = self.requests.get(key).await? else {
            return Err(ObjectError::Missing { place: self.place(), key: key.to_owned() });
        };
        match incoming.size_bytes {
            Some(size) if size != artifact.size_bytes => {
                Err(self.wrong(key, format!("{size} bytes instead of {}", artifact.size_bytes)))
            }
            _ => Ok(incoming),
        }
    }

    /// Copies a body and verifies it. It stops at the expected size. `dest` is the target's name for errors.
    async fn read_into<W>(&self, artifact: &Artifact, mut from: Incoming<'_>, to: &mut W, dest: &Path) -> Result<()>
    where
        W: AsyncWrite + Unpin + Send,
    {
        let key = artifact.key.as_str();
        let mut hasher = Hasher::default();
        while let Some(block) = from.next().await? {
            hasher.update(&block);
            if hasher.size_bytes() > artifact.size_bytes {
                return Err(self.wrong(key, format!("more than {} bytes", artifact.size_bytes)));
            }
            to.write_all(&block).await.map_err(|err| ObjectError::from_io("write", dest, err))?;
        }
        to.flush().await.map_err(|err| ObjectError::from_io("write", dest, err))?;
        match hasher.finish().difference(artifact) {
            Some(difference) => Err(self.wrong(key, difference)),
            None => Ok(()),
        }
    }

    /// Everything stored under a prefix, including unfinished uploads.
    async fn everything_under(&self, prefix: &str) -> Result<Vec<Entry>> {
        let mut entries = self.requests.versions_under(prefix).await?;
        entries.extend(self.requests.uploads_under(prefix).await?);
        Ok(entries)
    }

    async fn remove(&self, entry: &Entry) -> Result<()> {
        match (entry.kind, &entry.version) {
            (EntryKind::Upload, Some(upload)) => self.requests.abort_upload(&entry.key, upload).await,
            (_, version) => self.requests.delete(&entry.key, version.as_deref()).await,
        }
    }

    /// The keys of the record that can still be read, with their versions.
    async fn readable(&self, known: &[ArtifactKey]) -> Result<Vec<(String, Option<String>)>> {
        let mut left = Vec::new();
        for key in known {
            if let Some(stored) = self.requests.look_at(key.as_str()).await? {
                left.push((key.to_string(), stored.sent.version));
            }
        }
        Ok(left)
    }

    async fn write_probe(&self, key: &str, bytes: &Bytes) -> Result<Sent> {
        let sending = digest::sending_bytes(bytes);
        self.requests.put(key, "text/plain", &Body::Bytes(bytes.clone()), &sending).await
    }

    async fn read_probe(&self, key: &str) -> Result<Bytes> {
        let Some(mut incoming) = self.requests.get(key).await? else {
            return Err(ObjectError::Missing { place: self.place(), key: key.to_owned() });
        };
        let mut bytes = BytesMut::new();
        while let Some(block) = incoming.next().await? {
            bytes.extend_from_slice(&block);
        }
        Ok(bytes.freeze())
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    fn place(&self) -> String {
        self.requests.place.clone()
    }

    async fn put(&self, artifact: &Artifact, body: Body) -> Result<()> {
        super::count_write(artifact);
        let sent = if artifact.size_bytes > self.multipart_above_bytes {
            self.put_in_parts(artifact, &body).await?
        } else {
            self.put_single(artifact, &body).await?
        };
        self.confirm_encryption(artifact.key.as_str(), &sent).await?;
        self.confirm_stored(artifact).await
    }

    async fn get(&self, artifact: &Artifact) -> Result<Bytes> {
        let incoming = self.open(artifact).await?;
        let mut bytes = Vec::with_capacity(artifact.size_bytes.min(MULTIPART_ABOVE_BYTES) as usize);
        self.read_into(artifact, incoming, &mut bytes, Path::new("memory")).await?;
        Ok(bytes.into())
    }

    async fn get_to_file(&self, artifact: &Artifact, dest: &Path) -> Result<()> {
        let incoming = self.open(artifact).await?;
        let temporary = temporary_in(parent(dest))?;
        let file = temporary.reopen().map_err(|err| ObjectError::from_io("write", dest, err))?;
        self.read_into(artifact, incoming, &mut tokio::fs::File::from_std(file), dest).await?;
        let dest = dest.to_owned();
        blocking(move || persist(temporary, &dest)).await
    }

    async fn head(&self, key: &ArtifactKey) -> Result<Option<ObjectHead>> {
        Ok(self.requests.look_at(key.as_str()).await?.map(|stored| stored.head))
    }

    fn list_all(&self, after: Option<String>) -> BoxStream<'static, Result<Entry>> {
        self.requests.list_pages(ARTIFACT_PREFIX.to_owned(), after)
    }

    async fn list_call(&self, call: &CallPrefix) -> Result<Vec<Entry>> {
        self.everything_under(call.as_str()).await
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<()> {
        for entry in self.everything_under(key.as_str()).await?.iter().filter(|entry| entry.key == key.as_str()) {
            self.remove(entry).await?;
        }
        for (key, version) in self.readable(std::slice::from_ref(key)).await? {
            self.requests.delete(&key, version.as_deref()).await?;
        }
        Ok(())
    }

    async fn delete_prefix(&self, call: &CallPrefix, known: &[ArtifactKey]) -> Result<Erased> {
        let entries = self.list_call(call).await?;
        let deletes = stream::iter(entries.clone()).map(|entry| {
            let store = self.clone();
            async move { store.remove(&entry).await }
        });
        let mut deletes = deletes.buffer_unordered(DELETES_AT_ONCE);
        let mut first_failure = None;
        // A refused delete does not stop the others.
        while let Some(done) = deletes.next().await {
            first_failure = first_failure.or(done.err());
        }
        if let Some(failure) = first_failure {
            return Err(failure);
        }
        let count = |wanted: &[EntryKind]| entries.iter().filter(|entry| wanted.contains(&entry.kind)).count() as u64;
        let mut erased = Erased {
            objects: count(&[EntryKind::Current]),
            versions: count(&[EntryKind::Superseded, EntryKind::DeleteMarker]),
            unfinished: count(&[EntryKind::Upload, EntryKind::Temporary]),
        };
        for (key, version) in self.readable(known).await? {
            self.requests.delete(&key, version.as_deref()).await?;
            erased.objects += 1;
        }
        Ok(erased)
    }

    async fn verify_empty(&self, call: &CallPrefix, known: &[ArtifactKey]) -> Result<()> {
        let mut left: Vec<String> = self.list_call(call).await?.into_iter().map(|entry| entry.key).collect();
        left.extend(self.readable(known).await?.into_iter().map(|(key, _)| key));
        left.sort_unstable();
        let Some(example) = left.first().cloned() else { return Ok(()) };
        let (place, prefix) = (self.place(), call.to_string());
        Err(ObjectError::StillThere { place, prefix, left: left.len() as u64, example })
    }

    async fn check(&self) -> Result<StoreHealth> {
        let bytes = Bytes::from_static(b"aftercall probe");
        let key = format!("{PROBE_PREFIX}{}", uuid::Uuid::now_v7());
        let sent = self.write_probe(&key, &bytes).await?;
        self.confirm_encryption(&key, &sent).await?;
        let read = self.read_probe(&key).await;
        // The probe is removed even after a failed read. Then the read failure is returned.
        let removed = self.requests.delete(&key, sent.version.as_deref()).await;
        if read? != bytes {
            return Err(self.wrong(&key, "the probe came back changed".to_owned()));
        }
        removed?;
        Ok(StoreHealth { place: self.place(), server_date: self.server_date().await? })
    }

    async fn server_date(&self) -> Result<Option<Timestamp>> {
        self.requests.date().await
    }
}

/// The next `size` bytes; fewer at the end; empty after the end.
async fn read_part(from: &mut (impl AsyncRead + Unpin), size: usize) -> std::io::Result<Bytes> {
    let mut part = BytesMut::with_capacity(size);
    let mut limited = from.take(size as u64);
    while limited.read_buf(&mut part).await? > 0 {}
    Ok(part.freeze())
}
