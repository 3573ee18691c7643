//! Recordings whose middle is not at zero: what is written has its mean at zero and its loudness at the target.

use aftercall::audio::CancelFlag;
use aftercall::domain::quality::Flag;
use aftercall::quality::signal::{MeasuredSignal, SignalMeter};

use super::levels::{babble, meter};
use super::{Heard, Studio, fixture, pcm16, wav};

const CALL_HZ: u32 = 16_000;

struct Levelled {
    heard: Heard,
    measured: MeasuredSignal,
}

impl Levelled {
    fn of(bytes: &[u8]) -> Self {
        let studio = Studio::new(bytes);
        let mut signal = SignalMeter::new();
        studio.run_with(&mut [&mut signal], &CancelFlag::default()).unwrap();
        Self { heard: studio.run().unwrap(), measured: signal.finish() }
    }

    fn mean(&self) -> f64 {
        let samples = &self.heard.samples;
        samples.iter().map(|sample| f64::from(*sample)).sum::<f64>() / samples.len() as f64
    }

    fn flagged(&self) -> bool {
        self.heard.normalized.flags.contains(&Flag::DcOffset)
    }

    /// At the target, its mean at zero, and flagged.
    fn check(&self, name: &str) {
        let (lufs, peak) = meter(&self.heard.samples);
        assert!((lufs + 16.0).abs() < 0.5, "{name}: {lufs} LUFS");
        assert!(peak < -0.9, "{name}: {peak} dBTP");
        assert!(self.mean().abs() < 0.002, "{name}: mean {}", self.mean());
        assert!(self.flagged(), "{name}: {:?}", self.heard.normalized.flags);
    }
}

fn mono(samples: &[f64]) -> Vec<u8> {
    let data = pcm16(samples);
    wav(1, 16, 1, CALL_HZ, &data, data.len() as u32)
}

fn stereo(left: &[f64], right: &[f64]) -> Vec<u8> {
    let data = pcm16(&left.iter().zip(right).flat_map(|(left, right)| [*left, *right]).collect::<Vec<_>>());
    wav(1, 16, 2, CALL_HZ, &data, data.len() as u32)
}

fn over(samples: &[f64], offset: impl Fn(f64) -> f64) -> Vec<f64> {
    samples.iter().enumerate().map(|(n, sample)| sample + offset(n as f64 / f64::from(CALL_HZ))).collect()
}

#[test]
fn the_given_file() {
    let levelled = Levelled::of(&fixture("dc05_quiet.wav"));
    levelled.check("dc05_quiet.wav");
    assert!((levelled.measured.signal.dc_offset - 0.05).abs() < 0.001, "{:?}", levelled.measured);
}

#[test]
fn constant_offsets_of_quiet_and_loud_speech() {
    for (level, offset) in [(0.01, 0.05), (0.01, -0.05), (0.2, 0.05), (0.01, 0.01), (0.05, -0.3), (0.3, 0.01)] {
        let name = format!("{level} over {offset}");
        let levelled = Levelled::of(&mono(&over(&babble(CALL_HZ, 6.0, level), |_| offset)));
        levelled.check(&name);
        assert!((levelled.measured.signal.dc_offset - offset).abs() < 0.001, "{name}: {:?}", levelled.measured);
    }
}

#[test]
fn an_offset_does_not_pass_for_noise_or_for_a_speaker() {
    let speech = babble(CALL_HZ, 8.0, 0.1);
    let (plain, shifted) = (Levelled::of(&mono(&speech)), Levelled::of(&mono(&over(&speech, |_| 0.1))));
    let (before, after) = (&plain.measured.signal, &shifted.measured.signal);
    assert!((before.noise_floor_dbfs.unwrap() - after.noise_floor_dbfs.unwrap()).abs() < 1.0, "{before:?} {after:?}");
    let silent = vec![0.0; speech.len()];
    let one_way = Levelled::of(&stereo(&speech, &over(&silent, |_| 0.05)));
    assert!(one_way.measured.flags.contains(&Flag::OneWayAudio), "{:?}", one_way.measured);
    assert!(one_way.mean().abs() < 0.002);
}

#[test]
fn each_leg_has_its_own() {
    let (agent, caller) = (babble(CALL_HZ, 8.0, 0.1), babble(CALL_HZ, 9.0, 0.01)[CALL_HZ as usize..].to_vec());
    for (left, right) in [(0.05, 0.0), (0.0, -0.05), (0.05, -0.02), (-0.01, -0.01)] {
        let name = format!("{left} and {right}");
        let levelled = Levelled::of(&stereo(&over(&agent, |_| left), &over(&caller, |_| right)));
        levelled.check(&name);
        let worst = if f64::abs(left) >= f64::abs(right) { left } else { right };
        assert!((levelled.measured.signal.dc_offset - worst).abs() < 0.002, "{name}: {:?}", levelled.measured);
    }
}

#[test]
fn an_offset_that_moves_is_followed() {
    let speech = babble(CALL_HZ, 12.0, 0.1);
    let slow: [(&str, &dyn Fn(f64) -> f64); 3] = [
        ("drifting", &|at| 0.05 * (0.5 * at).sin()),
        ("rising", &|at| 0.008 * at),
        ("from the middle on", &|at| if at < 6.0 { 0.0 } else { 0.05 }),
    ];
    for (name, offset) in slow {
        let levelled = Levelled::of(&mono(&over(&speech, offset)));
        levelled.check(name);
        for second in [1usize, 3, 5, 8, 10] {
            let part = &levelled.heard.samples[second * 48_000..(second + 1) * 48_000];
            let mean = part.iter().map(|sample| f64::from(*sample)).sum::<f64>() / 48_000.0;
            assert!(mean.abs() < 0.01, "{name}: mean {mean} at {second} s");
        }
    }
}

#[test]
fn ordinary_recordings_keep_every_bit() {
    for bytes in [fixture("tones.mp3"), fixture("speech.mp3"), fixture("tones.flac")] {
        assert!(!Levelled::of(&bytes).flagged());
    }
    let quiet = babble(CALL_HZ, 6.0, 0.01);
    let levelled = Levelled::of(&mono(&quiet));
    assert!(!levelled.flagged());
    // Digital silence with an offset is silence.
    let silent = Levelled::of(&mono(&vec![0.05; 48_000]));
    assert!(silent.flagged() && silent.heard.samples.iter().all(|sample| sample.abs() < 1e-4));
    assert_eq!(silent.heard.normalized.loudness.reason.as_deref(), Some("silence"));
}
