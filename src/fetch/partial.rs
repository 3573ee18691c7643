//! A download in progress: its file, and the data that is needed to resume it.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use hyper::header::{ETAG, HeaderMap};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::error::FetchError;
use super::told::{self, Told};
use crate::coding::Codings;
use crate::domain::{RecordingUrl, Sha256};

/// First bytes kept in memory, enough to recognise a recording.
pub(super) const HEAD_BYTES: usize = 4096;
const BLOCK_BYTES: usize = 256 * 1024;

/// The data that the next attempt needs to request the rest of the same representation.
#[derive(Debug, Serialize, Deserialize)]
struct Resume {
    /// Digest of the URL without its query. The signature changes, the recording does not.
    source: Sha256,
    validator: String,
    received_bytes: u64,
    total_bytes: Option<u64>,
    content_type: Option<String>,
    #[serde(default)]
    content_encoding: String,
}

/// A completely received body under its temporary name.
#[derive(Debug)]
pub(super) struct Received {
    pub part: PathBuf,
    pub sha256: Sha256,
    pub size_bytes: u64,
    pub head: Vec<u8>,
}

/// A download in progress in `<dest>.part`.
#[derive(Debug)]
pub(super) struct Partial {
    dest: PathBuf,
    file: File,
    source: Sha256,
    hasher: sha2::Sha256,
    pub received_bytes: u64,
    pub head: Vec<u8>,
    /// A strong `ETag` or `Last-Modified` for `If-Range` (RFC 9110 section 13.1.5). Without one a download cannot be
    /// resumed.
    pub validator: Option<String>,
    pub total_bytes: Option<u64>,
    pub content_type: Option<String>,
    content_encoding: String,
    tag: Option<String>,
    /// The end of the current answer, where the answer is only a part of the body.
    pub part_end: Option<u64>,
}

impl Partial {
    /// Resumes an earlier attempt's download, or starts a new one.
    pub(super) async fn open(url: &RecordingUrl, dest: &Path) -> Result<Self, FetchError> {
        let failed = |source| FetchError::Spool { path: dest.to_owned(), source };
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = options.open(part(dest)).await.map_err(failed)?;
        let mut this = Self {
            dest: dest.to_owned(),
            file,
            source: Sha256::from_bytes(sha2::Sha256::digest(url.without_query()).into()),
            hasher: sha2::Sha256::default(),
            received_bytes: 0,
            head: Vec::new(),
            validator: None,
            total_bytes: None,
            content_type: None,
            content_encoding: String::new(),
            tag: None,
            part_end: None,
        };
        match take_resume(dest).await {
            Some(resume) if resume.source == this.source => {
                if !this.adopt(resume).await.map_err(failed)? {
                    this.restart().await?;
                }
            }
            _ => this.restart().await?,
        }
        Ok(this)
    }

