//! Decodes MPEG audio and ADTS frames of a file. `frame_decoder` decodes the single frames.
//!
//! The frame walk (`walk`) is our own. It keeps missing frames, joined files and format changes on the timeline.
//! Symphonia loses half of joined MP3 files.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use super::block::Block;
use super::decoder::{Decode, Facts, Missing, Step};
use super::error::AudioError;
use super::frame_decoder::{Decoded, FrameDecoder, codec_name};
use super::frames::{FrameHeader, FrameSyntax, StreamInfo, stream_info};
use super::walk::{Event, Walker};

/// Output delay of a layer III decoder, samples (528 of the filter bank, 1 of the overlap).
const DECODER_DELAY: u32 = 529;
/// Last frames of a part that may be padding. They are held back until the end of the part is known.
const HELD_FRAMES: u64 = 3;
/// A stream header that announces more than this is ignored, seconds.
const BELIEVED_SECONDS: u64 = 48 * 3600;

/// A part of the file: the frames of one encoder run.
#[derive(Debug, Default)]
struct Piece {
    info: Option<StreamInfo>,
    /// Frames decoded or lost so far.
    frames: u64,
    samples_per_frame: u32,
    rate_hz: u32,
    /// Samples still to drop at the start.
    skip: usize,
}

impl Piece {
    fn declared(&self) -> Option<u64> {
        let frames = u64::from(self.info?.frames?);
        let seconds = frames * u64::from(self.samples_per_frame) / u64::from(self.rate_hz.max(1));
        (seconds <= BELIEVED_SECONDS).then_some(frames)
    }

    /// Padding at the end of the decoder's output, samples.
    fn padding(&self) -> usize {
        self.info.filter(|info| info.gapless).map_or(0, |info| info.padding.saturating_sub(DECODER_DELAY) as usize)
    }

    /// Announced frames that are missing.
    fn missing(&self) -> u64 {
        self.declared().map_or(0, |declared| declared.saturating_sub(self.frames))
    }
}

/// Decoder of a file of bare frames.
pub(super) struct Elementary {
    walker: Walker,
    syntax: FrameSyntax,
    decoder: Option<FrameDecoder>,
    kind: Option<u32>,
    piece: Piece,
    /// Decoded samples that may be the padding of the part.
    held: Block,
    /// An event that waits until the held samples are out.
    stash: Option<Event>,
    lost_after_held: Option<Step>,
    missing_seconds: f64,
    facts: Facts,
}

impl Elementary {
    /// Opens the frames in the byte range `within` of the file.
    pub(super) fn open(path: &Path, syntax: FrameSyntax, within: Range<u64>) -> Result<Self, AudioError> {
        let file = File::open(path).map_err(AudioError::io("open"))?;
        let codec = if syntax == FrameSyntax::Mpeg { "mp3" } else { "aac" };
        Ok(Self {
            walker: Walker::new(file, syntax, within).map_err(AudioError::io("read"))?,
            syntax,
            decoder: None,
            kind: None,
            piece: Piece::default(),
            held: Block::default(),
            stash: None,
            lost_after_held: None,
            missing_seconds: 0.0,
            facts: Facts::new(codec),
        })
    }

    fn new_piece(&mut self, header: &FrameHeader, info: Option<StreamInfo>) {
        self.close_piece();
        let skip = info.filter(|info| info.gapless).map_or(0, |info| (info.delay + DECODER_DELAY) as usize);
        self.piece = Piece { info, frames: 0, samples_per_frame: header.samples, rate_hz: header.rate_hz, skip };
        self.decoder = None;
        self.kind = Some(header.kind);
    }

    /// Counts the frames that a finished part announced and did not have.
    fn close_piece(&mut self) {
        let missing = self.piece.missing() * u64::from(self.piece.samples_per_frame);
        if missing > 0 {
            self.missing_seconds += missing as f64 / f64::from(self.piece.rate_hz.max(1));
        }
    }

    /// Puts out the held samples. Cuts the padding when the part has exactly the announced frames (`whole`).
    fn release(&mut self, block: &mut Block, whole: bool) -> bool {
        std::mem::swap(block, &mut self.held);
        for plane in &mut self.held.planes {
            plane.clear();
        }
        if whole {
            let keep = block.frames().saturating_sub(self.piece.padding());
            for plane in &mut block.planes {
                plane.truncate(keep);
            }
        }
        block.frames() > 0
    }

