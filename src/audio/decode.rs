//! From a file to blocks of samples: which decoder reads what, and what they all have in common.

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
use super::frames::Syntax;
use super::free_format::FreeFormat;
use super::ogg::Ogg;
use super::riff;
use crate::domain::Container;
use crate::domain::quality::Flag;

/// What a decoder did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The block holds samples.
    Audio,
    /// Samples (per channel) that should be here and are not; the block is to be ignored.
    Lost {
        frames: u64,
        rate_hz: u32,
        channels: u16,
    },
    /// Samples (per channel) for which the file holds nothing, by the times in it: lost in the middle of sound, and not
    /// sent where there was none.
    Gap {
        frames: u64,
        rate_hz: u32,
        channels: u16,
    },
    /// The same, where nothing was to be sent.
    Pause {
        frames: u64,
        rate_hz: u32,
        channels: u16,
    },
    End,
}

/// What is known of the recording once it has been read.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub codec: String,
    /// Form of the first audio.
    pub rate_hz: u32,
    pub channels: u16,
    /// Promised by headers, absent at the end (or at a seam), beyond what was told as [`Step::Lost`].
    pub missing_seconds: f64,
    /// What a reader should know of how it was decoded.
    pub flags: Vec<Flag>,
    pub warnings: Vec<String>,
}

impl Facts {
    pub fn new(codec: &str) -> Self {
        Self { codec: codec.to_owned(), ..Self::default() }
    }

    /// With what is known of a recording that follows in the same file.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        self.saw(later.rate_hz, later.channels);
        self.missing_seconds += later.missing_seconds;
        self.flags.extend(later.flags);
        self.warnings.extend(later.warnings);
        self
    }

    /// Notes the form of the first audio.
    pub fn saw(&mut self, rate_hz: u32, channels: u16) {
        if self.rate_hz == 0 {
            (self.rate_hz, self.channels) = (rate_hz, channels);
        }
    }
}

/// A decoder of one file.
pub trait Decode {
    /// Fills the block with the next samples, or tells what is missing. After `End` it stays at the end.
    fn next(&mut self, block: &mut Block) -> Result<Step, AudioError>;
    fn facts(&self) -> Facts;
}

/// Opens a file whose container is known from its bytes.
///
/// # Errors
/// A codec that is not read, by its name; nothing that decodes; a file that cannot be read.
pub fn open(path: &Path, container: Container) -> Result<Box<dyn Decode>, AudioError> {
    reader(path, container).map_err(|error| foreign::explained(error, path, container))
}

fn reader(path: &Path, container: Container) -> Result<Box<dyn Decode>, AudioError> {
    match container {
        Container::Mp3 => match FreeFormat::open(path)? {
            Some(free) => Ok(Box::new(free)),
            None => Ok(Box::new(Elementary::open(path, Syntax::Mpeg, 0..u64::MAX)?)),
        },
        Container::Adts => Ok(Box::new(Elementary::open(path, Syntax::Adts, 0..u64::MAX)?)),
        Container::Wav => riff::open(path, chunks::Syntax::Riff),
        Container::Wave64 => riff::open(path, chunks::Syntax::Wave64),
        Container::Aiff => aiff::open(path),
        Container::Au => au::open(path),
        Container::Ogg => Ok(Box::new(Ogg::open(path)?)),
        Container::Mp4 | Container::Flac | Container::Matroska => Ok(Box::new(Contained::open(path, container)?)),
        Container::Other => Err(AudioError::UnknownContainer),
    }
}

/// Runs foreign code on foreign bytes: a panic in there is `None`, not ours.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// A symphonia decoder, or the typed reason why there is none.
pub fn make_decoder(
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

/// Nothing of the recording can be decoded.
pub fn undecodable(reason: &str) -> AudioError {
    AudioError::Damaged { expected_ms: 0, lost_ms: 0, reason: reason.to_owned() }
}

/// Channel names do not matter here, their number does.
pub fn channel_layout(channels: u16) -> Channels {
    if channels == 1 { layouts::CHANNEL_LAYOUT_MONO } else { layouts::CHANNEL_LAYOUT_STEREO }
}
