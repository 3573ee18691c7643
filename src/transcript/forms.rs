//! The output formats of a transcript, and their errors.

use std::fmt;
use std::str::FromStr;

use crate::domain::Classify;
use crate::domain::Fault;
use crate::domain::ParseError;
use crate::domain::Side;
use crate::domain::Transcript;
use crate::domain::transcript::TRANSCRIPT_SCHEMA;

use super::captions;
use super::provider::NO_ENGINE;
use super::text::text;

/// An output format of a transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The platform's text form, `[Agent]: …`.
    Text,
    /// The document, `aftercall.transcript/1`.
    Json,
    /// W3C WebVTT.
    Vtt,
    /// SubRip.
    Srt,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 4] = [Self::Text, Self::Json, Self::Vtt, Self::Srt];

    /// File name extension. Also the form's name on the command line and in URLs.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Json => "json",
            Self::Vtt => "vtt",
            Self::Srt => "srt",
        }
    }

    /// Media type for HTTP.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Json => "application/json",
            Self::Vtt => "text/vtt; charset=utf-8",
            Self::Srt => "application/x-subrip; charset=utf-8",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.extension())
    }
}

impl FromStr for Form {
    type Err = ParseError;

    fn from_str(word: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|form| form.extension() == word)
            .ok_or(ParseError::new("transcript form", "is none of txt, json, vtt, srt"))
    }
}

/// Errors of a transcript. No message repeats a word of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TranscriptError {
    /// This transcript cannot have this form. The reason is a word such as `no_times`.
    #[error("no {form} form of this transcript: {reason}")]
    Omitted { form: Form, reason: String },
    #[error("the transcript file is not UTF-8 text")]
    NotUtf8,
    /// `at` is the position of the first invalid element.
    #[error("the transcript file is neither turns nor an {TRANSCRIPT_SCHEMA} document: see {at}")]
    NotTurns { at: String },
    #[error("the transcript file's schema is not {TRANSCRIPT_SCHEMA}")]
    Schema,
    #[error("the transcript file gives words to speaker {0}, but its speakers table has no such speaker")]
    Speaker(u32),
    #[error("the transcript could not be written as JSON")]
    Unwritable,
}

impl Classify for TranscriptError {
    fn fault(&self) -> Fault {
        Fault::Permanent
    }

    fn side(&self) -> Side {
        match self {
            Self::Unwritable => Side::Worker,
            _ => Side::Source,
        }
    }
}

/// Writes one form.
///
/// # Errors
/// [`TranscriptError::Omitted`] for a form that this transcript cannot have: text without words, or captions without
/// times.
pub fn render(transcript: &Transcript, form: Form) -> Result<String, TranscriptError> {
    let omitted = |reason: &str| TranscriptError::Omitted { form, reason: reason.to_owned() };
    match form {
        Form::Json => serde_json::to_string_pretty(transcript).map_err(|_| TranscriptError::Unwritable),
        Form::Text => text(transcript).ok_or_else(|| omitted(transcript.reason.as_deref().unwrap_or(NO_ENGINE))),
        Form::Vtt => captions::cues(transcript).map(|cues| captions::vtt(&cues)).map_err(omitted),
        Form::Srt => captions::cues(transcript).map(|cues| captions::srt(&cues)).map_err(omitted),
    }
}
