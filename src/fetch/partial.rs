//! The file a download grows in, and what is needed to continue it later.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::error::FetchError;
use crate::domain::{RecordingUrl, Sha256};

/// First bytes kept in memory, enough for anyone who wants to know what a recording is.
pub(super) const HEAD_BYTES: usize = 4096;
const BLOCK_BYTES: usize = 256 * 1024;

/// What the next attempt must know to ask for the rest of the very same representation.
#[derive(Debug, Serialize, Deserialize)]
struct Resume {
    /// Digest of the URL without its query: the signature changes, the recording does not.
    source: Sha256,
    validator: String,
    received_bytes: u64,
    total_bytes: Option<u64>,
    content_type: Option<String>,
}

/// A download under way in `<dest>.part`.
#[derive(Debug)]
pub(super) struct Partial {
    dest: PathBuf,
    file: File,
    source: Sha256,
    hasher: sha2::Sha256,
    pub received_bytes: u64,
    pub head: Vec<u8>,
    /// A strong `ETag` or `Last-Modified` for `If-Range` (RFC 9110 section 13.1.5); without one there is no resuming.
    pub validator: Option<String>,
    pub total_bytes: Option<u64>,
    pub content_type: Option<String>,
}

impl Partial {
    /// Continues what an earlier attempt left, or begins anew.
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

    /// Reads what is there again: the digest must cover it. `false` when the file is shorter than it should be.
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
        Ok(self.received_bytes == resume.received_bytes)
    }

    /// Forgets everything that has arrived.
    pub(super) async fn restart(&mut self) -> Result<(), FetchError> {
        self.hasher = sha2::Sha256::default();
        self.received_bytes = 0;
        self.head.clear();
        self.validator = None;
        self.total_bytes = None;
        self.content_type = None;
        let emptied = async {
            // Seeking first waits for writes still under way.
            self.file.seek(SeekFrom::Start(0)).await?;
            self.file.set_len(0).await
        };
        emptied.await.map_err(|source| self.failed(source))
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

    /// Makes the file durable and gives it its name.
    pub(super) async fn finish(mut self) -> Result<(Sha256, Vec<u8>, Option<String>), FetchError> {
        let done = async {
            self.file.flush().await?;
            self.file.sync_all().await?;
            tokio::fs::rename(part(&self.dest), &self.dest).await
        };
        done.await.map_err(|source| FetchError::Spool { path: self.dest.clone(), source })?;
        Ok((Sha256::from_bytes(self.hasher.finalize().into()), self.head, self.content_type))
    }

    /// Leaves what has arrived for the next attempt; whatever goes wrong here only costs that attempt bytes.
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

/// Reads and removes the note: should this attempt die without another, the file may hold anything.
async fn take_resume(dest: &Path) -> Option<Resume> {
    let path = resume_path(dest);
    let note = tokio::fs::read(&path).await.ok()?;
    tokio::fs::remove_file(&path).await.ok()?;
    serde_json::from_slice(&note).ok()
}

pub(super) fn part(dest: &Path) -> PathBuf {
    with_suffix(dest, ".part")
}

pub(super) fn resume_path(dest: &Path) -> PathBuf {
    with_suffix(dest, ".resume")
}

fn with_suffix(dest: &Path, suffix: &str) -> PathBuf {
    let mut name = dest.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
