//! Signal figures of the waveform, measured on the first pass, before any gain.

use std::ops::Range;

use super::dropouts::{Dropouts, GRAINS_PER_SECOND};
use super::spectrum::MeanSpectrum;
use crate::audio::{Block, BlockSink, OUTPUT_RATE_HZ, STEP, StepLevels};
use crate::domain::quality::{Flag, Signal};

/// Full scale starts here. A run of three such samples is clipped. A shorter run is only loud.
const FULL_SCALE: f32 = 0.999;
const CLIPPED_RUN: u64 = 3;
/// Share of clipped samples above which a recording is clipped.
const CLIPPED_SHARE: f64 = 1e-4;
/// Steps in a level frame of 20 ms.
const FRAME_STEPS: usize = OUTPUT_RATE_HZ as usize / 50 / STEP;
/// Levels from -120 dBFS up, in steps of half a decibel.
const LEVEL_STEPS_PER_DB: f64 = 2.0;
const LOWEST_DBFS: f64 = -120.0;
/// A frame below this is digital silence. It does not count as the noise floor.
const SILENT_DBFS: f64 = -100.0;
/// Percentiles of the frame levels for noise and for speech.
const NOISE_SHARE: f64 = 0.10;
const SPEECH_SHARE: f64 = 0.95;
/// Steps in a grain of the dropout search.
const GRAIN_STEPS: usize = OUTPUT_RATE_HZ as usize / GRAINS_PER_SECOND / STEP;
/// The telephone band ends at 3.4 to 3.8 kHz. Noise fills it up to 4 kHz, the edge of an 8 kHz rate. A codec and the
/// transform widen that edge by about 300 Hz. Wider bands end above this limit.
const NARROWBAND_HZ: u32 = 4_400;
const NARROWBAND_RATE_HZ: u32 = 8_000;
/// Mean square of an unused channel (-70 dBFS), and of a used channel (-50 dBFS).
const DEAD: f64 = 1e-7;
const ALIVE: f64 = 1e-5;

/// Figures and flags of the signal.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MeasuredSignal {
    pub signal: Signal,
    pub flags: Vec<Flag>,
}

#[derive(Debug, Clone, Default)]
struct Channel {
    samples: u64,
    clipped: u64,
    run: u64,
    sum: f64,
    squares: f64,
}

impl Channel {
    fn push(&mut self, samples: &[f32]) {
        self.samples += samples.len() as u64;
        let level = fearless_simd::Level::new();
        let (sum, squares, peak) = fearless_simd::dispatch!(level, _simd => figures(samples));
        self.sum += f64::from(sum);
        self.squares += f64::from(squares);
        if peak < FULL_SCALE {
            self.end_run();
            return;
        }
        for sample in samples {
            if sample.abs() >= FULL_SCALE {
                self.run += 1;
            } else {
                self.end_run();
            }
        }
    }

    const fn end_run(&mut self) {
        if self.run >= CLIPPED_RUN {
            self.clipped += self.run;
        }
        self.run = 0;
    }

    fn mean(&self) -> f64 {
        self.sum / self.samples.max(1) as f64
    }

    fn mean_square(&self) -> f64 {
        self.squares / self.samples.max(1) as f64
    }
}

/// Sum, sum of squares and largest magnitude. Compiled for each instruction set, because it is inlined.
#[allow(clippy::inline_always)]
#[inline(always)]
fn figures(samples: &[f32]) -> (f32, f32, f32) {
    const LANES: usize = 16;
    let (groups, rest) = samples.as_chunks::<LANES>();
    let (mut sums, mut squares, mut peaks) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
    for group in groups {
        // Three loops, because the compiler does not vectorise one combined loop.
        for (sum, sample) in sums.iter_mut().zip(group) {
            *sum += sample;
        }
        for (square, sample) in squares.iter_mut().zip(group) {
            *square += sample * sample;
        }
        for (peak, sample) in peaks.iter_mut().zip(group) {
            let magnitude = sample.abs();
            *peak = if magnitude > *peak { magnitude } else { *peak };
        }
    }
    let square = |sample: &f32| sample * sample;
    (
        sums.iter().chain(rest).sum(),
        squares.iter().copied().chain(rest.iter().map(square)).sum(),
        rest.iter().map(|sample| sample.abs()).chain(peaks).fold(0.0, f32::max),
    )
}

/// Measures the signal on the first pass.
#[derive(Debug)]
pub struct SignalMeter {
    /// Share of clipped samples and mean before a DC offset was removed. `None` when none was removed.
    as_recorded: Option<(f64, f64)>,
    rate_hz: u32,
    channels: Vec<Channel>,
    /// Number of frames per level.
    levels: Vec<u64>,
    /// Energy of the current frame and peak of the current grain, each with its number of steps.
    frame: (f32, usize),
    grain: (f32, usize),
    dropouts: Dropouts,
    spectrum: MeanSpectrum,
}

