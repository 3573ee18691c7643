//! Keeps times true: what did not decode is replaced by silence of its length and counted.

use super::block::{Block, MAX_CHANNELS, RATES_HZ};
use super::decode::{Decode, Facts, Step};
use super::error::AudioError;
use crate::domain::RecordingState;

/// No sane decoder puts out more; corrupt frames have been seen at 6270. Full scale is 1.
const IMPLAUSIBLE: f32 = 4.0;
/// Lost beyond these shares, a recording is degraded, or damaged.
const DEGRADED_SHARE: f64 = 0.05;
const DAMAGED_SHARE: f64 = 0.5;
/// Silence is put out in blocks of this many samples.
const SILENCE_FRAMES: usize = 4096;

/// A decoder's output without holes.
pub struct Timeline {
    decoder: Box<dyn Decode>,
    limit_seconds: f64,
    seconds: f64,
    lost_seconds: f64,
    /// Silence still to be put out: samples, rate, channels.
    hole: (u64, u32, u16),
}

/// How much of a recording survived.
#[derive(Debug, Clone)]
pub struct Survival {
    pub facts: Facts,
    pub expected_ms: u64,
    pub lost_ms: u64,
    pub state: RecordingState,
}

impl Timeline {
    pub const fn new(decoder: Box<dyn Decode>, limit_seconds: f64) -> Self {
        Self { decoder, limit_seconds, seconds: 0.0, lost_seconds: 0.0, hole: (0, 0, 0) }
    }

    /// Fills the block with the next stretch; `false` at the end.
    pub fn next(&mut self, block: &mut Block) -> Result<bool, AudioError> {
        if self.hole.0 == 0 {
            match self.decoder.next(block)? {
                Step::End => return Ok(false),
                Step::Lost { frames, rate_hz, channels } => {
                    check_form(rate_hz, usize::from(channels))?;
                    self.lost_seconds += frames as f64 / f64::from(rate_hz);
                    self.hole = (frames, rate_hz, channels);
                    // Refused before it is made: a hole may claim to be days long.
                    self.check_length(frames as f64 / f64::from(rate_hz))?;
                }
                Step::Audio => {
                    check_form(block.rate_hz, block.planes.len())?;
                    let seconds = block.frames() as f64 / f64::from(block.rate_hz);
                    if !block.within(IMPLAUSIBLE) {
                        for plane in &mut block.planes {
                            plane.fill(0.0);
                        }
                        self.lost_seconds += seconds;
                    }
                    self.seconds += seconds;
                    self.check_length(0.0)?;
                    return Ok(true);
                }
            }
        }
        let (left, rate_hz, channels) = self.hole;
        let frames = left.min(SILENCE_FRAMES as u64);
        self.hole.0 -= frames;
        self.seconds += frames as f64 / f64::from(rate_hz);
        block.set_silence(rate_hz, channels, frames as usize);
        Ok(true)
    }

    fn check_length(&self, more: f64) -> Result<(), AudioError> {
        if self.seconds + more > self.limit_seconds {
            return Err(AudioError::TooLong { limit_ms: (self.limit_seconds * 1000.0) as u64 });
        }
        Ok(())
    }

    /// To be asked at the end.
    #[must_use]
    pub fn survival(&self) -> Survival {
        let facts = self.decoder.facts();
        let expected = self.seconds + facts.missing_seconds;
        let lost = self.lost_seconds + facts.missing_seconds;
        let share = if expected > 0.0 { lost / expected } else { 1.0 };
        let state = if share > DAMAGED_SHARE {
            RecordingState::Damaged
        } else if share > DEGRADED_SHARE {
            RecordingState::Degraded
        } else {
            RecordingState::Ok
        };
        let ms = |seconds: f64| (seconds * 1000.0).round() as u64;
        Survival { facts, expected_ms: ms(expected), lost_ms: ms(lost), state }
    }
}

fn check_form(rate_hz: u32, channels: usize) -> Result<(), AudioError> {
    if !RATES_HZ.contains(&rate_hz) {
        return Err(AudioError::SampleRate { rate_hz });
    }
    if channels > MAX_CHANNELS {
        return Err(AudioError::TooManyChannels { channels, limit: MAX_CHANNELS });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a script of steps; audio blocks are 480 samples at 48 kHz of the given value.
    struct Script(Vec<(Step, f32)>, f64);

    impl Decode for Script {
        fn next(&mut self, block: &mut Block) -> Result<Step, AudioError> {
            if self.0.is_empty() {
                return Ok(Step::End);
            }
            let (step, value) = self.0.remove(0);
            block.set_silence(48_000, 1, 480);
            block.planes[0].fill(value);
            Ok(step)
        }

        fn facts(&self) -> Facts {
            Facts { missing_seconds: self.1, ..Facts::new("test") }
        }
    }

    fn run(steps: Vec<(Step, f32)>, missing: f64) -> Result<(Vec<f32>, Survival), AudioError> {
        let mut timeline = Timeline::new(Box::new(Script(steps, missing)), 10.0);
        let (mut block, mut samples) = (Block::default(), Vec::new());
        while timeline.next(&mut block)? {
            samples.extend_from_slice(&block.planes[0]);
        }
        Ok((samples, timeline.survival()))
    }

    const fn lost(frames: u64) -> (Step, f32) {
        (Step::Lost { frames, rate_hz: 48_000, channels: 1 }, 0.0)
    }

    #[test]
    fn a_hole_is_silence_of_its_length() {
        let (samples, survival) = run(vec![(Step::Audio, 0.5), lost(10_000), (Step::Audio, 0.5)], 0.0).unwrap();
        assert_eq!(samples.len(), 480 + 10_000 + 480);
        assert!(samples[480..10_480].iter().all(|sample| sample.to_bits() == 0));
        assert!((samples[10_480] - 0.5).abs() < 1e-9);
        assert_eq!((survival.lost_ms, survival.state), (208, RecordingState::Damaged));
    }

    #[test]
    fn implausible_samples_are_silence_and_lost() {
        for bad in [6270.0, f32::NAN, f32::INFINITY] {
            let mut steps = vec![(Step::Audio, 0.5); 9];
            steps.push((Step::Audio, bad));
            let (samples, survival) = run(steps, 0.0).unwrap();
            assert!(samples[9 * 480..].iter().all(|sample| sample.to_bits() == 0));
            assert_eq!((survival.lost_ms, survival.state), (10, RecordingState::Degraded));
        }
    }

    #[test]
    fn states_follow_the_share_lost() {
        let hundred = vec![(Step::Audio, 0.1); 100];
        for (missing, state) in
            [(0.0, RecordingState::Ok), (0.1, RecordingState::Degraded), (1.1, RecordingState::Damaged)]
        {
            let (_, survival) = run(hundred.clone(), missing).unwrap();
            assert_eq!(survival.state, state, "{missing}");
            assert_eq!(survival.expected_ms, 1000 + (missing * 1000.0) as u64);
        }
    }

    #[test]
    fn an_endless_hole_is_refused_before_it_is_made() {
        let error = run(vec![lost(u64::MAX / 2)], 0.0).unwrap_err();
        assert!(matches!(error, AudioError::TooLong { limit_ms: 10_000 }), "{error}");
    }
}
