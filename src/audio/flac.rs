//! FLAC encoder (RFC 9639) for the stored normalised audio and for speech sent to remote engines: fixed predictors and
//! partitioned Rice codes. Input is 16-bit samples, output is a FLAC file.
//!
//! It is our own because the crate flacenc needs 5 ms per audio second. Adaptive linear prediction would save a few per
//! cent of telephone speech at ten times the cost.

use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use md5::{Digest as _, Md5};
use tempfile::NamedTempFile;

use super::bits::BitWriter;
use super::block::OUTPUT_RATE_HZ;
use super::error::AudioError;
use super::speech::SPEECH_RATE_HZ;
use super::wav::{WrittenFile, hash, put_in_place, temp_beside};

/// Samples in a frame (RFC 9639 section 9.1.1: code 12).
const BLOCK: usize = 4096;
/// Highest order of the fixed predictors (section 9.2.5).
const MAX_ORDER: usize = 4;
/// Finest partition: 2^6 = 64 parts of 64 samples.
const MAX_PARTITION_ORDER: usize = 6;
/// Largest Rice parameter of the 4-bit method.
const MAX_RICE: u32 = 14;

/// Rate and channels of a stream of 16-bit samples.
#[derive(Debug, Clone, Copy)]
struct Shape {
    rate_hz: u32,
    /// Rate code of the frame header (section 9.1.2).
    rate_code: u64,
    channels: u64,
}

/// The stored file: 48 kHz, mono.
const STORED: Shape = Shape { rate_hz: OUTPUT_RATE_HZ, rate_code: 10, channels: 1 };

/// Writes 16-bit mono at 48 kHz to a file.
#[derive(Debug)]
pub(super) struct FlacWriter {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    pending: Vec<i16>,
    frames: u64,
    samples: u64,
    md5: Md5,
    bits: BitWriter,
    bytes: Vec<u8>,
}

impl FlacWriter {
    pub(super) fn create(path: &Path) -> Result<Self, AudioError> {
        let mut file = BufWriter::with_capacity(256 * 1024, temp_beside(path)?);
        file.write_all(&stream_info(STORED, 0, &[0; 16])).map_err(AudioError::io("write flac"))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            pending: Vec::with_capacity(2 * BLOCK),
            frames: 0,
            samples: 0,
            md5: Md5::new(),
            bits: BitWriter::default(),
            bytes: Vec::new(),
        })
    }

    pub(super) fn push(&mut self, samples: &[i16]) -> Result<(), AudioError> {
        self.bytes.clear();
        self.bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        self.md5.update(&self.bytes);
        self.samples += samples.len() as u64;
        self.pending.extend_from_slice(samples);
        let pending = std::mem::take(&mut self.pending);
        let whole = pending.len() / BLOCK * BLOCK;
        for block in pending[..whole].chunks_exact(BLOCK) {
            self.frame(block)?;
        }
        self.pending = pending;
        self.pending.drain(..whole);
        Ok(())
    }

    fn frame(&mut self, block: &[i16]) -> Result<(), AudioError> {
        encode_frame(&mut self.bits, STORED, self.frames, &[block]);
        self.frames += 1;
        self.file.write_all(self.bits.bytes()).map_err(AudioError::io("write flac"))
    }

    /// Completes the header and renames the file to its final name.
    pub(super) fn finish(mut self) -> Result<WrittenFile, AudioError> {
        let error = AudioError::io("write flac");
        let rest = std::mem::take(&mut self.pending);
        if !rest.is_empty() {
            self.frame(&rest)?;
        }
        let mut temp = self.file.into_inner().map_err(|failed| error(failed.into_error()))?;
        temp.seek(SeekFrom::Start(0)).map_err(&error)?;
        temp.write_all(&stream_info(STORED, self.samples, &self.md5.finalize().into())).map_err(&error)?;
        temp.flush().map_err(&error)?;
        // The header was written last, so the hash is taken of the complete file.
        temp.seek(SeekFrom::Start(0)).map_err(&error)?;
        let sha256 = hash(temp.as_file_mut()).map_err(&error)?;
        let size_bytes = temp.as_file().metadata().map_err(&error)?.len();
        put_in_place(temp, &self.path)?;
        Ok(WrittenFile { path: self.path, size_bytes, sha256 })
    }
}

/// Encodes 16-bit speech at 16 kHz in memory, for remote engines.
#[derive(Debug)]
pub struct SpeechFlac {
    shape: Shape,
    planes: Vec<Vec<i16>>,
    frames: u64,
    samples: u64,
    md5: Md5,
    bits: BitWriter,
    out: Vec<u8>,
}

