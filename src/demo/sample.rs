//! A call of the sample platform, independent of the dialects.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::{CallChannel, CallStatus, Direction, Network, ProviderTurn};

use super::audio::SampleAudio;
use super::recordings;

/// Time from the start of a sample call to its answer.
const RINGING: Duration = Duration::from_secs(5);

/// The contract that serves a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Api {
    /// KrosAI call logs: `calls`, `limit` and `offset`.
    KrosaiV1,
    /// KrosAI Cockpit API 1.3.0: `data`, `page` and `limit`.
    KrosaiCockpit,
    Zudu,
    Atoms,
}

impl Api {
    pub const ALL: [Self; 4] = [Self::KrosaiV1, Self::KrosaiCockpit, Self::Zudu, Self::Atoms];

    /// The path after the listener's address in the `base_url` of a source of this kind.
    #[must_use]
    pub const fn base_path(self) -> &'static str {
        match self {
            Self::KrosaiV1 => "/krosai/v1",
            Self::KrosaiCockpit => "/cockpit/v1",
            Self::Zudu => "/zudu",
            Self::Atoms => "/atoms/v1",
        }
    }

    /// The folder of its recordings on the recording host.
    pub(super) const fn folder(self) -> &'static str {
        match self {
            Self::KrosaiV1 => "krosai",
            Self::KrosaiCockpit => "cockpit",
            Self::Zudu => "zudu",
            Self::Atoms => "atoms",
        }
    }

    pub(super) fn of_folder(folder: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|api| api.folder() == folder)
    }
}

/// When the platform shows a call's recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleRecording {
    Ready,
    /// Hidden in the first answers about this call (details and link requests), this many times.
    AfterReads(u32),
    Never,
}

/// The words that the platform provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleText {
    None,
    /// One text without speakers.
    Unlabelled,
    /// One text with `[Agent]:` and `[Caller]:`.
    Labelled,
    /// Turns with roles, where the dialect has them; otherwise labelled text.
    Turns,
}

/// A call of the sample platform. Tests change fields of [`SampleCall::new`] or [`SampleCall::numbered`].
#[derive(Debug, Clone)]
pub struct SampleCall {
    pub api: Api,
    /// The id in the platform's paths (`id`, `call_id`, `callId`).
    pub id: String,
    pub organization: String,
    pub agent: String,
    pub direction: Direction,
    pub channel: CallChannel,
    pub status: CallStatus,
    /// A status word that replaces the documented one.
    pub status_word: Option<String>,
    /// The platform's word for the end reason.
    pub end_reason: String,
    pub caller_number: String,
    pub platform_number: String,
    pub ended_at: Timestamp,
    pub duration_ms: u64,
    pub audio: Option<SampleAudio>,
    /// A second recording with the caller left and the agent right (Atoms only).
    pub dual_audio: Option<SampleAudio>,
    pub recording: SampleRecording,
    /// A URL that replaces the link to our own recording host.
    pub recording_url: Option<String>,
    pub turns: Arc<[ProviderTurn]>,
    pub text: SampleText,
    pub opt_out: bool,
    pub network: Network,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// The call that this one retried (Atoms leaves retries out of its list).
    pub retry_of: Option<String>,
}

impl SampleCall {
    /// A completed inbound call without recording and words, as long as the shortest recording.
    #[must_use]
    pub fn new(api: Api, id: impl Into<String>, ended_at: Timestamp) -> Self {
        Self {
            api,
            id: id.into(),
            organization: match api {
                Api::KrosaiCockpit => "0b0f6c0e-0000-4000-8000-0000000000ff".to_owned(),
                _ => "org-sample".to_owned(),
            },
            agent: match api {
                Api::KrosaiCockpit => "0b0f6c0e-0000-4000-8000-0000000000ee".to_owned(),
                _ => "agent-sample".to_owned(),
            },
            direction: Direction::Inbound,
            channel: CallChannel::Phone,
            status: CallStatus::Completed,
            status_word: None,
            end_reason: match api {
                Api::KrosaiV1 | Api::KrosaiCockpit => "normal_clearing".to_owned(),
                Api::Zudu => "USER_HANGUP".to_owned(),
                Api::Atoms => "user_hangup".to_owned(),
            },
            caller_number: "+14155550123".to_owned(),
            platform_number: "+2348000000001".to_owned(),
            ended_at,
            duration_ms: recordings::TINY_MS,
            audio: None,
            dual_audio: None,
            recording: SampleRecording::Ready,
            recording_url: None,
            turns: Arc::from([]),
            text: SampleText::None,
            opt_out: false,
            network: Network::default(),
            metadata: serde_json::Map::new(),
            retry_of: None,
        }
    }

    /// One of thousands of calls: the shortest recording, one labelled utterance, and an id in the platform's form made
    /// from `n`.
    #[must_use]
    pub fn numbered(api: Api, n: u32, ended_at: Timestamp) -> Self {
        let mut call = Self::new(api, "", ended_at);
        call.id = match api {
            Api::KrosaiV1 => format!("call_{n:06}"),
            Api::KrosaiCockpit => format!("0b0f6c0e-0000-4000-9000-{n:012x}"),
            Api::Zudu => format!("call-{n:06}"),
            Api::Atoms => atoms_id(call.created_at(), n),
        };
        call.audio = Some(recordings::tiny());
        call.turns = recordings::tiny_turns();
        call.text = SampleText::Turns;
        call
    }

    /// When the call was set up.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.spoken_from() - RINGING
    }

    /// When the call was answered.
    #[must_use]
    pub fn answered_at(&self) -> Option<Timestamp> {
        (self.duration_ms > 0).then(|| self.spoken_from())
    }

    fn spoken_from(&self) -> Timestamp {
        self.ended_at - Duration::from_millis(self.duration_ms)
    }

    /// The calling and the called number.
    pub(super) fn numbers(&self) -> (&str, &str) {
        match self.direction {
            Direction::Inbound => (&self.caller_number, &self.platform_number),
            Direction::Outbound => (&self.platform_number, &self.caller_number),
        }
    }

    /// The names and bytes of this call's recordings on the recording host.
    pub(super) fn files(&self) -> impl Iterator<Item = (String, SampleAudio)> + '_ {
        let mono = self.audio.iter().map(|audio| (self.file(audio), audio.clone()));
        let dual = self.dual_audio.iter().map(|audio| (self.dual_file(audio), audio.clone()));
        mono.chain(dual)
    }

    pub(super) fn file(&self, audio: &SampleAudio) -> String {
        format!("{}.{}", self.id, audio.extension())
    }

    pub(super) fn dual_file(&self, audio: &SampleAudio) -> String {
        format!("{}-dual.{}", self.id, audio.extension())
    }
}

/// `CALL-`, the creation time in 13 digits of milliseconds, six hexadecimal digits.
#[must_use]
pub fn atoms_id(created_at: Timestamp, n: u32) -> String {
    format!("CALL-{:013}-{:06x}", created_at.as_millisecond(), n & 0x00ff_ffff)
}
