//! Turns a recording into measured, normalised audio.
//!
//! `probe` → `decode` (`elementary` with `frame_decoder`, `free_format`, `contained` and `ogg` with `engine` and `opus`,
//! `riff` with `pcm` and `gsm`, `aiff`, `au`) → `timeline` (repair) → `offset` → `mix` → `resample` → meters and
//! `spill`. Then `level` (one gain) → `limiter` → `wav`, `flac`, `waveform`.
//!
//! Every stage works block by block. A long call is never in memory as a whole.

mod aac;
mod aiff;
mod au;
mod bits;
pub mod block;
mod chunks;
mod contained;
mod decode;
mod decoder;
mod elementary;
mod engine;
pub mod error;
mod first_pass;
mod flac;
mod foreign;
mod frame_decoder;
mod frames;
mod free_format;
mod gsm;
mod k_weighting;
mod layout;
mod level;
mod limiter;
pub mod loudness;
mod mix;
mod mp4;
mod offset;
mod ogg;
mod opus;
mod output_levels;
mod pcm;
pub mod probe;
mod resample;
mod riff;
mod second_pass;
pub mod speech;
mod spill;
mod splice;
mod timeline;
mod true_peak;
mod walk;
mod wav;
pub mod waveform;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use block::{Block, BlockSink, OUTPUT_RATE_HZ, STEP, StepLevels};
pub use error::AudioError;
pub use flac::SpeechFlac;
pub use wav::WrittenFile;

use self::level::GainPlan;
use self::loudness::Levels;
use self::waveform::Waveform;
use crate::config;
use crate::domain::quality::{Flag, Loudness, Normalization, SourceFormat};
use crate::domain::{Container, RecordingState};

/// A hook that runs between two blocks of audio.
type Between = dyn Fn(&CancelFlag) + Send + Sync;

/// Cancels running audio work. Clones share one flag.
#[derive(Clone, Default)]
pub struct CancelFlag {
    asked: Arc<AtomicBool>,
    between: Option<Arc<Between>>,
}

impl fmt::Debug for CancelFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelFlag").field(&self.is_cancelled()).finish()
    }
}

impl CancelFlag {
    /// The same flag with a hook that the audio work runs after each block. The hook may wait, for example until a CPU
    /// slot is free.
    #[must_use]
    pub fn between_blocks(&self, what: impl Fn(&Self) + Send + Sync + 'static) -> Self {
        Self { asked: self.asked.clone(), between: Some(Arc::new(what)) }
    }

    pub fn cancel(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Runs the hook at the end of a block. Fails with `Cancelled` when the flag is set.
    fn pass(&self) -> Result<(), AudioError> {
        if let Some(between) = &self.between {
            between(self);
        }
        if self.is_cancelled() { Err(AudioError::Cancelled) } else { Ok(()) }
    }
}

/// Input, settings and output paths of one normalisation.
#[derive(Debug, Clone, Copy)]
pub struct NormalizeRequest<'a> {
    pub input: &'a Path,
    pub container: Container,
    pub settings: &'a config::Audio,
    /// Directory for data that exceeds the memory cap.
    pub spool: &'a Path,
    /// Final names. A file appears under its name only when it is complete.
    pub wav: Option<&'a Path>,
    pub flac: Option<&'a Path>,
}

/// Measurements and files of a normalised recording.
#[derive(Debug, Clone)]
pub struct Normalized {
    pub duration_ms: u64,
    pub source: SourceFormat,
    /// Of the recording before any gain.
    pub loudness: Loudness,
    pub normalization: Normalization,
    pub flags: Vec<Flag>,
    /// Of the normalised audio.
    pub waveform: Waveform,
    /// K-weighted energy of the mono mix before gain, for the loudness of each speaker.
    pub levels: Levels,
    pub wav: Option<WrittenFile>,
    pub flac: Option<WrittenFile>,
    /// Irregularities of the file that cost no audio.
    pub warnings: Vec<String>,
}

/// Decodes, repairs, measures and normalises a recording. The call blocks its thread until the work is done. Meters in
/// `sinks` get the recording before any gain.
///
/// # Errors
/// See [`AudioError`]. A cancelled call writes no file.
pub fn normalize(
    request: &NormalizeRequest<'_>,
    sinks: &mut [&mut dyn BlockSink],
    cancel: &CancelFlag,
) -> Result<Normalized, AudioError> {
    let size_bytes = request.input.metadata().map_err(AudioError::io("open"))?.len();
    let mut heard = first_pass::listen(request, sinks, cancel)?;
    let survival = heard.survival.clone();
    if survival.state == RecordingState::Damaged {
        let reason = survival.facts.warnings.first().cloned().unwrap_or_else(|| "too little of it decodes".to_owned());
        return Err(AudioError::Damaged { expected_ms: survival.expected_ms, lost_ms: survival.lost_ms, reason });
    }
    let (target, ceiling) = (request.settings.target_lufs, request.settings.ceiling_dbtp);
    let plan = GainPlan::make(&heard.levels, heard.true_peak, &heard.profile, target, ceiling);
    let written = second_pass::write(request, &mut heard, plan, cancel)?;
    let flags = [
        (plan.is_some_and(|plan| plan.peak_limited), Flag::PeakLimited),
        (survival.state == RecordingState::Degraded, Flag::Degraded),
        (heard.mixer.dual_mono(), Flag::DualMono),
        (heard.mixer.anti_phase(), Flag::AntiPhase),
        (heard.offset_removed, Flag::DcOffset),
    ];
    let flags = flags.into_iter().filter_map(|(set, flag)| set.then_some(flag));
    let flags = flags.chain(survival.facts.flags).collect();
    let samples = heard.samples.len();
    Ok(Normalized {
        duration_ms: samples * 1000 / u64::from(OUTPUT_RATE_HZ),
        source: SourceFormat {
            codec: survival.facts.codec,
            sample_rate_hz: survival.facts.rate_hz,
            channels: survival.facts.channels,
            bit_rate: (size_bytes * 8 * 1000).checked_div(survival.expected_ms),
            expected_ms: survival.expected_ms,
            lost_ms: survival.lost_ms,
            state: survival.state,
        },
        loudness: loudness(&heard, samples),
        normalization: written.normalization,
        flags,
        waveform: written.waveform,
        levels: heard.levels,
        wav: written.wav,
        flac: written.flac,
        warnings: survival.facts.warnings,
    })
}

fn loudness(heard: &first_pass::FirstPassOutput, samples: u64) -> Loudness {
    let levels = heard.recorded.levels(&heard.levels);
    let integrated_lufs = levels.integrated(0.0);
    Loudness {
        integrated_lufs,
        range_lu: levels.range(),
        true_peak_dbtp: decibels(heard.recorded.true_peak(heard.true_peak)),
        sample_peak_dbfs: decibels(heard.recorded.sample_peak),
        reason: integrated_lufs.is_none().then(|| no_loudness(samples).to_owned()),
    }
}

/// Why a recording of this many samples has no loudness (BS.1770-4: blocks of 400 ms, gated at -70 LUFS).
const fn no_loudness(samples: u64) -> &'static str {
    if samples < OUTPUT_RATE_HZ as u64 * 4 / 10 { "shorter_than_400_ms" } else { "silence" }
}

/// Amplitude in decibels of full scale. `None` for digital silence.
fn decibels(amplitude: f32) -> Option<f64> {
    (amplitude > 0.0).then(|| 20.0 * f64::from(amplitude).log10())
}
