use super::*;
use crate::config::Config;

fn heard(rate_hz: u32, planes: &[Vec<f32>]) -> Speech {
    let spool = tempfile::tempdir().unwrap();
    let settings = Config::from_toml("").unwrap().audio;
    let mut sink = SpeechSink::new(&settings, spool.path());
    let frames = planes[0].len();
    for at in (0..frames).step_by(1_152) {
        let end = (at + 1_152).min(frames);
        let planes = planes.iter().map(|plane| plane[at..end].to_vec()).collect();
        sink.recorded(&Block { rate_hz, planes, ..Block::default() });
    }
    sink.finish().unwrap()
}

fn speech_ms(speech: &Speech) -> u64 {
    speech.legs.iter().flat_map(|leg| &leg.regions).map(Segment::duration_ms).sum()
}

/// White noise, uniform, by a linear congruential generator.
fn noise(count: usize, level: f32) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        level * ((state >> 8) as f32 / 8_388_608.0 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

fn tones(count: usize, rate_hz: u32, hertz: &[f32], on: impl Fn(f32) -> bool) -> Vec<f32> {
    let sample = |n: usize| {
        let t = n as f32 / rate_hz as f32;
        if !on(t) {
            return 0.0;
        }
        hertz
            .iter()
            .map(|hz| 0.2 * (std::f64::consts::TAU * f64::from(*hz) * n as f64 / f64::from(rate_hz)).sin() as f32)
            .sum()
    };
    (0..count).map(sample).collect()
}

#[test]
fn no_speech_in_what_is_none() {
    let count = 16_000 * 10;
    let cases = [
        ("silence", vec![0.0; count]),
        ("quiet noise", noise(count, 0.01)),
        ("loud noise", noise(count, 0.5)),
        ("chord", tones(count, 16_000, &[261.6, 329.6, 392.0], |_| true)),
        (
            "ringback of Europe",
            tones(count, 16_000, &[400.0, 450.0], |t| t % 3.0 < 0.4 || (0.6..1.0).contains(&(t % 3.0))),
        ),
        ("ringback of America", tones(count, 16_000, &[440.0, 480.0], |t| t % 6.0 < 2.0)),
        ("DTMF", tones(count, 16_000, &[770.0, 1_336.0], |t| t % 0.2 < 0.1)),
    ];
    for (name, samples) in cases {
        assert_eq!(speech_ms(&heard(16_000, &[samples])), 0, "{name}");
    }
}

/// Vowels of a buzzing voice with a moving pitch.
fn talk(seconds: f32, level: f32, hz: f32, spoken: impl Fn(f32) -> bool) -> Vec<f32> {
    let mut phase = 0.0_f32;
    let mut band = [[0.0_f32; 2]; 3];
    let sample = |n: usize| {
        let t = n as f32 / 16_000.0;
        phase += hz * (1.0 + 0.15 * (t * 7.0).sin()) / 16_000.0;
        let pulse = if phase >= 1.0 { 1.0 } else { 0.0 };
        phase = phase.fract();
        // Two to four vowels per second: three moving resonances.
        let open = ((t * 20.0).sin() * 0.5 + 0.5).powi(2);
        let places = [300.0 + 500.0 * open, 900.0 + 900.0 * (t * 9.0).sin().abs(), 2_500.0];
        let mut sum = 0.0;
        for (state, place) in band.iter_mut().zip(places) {
            let (r, angle) = (0.97_f32, std::f32::consts::TAU * place / 16_000.0);
            let y = pulse + 2.0 * r * angle.cos() * state[0] - r * r * state[1];
            *state = [y, state[0]];
            sum += y;
        }
        if spoken(t) { level * sum * (0.15 + open) } else { 0.0 }
    };
    (0..(seconds * 16_000.0) as usize).map(sample).collect()
}

fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

#[test]
fn turns_are_found_where_they_are() {
    let voice = talk(8.0, 0.05, 120.0, |t| (1.0..3.0).contains(&t) || (4.5..6.5).contains(&t));
    let speech = heard(16_000, &[add(&voice, &noise(voice.len(), 0.002))]);
    let found: Vec<(u64, u64)> = speech.legs[0].regions.iter().map(|region| (region.start_ms, region.end_ms)).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    for (found, truth) in found.iter().zip([(1_000, 3_000), (4_500, 6_500)]) {
        assert!(found.0.abs_diff(truth.0) <= 150 && found.1.abs_diff(truth.1) <= 150, "{found:?} {truth:?}");
    }
}

/// A buzz that slides, opens and pauses, in noise; `sweep` of `benches/training/train_context.py` makes the same.
fn sweep() -> Vec<f32> {
    let mut phase = 0.0_f64;
    let noise = noise(80_000, 0.002);
    let sample = |n: usize| {
        let t = n as f64 / 16_000.0;
        phase += (140.0 + 30.0 * (5.0 * t).sin() + 15.0 * (17.0 * t).sin()) / 16_000.0;
        let open = 0.5 + 0.5 * (21.0 * t).sin();
        let partial = |k: f64| {
            let from_middle: f64 = (k * 0.14 - 0.4 - 0.5 * open) / 0.3;
            (std::f64::consts::TAU * k * phase).sin() * (-from_middle * from_middle).exp()
        };
        let buzz: f64 = (1..16).map(|k| partial(f64::from(k))).sum();
        let loud = if t % 2.5 < 1.6 { 0.1 } else { 0.0 };
        (loud * (0.1 + open) * buzz) as f32 + noise[n]
    };
    (0..80_000).map(sample).collect()
}

fn scores(samples: &[f32], at_once: usize) -> Vec<f32> {
    let mut detector = Detector::new();
    samples.chunks(at_once).for_each(|part| detector.push(part));
    detector.finish().scores()
}

/// What `benches/training/train_context.py sweep` prints: every 25th score of both networks.
const SWEEP: [f32; 20] = [
    0.00, 0.06, 0.99, 1.00, 1.00, 1.00, 1.00, 0.00, 0.00, 0.00, 0.91, 1.00, 0.98, 0.97, 1.00, 1.00, 1.00, 0.01, 0.00,
    0.00,
];

/// Every sixth score of the second network alone.
const SECOND: [f32; 21] = [
    0.003, 0.043, 0.129, 0.845, 0.949, 0.995, 0.954, 0.349, 0.002, 0.002, 0.908, 0.996, 1.000, 1.000, 1.000, 1.000,
    1.000, 1.000, 0.862, 0.012, 0.042,
];

#[test]
fn scores_are_those_of_the_training() {
    let found = scores(&sweep(), 1_000);
    for (n, truth) in SWEEP.into_iter().enumerate() {
        assert!((found[n * 25] - truth).abs() < 0.02, "frame {}: {} {truth}", n * 25, found[n * 25]);
    }
    let mut detector = Detector::new();
    detector.push(&sweep());
    let found = detector.within();
    for (n, truth) in SECOND.into_iter().enumerate() {
        assert!((found[n * 6] - truth).abs() < 0.02, "step {}: {} {truth}", n * 6, found[n * 6]);
    }
}

#[test]
fn a_long_recording_is_judged_as_if_in_one_piece() {
    let long: Vec<f32> = sweep().into_iter().cycle().take(16_000 * 90).collect();
    let (whole, parts) = (scores(&long, long.len()), scores(&long, 4_000));
    assert_eq!(whole.len(), parts.len());
    let furthest = whole.iter().zip(&parts).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest < 0.01, "{furthest}");
}