impl Default for SignalMeter {
    fn default() -> Self {
        Self::new()
    }
}

impl SignalMeter {
    #[must_use]
    pub fn new() -> Self {
        Self {
            as_recorded: None,
            rate_hz: 0,
            channels: Vec::new(),
            levels: vec![0; (-LOWEST_DBFS * LEVEL_STEPS_PER_DB) as usize + 20],
            frame: (0.0, 0),
            grain: (0.0, 0),
            dropouts: Dropouts::default(),
            spectrum: MeanSpectrum::default(),
        }
    }

    /// The figures of the whole recording.
    #[must_use]
    pub fn finish(mut self) -> MeasuredSignal {
        let (clipping_ratio, dc_offset) = match self.as_recorded {
            Some(as_recorded) => as_recorded,
            None => self.clipping_and_mean(),
        };
        let noise_floor_dbfs = self.level_at(NOISE_SHARE);
        let bandwidth_hz = self.spectrum.bandwidth_hz();
        let narrow = bandwidth_hz.is_some_and(|hz| hz <= NARROWBAND_HZ || self.rate_hz <= NARROWBAND_RATE_HZ);
        let flags = [
            (clipping_ratio > CLIPPED_SHARE, Flag::Clipped),
            (narrow, Flag::Narrowband),
            (self.one_way(), Flag::OneWayAudio),
        ];
        MeasuredSignal {
            signal: Signal {
                clipping_ratio,
                dc_offset,
                noise_floor_dbfs,
                snr_db: noise_floor_dbfs.zip(self.level_at(SPEECH_SHARE)).map(|(noise, speech)| speech - noise),
                bandwidth_hz,
                dropouts: self.dropouts.count,
                dropout_ms: self.dropouts.total,
            },
            flags: flags.into_iter().filter_map(|(set, flag)| set.then_some(flag)).collect(),
        }
    }

    /// Share of clipped samples, and the channel mean furthest from zero.
    fn clipping_and_mean(&mut self) -> (f64, f64) {
        for channel in &mut self.channels {
            channel.end_run();
        }
        let samples: u64 = self.channels.iter().map(|channel| channel.samples).sum();
        let clipped: u64 = self.channels.iter().map(|channel| channel.clipped).sum();
        let means = self.channels.iter().map(Channel::mean);
        let mean = means.max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(0.0);
        (clipped as f64 / samples.max(1) as f64, mean)
    }

    /// One of two channels is unused.
    fn one_way(&self) -> bool {
        let [a, b] = self.channels.as_slice() else { return false };
        let (low, high) = (a.mean_square().min(b.mean_square()), a.mean_square().max(b.mean_square()));
        low < DEAD && high > ALIVE
    }

    /// Percentile of the frame levels, dBFS, without digital silence.
    fn level_at(&self, share: f64) -> Option<f64> {
        let total: u64 = self.levels.iter().sum();
        let wanted = (share * total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let step = self.levels.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(LOWEST_DBFS + (step as f64 + 0.5) / LEVEL_STEPS_PER_DB)
    }

    fn end_frame(&mut self) {
        let level = 10.0 * f64::from(self.frame.0 / (FRAME_STEPS * STEP) as f32).log10();
        self.frame = (0.0, 0);
        if level > SILENT_DBFS {
            let step = ((level - LOWEST_DBFS) * LEVEL_STEPS_PER_DB) as usize;
            let last = self.levels.len() - 1;
            self.levels[step.min(last)] += 1;
        }
    }
}

impl BlockSink for SignalMeter {
    fn recorded(&mut self, block: &Block) {
        if self.rate_hz == 0 {
            self.rate_hz = block.rate_hz;
        }
        if self.channels.len() < block.planes.len() {
            self.channels.resize_with(block.planes.len(), Channel::default);
        }
        for (channel, plane) in self.channels.iter_mut().zip(&block.planes) {
            channel.push(plane);
        }
    }

    fn mono(&mut self, samples: &[f32]) {
        self.spectrum.push(samples);
    }

    fn pause(&mut self, seconds: Range<f64>) {
        self.dropouts.pause(&seconds);
    }

    fn restart(&mut self) {
        let as_recorded = self.clipping_and_mean();
        *self = Self { as_recorded: Some(as_recorded), ..Self::new() };
    }

