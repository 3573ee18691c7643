//! What is written: at the target, under the ceiling, and the same a second time. Judged by another meter.

use aftercall::domain::quality::Flag;

use super::{Heard, Noise, pcm16, sine, wav};

#[test]
fn silence_and_a_moment_are_left_as_they_are() {
    for (samples, reason) in [(vec![0.0; 32_000], "silence"), (sine(16_000, 500.0, 0.1, 0.3), "shorter_than_400_ms")] {
        let data = pcm16(&samples);
        let heard = Heard::of(&wav(1, 16, 1, 16_000, &data, data.len() as u32));
        let normalized = &heard.normalized;
        assert_eq!(normalized.loudness.integrated_lufs, None);
        assert_eq!(normalized.loudness.reason.as_deref(), Some(reason));
        assert!(normalized.normalization.gain_db.abs() < 1e-9);
        let peak = heard.samples.iter().fold(0.0f32, |peak, s| peak.max(s.abs()));
        assert!((f64::from(peak) - samples.iter().fold(0.0f64, |p, s| p.max(s.abs()))).abs() < 1e-3);
    }
}

/// Speech in its levels: syllables of a harmonic sound, each of another strength, with pauses.
pub(super) fn babble(rate: u32, seconds: f64, level: f64) -> Vec<f64> {
    let mut noise = Noise(11);
    let syllable = rate as usize / 5;
    let mut strength = 0.0;
    (0..(f64::from(rate) * seconds) as usize)
        .map(|n| {
            if n % syllable == 0 {
                let draw = noise.uniform();
                strength = if draw < 0.25 { 0.0 } else { 10f64.powf((draw - 1.0) * 1.1) };
            }
            let phase = (n % syllable) as f64 / syllable as f64;
            let t = n as f64 / f64::from(rate);
            let voice: f64 = (1..12)
                .map(|k| {
                    (std::f64::consts::TAU * 130.0 * f64::from(k) * t + 0.7 * f64::from(k * k)).cos() / f64::from(k)
                })
                .sum();
            level * strength * (std::f64::consts::PI * phase).sin() * voice / 3.0
        })
        .collect()
}

pub(super) fn meter(samples: &[f32]) -> (f64, f64) {
    let mut reference = ebur128::EbuR128::new(1, 48_000, ebur128::Mode::I | ebur128::Mode::TRUE_PEAK).unwrap();
    reference.add_frames_f32(samples).unwrap();
    (reference.loudness_global().unwrap(), 20.0 * reference.true_peak(0).unwrap().log10())
}

#[test]
fn the_target_is_met_under_the_ceiling_and_a_second_time_changes_nothing() {
    for level in [0.01, 0.2, 0.9] {
        let data = pcm16(&babble(48_000, 12.0, level));
        let first = Heard::of(&wav(1, 16, 1, 48_000, &data, data.len() as u32));
        let (loudness, peak) = meter(&first.samples);
        assert!((loudness + 16.0).abs() < 0.5, "{level}: {loudness}");
        assert!(peak <= -1.0, "{level}: {peak}");
        let figures = &first.normalized.normalization;
        assert!((figures.output_integrated_lufs.unwrap() - loudness).abs() < 0.1, "{figures:?}");
        assert!((figures.output_true_peak_dbtp.unwrap() - peak).abs() < 0.2, "{figures:?}");
        assert!(
            figures.limited_db > 1.0 && figures.limited_db <= 6.01,
            "the case is meant to need the limiter: {figures:?}"
        );
        assert!(!first.normalized.flags.contains(&Flag::PeakLimited));
        let again: Vec<f64> = first.samples.iter().map(|s| f64::from(*s)).collect();
        let data = pcm16(&again);
        let second = Heard::of(&wav(1, 16, 1, 48_000, &data, data.len() as u32));
        assert!(second.normalized.normalization.gain_db.abs() < 0.1, "{:?}", second.normalized.normalization);
        assert!((meter(&second.samples).0 - loudness).abs() < 0.1);
    }
}

#[test]
fn clicks_that_no_limiter_should_hide_keep_the_level_down_and_say_so() {
    let mut samples = sine(48_000, 500.0, 0.01, 6.0);
    for n in (0..samples.len()).step_by(48_000) {
        samples[n] = 0.9;
    }
    let data = pcm16(&samples);
    let heard = Heard::of(&wav(1, 16, 1, 48_000, &data, data.len() as u32));
    assert!(heard.normalized.flags.contains(&Flag::PeakLimited));
    let (loudness, peak) = meter(&heard.samples);
    assert!(loudness < -16.5 && peak <= -1.0, "{loudness} {peak}");
    // Measured, not worked out: what a limiter does to clicks is hard to foretell.
    let told = heard.normalized.normalization.output_integrated_lufs.unwrap();
    assert!((told - loudness).abs() < 0.05, "{told} {loudness}");
    assert!((heard.normalized.normalization.limited_db - 6.0).abs() < 0.2);
}

#[test]
fn a_caller_20_db_down_is_as_loud_as_the_agent_in_what_is_written() {
    let rate = 16_000;
    let talk = babble(rate, 24.0, 0.5);
    let agent_has_it = |n: usize, rate: usize| (n / (3 * rate)).is_multiple_of(2);
    let legs: Vec<f64> = talk
        .iter()
        .enumerate()
        .flat_map(|(n, &said)| if agent_has_it(n, rate as usize) { [said, 0.0] } else { [0.0, 0.1 * said] })
        .collect();
    let data = pcm16(&legs);
    let heard = Heard::of(&wav(1, 16, 2, rate, &data, data.len() as u32));
    let of = |agent: bool| -> Vec<f32> {
        let all = heard.samples.iter().enumerate();
        all.filter(|(n, _)| agent_has_it(*n, 48_000) == agent).map(|(_, sample)| *sample).collect()
    };
    let (agent, caller) = (meter(&of(true)).0, meter(&of(false)).0);
    assert!((agent - caller).abs() < 3.0, "{agent} {caller}");
}
