//! The normalised WAV: 48 kHz, mono, 16 bits.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Cursor, Read, Seek};
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

/// Gives a finished temporary file its name. It is whole there or not there at all; that it outlasts a power cut is the
/// object store's business.
pub fn put_in_place(temp: NamedTempFile, path: &Path) -> Result<(), AudioError> {
    temp.persist(path).map_err(|error| AudioError::Io { what: "write", source: error.error })?;
    Ok(())
}

/// Writes samples as they come.
pub struct WavWriter {
    path: PathBuf,
    temp: NamedTempFile,
    writer: hound::WavWriter<BufWriter<File>>,
    /// The header as it will be: the hash begins with it.
    header: Vec<u8>,
    hasher: Hasher,
    bytes: Vec<u8>,
}

impl fmt::Debug for WavWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WavWriter({})", self.path.display())
    }
}

impl WavWriter {
    /// Begins a file of this many samples.
    pub fn create(path: &Path, samples: u64) -> Result<Self, AudioError> {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: OUTPUT_RATE_HZ,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let temp = temp_beside(path)?;
        let file = temp.reopen().map_err(AudioError::io("write wav"))?;
        // Blocks larger than this buffer pass it by.
        let writer = hound::WavWriter::new(BufWriter::with_capacity(8 * 1024, file), spec).map_err(failed)?;
        let header = header(spec, samples)?;
        let mut hasher = Hasher::new();
        hasher.update(&header);
        Ok(Self { path: path.to_owned(), temp, writer, header, hasher, bytes: Vec::new() })
    }

    pub fn push(&mut self, samples: &[i16]) -> Result<(), AudioError> {
        self.bytes.clear();
        self.bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        self.hasher.update(&self.bytes);
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
        let mut file = self.temp.reopen().map_err(AudioError::io("read wav"))?;
        let mut start = vec![0; self.header.len()];
        file.read_exact(&mut start).map_err(AudioError::io("read wav"))?;
        let sha256 = if start == self.header {
            Sha256::from_bytes(self.hasher.finalize().into())
        } else {
            // Not as many samples as were announced: the hash began with another header.
            file.rewind().map_err(AudioError::io("read wav"))?;
            hash(&mut file).map_err(AudioError::io("read wav"))?
        };
        let size_bytes = file.metadata().map_err(AudioError::io("read wav"))?.len();
        put_in_place(self.temp, &self.path)?;
        Ok(WrittenFile { path: self.path, size_bytes, sha256 })
    }
}

/// The header hound writes, with the lengths it will have in the end (RIFF: of all that follows, of the samples).
fn header(spec: hound::WavSpec, samples: u64) -> Result<Vec<u8>, AudioError> {
    let mut header = Vec::new();
    hound::WavWriter::new(Cursor::new(&mut header), spec).and_then(hound::WavWriter::finalize).map_err(failed)?;
    // Longer than a header can say is refused by hound when it comes to it.
    let data = (samples * u64::from(spec.bits_per_sample / 8)) as u32;
    let riff = (header.len() as u32 - 8).wrapping_add(data);
    header[4..8].copy_from_slice(&riff.to_le_bytes());
    let len = header.len();
    header[len - 4..].copy_from_slice(&data.to_le_bytes());
    Ok(header)
}

/// Hash of what is left of a file.
pub fn hash(file: &mut File) -> std::io::Result<Sha256> {
    let (mut hasher, mut block) = (Hasher::new(), vec![0; 64 * 1024]);
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok(Sha256::from_bytes(hasher.finalize().into()));
        }
        hasher.update(&block[..read]);
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
        for announced in [samples.len() as u64, 9_999] {
            let _ = std::fs::remove_file(&path);
            let mut writer = WavWriter::create(&path, announced).unwrap();
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
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