#[test]
fn two_legs_are_two_and_the_same_sound_twice_is_one() {
    let left = add(&talk(5.0, 0.05, 120.0, |t| t < 2.0), &noise(80_000, 0.001));
    let right = add(&talk(5.0, 0.05, 210.0, |t| t > 2.5), &noise(80_000, 0.001));
    let two = heard(16_000, &[left.clone(), right]);
    assert_eq!(two.legs.len(), 2);
    assert!(two.legs[0].regions.iter().all(|region| region.end_ms < 2_300), "{:?}", two.legs[0].regions);
    assert!(two.legs[1].regions.iter().all(|region| region.start_ms > 2_300), "{:?}", two.legs[1].regions);
    let inverted: Vec<f32> = left.iter().map(|sample| -sample).collect();
    assert_eq!(heard(16_000, &[left.clone(), left.clone()]).legs.len(), 1);
    assert_eq!(heard(16_000, &[left.clone(), inverted]).legs.len(), 1);
}

#[test]
fn what_leaks_from_the_other_leg_is_not_spoken_on_this_one() {
    let agent = talk(6.0, 0.05, 120.0, |t| t < 3.0);
    let caller = talk(6.0, 0.05, 210.0, |t| t > 3.5);
    let leak: Vec<f32> = agent.iter().map(|sample| sample * 0.1).collect();
    let speech = heard(16_000, &[agent, add(&caller, &leak)]);
    assert!(!speech.legs[1].regions.is_empty());
    assert!(speech.legs[1].regions.iter().all(|region| region.start_ms > 3_200), "{:?}", speech.legs[1].regions);
}

#[test]
fn a_turn_ends_with_its_speaker_and_what_is_far_fainter_is_none() {
    // A voice, its echo 30 dB below it, and both again after a pause, as from another room.
    let voice: Vec<f32> = talk(8.0, 0.05, 120.0, |t| t < 2.4 || (3.0..5.0).contains(&t))
        .into_iter()
        .enumerate()
        .map(|(n, sample)| if n < 32_000 { sample } else { 0.03 * sample })
        .collect();
    let other = add(&talk(8.0, 0.05, 210.0, |t| t > 6.0), &noise(128_000, 0.0001));
    let speech = heard(16_000, &[add(&voice, &noise(128_000, 0.0001)), other]);
    let found = &speech.legs[0].regions;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].end_ms.abs_diff(2_000) <= 60, "{found:?}");
}

#[test]
fn samples_keep_the_time_of_the_recording_at_any_rate() {
    for rate_hz in [8_000_u32, 11_025, 44_100, 48_000] {
        let tone = tones(rate_hz as usize * 2, rate_hz, &[440.0], |t| t > 1.0);
        let speech = heard(rate_hz, &[tone]);
        let samples = &speech.legs[0].samples;
        assert_eq!(samples.len(), 32_000, "{rate_hz}");
        let energy = |from, to| samples.read(from, to).unwrap().iter().map(|s| s * s).sum::<f32>();
        assert!(energy(0, 995) < 1e-2 && energy(1_000, 2_000) > 100.0, "{rate_hz}");
    }
}