    fn decode_frame(&mut self, header: &FrameHeader, block: &mut Block) -> Result<Step, AudioError> {
        let first = self.facts.rate_hz == 0;
        if first {
            codec_name(header).clone_into(&mut self.facts.codec);
        }
        self.facts.saw(header.rate_hz, header.channels);
        self.piece.frames += 1;
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => match FrameDecoder::new(self.syntax, header) {
                Ok(decoder) => none.insert(decoder),
                Err(error) if first => return Err(error),
                // An unsupported format in mid-stream loses its own frames only.
                Err(_) => return Ok(self.lost(header, 1)),
            },
        };
        match decoder.decode(header, self.walker.frame(), block) {
            Decoded::Whole => {}
            Decoded::InPart => return Ok(self.lost(header, 1)),
            Decoded::Broken => {
                self.decoder = None;
                return Ok(self.lost(header, 1));
            }
        }
        let skip = self.piece.skip.min(block.frames());
        if skip > 0 {
            self.piece.skip -= skip;
            for plane in &mut block.planes {
                plane.drain(..skip);
            }
        }
        Ok(Step::Audio)
    }

    fn lost(&mut self, header: &FrameHeader, frames: u64) -> Step {
        let samples = frames * u64::from(header.samples);
        let skip = (self.piece.skip as u64).min(samples);
        self.piece.skip -= skip as usize;
        Step::Lost(Missing { frames: samples - skip, rate_hz: header.rate_hz, channels: header.channels })
    }
}

impl Decode for Elementary {
    fn next(&mut self, block: &mut Block) -> Result<Step, AudioError> {
        loop {
            if let Some(lost) = self.lost_after_held.take() {
                return Ok(lost);
            }
            let event = match self.stash.take() {
                Some(event) => event,
                None => self.walker.next().map_err(AudioError::io("read"))?,
            };
            let ends_piece = self.ends_piece(&event);
            let frames = self.piece.frames;
            let past_declared = self.piece.declared().is_none_or(|declared| frames >= declared);
            if self.held.frames() > 0 && (ends_piece || past_declared || matches!(event, Event::Hole { .. })) {
                let whole = ends_piece && self.piece.declared() == Some(frames);
                self.stash = Some(event);
                if self.release(block, whole) {
                    return Ok(Step::Audio);
                }
                continue;
            }
            let header = match event {
                Event::Frame(header) => header,
                // All announced frames were there. The bytes after them are not audio.
                Event::Hole { .. } if frames > 0 && self.piece.declared() == Some(frames) => continue,
                Event::Hole { frames } => return Ok(self.hole(frames)),
                Event::End => {
                    self.close_piece();
                    self.piece = Piece::default();
                    self.stash = Some(Event::End);
                    return Ok(Step::End);
                }
            };
            if let Some(info) = self.info(&header) {
                self.new_piece(&header, Some(info));
                continue;
            }
            if self.kind != Some(header.kind) {
                self.new_piece(&header, None);
            }
            match self.decode_frame(&header, block)? {
                Step::Audio if self.holds_back() => hold(&mut self.held, block),
                Step::Audio if block.frames() == 0 => {}
                lost @ Step::Lost(_) if self.held.frames() > 0 => {
                    self.lost_after_held = Some(lost);
                    if self.release(block, false) {
                        return Ok(Step::Audio);
                    }
                }
                step => return Ok(step),
            }
        }
    }

    fn facts(&self) -> Facts {
        let mut facts = self.facts.clone();
        facts.missing_seconds = self.missing_seconds;
        facts
    }
}

impl Elementary {
    fn info(&self, header: &FrameHeader) -> Option<StreamInfo> {
        if self.syntax == FrameSyntax::Mpeg { stream_info(header, self.walker.frame()) } else { None }
    }

    fn ends_piece(&self, event: &Event) -> bool {
        match event {
            Event::Frame(header) => self.kind != Some(header.kind) || self.info(header).is_some(),
            Event::Hole { .. } => false,
            Event::End => true,
        }
    }

    /// Missing frames. Before the first frame the format is unknown, so 24 ms per frame are assumed.
    fn hole(&mut self, frames: u64) -> Step {
        // The state of the decoder does not belong to the frames after the hole.
        self.decoder = None;
        self.piece.frames += frames;
        let (rate_hz, samples) = match self.piece.rate_hz {
            0 => (48_000, 1152),
            rate_hz => (rate_hz, u64::from(self.piece.samples_per_frame)),
        };
        Step::Lost(Missing { frames: frames * samples, rate_hz, channels: self.facts.channels.max(1) })
    }

    /// Whether the frame just decoded is one of the last announced frames and may be padding.
    fn holds_back(&self) -> bool {
        let frames = self.piece.frames;
        self.piece.padding() > 0
            && self.piece.declared().is_some_and(|declared| frames + HELD_FRAMES > declared && frames <= declared)
    }
}

fn hold(held: &mut Block, block: &Block) {
    held.rate_hz = block.rate_hz;
    held.planes.resize_with(block.planes.len(), Vec::new);
    for (held, plane) in held.planes.iter_mut().zip(&block.planes) {
        held.extend_from_slice(plane);
    }
}
