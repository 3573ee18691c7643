//! Figures against independent meters: the `ebur128` crate, and signals whose loudness and peaks follow from EBU Tech 3341
//! and 3342.

use ebur128::{EbuR128, Mode};

use super::levels::{babble, meter};
use super::{Heard, pcm16, wav};

/// A WAV of parts of stereo 1 kHz sines: level in dBFS, seconds.
fn sines(parts: &[(f64, f64)]) -> Vec<u8> {
    let mut n = 0u32;
    let samples: Vec<f64> = parts
        .iter()
        .flat_map(|&(dbfs, seconds)| {
            let amplitude = 10f64.powf(dbfs / 20.0);
            (0..(seconds * 16_000.0) as usize).map(move |_| amplitude)
        })
        .flat_map(|amplitude| {
            n += 1;
            let sample = amplitude * (std::f64::consts::TAU * 1000.0 * f64::from(n) / 16_000.0).sin();
            [sample, sample]
        })
        .collect();
    let data = pcm16(&samples);
    wav(1, 16, 2, 16_000, &data, data.len() as u32)
}

/// EBU Tech 3341 table 1, cases 1, 2 and 5, through the whole stage: within 0.1 LU. The longer ones are with the meter.
#[test]
fn integrated_loudness_of_ebu_tech_3341() {
    let cases: [(&[(f64, f64)], f64); 3] =
        [(&[(-23.0, 20.0)], -23.0), (&[(-33.0, 20.0)], -33.0), (&[(-26.0, 20.0), (-20.0, 20.1), (-26.0, 20.0)], -23.0)];
    for (parts, expected) in cases {
        let measured = Heard::of(&sines(parts)).normalized.loudness.integrated_lufs.unwrap();
        assert!((measured - expected).abs() < 0.1, "{parts:?}: {measured}");
    }
}

/// EBU Tech 3342 table 1, cases 1 and 3: within 1 LU.
#[test]
fn loudness_range_of_ebu_tech_3342() {
    let cases: [(&[(f64, f64)], f64); 2] =
        [(&[(-20.0, 20.0), (-30.0, 20.0)], 10.0), (&[(-40.0, 20.0), (-20.0, 20.0)], 20.0)];
    for (parts, expected) in cases {
        let measured = Heard::of(&sines(parts)).normalized.loudness.range_lu.unwrap();
        assert!((measured - expected).abs() < 1.0, "{parts:?}: {measured}");
    }
}

/// EBU Tech 3341 table 1, cases 15 to 19: sines whose peaks lie between samples, +0.2 / -0.4 dB.
#[test]
fn true_peaks_of_ebu_tech_3341() {
    for (part_of_rate, degrees, amplitude) in
        [(4.0, 0.0, 0.5), (4.0, 45.0, 0.5), (6.0, 60.0, 0.5), (8.0, 67.5, 0.5), (4.0, 45.0, 1.41)]
    {
        // In floating point: the last case is beyond what integers hold.
        let data: Vec<u8> = (0..48_000u32)
            .flat_map(|n| {
                let ramp = (f64::from(n) / 2000.0).min(f64::from(48_000 - n) / 2000.0).min(1.0);
                let angle = std::f64::consts::TAU * f64::from(n) / part_of_rate + f64::to_radians(degrees);
                ((ramp * amplitude * angle.sin()) as f32).to_le_bytes()
            })
            .collect();
        let heard = Heard::of(&wav(3, 32, 1, 48_000, &data, data.len() as u32));
        let off = heard.normalized.loudness.true_peak_dbtp.unwrap() - 20.0 * f64::log10(amplitude);
        assert!(off < 0.2 && off > -0.4, "{part_of_rate} {degrees}: {off}");
    }
}

#[test]
fn speech_like_files_measure_as_the_reference_crate_measures_them() {
    // Below 32 kHz the weighting of BS.1770-4, given at 48 kHz, bends with the rate it is carried over to; the stage
    // measures one channel at 48 kHz whatever the recording's rate, the crate does not.
    for (rate, level) in [(32_000, 0.3), (44_100, 0.7), (48_000, 0.02)] {
        let samples = babble(rate, 8.0, level);
        let data = pcm16(&samples);
        let loudness = Heard::of(&wav(1, 16, 1, rate, &data, data.len() as u32)).normalized.loudness;
        let mut reference = EbuR128::new(1, rate, Mode::I | Mode::TRUE_PEAK).unwrap();
        let samples: Vec<f32> = samples.iter().map(|sample| *sample as f32).collect();
        reference.add_frames_f32(&samples).unwrap();
        let (integrated, peak) = (reference.loudness_global().unwrap(), 20.0 * reference.true_peak(0).unwrap().log10());
        assert!((loudness.integrated_lufs.unwrap() - integrated).abs() < 0.1, "{rate}: {loudness:?} {integrated}");
        assert!((loudness.true_peak_dbtp.unwrap() - peak).abs() < 0.25, "{rate}: {loudness:?} {peak}");
    }
}

/// Whatever comes in: the ceiling holds by another meter, the target is met whenever 6 dB off the peaks are enough, and
/// the file says when they are not.
#[test]
fn the_ceiling_always_holds_and_the_target_whenever_it_can() {
    for (seconds, level, clicks) in
        [(6.0, 0.003, 0.0), (6.0, 0.08, 0.0), (6.0, 0.6, 0.0), (5.0, 0.05, 0.5), (5.0, 0.02, 0.9)]
    {
        let mut samples = babble(48_000, seconds, level);
        if clicks > 0.0 {
            for n in (10_000..samples.len()).step_by(40_000) {
                samples[n] = clicks;
                samples[n + 1] = -clicks;
            }
        }
        let data = pcm16(&samples);
        let heard = Heard::of(&wav(1, 16, 1, 48_000, &data, data.len() as u32));
        let (loudness, peak) = meter(&heard.samples);
        let figures = &heard.normalized.normalization;
        let limited = heard.normalized.flags.contains(&aftercall::domain::quality::Flag::PeakLimited);
        assert!(peak <= -1.0, "{level} {clicks}: {peak}");
        assert!(figures.limited_db <= 6.01, "{figures:?}");
        assert!(limited || (loudness + 16.0).abs() < 0.5, "{level} {clicks}: {loudness} {figures:?}");
        assert!(!limited || (figures.limited_db > 5.9 && loudness < -16.0), "{level} {clicks}: {loudness} {figures:?}");
        // Worked out, not measured again: closely for speech, less so for clicks, whose spectrum is not that of the rest.
        let close = if clicks > 0.0 { 0.3 } else { 0.1 };
        assert!(
            (figures.output_integrated_lufs.unwrap() - loudness).abs() < close,
            "{level} {clicks}: {loudness} {figures:?}"
        );
        assert!((figures.output_true_peak_dbtp.unwrap() - peak).abs() < 0.25, "{level} {clicks}: {peak} {figures:?}");
    }
}
