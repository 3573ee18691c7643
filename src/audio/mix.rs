//! Mixes channels to one. Two channels may be two legs, the same sound twice, or the same sound with one channel
//! inverted. The average of inverted channels would be silence, so the sign of the second channel follows the
//! correlation.

use super::block::Block;

/// Windows per second in which two channels are compared.
const WINDOWS_PER_SECOND: u32 = 5;
/// A quieter window is not compared (mean square, about -60 dBFS).
const ACTIVE: f64 = 1e-6;
/// Correlation below which the second channel counts as inverted, and above which it counts as straight again.
const INVERTED: f64 = -0.9;
const STRAIGHT: f64 = 0.0;
/// Two channels carry the same sound when they differ by less than this share of their energy (-30 dB).
const SAME: f64 = 1e-3;
/// Share of the active windows that makes a recording dual mono, and share that makes it inverted.
const MOST: f64 = 0.95;
const MANY: f64 = 0.5;
/// Legs that differ by less stay as they are. No leg is raised by more, dB.
const ALIKE_DB: f64 = 2.0;
const MOST_RAISED_DB: f64 = 30.0;
/// Windows this far below a leg's mean are pauses, dB (the relative gate of BS.1770-4).
const PAUSE_DB: f64 = 10.0;
/// A leg is noise when its loud windows exceed its quiet windows by less than this, dB. Noise is not raised.
const LIVELY_DB: f64 = 9.0;

/// Downmix to one channel.
#[derive(Debug, Default)]
pub(super) struct Mixer {
    rate_hz: u32,
    /// Samples of the current window.
    left: Vec<f32>,
    right: Vec<f32>,
    inverted: bool,
    active: u64,
    same: u64,
    opposite: u64,
    /// Samples of parts that did not have two channels.
    other: u64,
    /// Mean squares of the two channels per window.
    energies: Vec<[f32; 2]>,
    raised: Option<Raised>,
}

/// The leg to raise before the mix, with a factor of amplitude.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Raised {
    Left(f32),
    Right(f32),
}

impl Mixer {
    /// A mixer that levels two legs by the result of an earlier pass.
    #[must_use]
    pub(super) fn levelling(raised: Raised) -> Self {
        Self { raised: Some(raised), ..Self::default() }
    }

    /// The leg to raise for equal loudness. `None` for equal legs and for recordings without two legs.
    #[must_use]
    pub(super) fn unequal(&self) -> Option<Raised> {
        if self.other > 0 || self.dual_mono() || self.anti_phase() {
            return None;
        }
        let (left, right) = (self.leg_level(0)?, self.leg_level(1)?);
        let factor = 10f64.powf((left - right).abs().min(MOST_RAISED_DB) / 20.0) as f32;
        match left - right {
            difference if difference > ALIKE_DB => Some(Raised::Right(factor)),
            difference if difference < -ALIKE_DB => Some(Raised::Left(factor)),
            _ => None,
        }
    }

    /// Level of a leg while it sounds, dB. `None` for noise and silence.
    fn leg_level(&self, leg: usize) -> Option<f64> {
        let mut windows: Vec<f64> = self.energies.iter().map(|pair| f64::from(pair[leg])).collect();
        windows.sort_by(f64::total_cmp);
        let decibels = |energy: f64| 10.0 * energy.max(1e-12).log10();
        let mean = |windows: &[f64]| windows.iter().sum::<f64>() / windows.len().max(1) as f64;
        let sounding = &windows[windows.partition_point(|energy| *energy < ACTIVE * 0.01)..];
        let gate = mean(sounding) * 10f64.powf(-PAUSE_DB / 10.0);
        let loud = &sounding[sounding.partition_point(|energy| *energy < gate)..];
        let level = decibels(mean(loud));
        let quiet = decibels(*windows.get(windows.len() / 10)?);
        (!loud.is_empty() && level - quiet > LIVELY_DB).then_some(level)
    }

