//! Keeps times true. Samples that did not decode become silence of the same length and count as lost. So do gaps, which
//! count as lost only inside sound.

use std::ops::Range;

use super::block::{Block, RATES_HZ};
use super::decoder::{Decode, Facts, Missing, Step};
use super::error::AudioError;
use super::layout::Layout;
use super::layout::MAX_CHANNELS;
use crate::domain::RecordingState;

/// Larger samples are corrupt. Corrupt frames have reached 6270. Full scale is 1.
const IMPLAUSIBLE: f32 = 4.0;
/// Lost shares above which a recording is degraded or damaged.
const DEGRADED_SHARE: f64 = 0.05;
const DAMAGED_SHARE: f64 = 0.5;
/// Samples per block of silence.
const SILENCE_FRAMES: usize = 4096;

/// Silence around a gap: its duration, seconds, and its largest sample, -40 dBFS.
const AROUND_SECONDS: f64 = 0.02;
const QUIET: f32 = 0.01;

/// The output of a decoder without gaps.
pub(super) struct Timeline {
    decoder: Box<dyn Decode>,
    limit_seconds: f64,
    seconds: f64,
    lost_seconds: f64,
    /// Silence still to put out.
    hole: Missing,
    /// Channels and speaker positions of the last audio.
    form: (usize, Layout),
    /// Silence before the current position, seconds, counted as far as it matters.
    quiet_seconds: f64,
    /// A gap that follows silence.
    gap: Option<Gap>,
    pause: Option<Range<f64>>,
}

/// A gap after silence. The sound after it decides whether it counts as lost.
#[derive(Debug, Clone, Copy)]
struct Gap {
    seconds: f64,
    /// Time after the gap still to check.
    open_seconds: f64,
}

/// Expected and lost length of a recording.
#[derive(Debug, Clone)]
pub(super) struct Survival {
    pub facts: Facts,
    pub expected_ms: u64,
    pub lost_ms: u64,
    pub state: RecordingState,
}

impl Timeline {
    pub(super) const fn new(decoder: Box<dyn Decode>, limit_seconds: f64) -> Self {
        Self {
            decoder,
            limit_seconds,
            seconds: 0.0,
            lost_seconds: 0.0,
            hole: Missing { frames: 0, rate_hz: 0, channels: 0 },
            form: (0, Layout::UNPLACED),
            quiet_seconds: 0.0,
            gap: None,
            pause: None,
        }
    }

    /// Fills the block with the next samples. `false` at the end.
    pub(super) fn next(&mut self, block: &mut Block) -> Result<bool, AudioError> {
        if self.hole.frames == 0 {
            block.layout = Layout::UNPLACED;
            match self.decoder.next(block)? {
                Step::End => return Ok(false),
                Step::Lost(missing) => self.lost_seconds += self.begin_hole(missing)?,
                Step::Gap(missing) => {
                    let seconds = self.begin_hole(missing)?;
                    if self.quiet_seconds >= AROUND_SECONDS {
                        self.gap = Some(Gap { seconds, open_seconds: AROUND_SECONDS });
                    } else {
                        self.lost_seconds += seconds;
                    }
                }
                Step::Pause(missing) => {
                    let from = self.seconds;
                    let seconds = self.begin_hole(missing)?;
                    self.pause = Some(from..from + seconds);
                }
                Step::Audio => {
                    check_form(block.rate_hz, block.planes.len())?;
                    self.form = (block.planes.len(), block.layout);
                    block.drop_low_frequency();
                    let seconds = block.frames() as f64 / f64::from(block.rate_hz);
                    if !block.within(IMPLAUSIBLE) {
                        for plane in &mut block.planes {
                            plane.fill(0.0);
                        }
                        self.lost_seconds += seconds;
                    }
                    self.listen(block);
                    self.seconds += seconds;
                    self.check_length(0.0)?;
                    return Ok(true);
                }
            }
        }
        let Missing { frames: left, rate_hz, channels } = self.hole;
        let frames = left.min(SILENCE_FRAMES as u64);
        self.hole.frames -= frames;
        self.seconds += frames as f64 / f64::from(rate_hz);
        block.set_silence(rate_hz, channels, frames as usize);
        // Silence has the channels of the audio around it.
        if self.form.0 == usize::from(channels) {
            block.layout = self.form.1;
            block.drop_low_frequency();
        }
        Ok(true)
    }

