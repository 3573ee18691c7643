//! Programme loudness: ITU-R BS.1770-4 (K-weighting, gating) and EBU Tech 3342 (range). One pass collects the energy of
//! every 100 ms. All figures come from it, also those after a gain.

use super::k_weighting::KWeighting;
use crate::domain::Segment;

/// BS.1770-4 annex 1: loudness of a mean square `z` is `-0.691 + 10 lg z`.
const OFFSET_LU: f64 = -0.691;
/// Gates of BS.1770-4 (integrated) and EBU Tech 3342 (range).
const ABSOLUTE_GATE_LUFS: f64 = -70.0;
const RELATIVE_GATE_LU: f64 = -10.0;
const RANGE_GATE_LU: f64 = -20.0;
/// Hops of 100 ms in a gating block (400 ms, 75 % overlap) and in a short-term window (3 s).
const BLOCK_HOPS: usize = 4;
const SHORT_TERM_HOPS: usize = 30;

fn lufs(mean_square: f64) -> f64 {
    OFFSET_LU + 10.0 * mean_square.log10()
}

fn mean_square(lufs: f64) -> f64 {
    10f64.powf((lufs - OFFSET_LU) / 10.0)
}

/// Collects the energy of audio with one rate and channel count.
#[derive(Debug)]
pub struct Meter {
    filters: Vec<KWeighting>,
    /// Weight of each channel.
    weights: Vec<f64>,
    rate_hz: u32,
    /// Samples so far, and the sample at which the current hop of 100 ms ends.
    seen: u64,
    hop_end: u64,
    hop_start: u64,
    energy: f64,
    levels: Levels,
}

impl Meter {
    /// For channels of equal weight.
    #[must_use]
    pub fn new(rate_hz: u32, channels: usize) -> Self {
        Self::weighted(rate_hz, vec![1.0; channels])
    }

    /// For channels with these weights, one per channel.
    #[must_use]
    pub fn weighted(rate_hz: u32, weights: Vec<f64>) -> Self {
        let filters = vec![KWeighting::new(rate_hz); weights.len()];
        let levels = Levels::default();
        let mut meter = Self { filters, weights, rate_hz, seen: 0, hop_end: 0, hop_start: 0, energy: 0.0, levels };
        meter.hop_end = meter.end_of_hop(1);
        meter
    }

    /// Rates such as 11,025 Hz have no whole number of samples in 100 ms.
    const fn end_of_hop(&self, hops: u64) -> u64 {
        (hops * self.rate_hz as u64).div_ceil(10)
    }

    /// Adds samples: one slice per channel, all of the same length.
    pub fn push<P: AsRef<[f32]>>(&mut self, planes: &[P]) {
        let frames = planes.first().map_or(0, |plane| plane.as_ref().len());
        let mut at = 0;
        while at < frames {
            let take = ((self.hop_end - self.seen) as usize).min(frames - at);
            for ((filter, weight), plane) in self.filters.iter_mut().zip(&self.weights).zip(planes) {
                self.energy += weight * filter.energy(&plane.as_ref()[at..at + take]);
            }
            at += take;
            self.seen += take as u64;
            if self.seen == self.hop_end {
                self.levels.hops.push(self.energy.max(0.0) / (self.hop_end - self.hop_start) as f64);
                self.energy = 0.0;
                self.hop_start = self.hop_end;
                self.hop_end = self.end_of_hop(self.levels.hops.len() as u64 + 1);
            }
        }
    }

    /// The levels so far. A last part under 100 ms is in no gating block and is left out.
    #[must_use]
    pub fn finish(self) -> Levels {
        self.levels
    }
}

/// K-weighted mean squares, one per 100 ms, summed over the channels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Levels {
    hops: Vec<f64>,
}

impl Levels {
    /// From mean squares per 100 ms.
    #[must_use]
    pub const fn from_hops(hops: Vec<f64>) -> Self {
        Self { hops }
    }

    #[must_use]
    pub fn hops(&self) -> &[f64] {
        &self.hops
    }

    /// Appends later levels from another meter.
    pub fn append(&mut self, mut later: Self) {
        self.hops.append(&mut later.hops);
    }

