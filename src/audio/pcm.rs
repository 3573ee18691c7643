//! Reads PCM and G.711 samples: the usual content of WAV, AIFF and AU files. Input is a byte range of a file, output is
//! blocks of samples.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

use super::block::Block;
use super::decoder::{Decode, Facts, Step, undecodable};
use super::error::AudioError;
use super::layout::{Layout, MAX_CHANNELS};

/// Samples per channel in a block.
const BLOCK_FRAMES: usize = 4096;

/// Encoding of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SampleCoding {
    U8,
    S8,
    S16,
    S24,
    S32,
    F32,
    F64,
    ALaw,
    MuLaw,
}

/// Byte order of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

/// Encoding and byte order of all samples of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SampleForm {
    pub coding: SampleCoding,
    pub order: Order,
}

/// Format of the samples by the file's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct PcmShape {
    pub form: SampleForm,
    pub rate_hz: u32,
    pub channels: u16,
    pub layout: Layout,
}

impl SampleForm {
    const fn bytes(self) -> usize {
        match self.coding {
            SampleCoding::U8 | SampleCoding::S8 | SampleCoding::ALaw | SampleCoding::MuLaw => 1,
            SampleCoding::S16 => 2,
            SampleCoding::S24 => 3,
            SampleCoding::S32 | SampleCoding::F32 => 4,
            SampleCoding::F64 => 8,
        }
    }

    const fn codec(self) -> &'static str {
        match (self.coding, self.order) {
            (SampleCoding::U8, _) => "pcm_u8",
            (SampleCoding::S8, _) => "pcm_s8",
            (SampleCoding::S16, Order::Little) => "pcm_s16le",
            (SampleCoding::S16, Order::Big) => "pcm_s16be",
            (SampleCoding::S24, Order::Little) => "pcm_s24le",
            (SampleCoding::S24, Order::Big) => "pcm_s24be",
            (SampleCoding::S32, Order::Little) => "pcm_s32le",
            (SampleCoding::S32, Order::Big) => "pcm_s32be",
            (SampleCoding::F32, Order::Little) => "pcm_f32le",
            (SampleCoding::F32, Order::Big) => "pcm_f32be",
            (SampleCoding::F64, Order::Little) => "pcm_f64le",
            (SampleCoding::F64, Order::Big) => "pcm_f64be",
            (SampleCoding::ALaw, _) => "pcm_alaw",
            (SampleCoding::MuLaw, _) => "pcm_mulaw",
        }
    }

    /// One sample, full scale 1.0.
    fn sample(self, bytes: &[u8]) -> f32 {
        let first = bytes.first().copied().unwrap_or_default();
        match self.coding {
            SampleCoding::U8 => (f32::from(first) - 128.0) / 128.0,
            SampleCoding::S8 => f32::from(first.cast_signed()) / 128.0,
            SampleCoding::S16 => self.whole::<2>(bytes),
            SampleCoding::S24 => self.whole::<3>(bytes),
            SampleCoding::S32 => self.whole::<4>(bytes),
            SampleCoding::F32 => bytes.first_chunk().map_or(0.0, |word| match self.order {
                Order::Little => f32::from_le_bytes(*word),
                Order::Big => f32::from_be_bytes(*word),
            }),
            SampleCoding::F64 => bytes.first_chunk().map_or(0.0, |word| match self.order {
                Order::Little => f64::from_le_bytes(*word) as f32,
                Order::Big => f64::from_be_bytes(*word) as f32,
            }),
            SampleCoding::ALaw => f32::from(a_law(first)) / 32_768.0,
            SampleCoding::MuLaw => f32::from(mu_law(first)) / 32_768.0,
        }
    }

    /// A signed integer of `N` bytes (at most four), scaled to full scale 1.0.
    fn whole<const N: usize>(self, bytes: &[u8]) -> f32 {
        let Some(bytes) = bytes.first_chunk::<N>() else { return 0.0 };
        let mut word = [0u8; 4];
        let whole = match self.order {
            Order::Little => {
                word[4 - N..].copy_from_slice(bytes);
                i32::from_le_bytes(word)
            }
            Order::Big => {
                word[..N].copy_from_slice(bytes);
                i32::from_be_bytes(word)
            }
        };
        whole as f32 / 2_147_483_648.0
    }
}

