//! Features of a frame of 10 ms that separate speech from other sounds. All features lie in the telephone band, so that
//! narrowband and wideband recordings give similar values.

use std::sync::Arc;

use realfft::RealFftPlanner;
use realfft::RealToComplex;
use realfft::num_complex::Complex;

use super::history::{History, correlation, to_unit};

/// Samples from one frame to the next: 10 ms.
pub const HOP: usize = 160;
/// Samples of one frame: 25 ms.
pub const WINDOW: usize = 400;
const FFT: usize = 512;
pub const BANDS: usize = 20;
/// Edges of the bands, Hz: the range that every telephone passes.
const LOW_HZ: f32 = 120.0;
const HIGH_HZ: f32 = 3_800.0;
const BIN_HZ: f32 = super::SPEECH_RATE_HZ as f32 / FFT as f32;
const FIRST_BIN: usize = 4;
const LAST_BIN: usize = 121;
/// Added to every power: about -85 dBFS in a band. Anything lower is silence.
const FLOOR: f32 = 1e-4;
/// Power of a full-scale sine under the window, dB: the square of half the window's sum, plus the leakage.
const FULL_SCALE_DB: f32 = 41.8;
/// Bins of the two DTMF groups (ITU-T Q.23: 697 to 941 Hz, 1209 to 1633 Hz).
const KEY_ROWS: std::ops::RangeInclusive<usize> = 21..=31;
const KEY_COLUMNS: std::ops::RangeInclusive<usize> = 37..=53;
/// Frames between two compared spectra: 60 ms, so that the two share no sample.
const APART: usize = 6;
/// Frames over which the pitch step is measured: 40 ms.
const STEP: usize = 4;
/// Pitch periods of a voice, samples: 400 Hz to 80 Hz.
const PERIODS: std::ops::RangeInclusive<usize> = 40..=200;

/// Features of one frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frame {
    /// Natural logarithm of the power in each band.
    pub bands: [f32; BANDS],
    /// Share of the two strongest partials in the total power: 1 for DTMF and for ringing.
    pub peaks: f32,
    /// The two partials are a DTMF pair, and there is almost no other sound.
    pub key: bool,
    /// Correlation of the log spectrum with that of 60 ms before, -1 to 1: near 1 for held sounds.
    pub held: f32,
    /// Height of the first peak of the autocorrelation: near 1 for vowels and for music.
    pub periodic: f32,
    /// Pitch movement in 40 ms: 0 for a held note, 1 for a fifth of the pitch or more.
    pub pitch_step: f32,
    /// Level in the telephone band, dB. A full-scale sine has 0.
    pub level_db: f32,
}

/// Computes the frames of a stream of samples.
pub struct Analyser {
    forward: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    /// Autocorrelation of the window, which divides that of a frame.
    window_lags: Vec<f32>,
    triangles: Vec<(usize, Vec<f32>)>,
    pending: Vec<f32>,
    /// Log spectra of the last frames, without their mean and scaled to unit length.
    shapes: History<Vec<f32>>,
    /// Logarithms of the pitch periods of the last frames, finer than a sample.
    pitches: History<f32>,
    time: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    power: Vec<f32>,
}

impl Default for Analyser {
    fn default() -> Self {
        let forward = RealFftPlanner::new().plan_fft_forward(FFT);
        let window: Vec<f32> =
            (0..WINDOW).map(|n| 0.5 - 0.5 * (std::f32::consts::TAU * (n as f32 + 0.5) / WINDOW as f32).cos()).collect();
        let lag = |lag: usize| window.iter().zip(&window[lag..]).map(|(a, b)| a * b).sum::<f32>();
        let energy = lag(0);
        let window_lags = (0..=*PERIODS.end()).map(|n| lag(n) / energy).collect();
        Self {
            window_lags,
            triangles: triangles(),
            pending: Vec::new(),
            shapes: History::new(APART),
            pitches: History::new(STEP),
            time: forward.make_input_vec(),
            spectrum: forward.make_output_vec(),
            power: vec![0.0; FFT / 2 + 1],
            forward,
            window,
        }
    }
}

