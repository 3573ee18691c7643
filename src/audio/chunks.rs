//! Reads files made of chunks, each with a name and a length: RIFF and similar formats. Recorders that crash, stream or
//! exceed four gigabytes write wrong lengths of every kind. A length is used only where the end of the file or a
//! plausible chunk follows. Otherwise the bytes of the file decide.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memchr::memmem;

/// Bytes per search window.
const WINDOW_BYTES: usize = 64 * 1024;
/// Overlap of two windows: the longest pattern, a chunk name of Wave64 (16 bytes) or a RIFF header (12 bytes).
const OVERLAP: usize = 16;
/// Limit on consecutive chunks that are followed towards the end of the file.
const CHAIN: usize = 64;
/// Limit on positions that look like a chunk and are followed. More are chance or an attack.
const CANDIDATES: usize = 4096;
/// Chunks that may follow the samples, in RIFF and in AIFF.
const WAVE_METADATA: [&[u8; 4]; 18] = [
    b"LIST", b"bext", b"axml", b"chna", b"iXML", b"id3 ", b"ID3 ", b"cue ", b"smpl", b"inst", b"plst", b"fact",
    b"PEAK", b"cart", b"_PMX", b"JUNK", b"DISP", b"minf",
];
const AIFF_METADATA: [&[u8; 4]; 10] =
    [b"COMM", b"NAME", b"AUTH", b"ANNO", b"COMT", b"MARK", b"INST", b"APPL", b"FVER", b"ID3 "];
/// End of all Wave64 names except the first two (`riff`, `list`). They begin with the RIFF name.
const WAVE64_NAME: [u8; 12] = [0xf3, 0xac, 0xd3, 0x11, 0x8c, 0xd1, 0x00, 0xc0, 0x4f, 0x8e, 0xdb, 0x8a];
const WAVE64_RIFF: [u8; 16] =
    [0x72, 0x69, 0x66, 0x66, 0x2e, 0x91, 0xcf, 0x11, 0xa5, 0xd6, 0x28, 0xdb, 0x04, 0xc1, 0x00, 0x00];

/// A file, read at any position.
#[derive(Debug)]
pub(super) struct Places {
    file: File,
    total: u64,
}

impl Places {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { total: file.metadata()?.len(), file })
    }

    /// Length of the file, bytes.
    #[must_use]
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// At most `len` bytes at this position. Fewer at the end of the file.
    pub(super) fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let len = (self.total.saturating_sub(at)).min(len as u64) as usize;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Exactly `N` bytes. `None` when the file ends earlier.
    pub(super) fn exactly<const N: usize>(&self, at: u64) -> io::Result<Option<[u8; N]>> {
        let bytes = self.read(at, N)?;
        Ok(bytes.first_chunk().copied())
    }

    /// A second handle of the file, for another reader.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    fn zeros_from(&self, mut at: u64) -> io::Result<bool> {
        while at < self.total {
            let bytes = self.read(at, WINDOW_BYTES)?;
            if bytes.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            at += bytes.len() as u64;
        }
        Ok(true)
    }
}

/// How names and lengths are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkSyntax {
    /// Microsoft RIFF, RF64 and BW64 (EBU Tech 3306, ITU-R BS.2088): 4-byte names, 4-byte little-endian lengths.
    Riff,
    /// Electronic Arts IFF, the base of AIFF: as RIFF, big-endian.
    Iff,
    /// Sony Wave64: 16-byte names, 8-byte lengths.
    Wave64,
}

/// A chunk by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub name: [u8; 4],
    /// Position of its content.
    pub body: u64,
    /// Length of its content by the header, bytes.
    pub len: u64,
}

/// End of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub end: u64,
    /// Position of the next chunk or of the next recording in the file.
    pub next: u64,
}

