//! Reads the AAC configuration of containers (AudioSpecificConfig, ISO/IEC 14496-3 1.6.2.1). The decoder supports Low
//! Complexity with one or two channels.
//!
//! High-efficiency AAC is a Low Complexity core at half the rate. Extra data rebuilds the upper half of the band, and
//! in version 2 the second channel. Only the core is decoded, and the recording is flagged.

use super::bits::{BitWriter, Bits};

/// Limit of the decoder.
pub(super) const MOST_CHANNELS: u16 = 2;

/// Audio object types (ISO/IEC 14496-3 table 1.17).
const LOW_COMPLEXITY: u32 = 2;
const SPECTRAL_BAND_REPLICATION: u32 = 5;
const PARAMETRIC_STEREO: u32 = 29;
/// Sync word of an extension after the configuration.
const EXTENSION: u32 = 0x2b7;

/// Content of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AacConfig {
    LowComplexity(Core),
    /// A Low Complexity core at half the rate, or with half the channels.
    HighEfficiency(Core),
    /// An unsupported kind, by its name.
    Unread(String),
}

/// The configuration of the core alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Core(pub Box<[u8]>);

/// Reads a configuration. `None` where it is cut off.
#[must_use]
pub(super) fn read(bytes: &[u8]) -> Option<AacConfig> {
    let mut bits = Bits::new(bytes, 0);
    let mut kind = object_type(&mut bits);
    let rate = Rate::read(&mut bits);
    let channels = bits.take(4);
    let explicit = matches!(kind, SPECTRAL_BAND_REPLICATION | PARAMETRIC_STEREO);
    if explicit {
        Rate::read(&mut bits);
        kind = object_type(&mut bits);
    }
    if !bits.inside() {
        return None;
    }
    if kind != LOW_COMPLEXITY {
        return Some(AacConfig::Unread(name(kind)));
    }
    let short_frames = bits.flag();
    if bits.flag() {
        bits.take(14);
    }
    bits.flag();
    match channels {
        0 => return Some(AacConfig::Unread("aac with a program of its own".to_owned())),
        1..=2 => {}
        more => return Some(AacConfig::Unread(of_channels(more as u16))),
    }
    if short_frames {
        return Some(AacConfig::Unread("aac of 960 samples a frame".to_owned()));
    }
    let extended = explicit || extension(&mut bits, bytes.len() * 8);
    let core = rate.core(channels);
    Some(if extended { AacConfig::HighEfficiency(core) } else { AacConfig::LowComplexity(core) })
}

/// Whether a high-efficiency extension follows the configuration. Older readers ignore it.
fn extension(bits: &mut Bits<'_>, len: usize) -> bool {
    bits.at + 16 <= len && bits.take(11) == EXTENSION && object_type(bits) == SPECTRAL_BAND_REPLICATION && bits.flag()
}

fn object_type(bits: &mut Bits<'_>) -> u32 {
    match bits.take(5) {
        31 => 32 + bits.take(6),
        kind => kind,
    }
}

/// A sample rate as an index, or as a number where the index says so.
#[derive(Debug, Clone, Copy)]
struct Rate {
    index: u32,
    written_hz: u32,
}

impl Rate {
    const WRITTEN: u32 = 15;

    fn read(bits: &mut Bits<'_>) -> Self {
        let index = bits.take(4);
        Self { index, written_hz: if index == Self::WRITTEN { bits.take(24) } else { 0 } }
    }

    /// A Low Complexity configuration at this rate: 1,024 samples per frame, no extension.
    fn core(self, channels: u32) -> Core {
        let mut bits = BitWriter::default();
        bits.put(u64::from(LOW_COMPLEXITY), 5);
        bits.put(u64::from(self.index), 4);
        if self.index == Self::WRITTEN {
            bits.put(u64::from(self.written_hz), 24);
        }
        bits.put(u64::from(channels), 4);
        bits.put(0, 3);
        bits.align();
        Core(bits.bytes().into())
    }
}

/// Name of multichannel AAC, by the channel index of its header.
#[must_use]
pub(super) fn of_channels(index: u16) -> String {
    format!("aac of {} channels", if index == 7 { 8 } else { index })
}

fn name(kind: u32) -> String {
    let name = match kind {
        1 => "aac main",
        3 => "aac ssr",
        4 => "aac ltp",
        6 => "aac scalable",
        8 => "celp",
        9 => "hvxc",
        17 => "aac er lc",
        19 => "aac er ltp",
        23 => "aac ld",
        32..=34 => "mpeg audio in aac",
        36 => "als",
        39 => "aac eld",
        42 => "xhe-aac",
        _ => return format!("aac of object type {kind}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From a string of bits, completed with zeros.
    fn config(bits: &str) -> Vec<u8> {
        let bits: Vec<u8> = bits.bytes().filter(u8::is_ascii_digit).map(|bit| bit - b'0').collect();
        bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |sum, (n, bit)| sum | bit << (7 - n))).collect()
    }

    /// Low Complexity, 24 kHz, mono and stereo.
    fn core(channels: u8) -> Core {
        Core([0x13, channels << 3].into())
    }

    #[test]
    fn explicit_and_backward_compatible_signalling_have_the_same_core() {
        for (bits, channels) in [
            // Types 5 and 29, core at 24 kHz, output at 48 kHz, Low Complexity.
            ("00101 0110 0010 0011 00010 000", 2),
            ("11101 0110 0001 0011 00010 000", 1),
            // The sync extension, without and with parametric stereo after it.
            ("00010 0110 0010 000 01010110111 00101 1 0011", 2),
            ("00010 0110 0001 000 01010110111 00101 1 0011 10101001000 1", 1),
        ] {
            assert_eq!(read(&config(bits)), Some(AacConfig::HighEfficiency(core(channels))), "{bits}");
        }
    }

    #[test]
    fn plain_configurations_stay_plain() {
        assert_eq!(read(&[0x13, 0x10]), Some(AacConfig::LowComplexity(core(2))));
        // The extension is present and signals that the tool is off.
        let none = config("00010 0110 0010 000 01010110111 00101 0");
        assert_eq!(read(&none), Some(AacConfig::LowComplexity(core(2))));
        // A rate without an index.
        let written = config("00010 1111 000000000011111000000000 0001 000");
        assert_eq!(read(&written), Some(AacConfig::LowComplexity(Core(written.clone().into()))));
    }

    #[test]
    fn kinds_that_are_not_read_are_named() {
        for (bits, name) in [
            ("00001 0011 0010 000", "aac main"),
            ("00100 0011 0010 000", "aac ltp"),
            ("10111 0011 0010 000", "aac ld"),
            ("11111 000111 0011 0010 000", "aac eld"),
            ("11111 001010 0011 0010 000", "xhe-aac"),
            ("00010 0011 0110 000", "aac of 6 channels"),
            ("00010 0011 0111 000", "aac of 8 channels"),
            ("00010 0011 0000 000", "aac with a program of its own"),
            ("00010 0011 0010 100", "aac of 960 samples a frame"),
        ] {
            assert_eq!(read(&config(bits)), Some(AacConfig::Unread(name.to_owned())), "{bits}");
        }
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        assert_eq!((read(&[]), read(&[0x13]), read(&[0x2b])), (None, None, None));
        for first in 0..=u8::MAX {
            for second in [0x00, 0x10, 0x56, 0xff] {
                let _ = read(&[first, second, first ^ second, second]);
            }
        }
    }
}
