//! Detects the container of a file from its bytes. File names and content types are wrong too often.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::foreign::{HEAD_BYTES, by_beginning};
use super::frames::{FrameSyntax, free_format, id3v2_len};
use crate::domain::Container;

/// Limit on the top-level boxes read. Fragmented files have thousands.
const MOST_BOXES: usize = 100_000;

/// Result of the detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    Audio(Container),
    /// A page or a message: HTML, XML, JSON or plain text.
    Text,
    Empty,
    Unknown,
}

/// Detects from the start of a file.
pub fn sniff(path: &Path) -> io::Result<Sniffed> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    File::open(path)?.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(sniff_bytes(&head))
}

/// Detects from the first bytes of a file (`HEAD_BYTES` are enough).
#[must_use]
pub fn sniff_bytes(head: &[u8]) -> Sniffed {
    if head.is_empty() {
        return Sniffed::Empty;
    }
    if let Some(container) = magic(head) {
        return Sniffed::Audio(container);
    }
    // Some unsupported formats begin with a line of text or resemble frames.
    if by_beginning(head).is_some() {
        return Sniffed::Unknown;
    }
    if is_text(head) {
        return Sniffed::Text;
    }
    // MPEG audio follows an ID3 tag. The length of the tag may be wrong, so its own bytes are searched too.
    let after_tag = id3v2_len(head).map(|len| head.get(len..).unwrap_or_default());
    if let Some(rest) = after_tag
        && let Some(container) = magic(rest)
    {
        return Sniffed::Audio(container);
    }
    for bytes in [after_tag.unwrap_or_default(), head] {
        if let Some(container) = elementary(bytes) {
            return Sniffed::Audio(container);
        }
    }
    // The tag is longer than the head, for example with pictures.
    match after_tag {
        Some([]) => Sniffed::Audio(Container::Mp3),
        _ => Sniffed::Unknown,
    }
}

/// Whether a file with this head is audio of a supported container.
#[must_use]
pub fn looks_like_audio(head: &[u8]) -> bool {
    matches!(sniff_bytes(head), Sniffed::Audio(_))
}

/// Whether a file is shorter than its box or chunk headers say.
pub fn is_cut(path: &Path, container: Container) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let size_bytes = file.metadata()?.len();
    let promised = match container {
        Container::Wav => riff_end(&mut file)?,
        Container::Mp4 => boxes_end(&mut file, size_bytes)?,
        _ => None,
    };
    Ok(promised.is_some_and(|end| end > size_bytes))
}

/// End of the RIFF chunk by its own header or by its `ds64` chunk (EBU Tech 3306). A size near the maximum means
/// "unknown".
fn riff_end(file: &mut File) -> io::Result<Option<u64>> {
    let mut head = [0; 28];
    if file.read(&mut head)? < head.len() {
        return Ok(None);
    }
    let size = if &head[12..16] == b"ds64" {
        head[20..28].iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte))
    } else {
        head[4..8].iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte))
    };
    let is_known = if head.starts_with(b"RIFF") { size < 0x7fff_0000 } else { size < 1 << 48 };
    Ok((is_known && size > 0).then_some(size.saturating_add(8)))
}

/// End of the last top-level box of an ISO file by its header (ISO/IEC 14496-12 section 4.2).
fn boxes_end(file: &mut File, size_bytes: u64) -> io::Result<Option<u64>> {
    let mut at = 0_u64;
    for _ in 0..MOST_BOXES {
        if size_bytes.saturating_sub(at) < 16 {
            break;
        }
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0; 16];
        file.read_exact(&mut head)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |size: u64, byte| size << 8 | u64::from(*byte));
        let size = match number(&head[..4]) {
            1 => number(&head[8..16]),
            size => size,
        };
        // 0 means "to the end of the file". Less than a header is junk.
        if size < 8 || !head[4..8].iter().all(u8::is_ascii_alphanumeric) {
            return Ok(None);
        }
        at = at.saturating_add(size);
    }
    Ok(Some(at))
}

