//! Finds the frames of an MP3 or ADTS file between any other bytes. It skips tags and measures missing frames. A second
//! file appended to the first is more frames. It reads each byte once, in a window of bounded size.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use super::frames::{FrameHeader, FrameSyntax, HEADER_BYTES, id3v2_len};

/// Bytes per read: several times the longest frame (8,191 bytes in ADTS).
const WINDOW_BYTES: usize = 64 * 1024;
/// Junk before the first frame up to this length is a foreign header. More is overwritten audio.
const LEADING_JUNK_BYTES: u64 = 8 * 1024;

/// The next event in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A complete frame. [`Walker::frame`] gives its bytes.
    Frame(FrameHeader),
    /// Missing bytes, as a number of frames of the stream's mean length.
    Hole {
        frames: u64,
    },
    End,
}

#[derive(Debug)]
pub(super) struct Walker {
    syntax: FrameSyntax,
    file: File,
    /// End of the frames in the file.
    end: u64,
    buf: Vec<u8>,
    /// Position in `buf` of the next unread byte.
    at: usize,
    /// Length of the current frame, which starts at `at - frame_len`.
    frame_len: usize,
    eof: bool,
    /// Kind of the last accepted frame.
    kind: Option<u32>,
    /// Bytes of junk since then.
    junk: u64,
    frames: u64,
    frame_bytes: u64,
}

impl Walker {
    /// Walks over the byte range `within` of the file.
    pub(super) fn new(mut file: File, syntax: FrameSyntax, within: Range<u64>) -> io::Result<Self> {
        file.seek(SeekFrom::Start(within.start))?;
        Ok(Self {
            syntax,
            file,
            end: within.end,
            buf: Vec::with_capacity(WINDOW_BYTES),
            at: 0,
            frame_len: 0,
            eof: false,
            kind: None,
            junk: 0,
            frames: 0,
            frame_bytes: 0,
        })
    }

    /// The bytes of the last [`Event::Frame`].
    #[must_use]
    pub(super) fn frame(&self) -> &[u8] {
        &self.buf[self.at - self.frame_len..self.at]
    }

    pub(super) fn next(&mut self) -> io::Result<Event> {
        self.frame_len = 0;
        loop {
            if self.skip_tag()? {
                continue;
            }
            self.ensure(HEADER_BYTES)?;
            if self.buf.len() - self.at < 4 {
                self.junk += (self.buf.len() - self.at) as u64;
                self.at = self.buf.len();
                return Ok(self.hole().unwrap_or(Event::End));
            }
            match self.syntax.parse(&self.buf[self.at..]) {
                Some(header) if self.acceptable(&header)? => {
                    // The missing frames come first. The next call finds this frame again.
                    if let Some(hole) = self.hole() {
                        return Ok(hole);
                    }
                    return self.take(header);
                }
                _ => self.step_over_junk(),
            }
        }
    }

    fn take(&mut self, header: FrameHeader) -> io::Result<Event> {
        self.ensure(header.len)?;
        self.kind = Some(header.kind);
        if self.buf.len() - self.at < header.len {
            // The file ends inside the last frame, which is lost.
            self.at = self.buf.len();
            return Ok(if self.frames > 0 { Event::Hole { frames: 1 } } else { Event::End });
        }
        self.at += header.len;
        self.frame_len = header.len;
        self.frames += 1;
        self.frame_bytes += header.len as u64;
        Ok(Event::Frame(header))
    }

    /// Whether a header begins a frame. Within a stream an expected header of the same kind is enough. After junk, at
    /// the start and at a format change the next header must match, or the file must end after the frame.
    fn acceptable(&mut self, header: &FrameHeader) -> io::Result<bool> {
        if self.junk == 0 && self.kind == Some(header.kind) {
            return Ok(true);
        }
        self.ensure(header.len + HEADER_BYTES)?;
        let after = self.buf.get(self.at + header.len..).unwrap_or_default();
        if after.len() < 4 {
            return Ok(self.eof && self.frames > 0 && self.buf.len() >= self.at + header.len);
        }
        let tag = after.starts_with(b"TAG") || after.starts_with(b"ID3") || after.starts_with(b"APE");
        Ok(tag || self.syntax.parse(after).is_some_and(|next| next.kind == header.kind))
    }

    /// The junk so far in frames of the mean length. `None` when it is too short for one frame.
    fn hole(&mut self) -> Option<Event> {
        let junk = std::mem::take(&mut self.junk);
        if self.frames == 0 && junk <= LEADING_JUNK_BYTES {
            return None;
        }
        // Before the first frame there is no mean. The guess is 48 kbit/s at 48 kHz.
        let mean = self.frame_bytes.checked_div(self.frames).unwrap_or(144).max(1);
        let frames = (junk + mean / 2) / mean;
        (frames > 0).then_some(Event::Hole { frames })
    }

    fn step_over_junk(&mut self) {
        let rest = &self.buf[self.at + 1..];
        let next = rest.iter().position(|&byte| byte == 0xff || byte == b'I' || byte == b'T' || byte == b'A');
        let step = 1 + next.unwrap_or(rest.len());
        self.junk += step as u64;
        self.at += step;
    }

