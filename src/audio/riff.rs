//! Reads all sizes of WAV: Microsoft RIFF, RF64 and BW64 with lengths in a `ds64` chunk, Sony Wave64. A file may hold
//! several recordings one after the other, each with its own header. They are decoded as one recording.
//!
//! It is our own because symphonia's reader trusts the lengths in the headers.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::block::Block;
use super::chunks::{ChunkSyntax, Places};
use super::contained::Contained;
use super::decoder::{Decode, Facts, Missing, Step, undecodable};
use super::elementary::Elementary;
use super::error::AudioError;
use super::foreign::wave_codec;
use super::frames;
use super::gsm::Gsm;
use super::layout::Layout;
use super::pcm::{Order, Pcm, PcmShape, SampleCoding, SampleForm};
use super::splice::Splice;
use crate::domain::Container;

/// Limit on the length of the format chunk. Codecs store a few dozen bytes in it.
const FORMAT_BYTES: u64 = 1024;
/// Limit on the chunks read in one file.
const CHUNKS: u32 = 100_000;
/// 32-bit lengths from here on mean "to the end of the file".
const OPEN_ENDED: u64 = 0xffff_ff00;

/// Fields of the `fmt ` chunk, and the chunk itself.
#[derive(Debug, Clone)]
struct Format {
    tag: u16,
    channels: u16,
    rate_hz: u32,
    bytes_per_second: u32,
    bits: u16,
    layout: Layout,
    chunk: Vec<u8>,
}

impl Format {
    fn read(chunk: Vec<u8>) -> Option<Self> {
        let word = |at: usize| chunk.get(at..)?.first_chunk().map(|word| u16::from_le_bytes(*word));
        let long = |at: usize| chunk.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word));
        let (mut tag, mut layout) = (word(0)?, Layout::default());
        if tag == 0xfffe {
            // Extensible format: the real tag is the start of the sub-format GUID.
            tag = word(24).unwrap_or(tag);
            layout = Layout::of_mask(u64::from(long(20).unwrap_or(0)));
        }
        Some(Self {
            tag,
            channels: word(2)?,
            rate_hz: long(4)?,
            bytes_per_second: long(8)?,
            bits: word(14)?,
            layout,
            chunk,
        })
    }

    /// Samples per channel in this many bytes, by the byte rate of the header.
    fn frames(&self, bytes: u64) -> u64 {
        (u128::from(bytes) * u128::from(self.rate_hz) / u128::from(self.bytes_per_second.max(1))) as u64
    }

    fn form(&self) -> Option<SampleForm> {
        let coding = match (self.tag, self.bits) {
            (1, 8) => SampleCoding::U8,
            (1, 16) => SampleCoding::S16,
            (1, 24) => SampleCoding::S24,
            (1, 32) => SampleCoding::S32,
            (3, 32) => SampleCoding::F32,
            (3, 64) => SampleCoding::F64,
            (6, 8) => SampleCoding::ALaw,
            (7, 8) => SampleCoding::MuLaw,
            _ => return None,
        };
        Some(SampleForm { coding, order: Order::Little })
    }

    /// The decoder of the samples in the byte range `sound`.
    fn decoder(&self, path: &Path, places: &Places, sound: Range<u64>) -> Result<Box<dyn Decode>, AudioError> {
        match self.tag {
            // MPEG audio in a WAV file: the frame headers are more reliable than the WAV header.
            0x50 | 0x55 => Ok(Box::new(Elementary::open(path, frames::FrameSyntax::Mpeg, sound)?)),
            2 | 0x11 => {
                let file = places.file().map_err(AudioError::io("open"))?;
                let source = Splice::new(self.header(&sound), file, sound);
                Ok(Box::new(Contained::of(Box::new(source), Container::Wav)?))
            }
            0x31 => Ok(Box::new(Gsm::open(path, self.rate_hz, sound)?)),
            _ => {
                let Some(form) = self.form() else {
                    return Err(AudioError::Unsupported { codec: wave_codec(self.tag, self.bits) });
                };
                let file = std::fs::File::open(path).map_err(AudioError::io("open"))?;
                let shape = PcmShape { form, rate_hz: self.rate_hz, channels: self.channels, layout: self.layout };
                Ok(Box::new(Pcm::open(file, shape, sound)?))
            }
        }
    }

    /// A WAV header with correct lengths, for symphonia's reader.
    fn header(&self, sound: &Range<u64>) -> Vec<u8> {
        let data = u32::try_from(sound.end - sound.start).unwrap_or(u32::MAX);
        let mut header = b"RIFF".to_vec();
        header.extend(data.saturating_add(self.chunk.len() as u32 + 20).to_le_bytes());
        header.extend(b"WAVEfmt ");
        header.extend((self.chunk.len() as u32).to_le_bytes());
        header.extend(&self.chunk);
        header.extend(b"data");
        header.extend(data.to_le_bytes());
        header
    }
}

/// Finds the recordings in a file, one after the other.
struct Pieces {
    places: Places,
    syntax: ChunkSyntax,
    /// Position of the next chunk.
    at: u64,
    chunks: u32,
    format: Option<Format>,
    /// Length of the samples by the `ds64` chunk.
    long: Option<u64>,
}

/// The byte range of one recording, its format, and a warning about its header.
struct Piece {
    format: Format,
    sound: Range<u64>,
    oddity: Option<&'static str>,
}