impl SpeechFlac {
    /// At most eight channels.
    #[must_use]
    pub fn new(channels: usize) -> Self {
        let shape = Shape { rate_hz: SPEECH_RATE_HZ, rate_code: 5, channels: channels as u64 };
        Self {
            shape,
            planes: vec![Vec::new(); channels],
            frames: 0,
            samples: 0,
            md5: Md5::new(),
            bits: BitWriter::default(),
            out: stream_info(shape, 0, &[0; 16]).to_vec(),
        }
    }

    /// Adds samples of every channel, full scale 1.0. A shorter channel is completed with silence.
    pub fn push(&mut self, planes: &[Vec<f32>]) {
        let longest = planes.iter().map(Vec::len).max().unwrap_or(0);
        let mut bytes = Vec::with_capacity(longest * planes.len() * 2);
        for n in 0..longest {
            for (plane, kept) in planes.iter().zip(&mut self.planes) {
                let sample = (plane.get(n).copied().unwrap_or(0.0) * 32_768.0).round() as i16;
                bytes.extend(sample.to_le_bytes());
                kept.push(sample);
            }
        }
        self.md5.update(&bytes);
        self.samples += longest as u64;
        while self.planes.first().is_some_and(|plane| plane.len() >= BLOCK) {
            self.frame(BLOCK);
        }
    }

    fn frame(&mut self, length: usize) {
        let block: Vec<&[i16]> = self.planes.iter().map(|plane| &plane[..length]).collect();
        encode_frame(&mut self.bits, self.shape, self.frames, &block);
        self.out.extend_from_slice(self.bits.bytes());
        self.frames += 1;
        for plane in &mut self.planes {
            plane.drain(..length);
        }
    }

    /// The complete file.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let rest = self.planes.first().map_or(0, Vec::len);
        if rest > 0 {
            self.frame(rest);
        }
        self.out[..42].copy_from_slice(&stream_info(self.shape, self.samples, &self.md5.finalize().into()));
        self.out
    }
}

/// Marker and the only metadata block (RFC 9639 section 8.2).
fn stream_info(shape: Shape, samples: u64, md5: &[u8; 16]) -> [u8; 42] {
    let mut header = [0u8; 42];
    header[..8].copy_from_slice(b"fLaC\x80\0\0\x22");
    header[8..10].copy_from_slice(&(BLOCK as u16).to_be_bytes());
    header[10..12].copy_from_slice(&(BLOCK as u16).to_be_bytes());
    // Rate (20 bits), channels - 1 (3), bits - 1 (5), samples (36).
    let packed = u64::from(shape.rate_hz) << 44 | (shape.channels - 1) << 41 | 15 << 36 | (samples & 0xf_ffff_ffff);
    header[18..26].copy_from_slice(&packed.to_be_bytes());
    header[26..].copy_from_slice(md5);
    header
}

fn encode_frame(bits: &mut BitWriter, shape: Shape, number: u64, planes: &[&[i16]]) {
    bits.clear();
    // Sync code, fixed block size, rate, independent channels, 16 bits (section 9.1).
    bits.put(0xfff8, 16);
    let length = planes.first().map_or(0, |plane| plane.len());
    let whole = length == BLOCK;
    bits.put(if whole { 12 } else { 7 }, 4);
    bits.put(shape.rate_code, 4);
    bits.put(shape.channels - 1, 4);
    bits.put(4, 3);
    bits.put(0, 1);
    coded_number(bits, number);
    if !whole {
        bits.put(length as u64 - 1, 16);
    }
    bits.put_crc8();
    for plane in planes {
        subframe(bits, plane);
    }
    bits.align();
    bits.put_crc16();
}

/// The frame number, coded like UTF-8 with up to 36 bits (section 9.1.5).
fn coded_number(bits: &mut BitWriter, number: u64) {
    if number < 0x80 {
        bits.put(number, 8);
        return;
    }
    let mut more = 1;
    while number >> (6 * more + 6 - more) != 0 {
        more += 1;
    }
    let lead = 0xff00 >> (more + 1) & 0xff;
    bits.put(lead | number >> (6 * more), 8);
    for part in (0..more).rev() {
        bits.put(0x80 | (number >> (6 * part) & 0x3f), 8);
    }
}

