//! The edit list of an ISO media file (ISO/IEC 14496-12 8.6.6): how much of the decoder's output is the encoder's delay
//! and where the sound ends. The demuxer reads it and does not apply it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use symphonia::core::io::MediaSource;

/// A movie header larger than this is not looked into.
const MOOV_BYTES: u64 = 64 << 20;
/// A length promised beyond this on top of what is there is not believed.
const MOST_PADDING: u64 = 4 << 30;

/// The edits that matter for one continuous recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EditList {
    pub start_seconds: f64,
    pub length_seconds: Option<f64>,
}

/// Reads the edit list of the first sound track; `None` when there is none, or nothing in it. Leaves the file anywhere.
pub fn edit_list(mut file: &File) -> Option<EditList> {
    let total = file.metadata().ok()?.len();
    let mut at = 0;
    loop {
        let mut head = [0u8; 16];
        file.seek(SeekFrom::Start(at)).ok()?;
        let there = (total.checked_sub(at)?).min(16) as usize;
        file.read_exact(&mut head[..there]).ok()?;
        let (name, header, size) = box_head(&head[..there], total - at)?;
        if &name == b"moov" {
            let mut body = Vec::new();
            file.seek(SeekFrom::Start(at + header)).ok()?;
            file.take((size - header).min(MOOV_BYTES)).read_to_end(&mut body).ok()?;
            return parse_moov(&body);
        }
        at += size;
    }
}

/// Where the last box of the file says it ends: beyond the end of the file when that was cut off in its sound. In any other
/// box the zeros would be read as entries of tables without end.
fn promised_len(mut file: &File, total: u64) -> Option<u64> {
    let mut at = 0u64;
    while let Some(left) = total.checked_sub(at).filter(|&left| left >= 8) {
        let mut head = [0u8; 16];
        file.seek(SeekFrom::Start(at)).ok()?;
        let there = left.min(16) as usize;
        file.read_exact(&mut head[..there]).ok()?;
        // A size of 0 is "to the end", wherever that is.
        if head.starts_with(&[0; 4]) {
            return Some(total);
        }
        let (name, _, size) = box_head(&head[..there], u64::MAX)?;
        at = at.checked_add(size)?;
        if at > total && &name != b"mdat" {
            return Some(total);
        }
    }
    Some(at)
}

/// A file that goes on in zeros up to the length it promises. The demuxer refuses a file whose last box is cut off,
/// though all its sound up to there can be had.
#[derive(Debug)]
pub struct Padded {
    file: File,
    present: u64,
    promised: u64,
    at: u64,
}

impl Padded {
    pub fn new(mut file: File) -> std::io::Result<Self> {
        let present = file.metadata()?.len();
        let promised = promised_len(&file, present).unwrap_or(present);
        let promised = promised.clamp(present, present.saturating_add(MOST_PADDING));
        file.rewind()?;
        Ok(Self { file, present, promised, at: 0 })
    }
}

impl Read for Padded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = (self.promised.saturating_sub(self.at)).min(buffer.len() as u64) as usize;
        let read = if self.at < self.present {
            self.file.read(&mut buffer[..wanted])?
        } else {
            buffer[..wanted].fill(0);
            wanted
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Padded {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.promised.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let target = target.ok_or(std::io::ErrorKind::InvalidInput)?;
        if target < self.present {
            self.file.seek(SeekFrom::Start(target))?;
        }
        self.at = target;
        Ok(target)
    }
}

impl MediaSource for Padded {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.promised)
    }
}

/// Name, header length and whole length of the box at the start of `bytes`; `left` is what remains of its parent.
fn box_head(bytes: &[u8], left: u64) -> Option<([u8; 4], u64, u64)> {
    let name = *bytes.get(4..8)?.first_chunk::<4>()?;
    let short = u64::from(u32::from_be_bytes(*bytes.first_chunk::<4>()?));
    let (header, size) = match short {
        0 => (8, left),
        1 => (16, u64::from_be_bytes(*bytes.get(8..16)?.first_chunk::<8>()?)),
        size => (8, size),
    };
    (size >= header && size <= left).then_some((name, header, size))
}

