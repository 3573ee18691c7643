//! Reads the edit list of an ISO media file (ISO/IEC 14496-12 8.6.6). It gives the encoder's delay at the start of the
//! decoder's output and the end of the sound. The demuxer reads the list and does not apply it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use symphonia::core::io::MediaSource;

/// Limit on the bytes read of a movie header.
const MOOV_BYTES: u64 = 64 << 20;
/// Limit on the zero padding of a file that is shorter than it announces.
const MOST_PADDING: u64 = 4 << 30;

/// Limit on the boxes read at the start of a file in search of the first fragments.
const MOST_BOXES: usize = 256;

/// The edits as far as they matter for one continuous recording.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct EditList {
    /// `None` unless the track has exactly one edit.
    pub trim: Option<Trim>,
    /// Offset of the sound from the first track of the file, seconds.
    pub lead_seconds: f64,
}

/// Delay of the encoder and length of the sound after it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trim {
    pub start_seconds: f64,
    pub length_seconds: Option<f64>,
}

/// Codec name of the first audio track (ISO/IEC 14496-12 8.5.2). The file position afterwards is undefined.
pub(super) fn sample_entry(file: &File) -> Option<[u8; 4]> {
    let moov = movie(file)?;
    let sound = |trak: &&[u8]| {
        let handler = child(trak, *b"mdia").and_then(|mdia| child(mdia, *b"hdlr"));
        handler.is_some_and(|hdlr| hdlr.get(8..12) == Some(b"soun"))
    };
    let trak = children(&moov).filter(|(name, _)| name == b"trak").map(|(_, body)| body).find(sound)?;
    let minf = child(child(trak, *b"mdia")?, *b"minf")?;
    child(child(minf, *b"stbl")?, *b"stsd")?.get(12..16)?.first_chunk().copied()
}

/// The content of the movie header.
fn movie(mut file: &File) -> Option<Vec<u8>> {
    let total = file.metadata().ok()?.len();
    let mut at = 0;
    for _ in 0..MOST_BOXES {
        let mut head = [0u8; 16];
        file.seek(SeekFrom::Start(at)).ok()?;
        let there = total.checked_sub(at)?.min(16) as usize;
        file.read_exact(&mut head[..there]).ok()?;
        let (name, header, size) = box_head(&head[..there], total - at)?;
        if &name == b"moov" {
            let mut body = Vec::new();
            file.seek(SeekFrom::Start(at + header)).ok()?;
            file.take((size - header).min(MOOV_BYTES)).read_to_end(&mut body).ok()?;
            return Some(body);
        }
        at += size;
    }
    None
}

/// Reads the edits of the first audio track. The file position afterwards is undefined.
pub(super) fn edit_list(file: &File) -> EditList {
    read_edits(file).unwrap_or_default()
}

fn read_edits(mut file: &File) -> Option<EditList> {
    let total = file.metadata().ok()?.len();
    let (mut at, mut tracks, mut boxes) = (0, Vec::new(), 0);
    while at < total && boxes < MOST_BOXES {
        boxes += 1;
        let mut head = [0u8; 16];
        file.seek(SeekFrom::Start(at)).ok()?;
        let there = (total - at).min(16) as usize;
        file.read_exact(&mut head[..there]).ok()?;
        // The last box may be cut off.
        let Some((name, header, size)) = box_head(&head[..there], total - at) else { break };
        if matches!(&name, b"moov" | b"moof") {
            let mut body = Vec::new();
            file.seek(SeekFrom::Start(at + header)).ok()?;
            file.take((size - header).min(MOOV_BYTES)).read_to_end(&mut body).ok()?;
            if &name == b"moov" {
                tracks = parse_moov(&body)?;
                if child(&body, *b"mvex").is_none() {
                    break;
                }
            } else {
                fragment_starts(&body, &mut tracks);
                if tracks.iter().all(|track| track.fragment.is_some()) {
                    break;
                }
            }
        }
        at += size;
    }
    let sound = tracks.iter().find(|track| track.sound)?;
    let earliest = tracks.iter().map(Track::start_seconds).reduce(f64::min)?;
    Some(EditList { trim: sound.trim(), lead_seconds: sound.start_seconds() - earliest })
}

/// A track of sound or pictures.
#[derive(Debug, Default)]
struct Track {
    id: u32,
    sound: bool,
    /// Time scale: units per second.
    scale: f64,
    /// Empty edits before its first edit, seconds.
    empty_seconds: f64,
    /// Length of each edit, seconds, and its start in the media, in units of `scale`.
    edits: Vec<(f64, i64)>,
    /// Decode time of its first fragment, in units of `scale` (14496-12 8.8.12).
    fragment: Option<u64>,
}

