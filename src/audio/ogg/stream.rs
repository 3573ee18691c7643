//! One logical stream: joins its pages to packets, reads its headers, and gives the length of each audio packet.

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known as id;

use super::pages::OggPage;
use crate::audio::opus;

/// A larger packet is dropped. Headers may hold pictures. A page holds 64 KiB.
const MOST_BYTES: usize = 16 << 20;

/// A larger jump of the page numbers is another kind of numbering.
const MOST_MISSED: u32 = 1000;
/// Names for video and for unknown streams.
pub(super) const VIDEO: &str = "video without audio";
pub(super) const UNKNOWN: &str = "unknown";

/// An audio packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sound {
    pub data: Vec<u8>,
    /// Samples per channel after decoding, before trimming.
    pub samples: u64,
    /// The encoder has nothing to send.
    pub is_pause: bool,
}

#[derive(Debug)]
enum Codec {
    /// RFC 7845.
    Opus { head: Vec<u8> },
    /// Vorbis I, section A.
    Vorbis { head: Vec<u8>, setup: Option<(Vec<u8>, Modes)>, previous: Option<u64> },
    /// Mapping of xiph.org/flac/ogg_mapping.html.
    Flac { info: Vec<u8> },
}

/// A stream that can be decoded.
#[derive(Debug)]
pub(super) struct Stream {
    pub serial: u32,
    pub rate_hz: u32,
    /// Position of its first page in the file, bytes.
    pub offset: u64,
    codec: Codec,
    sequence: u32,
    /// Start of a packet that continues on the next page.
    partial: Vec<u8>,
    /// The last audio packet was a pause.
    pub after_pause: bool,
}

impl Stream {
    /// Opens a stream by its first page. The error is the name of an unsupported codec.
    pub(super) fn open(page: &OggPage) -> Result<Self, &'static str> {
        let head = page.parts().next().map(|(part, _)| part).unwrap_or_default();
        let le32 = |at: usize| head.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_le_bytes(*word));
        let (codec, rate_hz) = if head.starts_with(b"OpusHead") && head.len() >= 19 {
            (Codec::Opus { head: head.to_vec() }, opus::RATE_HZ)
        } else if head.starts_with(b"\x01vorbis") && head.len() >= 30 {
            (Codec::Vorbis { head: head.to_vec(), setup: None, previous: None }, le32(12))
        } else if head.starts_with(b"\x7fFLAC") && head.len() >= 51 {
            let info = head[17..51].to_vec();
            let rate_hz = u32::from_be_bytes([0, info[10], info[11], info[12]]) >> 4;
            (Codec::Flac { info }, rate_hz)
        } else {
            return Err(foreign(head));
        };
        if rate_hz == 0 {
            return Err(UNKNOWN);
        }
        let (serial, offset) = (page.serial, page.offset);
        Ok(Self { serial, rate_hz, offset, codec, sequence: page.sequence, partial: Vec::new(), after_pause: false })
    }

    /// Parameters of the decoder. `None` until the headers are complete.
    pub(super) fn params(&self) -> Option<AudioCodecParameters> {
        let mut params = AudioCodecParameters::new();
        let (codec, extra) = match &self.codec {
            Codec::Opus { head } => (id::CODEC_ID_OPUS, head.clone()),
            Codec::Vorbis { head, setup, .. } => (id::CODEC_ID_VORBIS, [head.as_slice(), &setup.as_ref()?.0].concat()),
            Codec::Flac { info } => (id::CODEC_ID_FLAC, info.clone()),
        };
        params.for_codec(codec).with_sample_rate(self.rate_hz).with_extra_data(extra.into());
        Some(params)
    }

    /// Samples announced by the header.
    pub(super) fn promised(&self) -> Option<u64> {
        let Codec::Flac { info } = &self.codec else { return None };
        let total = u64::from(info[13] & 15) << 32 | u64::from(u32::from_be_bytes(*info[14..].first_chunk()?));
        (total > 0).then_some(total)
    }

    /// Pages missing before this one, by the page numbers.
    pub(super) const fn missed_before(&self, page: &OggPage) -> u32 {
        match page.sequence.wrapping_sub(self.sequence).saturating_sub(1) {
            missed @ ..=MOST_MISSED => missed,
            _ => 0,
        }
    }

    /// The audio packets that end on this page, the next page of the stream.
    pub(super) fn take(&mut self, page: &OggPage) -> Vec<Sound> {
        let follows = page.sequence == self.sequence || page.sequence == self.sequence.wrapping_add(1);
        self.sequence = page.sequence;
        if !follows || !page.continued {
            self.partial.clear();
        }
        let mut headless = page.continued && self.partial.is_empty();
        let mut sounds = Vec::new();
        for (part, ends) in page.parts() {
            if headless || self.partial.len() + part.len() > MOST_BYTES {
                self.partial.clear();
                headless = !ends;
                continue;
            }
            self.partial.extend_from_slice(part);
            if ends {
                let data = std::mem::take(&mut self.partial);
                sounds.extend(self.sound(data));
            }
        }
        self.after_pause = sounds.last().map_or(self.after_pause, |sound: &Sound| sound.is_pause);
        sounds
    }

    /// The packet with its length. `None` for a header.
    fn sound(&mut self, data: Vec<u8>) -> Option<Sound> {
        let samples = match &mut self.codec {
            Codec::Opus { .. } if data.starts_with(b"OpusTags") || data.starts_with(b"OpusHead") => return None,
            Codec::Opus { .. } => opus::packet_samples(&data)?,
            Codec::Vorbis { head, setup, previous } => {
                if data.starts_with(b"\x05vorbis") && setup.is_none() {
                    *setup = Modes::parse(&data, head[28]).map(|modes| (data, modes));
                    return None;
                }
                let block = setup.as_ref()?.1.block(&data)?;
                // Half of each block overlaps the block before (Vorbis I 4.3.8). The first block gives no samples.
                let before = previous.replace(block.len);
                before.map_or(0, |before| (before + block.len) / 4)
            }
            Codec::Flac { .. } => flac_block(&data)?,
        };
        let is_pause = matches!(self.codec, Codec::Opus { .. }) && opus::is_pause(&data);
        Some(Sound { data, samples, is_pause })
    }
}

