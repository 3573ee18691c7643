//! Decodes files with a container (ISO media, FLAC, Matroska, WAV with a codec inside). Symphonia demuxes. The output
//! follows the container's timeline: it begins with the first sample and keeps gaps between packet times.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::TimeBase;

use super::block::Block;
use super::decoder::{Decode, Facts, Missing, Step, guarded, undecodable};
use super::engine::{Cut, Engine, OFFSET_SECONDS, codec_name};
use super::error::AudioError;
use super::mp4::{self, EditList, Padded, Trim};
use crate::domain::Container;

/// Consecutive packets that may fail before the rest of the file is given up.
const FAILURES_IN_A_ROW: u32 = 256;
/// Container times are rounded (Matroska: to 1 ms). Less than this is not a gap, seconds.
const GAP_SECONDS: f64 = 0.01;
/// A larger jump is a broken time stamp, not a gap, seconds.
const JUMP_SECONDS: f64 = 3600.0;
/// A header that announces more than this is ignored, seconds.
const LONGEST_SECONDS: f64 = 48.0 * 3600.0;
/// Header and audio may differ by about a packet before audio counts as missing, seconds.
const MISSING_SECONDS: f64 = 0.06;

/// Decoder of a file with a container.
pub(super) struct Contained {
    format: Box<dyn FormatReader>,
    container: Container,
    decoder: Engine,
    track_id: u32,
    time_base: Option<TimeBase>,
    rate_hz: u32,
    /// Container time of the first sample, in samples.
    start: Option<i64>,
    /// Earliest time of another track before that, seconds.
    earliest: Option<f64>,
    /// Samples (per channel) decoded or lost so far, before trimming.
    position: u64,
    /// A packet that waits until the gap before it is put out.
    pending: Option<Packet>,
    /// The last packet was a pause: the encoder had nothing to send.
    after_pause: bool,
    cut: Cut,
    edits: EditList,
    expected_seconds: Option<f64>,
    put_out_seconds: f64,
    failures: u32,
    facts: Facts,
    ended: bool,
}

impl Contained {
    pub(super) fn open(path: &Path, container: Container) -> Result<Self, AudioError> {
        let file = File::open(path).map_err(AudioError::io("open"))?;
        let (edits, source): (_, Box<dyn MediaSource>) = if container == Container::Mp4 {
            (mp4::edit_list(&file), Box::new(Padded::new(file).map_err(AudioError::io("read"))?))
        } else {
            (EditList::default(), Box::new(file))
        };
        Self::read(source, container, edits)
    }

    /// Opens a source that is not a file of its own.
    pub(super) fn of(source: Box<dyn MediaSource>, container: Container) -> Result<Self, AudioError> {
        Self::read(source, container, EditList::default())
    }

    fn read(source: Box<dyn MediaSource>, container: Container, edits: EditList) -> Result<Self, AudioError> {
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
        Self::start(format, container, edits)
    }

    fn start(format: Box<dyn FormatReader>, container: Container, edits: EditList) -> Result<Self, AudioError> {
        let audio = format.default_track(TrackType::Audio);
        let Some((track, params)) =
            audio.and_then(|track| Some((track, track.codec_params.as_ref().and_then(|params| params.audio())?)))
        else {
            let other = format.first_track(TrackType::Video).is_some();
            let codec = if other { "video without audio" } else { "unknown" };
            return Err(AudioError::Unsupported { codec: codec.to_owned() });
        };
        let codec = codec_name(params.codec);
        let (decoder, flag) = Engine::of(params)?;
        let rate_hz = decoder.rate_hz(params);
        let declared = track.duration.zip(track.time_base);
        let declared = declared.map(|(duration, base)| seconds(duration.get() as f64, base));
        let frames = track.num_frames.filter(|_| rate_hz > 0).map(|frames| frames as f64 / f64::from(rate_hz));
        let declared = declared.or(frames).filter(|seconds| *seconds > 0.0 && *seconds < LONGEST_SECONDS);
        let scaled = |seconds: f64| (seconds * f64::from(rate_hz)).round() as u64;
        let (cut, expected_seconds) = match edits.trim {
            Some(Trim { start_seconds, length_seconds }) => {
                let cut = Cut { skip: scaled(start_seconds), left: length_seconds.map(scaled) };
                (cut, length_seconds.or(declared))
            }
            None => (Cut { skip: decoder.pre_skip(), left: None }, declared),
        };
        Ok(Self {
            container,
            decoder,
            track_id: track.id,
            time_base: track.time_base,
            rate_hz,
            start: None,
            earliest: None,
            position: 0,
            pending: None,
            after_pause: false,
            cut,
            edits,
            expected_seconds,
            put_out_seconds: 0.0,
            failures: 0,
            facts: Facts { flags: flag.into_iter().collect(), ..Facts::new(codec) },
            ended: false,
            format,
        })
    }

