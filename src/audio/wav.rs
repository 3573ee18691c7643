//! The normalised WAV: 48 kHz, mono, 16 bits. The number of samples is known before the first is written, so the header
//! is right from the start and the hash can be taken on the way; a writer that returns to its header could not do that.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256 as Hasher};
use tempfile::NamedTempFile;

use super::block::OUTPUT_RATE_HZ;
use super::error::AudioError;
use crate::domain::Sha256;

/// A finished file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    pub path: PathBuf,
    pub size_bytes: u64,
    pub sha256: Sha256,
}

/// A temporary file beside `path`, so that renaming it into place is atomic.
pub fn temp_beside(path: &Path) -> Result<NamedTempFile, AudioError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".audio-").tempfile_in(folder).map_err(AudioError::io("write"))
}

/// Makes a finished temporary file durable under its name.
pub fn put_in_place(temp: NamedTempFile, path: &Path) -> Result<(), AudioError> {
    temp.as_file().sync_all().map_err(AudioError::io("write"))?;
    temp.persist(path).map_err(|error| AudioError::Io { what: "write", source: error.error })?;
    Ok(())
}

/// Writes samples as they come.
#[derive(Debug)]
pub struct WavWriter {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    hasher: Hasher,
    size_bytes: u64,
    bytes: Vec<u8>,
}

impl WavWriter {
    /// Begins a file of exactly `samples` samples.
    pub fn create(path: &Path, samples: u64) -> Result<Self, AudioError> {
        let file = BufWriter::with_capacity(256 * 1024, temp_beside(path)?);
        let mut writer = Self { path: path.to_owned(), file, hasher: Hasher::new(), size_bytes: 0, bytes: Vec::new() };
        let header = header(samples);
        writer.put(&header)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), AudioError> {
        self.hasher.update(bytes);
        self.size_bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(AudioError::io("write wav"))
    }

    pub fn push(&mut self, samples: &[i16]) -> Result<(), AudioError> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        let done = self.put(&bytes);
        self.bytes = bytes;
        done
    }

    /// Makes the file visible under its name.
    pub fn finish(self) -> Result<WrittenFile, AudioError> {
        let temp = self.file.into_inner().map_err(|error| AudioError::io("write wav")(error.into_error()))?;
        put_in_place(temp, &self.path)?;
        let sha256 = Sha256::from_bytes(self.hasher.finalize().into());
        Ok(WrittenFile { path: self.path, size_bytes: self.size_bytes, sha256 })
    }
}

/// The 44 bytes of a canonical header. A recording of more than 4 GiB (12 hours) is beyond every limit.
fn header(samples: u64) -> [u8; 44] {
    let data = u32::try_from(samples * 2).unwrap_or(u32::MAX - 36);
    let mut header = [0u8; 44];
    let fields: [(usize, &[u8]); 13] = [
        (0, b"RIFF"),
        (4, &(data + 36).to_le_bytes()),
        (8, b"WAVE"),
        (12, b"fmt "),
        (16, &16u32.to_le_bytes()),
        (20, &1u16.to_le_bytes()),
        (22, &1u16.to_le_bytes()),
        (24, &OUTPUT_RATE_HZ.to_le_bytes()),
        (28, &(OUTPUT_RATE_HZ * 2).to_le_bytes()),
        (32, &2u16.to_le_bytes()),
        (34, &16u16.to_le_bytes()),
        (36, b"data"),
        (40, &data.to_le_bytes()),
    ];
    for (at, bytes) in fields {
        header[at..at + bytes.len()].copy_from_slice(bytes);
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_reader_understands_it_and_the_hash_is_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audio.wav");
        let samples: Vec<i16> = (0..10_000).map(|n| (n * 3 - 15_000) as i16).collect();
        let mut writer = WavWriter::create(&path, samples.len() as u64).unwrap();
        for chunk in samples.chunks(777) {
            writer.push(chunk).unwrap();
        }
        assert!(!path.exists(), "visible only when whole");
        let written = writer.finish().unwrap();
        let mut reader = hound::WavReader::open(&path).unwrap();
        let spec = reader.spec();
        assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (1, 48_000, 16));
        assert_eq!(reader.samples::<i16>().map(Result::unwrap).collect::<Vec<_>>(), samples);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(written.size_bytes, bytes.len() as u64);
        assert_eq!(written.sha256, Sha256::from_bytes(Hasher::digest(&bytes).into()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
