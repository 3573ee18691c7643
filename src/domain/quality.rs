//! The quality document (`aftercall.quality/1`). A figure that could not be measured is null, and the object
//! that holds it, or `reasons`, says why; nothing here is a guess.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::recording::RecordingState;

/// Schema name written into every quality document.
pub const QUALITY_SCHEMA: &str = "aftercall.quality/1";

/// All that is known of how a call sounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    pub schema: String,
    pub duration_ms: u64,
    pub source: SourceFormat,
    pub loudness: Loudness,
    pub normalization: Normalization,
    pub signal: Signal,
    /// Loudness per role, where legs or timed turns allow.
    pub legs: Option<Legs>,
    pub conversation: Option<Conversation>,
    pub network: Option<NetworkFigures>,
    /// The platform's own median thinking time, milliseconds.
    pub platform_response_ms: Option<f64>,
    pub mos: Mos,
    pub flags: Vec<Flag>,
    /// Why a whole member above is null, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, String>,
}

/// The recording as it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceFormat {
    /// `mp3`, `aac`, `pcm_s16le`, `flac`, `vorbis`, …
    pub codec: String,
    pub sample_rate_hz: u32,
    pub channels: u16,
    /// Bits per second, averaged over the file.
    pub bit_rate: Option<u64>,
    /// How long the recording should be, by its own headers and bytes.
    pub expected_ms: u64,
    /// How much of that did not decode.
    pub lost_ms: u64,
    pub state: RecordingState,
}

/// Programme loudness of the recording as recorded (ITU-R BS.1770-4, EBU R 128, EBU Tech 3342).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Loudness {
    pub integrated_lufs: Option<f64>,
    pub range_lu: Option<f64>,
    pub true_peak_dbtp: Option<f64>,
    pub sample_peak_dbfs: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What was done to the level, and what came out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    pub target_lufs: f64,
    pub gain_db: f64,
    /// The most the limiter took off a peak.
    pub limited_db: f64,
    pub output_integrated_lufs: Option<f64>,
    pub output_true_peak_dbtp: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Figures of the waveform itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Share of samples in runs of three or more at full scale, 0 to 1.
    pub clipping_ratio: f64,
    /// Mean of the samples as recorded, of the channel where it is furthest from zero; full scale 1.
    pub dc_offset: f64,
    /// 10th percentile of the frame levels.
    pub noise_floor_dbfs: Option<f64>,
    /// An estimate: loud frames over the noise floor.
    pub snr_db: Option<f64>,
    /// Highest frequency with content worth the name.
    pub bandwidth_hz: Option<u32>,
    /// Stretches of digital silence of 20 ms or more inside sound.
    pub dropouts: u32,
    pub dropout_ms: u64,
}

/// Loudness of each role.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Legs {
    pub agent: Option<Leg>,
    pub caller: Option<Leg>,
}

/// One role's loudness.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leg {
    pub integrated_lufs: Option<f64>,
}

/// Who talked how much, and how long the caller waited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    pub speech_ms: u64,
    /// Share of the call in which nobody speaks, 0 to 1.
    pub silence_ratio: f64,
    pub longest_silence_ms: u64,
    /// What goes by roles is `None`, with the reason beside it, where no role is known or too much of the speech has none.
    pub agent_talk_ms: Option<u64>,
    pub caller_talk_ms: Option<u64>,
    pub overlap_ms: Option<u64>,
    pub interruptions: Option<u32>,
    /// From the caller's last sound to the agent's first; negative where the agent cut in.
    pub response_ms: Option<Percentiles>,
    pub method: ConversationMethod,
}

/// What told the speakers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConversationMethod {
    Channels,
    Voices,
    ProviderTurns,
}

/// A distribution of milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

/// The platform's network figures, passed through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkFigures {
    pub latency_ms: Option<f64>,
    pub jitter_ms: Option<f64>,
    pub packet_loss_percent: Option<f64>,
    /// As written by the platform, unit unknown or not.
    pub packet_loss_raw: Option<f64>,
    pub codec: Option<String>,
    /// The leg the figures belong to, where the platform says so.
    pub leg: Option<String>,
    /// Always `provider`: a recording holds no network figures.
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A mean opinion score and what it rests on (`mos_cqe`: conversational quality, estimated; ITU-T P.800.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mos {
    pub mos_cqe: Option<f64>,
    pub r_factor: Option<f64>,
    /// `ITU-T G.107`, or `provider` when the platform gave its own score.
    pub method: String,
    /// Inputs that were not measured but taken.
    pub assumed: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Things a reader should know at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// Peaks kept the gain from reaching the loudness target.
    PeakLimited,
    /// The record's duration and the recording's differ by more than 2 s and 2 %.
    DurationMismatch,
    Clipped,
    LowLevel,
    CallerLow,
    Narrowband,
    OneWayAudio,
    Degraded,
    Damaged,
    /// Fewer or more bytes than the platform announced.
    SizeMismatch,
    /// Two channels with the same sound.
    DualMono,
    /// Two channels with opposite signs: one was inverted before mixing.
    AntiPhase,
    /// When the call ended was not given; another time stands in for it.
    EndEstimated,
    Redacted,
    /// The platform's text is not what the recording says.
    TextMisfit,
    /// The times that came with the text are not those of the recording.
    TimesMisfit,
    /// The middle of the wave was not at zero: that was taken out before the gain.
    DcOffset,
    /// High-efficiency AAC: its core was decoded, without the upper half of the band.
    HeAacCore,
}

impl Flag {
    /// Every one of them.
    pub const ALL: &'static [Self] = &[
        Self::PeakLimited,
        Self::DurationMismatch,
        Self::Clipped,
        Self::LowLevel,
        Self::CallerLow,
        Self::Narrowband,
        Self::OneWayAudio,
        Self::Degraded,
        Self::Damaged,
        Self::SizeMismatch,
        Self::DualMono,
        Self::AntiPhase,
        Self::EndEstimated,
        Self::Redacted,
        Self::TextMisfit,
    ];

    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PeakLimited => "peak_limited",
            Self::DurationMismatch => "duration_mismatch",
            Self::Clipped => "clipped",
            Self::LowLevel => "low_level",
            Self::CallerLow => "caller_low",
            Self::Narrowband => "narrowband",
            Self::OneWayAudio => "one_way_audio",
            Self::Degraded => "degraded",
            Self::Damaged => "damaged",
            Self::SizeMismatch => "size_mismatch",
            Self::DualMono => "dual_mono",
            Self::AntiPhase => "anti_phase",
            Self::EndEstimated => "end_estimated",
            Self::Redacted => "redacted",
            Self::TextMisfit => "text_misfit",
            Self::TimesMisfit => "times_misfit",
            Self::DcOffset => "dc_offset",
            Self::HeAacCore => "he_aac_core",
        }
    }
}