fn magic(head: &[u8]) -> Option<Container> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    if (at(0, b"RIFF") || at(0, b"RF64") || at(0, b"BW64")) && at(8, b"WAVE") {
        return Some(Container::Wav);
    }
    if at(0, b"riff\x2e\x91\xcf\x11") && at(24, b"wave") {
        return Some(Container::Wave64);
    }
    if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) {
        return Some(Container::Aiff);
    }
    if at(0, b".snd") {
        return Some(Container::Au);
    }
    if at(4, b"ftyp") || at(4, b"moov") || at(4, b"styp") {
        return Some(Container::Mp4);
    }
    if at(0, b"fLaC") {
        return Some(Container::Flac);
    }
    if at(0, b"OggS") {
        return Some(Container::Ogg);
    }
    if at(0, &[0x1a, 0x45, 0xdf, 0xa3]) {
        return Some(Container::Matroska);
    }
    None
}

/// Detects MPEG audio or ADTS frames anywhere in the head.
fn elementary(bytes: &[u8]) -> Option<Container> {
    framed(bytes).or_else(|| free_format(bytes).then_some(Container::Mp3))
}

/// Detects frames with a known length. Three headers in a row, each at the end of the frame before it, rule out chance.
#[must_use]
pub fn framed(bytes: &[u8]) -> Option<Container> {
    let candidates = bytes.iter().enumerate().filter(|&(_, &byte)| byte == 0xff).map(|(offset, _)| offset);
    for offset in candidates {
        for (syntax, container) in [(FrameSyntax::Mpeg, Container::Mp3), (FrameSyntax::Adts, Container::Adts)] {
            if chain(bytes, offset, syntax) {
                return Some(container);
            }
        }
    }
    None
}

fn chain(bytes: &[u8], start: usize, syntax: FrameSyntax) -> bool {
    let mut offset = start;
    let mut kind = None;
    for seen in 0..3 {
        let Some(rest) = bytes.get(offset..) else { return seen >= 1 && offset == bytes.len() };
        if rest.is_empty() {
            return seen >= 1;
        }
        let Some(header) = syntax.parse(rest) else { return false };
        if kind.is_some_and(|kind| kind != header.kind) {
            return false;
        }
        kind = Some(header.kind);
        offset += header.len;
    }
    true
}

