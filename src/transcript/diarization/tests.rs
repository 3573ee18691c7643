//! Pitch and embeddings are equal to those of the training script.

use sha2::Digest;

use super::*;
use crate::audio::speech::features::Analyser;

/// What `benches/training/voices.py` prints.
#[derive(serde::Deserialize)]
struct Golden {
    pitch: Vec<Option<f32>>,
    point: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden.json")).unwrap()
}

/// `buzz` of the script: a synthetic voice between two intervals of noise.
fn buzz() -> Vec<f32> {
    let count = 24_000;
    let (mut state, mut phase, mut y) = (1_u32, 0, [0.0_f64; 2]);
    let sample = |n: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (f64::from(state >> 8) / 8_388_608.0 - 1.0) * 0.01;
        phase += 110 + 55 * n / count;
        let pulse = phase >= 16_000;
        phase %= 16_000;
        let input = if pulse && (4_000..20_000).contains(&n) { 0.3 } else { 0.0 };
        let sample = input + 1.8 * y[0] - 0.9 * y[1];
        y = [sample, y[0]];
        (0.2 * sample + noise) as f32
    };
    (0..count).map(sample).collect()
}

#[test]
fn pitch_is_what_the_script_finds() {
    let (found, golden) = (pitch::track(&buzz()), golden().pitch);
    assert_eq!(found.len(), golden.len());
    for (at, (found, golden)) in found.iter().zip(&golden).enumerate() {
        assert_eq!(found.is_some(), golden.is_some(), "{at}");
        let away = found.unwrap_or(0.0) - golden.unwrap_or(0.0);
        assert!(away.abs() < 2e-3, "{at}: {found:?} {golden:?}");
    }
    assert!(golden.iter().flatten().count() > 90);
}

#[test]
fn a_segment_lies_where_the_script_puts_it() {
    let samples = buzz();
    let mut cut = Vec::new();
    Analyser::default().push(&samples, &mut cut);
    let pitch = pitch::track(&samples);
    let sounds: Vec<VoiceFrame> =
        cut.iter().zip(pitch.into_iter().skip(1)).map(|(f, pitch)| VoiceFrame::of(f, pitch)).collect();
    let point = summary::point(&sounds[20..120]).unwrap();
    for (found, golden) in point.at.iter().zip(golden().point) {
        assert!((found - golden).abs() < 2e-2, "{found} {golden}");
    }
    assert!(summary::point(&[]).is_none());
}

/// Stored embeddings become invalid with other weights.
#[test]
fn other_weights_make_another_version() {
    let sha256 = hex::encode(sha2::Sha256::digest(include_bytes!("weights.bin")));
    assert_eq!(
        (EMBEDDING_VERSION, &sha256[..16]),
        (1, "27539332e69f8415"),
        "count FIGURES_VERSION up, and run benches/training/train_profiles.py"
    );
}
