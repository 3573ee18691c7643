//! Reads the pages of an Ogg file (RFC 3533 section 6). It skips bytes between pages and drops pages with a wrong
//! checksum. It reads each byte once, in a window of bounded size.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

const CAPTURE: [u8; 4] = *b"OggS";
const HEADER_BYTES: usize = 27;
/// Bytes per read.
const WINDOW_BYTES: usize = 64 * 1024;
/// Bytes of failed pages after which the search continues at the next byte. Beyond it a failed page is skipped as a
/// whole. Otherwise a file of page headers would be checked thousands of times.
const MOST_IN_VAIN: u64 = 16 << 20;

#[derive(Debug, Clone)]
pub(super) struct OggPage {
    pub serial: u32,
    pub sequence: u32,
    /// First page of its stream.
    pub first: bool,
    /// Its first packet began on the page before.
    pub continued: bool,
    /// Position at the end of the last packet that ends here, in units of the codec. `None` where no packet ends or the
    /// position is unknown.
    pub granule: Option<i64>,
    /// Position of the page in the file, bytes.
    pub offset: u64,
    lacing: Vec<u8>,
    body: Vec<u8>,
}

impl OggPage {
    /// The parts of packets in order, each with a flag for the end of its packet. The last part may be incomplete.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let (mut lacing, mut body) = (self.lacing.as_slice(), self.body.as_slice());
        std::iter::from_fn(move || {
            let ends = lacing.iter().position(|&len| len < 255);
            let segments = ends.map_or(lacing.len(), |at| at + 1);
            if segments == 0 {
                return None;
            }
            let len = lacing[..segments].iter().map(|&len| usize::from(len)).sum();
            let (part, rest) = body.split_at_checked(len)?;
            (lacing, body) = (&lacing[segments..], rest);
            Some((part, ends.is_some()))
        })
    }
}

#[derive(Debug)]
pub(super) struct Pages {
    file: File,
    buf: Vec<u8>,
    /// Position in `buf` of the next unread byte, and position in the file of the first byte of `buf`.
    at: usize,
    base: u64,
    eof: bool,
    /// Bytes checked that were not a page.
    pub in_vain: u64,
    /// Stream and granule position of a page that the end of the file cuts off.
    pub cut_off: Option<(u32, i64)>,
}

impl Pages {
    /// Starts at byte `offset` of the file.
    pub(super) fn new(mut file: File, offset: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(offset))?;
        let buf = Vec::with_capacity(2 * WINDOW_BYTES);
        Ok(Self { file, buf, at: 0, base: offset, eof: false, in_vain: 0, cut_off: None })
    }

    /// The next page. `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<OggPage>> {
        loop {
            self.ensure(HEADER_BYTES)?;
            let Some(header) = self.buf[self.at..].first_chunk::<HEADER_BYTES>().copied() else { return Ok(None) };
            if header[..4] != CAPTURE || header[4] != 0 || header[5] > 7 {
                self.seek_capture();
                continue;
            }
            let body_at = HEADER_BYTES + usize::from(header[26]);
            self.ensure(body_at)?;
            let lacing = self.buf[self.at..].get(HEADER_BYTES..body_at).unwrap_or_default();
            let whole = body_at + lacing.iter().map(|&len| usize::from(len)).sum::<usize>();
            self.ensure(whole)?;
            let Some(bytes) = self.buf.get(self.at..self.at + whole) else {
                self.cut_off = Some((word(&header, 14), granule(&header).unwrap_or(0)));
                self.at += CAPTURE.len();
                continue;
            };
            if !self.is_page(bytes) {
                let again = self.in_vain < MOST_IN_VAIN;
                self.in_vain += whole as u64;
                self.at += if again { CAPTURE.len() } else { whole };
                continue;
            }
            let bytes = &self.buf[self.at..self.at + whole];
            let page = OggPage {
                serial: word(&header, 14),
                sequence: word(&header, 18),
                first: header[5] & 2 != 0,
                continued: header[5] & 1 != 0,
                granule: granule(&header),
                offset: self.base + self.at as u64,
                lacing: bytes[HEADER_BYTES..body_at].to_vec(),
                body: bytes[body_at..].to_vec(),
            };
            self.at += whole;
            self.cut_off = None;
            return Ok(Some(page));
        }
    }

    /// Whether the checksum is right. Where the writer left it out, another page or the end of the file must follow.
    fn is_page(&self, bytes: &[u8]) -> bool {
        if bytes[22..26] != [0; 4] {
            return checksum(bytes) == word(bytes, 22);
        }
        let after = self.buf.get(self.at + bytes.len()..).unwrap_or_default();
        checksum(bytes) == 0 || after.starts_with(&CAPTURE) || (self.eof && after.is_empty())
    }

    fn seek_capture(&mut self) {
        let rest = &self.buf[self.at + 1..];
        self.at += 1 + rest.iter().position(|&byte| byte == CAPTURE[0]).unwrap_or(rest.len());
    }

    /// Loads this many bytes plus the next capture pattern, where the file has them.
    fn ensure(&mut self, count: usize) -> io::Result<()> {
        let wanted = count + CAPTURE.len();
        if self.eof || self.buf.len() - self.at >= wanted {
            return Ok(());
        }
        self.buf.drain(..self.at);
        self.base += self.at as u64;
        self.at = 0;
        while self.buf.len() < wanted && !self.eof {
            let more = (&self.file).take(WINDOW_BYTES as u64).read_to_end(&mut self.buf)?;
            self.eof = more == 0;
        }
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_le_bytes(*word))
}

