//! Writes the normalised WAV: 48 kHz, mono, 16 bits.

use std::fmt;
use std::fs::File;
use std::io::{Cursor, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256 as Hasher};
use tempfile::NamedTempFile;

use super::block::OUTPUT_RATE_HZ;
use super::error::AudioError;
use super::spill::Spill;
use crate::domain::Sha256;

const SAMPLE_BYTES: usize = size_of::<i16>();

/// A complete file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    pub path: PathBuf,
    pub size_bytes: u64,
    pub sha256: Sha256,
}

/// A temporary file in the folder of `path`, so that the rename into place is atomic.
pub(super) fn temp_beside(path: &Path) -> Result<NamedTempFile, AudioError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".audio-").tempfile_in(folder).map_err(AudioError::io("write"))
}

/// Renames a complete temporary file to `path`. The rename is atomic. Durability after a power cut is the job of the
/// object store.
pub(super) fn put_in_place(temp: NamedTempFile, path: &Path) -> Result<(), AudioError> {
    temp.persist(path).map_err(|error| AudioError::Io { what: "write", source: error.error })?;
    Ok(())
}

/// A WAV in progress: a temporary file in the folder of its final name. On the first pass it holds the decoded samples.
/// The second pass overwrites them with the normalised samples, so that every sample takes disk space only once.
#[derive(Debug)]
pub(super) struct WavDraft {
    path: PathBuf,
    temp: NamedTempFile,
}

impl WavDraft {
    pub(super) fn create(path: &Path) -> Result<Self, AudioError> {
        Ok(Self { path: path.to_owned(), temp: temp_beside(path)? })
    }

    /// A spill for the samples of the first pass. It lies where the second pass writes its samples.
    pub(super) fn spill(&self) -> Result<Spill, AudioError> {
        let file = self.temp.reopen().map_err(AudioError::io("spill"))?;
        Ok(Spill::within(file, header(0)?.len() as u64))
    }

    /// Writes the header for this many samples.
    pub(super) fn begin(self, samples: u64) -> Result<WavWriter, AudioError> {
        let file = self.temp.reopen().map_err(AudioError::io("write wav"))?;
        let header = header(samples)?;
        file.write_all_at(&header, 0).map_err(AudioError::io("write wav"))?;
        let mut hasher = Hasher::new();
        hasher.update(&header);
        let at = header.len() as u64;
        let end = at + samples * SAMPLE_BYTES as u64;
        Ok(WavWriter { draft: self, file, hasher, bytes: Vec::new(), at, end })
    }
}

/// Writes the samples of the second pass.
pub(super) struct WavWriter {
    draft: WavDraft,
    file: File,
    hasher: Hasher,
    bytes: Vec<u8>,
    /// Position of the next write and length of the whole file, bytes.
    at: u64,
    end: u64,
}

impl fmt::Debug for WavWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WavWriter({})", self.draft.path.display())
    }
}

impl WavWriter {
    pub(super) fn push(&mut self, samples: &[i16]) -> Result<(), AudioError> {
        self.bytes.resize(samples.len() * SAMPLE_BYTES, 0);
        for (bytes, sample) in self.bytes.as_chunks_mut::<SAMPLE_BYTES>().0.iter_mut().zip(samples) {
            *bytes = sample.to_le_bytes();
        }
        self.hasher.update(&self.bytes);
        self.file.write_all_at(&self.bytes, self.at).map_err(AudioError::io("write wav"))?;
        self.at += self.bytes.len() as u64;
        Ok(())
    }

    /// Renames the file to its final name. Fails when fewer or more samples came than announced.
    pub(super) fn finish(self) -> Result<WrittenFile, AudioError> {
        if self.at != self.end {
            let cause = format!("{} bytes announced, {} written", self.end, self.at);
            return Err(AudioError::Internal { what: "wav", cause });
        }
        let sha256 = Sha256::from_bytes(self.hasher.finalize().into());
        put_in_place(self.draft.temp, &self.draft.path)?;
        Ok(WrittenFile { path: self.draft.path, size_bytes: self.at, sha256 })
    }
}

/// The header as hound writes it, with the lengths for this many samples. The RIFF length counts all bytes after it,
/// the data length counts the samples.
fn header(samples: u64) -> Result<Vec<u8>, AudioError> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: OUTPUT_RATE_HZ,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let failed = |error: hound::Error| AudioError::io("write wav")(std::io::Error::other(error));
    let mut header = Vec::new();
    hound::WavWriter::new(Cursor::new(&mut header), spec).and_then(hound::WavWriter::finalize).map_err(failed)?;
    let len = header.len();
    let data = samples.saturating_mul(SAMPLE_BYTES as u64);
    // The limit is about 12 hours at this rate and width.
    let Ok(riff) = u32::try_from(data.saturating_add(len as u64 - 8)) else {
        return Err(AudioError::io("write wav")(std::io::Error::other("longer than a WAV can say")));
    };
    header[4..8].copy_from_slice(&riff.to_le_bytes());
    header[len - 4..].copy_from_slice(&(data as u32).to_le_bytes());
    Ok(header)
}

/// SHA-256 from the current position to the end of the file.
pub(super) fn hash(file: &mut File) -> std::io::Result<Sha256> {
    let (mut hasher, mut block) = (Hasher::new(), vec![0; 64 * 1024]);
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok(Sha256::from_bytes(hasher.finalize().into()));
        }
        hasher.update(&block[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_reader_understands_it_and_the_hash_is_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audio.wav");
        let samples: Vec<i16> = (0..10_000).map(|n| (n * 3 - 15_000) as i16).collect();
        let write = |announced: u64| {
            let draft = WavDraft::create(&path).unwrap();
            let mut spill = draft.spill().unwrap();
            spill.push(&vec![0.3; 10_000]).unwrap();
            spill.finish().unwrap();
            let mut writer = draft.begin(announced).unwrap();
            for chunk in samples.chunks(777) {
                writer.push(chunk).unwrap();
            }
            assert!(!path.exists(), "visible only when whole");
            writer.finish()
        };
        assert!(matches!(write(9_999).unwrap_err(), AudioError::Internal { .. }));
        let written = write(samples.len() as u64).unwrap();
        let mut reader = hound::WavReader::open(&path).unwrap();
        let spec = reader.spec();
        assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (1, 48_000, 16));
        assert_eq!(reader.samples::<i16>().map(Result::unwrap).collect::<Vec<_>>(), samples);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(written.size_bytes, bytes.len() as u64);
        assert_eq!(written.sha256, Sha256::from_bytes(Hasher::digest(&bytes).into()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_header_cannot_say_is_refused() {
        assert!(header(u64::from(u32::MAX) / 2 - 18).is_ok());
        assert!(header(u64::from(u32::MAX) / 2).is_err() && header(u64::MAX).is_err());
    }
}
