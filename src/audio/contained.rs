//! Decodes what comes in a container (ISO media, FLAC, Ogg, Matroska, WAV with a codec inside) by symphonia, and keeps
//! its output on the container's timeline: a gap between packets' times is a hole, a chained stream goes on.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use symphonia::core::audio::Channels;
use symphonia::core::codecs::audio::well_known as id;
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::TimeBase;

use super::block::Block;
use super::decode::{Decode, Facts, Step, guarded, make_decoder, undecodable};
use super::error::AudioError;
use super::mp4::{self, EditList, Padded};
use super::opus::{self, Opus};
use crate::domain::Container;

/// Packets in a row that may fail before the rest of the file is given up.
const FAILURES_IN_A_ROW: u32 = 256;
/// Container times are rounded, to a millisecond in Matroska: less than this is no gap, seconds.
const GAP_SECONDS: f64 = 0.01;
/// A jump beyond this is a broken time stamp, not a hole, seconds.
const JUMP_SECONDS: f64 = 24.0 * 3600.0;
/// Header and audio may differ by a packet or so before anything is called missing, seconds.
const MISSING_SECONDS: f64 = 0.06;

/// What turns packets into samples.
enum Engine {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Box<Opus>),
}

impl Engine {
    fn of(params: &AudioCodecParameters) -> Result<Self, AudioError> {
        if params.codec == id::CODEC_ID_OPUS {
            let channels = params.channels.as_ref().map_or(1, Channels::count);
            return Ok(Self::Opus(Box::new(Opus::open(params.extra_data.as_deref(), channels)?)));
        }
        let decoder = make_decoder(params, AudioDecoderOptions::default(), codec_name(params.codec))?;
        Ok(Self::Symphonia(decoder))
    }

    /// A codec header inside the container may know better than the container.
    fn rate_hz(&self, params: &AudioCodecParameters) -> u32 {
        match self {
            Self::Symphonia(decoder) => decoder.codec_params().sample_rate.or(params.sample_rate).unwrap_or(0),
            Self::Opus(_) => opus::RATE_HZ,
        }
    }

    /// Samples of delay at the start that the demuxer leaves in.
    fn pre_skip(&self) -> u64 {
        match self {
            Self::Symphonia(_) => 0,
            Self::Opus(opus) => u64::from(opus.pre_skip),
        }
    }

    /// Fills the block, trimmed as the container says, with `trim` being samples at the front and at the end.
    fn decode(&mut self, packet: &Packet, trim: (usize, usize), block: &mut Block) -> Option<()> {
        match self {
            Self::Symphonia(decoder) => {
                let rate_hz = guarded(|| {
                    let buffer = decoder.decode(packet).ok()?;
                    buffer.copy_to_vecs_planar(&mut block.planes);
                    Some(buffer.spec().rate())
                });
                block.rate_hz = rate_hz.flatten()?;
            }
            Self::Opus(opus) => {
                opus.decode(&packet.data, block)?;
                let keep = block.frames().saturating_sub(trim.1);
                for plane in &mut block.planes {
                    plane.truncate(keep);
                    plane.drain(..trim.0.min(keep));
                }
            }
        }
        Some(())
    }
}

/// Decoder of a file with a container.
pub struct Contained {
    format: Box<dyn FormatReader>,
    decoder: Engine,
    track_id: u32,
    time_base: Option<TimeBase>,
    rate_hz: u32,
    /// Samples (per channel) decoded or lost so far in this link of a chain, before trimming.
    position: u64,
    /// Read, waiting for the hole before it to be told.
    pending: Option<Packet>,
    /// Samples to drop at the start, and how many to put out in all, by the edit list.
    skip: u64,
    left: Option<u64>,
    expected_seconds: Option<f64>,
    put_out_seconds: f64,
    failures: u32,
    facts: Facts,
    ended: bool,
}

