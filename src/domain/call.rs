//! A call as its source reports it, in our units and terms.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{CallId, PhoneNumber};
use super::recording::RecordingUrl;
use super::transcript::Role;

/// Direction of the call, seen from the voice platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Inbound,
    Outbound,
}

/// The medium of the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallChannel {
    Phone,
    Web,
    /// Text only. Such a call never has a recording, so it never gets a job.
    Chat,
}

/// The status of a call at its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallStatus {
    Queued,
    Ringing,
    InProgress,
    Completed,
    Failed,
    Busy,
    NoAnswer,
    Cancelled,
    /// An unknown word. `SourceCall::status_raw` keeps it. Such calls are counted, never processed.
    Unknown,
}

impl CallStatus {
    /// Rank of the status. Of two rows of one call, the row with the higher rank is the later one.
    #[must_use]
    pub const fn reached(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Queued => 1,
            Self::Ringing => 2,
            Self::InProgress => 3,
            Self::Failed | Self::Busy | Self::NoAnswer | Self::Cancelled => 4,
            Self::Completed => 5,
        }
    }
}

/// Why a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    Normal,
    UserHangup,
    AgentHangup,
    NoAnswer,
    Busy,
    Rejected,
    Failed,
    Timeout,
    Error,
    Transferred,
    Voicemail,
    Other,
}

/// The platform's charge. Amounts in different units are never added.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub amount: f64,
    pub unit: CostUnit,
}

/// The unit of a [`Cost`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostUnit {
    Cents,
    Credits,
    /// The platform does not name the unit.
    Unknown,
}

/// Network figures from the platform. A recording does not contain them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Connection latency, used as one-way delay.
    pub latency_ms: Option<f64>,
    pub jitter_ms: Option<f64>,
    /// The number as the platform wrote it, in any unit.
    pub packet_loss_raw: Option<f64>,
    /// Packet loss in percent, where the unit is documented or configured.
    pub packet_loss_percent: Option<f64>,
    /// The platform's own mean opinion score.
    pub mos: Option<f64>,
    pub codec: Option<String>,
    /// The agent's median thinking time. It is not a transmission delay.
    pub platform_response_ms: Option<f64>,
}

/// One word of a platform's transcript. Times are milliseconds of the recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProviderWord {
    pub text: String,
    pub start_ms: Option<u64>,
    pub end_ms: Option<u64>,
}

/// One turn of a platform's transcript with the platform's role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProviderTurn {
    pub role: Role,
    pub text: String,
    pub start_ms: Option<u64>,
    pub end_ms: Option<u64>,
    pub words: Vec<ProviderWord>,
    /// The times come from a wall clock, not from the audio.
    pub approximate: bool,
}

/// A call as its source reports it. List rows and details share this type; [`SourceCall::merged_over`] joins them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceCall {
    pub id: CallId,
    pub org_id: Option<String>,
    pub agent_id: Option<String>,
    pub phone_number_id: Option<String>,
    pub direction: Option<Direction>,
    pub channel: CallChannel,
    pub from_number: Option<PhoneNumber>,
    pub to_number: Option<PhoneNumber>,
    pub status: CallStatus,
    /// The platform's word. It is kept so that a later version can map it again.
    pub status_raw: Option<String>,
    pub end_reason: Option<EndReason>,
    pub created_at: Option<Timestamp>,
    /// `created_at` was derived from an id or a start time. A value from the platform replaces it.
    pub created_at_derived: bool,
    pub answered_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// `ended_at` was derived from a start and a duration.
    pub ended_at_estimated: bool,
    pub duration_ms: Option<u64>,
    pub cost: Option<Cost>,
    pub recording_url: Option<RecordingUrl>,
    /// A second recording with one leg per channel.
    pub dual_url: Option<RecordingUrl>,
    pub turns: Vec<ProviderTurn>,
    pub language: Option<String>,
    pub opt_out: bool,
    pub network: Network,
    pub metadata: Option<serde_json::Value>,
    pub analysis: Option<serde_json::Value>,
    /// The platform's version tag of its record, where it sends one (for `If-Match`).
    pub etag: Option<String>,
    /// The whole JSON as received, without signed query strings. An opted-out call keeps only id, times, status and
    /// organisation.
    pub raw: serde_json::Value,
}

