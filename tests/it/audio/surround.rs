//! More than two channels: what is no voice is not heard, the rest counts as ITU-R BS.1770-4 and BS.775-4 say.

use std::f64::consts::FRAC_1_SQRT_2;

use aftercall::audio::CancelFlag;
use aftercall::audio::speech::SpeechSink;
use ebur128::Channel::{Center, Left, LeftSurround, Right, RightSurround, Unused};
use ebur128::{EbuR128, Mode};

use super::levels::babble;
use super::{Heard, Studio, pcm16, sine};

const HZ: u32 = 16_000;

/// `WAVE_FORMAT_EXTENSIBLE`, 16 bits, with this mask.
fn extensible(planes: &[Vec<f64>], mask: u32) -> Vec<u8> {
    let frames = planes[0].len();
    let samples: Vec<f64> = (0..frames).flat_map(|n| planes.iter().map(move |plane| plane[n])).collect();
    let data = pcm16(&samples);
    let (channels, width) = (planes.len() as u16, planes.len() as u16 * 2);
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((data.len() as u32 + 60).to_le_bytes());
    bytes.extend(b"WAVEfmt \x28\0\0\0\xfe\xff");
    bytes.extend(channels.to_le_bytes());
    bytes.extend(HZ.to_le_bytes());
    bytes.extend((HZ * u32::from(width)).to_le_bytes());
    bytes.extend(width.to_le_bytes());
    bytes.extend([16, 0, 22, 0, 16, 0]);
    bytes.extend(mask.to_le_bytes());
    bytes.extend(b"\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71");
    bytes.extend(b"data");
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

fn tone(hz: f64, amplitude: f64) -> Vec<f64> {
    sine(HZ, hz, amplitude, 4.0)
}

fn silent() -> Vec<f64> {
    vec![0.0; 4 * HZ as usize]
}

const FIVE_ONE_SIDE: u32 = 0x60f;
const FIVE_ONE_BACK: u32 = 0x3f;

#[test]
fn a_low_frequency_channel_is_no_voice_and_in_no_mix() {
    let voice = babble(HZ, 4.0, 0.1);
    let rumble = tone(60.0, 0.5);
    for (name, planes, mask) in [
        ("3.1", vec![silent(), silent(), voice.clone(), rumble.clone()], 0xf),
        ("mono and low", vec![voice.clone(), rumble.clone()], 0xc),
        ("two legs and low", vec![voice.clone(), silent(), rumble.clone()], 0xb),
        ("5.1", vec![silent(), silent(), voice.clone(), rumble.clone(), silent(), silent()], FIVE_ONE_SIDE),
    ] {
        let studio = Studio::new(&extensible(&planes, mask));
        let heard = studio.run().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(usize::from(heard.normalized.source.channels), planes.len(), "{name}");
        for second in [0.5, 1.5, 3.0] {
            // The syllables themselves have a trace of it; mixed in, it would be louder than they are.
            assert!(heard.tone(second, 60.0) < 0.02, "{name}: {} at {second}", heard.tone(second, 60.0));
        }
        // The rumble is 12 dB above the voice; the loudness is the voice's.
        let alone =
            Heard::of(&extensible(std::slice::from_ref(&voice), 0x4)).normalized.loudness.integrated_lufs.unwrap();
        let measured = heard.normalized.loudness.integrated_lufs.unwrap();
        assert!((measured - alone).abs() < 0.1, "{name}: {measured} {alone}");
        let mut speech = SpeechSink::new(&studio.settings, studio.folder.path());
        studio.run_with(&mut [&mut speech], &CancelFlag::default()).unwrap();
        let legs = speech.finish().unwrap().legs.len();
        assert_eq!(legs, if name == "two legs and low" { 2 } else { 1 }, "{name}");
    }
}

#[test]
fn loudness_is_that_of_the_reference_meter() {
    let planes: Vec<Vec<f64>> = (0..6).map(|n| tone(400.0 + 130.0 * f64::from(n), 0.02 * f64::from(n + 1))).collect();
    for (mask, map) in [
        (FIVE_ONE_SIDE, [Left, Right, Center, Unused, LeftSurround, RightSurround]),
        (FIVE_ONE_BACK, [Left, Right, Center, Unused, LeftSurround, RightSurround]),
        // Nobody says where they belong: all alike, as six legs.
        (0, [Left, Left, Left, Left, Left, Left]),
    ] {
        let mut reference = EbuR128::new(6, HZ, Mode::I).unwrap();
        reference.set_channel_map(&map).unwrap();
        let samples: Vec<f32> =
            (0..planes[0].len()).flat_map(|n| planes.iter().map(move |plane| plane[n] as f32)).collect();
        reference.add_frames_f32(&samples).unwrap();
        let expected = reference.loudness_global().unwrap();
        let measured = Heard::of(&extensible(&planes, mask)).normalized.loudness.integrated_lufs.unwrap();
        assert!((measured - expected).abs() < 0.1, "{mask:#x}: {measured} {expected}");
    }
}

#[test]
fn one_channel_is_a_proper_downmix() {
    // BS.775-4: centre 1, front 0.7071, surround 0.5. Tones of one strength keep these shares to each other.
    let hz = [500.0, 700.0, 900.0, 0.0, 1_100.0, 1_300.0];
    let planes: Vec<Vec<f64>> = hz.iter().map(|hz| if *hz > 0.0 { tone(*hz, 0.1) } else { silent() }).collect();
    for mask in [FIVE_ONE_SIDE, FIVE_ONE_BACK] {
        let heard = Heard::of(&extensible(&planes, mask));
        let centre = heard.tone(2.0, 900.0);
        for (hz, share) in [(500.0, FRAC_1_SQRT_2), (700.0, FRAC_1_SQRT_2), (1_100.0, 0.5), (1_300.0, 0.5)] {
            let measured = heard.tone(2.0, hz) / centre;
            assert!((measured - share).abs() < 0.01, "{mask:#x}, {hz}: {measured}");
        }
    }
    let legs: Vec<Vec<f64>> = [500.0, 700.0, 900.0].iter().map(|hz| tone(*hz, 0.1)).collect();
    let heard = Heard::of(&extensible(&legs, 0));
    for hz in [700.0, 900.0] {
        let measured = heard.tone(2.0, hz) / heard.tone(2.0, 500.0);
        assert!((measured - 1.0).abs() < 0.01, "{hz}: {measured}");
    }
}
