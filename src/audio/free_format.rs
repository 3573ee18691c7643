//! Decodes free-format MPEG audio (bit rate index 0, ISO/IEC 11172-3 2.4.2.3). Its headers do not give the frame
//! length. Symphonia does not support it. nanomp3 finds the length from the distance of the headers.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use nanomp3_core::{Channels, DecodeError, Decoder, MAX_SAMPLES_PER_FRAME};

use super::block::Block;
use super::decoder::{Decode, Facts, Missing, Step, guarded};
use super::error::AudioError;
use super::frames::{self, FrameSyntax, id3v2_len};
use super::probe;

/// Bytes in the window, and the least kept ahead: the decoder needs several frames to find the next one.
const WINDOW_BYTES: usize = 64 * 1024;
const SIGHT_BYTES: usize = 16 * 1024;
/// Output delay of a layer III decoder, samples (528 of the filter bank, 1 of the overlap).
const DECODER_DELAY: u32 = 529;

/// More samples than this beyond the announced end are audio, not padding.
const MOST_PADDING: usize = 3 * 1152;

/// Decoder of a file of free-format frames.
pub(super) struct FreeFormat {
    file: File,
    decoder: Box<Decoder>,
    window: Vec<u8>,
    at: usize,
    eof: bool,
    pcm: Vec<f32>,
    /// Samples of encoder and decoder delay still to drop.
    skip: usize,
    expected: Option<u64>,
    /// Samples per channel put out or lost, samples in a frame, frames so far and their bytes.
    put_out: u64,
    per_frame: u64,
    frames: u64,
    frame_bytes: u64,
    /// A decoded frame that waits for the missing frames before it: samples per channel, channels, rate.
    pending: Option<(usize, usize, u32)>,
    /// Samples cut at the end.
    padding: usize,
    facts: Facts,
}

impl FreeFormat {
    /// Opens `path`. `None` when its frames are not free-format.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, AudioError> {
        let failed = AudioError::io("read");
        let mut file = File::open(path).map_err(AudioError::io("open"))?;
        let mut head = [0; 10];
        let read = file.read(&mut head).map_err(&failed)?;
        let start = id3v2_len(&head[..read]).unwrap_or(0) as u64;
        file.seek(SeekFrom::Start(start)).map_err(&failed)?;
        let mut opened = Self {
            file,
            decoder: Box::default(),
            window: Vec::with_capacity(WINDOW_BYTES),
            at: 0,
            eof: false,
            pcm: vec![0.0; MAX_SAMPLES_PER_FRAME],
            skip: 0,
            expected: None,
            put_out: 0,
            per_frame: 1152,
            frames: 0,
            frame_bytes: 0,
            pending: None,
            padding: 0,
            facts: Facts::new("mp3"),
        };
        opened.fill().map_err(&failed)?;
        let free = probe::framed(&opened.window).is_none() && frames::free_format(&opened.window);
        Ok(free.then_some(opened))
    }

    fn fill(&mut self) -> std::io::Result<()> {
        if self.eof || self.window.len() - self.at >= SIGHT_BYTES {
            return Ok(());
        }
        self.window.drain(..self.at);
        self.at = 0;
        let missing = WINDOW_BYTES - self.window.len();
        let read = (&mut self.file).take(missing as u64).read_to_end(&mut self.window)?;
        self.eof = read < missing;
        Ok(())
    }

    /// Mean length of a frame, bytes.
    fn mean(&self) -> u64 {
        self.frame_bytes.checked_div(self.frames).unwrap_or(0).max(1)
    }

    /// Counts a frame for which the decoder used this many bytes. Returns the length of the junk before it in frames.
    fn junk(&mut self, used: u64) -> u64 {
        let mean = self.mean();
        let hole = if self.frames == 0 { 0 } else { (used + mean / 2) / mean };
        if hole <= 1 {
            (self.frames, self.frame_bytes) = (self.frames + 1, self.frame_bytes + used);
        }
        hole.saturating_sub(1)
    }

    fn lost(&mut self, frames: u64) -> Step {
        let samples = frames * self.per_frame;
        let skip = (self.skip as u64).min(samples);
        self.skip -= skip as usize;
        self.put_out += samples - skip;
        let rate_hz = if self.facts.rate_hz == 0 { 48_000 } else { self.facts.rate_hz };
        Step::Lost(Missing { frames: samples - skip, rate_hz, channels: self.facts.channels.max(1) })
    }

    /// Reads the stream header from a first frame without audio.
    fn note(&mut self, frame: &[u8]) -> bool {
        let Some(start) = frame.iter().position(|&byte| byte == 0xff) else { return false };
        let mut frame = frame[start..].to_vec();
        if let Some(third) = frame.get_mut(2) {
            // Any bit rate is valid here. It does not affect the position of the stream header.
            *third |= 0x10;
        }
        let info = FrameSyntax::Mpeg.parse(&frame).and_then(|header| frames::stream_info(&header, &frame));
        let Some(info) = info else { return false };
        self.skip = if info.gapless { (info.delay + DECODER_DELAY) as usize } else { 0 };
        let kept = |frames: u64| (frames * self.per_frame).saturating_sub(u64::from(info.delay + info.padding));
        self.expected = info.frames.map(|frames| kept(u64::from(frames)));
        true
    }

    /// Copies a decoded frame into the block.
    fn take(&mut self, samples: usize, channels: usize, rate_hz: u32, block: &mut Block) {
        self.facts.saw(rate_hz, channels as u16);
        let skip = self.skip.min(samples);
        self.skip -= skip;
        block.set_silence(rate_hz, channels as u16, samples - skip);
        for (n, frame) in self.pcm.chunks_exact(channels).take(samples).skip(skip).enumerate() {
            for (plane, sample) in block.planes.iter_mut().zip(frame) {
                plane[n] = *sample;
            }
        }
        // Samples beyond the announced end are padding.
        if let Some(expected) = self.expected {
            let keep = expected.saturating_sub(self.put_out).min(block.frames() as u64) as usize;
            let padding = self.padding + block.frames() - keep;
            if padding <= MOST_PADDING {
                self.padding = padding;
                block.planes.iter_mut().for_each(|plane| plane.truncate(keep));
            }
        }
        self.put_out += block.frames() as u64;
    }
}