impl Analyser {
    /// Appends the frames that these samples complete.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<Frame>) {
        self.pending.extend_from_slice(samples);
        let mut at = 0;
        while self.pending.len() - at >= WINDOW {
            out.push(self.frame(at));
            at += HOP;
        }
        self.pending.drain(..at);
    }

    fn frame(&mut self, at: usize) -> Frame {
        self.time.fill(0.0);
        for ((time, sample), weight) in self.time.iter_mut().zip(&self.pending[at..at + WINDOW]).zip(&self.window) {
            *time = sample * weight;
        }
        self.transform();
        self.power.iter_mut().zip(&self.spectrum).for_each(|(power, bin)| *power = bin.norm_sqr());
        let band = |(first, weights): &(usize, Vec<f32>)| {
            let power: f32 = weights.iter().zip(&self.power[*first..]).map(|(weight, power)| weight * power).sum();
            (power + FLOOR).ln()
        };
        let mut bands = [0.0; BANDS];
        bands.iter_mut().zip(&self.triangles).for_each(|(out, triangle)| *out = band(triangle));
        let total: f32 = self.power[FIRST_BIN..=LAST_BIN].iter().sum();
        let level_db = 10.0 * (total + FLOOR).log10() - FULL_SCALE_DB;
        let ((peaks, key), held) = (self.peaks(), self.held());
        let (periodic, finer) = self.periodic();
        let pitch_step = self.pitch_step(finer);
        Frame { bands, peaks, key, held, periodic, pitch_step, level_db }
    }

    /// Cannot fail, because the buffers come from the planner.
    fn transform(&mut self) {
        let done = self.forward.process(&mut self.time, &mut self.spectrum);
        debug_assert!(done.is_ok());
    }

    fn peaks(&self) -> (f32, bool) {
        let power = &self.power[FIRST_BIN..=LAST_BIN];
        let total: f32 = power.iter().sum();
        let strongest = |but: Option<usize>| {
            let free = |n: &usize| but.is_none_or(|but| n.abs_diff(but) > 4);
            (0..power.len()).filter(free).max_by(|a, b| power[*a].total_cmp(&power[*b]))
        };
        let around = |n: usize| power[n.saturating_sub(2)..(n + 3).min(power.len())].iter().sum::<f32>();
        let (Some(first), Some(second)) = (strongest(None), strongest(strongest(None))) else { return (0.0, false) };
        let share = (around(first) + around(second)) / (total + FLOOR);
        let (low, high) = (FIRST_BIN + first.min(second), FIRST_BIN + first.max(second));
        let key = KEY_ROWS.contains(&low) && KEY_COLUMNS.contains(&high);
        // A vowel may have two partials there too, but one of them is faint.
        let alike = power[first] < 16.0 * power[second];
        (share, key && alike && share > 0.9)
    }

    fn held(&mut self) -> f32 {
        let mut shape: Vec<f32> =
            self.power[FIRST_BIN..=LAST_BIN].iter().map(|power| (power + 0.1 * FLOOR).ln()).collect();
        to_unit(&mut shape);
        self.shapes.push(shape).map_or(0.0, |(then, now)| correlation(then, now))
    }

    /// The power spectrum is real and even. The forward transform of one half and its mirror image is therefore the
    /// autocorrelation.
    fn periodic(&mut self) -> (f32, f32) {
        for n in 0..=FFT / 2 {
            let inside = (FIRST_BIN - 1..=LAST_BIN).contains(&n);
            let power = if inside { self.power[n] } else { 0.0 };
            self.time[n] = power;
            self.time[(FFT - n) % FFT] = power;
        }
        self.transform();
        let energy = self.spectrum[0].re + FLOOR * FFT as f32;
        let height = |lag: usize| self.spectrum[lag].re / energy / self.window_lags[lag];
        let best = PERIODS.map(|lag| (lag, height(lag))).max_by(|a, b| a.1.total_cmp(&b.1));
        let (lag, top) = best.unwrap_or((*PERIODS.start(), 0.0));
        let mut finer = lag as f32;
        if lag > *PERIODS.start() && lag < *PERIODS.end() {
            // The top of a parabola through the highest point and its neighbours.
            let (below, above) = (height(lag - 1), height(lag + 1));
            let bend = below - 2.0 * top + above;
            finer += if bend < -1e-6 { (0.5 * (below - above) / bend).clamp(-0.5, 0.5) } else { 0.0 };
        }
        (top.clamp(0.0, 1.5), finer)
    }

    fn pitch_step(&mut self, period: f32) -> f32 {
        self.pitches.push(period.ln()).map_or(0.0, |(then, now)| (5.0 * (now - then).abs()).min(1.0))
    }
}

/// Triangular filters on the mel scale (O'Shaughnessy's form: 2595 lg(1 + f / 700)): first bin and weights.
fn triangles() -> Vec<(usize, Vec<f32>)> {
    let mel = |hz: f32| 2595.0 * (1.0 + hz / 700.0).log10();
    let hertz = |mel: f32| 700.0 * (10f32.powf(mel / 2595.0) - 1.0);
    let step = (mel(HIGH_HZ) - mel(LOW_HZ)) / (BANDS + 1) as f32;
    let edge = |n: usize| hertz(mel(LOW_HZ) + step * n as f32) / BIN_HZ;
    let triangle = |n: usize| {
        let (low, middle, high) = (edge(n), edge(n + 1), edge(n + 2));
        let weight = |bin: usize| {
            let at = bin as f32;
            ((at - low) / (middle - low)).min((high - at) / (high - middle)).max(0.0)
        };
        let first = low.ceil() as usize;
        (first, (first..=high.floor() as usize).map(weight).collect())
    };
    (0..BANDS).map(triangle).collect()
}
