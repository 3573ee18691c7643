//! Parses frame headers of the two streams without a container: MPEG audio layers I to III (ISO/IEC 11172-3 2.4.2.3,
//! 13818-3) and AAC in ADTS (ISO/IEC 13818-7 6.2). Also parses the side information of layer III, and the Xing, LAME and
//! VBRI headers that encoders write into MP3 files.

use super::bits::Bits;

/// Longest header of both syntaxes.
pub(super) const HEADER_BYTES: usize = 7;

/// Syntax of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameSyntax {
    Mpeg,
    Adts,
}

/// Fields of one frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Length in bytes, header included.
    pub len: usize,
    /// Samples per channel.
    pub samples: u32,
    pub rate_hz: u32,
    pub channels: u16,
    /// Equal for consecutive frames that one decoder can decode.
    pub kind: u32,
    /// Bytes from the start of the frame to its main data (MPEG) or payload (ADTS).
    pub main_data: usize,
    /// Layer of MPEG audio, 0 for ADTS. Only layer III has a bit reservoir and stream headers such as Xing.
    pub layer: u8,
    /// MPEG 1. The side information of MPEG 2 has a different length.
    mpeg1: bool,
}

impl FrameSyntax {
    /// Parses the header at the start of `bytes`. `None` when there is no valid header.
    #[must_use]
    pub(super) fn parse(self, bytes: &[u8]) -> Option<FrameHeader> {
        match self {
            Self::Mpeg => mpeg(bytes),
            Self::Adts => adts(bytes),
        }
    }
}

