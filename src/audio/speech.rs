//! Finds speech regions on each leg, and keeps the samples of each leg at 16 kHz for speech engines and diarization.
//!
//! A [`SpeechSink`] gets the recording on the first pass, so nothing is decoded twice. Two channels are two legs unless
//! they carry the same sound. Everything else is one leg.
//!
//! The detector is our own: two small networks. The crate `earshot` calls a chord of music speech. Silero costs ten
//! times as much.

mod context;
pub(crate) mod dense;
mod detect;
pub mod features;
mod history;
mod legs;
mod lines;
mod network;
mod pcm;

use std::path::Path;

use super::block::{Block, BlockSink};
use super::error::AudioError;
use super::loudness::Levels;
use super::loudness::Meter;
use super::resample::Resampler;
use crate::config;
use crate::domain::Segment;

pub use self::pcm::Pcm16k;

use self::detect::Detector;

/// Sample rate of all speech processing.
pub const SPEECH_RATE_HZ: u32 = 16_000;
/// Divisor of the memory cap: the samples of both legs together take at most this part.
const SHARE_OF_MEMORY: u64 = 4;
/// Window in which two channels are compared, samples at 16 kHz: 200 ms.
const WINDOW: usize = 3_200;
/// A window with a lower mean square is not compared (about -60 dBFS).
const ACTIVE: f64 = 1e-6;
/// Two channels carry the same sound when they differ by less than this share of their energy (-30 dB). The same holds
/// for their sum, when one channel is inverted.
const SAME: f64 = 1e-3;
/// Share of the active windows that makes two channels one leg.
const MOST: f64 = 0.95;

/// The speech of a recording: one leg, or two (left, right).
#[derive(Debug)]
pub struct Speech {
    pub legs: Vec<LegSpeech>,
}

/// The speech of one leg.
#[derive(Debug)]
pub struct LegSpeech {
    /// Sorted, at least 200 ms apart. Speech that leaked from the other leg is left out.
    pub regions: Vec<Segment>,
    /// K-weighted energy over time, as recorded.
    pub levels: Levels,
    pub samples: Pcm16k,
}

/// Collects the speech of a recording on the first pass.
pub struct SpeechSink {
    legs: Vec<LegDetector>,
    sameness: Sameness,
    planes: [Vec<f32>; 2],
    cap_bytes: u64,
    spool: std::path::PathBuf,
    failure: Option<AudioError>,
}

struct LegDetector {
    resampler: Option<Resampler>,
    out: Vec<f32>,
    detector: Detector,
    meter: Meter,
    samples: Pcm16k,
}

impl SpeechSink {
    #[must_use]
    pub fn new(settings: &config::Audio, spool: &Path) -> Self {
        Self::of(settings.memory_cap_bytes / SHARE_OF_MEMORY / 2, spool.to_owned())
    }

    fn of(cap_bytes: u64, spool: std::path::PathBuf) -> Self {
        Self {
            legs: Vec::new(),
            sameness: Sameness::default(),
            planes: [Vec::new(), Vec::new()],
            cap_bytes,
            spool,
            failure: None,
        }
    }

