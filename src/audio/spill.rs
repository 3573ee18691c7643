//! Stores the decoded call between the two passes. It uses the file of the WAV where a WAV is written. Otherwise it
//! uses memory up to a cap, and an unnamed file in the spool beyond it.
//!
//! Samples are stored in 16 bits with one power of two for every 256 samples. Whatever the gain, the error is as small
//! as that of the 16-bit output at full scale. 16-bit recordings stay exact. The stored samples have the size of the
//! output samples, so in the WAV each lies where its output sample will lie.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::block::peak;
use super::error::AudioError;

/// Samples per stored piece and per output block. The size fits the near caches of the processor.
const PIECE: usize = 16 * 1024;
/// Samples that share an exponent.
const GROUP: usize = 256;
const SAMPLE_BYTES: usize = size_of::<i16>();
/// Range of the exponents: full scale 2^3 down to 2^-60. Anything lower is silence.
const EXPONENTS: std::ops::RangeInclusive<i32> = -60..=3;

/// A store of samples, written once, read any number of times.
#[derive(Debug)]
pub(super) struct Spill {
    /// Complete pieces in memory, and their limit.
    pieces: Vec<Vec<u8>>,
    cap_pieces: usize,
    file: Option<File>,
    /// Position of the samples in the file, bytes.
    start: u64,
    spool: PathBuf,
    in_file: u64,
    count: u64,
    /// One exponent per group.
    exponents: Vec<i8>,
    /// Samples of the next group, and packed groups of the next piece.
    rest: Vec<f32>,
    piece: Vec<u8>,
}

impl Spill {
    #[must_use]
    pub(super) fn new(cap_bytes: u64, spool: &Path) -> Self {
        Self {
            pieces: Vec::new(),
            cap_pieces: (cap_bytes / (PIECE * SAMPLE_BYTES) as u64) as usize,
            file: None,
            start: 0,
            spool: spool.to_owned(),
            in_file: 0,
            count: 0,
            exponents: Vec::new(),
            rest: Vec::with_capacity(GROUP),
            piece: Vec::with_capacity(PIECE * SAMPLE_BYTES),
        }
    }

    /// Stores all samples in `file` from byte `start` on.
    #[must_use]
    pub(super) fn within(file: File, start: u64) -> Self {
        Self { file: Some(file), start, ..Self::new(0, Path::new("")) }
    }

    /// Number of samples.
    #[must_use]
    pub(super) const fn len(&self) -> u64 {
        self.count
    }

    pub(super) fn push(&mut self, mut samples: &[f32]) -> Result<(), AudioError> {
        self.count += samples.len() as u64;
        if !self.rest.is_empty() {
            let take = (GROUP - self.rest.len()).min(samples.len());
            self.rest.extend_from_slice(&samples[..take]);
            samples = &samples[take..];
            if self.rest.len() == GROUP {
                let group = std::mem::take(&mut self.rest);
                self.groups(&group)?;
                self.rest = group;
                self.rest.clear();
            }
        }
        let whole = samples.len() / GROUP * GROUP;
        self.groups(&samples[..whole])?;
        self.rest.extend_from_slice(&samples[whole..]);
        Ok(())
    }

    /// Packs complete groups, or the last samples.
    fn groups(&mut self, mut samples: &[f32]) -> Result<(), AudioError> {
        while !samples.is_empty() {
            let room = PIECE - self.piece.len() / SAMPLE_BYTES;
            let (now, later) = samples.split_at(room.min(samples.len()));
            pack(now, &mut self.exponents, &mut self.piece);
            if self.piece.len() == PIECE * SAMPLE_BYTES {
                self.keep()?;
            }
            samples = later;
        }
        Ok(())
    }

