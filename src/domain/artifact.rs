//! The artifacts of a call. Object keys are built only here.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::{CallUid, OrgUid, ParseError};
use super::recording::Container;

/// A SHA-256 digest (FIPS 180-4). It is shown in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// From the raw digest.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hex digits.
    ///
    /// # Errors
    /// [`ParseError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseError::new("sha256", "is not 64 hex digits"))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl TryFrom<String> for Sha256 {
    type Error = ParseError;
    fn try_from(text: String) -> Result<Self, ParseError> {
        Self::parse(&text)
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.to_string()
    }
}

/// The kinds of artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArtifactKind {
    /// The bytes as downloaded.
    Original(Container),
    /// Normalised audio, FLAC.
    AudioFlac,
    Transcript,
    Quality,
    Waveform,
    Manifest,
}

impl ArtifactKind {
    /// File name for people: `original.mp3`, `audio.flac`, …
    #[must_use]
    pub fn name(self) -> String {
        format!("{}.{}", self.stem(), self.extension())
    }

    const fn stem(self) -> &'static str {
        match self {
            Self::Original(_) => "original",
            Self::AudioFlac => "audio",
            Self::Transcript => "transcript",
            Self::Quality => "quality",
            Self::Waveform => "waveform",
            Self::Manifest => "manifest",
        }
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::Original(container) => container.extension(),
            Self::AudioFlac => "flac",
            Self::Transcript | Self::Quality | Self::Waveform | Self::Manifest => "json",
        }
    }

    /// Media type of the stored object.
    #[must_use]
    pub const fn content_type(self) -> ContentType {
        match self {
            Self::Original(container) => ContentType(container.content_type()),
            Self::AudioFlac => ContentType("audio/flac"),
            Self::Transcript | Self::Quality | Self::Waveform | Self::Manifest => ContentType("application/json"),
        }
    }
}

/// A media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentType(&'static str);

impl ContentType {
    /// The text for an HTTP header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// The key of an object: `v1/<org_uid>/<call_uid>/<kind>-<sha256[..16]>.<ext>`. It contains only our own ids, so a
/// platform's data cannot change where bytes are stored. Within one call it is content-addressed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactKey(String);

impl ArtifactKey {
    /// The key of an artifact with this content.
    #[must_use]
    pub fn new(org: OrgUid, call: CallUid, kind: ArtifactKind, sha256: &Sha256) -> Self {
        let prefix = Self::call_prefix(org, call);
        if kind == ArtifactKind::Manifest {
            return Self(format!("{prefix}manifest.json"));
        }
        let digest = sha256.to_string();
        Self(format!("{prefix}{}-{}.{}", kind.stem(), &digest[..16], kind.extension()))
    }

    /// The prefix of all objects of one call; it ends with `/`.
    #[must_use]
    pub fn call_prefix(org: OrgUid, call: CallUid) -> String {
        format!("v1/{org}/{call}/")
    }

    /// Reads a key that [`Self::new`] wrote.
    ///
    /// # Errors
    /// [`ParseError`] for any other shape, such as a key that leaves its prefix.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let bad = ParseError::new("artifact key", "is not v1/<org>/<call>/<name>");
        let parts: Vec<&str> = text.split('/').collect();
        let ["v1", org, call, name] = parts.as_slice() else { return Err(bad) };
        OrgUid::parse(org).and(CallUid::parse(call).map(|_| ())).map_err(|_| bad.clone())?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(bad);
        }
        Ok(Self(text.to_owned()))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArtifactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ArtifactKey {
    type Error = ParseError;
    fn try_from(text: String) -> Result<Self, ParseError> {
        Self::parse(&text)
    }
}

impl From<ArtifactKey> for String {
    fn from(key: ArtifactKey) -> Self {
        key.0
    }
}

/// A stored object of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    pub name: String,
    pub key: ArtifactKey,
    pub size_bytes: u64,
    pub sha256: Sha256,
    pub content_type: String,
}

/// Schema name in every manifest.
pub const MANIFEST_SCHEMA: &str = "aftercall.manifest/1";

/// All stored artifacts of a call and how they were made. It is written last, so it never names a missing object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub schema: String,
    pub software: String,
    pub transcript_version: Option<u32>,
    pub artifacts: Vec<Artifact>,
    pub engine: Option<super::transcript::EngineInfo>,
    /// Settings that affect the output.
    pub parameters: serde_json::Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_org_call_kind_and_content() {
        let (org, call) = (OrgUid::new(), CallUid::new());
        let sha = Sha256::from_bytes([0xab; 32]);
        let key = ArtifactKey::new(org, call, ArtifactKind::Original(Container::Mp3), &sha);
        assert_eq!(key.as_str(), format!("v1/{org}/{call}/original-abababababababab.mp3"));
        assert_eq!(ArtifactKey::parse(key.as_str()), Ok(key));
    }

    #[test]
    fn keys_that_climb_are_refused() {
        let (org, call) = (OrgUid::new(), CallUid::new());
        for name in ["..", "../x", ".hidden", "a/b", "", "a b"] {
            assert!(ArtifactKey::parse(&format!("v1/{org}/{call}/{name}")).is_err(), "{name}");
        }
        assert!(ArtifactKey::parse("v1/../../etc/passwd").is_err());
    }
}