fn subframe(bits: &mut BitWriter, block: &[i16]) {
    let two_complement = |sample: i16| u64::from(sample.cast_unsigned());
    if block.iter().all(|&sample| sample == block[0]) {
        bits.put(0, 8);
        bits.put(two_complement(block[0]), 16);
        return;
    }
    let (order, residual) = best_prediction(block);
    let plan = RicePlan::of(&residual, order);
    // A block that does not compress is stored verbatim.
    if plan.bits + order * 16 >= block.len() * 16 {
        bits.put(1 << 1, 8);
        for &sample in block {
            bits.put(two_complement(sample), 16);
        }
        return;
    }
    bits.put((8 + order as u64) << 1, 8);
    for &sample in &block[..order] {
        bits.put(two_complement(sample), 16);
    }
    plan.write(bits, &residual, order);
}

/// The order of the fixed predictor with the smallest residual, and the residual (its first `order` values are unused).
fn best_prediction(block: &[i16]) -> (usize, Vec<i32>) {
    let mut differences: Vec<i32> = block.iter().copied().map(i32::from).collect();
    let cost = |values: &[i32]| values.iter().map(|value| u64::from(value.unsigned_abs())).sum::<u64>();
    let highest = MAX_ORDER.min(block.len() - 1);
    let mut best = (0, cost(&differences), differences.clone());
    for order in 1..=highest {
        for n in (order..differences.len()).rev() {
            differences[n] -= differences[n - 1];
        }
        let cost = cost(&differences[order..]);
        if cost < best.1 {
            best = (order, cost, differences.clone());
        }
    }
    (best.0, best.2)
}

/// Signed to unsigned, small magnitudes first (section 9.2.7.3).
const fn fold(value: i32) -> u32 {
    (value << 1 ^ value >> 31).cast_unsigned()
}

/// Partition and Rice parameters of a block's residual.
struct RicePlan {
    partition_order: usize,
    parameters: Vec<u32>,
    /// Approximate size in bits. The estimate shifts the sum of a partition as a whole, not sample by sample.
    bits: usize,
}

impl RicePlan {
    fn of(residual: &[i32], order: usize) -> Self {
        // Partitions have equal length, and the first must hold the warm-up samples.
        let finest = (0..=MAX_PARTITION_ORDER)
            .rev()
            .find(|&p| residual.len().is_multiple_of(1 << p) && residual.len() >> p > order)
            .unwrap_or(0);
        let part = residual.len() >> finest;
        let mut sums: Vec<u64> = (0..1usize << finest)
            .map(|n| {
                let start = if n == 0 { order } else { n * part };
                residual[start..(n + 1) * part].iter().map(|&value| u64::from(fold(value))).sum()
            })
            .collect();
        let mut best: Option<Self> = None;
        for partition_order in (0..=finest).rev() {
            let plan = Self::with(&sums, partition_order, residual.len(), order);
            if best.as_ref().is_none_or(|best| plan.bits < best.bits) {
                best = Some(plan);
            }
            sums = sums.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
        best.unwrap_or(Self { partition_order: 0, parameters: vec![MAX_RICE], bits: usize::MAX })
    }

    fn with(sums: &[u64], partition_order: usize, len: usize, order: usize) -> Self {
        let part = len >> partition_order;
        let mut bits = 6;
        let mut parameters = Vec::with_capacity(sums.len());
        for (n, &sum) in sums.iter().enumerate() {
            let count = (part - if n == 0 { order } else { 0 }) as u64;
            // The best parameter is near the logarithm of the mean. Its neighbours are tried too.
            let guess = (sum / count.max(1)).checked_ilog2().unwrap_or(0).min(MAX_RICE);
            let cost = |k: u32| count * u64::from(k + 1) + (sum >> k);
            let (cost, k) =
                (guess.saturating_sub(1)..=(guess + 1).min(MAX_RICE)).map(|k| (cost(k), k)).min().unwrap_or((0, 0));
            bits += 4 + cost as usize;
            parameters.push(k);
        }
        Self { partition_order, parameters, bits }
    }

    fn write(&self, bits: &mut BitWriter, residual: &[i32], order: usize) {
        bits.put(0, 2);
        bits.put(self.partition_order as u64, 4);
        let part = residual.len() >> self.partition_order;
        for (n, &k) in self.parameters.iter().enumerate() {
            bits.put(u64::from(k), 4);
            let start = if n == 0 { order } else { n * part };
            for &value in &residual[start..(n + 1) * part] {
                bits.put_rice(fold(value), k);
            }
        }
    }
}

#[cfg(test)]
mod tests;
