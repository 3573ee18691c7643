//! Holds the decoded call between the two passes: in memory up to a cap, beyond it in a nameless file of the spool.
//!
//! Samples are kept in 16 bits with a power of two for every 256 of them. What that takes off is as little as the 16 bits
//! of the output take off full scale, whatever the gain will be, and nothing at all of 16-bit recordings.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::block::peak;
use super::error::AudioError;

/// Samples in one piece of memory, and in one block given out.
const PIECE: usize = 32 * 1024;
/// Samples that share an exponent.
const GROUP: usize = 256;
const SAMPLE_BYTES: usize = size_of::<i16>();
/// Exponents in use: full scale 2^3 down to 2^-60, under which all is silence.
const EXPONENTS: std::ops::RangeInclusive<i32> = -60..=3;

/// A store of samples, written once, read as often as wanted.
#[derive(Debug)]
pub struct Spill {
    pieces: Vec<Vec<i16>>,
    cap_pieces: usize,
    spool: std::path::PathBuf,
    file: Option<BufWriter<File>>,
    in_file: u64,
    /// Of all groups so far.
    exponents: Vec<i8>,
    /// Samples of the next group.
    rest: Vec<f32>,
    bytes: Vec<u8>,
}

impl Spill {
    #[must_use]
    pub fn new(cap_bytes: u64, spool: &Path) -> Self {
        let cap_pieces = (cap_bytes / (PIECE * SAMPLE_BYTES) as u64).max(1) as usize;
        Self {
            pieces: Vec::new(),
            cap_pieces,
            spool: spool.to_owned(),
            file: None,
            in_file: 0,
            exponents: Vec::new(),
            rest: Vec::with_capacity(GROUP),
            bytes: Vec::new(),
        }
    }

    /// Samples held.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum::<u64>() + self.in_file + self.rest.len() as u64
    }

    pub fn push(&mut self, mut samples: &[f32]) -> Result<(), AudioError> {
        if !self.rest.is_empty() {
            let take = (GROUP - self.rest.len()).min(samples.len());
            self.rest.extend_from_slice(&samples[..take]);
            samples = &samples[take..];
            if self.rest.len() == GROUP {
                let group = std::mem::take(&mut self.rest);
                self.group(&group)?;
                self.rest = group;
                self.rest.clear();
            }
        }
        let (groups, rest) = samples.as_chunks::<GROUP>();
        for group in groups {
            self.group(group)?;
        }
        self.rest.extend_from_slice(rest);
        Ok(())
    }

    /// Keeps a group, or the last samples.
    fn group(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        let exponent = exponent(peak(samples));
        self.exponents.push(exponent as i8);
        let full = power(15 - exponent);
        if self.file.is_none() {
            if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
                if self.pieces.len() >= self.cap_pieces {
                    let file = tempfile::tempfile_in(&self.spool).map_err(AudioError::io("spill"))?;
                    self.file = Some(BufWriter::with_capacity(256 * 1024, file));
                    return self.group_to_file(samples, full);
                }
                self.pieces.push(Vec::with_capacity(PIECE));
            }
            if let Some(piece) = self.pieces.last_mut() {
                mantissas(samples, full, piece);
            }
            return Ok(());
        }
        self.group_to_file(samples, full)
    }

    fn group_to_file(&mut self, samples: &[f32], full: f32) -> Result<(), AudioError> {
        let mut group = Vec::with_capacity(GROUP);
        mantissas(samples, full, &mut group);
        self.bytes.clear();
        self.bytes.extend(group.iter().flat_map(|mantissa| mantissa.to_le_bytes()));
        if let Some(file) = &mut self.file {
            file.write_all(&self.bytes).map_err(AudioError::io("spill"))?;
        }
        self.in_file += samples.len() as u64;
        Ok(())
    }

    /// Ends the writing.
    pub fn finish(&mut self) -> Result<(), AudioError> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() { Ok(()) } else { self.group(&rest) }
    }

    /// Gives all samples to `visit`, in order, in blocks, each multiplied by `gain`.
    pub fn read(
        &mut self,
        gain: f32,
        mut visit: impl FnMut(&[f32]) -> Result<(), AudioError>,
    ) -> Result<(), AudioError> {
        let mut exponents = self.exponents.chunks(PIECE / GROUP);
        let mut block = vec![0.0; PIECE];
        for piece in &self.pieces {
            expand(piece, exponents.next().unwrap_or_default(), gain, &mut block);
            visit(&block[..piece.len()])?;
        }
        let Some(writer) = &mut self.file else { return Ok(()) };
        let error = AudioError::io("read spill");
        writer.flush().map_err(AudioError::io("spill"))?;
        let file = writer.get_mut();
        file.seek(SeekFrom::Start(0)).map_err(&error)?;
        let mut reader = BufReader::with_capacity(PIECE * SAMPLE_BYTES, &mut *file);
        let mut left = self.in_file;
        let mut piece = Vec::with_capacity(PIECE);
        while left > 0 {
            let take = left.min(PIECE as u64) as usize;
            self.bytes.resize(take * SAMPLE_BYTES, 0);
            reader.read_exact(&mut self.bytes).map_err(&error)?;
            piece.clear();
            piece.extend(self.bytes.as_chunks::<SAMPLE_BYTES>().0.iter().map(|bytes| i16::from_le_bytes(*bytes)));
            expand(&piece, exponents.next().unwrap_or_default(), gain, &mut block);
            visit(&block[..take])?;
            left -= take as u64;
        }
        file.seek(SeekFrom::End(0)).map_err(&error)?;
        Ok(())
    }
}

