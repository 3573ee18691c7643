//! Decodes single MPEG audio and ADTS frames by symphonia.
//!
//! Symphonia 0.6.1 decodes mixed blocks of layer III wrongly: it drops their short windows and does not scale the last of
//! their long bands. nanomp3 decodes these frames, and the two frames after each, which overlap with the wrong samples.

use nanomp3_core::{Decoder, MAX_SAMPLES_PER_FRAME};
use symphonia::core::codecs::audio::well_known::{CODEC_ID_AAC, CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};

use super::aac;
use super::block::Block;
use super::decoder::{channel_layout, guarded, make_decoder};
use super::error::AudioError;
use super::frames::{FrameHeader, FrameSyntax, SideInfo};

/// How a frame came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoded {
    Whole,
    /// Bytes of the bit reservoir are missing: at least a part of the frame is silence. Later frames may be whole.
    InPart,
    /// The frame does not decode. The next frame needs a new decoder.
    Broken,
}

/// Decoder of consecutive frames of one part.
pub(super) struct FrameDecoder {
    syntax: FrameSyntax,
    decoder: Box<dyn AudioDecoder>,
    reservoir: Reservoir,
    mixed: MixedBlocks,
}

impl FrameDecoder {
    pub(super) fn new(syntax: FrameSyntax, header: &FrameHeader) -> Result<Self, AudioError> {
        let mut params = AudioCodecParameters::new();
        match (syntax, header.layer) {
            (FrameSyntax::Mpeg, 1) => params.for_codec(CODEC_ID_MP1),
            (FrameSyntax::Mpeg, 2) => params.for_codec(CODEC_ID_MP2),
            (FrameSyntax::Mpeg, _) => params.for_codec(CODEC_ID_MP3),
            (FrameSyntax::Adts, _) if header.channels > aac::MOST_CHANNELS => {
                return Err(AudioError::Unsupported { codec: aac::of_channels(header.channels) });
            }
            (FrameSyntax::Adts, _) => params
                .for_codec(CODEC_ID_AAC)
                .with_sample_rate(header.rate_hz)
                .with_channels(channel_layout(header.channels)),
        };
        let decoder = make_decoder(&params, AudioDecoderOptions::default().gapless(false), codec_name(header))?;
        Ok(Self { syntax, decoder, reservoir: Reservoir::default(), mixed: MixedBlocks::default() })
    }

    /// Fills the block with a frame.
    pub(super) fn decode(&mut self, header: &FrameHeader, frame: &[u8], block: &mut Block) -> Decoded {
        match guarded(|| self.fill(header, frame, block)).flatten() {
            Some(Decoded::Whole) if block.frames() == 0 => Decoded::Broken,
            Some(decoded) => decoded,
            None => Decoded::Broken,
        }
    }

    fn fill(&mut self, header: &FrameHeader, frame: &[u8], block: &mut Block) -> Option<Decoded> {
        let data = if self.syntax == FrameSyntax::Mpeg { frame } else { &frame[header.main_data..] };
        let packet = PacketRef::new(0, Timestamp::ZERO, Duration::from(u64::from(header.samples)), data);
        let buffer = self.decoder.decode_ref(&packet).ok()?;
        buffer.copy_to_vecs_planar(&mut block.planes);
        block.rate_hz = buffer.spec().rate();
        if header.layer != 3 {
            return Some(Decoded::Whole);
        }
        let info = header.side_info(frame);
        let there = self.reservoir.take(info, frame.len() - header.main_data);
        let right = self.mixed.repair(info.mixed, frame, block);
        Some(if there && right { Decoded::Whole } else { Decoded::InPart })
    }
}

pub(super) const fn codec_name(header: &FrameHeader) -> &'static str {
    match header.layer {
        0 => "aac",
        1 => "mp1",
        2 => "mp2",
        _ => "mp3",
    }
}

/// How much symphonia's bit reservoir holds. Granules whose bits are not in it come out as silence, and no error says so.
#[derive(Debug, Default)]
struct Reservoir {
    /// Bytes that no frame has used.
    unread: usize,
}

impl Reservoir {
    /// Takes a frame with this many bytes of main data. Returns whether all bytes that it needs are there.
    fn take(&mut self, info: SideInfo, bytes: usize) -> bool {
        let missing = info.leans_on.saturating_sub(self.unread);
        let there = info.leans_on - missing + bytes;
        let used = info.bits.div_ceil(8).saturating_sub(missing);
        self.unread = there.saturating_sub(used);
        missing == 0
    }
}

/// Decodes frames with mixed blocks, and the frames after them, by nanomp3.
#[derive(Default)]
struct MixedBlocks {
    /// The last frames before the first mixed block. The decoder that begins there needs the state they leave.
    recent: Vec<u8>,
    /// Decodes every frame from the first mixed block on. So hostile bytes cost at most twice as much.
    decoder: Option<Box<Decoder>>,
    pcm: Vec<f32>,
    /// Number of the next frames whose samples are wrong in symphonia.
    wrong: u32,
}

impl MixedBlocks {
    /// Enough for the bit reservoir (511 bytes) and for two frames of the highest bit rate.
    const RECENT_BYTES: usize = 4096;
    /// A frame of MPEG 2 is one granule: its windows reach into the next, the filter bank into the one after that.
    const FRAMES_BEHIND: u32 = 2;

    /// Replaces wrong samples of symphonia in the block. Returns whether all samples are right.
    fn repair(&mut self, mixed: bool, frame: &[u8], block: &mut Block) -> bool {
        if mixed {
            self.wrong = 1 + Self::FRAMES_BEHIND;
        } else if self.decoder.is_none() {
            self.remember(frame);
            return true;
        }
        self.pcm.resize(MAX_SAMPLES_PER_FRAME, 0.0);
        let decoder = self.decoder.get_or_insert_with(|| begin_after(&self.recent, &mut self.pcm));
        let made = decoder.decode(frame, &mut self.pcm).1;
        if self.wrong == 0 {
            return true;
        }
        self.wrong -= 1;
        let (samples, channels) = (block.frames(), block.planes.len());
        match made {
            Ok(info) if info.samples_produced == samples && usize::from(info.channels.num()) == channels => {}
            _ => return false,
        }
        for (channel, plane) in block.planes.iter_mut().enumerate() {
            let samples = self.pcm[channel..].iter().step_by(channels);
            plane.iter_mut().zip(samples).for_each(|(out, sample)| *out = *sample);
        }
        true
    }

    fn remember(&mut self, frame: &[u8]) {
        self.recent.extend_from_slice(frame);
        let mut old = 0;
        while let Some(header) = FrameSyntax::Mpeg.parse(&self.recent[old..]) {
            if self.recent.len() - old < Self::RECENT_BYTES + header.len {
                break;
            }
            old += header.len;
        }
        self.recent.drain(..old);
    }
}

/// A decoder in the state after these frames.
fn begin_after(mut frames: &[u8], pcm: &mut [f32]) -> Box<Decoder> {
    let mut decoder = Box::<Decoder>::default();
    while let Some(header) = FrameSyntax::Mpeg.parse(frames) {
        let (first, rest) = frames.split_at(header.len.min(frames.len()));
        // Only the state after the frame is needed.
        let _ = decoder.decode(first, pcm);
        frames = rest;
    }
    decoder
}

#[cfg(test)]
mod tests;
