//! WAV (Microsoft RIFF, with RF64 and extensible headers). Recorders that crash or stream write sizes that are wrong in
//! every way, so the bytes that are there decide, never the header.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::block::Block;
use super::contained::Contained;
use super::decode::{Decode, Facts, Step, undecodable};
use super::elementary::Elementary;
use super::error::AudioError;
use super::frames::Syntax;
use crate::domain::Container;

/// Samples per channel in a block.
const BLOCK_FRAMES: usize = 4096;

/// How a sample is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    U8,
    S16,
    S24,
    S32,
    F32,
    F64,
    ALaw,
    MuLaw,
}

impl Form {
    const fn of(tag: u16, bits: u16) -> Option<Self> {
        match (tag, bits) {
            (1, 8) => Some(Self::U8),
            (1, 16) => Some(Self::S16),
            (1, 24) => Some(Self::S24),
            (1, 32) => Some(Self::S32),
            (3, 32) => Some(Self::F32),
            (3, 64) => Some(Self::F64),
            (6, 8) => Some(Self::ALaw),
            (7, 8) => Some(Self::MuLaw),
            _ => None,
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::ALaw | Self::MuLaw => 1,
            Self::S16 => 2,
            Self::S24 => 3,
            Self::S32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    const fn codec(self) -> &'static str {
        match self {
            Self::U8 => "pcm_u8",
            Self::S16 => "pcm_s16le",
            Self::S24 => "pcm_s24le",
            Self::S32 => "pcm_s32le",
            Self::F32 => "pcm_f32le",
            Self::F64 => "pcm_f64le",
            Self::ALaw => "pcm_alaw",
            Self::MuLaw => "pcm_mulaw",
        }
    }

    /// One sample, full scale 1.
    fn sample(self, bytes: &[u8]) -> f32 {
        let first = bytes.first().copied().unwrap_or_default();
        let low = |count: usize| {
            let mut word = [0u8; 4];
            word[4 - count..].copy_from_slice(bytes.get(..count).unwrap_or(&[0; 4][..count]));
            i32::from_le_bytes(word) as f32 / 2_147_483_648.0
        };
        match self {
            Self::U8 => (f32::from(first) - 128.0) / 128.0,
            Self::S16 => low(2),
            Self::S24 => low(3),
            Self::S32 => low(4),
            Self::F32 => bytes.first_chunk().map_or(0.0, |word| f32::from_le_bytes(*word)),
            Self::F64 => bytes.first_chunk().map_or(0.0, |word| f64::from_le_bytes(*word) as f32),
            Self::ALaw => f32::from(a_law(first)) / 32_768.0,
            Self::MuLaw => f32::from(mu_law(first)) / 32_768.0,
        }
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

/// What the `fmt ` chunk says.
struct Format {
    tag: u16,
    channels: u16,
    rate_hz: u32,
    bits: u16,
}

/// Opens a WAV file.
pub fn open_wav(path: &Path) -> Result<Box<dyn Decode>, AudioError> {
    let mut file = File::open(path).map_err(AudioError::io("open"))?;
    let total = file.metadata().map_err(AudioError::io("read"))?.len();
    let mut at = 12;
    let mut format = None;
    let (data_at, declared) = loop {
        let mut head = [0u8; 8];
        file.seek(SeekFrom::Start(at)).map_err(AudioError::io("read"))?;
        if file.read_exact(&mut head).is_err() {
            return Err(undecodable("the WAV file has no data"));
        }
        let size = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
        if &head[..4] == b"data" {
            break (at + 8, size);
        }
        if &head[..4] == b"fmt " {
            format = Some(read_format(&mut file, size)?);
        }
        // Chunks are padded to even lengths; a size past the end of the file ends the search there.
        at = at.saturating_add(8 + size + (size & 1)).min(total);
    };
    let Some(format) = format else { return Err(undecodable("the WAV file has no format")) };
    // MP3 in a WAV file: the frames know more than the header around them.
    if format.tag == 0x55 {
        return Ok(Box::new(Elementary::open(path, Syntax::Mpeg, data_at)?));
    }
    if matches!(format.tag, 2 | 0x11) {
        return Ok(Box::new(Contained::open(path, Container::Wav)?));
    }
    let Some(form) = Form::of(format.tag, format.bits) else {
        return Err(AudioError::Unsupported { codec: format!("wav format {:#06x}, {} bits", format.tag, format.bits) });
    };
    if format.channels == 0 || format.rate_hz == 0 {
        return Err(undecodable("the WAV header gives no channels or no rate"));
    }
    let present = total - data_at;
    let mut facts = Facts::new(form.codec());
    facts.saw(format.rate_hz, format.channels);
    // 0 and 0xFFFFFFFF are what streaming recorders leave; they mean "to the end".
    let open_ended = declared == 0 || declared >= 0xffff_ff00;
    if declared > present && !open_ended {
        facts.warnings.push("the WAV header promises more than the file holds".to_owned());
    }
    let bytes = if open_ended { present } else { declared.min(present) };
    file.seek(SeekFrom::Start(data_at)).map_err(AudioError::io("read"))?;
    Ok(Box::new(Pcm { reader: BufReader::with_capacity(64 * 1024, file).take(bytes), form, facts, bytes: Vec::new() }))
}

fn read_format(file: &mut File, size: u64) -> Result<Format, AudioError> {
    let mut body = Vec::new();
    file.take(size.min(64)).read_to_end(&mut body).map_err(AudioError::io("read"))?;
    let word = |at: usize| body.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let fields = (word(0), word(2), body.get(4..8).and_then(<[u8]>::first_chunk::<4>), word(14));
    let (Some(tag), Some(channels), Some(rate), Some(bits)) = fields else {
        return Err(undecodable("the WAV format chunk is cut off"));
    };
    // Extensible: the real tag is the start of the sub-format GUID.
    let tag = if tag == 0xfffe { word(24).unwrap_or(tag) } else { tag };
    Ok(Format { tag, channels, rate_hz: u32::from_le_bytes(*rate), bits })
}

/// Uncompressed and G.711 samples.
struct Pcm {
    reader: std::io::Take<BufReader<File>>,
    form: Form,
    facts: Facts,
    bytes: Vec<u8>,
}

impl Decode for Pcm {
    fn next(&mut self, block: &mut Block) -> Result<Step, AudioError> {
        let channels = usize::from(self.facts.channels);
        let width = self.form.bytes();
        self.bytes.clear();
        let wanted = (BLOCK_FRAMES * channels * width) as u64;
        (&mut self.reader).take(wanted).read_to_end(&mut self.bytes).map_err(AudioError::io("read"))?;
        let frames = self.bytes.len() / (channels * width);
        if frames == 0 {
            return Ok(Step::End);
        }
        block.set_silence(self.facts.rate_hz, self.facts.channels, frames);
        for (frame, bytes) in self.bytes.chunks_exact(channels * width).enumerate() {
            for (plane, sample) in block.planes.iter_mut().zip(bytes.chunks_exact(width)) {
                plane[frame] = self.form.sample(sample);
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
    fn samples_of_every_width() {
        assert!((Form::S24.sample(&[0, 0, 0x80]) + 1.0).abs() < 1e-6);
        assert!((Form::S16.sample(&[0, 0x40]) - 0.5).abs() < 1e-6);
        assert!((Form::U8.sample(&[192]) - 0.5).abs() < 1e-6);
        assert!((Form::S32.sample(&[0, 0, 0, 0xc0]) + 0.5).abs() < 1e-6);
        assert!((Form::F64.sample(&0.25f64.to_le_bytes()) - 0.25).abs() < 1e-6);
    }
}
