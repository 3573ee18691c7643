//! How a finished job ended. An outcome is not an error: each is a final, explained state of a call.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::id::ParseError;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident => $word:literal,)+) => {
        /// The typed end of `process_call`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Outcome { $($(#[$doc])* $name,)+ }

        impl Outcome {
            /// Every outcome, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word used in records, JSON and `--where 'outcome=…'`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            const NONE_OF_THEM: &'static str = concat!("is none of these:" $(, " ", $word)+);
        }
    };
}

outcomes! {
    /// Everything was done.
    Done => "done",
    /// The recording holds no speech.
    NoSpeech => "no_speech",
    /// No recording appeared within the grace period.
    NoRecording => "no_recording",
    /// The recording's URL answers 404 or 410 for good.
    SourceExpired => "source_expired",
    /// The source no longer knows the call.
    Vanished => "vanished",
    /// Older than its retention term when first seen; no byte of it was asked for.
    PastRetention => "past_retention",
    /// The platform marks the call as opted out of storage.
    OptedOut => "opted_out",
    /// Not completed, or text only: there is nothing to do for it.
    NotEligible => "not_eligible",
    /// What the URL serves is a page or a message, not audio.
    NotARecording => "not_a_recording",
    /// Audio in a container or codec that cannot be read.
    UnsupportedMedia => "unsupported_media",
    /// More than half of the audio is lost or nothing decodes; the original is kept.
    Damaged => "damaged",
    /// Longer than the configured limit.
    TooLong => "too_long",
    /// More bytes than the configured limit.
    TooLarge => "too_large",
    /// The recording URL points to an address the guard refuses.
    RefusedUrl => "refused_url",
    /// All done except words: no text came with the call and no engine may make one.
    NoEngine => "no_engine",
    /// Somebody ended its job by hand; the reason is theirs.
    Cancelled => "cancelled",
    /// Erased under retention or on request.
    Erased => "erased",
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .iter()
            .copied()
            .find(|outcome| outcome.as_str() == text)
            .ok_or(ParseError::new("outcome", Self::NONE_OF_THEM))
    }
}
