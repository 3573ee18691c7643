//! Selects the decoder of a file by its container. Defines what all decoders share: the trait, its steps and its facts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use symphonia::core::audio::{Channels, layouts};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;

use super::aiff;
use super::au;
use super::block::Block;
use super::chunks;
use super::contained::Contained;
use super::elementary::Elementary;
use super::error::AudioError;
use super::foreign;
use super::frames::FrameSyntax;
use super::free_format::FreeFormat;
use super::ogg::Ogg;
use super::riff;
use crate::domain::Container;
use crate::domain::quality::Flag;

/// Result of one decoder step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The block holds samples.
    Audio,
    /// Samples (per channel) are missing here. The content of the block is not valid.
    Lost {
        frames: u64,
        rate_hz: u32,
        channels: u16,
    },
    /// By its times the file holds no samples here (count per channel). Inside sound they are lost. Between silences
    /// nothing was sent.
    Gap {
        frames: u64,
        rate_hz: u32,
        channels: u16,
    },
    /// As [`Step::Gap`], but the encoder had nothing to send.
    Pause {
        frames: u64,
        rate_hz: u32,
        channels: u16,
    },
    End,
}

/// Facts of a recording, complete once it has been read.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub codec: String,
    /// Format of the first audio.
    pub rate_hz: u32,
    pub channels: u16,
    /// Audio that headers promise and that is missing at the end or between two joined files, seconds. [`Step::Lost`]
    /// is not included.
    pub missing_seconds: f64,
    /// Notes on how the recording was decoded.
    pub flags: Vec<Flag>,
    pub warnings: Vec<String>,
}

impl Facts {
    pub(super) fn new(codec: &str) -> Self {
        Self { codec: codec.to_owned(), ..Self::default() }
    }

    /// Adds the facts of a recording that follows in the same file.
    #[must_use]
    pub(super) fn and(mut self, later: Self) -> Self {
        self.saw(later.rate_hz, later.channels);
        self.missing_seconds += later.missing_seconds;
        self.flags.extend(later.flags);
        self.warnings.extend(later.warnings);
        self
    }

    /// Stores the format of the first audio. Later calls change nothing.
    pub(super) fn saw(&mut self, rate_hz: u32, channels: u16) {
        if self.rate_hz == 0 {
            (self.rate_hz, self.channels) = (rate_hz, channels);
        }
    }
}

/// A decoder of one file.
pub(super) trait Decode {
    /// Fills the block with the next samples, or reports what is missing. After `End` it returns `End` again.
    fn next(&mut self, block: &mut Block) -> Result<Step, AudioError>;
    fn facts(&self) -> Facts;
}

/// Opens a file. The container comes from its bytes.
///
/// # Errors
/// An unsupported codec with its name, a file in which nothing decodes, or a file that cannot be read.
pub(super) fn open(path: &Path, container: Container) -> Result<Box<dyn Decode>, AudioError> {
    reader(path, container).map_err(|error| foreign::explained(error, path, container))
}

fn reader(path: &Path, container: Container) -> Result<Box<dyn Decode>, AudioError> {
    match container {
        Container::Mp3 => match FreeFormat::open(path)? {
            Some(free) => Ok(Box::new(free)),
            None => Ok(Box::new(Elementary::open(path, FrameSyntax::Mpeg, 0..u64::MAX)?)),
        },
        Container::Adts => Ok(Box::new(Elementary::open(path, FrameSyntax::Adts, 0..u64::MAX)?)),
        Container::Wav => riff::open(path, chunks::ChunkSyntax::Riff),
        Container::Wave64 => riff::open(path, chunks::ChunkSyntax::Wave64),
        Container::Aiff => aiff::open(path),
        Container::Au => au::open(path),
        Container::Ogg => Ok(Box::new(Ogg::open(path)?)),
        Container::Mp4 | Container::Flac | Container::Matroska => Ok(Box::new(Contained::open(path, container)?)),
        Container::Other => Err(AudioError::UnknownContainer),
    }
}

/// Runs third-party code on untrusted bytes. A panic becomes `None`.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// A symphonia decoder, or a typed error.
pub(super) fn make_decoder(
    params: &AudioCodecParameters,
    options: AudioDecoderOptions,
    codec: &str,
) -> Result<Box<dyn AudioDecoder>, AudioError> {
    let made = guarded(|| symphonia::default::get_codecs().make_audio_decoder(params, &options));
    match made {
        Some(Ok(decoder)) => Ok(decoder),
        Some(Err(SymphoniaError::Unsupported(_))) => Err(AudioError::Unsupported { codec: codec.to_owned() }),
        Some(Err(error)) => Err(undecodable(&error.to_string())),
        None => Err(undecodable("the decoder gave up")),
    }
}

/// The error for a recording of which nothing decodes.
pub(super) fn undecodable(reason: &str) -> AudioError {
    AudioError::Damaged { expected_ms: 0, lost_ms: 0, reason: reason.to_owned() }
}

/// Channels by number alone. The positions do not matter here.
pub(super) fn channel_layout(channels: u16) -> Channels {
    if channels == 1 { layouts::CHANNEL_LAYOUT_MONO } else { layouts::CHANNEL_LAYOUT_STEREO }
}