/// ITU-T G.711 table 1a: A-law with the even bits inverted.
const fn a_law(byte: u8) -> i16 {
    let code = byte ^ 0x55;
    let segment = (code >> 4) & 7;
    let mantissa = ((code & 15) as i16) << 4;
    let magnitude = match segment {
        0 => mantissa + 8,
        _ => (mantissa + 0x108) << (segment - 1),
    };
    if code & 0x80 != 0 { magnitude } else { -magnitude }
}

/// ITU-T G.711 table 2a: mu-law, all bits inverted.
const fn mu_law(byte: u8) -> i16 {
    let code = !byte;
    let magnitude = ((((code & 15) as i16) << 3) + 0x84) << ((code >> 4) & 7);
    if code & 0x80 != 0 { 0x84 - magnitude } else { magnitude - 0x84 }
}

/// Decoder of a byte range of a file.
pub(super) struct Pcm {
    reader: std::io::Take<BufReader<File>>,
    shape: PcmShape,
    facts: Facts,
    bytes: Vec<u8>,
}

impl Pcm {
    /// Opens the samples in the byte range `sound` of `file`.
    ///
    /// # Errors
    /// A shape without channels or rate, too many channels, or a file that cannot be read.
    pub(super) fn open(mut file: File, shape: PcmShape, sound: Range<u64>) -> Result<Self, AudioError> {
        let channels = usize::from(shape.channels);
        if channels == 0 || shape.rate_hz == 0 {
            return Err(undecodable("the header gives no channels or no rate"));
        }
        if channels > MAX_CHANNELS {
            return Err(AudioError::TooManyChannels { channels, limit: MAX_CHANNELS });
        }
        file.seek(SeekFrom::Start(sound.start)).map_err(AudioError::io("read"))?;
        let mut facts = Facts::new(shape.form.codec());
        facts.saw(shape.rate_hz, shape.channels);
        let len = sound.end.saturating_sub(sound.start);
        Ok(Self { reader: BufReader::with_capacity(64 * 1024, file).take(len), shape, facts, bytes: Vec::new() })
    }
}

impl Decode for Pcm {
    fn next(&mut self, block: &mut Block) -> Result<Step, AudioError> {
        let PcmShape { form, rate_hz, channels, layout } = self.shape;
        let (width, frame) = (form.bytes(), form.bytes() * usize::from(channels));
        self.bytes.clear();
        let wanted = (BLOCK_FRAMES * frame) as u64;
        (&mut self.reader).take(wanted).read_to_end(&mut self.bytes).map_err(AudioError::io("read"))?;
        let frames = self.bytes.len() / frame;
        if frames == 0 {
            return Ok(Step::End);
        }
        block.set_silence(rate_hz, channels, frames);
        block.layout = layout;
        for (at, bytes) in self.bytes.chunks_exact(frame).enumerate() {
            for (plane, sample) in block.planes.iter_mut().zip(bytes.chunks_exact(width)) {
                plane[at] = form.sample(sample);
            }
        }
        Ok(Step::Audio)
    }

    fn facts(&self) -> Facts {
        self.facts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g711_values_of_the_recommendation() {
        // Table 2a: 0x80 is the largest positive value, 0xff is zero; table 1a: 0xaa is the largest positive value.
        assert_eq!((mu_law(0x80), mu_law(0x00), mu_law(0xff), mu_law(0x7f)), (32_124, -32_124, 0, 0));
        assert_eq!((a_law(0xaa), a_law(0x2a), a_law(0xd5), a_law(0x55)), (32_256, -32_256, 8, -8));
    }

    #[test]
    fn samples_of_every_width_and_order() {
        for (coding, little, value) in [
            (SampleCoding::S24, &[0, 0, 0x80][..], -1.0),
            (SampleCoding::S16, &[0, 0x40], 0.5),
            (SampleCoding::U8, &[192], 0.5),
            (SampleCoding::S8, &[0xc0], -0.5),
            (SampleCoding::S32, &[0, 0, 0, 0xc0], -0.5),
            (SampleCoding::F32, &0.125f32.to_le_bytes(), 0.125),
            (SampleCoding::F64, &0.25f64.to_le_bytes(), 0.25),
        ] {
            let big: Vec<u8> = little.iter().rev().copied().collect();
            for (order, bytes) in [(Order::Little, little), (Order::Big, &big)] {
                let form = SampleForm { coding, order };
                assert!((form.sample(bytes) - value).abs() < 1e-6, "{form:?}");
                assert_eq!((form.bytes(), form.sample(&[]).abs() < 2.0), (bytes.len(), true), "{form:?}");
            }
        }
    }
}
