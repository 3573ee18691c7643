//! Digests of written and read objects.

use std::fs::File;
use std::io;
use std::path::Path;

use sha2::Digest as _;

use super::error::{ObjectError, Result};
use crate::digest::{self, pass};
pub(super) use crate::digest::{CopyFailure, Digest, Hasher, copy, of_bytes};
use crate::domain::Artifact;

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

pub(super) fn of_file(path: &Path) -> Result<Digest> {
    digest::of_file(path).map_err(|err| ObjectError::from_io("read", path, err))
}

pub(super) fn sending_bytes(bytes: &[u8]) -> Sending {
    Sending { digest: of_bytes(bytes), md5: md5_of(bytes) }
}

pub(super) fn md5_of(bytes: &[u8]) -> [u8; 16] {
    md5::Md5::digest(bytes).into()
}

pub(super) fn sending_file(path: &Path) -> Result<Sending> {
    let (mut hasher, mut md5) = (Hasher::default(), md5::Md5::default());
    let failed = |err| ObjectError::from_io("read", path, err);
    let mut file = File::open(path).map_err(failed)?;
    let both = |block: &[u8]| {
        hasher.update(block);
        md5.update(block);
    };
    pass(&mut file, &mut io::sink(), both).map_err(|failure| failed(failure.into_inner()))?;
    Ok(Sending { digest: hasher.finish(), md5: md5.finalize().into() })
}
