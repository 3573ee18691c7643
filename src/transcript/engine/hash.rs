//! What a model's file is known by.

use std::io::Read;
use std::path::Path;

use sha2::Digest;
use sha2::Sha256;

/// Read at once: more than the processor's caches would be read twice.
const BLOCK: usize = 1 << 18;

/// The SHA-256 of a file and its length, read block by block: models are as large as memory is dear.
pub fn of_file(path: &Path) -> std::io::Result<(String, u64)> {
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

/// The SHA-256 of what is in memory already.
pub fn of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