/// Name of an unsupported stream, by its first bytes.
fn foreign(head: &[u8]) -> &'static str {
    const NAMES: &[(&[u8], &str)] = &[
        (b"Speex   ", "speex"),
        (b"\x80theora", VIDEO),
        (b"OVP80", VIDEO),
        (b"\x01video", VIDEO),
        (b"PCM     ", "pcm in ogg"),
        (b"CELT    ", "celt"),
        (b"OpusHead", "opus with a broken header"),
    ];
    NAMES.iter().find(|(magic, _)| head.starts_with(magic)).map_or(UNKNOWN, |(_, name)| name)
}

/// Block sizes of the modes of a Vorbis stream.
#[derive(Debug)]
struct Modes {
    /// Length of a short and of a long block.
    lens: [u64; 2],
    /// Whether each mode has long blocks.
    long: Vec<bool>,
}

struct VorbisBlock {
    len: u64,
}

impl Modes {
    /// Parses the modes, the last part of the setup header (Vorbis I 4.2.4), from its end. Nothing else of the header
    /// is needed. A mode is a flag of one bit, 16 + 16 bits of zeros and 8 bits of a mapping below 64. The 6 bits
    /// before the first mode give their number.
    fn parse(setup: &[u8], sizes: u8) -> Option<Self> {
        let lens = [1u64 << (sizes & 15), 1u64 << (sizes >> 4)];
        let bit = |at: usize| setup.get(at / 8).map_or(0, |byte| u64::from(byte >> (at % 8) & 1));
        let bits = |at: usize, count: usize| (0..count).fold(0, |value, n| value | bit(at + n) << n);
        // The framing bit is the last bit set.
        let framing = (0..setup.len() * 8).rev().find(|&at| bit(at) == 1)?;
        let (mut at, mut long, mut found) = (framing, Vec::new(), None);
        while long.len() < 64 && at >= 41 + 6 + 56 {
            at -= 41;
            if bits(at + 1, 32) != 0 || bits(at + 33, 8) > 63 {
                break;
            }
            long.push(bit(at) == 1);
            if bits(at - 6, 6) + 1 == long.len() as u64 {
                found = Some(long.len());
            }
        }
        long.truncate(found?);
        long.reverse();
        Some(Self { lens, long })
    }

    /// The block of an audio packet. Headers have their first bit set.
    fn block(&self, packet: &[u8]) -> Option<VorbisBlock> {
        let first = *packet.first()?;
        if first & 1 != 0 {
            return None;
        }
        let bits = usize::BITS - (self.long.len() - 1).leading_zeros();
        let mode = usize::from(first >> 1) & ((1 << bits) - 1);
        let long = *self.long.get(mode)?;
        Some(VorbisBlock { len: self.lens[usize::from(long)] })
    }
}

/// Samples of a FLAC frame (RFC 9639 section 9.1). Metadata has no sync code.
fn flac_block(frame: &[u8]) -> Option<u64> {
    let &[0xff, second, form, _, number, ..] = frame else { return None };
    if second >> 2 != 0x3e {
        return None;
    }
    // The size may follow the frame number, which is coded like a UTF-8 character.
    let after = 4 + (number.leading_ones() as usize).max(1);
    let byte = |at: usize| frame.get(at).map(|&byte| u64::from(byte));
    match form >> 4 {
        0 => None,
        1 => Some(192),
        code @ 2..=5 => Some(576 << (code - 2)),
        6 => Some(byte(after)? + 1),
        7 => Some((byte(after)? << 8 | byte(after + 1)?) + 1),
        code => Some(256 << (code - 8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flac_frames_tell_their_length() {
        for (frame, samples) in [
            (&[0xff, 0xf8, 0xc9, 0x18, 0x00, 0xc2][..], Some(4096)),
            (&[0xff, 0xf8, 0x69, 0x18, 0x05, 0x7f], Some(128)),
            (&[0xff, 0xf8, 0x79, 0x18, 0xc2, 0x80, 0x01, 0xff], Some(512)),
            (&[0xff, 0xf9, 0x19, 0x18, 0x00], Some(192)),
            (&[0x84, 0, 0, 0, 0], None),
            (&[0xff, 0xf8, 0x79, 0x18, 0x00], None),
        ] {
            assert_eq!(flac_block(frame), samples, "{frame:x?}");
        }
    }

    #[test]
    fn foreign_streams_have_names() {
        assert_eq!(foreign(b"Speex   1.2"), "speex");
        assert_eq!(foreign(b"\x80theora"), "video without audio");
        assert_eq!(foreign(b""), "unknown");
    }
}