    /// The next packet of the audio track. `None` at the end or where reading stops.
    fn packet(&mut self) -> Result<Option<Packet>, AudioError> {
        loop {
            let format = &mut self.format;
            match guarded(|| format.next_packet()) {
                Some(Ok(Some(packet))) if packet.track_id == self.track_id => {
                    return Ok(Some(packet));
                }
                Some(Ok(Some(packet))) => self.hear_other(&packet),
                Some(Ok(None)) => return Ok(None),
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

    /// Notes the start of another track. Packets are stored in the order of time.
    fn hear_other(&mut self, packet: &Packet) {
        if self.start.is_some() {
            return;
        }
        let track = self.format.tracks().iter().find(|track| track.id == packet.track_id);
        let start = track.and_then(|track| track.time_base).map(|base| seconds(packet.pts.get() as f64, base));
        self.earliest = start.into_iter().chain(self.earliest).reduce(f64::min);
    }

    /// A container time or duration in samples of the decoder.
    fn samples(&self, ticks: i64) -> Option<i64> {
        let base = self.time_base?;
        let scaled = i128::from(ticks) * i128::from(base.numer.get()) * i128::from(self.rate_hz);
        i64::try_from(scaled / i128::from(base.denom.get())).ok()
    }

    /// The gap between the output so far and the time of this packet.
    fn silence_before(&mut self, packet: &Packet) -> Option<Step> {
        let at = self.samples(packet.pts.get()).unwrap_or(0);
        let Some(start) = self.start else { return self.first(at) };
        let gap = at.saturating_sub(start).saturating_sub_unsigned(self.position);
        let rate = f64::from(self.rate_hz);
        if gap as f64 <= GAP_SECONDS * rate {
            return None;
        }
        if gap as f64 >= JUMP_SECONDS * rate {
            // Later times continue from the jump.
            self.start = Some(start.saturating_add(gap));
            return None;
        }
        let meant = self.after_pause || self.decoder.is_pause(&packet.data);
        let frames = self.passed(gap as u64);
        let missing = self.missing(frames);
        Some(if meant { Step::Pause(missing) } else { Step::Gap(missing) })
    }

    /// Time begins at the first sample of the earliest track. A later track keeps its offset.
    fn first(&mut self, at: i64) -> Option<Step> {
        let late = at as f64 / f64::from(self.rate_hz.max(1));
        // FLAC frames give their position. Samples before the first frame in the file are lost.
        if self.container == Container::Flac && late > 0.0 && self.expected_seconds.is_some_and(|all| late < all) {
            self.start = Some(0);
            let frames = self.passed(at.unsigned_abs());
            return Some(Step::Lost(self.missing(frames)));
        }
        self.start = Some(at);
        if self.edits.trim.is_some() {
            self.cut.skip = self.cut.skip.saturating_sub(at.max(0).unsigned_abs());
        } else {
            // The header gives the time of the end, not the duration.
            self.expected_seconds = self.expected_seconds.map(|end| if end > late { end - late.max(0.0) } else { end });
        }
        let lead = match self.container {
            Container::Mp4 => self.edits.lead_seconds,
            _ => self.earliest.map_or(0.0, |earliest| late - earliest),
        };
        let frames = (lead * f64::from(self.rate_hz.max(1))).round() as u64;
        OFFSET_SECONDS.contains(&lead).then(|| Step::Pause(self.missing(frames)))
    }

    fn missing(&self, frames: u64) -> Missing {
        Missing { frames, rate_hz: self.rate_hz.max(1), channels: self.facts.channels.max(1) }
    }

    /// Advances by samples that the file does not hold. Returns how many of them are put out after trimming.
    fn passed(&mut self, frames: u64) -> u64 {
        self.position += frames;
        let (_, kept) = self.cut.next(frames);
        self.put_out_seconds += kept as f64 / f64::from(self.rate_hz.max(1));
        kept
    }

    fn decode(&mut self, packet: &Packet, block: &mut Block) -> Step {
        // An AAC packet ends in ones (ISO/IEC 14496-3 4.5.2.1, ID_END). Holes and cut-off ends are zeros, which would
        // decode.
        let hole = self.facts.codec == "aac" && packet.data.iter().all(|&byte| byte == 0);
        let decoded = if hole { None } else { self.decoder.decode(packet, block) };
        self.after_pause = self.decoder.is_pause(&packet.data);
        match decoded {
            // Only the first packet may consist of delay alone.
            Some(()) if block.frames() == 0 && packet.dur.get() > 0 && self.position > 0 => {}
            Some(()) => {
                self.failures = 0;
                self.rate_hz = block.rate_hz;
                self.facts.saw(block.rate_hz, block.planes.len() as u16);
                self.position += block.frames() as u64;
                let kept = self.cut.apply(block);
                self.put_out_seconds += kept as f64 / f64::from(self.rate_hz.max(1));
                return Step::Audio;
            }
            None => {}
        }
        self.failures += 1;
        let frames = i64::try_from(packet.dur.get()).ok().and_then(|ticks| self.samples(ticks)).unwrap_or(0);
        let frames = self.passed(frames.unsigned_abs().min(u64::from(self.rate_hz)));
        Step::Lost(self.missing(frames))
    }
}

impl Decode for Contained {
    fn next(&mut self, block: &mut Block) -> Result<Step, AudioError> {
        while !self.ended && self.cut.left != Some(0) && self.failures < FAILURES_IN_A_ROW {
            let packet = match self.pending.take() {
                Some(packet) => packet,
                None => match self.packet()? {
                    Some(packet) => {
                        if let Some(silence) = self.silence_before(&packet) {
                            self.pending = Some(packet);
                            return Ok(silence);
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

fn seconds(ticks: f64, base: TimeBase) -> f64 {
    ticks * f64::from(base.numer.get()) / f64::from(base.denom.get())
}