/// The smallest power of two no sample reaches; full scale itself is let through, as 16 bits hold it on one side.
fn exponent(peak: f32) -> i32 {
    let above = ((peak.to_bits() >> 23) as i32) - 126;
    let above = if peak <= 1.0 { above.min(0) } else { above };
    above.clamp(*EXPONENTS.start(), *EXPONENTS.end())
}

/// Two to the power of `exponent`, which is far from the ends of what a float can hold.
fn power(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// Appends the samples times `full`, to the nearest whole number.
fn mantissas(samples: &[f32], full: f32, out: &mut Vec<i16>) {
    let level = fearless_simd::Level::new();
    fearless_simd::dispatch!(level, _simd => out.extend(samples.iter().map(|sample| whole(sample * full))));
}

/// To the nearest whole number that 16 bits hold (inlined under `dispatch!`), by the adder: 1.5 * 2^23 leaves no room for a fraction.
#[allow(clippy::inline_always)]
#[inline(always)]
pub fn whole(value: f32) -> i16 {
    const SHIFT: f32 = 12_582_912.0;
    let clamped = if value < 32_767.0 { value } else { 32_767.0 };
    let clamped = if clamped > -32_768.0 { clamped } else { -32_768.0 };
    ((clamped + SHIFT).to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32) as i16
}

fn expand(mantissas: &[i16], exponents: &[i8], gain: f32, out: &mut [f32]) {
    let level = fearless_simd::Level::new();
    fearless_simd::dispatch!(level, _simd => {
        for ((group, out), &exponent) in mantissas.chunks(GROUP).zip(out.chunks_mut(GROUP)).zip(exponents) {
            let scale = power(i32::from(exponent) - 15) * gain;
            for (out, &mantissa) in out.iter_mut().zip(group) {
                *out = f32::from(mantissa) * scale;
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
        // One piece of memory, the rest in the file.
        for (cap, count) in [(1, 100_000usize), (1 << 20, 100_000), (1, 10), (1, PIECE), (1 << 20, 2 * PIECE)] {
            let mut spill = Spill::new(cap, spool.path());
            // A 16-bit recording, up to its full scale: bit for bit.
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
