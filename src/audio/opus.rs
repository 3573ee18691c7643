//! Opus (RFC 6716) out of Ogg (RFC 7845) and Matroska: the decoder and what the stream's head says. Symphonia reads the
//! containers and has no decoder for it.

use ropus::{Channels, DecodeMode, Decoder};

use super::block::Block;
use super::decode::{guarded, undecodable};
use super::error::AudioError;

/// Opus is always decoded at this rate (RFC 7845 section 5.1).
pub const RATE_HZ: u32 = 48_000;
/// The longest packet, 120 ms (RFC 6716 section 3.2.5).
const LONGEST: usize = RATE_HZ as usize * 120 / 1000;

/// Decoder of a stream of one or two channels.
pub struct Opus {
    decoder: Box<Decoder>,
    channels: Channels,
    /// The gain the head asks for, as a factor.
    gain: f32,
    /// Samples at the start that are the encoder's delay.
    pub pre_skip: u16,
    interleaved: Vec<f32>,
}

impl Opus {
    /// From the identification header, where the container has one (RFC 7845 section 5.1).
    pub fn open(head: Option<&[u8]>, channels: usize) -> Result<Self, AudioError> {
        let head = head.filter(|head| head.starts_with(b"OpusHead") && head.len() >= 19);
        let short = |at: usize| head.map_or(0, |head| u16::from_le_bytes([head[at], head[at + 1]]));
        let channels = head.map_or(channels, |head| usize::from(head[9]));
        // Mapping families above 0 hold several streams in a packet.
        let mapping = head.map_or(0, |head| head[18]);
        let channels = match (channels, mapping) {
            (1, 0 | 1) => Channels::Mono,
            (2, 0 | 1) => Channels::Stereo,
            _ => {
                let codec = format!("opus of {channels} channels, mapping {mapping}");
                return Err(AudioError::Unsupported { codec });
            }
        };
        let gain_db = f64::from(short(16).cast_signed()) / 256.0;
        Ok(Self {
            decoder: decoder(channels)?,
            channels,
            gain: 10f64.powf(gain_db / 20.0) as f32,
            pre_skip: short(10),
            interleaved: vec![0.0; LONGEST * channels.count()],
        })
    }

    /// Fills the block; `None` when the packet does not decode.
    pub fn decode(&mut self, packet: &[u8], block: &mut Block) -> Option<()> {
        if packet.is_empty() {
            // The decoder would make up what is missing.
            return None;
        }
        let (playing, interleaved) = (&mut self.decoder, &mut self.interleaved);
        let frames = guarded(|| playing.decode_float(packet, interleaved, DecodeMode::Normal).ok());
        let Some(frames) = frames else {
            // After a panic the decoder's state is nobody's guess.
            self.decoder = decoder(self.channels).ok()?;
            return None;
        };
        let frames = frames?;
        block.set_silence(RATE_HZ, self.channels.count() as u16, frames);
        for (frame, samples) in self.interleaved.chunks_exact(self.channels.count()).take(frames).enumerate() {
            for (plane, sample) in block.planes.iter_mut().zip(samples) {
                plane[frame] = sample * self.gain;
            }
        }
        Some(())
    }
}

fn decoder(channels: Channels) -> Result<Box<Decoder>, AudioError> {
    Decoder::new(RATE_HZ, channels).map(Box::new).map_err(|error| undecodable(&format!("{error:?}")))
}
