//! Loudness of the output. Where only the gain acted, the input level plus the gain is used. Where the limiter acted,
//! the output is measured again.

use super::block::OUTPUT_RATE_HZ;
use super::k_weighting::KWeighting;
use super::loudness::Levels;

/// Samples in the 100 ms of [`Levels`].
pub(super) const HOP: usize = OUTPUT_RATE_HZ as usize / 10;

/// Levels of the output, one per 100 ms.
#[derive(Debug)]
pub(super) struct OutputLevels {
    hops: Vec<f64>,
    /// The 100 ms before `hop`, and the samples of `hop` so far.
    line: Vec<f32>,
    hop: usize,
    /// Filters that processed everything up to `hop`. They settle within the 100 ms before it.
    filter: Option<KWeighting>,
}

impl OutputLevels {
    /// For a recording with these levels, after this gain.
    #[must_use]
    pub(super) fn new(levels: &Levels, gain: f32) -> Self {
        let power = f64::from(gain) * f64::from(gain);
        let hops = levels.hops().iter().map(|level| level * power).collect();
        Self { hops, line: vec![0.0; HOP], hop: 0, filter: None }
    }

    /// Adds output samples. `changed` tells which 100 ms the limiter changed.
    pub(super) fn push(&mut self, samples: &[f32], changed: impl Fn(usize) -> bool) {
        self.line.extend_from_slice(samples);
        let mut at = 0;
        while let Some(pair) = self.line.get(at..at + 2 * HOP) {
            let (before, here) = pair.split_at(HOP);
            if changed(self.hop) {
                let mut filter = self.filter.take().unwrap_or_else(|| {
                    let mut filter = KWeighting::new(OUTPUT_RATE_HZ);
                    filter.energy(before);
                    filter
                });
                let energy = filter.energy(here);
                if let Some(level) = self.hops.get_mut(self.hop) {
                    *level = energy.max(0.0) / HOP as f64;
                }
                self.filter = Some(filter);
            } else {
                self.filter = None;
            }
            self.hop += 1;
            at += HOP;
        }
        self.line.drain(..at);
    }

    /// Integrated loudness, LUFS.
    #[must_use]
    pub(super) fn integrated(self) -> Option<f64> {
        Levels::from_hops(self.hops).integrated(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::loudness::Meter;

    #[test]
    fn what_was_changed_is_measured_and_the_rest_is_moved() {
        let wave: Vec<f32> =
            (0..10 * HOP).map(|n| 0.2 * (0.05 * n as f32).sin() + 0.1 * (0.31 * n as f32).sin()).collect();
        let measured = |wave: &[f32]| {
            let mut meter = Meter::new(OUTPUT_RATE_HZ, 1);
            meter.push(&[wave]);
            meter.finish()
        };
        let levels = measured(&wave);
        let mut out: Vec<f32> = wave.iter().map(|sample| 2.0 * sample).collect();
        out[4 * HOP..6 * HOP].iter_mut().for_each(|sample| *sample *= 0.3);
        let mut output = OutputLevels::new(&levels, 2.0);
        for chunk in out.chunks(1777) {
            output.push(chunk, |hop| hop == 4 || hop == 5);
        }
        let truth = measured(&out).integrated(0.0).unwrap();
        let told = output.integrated().unwrap();
        assert!((told - truth).abs() < 0.01, "{told} {truth}");
        assert!((levels.integrated(6.0206).unwrap() - truth).abs() > 0.3, "the change is to be seen");
    }
}