    /// Moves the current piece to memory or to the file.
    fn keep(&mut self) -> Result<(), AudioError> {
        if self.file.is_none() && self.pieces.len() < self.cap_pieces {
            let next = Vec::with_capacity(PIECE * SAMPLE_BYTES);
            self.pieces.push(std::mem::replace(&mut self.piece, next));
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.spool).map_err(AudioError::io("spill"))?),
        };
        let at = self.start + self.in_file * SAMPLE_BYTES as u64;
        file.write_all_at(&self.piece, at).map_err(AudioError::io("spill"))?;
        self.in_file += (self.piece.len() / SAMPLE_BYTES) as u64;
        self.piece.clear();
        Ok(())
    }

    /// Ends the writing.
    pub(super) fn finish(&mut self) -> Result<(), AudioError> {
        let rest = std::mem::take(&mut self.rest);
        self.groups(&rest)?;
        if self.piece.is_empty() { Ok(()) } else { self.keep() }
    }

    /// Passes all samples to `visit`, in order, in blocks, multiplied by `gain`. A block has been read before `visit`
    /// gets it. `visit` may therefore overwrite that part of the file and everything before it.
    pub(super) fn read(
        &mut self,
        gain: f32,
        mut visit: impl FnMut(&[f32]) -> Result<(), AudioError>,
    ) -> Result<(), AudioError> {
        let mut exponents = self.exponents.chunks(PIECE / GROUP);
        let mut block = vec![0.0; PIECE];
        for piece in &self.pieces {
            expand(piece, exponents.next().unwrap_or_default(), gain, &mut block);
            visit(&block[..piece.len() / SAMPLE_BYTES])?;
        }
        let Some(file) = &self.file else { return Ok(()) };
        let mut piece = vec![0; PIECE * SAMPLE_BYTES];
        let mut at = 0;
        while at < self.in_file {
            let take = (self.in_file - at).min(PIECE as u64) as usize;
            let bytes = &mut piece[..take * SAMPLE_BYTES];
            file.read_exact_at(bytes, self.start + at * SAMPLE_BYTES as u64).map_err(AudioError::io("read spill"))?;
            expand(bytes, exponents.next().unwrap_or_default(), gain, &mut block);
            visit(&block[..take])?;
            at += take as u64;
        }
        Ok(())
    }
}

/// Exponent of the smallest power of two above all samples. Full scale itself counts as below, because 16 bits hold it
/// on one side.
fn exponent(peak: f32) -> i32 {
    let above = ((peak.to_bits() >> 23) as i32) - 126;
    let above = if peak <= 1.0 { above.min(0) } else { above };
    above.clamp(*EXPONENTS.start(), *EXPONENTS.end())
}

