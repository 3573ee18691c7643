//! First pass: decode, repair, mix, resample, and measure on the way; the 48 kHz mono result is kept for the second.

use super::block::{Block, BlockSink, OUTPUT_RATE_HZ, peak};
use super::decode;
use super::error::AudioError;
use super::loudness::{Levels, Meter};
use super::mix::Mixer;
use super::resample::Resampler;
use super::spill::Spill;
use super::timeline::{Survival, Timeline};
use super::true_peak::PeakMeter;
use super::{CancelFlag, Request};

/// What the first pass leaves behind.
pub struct Heard {
    pub survival: Survival,
    pub samples: Spill,
    /// Of the mono mix: what the gain is worked out from.
    pub levels: Levels,
    pub true_peak: f32,
    pub recorded: Recorded,
    pub mixer: Mixer,
}

/// Loudness and peaks of the recording in its own channels. A recording of one channel is measured on the mono path
/// alone, which carries the same sound.
#[derive(Debug, Default)]
pub struct Recorded {
    pub sample_peak: f32,
    stereo: Option<Stereo>,
    levels: Levels,
    true_peak: f32,
    had_one_channel: bool,
}

#[derive(Debug)]
struct Stereo {
    rate_hz: u32,
    meter: Meter,
    peaks: Vec<PeakMeter>,
}

impl Recorded {
    fn push(&mut self, block: &Block) {
        self.sample_peak = block.planes.iter().map(|plane| peak(plane)).fold(self.sample_peak, f32::max);
        let channels = block.planes.len();
        if channels < 2 {
            self.close();
            self.had_one_channel = true;
            return;
        }
        if self.stereo.as_ref().is_some_and(|stereo| stereo.rate_hz != block.rate_hz || stereo.peaks.len() != channels)
        {
            self.close();
        }
        let stereo = self.stereo.get_or_insert_with(|| Stereo {
            rate_hz: block.rate_hz,
            meter: Meter::new(block.rate_hz, channels),
            peaks: vec![PeakMeter::default(); channels],
        });
        stereo.meter.push(&block.planes);
        for (meter, plane) in stereo.peaks.iter_mut().zip(&block.planes) {
            meter.push(plane);
        }
    }

    /// Ends a stretch of one form; the next one is measured afresh and joined to it.
    fn close(&mut self) {
        if let Some(mut stereo) = self.stereo.take() {
            self.levels.append(stereo.meter.finish());
            for meter in &mut stereo.peaks {
                meter.finish();
                self.true_peak = self.true_peak.max(meter.true_peak());
            }
        }
    }

    /// Levels and true peak of the recording; `mono` are those of the mix, right for all that had one channel.
    #[must_use]
    pub fn levels<'a>(&'a self, mono: &'a Levels) -> &'a Levels {
        if self.had_one_channel { mono } else { &self.levels }
    }

    #[must_use]
    pub fn true_peak(&self, mono: f32) -> f32 {
        if self.had_one_channel { self.true_peak.max(mono).max(self.sample_peak) } else { self.true_peak }
    }
}

/// Mono path: to 48 kHz, metered, kept.
struct Mono<'a, 'b> {
    resampler: Option<Resampler>,
    out: Vec<f32>,
    meter: Meter,
    peaks: PeakMeter,
    samples: Spill,
    sinks: &'a mut [&'b mut dyn BlockSink],
}

impl Mono<'_, '_> {
    fn push(&mut self, rate_hz: u32, samples: &[f32]) -> Result<(), AudioError> {
        if self.resampler.as_ref().is_some_and(|resampler| resampler.rate_hz() != rate_hz) {
            self.end_rate()?;
        }
        let mut resampler = match self.resampler.take() {
            Some(resampler) => resampler,
            None => Resampler::new(rate_hz)?,
        };
        resampler.push(samples, &mut self.out)?;
        self.resampler = Some(resampler);
        self.drain()
    }

    fn end_rate(&mut self) -> Result<(), AudioError> {
        if let Some(resampler) = self.resampler.take() {
            resampler.finish(&mut self.out)?;
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<(), AudioError> {
        if !self.out.is_empty() {
            self.meter.push(&[&self.out]);
            self.peaks.push(&self.out);
            for sink in self.sinks.iter_mut() {
                sink.mono(&self.out);
            }
            self.samples.push(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }
}

/// Runs the pass. Two legs of unequal loudness are levelled before they are mixed: how much they differ is known only
/// at the end, so such a recording is decoded twice; sinks hear it once.
pub fn listen(
    request: &Request<'_>,
    sinks: &mut [&mut dyn BlockSink],
    cancel: &CancelFlag,
) -> Result<Heard, AudioError> {
    let heard = listen_with(request, sinks, cancel, Mixer::default())?;
    match heard.mixer.unequal() {
        Some(raised) => {
            drop(heard);
            listen_with(request, &mut [], cancel, Mixer::levelling(raised))
        }
        None => Ok(heard),
    }
}

fn listen_with(
    request: &Request<'_>,
    sinks: &mut [&mut dyn BlockSink],
    cancel: &CancelFlag,
    mut mixer: Mixer,
) -> Result<Heard, AudioError> {
    let limit = request.settings.max_duration.0.as_secs_f64();
    let mut timeline = Timeline::new(decode::open(request.input, request.container)?, limit);
    let mut recorded = Recorded::default();
    let mut mixed = Vec::new();
    let mut mono = Mono {
        resampler: None,
        out: Vec::new(),
        meter: Meter::new(OUTPUT_RATE_HZ, 1),
        peaks: PeakMeter::default(),
        samples: Spill::new(request.settings.memory_cap_bytes, request.spool),
        sinks,
    };
    let mut block = Block::default();
    let mut rate_hz = 0;
    while timeline.next(&mut block)? {
        if cancel.is_cancelled() {
            return Err(AudioError::Cancelled);
        }
        recorded.push(&block);
        for sink in mono.sinks.iter_mut() {
            sink.recorded(&block);
        }
        if rate_hz != 0 && rate_hz != block.rate_hz {
            // What the mixer still holds is of the old rate.
            mixer.flush(&mut mixed);
            mono.push(rate_hz, &mixed)?;
            mixed.clear();
        }
        rate_hz = block.rate_hz;
        mixer.push(&block, &mut mixed);
        mono.push(rate_hz, &mixed)?;
        mixed.clear();
    }
    mixer.flush(&mut mixed);
    if rate_hz != 0 {
        mono.push(rate_hz, &mixed)?;
    }
    mono.end_rate()?;
    recorded.close();
    mono.peaks.finish();
    Ok(Heard {
        survival: timeline.survival(),
        samples: mono.samples,
        levels: mono.meter.finish(),
        true_peak: mono.peaks.true_peak(),
        recorded,
        mixer,
    })
}