/// Text is readable UTF-8 without NUL and control bytes in its first kilobyte, except white space.
fn is_text(head: &[u8]) -> bool {
    let head = head.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(head);
    let start = &head[..head.len().min(1024)];
    let control = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\n' | b'\r' | b'\t' | 0x0c | 0x1b);
    if start.iter().any(control) {
        return false;
    }
    match std::str::from_utf8(start) {
        Ok(_) => true,
        // The limit may cut a character. Markup may contain one stray byte of an old encoding.
        Err(error) => error.valid_up_to() + 4 >= start.len() || start.trim_ascii_start().starts_with(b"<"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MPEG 1 layer III, 64 kbit/s, 48 kHz, mono: 192 bytes per frame.
    fn mp3_frames(count: usize) -> Vec<u8> {
        let mut frame = [0u8; 192];
        frame[..4].copy_from_slice(&[0xff, 0xfb, 0x54, 0xc0]);
        frame.repeat(count)
    }

    #[test]
    fn containers_by_magic() {
        assert_eq!(sniff_bytes(b"RIFF\0\0\0\0WAVEfmt "), Sniffed::Audio(Container::Wav));
        assert_eq!(sniff_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0"), Sniffed::Audio(Container::Mp4));
        assert_eq!(sniff_bytes(b"fLaC\0\0\0\x22"), Sniffed::Audio(Container::Flac));
        assert_eq!(sniff_bytes(b"OggS\0\x02"), Sniffed::Audio(Container::Ogg));
        assert_eq!(sniff_bytes(&[0x1a, 0x45, 0xdf, 0xa3, 0x01]), Sniffed::Audio(Container::Matroska));
        assert_eq!(sniff_bytes(&mp3_frames(4)), Sniffed::Audio(Container::Mp3));
        assert_eq!(sniff_bytes(b"BW64\xff\xff\xff\xffWAVEds64"), Sniffed::Audio(Container::Wav));
        assert_eq!(sniff_bytes(b"FORM\0\0\0\x2eAIFFCOMM"), Sniffed::Audio(Container::Aiff));
        assert_eq!(sniff_bytes(b".snd\0\0\0\x18\xff\xff\xff\xff\0\0\0\x01"), Sniffed::Audio(Container::Au));
        let wave64 = [&b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0"[..], &[0; 8], b"wave"].concat();
        assert_eq!(sniff_bytes(&wave64), Sniffed::Audio(Container::Wave64));
    }

    #[test]
    fn what_is_known_and_not_read_is_no_text() {
        let amr = [&b"#!AMR\n"[..], &[b'<'; 600]].concat();
        assert_eq!(sniff_bytes(&amr), Sniffed::Unknown);
    }

    #[test]
    fn a_file_that_ends_before_its_boxes_or_chunks_do_is_cut() {
        let cut = |bytes: &[u8], container| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            is_cut(file.path(), container).unwrap()
        };
        let wav =
            |size: u32, len: usize| [b"RIFF".as_slice(), &size.to_le_bytes(), b"WAVEfmt ", &vec![0; len - 16]].concat();
        assert!(!cut(&wav(92, 100), Container::Wav));
        assert!(cut(&wav(93, 100), Container::Wav));
        for unknown in [0, u32::MAX, 0x7fff_ffff, 0x8000_0000] {
            assert!(!cut(&wav(unknown, 100), Container::Wav), "{unknown:x}");
        }
        let rf64 = |size: u64| {
            let ds64 = [b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0".as_slice(), &size.to_le_bytes()].concat();
            [ds64, vec![0; 72]].concat()
        };
        assert!(!cut(&rf64(92), Container::Wav) && cut(&rf64(1 << 33), Container::Wav));
        let mp4 =
            |mdat: u32| [b"\0\0\0\x10ftypM4A \0\0\0\0".as_slice(), &mdat.to_be_bytes(), b"mdat", &[0; 76]].concat();
        assert!(!cut(&mp4(84), Container::Mp4));
        assert!(cut(&mp4(85), Container::Mp4));
        assert!(!cut(&mp4(0), Container::Mp4), "to the end of the file");
        assert!(!cut(&mp4(3), Container::Mp4), "junk");
        assert!(!cut(&mp4(85)[..5], Container::Mp4) && !cut(b"", Container::Wav));
        assert!(!cut(b"OggS", Container::Ogg));
    }

    #[test]
    fn junk_and_tags_before_mp3_frames_are_stepped_over() {
        let mut junk: Vec<u8> = (0..999u32).map(|n| (n * 7 % 250) as u8).collect();
        junk.extend(mp3_frames(4));
        assert_eq!(sniff_bytes(&junk), Sniffed::Audio(Container::Mp3));
        let mut lying_tag = b"ID3\x03\0\0\x7f\x7f\x7f\x7f".to_vec();
        lying_tag.extend(mp3_frames(4));
        assert_eq!(sniff_bytes(&lying_tag), Sniffed::Audio(Container::Mp3));
    }

    #[test]
    fn pages_messages_and_nothing_are_not_audio() {
        assert_eq!(sniff_bytes(b""), Sniffed::Empty);
        assert_eq!(sniff_bytes(b"<!DOCTYPE html><html>"), Sniffed::Text);
        assert_eq!(sniff_bytes(b"{\"error\":\"expired\"}"), Sniffed::Text);
        assert_eq!(sniff_bytes("Accès refusé".as_bytes()), Sniffed::Text);
        assert_eq!(sniff_bytes(&[0u8; 4096]), Sniffed::Unknown);
        assert_eq!(sniff_bytes(b"PK\x03\x04\x14\0\0\0"), Sniffed::Unknown);
    }
}