impl Contained {
    pub fn open(path: &Path, container: Container) -> Result<Self, AudioError> {
        let file = File::open(path).map_err(AudioError::io("open"))?;
        let (edits, source): (_, Box<dyn MediaSource>) = if container == Container::Mp4 {
            (mp4::edit_list(&file), Box::new(Padded::new(file).map_err(AudioError::io("read"))?))
        } else {
            (None, Box::new(file))
        };
        let stream = MediaSourceStream::new(source, MediaSourceStreamOptions::default());
        let mut hint = Hint::new();
        hint.with_extension(container.extension());
        let format = guarded(|| {
            symphonia::default::get_probe().probe(&hint, stream, FormatOptions::default(), MetadataOptions::default())
        });
        let format = match format {
            Some(Ok(format)) => format,
            Some(Err(error)) => return Err(undecodable(&error.to_string())),
            None => return Err(undecodable("the container could not be read")),
        };
        Self::start(format, edits)
    }

    fn start(format: Box<dyn FormatReader>, edits: Option<EditList>) -> Result<Self, AudioError> {
        let audio = format.default_track(TrackType::Audio);
        let Some((track, params)) =
            audio.and_then(|track| Some((track, track.codec_params.as_ref().and_then(|params| params.audio())?)))
        else {
            let other = format.first_track(TrackType::Video).is_some();
            let codec = if other { "video without audio" } else { "unknown" };
            return Err(AudioError::Unsupported { codec: codec.to_owned() });
        };
        let codec = codec_name(params.codec);
        let decoder = Engine::of(params)?;
        let rate_hz = decoder.rate_hz(params);
        let seconds =
            |ticks: u64, base: TimeBase| ticks as f64 * f64::from(base.numer.get()) / f64::from(base.denom.get());
        let declared = track.duration.zip(track.time_base).map(|(duration, base)| seconds(duration.get(), base));
        let frames = track.num_frames.filter(|_| rate_hz > 0).map(|frames| frames as f64 / f64::from(rate_hz));
        let scaled = |seconds: f64| (seconds * f64::from(rate_hz)).round() as u64;
        let declared = declared.or(frames).filter(|seconds| *seconds > 0.0 && *seconds < JUMP_SECONDS * 2.0);
        let (mut skip, mut left, mut expected) = (decoder.pre_skip(), None, declared);
        if let Some(edits) = edits {
            skip = scaled(edits.start_seconds);
            left = edits.length_seconds.map(scaled);
            expected = edits.length_seconds.or(declared);
        }
        Ok(Self {
            decoder,
            track_id: track.id,
            time_base: track.time_base,
            rate_hz,
            position: 0,
            pending: None,
            skip,
            left,
            expected_seconds: expected,
            put_out_seconds: 0.0,
            failures: 0,
            facts: Facts::new(codec),
            ended: false,
            format,
        })
    }

    /// The next packet of our track; `None` at the end of what can be read.
    fn packet(&mut self) -> Result<Option<Packet>, AudioError> {
        loop {
            let format = &mut self.format;
            match guarded(|| format.next_packet()) {
                Some(Ok(Some(packet))) if packet.track_id == self.track_id => {
                    return Ok(Some(packet));
                }
                Some(Ok(Some(_))) => {}
                Some(Ok(None)) => return Ok(None),
                Some(Err(SymphoniaError::ResetRequired)) => self.next_link()?,
                Some(Err(SymphoniaError::IoError(error))) if error.kind() != ErrorKind::UnexpectedEof => {
                    return Err(AudioError::io("read")(error));
                }
                Some(Err(SymphoniaError::DecodeError(_))) if self.failures < FAILURES_IN_A_ROW => self.failures += 1,
                Some(Err(error)) => {
                    self.facts.warnings.push(format!("reading stopped: {error}"));
                    return Ok(None);
                }
                None => {
                    self.facts.warnings.push("reading stopped: the container is broken".to_owned());
                    return Ok(None);
                }
            }
        }
    }

    /// A chained stream (Ogg, RFC 3533 section 4): new tracks, a new decoder, times from zero.
    fn next_link(&mut self) -> Result<(), AudioError> {
        let track = self.format.default_track(TrackType::Audio);
        let Some((track, params)) =
            track.and_then(|track| Some((track, track.codec_params.as_ref().and_then(|params| params.audio())?)))
        else {
            return Err(AudioError::Unsupported { codec: "unknown".to_owned() });
        };
        self.decoder = Engine::of(params)?;
        self.rate_hz = self.decoder.rate_hz(params);
        self.skip = self.decoder.pre_skip();
        (self.track_id, self.time_base, self.position) = (track.id, track.time_base, 0);
        // The first link's header spoke for that link only.
        self.expected_seconds = None;
        Ok(())
    }

