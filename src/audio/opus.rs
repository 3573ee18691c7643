//! Decodes Opus (RFC 6716) from Ogg (RFC 7845) and Matroska with `ropus`, and reads the stream's header. Symphonia
//! reads the containers and has no Opus decoder.

use ropus::{Channels, DecodeMode, Decoder};

use super::block::Block;
use super::decoder::{guarded, undecodable};
use super::error::AudioError;

/// Opus is always decoded at this rate (RFC 7845 section 5.1).
pub(super) const RATE_HZ: u32 = 48_000;
/// Samples of the longest packet, 120 ms (RFC 6716 section 3.2.5).
const LONGEST: usize = RATE_HZ as usize * 120 / 1000;

/// Samples of a packet at 48 kHz (RFC 6716 section 3.1 and 3.2.5). `None` for an invalid packet.
pub(super) fn packet_samples(packet: &[u8]) -> Option<u64> {
    let first = *packet.first()?;
    // Frame length in units of 2.5 ms, by configuration.
    let frame = match first >> 3 {
        config @ 0..=11 => [4, 8, 16, 24][usize::from(config & 3)],
        config @ 12..=15 => [4, 8][usize::from(config & 1)],
        config => [1, 2, 4, 8][usize::from(config & 3)],
    };
    let frames = match first & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(packet.get(1)? & 63),
    };
    let samples = frame * frames * u64::from(RATE_HZ) / 400;
    (1..=LONGEST as u64).contains(&samples).then_some(samples)
}

/// Whether a packet holds no sound. An encoder with discontinuous transmission sends such a packet last, then nothing
/// until there is sound (RFC 6716 section 2.1.9). Digital silence takes equally few bytes.
pub(super) const fn is_pause(packet: &[u8]) -> bool {
    matches!(packet.len(), 1..=3)
}

/// Decoder of a stream of one or two channels.
pub(super) struct Opus {
    decoder: Box<Decoder>,
    channels: Channels,
    /// Output gain from the header, as a factor.
    gain: f32,
    /// Samples of encoder delay at the start.
    pub pre_skip: u16,
    interleaved: Vec<f32>,
}

impl Opus {
    /// Opens a decoder by the identification header, where the container has one (RFC 7845 section 5.1).
    pub(super) fn open(head: Option<&[u8]>, channels: usize) -> Result<Self, AudioError> {
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

    /// Decodes a packet into the block. `None` when it does not decode.
    pub(super) fn decode(&mut self, packet: &[u8], block: &mut Block) -> Option<()> {
        if packet.is_empty() {
            // The decoder would conceal the loss with invented samples.
            return None;
        }
        let (playing, interleaved) = (&mut self.decoder, &mut self.interleaved);
        let frames = guarded(|| playing.decode_float(packet, interleaved, DecodeMode::Normal).ok());
        let Some(frames) = frames else {
            // After a panic the decoder's state is unknown.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_tell_their_length() {
        for (packet, ms) in [
            (&[0x78u8, 0][..], Some(20)),
            // Three frames of 20 ms in one packet, as browsers write them.
            (&[0x7b, 0x83], Some(60)),
            (&[0xfc], Some(20)),
            (&[0xf9], Some(40)),
            (&[0x08], Some(20)),
            (&[0x18], Some(60)),
            (&[0x1b, 3], None),
            (&[0x03], None),
            (&[0x03, 0], None),
            (&[], None),
        ] {
            assert_eq!(packet_samples(packet), ms.map(|ms: u64| ms * 48), "{packet:x?}");
        }
        assert_eq!(packet_samples(&[0xe0]), Some(120), "2.5 ms");
    }
}