    fn windows(&self, hops: usize) -> impl Iterator<Item = f64> + '_ {
        self.hops.windows(hops).map(move |window| window.iter().sum::<f64>() / hops as f64)
    }

    /// Integrated loudness after a gain, LUFS. `None` under 400 ms or when all blocks are below the gate.
    #[must_use]
    pub fn integrated(&self, gain_db: f64) -> Option<f64> {
        let gate = mean_square(ABSOLUTE_GATE_LUFS - gain_db);
        let mean = gated_mean(self.windows(BLOCK_HOPS), gate)?;
        let relative = mean * 10f64.powf(RELATIVE_GATE_LU / 10.0);
        gated_mean(self.windows(BLOCK_HOPS), gate.max(relative)).map(|mean| lufs(mean) + gain_db)
    }

    /// Integrated loudness of the 400 ms blocks inside the given segments, LUFS. The gates are the same.
    #[must_use]
    pub fn integrated_within(&self, segments: &[Segment]) -> Option<f64> {
        let mut blocks = Vec::new();
        for segment in segments {
            let first = segment.start_ms.div_ceil(100) as usize;
            let last = ((segment.end_ms / 100) as usize).min(self.hops.len());
            if let Some(hops) = self.hops.get(first..last) {
                blocks.extend(hops.windows(BLOCK_HOPS).map(|window| window.iter().sum::<f64>() / BLOCK_HOPS as f64));
            }
        }
        let gate = mean_square(ABSOLUTE_GATE_LUFS);
        let mean = gated_mean(blocks.iter().copied(), gate)?;
        let relative = mean * 10f64.powf(RELATIVE_GATE_LU / 10.0);
        gated_mean(blocks.into_iter(), gate.max(relative)).map(lufs)
    }

    /// Loudness range, LU (EBU Tech 3342): from the 10th to the 95th percentile of the short-term loudness.
    #[must_use]
    pub fn range(&self) -> Option<f64> {
        let gate = mean_square(ABSOLUTE_GATE_LUFS);
        let mean = gated_mean(self.windows(SHORT_TERM_HOPS), gate)?;
        let gate = gate.max(mean * 10f64.powf(RANGE_GATE_LU / 10.0));
        let mut loud: Vec<f64> = self.windows(SHORT_TERM_HOPS).filter(|&level| level >= gate).map(lufs).collect();
        loud.sort_by(f64::total_cmp);
        let at = |share: f64| loud.get(((loud.len().saturating_sub(1)) as f64 * share).round() as usize).copied();
        Some(at(0.95)? - at(0.10)?)
    }

    /// The gain that brings the integrated loudness to `target_lufs`, dB. The absolute gate moves with the gain, so the
    /// gain is iterated. Three iterations are enough for the shift that a gate can cause.
    #[must_use]
    pub fn gain_to(&self, target_lufs: f64) -> Option<f64> {
        let mut gain_db = target_lufs - self.integrated(0.0)?;
        for _ in 0..3 {
            gain_db += target_lufs - self.integrated(gain_db)?;
        }
        Some(gain_db)
    }
}

