//! The quality document (`aftercall.quality/1`). A figure that could not be measured is null. The reason is in the
//! object that contains the figure, or in `reasons`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::recording::RecordingState;
use super::words;

/// Schema name in every quality document.
pub const QUALITY_SCHEMA: &str = "aftercall.quality/1";

/// All quality figures of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    pub schema: String,
    pub duration_ms: u64,
    pub source: SourceFormat,
    pub loudness: Loudness,
    pub normalization: Normalization,
    pub signal: Signal,
    /// Loudness per role, where legs or timed turns allow it.
    pub legs: Option<Legs>,
    pub conversation: Option<Conversation>,
    pub network: Option<NetworkFigures>,
    /// The platform's own median thinking time, milliseconds.
    pub platform_response_ms: Option<f64>,
    pub mos: Mos,
    pub flags: Vec<Flag>,
    /// Why a member above is null, by the member's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, String>,
}

/// Format of the recording as received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceFormat {
    /// `mp3`, `aac`, `pcm_s16le`, `flac`, `vorbis`, …
    pub codec: String,
    pub sample_rate_hz: u32,
    pub channels: u16,
    /// Bits per second, averaged over the file.
    pub bit_rate: Option<u64>,
    /// Expected length of the recording by its headers and bytes, milliseconds.
    pub expected_ms: u64,
    /// The part of the expected length that did not decode, milliseconds.
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

/// The applied gain and the resulting level.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    pub target_lufs: f64,
    pub gain_db: f64,
    /// Largest attenuation by the limiter, dB.
    pub limited_db: f64,
    pub output_integrated_lufs: Option<f64>,
    pub output_true_peak_dbtp: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Figures of the waveform.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Share of samples in runs of three or more at full scale, 0 to 1.
    pub clipping_ratio: f64,
    /// Mean of the samples as recorded, in the channel with the largest mean. Full scale is 1.
    pub dc_offset: f64,
    /// 10th percentile of the frame levels.
    pub noise_floor_dbfs: Option<f64>,
    /// An estimate: the level of loud frames above the noise floor.
    pub snr_db: Option<f64>,
    /// Highest frequency with significant content.
    pub bandwidth_hz: Option<u32>,
    /// Number of runs of digital silence of 20 ms or more inside sound.
    pub dropouts: u32,
    pub dropout_ms: u64,
}

/// Loudness of each role.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Legs {
    pub agent: Option<Leg>,
    pub caller: Option<Leg>,
}

/// Loudness of one role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leg {
    pub integrated_lufs: Option<f64>,
}

/// Talk times of the speakers and response times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    pub speech_ms: u64,
    /// Share of the call without speech, 0 to 1.
    pub silence_ratio: f64,
    pub longest_silence_ms: u64,
    /// Figures by role are `None` where no role is known, or where too much of the speech has no role. The reason
    /// stands beside them.
    pub agent_talk_ms: Option<u64>,
    pub caller_talk_ms: Option<u64>,
    pub overlap_ms: Option<u64>,
    pub interruptions: Option<u32>,
    /// From the end of the caller's speech to the start of the agent's, milliseconds. Negative where the agent
    /// interrupted.
    pub response_ms: Option<Percentiles>,
    pub method: ConversationMethod,
}

/// The method that separated the speakers.
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

/// The platform's network figures, unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkFigures {
    pub latency_ms: Option<f64>,
    pub jitter_ms: Option<f64>,
    pub packet_loss_percent: Option<f64>,
    /// The number as the platform wrote it, also where its unit is unknown.
    pub packet_loss_raw: Option<f64>,
    pub codec: Option<String>,
    /// The leg of the figures, where the platform names it.
    pub leg: Option<String>,
    /// Always `provider`, because a recording contains no network figures.
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A mean opinion score and its basis (`mos_cqe`: conversational quality, estimated; ITU-T P.800.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mos {
    pub mos_cqe: Option<f64>,
    pub r_factor: Option<f64>,
    /// `ITU-T G.107`, or `provider` when the platform gave its own score.
    pub method: String,
    /// Inputs that were assumed, not measured.
    pub assumed: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

words! {
    /// Important properties of the recording.
    #[derive(Hash, PartialOrd, Ord)]
    pub enum Flag {
        /// Peaks limited the gain, so the loudness target was not reached.
        PeakLimited = "peak_limited",
        /// The durations of record and recording differ by more than 2 s and 2 %.
        DurationMismatch = "duration_mismatch",
        Clipped = "clipped",
        LowLevel = "low_level",
        CallerLow = "caller_low",
        Narrowband = "narrowband",
        OneWayAudio = "one_way_audio",
        Degraded = "degraded",
        Damaged = "damaged",
        /// Fewer or more bytes than the platform announced.
        SizeMismatch = "size_mismatch",
        /// Two channels with the same sound.
        DualMono = "dual_mono",
        /// Two channels with opposite signs. One was inverted before mixing.
        AntiPhase = "anti_phase",
        /// The platform gave no end time. Another time replaces it.
        EndEstimated = "end_estimated",
        Redacted = "redacted",
        /// The platform's text does not match the recording.
        TextMisfit = "text_misfit",
        /// The times of the text do not match the recording.
        TimesMisfit = "times_misfit",
        /// The waveform had a DC offset. It was removed before the gain.
        DcOffset = "dc_offset",
        /// High-efficiency AAC. Only its core was decoded, without the upper half of the band.
        HeAacCore = "he_aac_core",
    }
}