    fn steps(&mut self, steps: &[StepLevels]) {
        for step in steps {
            self.grain = (self.grain.0.max(step.peak), self.grain.1 + 1);
            self.frame = (self.frame.0 + step.energy, self.frame.1 + 1);
            if self.grain.1 == GRAIN_STEPS {
                self.dropouts.grain(self.grain.0);
                self.grain = (0.0, 0);
            }
            if self.frame.1 == FRAME_STEPS {
                self.end_frame();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(planes: &[Vec<f32>]) -> MeasuredSignal {
        measure_with(SignalMeter::new(), planes)
    }

    fn measure_with(mut meter: SignalMeter, planes: &[Vec<f32>]) -> MeasuredSignal {
        for start in (0..planes[0].len()).step_by(960) {
            let end = (start + 960).min(planes[0].len());
            let block = Block {
                rate_hz: 48_000,
                planes: planes.iter().map(|plane| plane[start..end].to_vec()).collect(),
                ..Block::default()
            };
            meter.recorded(&block);
            meter.mono(&block.planes[0]);
            let step = |samples: &[f32]| StepLevels {
                peak: samples.iter().fold(0.0, |peak, sample| sample.abs().max(peak)),
                energy: samples.iter().map(|sample| sample * sample).sum(),
            };
            meter.steps(&block.planes[0].chunks(STEP).map(step).collect::<Vec<_>>());
        }
        meter.finish()
    }

    fn tone(amplitude: f32, samples: usize) -> Vec<f32> {
        (0..samples).map(|n| amplitude * (std::f32::consts::TAU * 500.0 * n as f32 / 48_000.0).sin()).collect()
    }

    #[test]
    fn clipped_samples_are_counted_in_runs_only() {
        let clipped: Vec<f32> = tone(1.5, 48_000).iter().map(|s| s.clamp(-1.0, 1.0)).collect();
        let measured = measure(&[clipped]);
        // A sine of 1.5 is beyond 1 for 53.5 % of the time.
        assert!((measured.signal.clipping_ratio - 0.535).abs() < 0.03, "{}", measured.signal.clipping_ratio);
        assert!(measured.flags.contains(&Flag::Clipped));
        let mut spikes = tone(0.5, 48_000);
        for n in (0..48_000).step_by(100) {
            spikes[n] = 1.0;
        }
        assert!(measure(&[spikes]).signal.clipping_ratio < 1e-9);
    }

    #[test]
    fn an_offset_is_the_mean() {
        let shifted: Vec<f32> = tone(0.2, 48_000).iter().map(|s| s + 0.05).collect();
        assert!((measure(&[shifted]).signal.dc_offset - 0.05).abs() < 1e-4);
    }

    #[test]
    fn noise_floor_and_ratio_of_a_tone_over_a_hum() {
        let mut wave = tone(0.5, 96_000);
        wave.extend(tone(0.005, 48_000));
        wave.extend(vec![0.0; 48_000]);
        let signal = measure(&[wave]).signal;
        // A sine's level is 3 dB below its amplitude. Digital silence does not count as the noise floor.
        assert!((signal.noise_floor_dbfs.unwrap() + 49.0).abs() < 0.6, "{signal:?}");
        assert!((signal.snr_db.unwrap() - 40.0).abs() < 1.0, "{signal:?}");
        assert_eq!(measure(&[vec![0.0; 48_000]]).signal.noise_floor_dbfs, None);
    }

    #[test]
    fn a_hole_in_sound_is_a_dropout_and_a_pause_is_not() {
        let mut wave = tone(0.5, 96_000);
        wave[20_000..21_920].fill(0.0);
        wave[50_000..50_480].fill(0.0);
        let signal = measure(&[wave.clone()]).signal;
        assert_eq!(signal.dropouts, 1, "40 ms counts, 10 ms does not");
        assert!(signal.dropout_ms.abs_diff(40) <= 2, "{}", signal.dropout_ms);
        // The recording marks a pause here.
        let mut meter = SignalMeter::new();
        meter.pause(20_000.0 / 48_000.0..21_920.0 / 48_000.0);
        assert_eq!(measure_with(meter, &[wave]).signal.dropouts, 0);
        // A fade before and after makes it a pause.
        let mut paused = tone(0.5, 96_000);
        for (n, sample) in paused.iter_mut().enumerate() {
            let distance = (n as f32 - 48_000.0).abs() / 48_000.0;
            *sample *= if distance < 0.05 { 0.0 } else { ((distance - 0.05) * 3.0).min(1.0).powi(2) };
        }
        assert_eq!(measure(&[paused]).signal.dropouts, 0);
    }

    #[test]
    fn a_silent_leg_is_one_way_audio() {
        let flags = measure(&[tone(0.3, 48_000), vec![0.0; 48_000]]).flags;
        assert!(flags.contains(&Flag::OneWayAudio));
        assert!(!measure(&[tone(0.3, 48_000), tone(0.1, 48_000)]).flags.contains(&Flag::OneWayAudio));
    }

    #[test]
    fn the_telephone_band_is_narrow() {
        assert!(measure(&[tone(0.3, 96_000)]).flags.contains(&Flag::Narrowband));
    }
}
