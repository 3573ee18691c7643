//! Outcomes of `process_call`. An outcome is not an error. It is a final, explained state of a call.

use std::fmt;
use std::str::FromStr;

use super::id::ParseError;
use super::words;

words! {
    /// The typed end of `process_call`.
    #[derive(Hash, PartialOrd, Ord)]
    pub enum Outcome {
        /// All steps were done.
        Done = "done",
        /// The recording contains no speech.
        NoSpeech = "no_speech",
        /// No recording appeared within the grace period.
        NoRecording = "no_recording",
        /// The recording's URL keeps answering 404, 410 or a refusal, or the platform gives no new one.
        SourceExpired = "source_expired",
        /// The source no longer knows the call.
        Vanished = "vanished",
        /// The call was past its retention term when first seen. Nothing was fetched.
        PastRetention = "past_retention",
        /// The platform marks the call as opted out of storage.
        OptedOut = "opted_out",
        /// Not completed, or text only. There is nothing to process.
        NotEligible = "not_eligible",
        /// The URL serves a page or a message, not audio.
        NotARecording = "not_a_recording",
        /// Audio in an unsupported container or codec.
        UnsupportedMedia = "unsupported_media",
        /// More than half of the audio is lost, or nothing decodes. The original is kept.
        Damaged = "damaged",
        /// Longer than the configured limit.
        TooLong = "too_long",
        /// More bytes than the configured limit.
        TooLarge = "too_large",
        /// The recording's URL points to an address that the address guard refuses.
        RefusedUrl = "refused_url",
        /// All steps except the words: the platform sent no text, and no engine may transcribe.
        NoEngine = "no_engine",
        /// An operator cancelled the job. The record has the operator's reason.
        Cancelled = "cancelled",
        /// Erased under retention or on request.
        Erased = "erased",
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::named(text).ok_or(ParseError::new("outcome", Self::NONE_OF_THEM))
    }
}
