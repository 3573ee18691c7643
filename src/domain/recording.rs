//! Types of a recording: its URL, its container and its state after decoding.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

use super::address::Address;
use super::id::ParseError;

/// The URL of a recording: a capability with a short life. `Debug` hides the query, because it may contain a signature.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct RecordingUrl(Told);

#[derive(Clone, PartialEq, Eq)]
enum Told {
    Usable(Address),
    /// The text without its query, and the reason why it cannot be fetched.
    Unusable {
        text: String,
        why: ParseError,
    },
}

impl RecordingUrl {
    /// Accepts absolute `http` and `https` URLs with a host. The fetcher decides later whether the host is allowed.
    ///
    /// # Errors
    /// [`ParseError`] for another scheme, a missing host or embedded credentials.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Address::parse(text).map(|address| Self(Told::Usable(address)))
    }

    /// Keeps any text from a source. An unusable URL is not the same as a missing recording, so the reason is kept for
    /// the fetcher.
    #[must_use]
    pub fn told(text: &str) -> Self {
        Self(match Address::parse(text) {
            Ok(address) => Told::Usable(address),
            Err(why) => {
                let text = text.split(['?', '#']).next().unwrap_or_default().to_owned();
                Told::Unusable { text, why }
            }
        })
    }

    /// The whole URL with its signature, as the URL standard parses it. Never log this.
    ///
    /// # Errors
    /// Why the URL cannot be fetched.
    pub const fn as_url(&self) -> Result<&Url, &ParseError> {
        match self.address() {
            Ok(address) => Ok(address.url()),
            Err(why) => Err(why),
        }
    }

    /// The address with path and query as the source wrote them. Never log this.
    ///
    /// # Errors
    /// Why the URL cannot be fetched.
    pub const fn address(&self) -> Result<&Address, &ParseError> {
        match &self.0 {
            Told::Usable(address) => Ok(address),
            Told::Unusable { why, .. } => Err(why),
        }
    }

    /// The URL without query and fragment, for logs and records.
    #[must_use]
    pub fn without_query(&self) -> String {
        match self.clone().without_permission().0 {
            Told::Usable(address) => address.into(),
            Told::Unusable { why, .. } => why.to_string(),
        }
    }

    /// The URL without its signature.
    #[must_use]
    pub fn without_permission(self) -> Self {
        Self(match self.0 {
            Told::Usable(address) => Told::Usable(address.without_query()),
            told @ Told::Unusable { .. } => told,
        })
    }
}

impl fmt::Debug for RecordingUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_query())
    }
}

impl From<String> for RecordingUrl {
    fn from(text: String) -> Self {
        Self::told(&text)
    }
}

impl From<RecordingUrl> for String {
    fn from(url: RecordingUrl) -> Self {
        match url.0 {
            Told::Usable(address) => address.into(),
            Told::Unusable { text, .. } => text,
        }
    }
}

/// Which leg is on which channel of a two-channel recording.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DualChannels {
    /// Decided from evidence, or left unknown.
    #[default]
    Auto,
    CallerLeft,
    AgentLeft,
}

/// A recording's container. Its bytes decide, never its file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Container {
    Mp3,
    /// ISO base media (`.mp4`, `.m4a`), usually AAC.
    Mp4,
    /// AAC frames without a container.
    Adts,
    Wav,
    Flac,
    Ogg,
    /// Matroska or `WebM`.
    Matroska,
    /// AIFF and AIFF-C.
    Aiff,
    /// Sun and `NeXT` sound.
    Au,
    /// Sony Wave64.
    Wave64,
    /// Any other container. It is kept as received.
    Other,
}

impl Container {
    /// Every known container. Anything else is [`Self::Other`].
    pub const KNOWN: [Self; 10] = [
        Self::Mp3,
        Self::Mp4,
        Self::Adts,
        Self::Wav,
        Self::Flac,
        Self::Ogg,
        Self::Matroska,
        Self::Aiff,
        Self::Au,
        Self::Wave64,
    ];

    /// File extension of stored originals.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Mp3 => "mp3",
            Self::Mp4 => "m4a",
            Self::Adts => "aac",
            Self::Wav => "wav",
            Self::Flac => "flac",
            Self::Ogg => "ogg",
            Self::Matroska => "webm",
            Self::Aiff => "aiff",
            Self::Au => "au",
            Self::Wave64 => "w64",
            Self::Other => "bin",
        }
    }

    /// Media type of stored originals.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Mp3 => "audio/mpeg",
            Self::Mp4 => "audio/mp4",
            Self::Adts => "audio/aac",
            Self::Wav => "audio/wav",
            Self::Flac => "audio/flac",
            Self::Ogg => "audio/ogg",
            Self::Matroska => "audio/webm",
            Self::Aiff => "audio/aiff",
            Self::Au => "audio/basic",
            Self::Wave64 => "audio/x-w64",
            Self::Other => "application/octet-stream",
        }
    }
}

/// How much of a recording could be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingState {
    Ok,
    /// More than 5 % lost.
    Degraded,
    /// More than half lost, or nothing decodes.
    Damaged,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_signature() {
        let url = RecordingUrl::parse("https://storage.example.test/a.mp3?X-Amz-Signature=secret#frag").unwrap();
        assert_eq!(format!("{url:?}"), "https://storage.example.test/a.mp3");
    }

    #[test]
    fn refuses_other_schemes_and_credentials() {
        for text in ["file:///etc/passwd", "ftp://h/x", "https://u:p@h/x", "not a url", "https://"] {
            assert!(RecordingUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_keeps_its_reason_and_is_not_shown() {
        for (text, reason) in [("file:///srv/s3cret.wav?sig=s3cret", "http or https"), ("s3cret thing", "absolute")] {
            let url = RecordingUrl::told(text);
            let why = url.as_url().unwrap_err().to_string();
            assert!(why.contains(reason), "{why}");
            let shown = format!("{url:?} {} {why}", url.without_query());
            assert!(!shown.contains("s3cret"), "{shown}");
            let stored = serde_json::to_string(&url).unwrap();
            assert!(!stored.contains("sig="), "{stored}");
            assert_eq!(serde_json::from_str::<RecordingUrl>(&stored).unwrap(), url);
        }
        assert_eq!(RecordingUrl::told(" https://h.test/a?b"), RecordingUrl::parse("https://h.test/a?b").unwrap());
    }
}
