//! Reads AIFF and AIFF-C (Apple, 1989 and 1991): samples as in WAV, big-endian.

use std::path::Path;

use super::chunks::{ChunkSyntax, Places};
use super::decoder::{Decode, undecodable};
use super::error::AudioError;
use super::layout::Layout;
use super::pcm::{Order, Pcm, PcmShape, SampleCoding, SampleForm};

/// Limit on the chunks read.
const CHUNKS: u32 = 10_000;
/// Length of the common chunk up to the end of the compression type.
const COMMON_BYTES: u64 = 22;

pub(super) fn open(path: &Path) -> Result<Box<dyn Decode>, AudioError> {
    let failed = AudioError::io("read");
    let places = Places::open(path).map_err(AudioError::io("open"))?;
    let (mut at, mut common, mut sound) = (12, None, None);
    for _ in 0..CHUNKS {
        let Some(chunk) = ChunkSyntax::Iff.chunk(&places, at).map_err(&failed)? else { break };
        at = ChunkSyntax::Iff.after(&chunk);
        match &chunk.name {
            b"COMM" => common = Some(places.read(chunk.body, chunk.len.min(COMMON_BYTES) as usize).map_err(&failed)?),
            b"SSND" if sound.is_none() => {
                let offset = places.exactly(chunk.body).map_err(&failed)?.map_or(0, u32::from_be_bytes);
                let begin = chunk.body.saturating_add(8).saturating_add(u64::from(offset)).min(places.total());
                // The chunk length includes the 8 bytes of offset and block size. A shorter length is invalid.
                let told = chunk.len.checked_sub(8 + u64::from(offset)).filter(|len| *len > 0);
                let extent = ChunkSyntax::Iff.extent(&places, begin, told).map_err(&failed)?;
                sound = Some(begin..extent.end);
                at = extent.next;
            }
            _ => {}
        }
    }
    let Some(common) = common else { return Err(undecodable("the AIFF file has no format")) };
    let Some(sound) = sound else { return Err(undecodable("the AIFF file has no sound")) };
    let shape = shape(&common)?;
    Ok(Box::new(Pcm::open(std::fs::File::open(path).map_err(AudioError::io("open"))?, shape, sound)?))
}

/// Sample format from the common chunk.
fn shape(common: &[u8]) -> Result<PcmShape, AudioError> {
    let cut_off = || undecodable("the AIFF format chunk is cut off");
    let word = |at: usize| common.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word));
    let (channels, bits) = word(0).zip(word(6)).ok_or_else(cut_off)?;
    let rate_hz = common.get(8..18).and_then(extended).ok_or_else(cut_off)?;
    // Plain AIFF has no compression type.
    let compression = common.get(18..22).unwrap_or(b"NONE");
    let whole = match bits {
        1..=8 => Some(SampleCoding::S8),
        9..=16 => Some(SampleCoding::S16),
        17..=24 => Some(SampleCoding::S24),
        25..=32 => Some(SampleCoding::S32),
        _ => None,
    };
    let coding = match compression {
        b"NONE" | b"twos" | b"sowt" => whole,
        b"in24" => Some(SampleCoding::S24),
        b"in32" => Some(SampleCoding::S32),
        b"raw " => Some(SampleCoding::U8),
        b"fl32" | b"FL32" => Some(SampleCoding::F32),
        b"fl64" | b"FL64" => Some(SampleCoding::F64),
        b"alaw" | b"ALAW" => Some(SampleCoding::ALaw),
        b"ulaw" | b"ULAW" => Some(SampleCoding::MuLaw),
        _ => None,
    };
    let Some(coding) = coding else {
        let name = String::from_utf8_lossy(compression).trim().to_lowercase();
        return Err(AudioError::Unsupported { codec: format!("{name} (AIFF, {bits} bits)") });
    };
    let order = if compression == b"sowt" { Order::Little } else { Order::Big };
    Ok(PcmShape { form: SampleForm { coding, order }, rate_hz, channels, layout: Layout::default() })
}

/// A rate in 80-bit IEEE 754 extended precision: sign and exponent, then the mantissa with its leading 1.
fn extended(bytes: &[u8]) -> Option<u32> {
    let (exponent, mantissa) = bytes.split_first_chunk::<2>()?;
    let exponent = i32::from(u16::from_be_bytes(*exponent) & 0x7fff) - 16_383;
    let mantissa = u64::from_be_bytes(*mantissa.first_chunk()?);
    let rate = mantissa as f64 * 2f64.powi(exponent.clamp(-64, 64) - 63);
    (rate < f64::from(u32::MAX)).then(|| rate.round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_in_extended_precision() {
        assert_eq!(extended(&[0x40, 0x0b, 0xfa, 0, 0, 0, 0, 0, 0, 0]), Some(8_000));
        assert_eq!(extended(&[0x40, 0x0e, 0xac, 0x44, 0, 0, 0, 0, 0, 0]), Some(44_100));
        assert_eq!(extended(&[0; 10]), Some(0));
        assert_eq!(extended(&[0xff; 10]), None);
        assert_eq!(extended(&[0x40]), None);
    }

    #[test]
    fn a_compression_that_is_not_read_is_named() {
        let mut common = vec![0, 1, 0, 0, 0, 0, 0, 16, 0x40, 0x0b, 0xfa, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(shape(&common).unwrap().form, SampleForm { coding: SampleCoding::S16, order: Order::Big });
        common.extend(b"ima4");
        let error = shape(&common).unwrap_err();
        assert!(matches!(&error, AudioError::Unsupported { codec } if codec.contains("ima4")), "{error}");
        assert!(matches!(shape(&common[..9]).unwrap_err(), AudioError::Damaged { .. }));
    }
}
