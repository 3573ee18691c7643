//! Names the codecs that are recognised and not decoded. An intact file in such a codec ends as unsupported, not as
//! damaged.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::AudioError;
use super::mp4;
use crate::domain::Container;

/// Bytes read from the start of a file. The first frame of MPEG audio must begin within them.
pub(super) const HEAD_BYTES: usize = 64 * 1024;

/// First bytes of file types that are not decoded.
const BEGINNINGS: [(&[u8], &str); 29] = [
    // RFC 4867 section 5; 3GPP TS 26.445; RFC 3952; the rest are defined by their vendors.
    (b"#!AMR\n", "amr"),
    (b"#!AMR_MC1.0\n", "amr"),
    (b"#!AMR-WB\n", "amr_wb"),
    (b"#!AMR-WB_MC1.0\n", "amr_wb"),
    (b"#!AMR-WB+\n", "amr_wb_plus"),
    (b"#!EVS_MC1.0\n", "evs"),
    (b"#!iLBC20\n", "ilbc"),
    (b"#!iLBC30\n", "ilbc"),
    (b"#!SILK_V3", "silk"),
    (b"\x02#!SILK_V3", "silk"),
    (b"#!EVRC\n", "evrc"),
    (b"#!QCELP\n", "qcelp"),
    (b"caff\x00\x01", "caf"),
    (b"FLV\x01", "flv"),
    (b"MAC ", "monkeys_audio"),
    (b"wvpk", "wavpack"),
    (b"TTA1", "tta"),
    (b"MP+", "musepack"),
    (b"MPCK", "musepack"),
    (b"MThd", "midi"),
    (b".RMF\x00\x00", "realaudio"),
    (b".ra\xfd", "realaudio"),
    (b"Creative Voice File\x1a", "voc"),
    (b"NIST_1A\n", "nist_sphere"),
    (b"RIFX", "rifx"),
    (b"FRM8", "dsd"),
    (b"DSD ", "dsd"),
    (b"2BIT", "avr"),
    (b"\x00\x00\x01\xba", "mpeg_ps"),
];
/// Advanced Systems Format: GUID of the header object and of the stream properties object.
const ASF: [u8; 16] = [0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11, 0xa6, 0xd9, 0x00, 0xaa, 0x00, 0x62, 0xce, 0x6c];
const ASF_STREAM: [u8; 16] =
    [0x91, 0x07, 0xdc, 0xb7, 0xb7, 0xa9, 0xcf, 0x11, 0x8e, 0xe6, 0x00, 0xc0, 0x0c, 0x20, 0x53, 0x65];
/// Offset from the GUID of the stream properties object to the WAVE format tag of an audio stream, bytes.
const ASF_TAG: usize = 78;
/// First packets of Ogg streams that are not decoded.
const OGG_STREAMS: [(&[u8], &str); 4] =
    [(b"Speex   ", "speex"), (b"CELT    ", "celt"), (b"PCM     ", "ogg_pcm"), (b"\x80theora", "theora")];
/// Sample entries of ISO media whose codec is not decoded (mp4ra.org).
const SAMPLE_ENTRIES: [([u8; 4], &str); 16] = [
    (*b"samr", "amr"),
    (*b"sawb", "amr_wb"),
    (*b"sawp", "amr_wb_plus"),
    (*b"sevc", "evrc"),
    (*b"sevs", "evs"),
    (*b"sqcp", "qcelp"),
    (*b"ssmv", "smv"),
    (*b"ac-3", "ac3"),
    (*b"ec-3", "eac3"),
    (*b"ac-4", "ac4"),
    (*b"alac", "alac"),
    (*b"agsm", "gsm"),
    (*b"enca", "encrypted"),
    (*b"mha1", "mpegh"),
    (*b"mhm1", "mpegh"),
    (*b"drms", "encrypted"),
];

/// The codec or container that begins with these bytes. `None` for files that are decoded or unknown.
#[must_use]
pub(super) fn by_beginning(head: &[u8]) -> Option<String> {
    if head.starts_with(&ASF) {
        let stream = head.windows(ASF_STREAM.len()).position(|window| window == ASF_STREAM);
        let tag = stream.and_then(|at| head.get(at + ASF_TAG..)?.first_chunk());
        return Some(tag.map_or_else(|| "wma".to_owned(), |tag| wave_codec(u16::from_le_bytes(*tag), 0)));
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"AVI ") {
        return Some("avi".to_owned());
    }
    let beginning = BEGINNINGS.iter().find(|(bytes, _)| head.starts_with(bytes));
    beginning.map(|(_, name)| (*name).to_owned()).or_else(|| gsm(head).then(|| "gsm".to_owned()))
}

/// Bare frames of GSM 06.10: 33 bytes each, with 13 in the upper four bits of the first byte.
fn gsm(head: &[u8]) -> bool {
    const FRAME: usize = 33;
    const ENOUGH: usize = 10;
    let mut frames = head.chunks(FRAME).map(|frame| frame[0] >> 4 == 0xd);
    head.len() >= ENOUGH * FRAME && frames.all(|begins| begins)
}

/// Turns the error of a failed open into `Unsupported` where the codec is the cause.
#[must_use]
pub(super) fn explained(error: AudioError, path: &Path, container: Container) -> AudioError {
    let about_the_codec =
        matches!(error, AudioError::Damaged { .. } | AudioError::Unsupported { .. } | AudioError::UnknownContainer);
    match codec(path, container).filter(|_| about_the_codec) {
        Some(codec) => AudioError::Unsupported { codec },
        None => error,
    }
}

