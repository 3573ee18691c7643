//! The transcript document (`aftercall.transcript/1`): who said what, or that nobody knows who did.

use serde::{Deserialize, Serialize};

/// Schema name written into every transcript document.
pub const TRANSCRIPT_SCHEMA: &str = "aftercall.transcript/1";

/// What part a speaker plays in the call. A wrong role is worse than none, so `Unknown` is an honest answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Agent,
    /// The human on the line, whatever the direction of the call.
    Caller,
    /// Whoever the call was passed to.
    Transfer,
    /// Voicemail, menus and announcements.
    System,
    Unknown,
}

impl Role {
    /// Reads what platforms and people call a role. `None` for any other word, which names nobody we know.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word.trim().to_ascii_lowercase().replace([' ', '-'], "_").as_str() {
            "agent" | "assistant" | "bot" | "ai" => Self::Agent,
            // The human on the line is the caller, whatever the direction of the call.
            "user" | "caller" | "customer" | "human" => Self::Caller,
            "transfer" | "transfer_target" => Self::Transfer,
            "system" => Self::System,
            "unknown" => Self::Unknown,
            _ => return None,
        })
    }

    /// What the written forms call this role; `Unknown` has no name, because naming it would be a guess.
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

/// What a role rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    Provider,
    Channel,
    Voice,
    Text,
    /// Somebody looked, and said so.
    Correction,
}

/// What made the words, when we did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    pub name: String,
    pub model: Option<String>,
    pub model_sha256: Option<String>,
    #[serde(default)]
    pub parameters: serde_json::Value,
}

/// One voice of the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speaker {
    pub id: u32,
    pub role: Role,
    /// 0 to 1; null where the role was given, not estimated.
    pub confidence: Option<f64>,
    pub evidence: Option<Evidence>,
    /// The leg of the recording that is this speaker's alone: 0 left, 1 right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<u8>,
}

impl Speaker {
    /// Somebody of whom nothing is known but that they speak.
    #[must_use]
    pub const fn nameless(id: u32) -> Self {
        Self { id, role: Role::Unknown, confidence: None, evidence: None, channel: None }
    }
}

/// Whose words an utterance is, as far as anybody can say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    pub role: Role,
    pub evidence: Option<Evidence>,
    /// 0 to 1; null where the role was given, or the speaker has none. Of words that may be somebody else's, said while both
    /// spoke, the role is unknown whatever the speaker's, and this is how likely they are the speaker's.
    pub confidence: Option<f64>,
}

impl Attribution {
    /// For words that may be somebody else's than the speaker's.
    #[must_use]
    pub const fn doubtful(confidence: f64) -> Self {
        Self { role: Role::Unknown, evidence: None, confidence: Some(confidence) }
    }

    /// Whether the words may be somebody else's than the speaker's.
    #[must_use]
    pub const fn is_doubtful(&self) -> bool {
        matches!(self, Self { role: Role::Unknown, confidence: Some(_), .. })
    }
}

/// A stretch of one speaker, milliseconds from the start of the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    pub speaker: u32,
    pub start_ms: u64,
    pub end_ms: u64,
}

/// One word with its place in the recording, where known.
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

/// What one speaker said until somebody else did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Utterance {
    pub speaker: u32,
    pub start_ms: Option<u64>,
    pub end_ms: Option<u64>,
    pub text: String,
    pub confidence: Option<f64>,
    /// Whether the audio holds these words; null where nobody looked.
    pub heard: Option<bool>,
    #[serde(default)]
    pub words: Vec<Word>,
    /// Filled in once the speakers are known; a document of an earlier version has none.
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
    /// The platform removed something sensitive from the text; it is never re-made from the audio.
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