    /// Appends the mixed block to `out`. Two channels come out one window later: call [`Self::flush`] at the end and
    /// before a rate change. A single channel is returned as it is, and it follows `out`.
    pub(super) fn push<'a>(&mut self, block: &'a Block, out: &mut Vec<f32>) -> Option<&'a [f32]> {
        match block.planes.as_slice() {
            [] => {}
            [mono] => {
                self.flush(out);
                self.other += mono.len() as u64;
                return Some(mono);
            }
            [left, right] => {
                if self.rate_hz != block.rate_hz {
                    self.flush(out);
                    self.rate_hz = block.rate_hz;
                }
                self.pair(left, right, out);
            }
            [first, ..] => {
                self.flush(out);
                self.other += first.len() as u64;
                block.mix_onto(out);
            }
        }
        None
    }

    fn pair(&mut self, mut left: &[f32], mut right: &[f32], out: &mut Vec<f32>) {
        let window = (self.rate_hz / WINDOWS_PER_SECOND).max(1) as usize;
        while !left.is_empty() {
            let take = (window - self.left.len()).min(left.len());
            self.left.extend_from_slice(&left[..take]);
            self.right.extend_from_slice(&right[..take]);
            (left, right) = (&left[take..], &right[take..]);
            if self.left.len() == window {
                self.flush(out);
            }
        }
    }

    /// Mixes the samples of the current window.
    pub(super) fn flush(&mut self, out: &mut Vec<f32>) {
        if self.left.is_empty() {
            return;
        }
        let was = self.inverted;
        self.judge();
        let sign = |inverted: bool| if inverted { -1.0f32 } else { 1.0 };
        let (from, to) = (sign(was), sign(self.inverted));
        // A change of sign fades over a fortieth of the window (5 ms). A step would click.
        let fade = if was == self.inverted { 0 } else { (self.left.len() / 40).max(1) };
        match self.raised {
            Some(Raised::Left(factor)) => self.left.iter_mut().for_each(|sample| *sample *= factor),
            Some(Raised::Right(factor)) => self.right.iter_mut().for_each(|sample| *sample *= factor),
            None => {}
        }
        for (n, (left, right)) in self.left.iter().zip(&self.right).enumerate() {
            let factor = if n < fade { from + (to - from) * (n as f32 / fade as f32) } else { to };
            out.push(0.5 * (left + factor * right));
        }
        self.left.clear();
        self.right.clear();
    }

    fn judge(&mut self) {
        let (mut ll, mut rr, mut lr) = (0.0f64, 0.0f64, 0.0f64);
        for (left, right) in self.left.chunks(64).zip(self.right.chunks(64)) {
            let (mut l2, mut r2, mut cross) = (0.0f32, 0.0f32, 0.0f32);
            for (l, r) in left.iter().zip(right) {
                l2 += l * l;
                r2 += r * r;
                cross += l * r;
            }
            ll += f64::from(l2);
            rr += f64::from(r2);
            lr += f64::from(cross);
        }
        let count = self.left.len() as f64;
        self.energies.push([(ll / count) as f32, (rr / count) as f32]);
        let floor = ACTIVE * count;
        if ll + rr < 2.0 * floor {
            return;
        }
        self.active += 1;
        let sum = ll + rr;
        self.same += u64::from(sum - 2.0 * lr < SAME * sum);
        if ll.min(rr) < floor {
            return;
        }
        let correlation = lr / (ll * rr).sqrt();
        self.opposite += u64::from(correlation < INVERTED);
        if correlation < INVERTED {
            self.inverted = true;
        } else if correlation > STRAIGHT {
            self.inverted = false;
        }
    }

    /// Both channels carried the same sound throughout.
    #[must_use]
    pub(super) fn dual_mono(&self) -> bool {
        self.other == 0 && self.active > 0 && self.same as f64 >= MOST * self.active as f64
    }

    /// One channel was the inverse of the other for most of the recording.
    #[must_use]
    pub(super) fn anti_phase(&self) -> bool {
        self.active > 0 && self.opposite as f64 >= MANY * self.active as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f32, seconds: f32) -> Vec<f32> {
        (0..(8000.0 * seconds) as usize).map(|n| 0.5 * (std::f32::consts::TAU * hz * n as f32 / 8000.0).sin()).collect()
    }

    fn block(left: &[f32], right: &[f32]) -> Block {
        Block { rate_hz: 8000, planes: vec![left.to_vec(), right.to_vec()], ..Block::default() }
    }

    fn mix(left: &[f32], right: &[f32]) -> (Vec<f32>, Mixer) {
        let (mut mixer, mut out) = (Mixer::default(), Vec::new());
        for (left, right) in left.chunks(777).zip(right.chunks(777)) {
            mixer.push(&block(left, right), &mut out);
        }
        mixer.flush(&mut out);
        (out, mixer)
    }

    fn rms(samples: &[f32]) -> f32 {
        (samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32).sqrt()
    }

    #[test]
    fn the_same_sound_twice_is_one_channel() {
        let tone = tone(440.0, 2.0);
        let (out, mixer) = mix(&tone, &tone);
        assert_eq!(out.len(), tone.len());
        assert!(out.iter().zip(&tone).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!(mixer.dual_mono() && !mixer.anti_phase());
    }

    #[test]
    fn an_inverted_channel_never_cancels() {
        let tone = tone(440.0, 2.0);
        let inverted: Vec<f32> = tone.iter().map(|s| -s).collect();
        let (out, mixer) = mix(&tone, &inverted);
        assert!(rms(&out) > 0.34, "{}", rms(&out));
        assert!(mixer.anti_phase() && !mixer.dual_mono());
    }

    #[test]
    fn two_legs_are_added_and_flagged_as_neither() {
        let (agent, caller) = (tone(440.0, 2.0), tone(700.0, 2.0));
        let (out, mixer) = mix(&agent, &caller);
        assert!(out.iter().zip(agent.iter().zip(&caller)).all(|(o, (a, c))| (o - 0.5 * (a + c)).abs() < 1e-6));
        assert!(!mixer.anti_phase() && !mixer.dual_mono());
    }

    /// Half a second of tone, half a second of pause.
    fn in_turns(hz: f32, gain: f32, first: bool) -> Vec<f32> {
        let on = |n: usize| (n / 4000).is_multiple_of(2) == first;
        tone(hz, 4.0).iter().enumerate().map(|(n, sample)| if on(n) { gain * sample } else { 0.0 }).collect()
    }

    #[test]
    fn a_quiet_leg_is_levelled_the_second_time() {
        let (agent, caller) = (in_turns(440.0, 1.0, true), in_turns(700.0, 0.1, false));
        let raised = mix(&agent, &caller).1.unequal().unwrap();
        let Raised::Right(factor) = raised else { panic!("{raised:?}") };
        assert!((factor - 10.0).abs() < 0.1, "{factor}");
        let (mut mixer, mut out) = (Mixer::levelling(raised), Vec::new());
        mixer.push(&block(&agent, &caller), &mut out);
        mixer.flush(&mut out);
        assert!((rms(&out[..4000]) - rms(&out[4000..8000])).abs() < 1e-3);
        assert_eq!(mix(&agent, &in_turns(700.0, 1.0, false)).1.unequal(), None);
    }

    #[test]
    fn noise_is_no_leg_to_be_raised() {
        let hiss: Vec<f32> = tone(3_000.0, 4.0).iter().map(|sample| sample * 0.01).collect();
        assert_eq!(mix(&in_turns(440.0, 1.0, true), &hiss).1.unequal(), None);
    }

    #[test]
    fn one_silent_channel_keeps_the_other() {
        let tone = tone(440.0, 1.0);
        let (out, mixer) = mix(&tone, &vec![0.0; tone.len()]);
        assert!((rms(&out) - 0.5 * rms(&tone)).abs() < 1e-4);
        assert!(!mixer.dual_mono());
    }
}