impl ChunkSyntax {
    const fn metadata(self) -> &'static [&'static [u8; 4]] {
        match self {
            Self::Riff | Self::Wave64 => &WAVE_METADATA,
            Self::Iff => &AIFF_METADATA,
        }
    }

    const fn head_bytes(self) -> u64 {
        match self {
            Self::Riff | Self::Iff => 8,
            Self::Wave64 => 24,
        }
    }

    /// Position after a chunk that ends at `end`. Chunks are padded to 2 bytes, in Wave64 to 8.
    const fn aligned(self, end: u64, body: u64) -> u64 {
        let unit = match self {
            Self::Riff | Self::Iff => 2,
            Self::Wave64 => 8,
        };
        match end.saturating_sub(body).checked_next_multiple_of(unit) {
            Some(len) => body.saturating_add(len),
            None => u64::MAX,
        }
    }

    /// The chunk at this position. `None` at the end of the file.
    pub(super) fn chunk(self, places: &Places, at: u64) -> io::Result<Option<Chunk>> {
        let body = at.saturating_add(self.head_bytes());
        Ok(match self {
            Self::Riff | Self::Iff => places.exactly::<8>(at)?.map(|[a, b, c, d, len @ ..]| {
                let len = if self == Self::Iff { u32::from_be_bytes(len) } else { u32::from_le_bytes(len) };
                Chunk { name: [a, b, c, d], body, len: u64::from(len) }
            }),
            Self::Wave64 => places.exactly::<24>(at)?.and_then(|[a, b, c, d, rest @ ..]| {
                let (_, len) = rest.split_last_chunk::<8>()?;
                let len = u64::from_le_bytes(*len).saturating_sub(self.head_bytes());
                Some(Chunk { name: [a, b, c, d], body, len })
            }),
        })
    }

    /// Position of the next chunk, by the length of this one.
    #[must_use]
    pub(super) const fn after(self, chunk: &Chunk) -> u64 {
        self.aligned(chunk.body.saturating_add(chunk.len), chunk.body)
    }

    /// Length of the file header at this position. `None` where no sound file begins.
    pub(super) fn header(self, places: &Places, at: u64) -> io::Result<Option<u64>> {
        let head = places.read(at, 48)?;
        let is = |at: usize, bytes: &[u8]| head.get(at..at + bytes.len()) == Some(bytes);
        Ok(match self {
            Self::Riff if (is(0, b"RIFF") || is(0, b"RF64") || is(0, b"BW64")) && is(8, b"WAVE") => Some(12),
            Self::Wave64 if is(0, &WAVE64_RIFF) && is(24, b"wave") && is(28, &WAVE64_NAME) => Some(40),
            Self::Iff if is(0, b"FORM") && (is(8, b"AIFF") || is(8, b"AIFC")) => Some(12),
            _ => None,
        })
    }

    /// End of the samples that begin at `body`. `told` is the length by the chunk header, or `None` where that is not a
    /// length.
    pub(super) fn extent(self, places: &Places, body: u64, told: Option<u64>) -> io::Result<Extent> {
        let total = places.total();
        let told = told.and_then(|len| body.checked_add(len)).filter(|&end| end <= total);
        let Some(end) = told else {
            let end = self.find(places, body..total, Seek::HeaderOrMetadata)?.unwrap_or(total);
            return Ok(Extent { end, next: end });
        };
        // Some writers omit the padding byte.
        for next in [self.aligned(end, body), end] {
            if self.begins_something(places, next)? {
                // A second recording inside is separate, even where one length was written over both.
                let inner = self.find(places, body..end, Seek::Header)?;
                return Ok(inner.map_or(Extent { end, next }, |at| Extent { end: at, next: at }));
            }
        }
        // The length is outdated. The bytes after it are samples too.
        let end = self.find(places, body..total, Seek::HeaderOrMetadata)?.unwrap_or(total);
        Ok(Extent { end, next: end })
    }

    /// Whether the bytes at this position are not samples: the end of the file, a header, metadata, or zeros to the
    /// end.
    fn begins_something(self, places: &Places, at: u64) -> io::Result<bool> {
        let left = places.total().saturating_sub(at);
        if left < self.head_bytes() || self.header(places, at)?.is_some() {
            return Ok(true);
        }
        let start = places.read(at, 8)?;
        let named = self.metadata().iter().any(|name| start.starts_with(*name));
        // Tags that taggers append.
        let tag =
            start.starts_with(b"TAG") && left == 128 || start.starts_with(b"APETAGEX") || start.starts_with(b"ID3");
        Ok(named || tag || self.reaches_end(places, at)? || places.zeros_from(at)?)
    }

    /// Whether a chain of chunks leads from here to the end of the file or to the next recording.
    fn reaches_end(self, places: &Places, mut at: u64) -> io::Result<bool> {
        for _ in 0..CHAIN {
            if places.total().saturating_sub(at) < self.head_bytes() {
                return Ok(true);
            }
            if self.header(places, at)?.is_some() {
                return Ok(true);
            }
            let Some(chunk) = self.chunk(places, at)? else { return Ok(false) };
            let printable = chunk.name.iter().all(|&byte| byte == b' ' || byte.is_ascii_graphic());
            if !printable || chunk.body.saturating_add(chunk.len) > places.total() {
                return Ok(false);
            }
            at = self.after(&chunk);
        }
        Ok(false)
    }

    /// The first position of this kind.
    fn find(self, places: &Places, within: Range<u64>, what: Seek) -> io::Result<Option<u64>> {
        let needles: Vec<&[u8]> = match (self, what) {
            (Self::Iff, Seek::Header) => return Ok(None),
            (Self::Riff, Seek::Header) => vec![b"WAVE"],
            (Self::Wave64, Seek::Header) => vec![&WAVE64_RIFF],
            (_, Seek::HeaderOrMetadata) => self.metadata().iter().map(|name| &name[..]).collect(),
        };
        let header =
            if what == Seek::HeaderOrMetadata { self.find(places, within.clone(), Seek::Header)? } else { None };
        let within = within.start..header.unwrap_or(within.end);
        // The searched name is 8 bytes after the start of the header.
        let before = if (self, what) == (Self::Riff, Seek::Header) { 8 } else { 0 };
        let finders: Vec<memmem::Finder<'_>> = needles.into_iter().map(memmem::Finder::new).collect();
        let mut candidates = CANDIDATES;
        let mut at = within.start;
        while at < within.end {
            let len = (within.end - at).min(WINDOW_BYTES as u64) as usize;
            let window = places.read(at, len)?;
            let mut found: Vec<usize> = finders.iter().flat_map(|finder| finder.find_iter(&window)).collect();
            found.sort_unstable();
            for found in found {
                let Some(place) = (at + found as u64).checked_sub(before).filter(|place| *place >= within.start) else {
                    continue;
                };
                candidates = candidates.saturating_sub(1);
                if candidates == 0 {
                    return Ok(header);
                }
                let is = match what {
                    Seek::Header => self.header(places, place)?.is_some(),
                    Seek::HeaderOrMetadata => self.reaches_end(places, place)?,
                };
                if is {
                    return Ok(Some(place));
                }
            }
            if window.len() <= OVERLAP || at + window.len() as u64 >= within.end {
                break;
            }
            at += (window.len() - OVERLAP) as u64;
        }
        Ok(header)
    }
}

