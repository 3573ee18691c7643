//! Hashes of model files.

use std::io::Read;
use std::path::Path;

use sha2::Digest;
use sha2::Sha256;

/// Block size in bytes. It fits the processor's caches, so that data is read from memory once.
const BLOCK: usize = 1 << 18;

/// SHA-256 and length of a file. Reads it in blocks, because a model may be as large as the memory.
pub(crate) fn of_file(path: &Path) -> std::io::Result<(String, u64)> {
    let mut file = std::fs::File::open(path)?;
    let (mut hash, mut block, mut bytes) = (Sha256::new(), vec![0; BLOCK], 0);
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok((hex::encode(hash.finalize()), bytes));
        }
        hash.update(&block[..read]);
        bytes += read as u64;
    }
}

/// SHA-256 of bytes in memory.
pub(crate) fn of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
