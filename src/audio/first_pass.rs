//! First pass: decode, repair, mix, resample and measure. The result is 48 kHz mono samples for the second pass, and
//! the measurements that the gain needs.

use super::block::{Block, BlockSink, OUTPUT_RATE_HZ, STEP, StepLevels, measure_steps, peak};
use super::decode;
use super::error::AudioError;
use super::layout::Layout;
use super::level::Profile;
use super::loudness::{Levels, Meter};
use super::mix::{Mixer, Raised};
use super::offset::{OffsetMeter, Remover};
use super::resample::Resampler;
use super::spill::Spill;
use super::timeline::{Survival, Timeline};
use super::true_peak::PeakMeter;
use super::wav::WavDraft;
use super::{CancelFlag, NormalizeRequest};

/// Samples and measurements of the first pass.
pub(super) struct FirstPassOutput {
    pub survival: Survival,
    /// The WAV in progress, where one was requested. It holds the samples.
    pub wav: Option<WavDraft>,
    pub samples: Spill,
    /// Measured on the mono mix. They determine the gain.
    pub levels: Levels,
    pub true_peak: f32,
    pub profile: Profile,
    pub recorded: Recorded,
    pub mixer: Mixer,
    /// A DC offset was removed from the samples.
    pub offset_removed: bool,
    offsets: OffsetMeter,
}

/// Loudness and peaks of the recording in its own channels. A recording of one channel is measured on the mono path
/// alone, which carries the same sound.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub sample_peak: f32,
    stereo: Option<Stereo>,
    levels: Levels,
    true_peak: f32,
    had_one_channel: bool,
}

#[derive(Debug)]
struct Stereo {
    rate_hz: u32,
    layout: Layout,
    meter: Meter,
    peaks: Vec<PeakMeter>,
}

impl Recorded {
    fn push(&mut self, block: &Block) {
        let channels = block.planes.len();
        if channels < 2 {
            self.close();
            self.had_one_channel = true;
        }
        // At 48 kHz the mix of one channel is that channel.
        if channels >= 2 || block.rate_hz != OUTPUT_RATE_HZ {
            self.sample_peak = block.planes.iter().map(|plane| peak(plane)).fold(self.sample_peak, f32::max);
        }
        if channels < 2 {
            return;
        }
        let form = |stereo: &Stereo| (stereo.rate_hz, stereo.layout, stereo.peaks.len());
        if self.stereo.as_ref().is_some_and(|stereo| form(stereo) != (block.rate_hz, block.layout, channels)) {
            self.close();
        }
        let stereo = self.stereo.get_or_insert_with(|| Stereo {
            rate_hz: block.rate_hz,
            layout: block.layout,
            meter: Meter::weighted(block.rate_hz, block.layout.weights(channels)),
            peaks: vec![PeakMeter::default(); channels],
        });
        stereo.meter.push(&block.planes);
        for (meter, plane) in stereo.peaks.iter_mut().zip(&block.planes) {
            meter.push(plane);
        }
    }

    /// Ends the part with the current format. The next part gets new meters, and its levels are appended.
    fn close(&mut self) {
        if let Some(mut stereo) = self.stereo.take() {
            self.levels.append(stereo.meter.finish());
            for meter in &mut stereo.peaks {
                meter.finish();
                self.true_peak = self.true_peak.max(meter.true_peak());
            }
        }
    }

    /// Levels of the recording. `mono` are the levels of the mix. They apply where any part had one channel.
    #[must_use]
    pub(super) fn levels<'a>(&'a self, mono: &'a Levels) -> &'a Levels {
        if self.had_one_channel { mono } else { &self.levels }
    }

    #[must_use]
    pub(super) fn true_peak(&self, mono: f32) -> f32 {
        if self.had_one_channel { self.true_peak.max(mono).max(self.sample_peak) } else { self.true_peak }
    }
}

/// Mono path: resamples to 48 kHz, measures, stores.
struct Mono<'a, 'b> {
    resampler: Option<Resampler>,
    out: Vec<f32>,
    steps: Vec<StepLevels>,
    meter: Meter,
    peaks: PeakMeter,
    profile: Profile,
    samples: Spill,
    sinks: &'a mut [&'b mut dyn BlockSink],
}

impl Mono<'_, '_> {
    fn push(&mut self, rate_hz: u32, samples: &[f32]) -> Result<(), AudioError> {
        if samples.is_empty() {
            return Ok(());
        }
        if self.resampler.as_ref().is_some_and(|resampler| resampler.rate_hz() != rate_hz) {
            self.end_rate()?;
        }
        let mut resampler = match self.resampler.take() {
            Some(resampler) => resampler,
            None => Resampler::new(rate_hz)?,
        };
        resampler.push(samples, &mut self.out)?;
        self.resampler = Some(resampler);
        self.drain(self.out.len() / STEP * STEP)
    }

    fn end_rate(&mut self) -> Result<(), AudioError> {
        if let Some(resampler) = self.resampler.take() {
            resampler.finish(&mut self.out)?;
        }
        self.drain(self.out.len() / STEP * STEP)
    }

    /// Passes the next `count` samples (complete steps) to all meters and the store. The rest begins the next step.
    fn drain(&mut self, count: usize) -> Result<(), AudioError> {
        if count > 0 {
            self.steps.clear();
            measure_steps(&self.out[..count], &mut self.steps);
            self.hear(count)?;
            self.out.drain(..count);
        }
        Ok(())
    }

