//! Samples of one leg at 16 kHz, 16 bits: in memory up to a cap, in an unnamed file of the spool beyond it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::SPEECH_RATE_HZ;
use crate::audio::error::AudioError;

const SAMPLE_BYTES: u64 = size_of::<i16>() as u64;
const PER_MS: u64 = SPEECH_RATE_HZ as u64 / 1000;

/// A store of samples, written once, read at any position.
#[derive(Debug)]
pub struct Pcm16k {
    memory: Vec<i16>,
    cap: usize,
    spool: PathBuf,
    writer: Option<BufWriter<File>>,
    file: Option<File>,
    in_file: u64,
}

impl Pcm16k {
    pub(super) fn new(cap_bytes: u64, spool: &Path) -> Self {
        let cap = (cap_bytes / SAMPLE_BYTES) as usize;
        Self { memory: Vec::new(), cap, spool: spool.to_owned(), writer: None, file: None, in_file: 0 }
    }

    /// Number of samples.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.memory.len() as u64 + self.in_file
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub const fn duration_ms(&self) -> u64 {
        self.len() / PER_MS
    }

    pub(super) fn push(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        let room = (self.cap - self.memory.len().min(self.cap)).min(samples.len());
        let (first, rest) = samples.split_at(room);
        self.memory.extend(first.iter().map(|&sample| quantize(sample)));
        if rest.is_empty() {
            return Ok(());
        }
        let error = AudioError::io("spill speech");
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(BufWriter::new(tempfile::tempfile_in(&self.spool).map_err(&error)?)),
        };
        for &sample in rest {
            writer.write_all(&quantize(sample).to_le_bytes()).map_err(&error)?;
        }
        self.in_file += rest.len() as u64;
        Ok(())
    }

    /// Ends the writing.
    pub(super) fn close(&mut self) -> Result<(), AudioError> {
        self.memory.shrink_to_fit();
        if let Some(writer) = self.writer.take() {
            let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error);
            self.file = Some(file.map_err(AudioError::io("spill speech"))?);
        }
        Ok(())
    }

    /// The samples from `start_ms` to `end_ms`, full scale 1.0. Fewer where the recording ends earlier.
    ///
    /// # Errors
    /// The spool could not be read.
    pub fn read(&self, start_ms: u64, end_ms: u64) -> Result<Vec<f32>, AudioError> {
        self.read_samples(start_ms.saturating_mul(PER_MS), end_ms.saturating_mul(PER_MS))
    }

    /// As [`Self::read`], with positions in samples.
    fn read_samples(&self, start: u64, end: u64) -> Result<Vec<f32>, AudioError> {
        let end = end.min(self.len());
        let start = start.min(end);
        let split = self.memory.len() as u64;
        let mut out: Vec<f32> = Vec::with_capacity((end - start) as usize);
        let inside = self.memory.get(start.min(split) as usize..end.min(split) as usize).unwrap_or_default();
        out.extend(inside.iter().map(|&sample| f32::from(sample) / 32_768.0));
        if let Some(file) = &self.file
            && end > split
        {
            let from = start.max(split) - split;
            let mut bytes = vec![0; ((end - split - from) * SAMPLE_BYTES) as usize];
            file.read_exact_at(&mut bytes, from * SAMPLE_BYTES).map_err(AudioError::io("read speech"))?;
            out.extend(bytes.as_chunks::<2>().0.iter().map(|pair| f32::from(i16::from_le_bytes(*pair)) / 32_768.0));
        }
        Ok(out)
    }
}

fn quantize(sample: f32) -> i16 {
    (sample * 32_768.0).round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_segment_is_what_was_written_there() {
        let spool = tempfile::tempdir().unwrap();
        for cap in [0, 1_000, 1 << 20] {
            let mut pcm = Pcm16k::new(cap, spool.path());
            let samples: Vec<f32> = (0..16_000).map(|n| n as f32 / 32_768.0).collect();
            samples.chunks(777).for_each(|chunk| pcm.push(chunk).unwrap());
            pcm.close().unwrap();
            assert_eq!((pcm.len(), pcm.duration_ms()), (16_000, 1_000));
            assert!(pcm.read(0, 5_000).unwrap() == samples, "{cap}");
            assert!(pcm.read(20, 900).unwrap() == samples[320..14_400], "{cap}");
            assert!(pcm.read(2_000, 3_000).unwrap().is_empty());
        }
        assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "nameless");
    }
}
