//! Decodes packets of any codec to samples, for all containers. Removes the encoder's delay and padding.

use symphonia::core::audio::Channels;
use symphonia::core::codecs::audio::well_known as id;
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::packet::Packet;

use super::aac;
use super::block::Block;
use super::decoder::{guarded, make_decoder};
use super::error::AudioError;
use super::layout::Layout;
use super::opus::{self, Opus};
use crate::domain::quality::Flag;

/// Start offsets between tracks or streams that count, seconds. A smaller offset is rounding, a larger one is a wrong
/// time.
pub(super) const OFFSET_SECONDS: std::ops::Range<f64> = 0.01..3600.0;

/// A decoder of one codec.
pub(super) enum Engine {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Box<Opus>),
}

impl Engine {
    /// The decoder, and a flag for the part of the sound that it leaves out.
    pub(super) fn of(params: &AudioCodecParameters) -> Result<(Self, Option<Flag>), AudioError> {
        if params.codec == id::CODEC_ID_OPUS {
            let channels = params.channels.as_ref().map_or(1, Channels::count);
            return Ok((Self::Opus(Box::new(Opus::open(params.extra_data.as_deref(), channels)?)), None));
        }
        let (mut params, mut flag) = (params.clone(), None);
        let config = params.extra_data.as_deref().filter(|_| params.codec == id::CODEC_ID_AAC).and_then(aac::read);
        match config {
            Some(aac::AacConfig::HighEfficiency(core)) => {
                params.extra_data = Some(core.0);
                flag = Some(Flag::HeAacCore);
            }
            Some(aac::AacConfig::LowComplexity(core)) => params.extra_data = Some(core.0),
            Some(aac::AacConfig::Unread(codec)) => return Err(AudioError::Unsupported { codec }),
            None => {}
        }
        let decoder = make_decoder(&params, AudioDecoderOptions::default(), codec_name(params.codec))?;
        Ok((Self::Symphonia(decoder), flag))
    }

    /// Sample rate, Hz. The codec's own header overrides the container's.
    pub(super) fn rate_hz(&self, params: &AudioCodecParameters) -> u32 {
        match self {
            Self::Symphonia(decoder) => decoder.codec_params().sample_rate.or(params.sample_rate).unwrap_or(0),
            Self::Opus(_) => opus::RATE_HZ,
        }
    }

    /// Samples of encoder delay at the start that the demuxer leaves in.
    pub(super) fn pre_skip(&self) -> u64 {
        match self {
            Self::Symphonia(_) => 0,
            Self::Opus(opus) => u64::from(opus.pre_skip),
        }
    }

    /// Decodes a packet into the block. `None` when the packet does not decode.
    pub(super) fn decode(&mut self, packet: &Packet, block: &mut Block) -> Option<()> {
        match self {
            Self::Symphonia(decoder) => {
                let form = guarded(|| {
                    let buffer = decoder.decode(packet).ok()?;
                    buffer.copy_to_vecs_planar(&mut block.planes);
                    Some((buffer.spec().rate(), layout(buffer.spec().channels())))
                });
                (block.rate_hz, block.layout) = form.flatten()?;
                Some(())
            }
            Self::Opus(opus) => opus.decode(&packet.data, block),
        }
    }

    /// Whether this packet says that the encoder has nothing to send.
    pub(super) fn is_pause(&self, packet: &[u8]) -> bool {
        matches!(self, Self::Opus(_)) && opus::is_pause(packet)
    }
}

/// Encoder delay and padding to remove from the decoder's output.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cut {
    /// Samples still to drop at the start.
    pub skip: u64,
    /// Samples still to keep, where the end is known.
    pub left: Option<u64>,
}

impl Cut {
    /// For the next `frames` samples: how many to drop at the front, and how many to keep after that.
    pub(super) fn next(&mut self, frames: u64) -> (u64, u64) {
        let front = self.skip.min(frames);
        self.skip -= front;
        let mut keep = frames - front;
        if let Some(left) = &mut self.left {
            keep = keep.min(*left);
            *left -= keep;
        }
        (front, keep)
    }

    /// Trims the block. Returns the number of samples kept.
    pub(super) fn apply(&mut self, block: &mut Block) -> u64 {
        let (front, keep) = self.next(block.frames() as u64);
        for plane in &mut block.planes {
            plane.truncate((front + keep) as usize);
            plane.drain(..front as usize);
        }
        keep
    }
}

/// Speaker positions of the channels. The decoder's channels come in the order of the mask.
fn layout(channels: &Channels) -> Layout {
    match channels {
        Channels::Positioned(places) => Layout::of_mask(places.bits()),
        _ => Layout::default(),
    }
}

pub(super) fn codec_name(codec: AudioCodecId) -> &'static str {
    match codec {
        id::CODEC_ID_AAC => "aac",
        id::CODEC_ID_MP3 => "mp3",
        id::CODEC_ID_FLAC => "flac",
        id::CODEC_ID_VORBIS => "vorbis",
        id::CODEC_ID_OPUS => "opus",
        id::CODEC_ID_ALAC => "alac",
        id::CODEC_ID_AC3 => "ac3",
        id::CODEC_ID_SPEEX => "speex",
        id::CODEC_ID_PCM_S16LE | id::CODEC_ID_PCM_S16BE => "pcm_s16",
        id::CODEC_ID_PCM_MULAW => "pcm_mulaw",
        id::CODEC_ID_PCM_ALAW => "pcm_alaw",
        id::CODEC_ID_ADPCM_MS => "adpcm_ms",
        id::CODEC_ID_ADPCM_IMA_WAV => "adpcm_ima_wav",
        _ => "unknown",
    }
}
