//! Holds the decoded call between the two passes: in memory up to a cap, beyond it in a nameless file of the spool.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::error::AudioError;

/// Samples in one piece of memory, and in one block given out.
const PIECE: usize = 16 * 1024;
const SAMPLE_BYTES: usize = size_of::<f32>();

/// A store of samples, written once, read as often as wanted.
#[derive(Debug)]
pub struct Spill {
    pieces: Vec<Vec<f32>>,
    cap_pieces: usize,
    spool: std::path::PathBuf,
    file: Option<BufWriter<File>>,
    in_file: u64,
    bytes: Vec<u8>,
}

impl Spill {
    #[must_use]
    pub fn new(cap_bytes: u64, spool: &Path) -> Self {
        let cap_pieces = (cap_bytes / (PIECE * SAMPLE_BYTES) as u64).max(1) as usize;
        Self { pieces: Vec::new(), cap_pieces, spool: spool.to_owned(), file: None, in_file: 0, bytes: Vec::new() }
    }

    /// Samples held.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum::<u64>() + self.in_file
    }

    pub fn push(&mut self, mut samples: &[f32]) -> Result<(), AudioError> {
        while !samples.is_empty() {
            let room = self.pieces.last().map_or(0, |piece| PIECE - piece.len());
            if room == 0 && self.pieces.len() >= self.cap_pieces {
                return self.push_file(samples);
            }
            if room == 0 {
                self.pieces.push(Vec::with_capacity(PIECE));
                continue;
            }
            let take = room.min(samples.len());
            if let Some(piece) = self.pieces.last_mut() {
                piece.extend_from_slice(&samples[..take]);
            }
            samples = &samples[take..];
        }
        Ok(())
    }

    fn push_file(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        let error = AudioError::io("spill");
        if self.file.is_none() {
            let file = tempfile::tempfile_in(&self.spool).map_err(&error)?;
            self.file = Some(BufWriter::with_capacity(256 * 1024, file));
        }
        self.bytes.clear();
        for sample in samples {
            self.bytes.extend_from_slice(&sample.to_le_bytes());
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.bytes).map_err(error)?;
        }
        self.in_file += samples.len() as u64;
        Ok(())
    }

    /// Gives all samples to `visit`, in order, in blocks.
    pub fn read(&mut self, mut visit: impl FnMut(&[f32]) -> Result<(), AudioError>) -> Result<(), AudioError> {
        for piece in &self.pieces {
            visit(piece)?;
        }
        let Some(writer) = &mut self.file else { return Ok(()) };
        let error = AudioError::io("read spill");
        writer.flush().map_err(AudioError::io("spill"))?;
        let file = writer.get_mut();
        file.seek(SeekFrom::Start(0)).map_err(&error)?;
        let mut reader = BufReader::with_capacity(256 * 1024, &mut *file);
        let mut left = self.in_file;
        let mut block = Vec::with_capacity(PIECE);
        while left > 0 {
            let take = left.min(PIECE as u64) as usize;
            self.bytes.resize(take * SAMPLE_BYTES, 0);
            reader.read_exact(&mut self.bytes).map_err(&error)?;
            block.clear();
            block.extend(self.bytes.as_chunks::<SAMPLE_BYTES>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            visit(&block)?;
            left -= take as u64;
        }
        file.seek(SeekFrom::End(0)).map_err(&error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_in_comes_out_again_and_again() {
        let spool = tempfile::tempdir().unwrap();
        // One piece of memory, the rest in the file.
        for (cap, count) in [(1, 100_000usize), (1 << 20, 100_000), (1, 10), (1, PIECE)] {
            let mut spill = Spill::new(cap, spool.path());
            let samples: Vec<f32> = (0..count).map(|n| n as f32).collect();
            for chunk in samples.chunks(999) {
                spill.push(chunk).unwrap();
            }
            assert_eq!(spill.len(), count as u64);
            for _ in 0..2 {
                let mut out = Vec::new();
                spill
                    .read(|block| {
                        out.extend_from_slice(block);
                        Ok(())
                    })
                    .unwrap();
                assert!(out == samples, "{cap} {count}");
            }
        }
        assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "nameless");
    }
}