impl Decode for FreeFormat {
    fn next(&mut self, block: &mut Block) -> Result<Step, AudioError> {
        loop {
            if let Some((samples, channels, rate_hz)) = self.pending.take() {
                self.take(samples, channels, rate_hz, block);
                if block.frames() > 0 {
                    return Ok(Step::Audio);
                }
            }
            self.fill().map_err(AudioError::io("read"))?;
            let (window, decoder, pcm) = (&self.window[self.at..], &mut self.decoder, &mut self.pcm);
            if window.is_empty() {
                return Ok(Step::End);
            }
            let Some((used, result)) = guarded(|| decoder.decode(window, pcm)) else {
                self.facts.warnings.push("reading stopped: the decoder gave up".to_owned());
                (self.at, self.eof) = (self.window.len(), true);
                return Ok(Step::End);
            };
            let used = if used == 0 { window.len() } else { used.min(window.len()) };
            let here = self.at..self.at + used;
            self.at += used;
            match result {
                Ok(info) if info.samples_produced > 0 => {
                    self.per_frame = info.samples_produced as u64;
                    let first = self.frames == 0;
                    let hole = self.junk(used as u64);
                    let here = self.window[here].to_vec();
                    if first && self.note(&here) {
                        continue;
                    }
                    let channels = if info.channels == Channels::Mono { 1 } else { 2 };
                    self.pending = Some((info.samples_produced, channels, info.sample_rate));
                    if hole > 0 {
                        return Ok(self.lost(hole));
                    }
                }
                // No frame in the whole window. At the end of the file this is a tag, elsewhere it is missing frames.
                Err(DecodeError::NoFrame) if self.frames == 0 || (self.eof && self.at == self.window.len()) => {}
                Err(DecodeError::NoFrame) => {
                    let hole = used as u64 / self.mean();
                    return Ok(self.lost(hole));
                }
                Ok(_) | Err(_) => return Ok(self.lost(1)),
            }
        }
    }

    fn facts(&self) -> Facts {
        let mut facts = self.facts.clone();
        let missing = self.expected.map_or(0, |expected| expected.saturating_sub(self.put_out));
        facts.missing_seconds = missing as f64 / f64::from(facts.rate_hz.max(1));
        facts
    }
}
