//! Errors of the audio part: the job outcome, the fault and the responsible side of each.

use std::io;

use crate::domain::{Classify, Fault, Outcome, Side};

#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The bytes are not audio.
    #[error("not audio: {reason}")]
    NotAudio { reason: &'static str },
    /// The bytes are neither text nor a known container.
    #[error("no container we know")]
    UnknownContainer,
    /// The audio uses a codec that is not supported.
    #[error("unsupported codec {codec}")]
    Unsupported { codec: String },
    /// More than half of the recording is lost, or nothing decodes. The original is kept, and no normalised file is
    /// written.
    #[error("damaged recording: {} ({reason})", lost(*lost_ms, *expected_ms))]
    Damaged { expected_ms: u64, lost_ms: u64, reason: String },
    /// Longer than `audio.max_duration`.
    #[error("recording is longer than {limit_ms} ms")]
    TooLong { limit_ms: u64 },
    /// More channels than `MAX_CHANNELS`.
    #[error("recording has {channels} channels, at most {limit} are read")]
    TooManyChannels { channels: usize, limit: usize },
    /// No recorder uses this sample rate.
    #[error("sample rate {rate_hz} Hz is outside 4000 to 192000 Hz")]
    SampleRate { rate_hz: u32 },
    /// The spool or an output file could not be read or written.
    #[error("audio {what}: {source}")]
    Io { what: &'static str, source: io::Error },
    /// A picture, file or resampler could not be made. This is a fault of this program.
    #[error("audio {what}: {cause}")]
    Internal { what: &'static str, cause: String },
    /// The worker is stopping. No file was written.
    #[error("audio work was cancelled")]
    Cancelled,
}

/// The lost share as text, where the expected length is known.
fn lost(lost_ms: u64, expected_ms: u64) -> String {
    if expected_ms == 0 { "nothing decodes".to_owned() } else { format!("{lost_ms} of {expected_ms} ms lost") }
}

impl AudioError {
    /// For `map_err`: wraps an I/O error with the name of the failed step.
    pub(crate) fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// The typed outcome of the job. `None` where a retry may succeed.
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::NotAudio { .. } => Some(Outcome::NotARecording),
            Self::UnknownContainer
            | Self::Unsupported { .. }
            | Self::TooManyChannels { .. }
            | Self::SampleRate { .. } => Some(Outcome::UnsupportedMedia),
            Self::Damaged { .. } => Some(Outcome::Damaged),
            Self::TooLong { .. } => Some(Outcome::TooLong),
            Self::Io { .. } | Self::Internal { .. } | Self::Cancelled => None,
        }
    }
}

impl Classify for AudioError {
    fn fault(&self) -> Fault {
        match self {
            Self::Io { .. } | Self::Cancelled => Fault::Transient,
            _ => Fault::Permanent,
        }
    }

    fn side(&self) -> Side {
        match self {
            Self::Io { .. } | Self::Internal { .. } | Self::Cancelled => Side::Worker,
            _ => Side::Recording,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_tried_again_and_a_broken_file_is_not() {
        let full = AudioError::io("spill")(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!((full.fault(), full.side(), full.outcome()), (Fault::Transient, Side::Worker, None));
        let broken = AudioError::Damaged { expected_ms: 10, lost_ms: 9, reason: "x".into() };
        assert_eq!(
            (broken.fault(), broken.side(), broken.outcome()),
            (Fault::Permanent, Side::Recording, Some(Outcome::Damaged))
        );
    }
}
