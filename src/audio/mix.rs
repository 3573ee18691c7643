//! Many channels to one. Two channels may be two legs, the same sound twice, or the same sound with one lead swapped:
//! the last one, averaged, would be silence, so the sign of the second channel follows the correlation.

use super::block::Block;

/// Length over which two channels are compared, windows per second.
const WINDOWS_PER_SECOND: u32 = 5;
/// Below this level (mean square, about -60 dBFS) a window says nothing.
const ACTIVE: f64 = 1e-6;
/// Correlation below which the second channel is taken for inverted, and above which it is taken for straight again.
const INVERTED: f64 = -0.9;
const STRAIGHT: f64 = 0.0;
/// Two channels differing by less than this share of their energy (-30 dB) carry the same sound.
const SAME: f64 = 1e-3;
/// Share of the active windows that makes a whole recording dual mono, or inverted.
const MOST: f64 = 0.95;
const MANY: f64 = 0.5;

/// Downmix to one channel.
#[derive(Debug, Default)]
pub struct Mixer {
    rate_hz: u32,
    /// The window being gathered.
    left: Vec<f32>,
    right: Vec<f32>,
    inverted: bool,
    active: u64,
    same: u64,
    opposite: u64,
    /// Samples of a recording that was not two channels throughout.
    other: u64,
}

impl Mixer {
    /// Appends the block, mixed, to `out`. Two channels come out a window later: call [`Self::flush`] at the end and
    /// before a change of rate.
    pub fn push(&mut self, block: &Block, out: &mut Vec<f32>) {
        match block.planes.as_slice() {
            [] => {}
            [mono] => {
                self.flush(out);
                self.other += mono.len() as u64;
                out.extend_from_slice(mono);
            }
            [left, right] => {
                if self.rate_hz != block.rate_hz {
                    self.flush(out);
                    self.rate_hz = block.rate_hz;
                }
                self.pair(left, right, out);
            }
            [first, rest @ ..] => {
                self.flush(out);
                self.other += first.len() as u64;
                let scale = 1.0 / block.planes.len() as f32;
                let start = out.len();
                out.extend_from_slice(first);
                for plane in rest {
                    for (sum, sample) in out[start..].iter_mut().zip(plane) {
                        *sum += sample;
                    }
                }
                for sum in &mut out[start..] {
                    *sum *= scale;
                }
            }
        }
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

    /// Mixes what has been gathered.
    pub fn flush(&mut self, out: &mut Vec<f32>) {
        if self.left.is_empty() {
            return;
        }
        let was = self.inverted;
        self.judge();
        let sign = |inverted: bool| if inverted { -1.0f32 } else { 1.0 };
        let (from, to) = (sign(was), sign(self.inverted));
        // A change of sign fades over a fortieth of the window (5 ms): a step would click.
        let fade = if was == self.inverted { 0 } else { (self.left.len() / 40).max(1) };
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
        let floor = ACTIVE * self.left.len() as f64;
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
    pub fn dual_mono(&self) -> bool {
        self.other == 0 && self.active > 0 && self.same as f64 >= MOST * self.active as f64
    }

    /// One channel was the other inverted, for most of the recording.
    #[must_use]
    pub fn anti_phase(&self) -> bool {
        self.active > 0 && self.opposite as f64 >= MANY * self.active as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f32, seconds: f32) -> Vec<f32> {
        (0..(8000.0 * seconds) as usize).map(|n| 0.5 * (std::f32::consts::TAU * hz * n as f32 / 8000.0).sin()).collect()
    }

    fn mix(left: &[f32], right: &[f32]) -> (Vec<f32>, Mixer) {
        let (mut mixer, mut out) = (Mixer::default(), Vec::new());
        for (left, right) in left.chunks(777).zip(right.chunks(777)) {
            mixer.push(&Block { rate_hz: 8000, planes: vec![left.to_vec(), right.to_vec()] }, &mut out);
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

    #[test]
    fn one_silent_channel_keeps_the_other() {
        let tone = tone(440.0, 1.0);
        let (out, mixer) = mix(&tone, &vec![0.0; tone.len()]);
        assert!((rms(&out) - 0.5 * rms(&tone)).abs() < 1e-4);
        assert!(!mixer.dual_mono());
    }
}