    /// Skips `ID3v2`, `ID3v1` and `APEv2` tags. A tag with a wrong length (no frame, tag or end follows) is left as
    /// junk.
    fn skip_tag(&mut self) -> io::Result<bool> {
        self.ensure(32)?;
        let head = &self.buf[self.at..];
        if head.starts_with(b"TAG") {
            self.ensure(129)?;
            let last = self.eof && self.buf.len() - self.at == 128;
            if last {
                self.at = self.buf.len();
            }
            return Ok(last);
        }
        let len = if head.starts_with(b"APETAGEX") && head.len() >= 32 {
            let size = u32::from_le_bytes([head[12], head[13], head[14], head[15]]) as usize;
            // The size counts the items and the footer. A header at the front is extra.
            if head[23] & 0x20 != 0 { Some(size.saturating_add(32)) } else { Some(32) }
        } else {
            id3v2_len(head)
        };
        let Some(len) = len else { return Ok(false) };
        let here = self.file.stream_position()? - (self.buf.len() - self.at) as u64;
        let total = self.file.metadata()?.len().min(self.end);
        let target = here.saturating_add(len as u64);
        if target > total {
            return Ok(false);
        }
        let mut ahead = [0u8; HEADER_BYTES];
        let mut landing = &mut ahead[..];
        let there = (total - target).min(HEADER_BYTES as u64) as usize;
        landing = &mut landing[..there];
        self.file.seek(SeekFrom::Start(target))?;
        self.file.read_exact(landing)?;
        let plausible = landing.len() < 4
            || landing.starts_with(b"ID3")
            || landing.starts_with(b"TAG")
            || landing.starts_with(b"APE")
            || landing.iter().all(|&byte| byte == 0)
            || self.syntax.parse(landing).is_some();
        self.file.seek(SeekFrom::Start(if plausible { target } else { here }))?;
        self.buf.clear();
        self.at = 0;
        self.eof = false;
        if !plausible {
            // Step into the tag so that it is not parsed again. These bytes are junk, not lost audio.
            self.ensure(10)?;
            self.at += 10.min(self.buf.len());
        }
        Ok(true)
    }

    /// Loads at least `wanted` unread bytes into the window, unless the file ends earlier.
    fn ensure(&mut self, wanted: usize) -> io::Result<()> {
        if self.eof || self.buf.len() - self.at >= wanted {
            return Ok(());
        }
        self.buf.drain(..self.at);
        self.at = 0;
        let missing = WINDOW_BYTES.max(wanted) - self.buf.len();
        let left = self.end.saturating_sub(self.file.stream_position()?);
        let read = (&mut self.file).take(left.min(missing as u64)).read_to_end(&mut self.buf)?;
        self.eof = read < missing;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// 64 kbit/s, 48 kHz, mono: 192 bytes per frame. The body holds the frame number.
    fn frame(number: u8) -> Vec<u8> {
        let mut frame = vec![number; 192];
        frame[..4].copy_from_slice(&[0xff, 0xfb, 0x54, 0xc0]);
        frame
    }

    fn frames(count: u8) -> Vec<u8> {
        (0..count).flat_map(frame).collect()
    }

    /// Frames, and missing frames per hole, of the whole file.
    fn walk(bytes: &[u8]) -> (u64, Vec<u64>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut walker = Walker::new(file, FrameSyntax::Mpeg, 0..u64::MAX).unwrap();
        let (mut count, mut holes) = (0, Vec::new());
        loop {
            match walker.next().unwrap() {
                Event::Frame(header) => {
                    assert_eq!(walker.frame().len(), header.len);
                    assert_eq!(walker.frame()[0], 0xff);
                    count += 1;
                }
                Event::Hole { frames } => holes.push(frames),
                Event::End => return (count, holes),
            }
        }
    }

    #[test]
    fn a_clean_stream_has_no_holes() {
        assert_eq!(walk(&frames(200)), (200, vec![]));
        assert_eq!(walk(&[]), (0, vec![]));
    }

    #[test]
    fn a_zeroed_hole_is_as_long_as_the_frames_it_ate() {
        let mut bytes = frames(100);
        bytes[40 * 192..50 * 192].fill(0);
        assert_eq!(walk(&bytes), (90, vec![10]));
        // The hole is not at a frame border. The cut frame before it is read. Its tail and the cut frame after it are
        // lost.
        let mut bytes = frames(100);
        bytes[40 * 192 + 100..50 * 192 + 20].fill(0);
        let (count, holes) = walk(&bytes);
        assert_eq!((count, holes), (90, vec![10]));
    }

    #[test]
    fn tags_are_not_holes() {
        let mut bytes = b"ID3\x03\0\0\0\0\x02\x00".to_vec();
        bytes.extend([0x55; 256]);
        bytes.extend(frames(20));
        bytes.extend(b"ID3\x03\0\0\0\0\x02\x00");
        bytes.extend([0x55; 256]);
        bytes.extend(frames(20));
        bytes.extend(b"TAG");
        bytes.extend([b' '; 125]);
        assert_eq!(walk(&bytes), (40, vec![]));
    }

    #[test]
    fn a_lying_tag_and_junk_in_front_lose_nothing() {
        let mut bytes = b"ID3\x03\0\0\x7f\x7f\x7f\x7f".to_vec();
        bytes.extend([0x55; 300]);
        bytes.extend(frames(20));
        assert_eq!(walk(&bytes), (20, vec![]));
    }

    #[test]
    fn a_cut_last_frame_is_lost() {
        let mut bytes = frames(20);
        bytes.truncate(20 * 192 - 50);
        assert_eq!(walk(&bytes), (19, vec![1]));
    }
}
