use super::*;
use crate::audio::block::Block;
use crate::audio::decode::open;
use crate::audio::decoder::Step;
use crate::domain::Container;

fn round_trip(samples: &[i16]) -> WrittenFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audio.flac");
    let mut writer = FlacWriter::create(&path).unwrap();
    for chunk in samples.chunks(5000) {
        writer.push(chunk).unwrap();
    }
    let written = writer.finish().unwrap();
    let mut decoder = open(&path, Container::Flac).unwrap();
    let (mut block, mut out) = (Block::default(), Vec::new());
    while decoder.next(&mut block).unwrap() == Step::Audio {
        out.extend(block.planes[0].iter().map(|sample| (sample * 32_768.0) as i16));
    }
    assert_eq!(out.len(), samples.len());
    assert!(out == samples);
    written
}

#[test]
fn speech_like_noise_silence_and_extremes_come_back_bit_for_bit() {
    let mut state = 9u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as i16
    };
    let mut samples: Vec<i16> = (0..20_000).map(|n| (8000.0 * (f64::from(n) * 0.05).sin()) as i16).collect();
    samples.resize(29_000, 0);
    samples.extend((0..9000).map(|_| noise()));
    samples.extend((0..9000).map(|n| if n % 2 == 0 { i16::MAX } else { i16::MIN }));
    samples.extend((0..9000).map(|_| noise() / 256));
    round_trip(&samples);
}

#[test]
fn speech_of_two_legs_comes_back_as_two_channels() {
    let leg = |step: f32, length: usize| (0..length).map(|n| (n as f32 * step).sin() * 0.5).collect::<Vec<f32>>();
    let (left, right) = (leg(0.03, 40_000), leg(0.11, 39_000));
    let mut flac = SpeechFlac::new(2);
    flac.push(&[left[..20_000].to_vec(), right[..20_000].to_vec()]);
    flac.push(&[left[20_000..].to_vec(), right[20_000..].to_vec()]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sent.flac");
    std::fs::write(&path, flac.finish()).unwrap();
    let mut decoder = open(&path, Container::Flac).unwrap();
    let (mut block, mut out) = (Block::default(), [Vec::new(), Vec::new()]);
    while decoder.next(&mut block).unwrap() == Step::Audio {
        assert_eq!(block.rate_hz, SPEECH_RATE_HZ);
        out.iter_mut().zip(&block.planes).for_each(|(out, plane)| out.extend_from_slice(plane));
    }
    assert_eq!(out.each_ref().map(Vec::len), [40_000, 40_000]);
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(near(&out[0], &left) && near(&out[1], &right));
    assert!(out[1][39_000..].iter().all(|&sample| sample == 0.0));
}

#[test]
fn any_length() {
    for len in [1usize, 2, 5, 17, 4095, 4096, 4097] {
        round_trip(&(0..len).map(|n| (n * 37 % 1000) as i16).collect::<Vec<_>>());
    }
}

#[test]
fn a_tone_takes_less_than_its_pcm() {
    let tone: Vec<i16> = (0..96_000).map(|n| (8000.0 * (f64::from(n) * 0.02).sin()) as i16).collect();
    assert!(round_trip(&tone).size_bytes < 96_000 * 2 / 2);
}

#[test]
fn long_files_have_numbers_of_several_bytes() {
    for (number, bytes) in
        [(0x7f, vec![0x7f]), (0x80, vec![0xc2, 0x80]), (0x7ff, vec![0xdf, 0xbf]), (0x800, vec![0xe0, 0xa0, 0x80])]
    {
        let mut bits = BitWriter::default();
        coded_number(&mut bits, number);
        assert_eq!(bits.bytes(), bytes, "{number:x}");
    }
}

/// A file of one frame with verbatim samples (RFC 9639 section 9.2.4) and this many channels.
fn verbatim(channels: u64, samples: u64) -> Vec<u8> {
    let mut info = BitWriter::default();
    info.put(samples << 16 | samples, 32);
    info.put(0, 48);
    info.put(48_000 << 8 | (channels - 1) << 5 | 15, 28);
    info.put(samples, 36);
    let mut frame = BitWriter::default();
    // Block size and rate come from elsewhere. Frame number 0.
    frame.put(0xfff8, 16);
    frame.put(0x70, 8);
    frame.put((channels - 1) << 4, 8);
    frame.put(0, 8);
    frame.put(samples - 1, 16);
    frame.put_crc8();
    for channel in 0..channels {
        frame.put(2, 8);
        (0..samples).for_each(|_| frame.put((channel + 1) << 10, 16));
    }
    frame.put_crc16();
    [b"fLaC\x80\0\0\x22", info.bytes(), &[0; 16], frame.bytes()].concat()
}

#[test]
fn channels_of_surround_have_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("surround.flac");
    for (channels, weights) in [
        (3, vec![1.0; 3]),
        (5, vec![1.0, 1.0, 1.0, 1.41, 1.41]),
        (6, vec![1.0, 1.0, 1.0, 0.0, 1.41, 1.41]),
        (8, vec![1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.41, 1.41]),
    ] {
        std::fs::write(&path, verbatim(channels, 4_096)).unwrap();
        let mut decoder = open(&path, Container::Flac).unwrap();
        let mut block = Block::default();
        assert_eq!(decoder.next(&mut block).unwrap(), Step::Audio, "{channels}");
        assert_eq!(block.layout.weights(block.planes.len()), weights, "{channels}");
        let levels: Vec<f32> = block.planes.iter().map(|plane| plane[100] * 32.0).collect();
        assert_eq!(levels, (1..=channels).map(|n| n as f32).collect::<Vec<_>>(), "in the order of the file");
    }
}