impl Pieces {
    fn next(&mut self) -> Result<Option<Piece>, AudioError> {
        let failed = AudioError::io("read");
        while self.chunks < CHUNKS {
            self.chunks += 1;
            if let Some(len) = self.syntax.header(&self.places, self.at).map_err(&failed)? {
                self.at += len;
                self.long = None;
                continue;
            }
            let Some(chunk) = self.syntax.chunk(&self.places, self.at).map_err(&failed)? else { return Ok(None) };
            match &chunk.name {
                // The chunk holds the length of the file, then the length of the samples.
                b"ds64" => self.long = self.places.exactly(chunk.body + 8).map_err(&failed)?.map(u64::from_le_bytes),
                b"fmt " => {
                    let bytes = self.places.read(chunk.body, chunk.len.min(FORMAT_BYTES) as usize).map_err(&failed)?;
                    let Some(format) = Format::read(bytes) else {
                        return Err(undecodable("the WAV format chunk is cut off"));
                    };
                    self.format = Some(format);
                }
                b"data" => return self.sound(chunk.body, chunk.len).map(Some),
                _ => {}
            }
            self.at = self.syntax.after(&chunk);
        }
        Ok(None)
    }

    fn sound(&mut self, body: u64, written: u64) -> Result<Piece, AudioError> {
        let Some(format) = self.format.clone() else { return Err(undecodable("the WAV file has no format")) };
        let short = self.syntax == ChunkSyntax::Riff;
        let told = if short && written == u64::from(u32::MAX) { self.long.unwrap_or(written) } else { written };
        // Streaming recorders leave 0 or 0xFFFFFFFF. Both mean "to the end of the file".
        let open_ended = told == 0 || short && (OPEN_ENDED..=u64::from(u32::MAX)).contains(&told);
        let extent = self.syntax.extent(&self.places, body, (!open_ended).then_some(told));
        let extent = extent.map_err(AudioError::io("read"))?;
        self.at = extent.next;
        let len = extent.end - body;
        let oddity = match told {
            told if open_ended || told == len => None,
            told if told < len => {
                Some("the WAV header is older than its file; sound continues after the length it gives")
            }
            told if told > self.places.total() - body => Some("the WAV header announces more than the file holds"),
            _ => Some("another recording begins within the length that the WAV header gives"),
        };
        Ok(Piece { format, sound: body..extent.end, oddity })
    }
}

/// Decoder of a whole file.
struct Riff {
    path: PathBuf,
    pieces: Pieces,
    playing: Box<dyn Decode>,
    /// Facts of the recordings before the current one.
    before: Option<Facts>,
    warnings: Vec<String>,
    ended: bool,
}

pub(super) fn open(path: &Path, syntax: ChunkSyntax) -> Result<Box<dyn Decode>, AudioError> {
    let places = Places::open(path).map_err(AudioError::io("open"))?;
    let mut pieces = Pieces { places, syntax, at: 0, chunks: 0, format: None, long: None };
    let Some(piece) = pieces.next()? else { return Err(undecodable("the WAV file has no data")) };
    let playing = piece.format.decoder(path, &pieces.places, piece.sound)?;
    let warnings = piece.oddity.into_iter().map(str::to_owned).collect();
    Ok(Box::new(Riff { path: path.to_owned(), pieces, playing, before: None, warnings, ended: false }))
}

impl Riff {
    /// Opens the next recording. One that cannot be decoded becomes lost samples of the length by its header.
    fn turn(&mut self) -> Result<Option<Step>, AudioError> {
        let piece = match self.pieces.next() {
            Ok(Some(piece)) => piece,
            Ok(None) => {
                self.ended = true;
                return Ok(Some(Step::End));
            }
            Err(error @ AudioError::Io { .. }) => return Err(error),
            Err(error) => {
                self.warnings.push(format!("a later part of the file: {error}"));
                self.ended = true;
                return Ok(Some(Step::End));
            }
        };
        self.warnings.extend(piece.oddity.map(str::to_owned));
        let bytes = piece.sound.end - piece.sound.start;
        match piece.format.decoder(&self.path, &self.pieces.places, piece.sound) {
            Ok(decoder) => {
                let played = std::mem::replace(&mut self.playing, decoder).facts();
                self.before = Some(match self.before.take() {
                    Some(before) => before.and(played),
                    None => played,
                });
                Ok(None)
            }
            Err(error @ AudioError::Io { .. }) => Err(error),
            Err(error) => {
                self.warnings.push(format!("a later part of the file: {error}"));
                let (frames, rate_hz) = (piece.format.frames(bytes), piece.format.rate_hz.max(1));
                Ok(Some(Step::Lost(Missing { frames, rate_hz, channels: piece.format.channels.max(1) })))
            }
        }
    }
}

impl Decode for Riff {
    fn next(&mut self, block: &mut Block) -> Result<Step, AudioError> {
        while !self.ended {
            match self.playing.next(block)? {
                Step::End => {}
                step => return Ok(step),
            }
            if let Some(step) = self.turn()? {
                return Ok(step);
            }
        }
        Ok(Step::End)
    }

    fn facts(&self) -> Facts {
        let playing = self.playing.facts();
        let mut facts = match self.before.clone() {
            Some(before) => before.and(playing),
            None => playing,
        };
        facts.warnings.extend_from_slice(&self.warnings);
        facts
    }
}
