//! Spectral lines in a window longer than a frame. The notes of an instrument are narrow lines at a constant frequency.
//! The lines of a voice move all the time.

use std::sync::Arc;

use realfft::RealFftPlanner;
use realfft::RealToComplex;
use realfft::num_complex::Complex;

use super::features::{HOP, WINDOW};
use super::history::{History, correlation, to_unit};

/// Samples of the long window: 128 ms.
const LONG: usize = 2_048;
/// Frames per long window.
pub(super) const EVERY: usize = 4;
/// Bins at the borders of the groups: 200, 600, 1200, 2200 and 3800 Hz.
const EDGES: [usize; GROUPS + 1] = [26, 77, 154, 282, 487];
pub(super) const GROUPS: usize = 4;
/// Distance of the two compared windows: 120 ms, so that they share almost no sound.
const BACK: usize = 3;
/// Added to every power. Anything lower is silence.
const FLOOR: f32 = 5e-5;
/// Samples from the start of the long window to the start of its frames. The frames lie in the middle of the window.
const BEFORE: usize = LONG / 2 - usize::midpoint(WINDOW, (EVERY - 1) * HOP);

/// For each group its flatness (0 for noise and silence, -2 for a single line) and its correlation with the spectrum
/// 120 ms before.
pub(super) type Line = [f32; 2 * GROUPS];

/// Computes the long windows of a stream of samples.
pub(super) struct Lines {
    forward: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    pending: Vec<f32>,
    /// Log spectra of the last windows. Each group is without its mean and has unit length.
    shapes: History<Vec<f32>>,
    time: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
}

impl Default for Lines {
    fn default() -> Self {
        let forward = RealFftPlanner::new().plan_fft_forward(LONG);
        let window = |n: usize| 0.5 - 0.5 * (std::f32::consts::TAU * (n as f32 + 0.5) / LONG as f32).cos();
        Self {
            window: (0..LONG).map(window).collect(),
            pending: vec![0.0; BEFORE],
            shapes: History::new(BACK),
            time: forward.make_input_vec(),
            spectrum: forward.make_output_vec(),
            forward,
        }
    }
}

impl Lines {
    /// Appends the figures of the windows that these samples complete.
    pub(super) fn push(&mut self, samples: &[f32], out: &mut Vec<Line>) {
        self.pending.extend_from_slice(samples);
        let mut at = 0;
        while self.pending.len() - at >= LONG {
            out.push(self.look(at));
            at += EVERY * HOP;
        }
        self.pending.drain(..at);
    }

    /// Computes the last windows with silence after the end.
    pub(super) fn finish(&mut self, out: &mut Vec<Line>) {
        self.push(&[0.0; LONG], out);
    }

    fn look(&mut self, at: usize) -> Line {
        for ((time, sample), weight) in self.time.iter_mut().zip(&self.pending[at..at + LONG]).zip(&self.window) {
            *time = sample * weight;
        }
        // Cannot fail, because the buffers come from the planner.
        let done = self.forward.process(&mut self.time, &mut self.spectrum);
        debug_assert!(done.is_ok());
        let mut shape = Vec::with_capacity(EDGES[GROUPS] - EDGES[0]);
        let mut line = [0.0; 2 * GROUPS];
        for group in 0..GROUPS {
            let bins = &self.spectrum[EDGES[group]..EDGES[group + 1]];
            line[2 * group] = append(bins, &mut shape);
        }
        if let Some((then, now)) = self.shapes.push(shape) {
            for group in 0..GROUPS {
                let part = EDGES[group] - EDGES[0]..EDGES[group + 1] - EDGES[0];
                line[2 * group + 1] = correlation(&then[part.clone()], &now[part]);
            }
        }
        line
    }
}

/// Appends the log spectrum of a group. Returns its flatness.
fn append(bins: &[Complex<f32>], shape: &mut Vec<f32>) -> f32 {
    let from = shape.len();
    let mut power = 0.0;
    for bin in bins {
        let here = bin.norm_sqr() + FLOOR;
        power += here;
        shape.push(here.ln());
    }
    let mean = to_unit(&mut shape[from..]);
    (mean - (power / bins.len() as f32).ln()).clamp(-8.0, 0.0) / 4.0
}