/// The children of a box.
fn children(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (name, header, size) = box_head(bytes, bytes.len() as u64)?;
        let body = &bytes[header as usize..size as usize];
        bytes = &bytes[size as usize..];
        Some((name, body))
    })
}

fn child(bytes: &[u8], wanted: [u8; 4]) -> Option<&[u8]> {
    children(bytes).find(|(name, _)| *name == wanted).map(|(_, body)| body)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..at + 4)?.first_chunk::<4>()?))
}

/// Time scale of an `mvhd` or `mdhd` body; version 1 has 64-bit times before it.
fn time_scale(body: &[u8]) -> Option<f64> {
    let at = if *body.first()? == 1 { 20 } else { 12 };
    u32_at(body, at).filter(|&scale| scale > 0).map(f64::from)
}

fn parse_moov(moov: &[u8]) -> Option<EditList> {
    let movie_scale = time_scale(child(moov, *b"mvhd")?)?;
    let sound = |trak: &&[u8]| {
        child(trak, *b"mdia")
            .and_then(|mdia| child(mdia, *b"hdlr"))
            .is_some_and(|hdlr| hdlr.get(8..12) == Some(b"soun"))
    };
    let trak = children(moov).filter(|(name, _)| name == b"trak").map(|(_, body)| body).find(sound)?;
    let media_scale = time_scale(child(child(trak, *b"mdia")?, *b"mdhd")?)?;
    let elst = child(child(trak, *b"edts")?, *b"elst")?;
    let version = *elst.first()?;
    let count = u32_at(elst, 4)?;
    let (entry, wide) = if version == 1 { (20, true) } else { (12, false) };
    let mut edits = Vec::new();
    for body in elst.get(8..)?.chunks_exact(entry).take(count.min(64) as usize) {
        let (duration, media_time) = if wide {
            (u64::from_be_bytes(*body.first_chunk()?), i64::from_be_bytes(*body.get(8..16)?.first_chunk()?))
        } else {
            (u64::from(u32_at(body, 0)?), i64::from(u32_at(body, 4)?.cast_signed()))
        };
        // A media time of -1 is a pause in front: recorders write it for a late first packet.
        if media_time >= 0 {
            edits.push((duration, media_time));
        }
    }
    let &[(duration, media_time)] = edits.as_slice() else { return None };
    let length_seconds = (duration > 0).then(|| duration as f64 / movie_scale);
    Some(EditList { start_seconds: media_time as f64 / media_scale, length_seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(name: [u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32 + 8).to_be_bytes().to_vec();
        bytes.extend(name);
        bytes.extend(body);
        bytes
    }

    fn header(scale: u32) -> Vec<u8> {
        let mut body = vec![0; 12];
        body.extend(scale.to_be_bytes());
        body.extend([0; 8]);
        body
    }

    #[test]
    fn delay_and_length_come_from_the_edit() {
        let mut elst = vec![0, 0, 0, 0, 0, 0, 0, 1];
        elst.extend(5000u32.to_be_bytes());
        elst.extend(1024u32.to_be_bytes());
        elst.extend([0, 1, 0, 0]);
        let mut hdlr = vec![0; 8];
        hdlr.extend(b"soun");
        let mdia = [boxed(*b"mdhd", &header(48_000)), boxed(*b"hdlr", &hdlr)].concat();
        let trak = [boxed(*b"edts", &boxed(*b"elst", &elst)), boxed(*b"mdia", &mdia)].concat();
        let moov = [boxed(*b"mvhd", &header(1000)), boxed(*b"trak", &trak)].concat();
        let edits = parse_moov(&moov).unwrap();
        assert!((edits.start_seconds - 1024.0 / 48_000.0).abs() < 1e-12);
        assert_eq!(edits.length_seconds, Some(5.0));
        for cut in 0..moov.len() {
            let _ = parse_moov(&moov[..cut]);
        }
    }
}
