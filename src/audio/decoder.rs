//! What all decoders share: the trait, its steps and facts, and symphonia's decoders behind typed errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::audio::{Channels, layouts};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;

use super::block::Block;
use super::error::AudioError;
use crate::domain::quality::Flag;

/// A number of samples per channel without content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    pub frames: u64,
    pub rate_hz: u32,
    pub channels: u16,
}

/// Result of one decoder step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The block holds samples.
    Audio,
    /// Samples are missing here. The content of the block is not valid.
    Lost(Missing),
    /// By its times the file holds no samples here. Inside sound they are lost. Between silences nothing was sent.
    Gap(Missing),
    /// As [`Step::Gap`], but the encoder had nothing to send.
    Pause(Missing),
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