fn mpeg(bytes: &[u8]) -> Option<FrameHeader> {
    // Indices: MPEG 1 or later, layer I to III, bit rate index. Values in kbit/s.
    const KBPS: [[[u32; 15]; 3]; 2] = [
        [
            [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
            [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
            [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        ],
        [
            [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
            [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
            [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        ],
    ];
    const RATES: [u32; 3] = [44_100, 48_000, 32_000];
    let &[sync, second, third, fourth, ..] = bytes else { return None };
    if sync != 0xff || second & 0xe0 != 0xe0 {
        return None;
    }
    // 3: layer I, 2: layer II, 1: layer III, 0: reserved (ADTS has 0 here).
    let layer = match (second >> 1) & 3 {
        0 => return None,
        bits => 4 - bits,
    };
    // 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5 (half the rates of MPEG 2), 1: reserved.
    let version = u32::from(second >> 3) & 3;
    let (mpeg1, divisor) = match version {
        3 => (true, 1),
        2 => (false, 2),
        0 => (false, 4),
        _ => return None,
    };
    let bit_rates = &KBPS[usize::from(!mpeg1)][usize::from(layer) - 1];
    // Index 0 is free format: only the next header shows where the frame ends. Index 15 is forbidden.
    let bit_rate = *bit_rates.get(usize::from(third >> 4)).filter(|&&kbps| kbps > 0)? * 1000;
    let rate_hz = RATES.get(usize::from(third >> 2) & 3)? / divisor;
    // Encoders never write the reserved emphasis. The check rejects random matches.
    if fourth & 3 == 2 {
        return None;
    }
    let channels: u16 = if fourth >> 6 == 3 { 1 } else { 2 };
    let samples = match layer {
        1 => 384,
        3 if !mpeg1 => 576,
        _ => 1152,
    };
    let padding = u32::from(third >> 1) & 1;
    let side = match (mpeg1, channels) {
        _ if layer < 3 => 0,
        (true, 1) | (false, 2) => 17,
        (true, _) => 32,
        (false, _) => 9,
    };
    let crc = if second & 1 == 0 { 2 } else { 0 };
    // Layer I counts in slots of four bytes.
    let slot = if layer == 1 { 4 } else { 1 };
    Some(FrameHeader {
        len: ((samples / 8 / slot * bit_rate / rate_hz + padding) * slot) as usize,
        samples,
        rate_hz,
        channels,
        kind: version << 24 | u32::from(layer) << 26 | rate_hz << 4 | u32::from(channels),
        main_data: 4 + crc + side,
        layer,
        mpeg1,
    })
}

fn adts(bytes: &[u8]) -> Option<FrameHeader> {
    const RATES: [u32; 13] =
        [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
    let &[sync, second, third, fourth, fifth, sixth, seventh, ..] = bytes else { return None };
    if sync != 0xff || second & 0xf6 != 0xf0 {
        return None;
    }
    let rate_hz = *RATES.get(usize::from(third >> 2) & 15)?;
    let channels = u16::from((third & 1) << 2 | fourth >> 6);
    let len = usize::from(fourth & 3) << 11 | usize::from(fifth) << 3 | usize::from(sixth >> 5);
    let main_data = if second & 1 == 0 { 9 } else { 7 };
    if len <= main_data || channels == 0 {
        return None;
    }
    let blocks = u32::from(seventh & 3) + 1;
    let kind = u32::from(third >> 6) << 28 | rate_hz << 4 | u32::from(channels);
    Some(FrameHeader { len, samples: 1024 * blocks, rate_hz, channels, kind, main_data, layer: 0, mpeg1: false })
}

/// Side information of a layer III frame (ISO/IEC 11172-3 2.4.1.7, 13818-3 2.4.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SideInfo {
    /// Bytes of earlier frames that this frame needs (`main_data_begin`, the bit reservoir).
    pub leans_on: usize,
    /// Bits of its scale factors and spectra (the sum of `part2_3_length`).
    pub bits: usize,
    /// Whether one of its blocks is mixed: long windows in the lower subbands, short ones in the others.
    pub mixed: bool,
}

impl FrameHeader {
    /// Reads the side information of this layer III frame.
    #[must_use]
    pub(super) fn side_info(&self, frame: &[u8]) -> SideInfo {
        const SWITCHED_SHORT_MIXED: u32 = 0b1101;
        let mono = self.channels == 1;
        // Lengths in bits: `main_data_begin`, the fields before the first granule, a channel of a granule, its
        // `scalefac_compress`.
        let (begin, other, coding, lengths, granules) =
            if self.mpeg1 { (9, if mono { 9 } else { 11 }, 59, 4, 2) } else { (8, if mono { 1 } else { 2 }, 63, 9, 1) };
        let start = if frame.get(1).is_some_and(|byte| byte & 1 == 0) { 6 } else { 4 };
        let mut bits = Bits::new(frame, start * 8);
        let mut info = SideInfo { leans_on: bits.take(begin) as usize, bits: 0, mixed: false };
        bits.at += other;
        for _ in 0..granules * self.channels {
            let next = bits.at + coding;
            info.bits += bits.take(12) as usize;
            // `big_values` and `global_gain`.
            bits.at += 9 + 8 + lengths;
            info.mixed |= bits.take(4) == SWITCHED_SHORT_MIXED;
            bits.at = next;
        }
        info
    }
}

/// Facts about the whole stream from a first frame without audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamInfo {
    /// Audio frames that follow, where the header gives the number.
    pub frames: Option<u32>,
    /// Samples that the encoder added at the start and the end (LAME). The decoder delay is not included.
    pub delay: u32,
    pub padding: u32,
    /// The header gave delay and padding.
    pub gapless: bool,
}

/// Reads a Xing/Info header (with LAME's extension) or a VBRI header from a frame. `None` for a frame of audio.
#[must_use]
pub(super) fn stream_info(header: &FrameHeader, frame: &[u8]) -> Option<StreamInfo> {
    if header.layer != 3 {
        return None;
    }
    let word = |at: usize| frame.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    if frame.get(36..40) == Some(b"VBRI") {
        return Some(StreamInfo { frames: word(50).filter(|&n| n > 0), delay: 0, padding: 0, gapless: false });
    }
    // Some encoders place the header as if the frame had no checksum, two bytes early.
    let places = [header.main_data, header.main_data.saturating_sub(2)];
    let at = places.into_iter().find(|&at| matches!(frame.get(at..at + 4), Some(b"Xing" | b"Info")))?;
    let flags = word(at + 4)?;
    let mut cursor = at + 8;
    let mut frames = None;
    for (bit, len) in [(1, 4), (2, 4), (4, 100), (8, 4)] {
        if flags & bit != 0 {
            if bit == 1 {
                frames = word(cursor).filter(|&n| n > 0);
            }
            cursor += len;
        }
    }
    let gap = frame.get(cursor..cursor + 24).filter(|lame| lame[..4].iter().all(u8::is_ascii_graphic));
    let (delay, padding) = gap.map_or((0, 0), |lame| {
        let [a, b, c] = [u32::from(lame[21]), u32::from(lame[22]), u32::from(lame[23])];
        (a << 4 | b >> 4, (b & 15) << 8 | c)
    });
    Some(StreamInfo { frames, delay, padding, gapless: gap.is_some() })
}

/// Whether these bytes contain free-format frames (bit rate index 0). The test is four similar headers at one distance,
/// with a tolerance of one slot of padding. Such a frame is at most as long as a frame of 448 kbit/s at 8 kHz.
#[must_use]
pub(super) fn free_format(bytes: &[u8]) -> bool {
    const LENGTHS: std::ops::RangeInclusive<usize> = 24..=8 * 1024;
    let alike = |at: usize, first: &[u8; 4]| match bytes.get(at..).and_then(<[u8]>::first_chunk::<4>) {
        // The headers may differ in the padding bit and in the mode extension of joint stereo.
        Some(next) => next[..2] == first[..2] && (next[2] ^ first[2]) & 0xfd == 0 && (next[3] ^ first[3]) & 0xcf == 0,
        None => false,
    };
    let candidates = bytes.windows(4).enumerate().filter(|(_, head)| head[0] == 0xff && head[2] >> 4 == 0);
    for (at, head) in candidates {
        let mut first = [0; 4];
        first.copy_from_slice(head);
        if mpeg(&[first[0], first[1], first[2] | 0x10, first[3]]).is_none() {
            continue;
        }
        let near = |at: usize| (at.saturating_sub(4)..=at + 4).any(|at| alike(at, &first));
        if LENGTHS.clone().any(|len| alike(at + len, &first) && near(at + 2 * len) && near(at + 3 * len)) {
            return true;
        }
    }
    false
}

/// Length of an `ID3v2` tag at the start of `bytes`, header and footer included (id3.org, v2.4.0 section 3).
#[must_use]
pub(super) fn id3v2_len(bytes: &[u8]) -> Option<usize> {
    let &[b'I', b'D', b'3', major, _, flags, a, b, c, d, ..] = bytes else { return None };
    if major == 0xff || [a, b, c, d].iter().any(|byte| byte & 0x80 != 0) {
        return None;
    }
    let body = [a, b, c, d].into_iter().fold(0usize, |sum, byte| sum << 7 | usize::from(byte));
    Some(10 + body + if flags & 0x10 != 0 { 10 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::bits::BitWriter;

    #[test]
    fn mpeg_headers() {
        let header = FrameSyntax::Mpeg.parse(&[0xff, 0xfb, 0x54, 0xc0]).unwrap();
        assert_eq!((header.len, header.samples, header.rate_hz, header.channels), (192, 1152, 48_000, 1));
        let header = FrameSyntax::Mpeg.parse(&[0xff, 0xfb, 0x92, 0x00]).unwrap();
        assert_eq!((header.len, header.rate_hz, header.channels), (418, 44_100, 2));
        // MPEG 2.5, 8 kHz, 8 kbit/s.
        let header = FrameSyntax::Mpeg.parse(&[0xff, 0xe3, 0x18, 0xc0]).unwrap();
        assert_eq!((header.len, header.samples, header.rate_hz), (72, 576, 8_000));
        for bad in [[0xff, 0xfb, 0x04, 0xc0], [0xff, 0xfb, 0xf4, 0xc0], [0xff, 0xfb, 0x5c, 0xc0], [0xff, 0xf9, 0x54, 0]]
        {
            assert_eq!(FrameSyntax::Mpeg.parse(&bad), None, "{bad:x?}");
        }
    }

    #[test]
    fn side_information() {
        for (second, fourth, begin, other, parts) in
            [(0xfb, 0xc0, 9, 9, 2), (0xfa, 0x40, 9, 11, 4), (0xf3, 0xc0, 8, 1, 1), (0xe2, 0x00, 8, 2, 2)]
        {
            for windows in [0b1101, 0b1100, 0b1011, 0b0101] {
                let mut bits = BitWriter::default();
                bits.put(u64::from(u32::from_be_bytes([0xff, second, 0x80, fourth])), 32);
                bits.put(0, if second & 1 == 0 { 16 } else { 0 });
                bits.put(200, begin);
                bits.put(0, other);
                for part in 0..parts {
                    bits.put(1000 + part, 12);
                    bits.put(0, if begin == 9 { 21 } else { 26 });
                    bits.put(if part == parts - 1 { windows } else { 0 }, 4);
                    bits.put(0, if begin == 9 { 22 } else { 21 });
                }
                bits.align();
                let header = FrameSyntax::Mpeg.parse(bits.bytes()).unwrap();
                assert_eq!(bits.bytes().len(), header.main_data, "{second:x}");
                let sum = (0..parts as usize).map(|part| 1000 + part).sum();
                let info = SideInfo { leans_on: 200, bits: sum, mixed: windows == 0b1101 };
                assert_eq!(header.side_info(bits.bytes()), info, "{second:x} {windows:b}");
            }
        }
    }

    #[test]
    fn layers_one_and_two() {
        // Layer II, 48 kHz, mono, 64 kbit/s; layer I, 44.1 kHz, stereo, 128 kbit/s.
        let header = FrameSyntax::Mpeg.parse(&[0xff, 0xfd, 0x44, 0xc0]).unwrap();
        assert_eq!((header.layer, header.len, header.samples, header.channels), (2, 192, 1152, 1));
        let header = FrameSyntax::Mpeg.parse(&[0xff, 0xff, 0x40, 0x00]).unwrap();
        assert_eq!((header.layer, header.len, header.samples, header.channels), (1, 136, 384, 2));
        assert_eq!(stream_info(&header, b"Info"), None);
    }

    #[test]
    fn free_format_is_known_by_its_distances() {
        let mut stream = vec![0x55u8; 3_000];
        for at in [100usize, 250, 401, 551] {
            stream[at..at + 4].copy_from_slice(&[0xff, 0xfb, 0x04, 0xc0]);
        }
        stream[252] |= 2;
        assert!(free_format(&stream));
        stream[551] = 0;
        assert!(!free_format(&stream), "three are chance, four are a stream");
        assert!(!free_format(&[0xff; 4_000]) && !free_format(&[0; 4_000]) && !free_format(b"\xff\xfb"));
    }

    #[test]
    fn adts_headers() {
        // AAC-LC, 48 kHz, mono, 300 bytes.
        let len = 300usize;
        let bytes = [0xff, 0xf1, 0x4c, 0x40 | (len >> 11) as u8, (len >> 3) as u8, ((len & 7) << 5) as u8 | 0x1f, 0xfc];
        let header = FrameSyntax::Adts.parse(&bytes).unwrap();
        assert_eq!((header.len, header.samples, header.rate_hz, header.channels), (300, 1024, 48_000, 1));
        assert_eq!(FrameSyntax::Mpeg.parse(&bytes), None);
    }

    #[test]
    fn a_lame_note_tells_frames_delay_and_padding() {
        let mut frame = vec![0u8; 192];
        frame[..4].copy_from_slice(&[0xff, 0xfb, 0x54, 0xc0]);
        frame[21..25].copy_from_slice(b"Info");
        frame[28] = 0x0f;
        frame[29..33].copy_from_slice(&1234u32.to_be_bytes());
        let lame = 21 + 8 + 4 + 4 + 100 + 4;
        frame[lame..lame + 9].copy_from_slice(b"LAME3.100");
        frame[lame + 21..lame + 24].copy_from_slice(&[0x24, 0x05, 0x6d]);
        let header = FrameSyntax::Mpeg.parse(&frame).unwrap();
        let info = stream_info(&header, &frame).unwrap();
        assert_eq!(info, StreamInfo { frames: Some(1234), delay: 576, padding: 0x56d, gapless: true });
    }

    #[test]
    fn id3_lengths_are_syncsafe() {
        assert_eq!(id3v2_len(b"ID3\x04\0\0\0\0\x02\x01"), Some(10 + 257));
        assert_eq!(id3v2_len(b"ID3\x04\0\x10\0\0\0\x00"), Some(20));
        assert_eq!(id3v2_len(b"ID3\x04\0\0\0\0\xff\x01"), None);
    }
}