    fn hear(&mut self, count: usize) -> Result<(), AudioError> {
        let samples = &self.out[..count];
        self.meter.push(&[samples]);
        let highest = self.steps.iter().fold(0.0, |high: f32, step| if step.peak > high { step.peak } else { high });
        self.peaks.push_of_peak(samples, highest);
        self.profile.push(samples, &self.steps);
        for sink in self.sinks.iter_mut() {
            sink.mono(samples);
            sink.steps(&self.steps);
        }
        self.samples.push(samples)
    }

    /// Handles the last samples, less than a step. Silence completes the step for the levels alone.
    fn finish(&mut self) -> Result<(), AudioError> {
        self.end_rate()?;
        let count = self.out.len();
        if count > 0 {
            let mut whole = [0.0; STEP];
            whole[..count].copy_from_slice(&self.out);
            self.steps.clear();
            measure_steps(&whole, &mut self.steps);
            self.hear(count)?;
        }
        self.profile.finish();
        self.peaks.finish();
        self.samples.finish()
    }
}

/// Runs the pass. A DC offset that the gain would raise is removed. Two legs of unequal loudness are levelled before
/// the mix. Both are known only at the end, so such a recording is decoded again. Sinks get the whole recording once,
/// without the offset.
pub(super) fn listen(
    request: &NormalizeRequest<'_>,
    sinks: &mut [&mut dyn BlockSink],
    cancel: &CancelFlag,
) -> Result<FirstPassOutput, AudioError> {
    let mut heard = listen_with(request, sinks, cancel, Mixer::default(), None)?;
    let remover = heard.remover(request.settings.target_lufs);
    if let Some(remover) = &remover {
        drop(heard);
        for sink in sinks.iter_mut() {
            sink.restart();
        }
        heard = listen_with(request, sinks, cancel, Mixer::default(), Some(remover.clone()))?;
    }
    match heard.mixer.unequal() {
        Some(raised) => {
            drop(heard);
            listen_with(request, &mut [], cancel, Mixer::levelling(raised), remover)
        }
        None => Ok(heard),
    }
}

impl FirstPassOutput {
    /// Removes the DC offset where it is audible or visible at the final level. `None` for other recordings.
    fn remover(&self, target_lufs: f64) -> Option<Remover> {
        let gain = 10f64.powf(self.levels.gain_to(target_lufs).unwrap_or(0.0) / 20.0);
        let raised = self.mixer.unequal();
        self.offsets.remover(|channel| match (channel, raised) {
            (0, Some(Raised::Left(factor))) | (1, Some(Raised::Right(factor))) => gain * f64::from(factor),
            _ => gain,
        })
    }
}

fn listen_with(
    request: &NormalizeRequest<'_>,
    sinks: &mut [&mut dyn BlockSink],
    cancel: &CancelFlag,
    mut mixer: Mixer,
    mut remover: Option<Remover>,
) -> Result<FirstPassOutput, AudioError> {
    let limit = request.settings.max_duration.0.as_secs_f64();
    let mut timeline = Timeline::new(decode::open(request.input, request.container)?, limit);
    let wav = request.wav.map(WavDraft::create).transpose()?;
    let samples = match &wav {
        Some(wav) => wav.spill()?,
        None => Spill::new(request.settings.memory_cap_bytes, request.spool),
    };
    let mut recorded = Recorded::default();
    let mut offsets = OffsetMeter::default();
    let mut mixed = Vec::new();
    let mut mono = Mono {
        resampler: None,
        out: Vec::new(),
        steps: Vec::new(),
        profile: Profile::default(),
        meter: Meter::new(OUTPUT_RATE_HZ, 1),
        peaks: PeakMeter::default(),
        samples,
        sinks,
    };
    let mut block = Block::default();
    let mut rate_hz = 0;
    while timeline.next(&mut block)? {
        cancel.pass()?;
        match &mut remover {
            Some(remover) => remover.apply(&mut block),
            None => offsets.push(&block),
        }
        recorded.push(&block);
        let pause = timeline.take_pause();
        for sink in mono.sinks.iter_mut() {
            if let Some(pause) = &pause {
                sink.pause(pause.clone());
            }
            sink.recorded(&block);
        }
        if rate_hz != 0 && rate_hz != block.rate_hz {
            // The mixer still holds samples of the old rate.
            mixer.flush(&mut mixed);
            mono.push(rate_hz, &mixed)?;
            mixed.clear();
        }
        rate_hz = block.rate_hz;
        let alone = mixer.push(&block, &mut mixed);
        mono.push(rate_hz, &mixed)?;
        mixed.clear();
        if let Some(only) = alone {
            mono.push(rate_hz, only)?;
        }
    }
    mixer.flush(&mut mixed);
    if rate_hz != 0 {
        mono.push(rate_hz, &mixed)?;
    }
    mono.finish()?;
    recorded.close();
    if recorded.had_one_channel {
        recorded.sample_peak = recorded.sample_peak.max(mono.peaks.sample_peak());
    }
    Ok(FirstPassOutput {
        survival: timeline.survival(),
        wav,
        samples: mono.samples,
        levels: mono.meter.finish(),
        true_peak: mono.peaks.true_peak(),
        profile: mono.profile,
        recorded,
        mixer,
        offset_removed: remover.is_some(),
        offsets,
    })
}