    /// Starts silence of this length. Returns its duration, seconds.
    fn begin_hole(&mut self, missing: Missing) -> Result<f64, AudioError> {
        check_form(missing.rate_hz, usize::from(missing.channels))?;
        let seconds = missing.frames as f64 / f64::from(missing.rate_hz);
        // The check comes first, because a gap may claim days.
        self.check_length(seconds)?;
        self.hole = missing;
        Ok(seconds)
    }

    /// Checks for sound at the end of this block, and after a gap at its start.
    fn listen(&mut self, block: &Block) {
        let rate = f64::from(block.rate_hz);
        let samples = |seconds: f64| ((seconds * rate).ceil() as usize).min(block.frames());
        if let Some(gap) = &mut self.gap {
            let head = samples(gap.open_seconds);
            if block.part_within(0..head, QUIET) {
                gap.open_seconds -= head as f64 / rate;
                self.gap = Some(*gap).filter(|gap| gap.open_seconds > 0.0);
            } else {
                self.lost_seconds += gap.seconds;
                self.gap = None;
            }
        }
        let tail = samples(AROUND_SECONDS);
        let quiet = block.part_within(block.frames() - tail..block.frames(), QUIET);
        self.quiet_seconds = if quiet { self.quiet_seconds + tail as f64 / rate } else { 0.0 };
    }

    /// A pause that began with the last block.
    pub(super) const fn take_pause(&mut self) -> Option<Range<f64>> {
        self.pause.take()
    }

    fn check_length(&self, more: f64) -> Result<(), AudioError> {
        if self.seconds + more > self.limit_seconds {
            return Err(AudioError::TooLong { limit_ms: (self.limit_seconds * 1000.0) as u64 });
        }
        Ok(())
    }

    /// The lost and expected length. Valid at the end.
    #[must_use]
    pub(super) fn survival(&self) -> Survival {
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

    /// Plays a script of steps. Audio blocks are 480 samples at 48 kHz of the given value.
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
        (Step::Lost(Missing { frames, rate_hz: 48_000, channels: 1 }), 0.0)
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
    fn a_gap_is_lost_in_sound_and_nowhere_else() {
        let gap = (Step::Gap(Missing { frames: 4_800, rate_hz: 48_000, channels: 1 }), 0.0);
        let pause = (Step::Pause(Missing { frames: 4_800, rate_hz: 48_000, channels: 1 }), 0.0);
        let (loud, quiet) = ((Step::Audio, 0.5), (Step::Audio, 0.005));
        for (name, steps, lost_ms) in [
            ("between sounds", vec![loud, gap, loud], 100),
            ("between silences", vec![loud, quiet, quiet, gap, quiet, quiet, loud], 0),
            ("before sound", vec![quiet, quiet, gap, loud], 100),
            ("10 ms before sound", vec![quiet, quiet, gap, quiet, loud], 100),
            ("after sound", vec![loud, gap, quiet, quiet], 100),
            ("10 ms after sound", vec![loud, quiet, gap, quiet, quiet], 100),
            ("with nothing before", vec![gap, quiet, quiet], 100),
            ("two of them", vec![quiet, quiet, gap, quiet, quiet, gap, loud], 100),
            ("where nothing was to be sent", vec![loud, pause, loud], 0),
        ] {
            let length = steps.iter().map(|(step, _)| if *step == Step::Audio { 480 } else { 4_800 }).sum::<usize>();
            let (samples, survival) = run(steps, 0.0).unwrap();
            assert_eq!((samples.len(), survival.lost_ms), (length, lost_ms), "{name}");
        }
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
    fn a_channel_of_low_frequency_is_in_no_block_and_no_hole() {
        struct Surround(Vec<Step>);
        impl Decode for Surround {
            fn next(&mut self, block: &mut Block) -> Result<Step, AudioError> {
                block.set_silence(48_000, 6, 480);
                block.layout = Layout::of_mask(0x60f);
                Ok(self.0.pop().unwrap_or(Step::End))
            }

            fn facts(&self) -> Facts {
                Facts::new("test")
            }
        }
        let steps = vec![Step::Audio, Step::Lost(Missing { frames: 5_000, rate_hz: 48_000, channels: 6 }), Step::Audio];
        let mut timeline = Timeline::new(Box::new(Surround(steps)), 10.0);
        let (mut block, mut blocks) = (Block::default(), 0);
        while timeline.next(&mut block).unwrap() {
            assert_eq!((block.planes.len(), block.layout.weights(5)), (5, vec![1.0, 1.0, 1.0, 1.41, 1.41]));
            blocks += 1;
        }
        assert_eq!(blocks, 4, "two of sound, two of silence");
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
