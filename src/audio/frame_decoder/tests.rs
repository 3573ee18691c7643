//! Layer III frame by frame. The reference is nanomp3 on the same frames.

use std::path::Path;

use nanomp3_core::DecodeError;

use super::*;
use crate::audio::bits::BitWriter;

type Frame = (FrameHeader, Vec<u8>);

fn fixture(name: &str) -> Vec<Frame> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audio").join(name);
    let bytes = std::fs::read(path).unwrap();
    let (mut all, mut at) = (Vec::new(), 0);
    while at + 4 < bytes.len() {
        match FrameSyntax::Mpeg.parse(&bytes[at..]).filter(|header| at + header.len <= bytes.len()) {
            Some(header) => {
                all.push((header, bytes[at..at + header.len].to_vec()));
                at += header.len;
            }
            None => at += 1,
        }
    }
    all
}

/// The result of each frame, and the samples of its first channel. After a broken frame a new decoder begins.
fn decode(frames: &[Frame]) -> Vec<(Decoded, Vec<f32>)> {
    let mut decoder = None;
    let step = |(header, frame): &Frame| {
        let mut block = Block::default();
        let now = decoder.get_or_insert_with(|| FrameDecoder::new(FrameSyntax::Mpeg, header).unwrap());
        let decoded = now.decode(header, frame, &mut block);
        if decoded == Decoded::Broken {
            decoder = None;
        }
        (decoded, block.planes.into_iter().next().unwrap_or_default())
    };
    frames.iter().map(step).collect()
}

