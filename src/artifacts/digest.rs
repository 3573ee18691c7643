//! Sizes and digests of written and read bytes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::Digest as _;

use super::Result;
use super::error::ObjectError;
use crate::domain::{Artifact, Sha256};

/// Block size of file reads.
const BLOCK_BYTES: usize = 256 * 1024;

/// Size and SHA-256 of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest {
    pub size_bytes: u64,
    pub sha256: Sha256,
}

/// Digests of a body that is sent to a service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sending {
    pub digest: Digest,
    /// `Content-MD5` (RFC 1864), the only transport check that every S3-compatible store supports.
    pub md5: [u8; 16],
}

impl Digest {
    /// Describes how this differs from the artifact's record. None when they are equal.
    pub(super) fn difference(&self, artifact: &Artifact) -> Option<String> {
        if self.size_bytes != artifact.size_bytes {
            return Some(format!("{} bytes instead of {}", self.size_bytes, artifact.size_bytes));
        }
        (self.sha256 != artifact.sha256).then(|| format!("sha256 {} instead of {}", self.sha256, artifact.sha256))
    }

    /// Refuses bytes that do not match the artifact's record.
    pub(super) fn as_described(&self, artifact: &Artifact) -> Result<()> {
        match self.difference(artifact) {
            Some(difference) => Err(ObjectError::BodyChanged { key: artifact.key.to_string(), difference }),
            None => Ok(()),
        }
    }
}

/// Counts and hashes a stream of blocks.
#[derive(Default)]
pub(super) struct Hasher {
    size_bytes: u64,
    sha256: sha2::Sha256,
}

impl Hasher {
    pub(super) fn update(&mut self, block: &[u8]) {
        self.size_bytes += block.len() as u64;
        self.sha256.update(block);
    }

    pub(super) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn finish(self) -> Digest {
        Digest { size_bytes: self.size_bytes, sha256: Sha256::from_bytes(self.sha256.finalize().into()) }
    }
}

pub(super) fn of_bytes(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

pub(super) fn of_file(path: &Path) -> Result<Digest> {
    let mut hasher = Hasher::default();
    read(path, |block| hasher.update(block))?;
    Ok(hasher.finish())
}

pub(super) fn sending_bytes(bytes: &[u8]) -> Sending {
    Sending { digest: of_bytes(bytes), md5: md5_of(bytes) }
}

pub(super) fn md5_of(bytes: &[u8]) -> [u8; 16] {
    md5::Md5::digest(bytes).into()
}

pub(super) fn sending_file(path: &Path) -> Result<Sending> {
    let (mut hasher, mut md5) = (Hasher::default(), md5::Md5::default());
    read(path, |block| {
        hasher.update(block);
        md5.update(block);
    })?;
    Ok(Sending { digest: hasher.finish(), md5: md5.finalize().into() })
}

fn read(path: &Path, seen: impl FnMut(&[u8])) -> Result<()> {
    let failed = |err| ObjectError::from_io("read", path, err);
    let mut file = File::open(path).map_err(failed)?;
    pass(&mut file, &mut io::sink(), seen).map_err(|failure| failed(failure.into_inner()))
}

/// The failed side of a copy.
pub(super) enum CopyFailure {
    Read(io::Error),
    Write(io::Error),
}

impl CopyFailure {
    pub(super) fn into_inner(self) -> io::Error {
        match self {
            Self::Read(err) | Self::Write(err) => err,
        }
    }
}

/// Copies to the end and hashes the bytes.
pub(super) fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<Digest, CopyFailure> {
    let mut hasher = Hasher::default();
    pass(from, to, |block| hasher.update(block))?;
    Ok(hasher.finish())
}

fn pass(from: &mut impl Read, to: &mut impl Write, mut seen: impl FnMut(&[u8])) -> Result<(), CopyFailure> {
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let read = match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(CopyFailure::Read(err)),
        };
        let part = block.get(..read).unwrap_or_default();
        seen(part);
        to.write_all(part).map_err(CopyFailure::Write)?;
    }
}
