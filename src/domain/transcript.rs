//! The transcript document (`aftercall.transcript/1`): words, speakers and roles. Unknown roles are marked as unknown.

use serde::{Deserialize, Serialize};

use super::segment::Segment;

/// Schema name in every transcript document.
pub const TRANSCRIPT_SCHEMA: &str = "aftercall.transcript/1";

/// The role of a speaker. A wrong role is worse than none, so uncertain speakers get `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Agent,
    /// The human on the line, for any direction of the call.
    Caller,
    /// The person to whom the call was transferred.
    Transfer,
    /// Voicemail, menus and announcements.
    System,
    Unknown,
}

impl Role {
    /// Reads the role words of platforms and people. `None` for any other word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word.trim().to_ascii_lowercase().replace([' ', '-'], "_").as_str() {
            "agent" | "assistant" | "bot" | "ai" => Self::Agent,
            // The human on the line is the caller, for any direction of the call.
            "user" | "caller" | "customer" | "human" => Self::Caller,
            "transfer" | "transfer_target" => Self::Transfer,
            "system" => Self::System,
            "unknown" => Self::Unknown,
            _ => return None,
        })
    }

    /// The label in the text forms. `Unknown` has none, because a label would be a guess.
    #[must_use]
    pub const fn label(self) -> Option<&'static str> {
        match self {
            Self::Agent => Some("Agent"),
            Self::Caller => Some("Caller"),
            Self::Transfer => Some("Transfer"),
            Self::System => Some("System"),
            Self::Unknown => None,
        }
    }
}

/// Where the words came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextSource {
    #[serde(rename = "provider")]
    Provider,
    #[serde(rename = "stt")]
    Stt,
    #[serde(rename = "provider+alignment")]
    ProviderAligned,
}

/// The evidence for a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    Provider,
    Channel,
    Voice,
    Text,
    /// Corrected by a person.
    Correction,
}

/// The engine that transcribed, where we transcribed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    pub name: String,
    pub model: Option<String>,
    pub model_sha256: Option<String>,
    #[serde(default)]
    pub parameters: serde_json::Value,
}

/// One speaker of the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speaker {
    pub id: u32,
    pub role: Role,
    /// 0 to 1; null where the role was given, not estimated.
    pub confidence: Option<f64>,
    pub evidence: Option<Evidence>,
    /// The channel that contains only this speaker: 0 left, 1 right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<u8>,
}

impl Speaker {
    /// A speaker without a role.
    #[must_use]
    pub const fn nameless(id: u32) -> Self {
        Self { id, role: Role::Unknown, confidence: None, evidence: None, channel: None }
    }
}

/// Word-to-speaker assignment of an utterance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    pub role: Role,
    pub evidence: Option<Evidence>,
    /// 0 to 1; null where the role was given, or where the speaker has none. Words during overlapping speech may belong
    /// to another speaker. Then the role is unknown, and this is the probability that the words belong to the speaker.
    pub confidence: Option<f64>,
}

impl Attribution {
    /// For words that may belong to another speaker.
    #[must_use]
    pub const fn doubtful(confidence: f64) -> Self {
        Self { role: Role::Unknown, evidence: None, confidence: Some(confidence) }
    }

    /// True when the words may belong to another speaker.
    #[must_use]
    pub const fn is_doubtful(&self) -> bool {
        matches!(self, Self { role: Role::Unknown, confidence: Some(_), .. })
    }
}

/// A segment of one speaker, milliseconds from the start of the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    pub speaker: u32,
    pub start_ms: u64,
    pub end_ms: u64,
}

impl Turn {
    #[must_use]
    pub const fn new(speaker: u32, Segment { start_ms, end_ms }: Segment) -> Self {
        Self { speaker, start_ms, end_ms }
    }

    #[must_use]
    pub const fn segment(&self) -> Segment {
        Segment::new(self.start_ms, self.end_ms)
    }
}

/// One word with its times in the recording, where known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    pub text: String,
    pub start_ms: Option<u64>,
    pub end_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<bool>,
}

/// The words of one speaker until another one speaks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Utterance {
    pub speaker: u32,
    pub start_ms: Option<u64>,
    pub end_ms: Option<u64>,
    pub text: String,
    pub confidence: Option<f64>,
    /// Whether the audio contains these words; null where it was not checked.
    pub heard: Option<bool>,
    #[serde(default)]
    pub words: Vec<Word>,
    /// Set once the speakers are known. Documents of earlier versions do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Attribution>,
}

/// One version of a call's transcript.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    pub schema: String,
    /// BCP 47 tag, where the source names one.
    pub language: Option<String>,
    pub source: TextSource,
    pub engine: Option<EngineInfo>,
    pub speakers: Vec<Speaker>,
    pub turns: Vec<Turn>,
    pub utterances: Vec<Utterance>,
    /// The platform redacted the text. It is never transcribed again from the audio.
    #[serde(default)]
    pub redacted: bool,
    /// Why words or times are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Transcript {
    /// The role of a speaker, `Unknown` for an id that is not listed.
    #[must_use]
    pub fn role(&self, speaker: u32) -> Role {
        self.speakers.iter().find(|s| s.id == speaker).map_or(Role::Unknown, |s| s.role)
    }
}