/// The same by nanomp3: whether the frame's bytes were there, and its samples.
fn reference(frames: &[Frame]) -> Vec<(bool, Vec<f32>)> {
    let (mut decoder, mut pcm) = (Box::<Decoder>::default(), vec![0.0; MAX_SAMPLES_PER_FRAME]);
    let step = |(header, frame): &Frame| match decoder.decode(frame, &mut pcm).1 {
        Ok(info) => {
            let samples = pcm.iter().step_by(usize::from(header.channels)).take(info.samples_produced);
            (true, samples.copied().collect())
        }
        Err(DecodeError::ReservoirUnavailable(_)) => (false, Vec::new()),
        Err(error) => panic!("{error}"),
    };
    frames.iter().map(step).collect()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

#[test]
fn recordings_decode_as_by_another_decoder() {
    for name in ["tones.mp3", "tones_bare.mp3", "other.mp3", "speech.mp3"] {
        let frames = fixture(name);
        for (n, ((decoded, here), (_, there))) in decode(&frames).iter().zip(reference(&frames)).enumerate() {
            assert_eq!(*decoded, Decoded::Whole, "{name} {n}");
            assert!(difference(here, &there) < 1e-5, "{name} {n}");
        }
    }
}

#[test]
fn frames_whose_bytes_are_gone_are_not_whole() {
    let mut part = 0;
    for name in ["tones_bare.mp3", "other.mp3", "speech.mp3"] {
        let frames = fixture(name);
        for first in (1..60).step_by(4) {
            let frames = &frames[first..first + 12];
            for (n, ((decoded, _), (there, _))) in decode(frames).iter().zip(reference(frames)).enumerate() {
                assert_eq!(*decoded == Decoded::Whole, there, "{name} {first} {n}");
                part += u32::from(!there);
            }
        }
    }
    assert!(part > 20, "{part}");
}

/// Symphonia drops as many bytes of its reservoir as a frame claims, even if the claim is wrong. It fills later frames
/// that need these bytes with silence.
#[test]
fn a_wrong_length_costs_few_frames_and_is_not_silence_that_counts_as_sound() {
    /// Of MPEG 1 with one channel, without a checksum: where the length of the first granule stands.
    const LENGTH_AT: usize = 32 + 18;
    let mut part = 0;
    let frames = &fixture("speech.mp3")[..300];
    let clean = decode(frames);
    for wrong in (100..290).step_by(9) {
        let mut frames = frames[wrong - 60..wrong + 10].to_vec();
        let (header, frame) = &mut frames[60];
        assert_eq!((header.channels, header.main_data), (1, 21));
        for bit in LENGTH_AT + 2..LENGTH_AT + 5 {
            frame[bit / 8] ^= 0x80 >> (bit % 8);
        }
        let after = &decode(&frames)[61..];
        part += after.iter().filter(|(decoded, _)| *decoded == Decoded::InPart).count();
        assert!(after.iter().filter(|(decoded, _)| *decoded != Decoded::Whole).count() <= 4, "{wrong}");
        // The windows and the filter bank reach into the two frames behind one that is not whole.
        for n in 2..after.len() {
            if after[n - 2..=n].iter().all(|(decoded, _)| *decoded == Decoded::Whole) {
                assert!(difference(&after[n].1, &clean[wrong + 1 + n].1) < 1e-5, "{wrong} {n}");
            }
        }
    }
    assert!(part > 0);
}

/// Windows of a granule, by their bits: the switch, the kind, whether mixed.
const LONG: u64 = 0b0000;
const START: u64 = 0b1010;
const SHORT: u64 = 0b1100;
const MIXED: u64 = 0b1101;
const STOP: u64 = 0b1110;

/// A frame of MPEG 1 or 2, one channel, whose granules have these windows and lines of -1, 0 and 1.
fn made(mpeg1: bool, windows: &[u64], noise: &mut impl FnMut() -> u32) -> Frame {
    /// Pairs of lines.
    const PAIRS: u32 = 200;
    let (mut data, mut lengths) = (BitWriter::default(), Vec::new());
    for _ in windows {
        let mut len = 0;
        for _ in 0..PAIRS {
            // Table 1 of ISO/IEC 11172-3 B.7, with the signs.
            let (code, count, signs) = [(1, 1, 0), (1, 2, 1), (1, 3, 1), (0, 3, 2)][noise() as usize % 4];
            data.put(code, count);
            data.put(u64::from(noise()) & ((1 << signs) - 1), signs);
            len += count + signs;
        }
        lengths.push(len);
    }
    data.align();
    let mut bits = BitWriter::default();
    // 160 or 80 kbit/s at 48 or 24 kHz.
    bits.put(if mpeg1 { 0xfffb_a4c0 } else { 0xfff3_94c0 }, 32);
    bits.put(0, if mpeg1 { 18 } else { 9 });
    for (windows, len) in windows.iter().zip(lengths) {
        bits.put(u64::from(len), 12);
        bits.put(u64::from(PAIRS), 9);
        bits.put(190, 8);
        bits.put(0, if mpeg1 { 4 } else { 9 });
        if *windows == LONG {
            // Table 1 thrice; regions of 8 and 8 bands.
            bits.put(0, 1);
            for table in [1, 1, 1] {
                bits.put(table, 5);
            }
            bits.put(7, 4);
            bits.put(7, 3);
        } else {
            // Table 1 twice, windows of different gain.
            bits.put(*windows, 4);
            for table in [1, 1] {
                bits.put(table, 5);
            }
            for gain in [0, 1, 2] {
                bits.put(gain, 3);
            }
        }
        bits.put(0, if mpeg1 { 3 } else { 2 });
    }
    bits.align();
    let mut frame = bits.bytes().to_vec();
    let header = FrameSyntax::Mpeg.parse(&frame).unwrap();
    assert_eq!(frame.len(), header.main_data);
    frame.extend_from_slice(data.bytes());
    assert!(frame.len() <= header.len, "{} {}", frame.len(), header.len);
    frame.resize(header.len, 0);
    (header, frame)
}

#[test]
fn mixed_blocks_are_decoded() {
    let mut state = 7u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    for mpeg1 in [true, false] {
        let granules: Vec<u64> =
            [LONG; 12].into_iter().chain([START, MIXED, SHORT, STOP, LONG, START, MIXED, STOP]).collect();
        let granules = granules.repeat(3);
        let frames: Vec<Frame> =
            granules.chunks(if mpeg1 { 2 } else { 1 }).map(|windows| made(mpeg1, windows, &mut noise)).collect();
        let mut symphonia = FrameDecoder::new(FrameSyntax::Mpeg, &frames[0].0).unwrap().decoder;
        let (mut wrong, mut planes) = (Vec::new(), Vec::<Vec<f32>>::new());
        for (n, ((decoded, here), (_, there))) in decode(&frames).iter().zip(reference(&frames)).enumerate() {
            assert_eq!(*decoded, Decoded::Whole);
            assert!(there.iter().any(|sample| sample.abs() > 1e-3));
            assert!(difference(here, &there) < 1e-5, "{mpeg1} {n}: {}", difference(here, &there));
            let packet = PacketRef::new(0, Timestamp::ZERO, Duration::from(1152u32), &frames[n].1);
            symphonia.decode_ref(&packet).unwrap().copy_to_vecs_planar(&mut planes);
            if difference(&planes[0], &there) > 1e-5 {
                wrong.push(n);
            }
        }
        // When symphonia gets them right by itself, `MixedBlocks` may go.
        assert!(wrong.len() > 6, "{mpeg1}: {wrong:?}");
    }
}