impl Track {
    fn start_seconds(&self) -> f64 {
        let delay = self.edits.first().map_or(0, |edit| edit.1);
        let late = i64::try_from(self.fragment.unwrap_or(0)).unwrap_or(i64::MAX).saturating_sub(delay).max(0);
        self.empty_seconds + late as f64 / self.scale
    }

    fn trim(&self) -> Option<Trim> {
        let &[(seconds, media_time)] = self.edits.as_slice() else { return None };
        // The demuxer ignores the decode times of fragments. Its times begin at zero.
        let skip = media_time.saturating_sub_unsigned(self.fragment.unwrap_or(0)).max(0);
        Some(Trim { start_seconds: skip as f64 / self.scale, length_seconds: (seconds > 0.0).then_some(seconds) })
    }
}

/// End of the last box by its header. It lies beyond the end of a file that was cut off in its media data. A cut in any
/// other box gives the length of the file, because zeros there would be read as endless table entries.
fn promised_len(mut file: &File, total: u64) -> Option<u64> {
    let mut at = 0u64;
    while let Some(left) = total.checked_sub(at).filter(|&left| left >= 8) {
        let mut head = [0u8; 16];
        file.seek(SeekFrom::Start(at)).ok()?;
        let there = left.min(16) as usize;
        file.read_exact(&mut head[..there]).ok()?;
        // A size of 0 means "to the end of the file".
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

/// A file with zeros after its end, up to the announced length. The demuxer refuses a file with a cut last box,
/// although the sound before the cut is readable.
#[derive(Debug)]
pub(super) struct Padded {
    file: File,
    present: u64,
    promised: u64,
    at: u64,
}

impl Padded {
    pub(super) fn new(mut file: File) -> std::io::Result<Self> {
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

/// Name, header length and total length of the box at the start of `bytes`. `left` is what remains of its parent.
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

/// Time scale of an `mvhd` or `mdhd` body. Version 1 has 64-bit times before it.
fn time_scale(body: &[u8]) -> Option<f64> {
    let at = if *body.first()? == 1 { 20 } else { 12 };
    u32_at(body, at).filter(|&scale| scale > 0).map(f64::from)
}

fn parse_moov(moov: &[u8]) -> Option<Vec<Track>> {
    let movie_scale = time_scale(child(moov, *b"mvhd")?)?;
    let tracks = children(moov).filter(|(name, _)| name == b"trak");
    Some(tracks.filter_map(|(_, trak)| parse_trak(trak, movie_scale)).collect())
}

/// `None` for tracks that are neither sound nor pictures.
fn parse_trak(trak: &[u8], movie_scale: f64) -> Option<Track> {
    let mdia = child(trak, *b"mdia")?;
    let sound = match child(mdia, *b"hdlr")?.get(8..12)? {
        b"soun" => true,
        b"vide" => false,
        _ => return None,
    };
    let scale = time_scale(child(mdia, *b"mdhd")?)?;
    let id = child(trak, *b"tkhd").and_then(|body| u32_at(body, if *body.first()? == 1 { 20 } else { 12 }));
    let mut track = Track { id: id.unwrap_or(0), sound, scale, ..Track::default() };
    let elst = child(trak, *b"edts").and_then(|edts| child(edts, *b"elst")).unwrap_or_default();
    let wide = elst.first() == Some(&1);
    let count = u32_at(elst, 4).unwrap_or(0).min(64) as usize;
    for body in elst.get(8..).unwrap_or_default().chunks_exact(if wide { 20 } else { 12 }).take(count) {
        let (duration, media_time) = if wide {
            (u64::from_be_bytes(*body.first_chunk()?), i64::from_be_bytes(*body.get(8..16)?.first_chunk()?))
        } else {
            (u64::from(u32_at(body, 0)?), i64::from(u32_at(body, 4)?.cast_signed()))
        };
        let seconds = duration as f64 / movie_scale;
        // A media time of -1 is an empty edit. Recorders write it at the front when the first packet is late.
        match media_time {
            0.. => track.edits.push((seconds, media_time)),
            _ if track.edits.is_empty() => track.empty_seconds += seconds,
            _ => {}
        }
    }
    Some(track)
}

/// Notes the first fragment of each track that has none so far.
fn fragment_starts(moof: &[u8], tracks: &mut [Track]) {
    for (_, traf) in children(moof).filter(|(name, _)| name == b"traf") {
        let id = child(traf, *b"tfhd").and_then(|tfhd| u32_at(tfhd, 4));
        let start = child(traf, *b"tfdt").and_then(|tfdt| match *tfdt.first()? {
            0 => u32_at(tfdt, 4).map(u64::from),
            _ => Some(u64::from_be_bytes(*tfdt.get(4..12)?.first_chunk()?)),
        });
        if let Some(track) = tracks.iter_mut().find(|track| Some(track.id) == id) {
            track.fragment = track.fragment.or(Some(start.unwrap_or(0)));
        }
    }
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

    /// A track with edits of (duration in ms, media time), at 48 kHz.
    fn trak(id: u32, kind: [u8; 4], edits: &[(u32, i32)]) -> Vec<u8> {
        let mut elst = vec![0; 4];
        elst.extend((edits.len() as u32).to_be_bytes());
        for (duration, media_time) in edits {
            elst.extend(duration.to_be_bytes());
            elst.extend(media_time.to_be_bytes());
            elst.extend([0, 1, 0, 0]);
        }
        let hdlr = [[0; 8].as_slice(), &kind].concat();
        let tkhd = [&[0; 12], &id.to_be_bytes()[..], &[0; 8]].concat();
        let mdia = [boxed(*b"mdhd", &header(48_000)), boxed(*b"hdlr", &hdlr)].concat();
        let parts = [boxed(*b"tkhd", &tkhd), boxed(*b"edts", &boxed(*b"elst", &elst)), boxed(*b"mdia", &mdia)];
        boxed(*b"trak", &parts.concat())
    }

    fn moov(traks: &[Vec<u8>]) -> Vec<u8> {
        [boxed(*b"mvhd", &header(1000)), traks.concat()].concat()
    }

    fn edits(boxes: &[Vec<u8>]) -> EditList {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &boxes.concat()).unwrap();
        edit_list(&file)
    }

    #[test]
    fn delay_and_length_come_from_the_edit() {
        let body = moov(&[trak(1, *b"soun", &[(5000, 1024)])]);
        let edits = edits(&[boxed(*b"ftyp", b"M4A "), boxed(*b"moov", &body)]);
        let trim = edits.trim.unwrap();
        assert!((trim.start_seconds - 1024.0 / 48_000.0).abs() < 1e-12);
        assert_eq!((trim.length_seconds, edits.lead_seconds.to_bits()), (Some(5.0), 0));
        for cut in 0..body.len() {
            let _ = parse_moov(&body[..cut]);
        }
    }

    #[test]
    fn tracks_keep_their_distance_and_nothing_before_the_first() {
        let lead = |traks: &[Vec<u8>]| edits(&[boxed(*b"moov", &moov(traks))]).lead_seconds;
        let sound = |empty: u32| trak(1, *b"soun", &[(empty, -1), (5000, 1024)]);
        assert!(lead(&[sound(3000)]).abs() < 1e-9, "alone, it begins at once");
        let picture = |empty: u32| trak(2, *b"vide", &[(empty, -1), (5000, 0)]);
        assert!((lead(&[sound(3000), picture(1000)]) - 2.0).abs() < 1e-9);
        assert!(lead(&[sound(3000), picture(4000)]).abs() < 1e-9);
    }

    #[test]
    fn fragments_may_begin_late() {
        let fragment = |id: u32, start: u64| {
            let tfhd = [&[0; 4], &id.to_be_bytes()[..]].concat();
            let tfdt = [&[1, 0, 0, 0], &start.to_be_bytes()[..]].concat();
            boxed(*b"moof", &boxed(*b"traf", &[boxed(*b"tfhd", &tfhd), boxed(*b"tfdt", &tfdt)].concat()))
        };
        let traks = [trak(1, *b"soun", &[(0, 1024)]), trak(2, *b"vide", &[(0, 0)])];
        let head = boxed(*b"moov", &[moov(&traks), boxed(*b"mvex", &[])].concat());
        let late = edits(&[head.clone(), fragment(2, 60 * 48_000), fragment(1, 62 * 48_000 + 1024), fragment(2, 0)]);
        assert!((late.lead_seconds - 2.0).abs() < 1e-9, "{late:?}");
        assert_eq!(
            late.trim.map(|trim| trim.start_seconds.to_bits()),
            Some(0),
            "the edit ends before the first fragment"
        );
        let one = boxed(*b"moov", &[moov(&traks[..1]), boxed(*b"mvex", &[])].concat());
        assert!(edits(&[one, fragment(1, 60 * 48_000)]).lead_seconds.abs() < 1e-9);
    }
}