impl SourceCall {
    /// A call with only its id.
    #[must_use]
    pub fn named(id: CallId) -> Self {
        Self {
            id,
            org_id: None,
            agent_id: None,
            phone_number_id: None,
            direction: None,
            channel: CallChannel::Phone,
            from_number: None,
            to_number: None,
            status: CallStatus::Unknown,
            status_raw: None,
            end_reason: None,
            created_at: None,
            created_at_derived: false,
            answered_at: None,
            ended_at: None,
            ended_at_estimated: false,
            duration_ms: None,
            cost: None,
            recording_url: None,
            dual_url: None,
            turns: Vec::new(),
            language: None,
            opt_out: false,
            network: Network::default(),
            metadata: None,
            analysis: None,
            etag: None,
            raw: serde_json::Value::Null,
        }
    }

    /// The human's number. It is the calling number of an inbound call and the called number of an outbound call.
    #[must_use]
    pub fn caller_number(&self) -> Option<&PhoneNumber> {
        match self.direction {
            Some(Direction::Inbound) => self.from_number.as_ref(),
            Some(Direction::Outbound) => self.to_number.as_ref(),
            None => None,
        }
    }

    /// True when the call needs after-call work: completed, spoken, and not opted out of storage.
    #[must_use]
    pub fn eligible(&self) -> bool {
        self.status == CallStatus::Completed && self.channel != CallChannel::Chat && !self.opt_out
    }

    /// The same call without the signatures in its recording URLs.
    #[must_use]
    pub fn without_permissions(self) -> Self {
        Self {
            recording_url: self.recording_url.map(RecordingUrl::without_permission),
            dual_url: self.dual_url.map(RecordingUrl::without_permission),
            ..self
        }
    }

    /// Merges this detail over a list row. The detail's values win. A value missing in the detail keeps the row's
    /// value.
    #[must_use]
    pub fn merged_over(self, row: Self) -> Self {
        let keep_row_created = self.created_at.is_none() || (self.created_at_derived && row.created_at.is_some());
        let keep_row_ended = self.ended_at.is_none() || (self.ended_at_estimated && row.ended_at.is_some());
        Self {
            id: self.id,
            org_id: self.org_id.or(row.org_id),
            agent_id: self.agent_id.or(row.agent_id),
            phone_number_id: self.phone_number_id.or(row.phone_number_id),
            direction: self.direction.or(row.direction),
            channel: self.channel,
            from_number: self.from_number.or(row.from_number),
            to_number: self.to_number.or(row.to_number),
            status: if self.status_raw.is_some() { self.status } else { row.status },
            status_raw: self.status_raw.or(row.status_raw),
            end_reason: self.end_reason.or(row.end_reason),
            created_at: if keep_row_created { row.created_at } else { self.created_at },
            created_at_derived: if keep_row_created { row.created_at_derived } else { self.created_at_derived },
            answered_at: self.answered_at.or(row.answered_at),
            ended_at: if keep_row_ended { row.ended_at } else { self.ended_at },
            ended_at_estimated: if keep_row_ended { row.ended_at_estimated } else { self.ended_at_estimated },
            duration_ms: self.duration_ms.or(row.duration_ms),
            cost: self.cost.or(row.cost),
            recording_url: fetchable(self.recording_url, row.recording_url),
            dual_url: fetchable(self.dual_url, row.dual_url),
            turns: if self.turns.is_empty() { row.turns } else { self.turns },
            language: self.language.or(row.language),
            opt_out: self.opt_out || row.opt_out,
            network: self.network.merged_over(row.network),
            metadata: self.metadata.or(row.metadata),
            analysis: self.analysis.or(row.analysis),
            etag: self.etag.or(row.etag),
            raw: self.raw,
        }
        .with_believable_times()
    }
}

/// The first URL, unless only the second can be fetched.
fn fetchable(first: Option<RecordingUrl>, second: Option<RecordingUrl>) -> Option<RecordingUrl> {
    let leads = |url: &RecordingUrl| url.as_url().is_ok();
    if first.as_ref().is_some_and(leads) || !second.as_ref().is_some_and(leads) { first.or(second) } else { second }
}

impl Network {
    /// Merges these figures over `under`, which fills the missing ones.
    #[must_use]
    pub fn merged_over(self, under: Self) -> Self {
        Self {
            latency_ms: self.latency_ms.or(under.latency_ms),
            jitter_ms: self.jitter_ms.or(under.jitter_ms),
            packet_loss_raw: self.packet_loss_raw.or(under.packet_loss_raw),
            packet_loss_percent: self.packet_loss_percent.or(under.packet_loss_percent),
            mos: self.mos.or(under.mos),
            codec: self.codec.or(under.codec),
            platform_response_ms: self.platform_response_ms.or(under.platform_response_ms),
        }
    }
}