    /// The speech of the whole recording.
    ///
    /// # Errors
    /// The first error of the pass, from the spool or a resampler.
    pub fn finish(mut self) -> Result<Speech, AudioError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        for leg in &mut self.legs {
            leg.end_rate()?;
        }
        self.drain()?;
        if self.sameness.one_leg() {
            self.legs.truncate(1);
        }
        let mut tracks = Vec::new();
        let mut kept = Vec::new();
        for mut leg in self.legs {
            leg.samples.close()?;
            tracks.push(leg.detector.finish());
            kept.push((leg.samples, leg.meter.finish()));
        }
        if let [left, right] = tracks.as_mut_slice() {
            legs::separate(left, right);
        }
        let leg =
            |(track, (samples, levels)): (&detect::Track, _)| LegSpeech { regions: track.regions(), levels, samples };
        Ok(Speech { legs: tracks.iter().zip(kept).map(leg).collect() })
    }

    fn push(&mut self, block: &Block) -> Result<(), AudioError> {
        let [left, right] = &mut self.planes;
        let wanted = match block.planes.as_slice() {
            [] => return Ok(()),
            // The number of legs stays as at the start. Mono audio after two channels goes to both legs, because its
            // leg is unknown.
            [first, second] => {
                left.clone_from(first);
                right.clone_from(second);
                2
            }
            _ => {
                left.clear();
                block.mix_onto(left);
                right.clone_from(left);
                1
            }
        };
        if self.legs.is_empty() {
            for _ in 0..wanted {
                self.legs.push(LegDetector::new(Pcm16k::new(self.cap_bytes, &self.spool)));
            }
        }
        if self.legs.len() == 1 && wanted == 2 {
            left.iter_mut().zip(right.iter()).for_each(|(l, r)| *l = 0.5 * (*l + r));
        }
        for (leg, plane) in self.legs.iter_mut().zip(&self.planes) {
            leg.push(block.rate_hz, plane)?;
        }
        self.drain()
    }

    /// Processes the output of the resamplers, which has the same length for both legs.
    fn drain(&mut self) -> Result<(), AudioError> {
        if let [left, right] = self.legs.as_slice() {
            self.sameness.push(&left.out, &right.out);
        }
        self.legs.iter_mut().try_for_each(LegDetector::drain)
    }
}

impl BlockSink for SpeechSink {
    fn recorded(&mut self, block: &Block) {
        if self.failure.is_none()
            && let Err(failure) = self.push(block)
        {
            self.failure = Some(failure);
        }
    }

    fn mono(&mut self, _samples: &[f32]) {}

    fn restart(&mut self) {
        let spool = std::mem::take(&mut self.spool);
        *self = Self::of(self.cap_bytes, spool);
    }
}

impl LegDetector {
    fn new(samples: Pcm16k) -> Self {
        Self {
            resampler: None,
            out: Vec::new(),
            detector: Detector::new(),
            meter: Meter::new(SPEECH_RATE_HZ, 1),
            samples,
        }
    }

    fn push(&mut self, rate_hz: u32, plane: &[f32]) -> Result<(), AudioError> {
        if self.resampler.as_ref().is_some_and(|resampler| resampler.rate_hz() != rate_hz) {
            self.end_rate()?;
        }
        let mut resampler = match self.resampler.take() {
            Some(resampler) => resampler,
            None => Resampler::between(rate_hz, SPEECH_RATE_HZ)?,
        };
        resampler.push(plane, &mut self.out)?;
        self.resampler = Some(resampler);
        Ok(())
    }

    fn end_rate(&mut self) -> Result<(), AudioError> {
        match self.resampler.take() {
            Some(resampler) => resampler.finish(&mut self.out),
            None => Ok(()),
        }
    }

    fn drain(&mut self) -> Result<(), AudioError> {
        self.detector.push(&self.out);
        self.meter.push(&[&self.out]);
        self.samples.push(&self.out)?;
        self.out.clear();
        Ok(())
    }
}

/// Whether two channels carry the same sound.
#[derive(Debug, Default)]
struct Sameness {
    count: usize,
    sum: f64,
    difference: f64,
    active: u64,
    same: u64,
}

impl Sameness {
    fn push(&mut self, left: &[f32], right: &[f32]) {
        for (l, r) in left.iter().zip(right) {
            self.sum += f64::from((l + r) * (l + r));
            self.difference += f64::from((l - r) * (l - r));
            self.count += 1;
            if self.count == WINDOW {
                self.end_window();
            }
        }
    }

    fn end_window(&mut self) {
        // The squares of sum and difference add up to twice the energy of both channels.
        let twice = self.sum + self.difference;
        if twice > 4.0 * ACTIVE * self.count as f64 {
            self.active += 1;
            self.same += u64::from(self.sum.min(self.difference) < 0.5 * SAME * twice);
        }
        (self.count, self.sum, self.difference) = (0, 0.0, 0.0);
    }

    fn one_leg(&self) -> bool {
        self.active > 0 && self.same as f64 >= MOST * self.active as f64
    }
}

#[cfg(test)]
mod tests;