    /// Reads the existing bytes again, because the digest must cover them. `false` when the file is shorter than it
    /// should be.
    async fn adopt(&mut self, resume: Resume) -> io::Result<bool> {
        if self.file.metadata().await?.len() < resume.received_bytes {
            return Ok(false);
        }
        self.file.set_len(resume.received_bytes).await?;
        self.file.seek(SeekFrom::Start(0)).await?;
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let read = self.file.read(&mut block).await?;
            let Some(bytes) = block.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            self.count(bytes);
        }
        self.validator = Some(resume.validator);
        self.total_bytes = resume.total_bytes;
        self.content_type = resume.content_type;
        self.content_encoding = resume.content_encoding;
        Ok(self.received_bytes == resume.received_bytes)
    }

    /// Discards all received bytes.
    pub(super) async fn restart(&mut self) -> Result<(), FetchError> {
        self.hasher = sha2::Sha256::default();
        self.received_bytes = 0;
        self.head.clear();
        self.validator = None;
        self.total_bytes = None;
        self.content_type = None;
        self.content_encoding.clear();
        self.tag = None;
        self.part_end = None;
        let emptied = async {
            // The seek first waits for pending writes.
            self.file.seek(SeekFrom::Start(0)).await?;
            self.file.set_len(0).await
        };
        emptied.await.map_err(|source| self.failed(source))
    }

    /// Records the host's headers about a body that it sends from its beginning.
    pub(super) fn begin(&mut self, headers: &HeaderMap) {
        self.total_bytes = told::length(headers);
        self.content_type = told::content_type(headers);
        self.content_encoding = told::content_encoding(headers);
        self.validator = told::validator(headers);
        self.tag = told::tag(headers);
    }

    /// Records that this answer contains only the first part of the body.
    pub(super) const fn begin_part(&mut self, part: told::Part) {
        self.total_bytes = part.total;
        self.part_end = Some(part.end);
    }

    /// True when a partial answer starts exactly after our bytes and belongs to the same body.
    pub(super) fn continues(&mut self, headers: &HeaderMap) -> bool {
        let Some(part) = told::part(headers) else { return false };
        let same_size = match (self.total_bytes, part.total) {
            (Some(before), Some(now)) => before == now,
            // Without a validator only the size can be compared.
            _ => self.validator.is_some(),
        };
        // A host that serves ranges but ignores `If-Range` would continue a body that has changed.
        let tag = told::text(headers, ETAG);
        let is_tag = self.validator.as_deref().is_some_and(|validator| validator.starts_with('"'));
        let same_tag = tag.is_none_or(|tag| !is_tag || self.validator.as_deref() == Some(tag));
        let fits = self.received_bytes > 0 && part.first == self.received_bytes && same_size && same_tag;
        if fits {
            self.total_bytes = self.total_bytes.or(part.total);
            self.part_end = self.part_end.map(|_| part.end);
            self.tag = told::tag(headers);
        }
        fits
    }

    /// The host's data about the body, as far as known.
    pub(super) fn told(&self) -> Told {
        Told { size_bytes: Some(self.received_bytes), tag: self.tag.clone() }
    }

    pub(super) fn codings(&self) -> Codings {
        Codings::of([self.content_encoding.as_str()])
    }

    pub(super) async fn append(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).await.map_err(|source| self.failed(source))?;
        self.count(bytes);
        Ok(())
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.received_bytes += bytes.len() as u64;
        let room = HEAD_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }

    /// Makes the file durable under its temporary name.
    pub(super) async fn close(mut self) -> Result<Received, FetchError> {
        let done = async {
            self.file.flush().await?;
            self.file.sync_all().await
        };
        done.await.map_err(|source| FetchError::Spool { path: self.dest.clone(), source })?;
        Ok(Received {
            part: part(&self.dest),
            sha256: Sha256::from_bytes(self.hasher.finalize().into()),
            size_bytes: self.received_bytes,
            head: self.head,
        })
    }

    /// Keeps the received bytes for the next attempt. An error here only means that the next attempt downloads more.
    pub(super) async fn keep(mut self) {
        let Some(validator) = self.validator.take().filter(|_| self.received_bytes > 0) else {
            return self.discard().await;
        };
        let resume = Resume {
            source: self.source,
            validator,
            received_bytes: self.received_bytes,
            total_bytes: self.total_bytes,
            content_type: self.content_type.take(),
            content_encoding: std::mem::take(&mut self.content_encoding),
        };
        let kept = async {
            self.file.flush().await?;
            self.file.sync_all().await?;
            tokio::fs::write(resume_path(&self.dest), serde_json::to_vec(&resume)?).await
        };
        if let Err(err) = kept.await {
            tracing::debug!(error = %err, "partial download not kept");
            self.discard().await;
        }
    }

    pub(super) async fn discard(self) {
        let _ = tokio::fs::remove_file(part(&self.dest)).await;
    }

    fn failed(&self, source: io::Error) -> FetchError {
        FetchError::Spool { path: self.dest.clone(), source }
    }
}

/// Reads and removes the resume note. If this attempt dies, the file may be inconsistent, so the note must not survive
/// it.
async fn take_resume(dest: &Path) -> Option<Resume> {
    let path = resume_path(dest);
    let note = tokio::fs::read(&path).await.ok()?;
    tokio::fs::remove_file(&path).await.ok()?;
    serde_json::from_slice(&note).ok()
}

fn part(dest: &Path) -> PathBuf {
    with_suffix(dest, ".part")
}

fn resume_path(dest: &Path) -> PathBuf {
    with_suffix(dest, ".resume")
}

fn with_suffix(dest: &Path, suffix: &str) -> PathBuf {
    let mut name = dest.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