/// Two to the power of `exponent`. The exponent must be far from the limits of a float.
fn power(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// Appends the mantissas and the exponent of each group of samples.
fn pack(samples: &[f32], exponents: &mut Vec<i8>, out: &mut Vec<u8>) {
    let level = fearless_simd::Level::new();
    let before = out.len();
    out.resize(before + samples.len() * SAMPLE_BYTES, 0);
    let out = &mut out[before..];
    fearless_simd::dispatch!(level, _simd => {
        for (group, out) in samples.chunks(GROUP).zip(out.chunks_mut(GROUP * SAMPLE_BYTES)) {
            let exponent = exponent(peak(group));
            exponents.push(exponent as i8);
            let full = power(15 - exponent);
            for (out, sample) in out.as_chunks_mut::<SAMPLE_BYTES>().0.iter_mut().zip(group) {
                *out = whole(sample * full).to_le_bytes();
            }
        }
    });
}

/// Rounds to the nearest integer and clips to 16 bits (inlined under `dispatch!`). The addition does the rounding: 1.5
/// * 2^23 leaves no bits for a fraction.
#[allow(clippy::inline_always)]
#[inline(always)]
pub(super) fn whole(value: f32) -> i16 {
    const SHIFT: f32 = 12_582_912.0;
    let clamped = if value < 32_767.0 { value } else { 32_767.0 };
    let clamped = if clamped > -32_768.0 { clamped } else { -32_768.0 };
    ((clamped + SHIFT).to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32) as i16
}

fn expand(mantissas: &[u8], exponents: &[i8], gain: f32, out: &mut [f32]) {
    let level = fearless_simd::Level::new();
    fearless_simd::dispatch!(level, _simd => {
        let groups = mantissas.chunks(GROUP * SAMPLE_BYTES).zip(out.chunks_mut(GROUP));
        for ((group, out), &exponent) in groups.zip(exponents) {
            let scale = power(i32::from(exponent) - 15) * gain;
            for (out, mantissa) in out.iter_mut().zip(group.as_chunks::<SAMPLE_BYTES>().0) {
                *out = f32::from(i16::from_le_bytes(*mantissa)) * scale;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(spill: &mut Spill, gain: f32) -> Vec<f32> {
        let mut out = Vec::new();
        spill
            .read(gain, |block| {
                out.extend_from_slice(block);
                Ok(())
            })
            .unwrap();
        out
    }

    #[test]
    fn what_went_in_comes_out_again_and_again() {
        let spool = tempfile::tempdir().unwrap();
        let one = (PIECE * SAMPLE_BYTES) as u64;
        // All in the file, one piece in memory, all in memory.
        for (cap, count) in [(0, 100_000usize), (one, 100_000), (1 << 20, 100_000), (0, 10), (one, PIECE), (one, 0)] {
            let mut spill = Spill::new(cap, spool.path());
            // A 16-bit recording up to full scale stays bit-exact.
            let samples: Vec<f32> = (0..count).map(|n| (n as f32 * 7.0 % 65_536.0 - 32_768.0) / 32_768.0).collect();
            for chunk in samples.chunks(999) {
                spill.push(chunk).unwrap();
            }
            spill.finish().unwrap();
            assert_eq!(spill.len(), count as u64);
            for _ in 0..2 {
                assert!(out(&mut spill, 1.0) == samples, "{cap} {count}");
            }
        }
        assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "nameless");
    }

    #[test]
    fn a_file_may_be_written_over_behind_the_reader() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"head", 0).unwrap();
        let mut spill = Spill::within(file.try_clone().unwrap(), 4);
        let samples: Vec<f32> = (0..3 * PIECE + 77).map(|n| (n as f32 * 3.0 % 32_768.0) / 32_768.0).collect();
        samples.chunks(1152).for_each(|chunk| spill.push(chunk).unwrap());
        spill.finish().unwrap();
        let (mut heard, mut at) = (Vec::new(), 4);
        spill
            .read(1.0, |block| {
                heard.extend_from_slice(block);
                file.write_all_at(&vec![7; block.len() * SAMPLE_BYTES], at).unwrap();
                at += (block.len() * SAMPLE_BYTES) as u64;
                Ok(())
            })
            .unwrap();
        assert!(heard == samples);
        assert_eq!(file.metadata().unwrap().len(), 4 + (samples.len() * SAMPLE_BYTES) as u64);
    }

    #[test]
    fn quiet_samples_keep_their_digits_and_loud_ones_their_size() {
        let spool = tempfile::tempdir().unwrap();
        for level in [3.9f32, 1.0, 0.9, 0.03, 1e-5] {
            let mut spill = Spill::new(1 << 20, spool.path());
            let samples: Vec<f32> = (0..5000).map(|n| level * (n as f32 * 0.37).sin()).collect();
            spill.push(&samples).unwrap();
            spill.finish().unwrap();
            let worst = out(&mut spill, 2.0).iter().zip(&samples).map(|(o, s)| (o - 2.0 * s).abs()).fold(0.0, f32::max);
            assert!(worst <= 2.0 * level / 32_768.0 * 1.01, "{level}: {worst}");
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_and_saturates() {
        assert_eq!((whole(0.0), whole(1.4), whole(-1.6), whole(2.5)), (0, 1, -2, 2));
        assert_eq!((whole(40_000.0), whole(-40_000.0), whole(32_767.4)), (i16::MAX, i16::MIN, i16::MAX));
    }
}