    /// A time or duration of the container in samples of the decoder.
    fn samples(&self, ticks: u64) -> Option<u64> {
        let base = self.time_base?;
        let scaled = u128::from(ticks) * u128::from(base.numer.get()) * u128::from(self.rate_hz);
        u64::try_from(scaled / u128::from(base.denom.get())).ok()
    }

    /// Samples missing between what was put out and where this packet belongs.
    fn gap(&self, packet: &Packet) -> u64 {
        let start = u64::try_from(packet.pts.get()).ok().and_then(|ticks| self.samples(ticks)).unwrap_or(0);
        let gap = start.saturating_sub(self.position);
        let rate = f64::from(self.rate_hz);
        if gap as f64 > GAP_SECONDS * rate && (gap as f64) < JUMP_SECONDS * rate { gap } else { 0 }
    }

    fn lost(&mut self, frames: u64) -> Step {
        self.position += frames;
        let kept = self.trim(frames);
        let channels = self.facts.channels.max(1);
        Step::Lost { frames: kept.1, rate_hz: self.rate_hz.max(1), channels }
    }

    /// Of the next `frames` samples: how many to drop at the front, how many to keep after that.
    fn trim(&mut self, frames: u64) -> (u64, u64) {
        let front = self.skip.min(frames);
        self.skip -= front;
        let mut keep = frames - front;
        if let Some(left) = &mut self.left {
            keep = keep.min(*left);
            *left -= keep;
        }
        self.put_out_seconds += keep as f64 / f64::from(self.rate_hz.max(1));
        (front, keep)
    }

    fn decode(&mut self, packet: &Packet, block: &mut Block) -> Step {
        // An AAC packet ends in ones (ISO/IEC 14496-3 4.5.2.1, ID_END); holes and cut off ends are zeros, and decode.
        let hole = self.facts.codec == "aac" && packet.data.iter().all(|&byte| byte == 0);
        let trim = (packet.trim_start.get(), packet.trim_end.get());
        let trim = (self.samples(trim.0).unwrap_or(0) as usize, self.samples(trim.1).unwrap_or(0) as usize);
        let decoded = if hole { None } else { self.decoder.decode(packet, trim, block) };
        match decoded {
            // The first packet of Vorbis puts out nothing by design, and a packet may be all delay.
            Some(()) if block.frames() == 0 && packet.dur.get() > 0 && self.position > 0 => {}
            Some(()) => {
                self.failures = 0;
                self.rate_hz = block.rate_hz;
                self.facts.saw(block.rate_hz, block.planes.len() as u16);
                let frames = block.frames() as u64;
                self.position += frames;
                let (front, keep) = self.trim(frames);
                for plane in &mut block.planes {
                    plane.truncate((front + keep) as usize);
                    plane.drain(..front as usize);
                }
                return Step::Audio;
            }
            None => {}
        }
        self.failures += 1;
        let frames = self.samples(packet.dur.get()).unwrap_or(0);
        self.lost(frames.min(u64::from(self.rate_hz)))
    }
}

impl Decode for Contained {
    fn next(&mut self, block: &mut Block) -> Result<Step, AudioError> {
        while !self.ended && self.left != Some(0) && self.failures < FAILURES_IN_A_ROW {
            let packet = match self.pending.take() {
                Some(packet) => packet,
                None => match self.packet()? {
                    Some(packet) => {
                        let gap = self.gap(&packet);
                        if gap > 0 {
                            self.pending = Some(packet);
                            return Ok(self.lost(gap));
                        }
                        packet
                    }
                    None => break,
                },
            };
            match self.decode(&packet, block) {
                Step::Audio if block.frames() == 0 => {}
                step => return Ok(step),
            }
        }
        self.ended = true;
        Ok(Step::End)
    }

    fn facts(&self) -> Facts {
        let missing = self.expected_seconds.map_or(0.0, |expected| expected - self.put_out_seconds);
        let mut facts = self.facts.clone();
        facts.missing_seconds = if missing > MISSING_SECONDS { missing } else { 0.0 };
        facts
    }
}

fn codec_name(codec: AudioCodecId) -> &'static str {
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