fn codec(path: &Path, container: Container) -> Option<String> {
    let mut file = File::open(path).ok()?;
    if container == Container::Mp4 {
        let entry = mp4::sample_entry(&file)?;
        let known = SAMPLE_ENTRIES.iter().find(|(name, _)| *name == entry);
        return known.map(|(_, name)| (*name).to_owned());
    }
    let mut head = Vec::new();
    (&mut file).take(HEAD_BYTES as u64).read_to_end(&mut head).ok()?;
    match container {
        Container::Ogg => {
            let segments = usize::from(*head.get(26)?);
            let packet = head.get(27 + segments..)?;
            OGG_STREAMS.iter().find(|(bytes, _)| packet.starts_with(bytes)).map(|(_, name)| (*name).to_owned())
        }
        Container::Matroska => matroska(&head),
        Container::Other => by_beginning(&head),
        _ => None,
    }
}

/// The codec of the first audio track of a Matroska file by its codec ID (RFC 9559 section 5.1.4.1.21). `None` for a
/// codec that is decoded.
fn matroska(head: &[u8]) -> Option<String> {
    const READ: [&str; 6] = ["A_OPUS", "A_VORBIS", "A_FLAC", "A_AAC", "A_MPEG/L", "A_PCM"];
    // An element with ID 0x86 and a length of one byte.
    let name =
        head.windows(4).position(|window| window[0] == 0x86 && window[1] & 0x80 != 0 && &window[2..] == b"A_")?;
    let len = usize::from(head.get(name + 1)? & 0x7f);
    let name = std::str::from_utf8(head.get(name + 2..name + 2 + len)?).ok()?;
    let plain = name.bytes().all(|byte| byte.is_ascii_graphic());
    (plain && !READ.iter().any(|read| name.starts_with(read))).then(|| name.to_owned())
}

/// The codec of a WAV file by its format tag (RFC 2361 and Microsoft's mmreg.h).
#[must_use]
pub(super) fn wave_codec(tag: u16, bits: u16) -> String {
    let name = match tag {
        0x01 => "pcm",
        0x03 => "pcm_float",
        0x06 => "pcm_alaw",
        0x07 => "pcm_mulaw",
        0x0a | 0x160..=0x163 => "wma",
        0x10 => "oki_adpcm",
        0x14 => "g723_adpcm",
        0x17 => "dialogic_adpcm",
        0x20 => "yamaha_adpcm",
        0x22 => "truespeech",
        0x31 | 0x86 => "gsm",
        0x40 => "g721",
        0x41 => "g728",
        0x42 | 0x111 | 0xa100 => "g723_1",
        0x45 | 0x64 | 0x85 => "g726",
        0x57 => "amr",
        0x58 => "amr_wb",
        0x65 | 0x28f => "g722",
        0x69..=0x79 | 0x81 => "voxware",
        0x83 | 0x133 | 0x134 => "g729",
        0xff | 0x1600 | 0x706d => "aac",
        0x130 => "acelp",
        0x2000 => "ac3",
        0x2001 => "dts",
        0x566f | 0x674f..=0x6771 => "vorbis",
        0x704f => "opus",
        0xa109 => "speex",
        0xf1ac => "flac",
        _ => "unknown",
    };
    match tag {
        1 | 3 | 6 | 7 => format!("{name} of {bits} bits"),
        tag => format!("{name} (wav format {tag:#06x})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_named() {
        for (head, name) in [
            (&b"#!AMR\n\x3c\x91"[..], "amr"),
            (b"#!AMR-WB\n\x04", "amr_wb"),
            (b"#!EVS_MC1.0\n\0\0\0\x01", "evs"),
            (b"#!iLBC30\n\x06", "ilbc"),
            (b"\x02#!SILK_V3\x10\x00", "silk"),
            (b"RIFF\0\0\0\0AVI LIST", "avi"),
        ] {
            assert_eq!(by_beginning(head).as_deref(), Some(name));
        }
        let mut asf = ASF.to_vec();
        asf.extend([0; 40]);
        assert_eq!(by_beginning(&asf).as_deref(), Some("wma"));
        asf.extend(ASF_STREAM);
        asf.extend([0; ASF_TAG - 16]);
        asf.extend(0x57u16.to_le_bytes());
        assert_eq!(by_beginning(&asf).as_deref(), Some("amr (wav format 0x0057)"));
        assert_eq!(by_beginning(b"RIFF\0\0\0\0WAVEfmt "), None);
    }

    #[test]
    fn bare_frames_of_gsm_are_known_by_their_distance() {
        let mut frames: Vec<u8> = (0..10).flat_map(|n| [&[0xd0 | n][..], &[n; 32]].concat()).collect();
        assert_eq!(by_beginning(&frames).as_deref(), Some("gsm"));
        frames[33 * 7] = 0x0d;
        assert_eq!(by_beginning(&frames), None);
        assert_eq!(by_beginning(&[0xd0; 99]), None, "three frames are chance");
    }

    #[test]
    fn tracks_of_matroska_are_named_unless_they_are_read() {
        assert_eq!(matroska(b"\x1a\x45\xdf\xa3..\x86\x88A_MS/ACM").as_deref(), Some("A_MS/ACM"));
        assert_eq!(matroska(b"\x1a\x45\xdf\xa3..\x86\x86A_OPUS"), None);
        assert_eq!(matroska(b"\x1a\x45\xdf\xa3..\x86\xffA_AC3"), None, "cut off");
    }

    #[test]
    fn every_tag_has_a_name_and_its_number() {
        for tag in 0..=u16::MAX {
            let name = wave_codec(tag, 12);
            assert!(name.contains(&format!("{tag:#06x}")) || matches!(tag, 1 | 3 | 6 | 7), "{name}");
        }
        assert_eq!(wave_codec(0x83, 0), "g729 (wav format 0x0083)");
    }
}