/// All bits set means "no packet ends here". Other negative numbers are not positions either.
fn granule(header: &[u8; HEADER_BYTES]) -> Option<i64> {
    let granule = u64::from(word(header, 6)) | u64::from(word(header, 10)) << 32;
    i64::try_from(granule).ok()
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut rest, mut bit) = ((byte as u32) << 24, 0);
        while bit < 8 {
            rest = if rest & 0x8000_0000 != 0 { rest << 1 ^ 0x04c1_1db7 } else { rest << 1 };
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
};

/// Checksum of a page, with its own field as zeros (RFC 3533 section 6).
fn checksum(page: &[u8]) -> u32 {
    let step = |sum: u32, byte: u8| sum << 8 ^ TABLE[usize::from((sum >> 24) as u8 ^ byte)];
    let sum = page[..22].iter().fold(0, |sum, &byte| step(sum, byte));
    let sum = (0..4).fold(sum, |sum, _| step(sum, 0));
    page[26..].iter().fold(sum, |sum, &byte| step(sum, byte))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn page(sequence: u32, granule: i64, packets: &[&[u8]]) -> Vec<u8> {
        let mut bytes = b"OggS\0\0".to_vec();
        bytes.extend(granule.to_le_bytes());
        bytes.extend(7u32.to_le_bytes());
        bytes.extend(sequence.to_le_bytes());
        bytes.extend([0; 4]);
        let lacing: Vec<u8> =
            packets.iter().flat_map(|p| [vec![255; p.len() / 255], vec![(p.len() % 255) as u8]].concat()).collect();
        bytes.push(lacing.len() as u8);
        bytes.extend(lacing);
        bytes.extend(packets.concat());
        let sum = checksum(&bytes);
        bytes[22..26].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Vec<(u32, Option<i64>, Vec<usize>)> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut pages = Pages::new(file, 0).unwrap();
        let mut read = Vec::new();
        while let Some(page) = pages.next().unwrap() {
            read.push((page.sequence, page.granule, page.parts().map(|(part, _)| part.len()).collect()));
        }
        read
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // First page of a file that ffmpeg wrote.
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/audio/tones_opus.ogg");
        let bytes = std::fs::read(fixture).unwrap();
        assert_eq!(checksum(&bytes[..47]), word(&bytes, 22));
    }

    #[test]
    fn pages_are_found_whatever_lies_between_them() {
        let long = vec![1; 300];
        let (one, two) = (page(0, 5, &[b"ab", &long, b""]), page(1, -1, &[b"c"]));
        let expected = [(0, Some(5), vec![2, 300, 0]), (1, None, vec![1])];
        let junk = b"OggS\0\0OggOggSOgg".repeat(50);
        for bytes in [[&one[..], &two].concat(), [&junk[..], &one, &junk, &two, &junk].concat()] {
            assert_eq!(read(&bytes), expected);
        }
        let mut broken = one.clone();
        broken[40] ^= 1;
        assert_eq!(read(&[&broken[..], &two].concat()), expected[1..]);
        // A writer that leaves the checksum out.
        broken[22..26].fill(0);
        assert_eq!(read(&[&broken[..], &two].concat()), expected);
        assert_eq!(read(&[&broken[..], b"junk", &two].concat()), expected[1..]);
    }

    #[test]
    fn a_file_of_page_beginnings_is_read_in_linear_time() {
        let mut begin = b"OggS\0\0".to_vec();
        begin.extend([1; 20]);
        begin.push(255);
        begin.extend([255; 5]);
        assert_eq!(read(&begin.repeat(200_000)), []);
    }

    #[test]
    fn a_page_cut_off_by_the_end_is_told() {
        let (one, two) = (page(0, 5, &[b"ab"]), page(1, 9, &[b"cdef"]));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[&one[..], &two[..two.len() - 2]].concat()).unwrap();
        let mut pages = Pages::new(file, 0).unwrap();
        assert_eq!(pages.next().unwrap().map(|page| page.sequence), Some(0));
        assert!(pages.next().unwrap().is_none());
        assert_eq!(pages.cut_off, Some((7, 9)));
    }
}
