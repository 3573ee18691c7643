//! The normalised WAV: 48 kHz, mono, 16 bits.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Read};
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
pub struct WavWriter {
    path: PathBuf,
    temp: NamedTempFile,
    writer: hound::WavWriter<BufWriter<File>>,
}

impl fmt::Debug for WavWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WavWriter({})", self.path.display())
    }
}

impl WavWriter {
    /// Begins a file.
    pub fn create(path: &Path) -> Result<Self, AudioError> {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: OUTPUT_RATE_HZ,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let temp = temp_beside(path)?;
        let file = temp.reopen().map_err(AudioError::io("write wav"))?;
        let writer = hound::WavWriter::new(BufWriter::with_capacity(256 * 1024, file), spec).map_err(failed)?;
        Ok(Self { path: path.to_owned(), temp, writer })
    }

    pub fn push(&mut self, samples: &[i16]) -> Result<(), AudioError> {
        // A block at a time: half the cost of a call per sample.
        let mut block = self.writer.get_i16_writer(samples.len() as u32);
        for &sample in samples {
            block.write_sample(sample);
        }
        block.flush().map_err(failed)
    }

    /// Makes the file visible under its name.
    pub fn finish(self) -> Result<WrittenFile, AudioError> {
        self.writer.finalize().map_err(failed)?;
        // The lengths in the header are written last, so the hash is taken of the finished file.
        let mut file = self.temp.reopen().map_err(AudioError::io("read wav"))?;
        let (mut hasher, mut size_bytes, mut block) = (Hasher::new(), 0, vec![0; 256 * 1024]);
        loop {
            let read = file.read(&mut block).map_err(AudioError::io("read wav"))?;
            if read == 0 {
                break;
            }
            hasher.update(&block[..read]);
            size_bytes += read as u64;
        }
        put_in_place(self.temp, &self.path)?;
        Ok(WrittenFile { path: self.path, size_bytes, sha256: Sha256::from_bytes(hasher.finalize().into()) })
    }
}

fn failed(error: hound::Error) -> AudioError {
    let source = match error {
        hound::Error::IoError(source) => source,
        other => std::io::Error::other(other),
    };
    AudioError::io("write wav")(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_reader_understands_it_and_the_hash_is_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audio.wav");
        let samples: Vec<i16> = (0..10_000).map(|n| (n * 3 - 15_000) as i16).collect();
        let mut writer = WavWriter::create(&path).unwrap();
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