/// What to search for among the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seek {
    /// A header of another recording.
    Header,
    /// A header, or chunks that lead to the end of the file.
    HeaderOrMetadata,
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn places(bytes: &[u8]) -> Places {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Places { total: bytes.len() as u64, file }
    }

    fn chunk(name: [u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = name.to_vec();
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        bytes
    }

    fn samples(count: usize) -> Vec<u8> {
        (0..count as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    fn end(bytes: &[u8], told: Option<u64>) -> u64 {
        ChunkSyntax::Riff.extent(&places(bytes), 0, told).unwrap().end
    }

    #[test]
    fn a_length_is_believed_where_something_can_follow_it() {
        let sound = samples(1_001);
        for behind in [chunk(*b"LIST", &samples(77)), chunk(*b"Xtra", &samples(900)), vec![], vec![0; 5_000]] {
            let padded = [&sound[..], &[0], &behind].concat();
            assert_eq!(end(&padded, Some(1_001)), 1_001, "{}", behind.len());
            let bare = [&sound[..], &behind].concat();
            assert_eq!(end(&bare, Some(1_001)), 1_001, "{}", behind.len());
        }
        let mut tag = b"TAG".to_vec();
        tag.extend([b' '; 125]);
        assert_eq!(end(&[&sound[..], &tag].concat(), Some(1_001)), 1_001);
    }

    #[test]
    fn a_length_that_is_none_ends_where_chunks_begin() {
        let sound = samples(100_000);
        for told in [None, Some(40_000), Some(1 << 40)] {
            assert_eq!(end(&sound, told), 100_000, "{told:?}");
            let behind = [chunk(*b"bext", &samples(602)), chunk(*b"axml", &samples(70_001))].concat();
            assert_eq!(end(&[&sound[..], &behind].concat(), told), 100_000, "{told:?}");
            let second = [&b"RIFF\0\0\0\0WAVE"[..], &chunk(*b"fmt ", &samples(16))].concat();
            assert_eq!(end(&[&sound[..], &second].concat(), told), 100_000, "{told:?}");
        }
        // A chunk name among the samples is chance when its chunk does not lead to the end.
        let mut named = sound;
        named[70_000..70_004].copy_from_slice(b"LIST");
        assert_eq!(end(&named, None), 100_000);
    }

    #[test]
    fn a_header_is_found_across_the_border_of_two_windows() {
        for at in (WINDOW_BYTES - 20..WINDOW_BYTES + 4).step_by(3) {
            let mut sound = samples(200_000);
            sound[at..at + 12].copy_from_slice(b"RF64\xff\xff\xff\xffWAVE");
            assert_eq!(end(&sound, Some(200_000)), at as u64, "{at}");
        }
    }

    #[test]
    fn lengths_of_wave64_count_their_heads() {
        let mut bytes = [&b"data"[..], &WAVE64_NAME].concat();
        bytes.extend((24u64 + 5).to_le_bytes());
        bytes.extend([1; 8]);
        let chunk = ChunkSyntax::Wave64.chunk(&places(&bytes), 0).unwrap().unwrap();
        assert_eq!((chunk, ChunkSyntax::Wave64.after(&chunk)), (Chunk { name: *b"data", body: 24, len: 5 }, 32));
        for cut in 0..bytes.len() {
            let _ = ChunkSyntax::Wave64.chunk(&places(&bytes[..cut]), 0).unwrap();
        }
    }
}