fn gated_mean(levels: impl Iterator<Item = f64>, gate: f64) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0u64);
    for level in levels.filter(|&level| level > gate) {
        sum += level;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(rate: u32, hz: f64, dbfs: f64, seconds: f64) -> Vec<f32> {
        let amplitude = 10f64.powf(dbfs / 20.0);
        (0..(f64::from(rate) * seconds) as usize)
            .map(|n| (amplitude * (std::f64::consts::TAU * hz * n as f64 / f64::from(rate)).sin()) as f32)
            .collect()
    }

    fn measure(rate: u32, planes: &[Vec<f32>]) -> Levels {
        let mut meter = Meter::new(rate, planes.len());
        let frames = planes[0].len();
        for start in (0..frames).step_by(1009) {
            let end = (start + 1009).min(frames);
            let block: Vec<&[f32]> = planes.iter().map(|plane| &plane[start..end]).collect();
            meter.push(&block);
        }
        meter.finish()
    }

    fn sequence(parts: &[(f64, f64)]) -> Levels {
        let wave: Vec<f32> = parts.iter().flat_map(|&(dbfs, seconds)| sine(48_000, 1000.0, dbfs, seconds)).collect();
        measure(48_000, &[wave.clone(), wave])
    }

    /// EBU Tech 3341, table 1: cases 1 to 5 (stereo 1 kHz sines), tolerance 0.1 LU.
    #[test]
    fn ebu_tech_3341_integrated() {
        let cases: [(&[(f64, f64)], f64); 5] = [
            (&[(-23.0, 20.0)], -23.0),
            (&[(-33.0, 20.0)], -33.0),
            (&[(-36.0, 10.0), (-23.0, 60.0), (-36.0, 10.0)], -23.0),
            (&[(-72.0, 10.0), (-36.0, 10.0), (-23.0, 60.0), (-36.0, 10.0), (-72.0, 10.0)], -23.0),
            (&[(-26.0, 20.0), (-20.0, 20.1), (-26.0, 20.0)], -23.0),
        ];
        for (parts, expected) in cases {
            let measured = sequence(parts).integrated(0.0).unwrap();
            assert!((measured - expected).abs() < 0.1, "{parts:?}: {measured}");
        }
    }

    /// EBU Tech 3342, table 1: cases 1 to 4, tolerance 1 LU.
    #[test]
    fn ebu_tech_3342_range() {
        let cases: [(&[(f64, f64)], f64); 4] = [
            (&[(-20.0, 20.0), (-30.0, 20.0)], 10.0),
            (&[(-20.0, 20.0), (-15.0, 20.0)], 5.0),
            (&[(-40.0, 20.0), (-20.0, 20.0)], 20.0),
            (&[(-50.0, 20.0), (-35.0, 20.0), (-20.0, 20.0), (-35.0, 20.0), (-50.0, 20.0)], 15.0),
        ];
        for (parts, expected) in cases {
            let measured = sequence(parts).range().unwrap();
            assert!((measured - expected).abs() < 1.0, "{parts:?}: {measured}");
        }
    }

    #[test]
    fn equal_to_the_reference_crate_at_every_rate() {
        let mut state = 1u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        for rate in [8_000, 16_000, 44_100, 48_000] {
            // Noise with a level that rises and falls by 16 dB in twenty seconds.
            let level =
                |n: usize| 0.1 * 10f64.powf(0.4 * (n as f64 / f64::from(rate) * std::f64::consts::TAU / 20.0).sin());
            let mut plane = || (0..rate as usize * 40).map(|n| noise() * level(n) as f32).collect::<Vec<f32>>();
            let planes = [plane(), plane()];
            let mode = ebur128::Mode::I | ebur128::Mode::LRA;
            let mut reference = ebur128::EbuR128::new(2, rate, mode).unwrap();
            reference.add_frames_planar_f32(&[&planes[0], &planes[1]]).unwrap();
            let levels = measure(rate, &planes);
            let (ours, theirs) = (levels.integrated(0.0).unwrap(), reference.loudness_global().unwrap());
            assert!((ours - theirs).abs() < 0.01, "{rate}: {ours} {theirs}");
            let (ours, theirs) = (levels.range().unwrap(), reference.loudness_range().unwrap());
            // The crate measures once per second, this meter ten times. EBU Tech 3342 allows 1 LU.
            assert!((ours - theirs).abs() < 1.0, "{rate}: {ours} {theirs}");
        }
    }

    #[test]
    fn surround_channels_count_as_in_the_reference_crate() {
        use ebur128::Channel::{Center, Left, LeftSurround, Right, RightSurround, Unused};
        let planes: Vec<Vec<f32>> =
            (0..6).map(|n| sine(48_000, 300.0 + 170.0 * f64::from(n), -30.0 + 2.0 * f64::from(n), 5.0)).collect();
        let mut reference = ebur128::EbuR128::new(6, 48_000, ebur128::Mode::I).unwrap();
        reference.set_channel_map(&[Left, Right, Center, Unused, LeftSurround, RightSurround]).unwrap();
        let all: Vec<&[f32]> = planes.iter().map(Vec::as_slice).collect();
        reference.add_frames_planar_f32(&all).unwrap();
        let mut meter = Meter::weighted(48_000, super::super::layout::Layout::of_mask(0x60f).weights(6));
        meter.push(&planes);
        let (ours, theirs) = (meter.finish().integrated(0.0).unwrap(), reference.loudness_global().unwrap());
        assert!((ours - theirs).abs() < 0.01, "{ours} {theirs}");
    }

    #[test]
    fn a_gain_moves_the_figure_and_the_gate() {
        let levels = sequence(&[(-76.0, 10.0), (-69.0, 10.0)]);
        let gain = levels.gain_to(-16.0).unwrap();
        assert!((levels.integrated(gain).unwrap() + 16.0).abs() < 1e-6);
    }

    #[test]
    fn silence_and_short_sounds_have_no_loudness() {
        assert_eq!(measure(48_000, &[vec![0.0; 96_000]]).integrated(0.0), None);
        assert_eq!(measure(48_000, &[sine(48_000, 1000.0, -20.0, 0.35)]).integrated(0.0), None);
        assert!(measure(48_000, &[sine(48_000, 1000.0, -20.0, 0.45)]).integrated(0.0).is_some());
    }

    #[test]
    fn loudness_within_segments_is_theirs() {
        let levels = measure(48_000, &[[sine(48_000, 1000.0, -20.0, 5.0), sine(48_000, 1000.0, -40.0, 5.0)].concat()]);
        let loud = levels.integrated_within(&[Segment::new(0, 5_000)]).unwrap();
        let quiet = levels.integrated_within(&[Segment::new(5_000, 10_000)]).unwrap();
        assert!((loud - quiet - 20.0).abs() < 0.2, "{loud} {quiet}");
        assert_eq!(levels.integrated_within(&[]), None);
    }
}
