//! Size and SHA-256 of bytes, files and streams.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::Digest as _;

use crate::domain::Sha256;

/// Block size of reads. It fits the processor's caches, so that data is read from memory once.
const BLOCK_BYTES: usize = 256 * 1024;

/// Size and SHA-256 of a file or stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest {
    pub size_bytes: u64,
    pub sha256: Sha256,
}

/// Counts and hashes a stream of blocks.
#[derive(Default)]
pub(crate) struct Hasher {
    size_bytes: u64,
    sha256: sha2::Sha256,
}

impl Hasher {
    pub(crate) fn update(&mut self, block: &[u8]) {
        self.size_bytes += block.len() as u64;
        self.sha256.update(block);
    }

    pub(crate) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn finish(self) -> Digest {
        Digest { size_bytes: self.size_bytes, sha256: Sha256::from_bytes(self.sha256.finalize().into()) }
    }
}

pub(crate) fn of_bytes(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// Reads a file to its end in blocks, because it may be as large as the memory.
pub(crate) fn of_file(path: &Path) -> io::Result<Digest> {
    copy(&mut File::open(path)?, &mut io::sink()).map_err(CopyFailure::into_inner)
}

/// The failed side of a copy.
pub(crate) enum CopyFailure {
    Read(io::Error),
    Write(io::Error),
}

impl CopyFailure {
    pub(crate) fn into_inner(self) -> io::Error {
        match self {
            Self::Read(err) | Self::Write(err) => err,
        }
    }
}

/// Copies to the end and hashes the bytes.
pub(crate) fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<Digest, CopyFailure> {
    let mut hasher = Hasher::default();
    pass(from, to, |block| hasher.update(block))?;
    Ok(hasher.finish())
}

/// Copies to the end and shows every block.
pub(crate) fn pass(from: &mut impl Read, to: &mut impl Write, mut seen: impl FnMut(&[u8])) -> Result<(), CopyFailure> {
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
