//! The decoder against symphonia's, frame by frame.

use std::path::Path;

use symphonia::core::codecs::audio::well_known::CODEC_ID_MP3;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};

use super::Layer3;
use crate::audio::decode::make_decoder;
use crate::audio::frames::{FrameHeader, Syntax};

fn symphonia() -> Box<dyn AudioDecoder> {
    let mut params = AudioCodecParameters::new();
    params.for_codec(CODEC_ID_MP3);
    make_decoder(&params, AudioDecoderOptions::default().gapless(false), "mp3").unwrap()
}

fn frames(bytes: &[u8]) -> Vec<(FrameHeader, Vec<u8>)> {
    let (mut all, mut at) = (Vec::new(), 0);
    while at + 4 < bytes.len() {
        match Syntax::Mpeg.parse(&bytes[at..]).filter(|header| at + header.len <= bytes.len()) {
            Some(header) => {
                all.push((header, bytes[at..at + header.len].to_vec()));
                at += header.len;
            }
            None => at += 1,
        }
    }
    all
}

/// Frames in which both decoders found something, and the largest difference between them.
fn compare(frames: &[(FrameHeader, Vec<u8>)]) -> (u32, f32) {
    let (mut ours, mut theirs) = (Layer3::default(), symphonia());
    let (mut made, mut planes) = (Vec::new(), Vec::<Vec<f32>>::new());
    let (mut good, mut worst, mut before) = (0, 0.0f32, 1.0f32);
    for (header, frame) in frames {
        let packet = PacketRef::new(0, Timestamp::ZERO, Duration::from(u64::from(header.samples)), frame);
        let there = theirs.decode_ref(&packet).map(|buffer| buffer.copy_to_vecs_planar(&mut planes)).is_ok();
        let here = ours.decode(header, frame, &mut made).is_ok();
        if !here || !there {
            // From here on they remember different things.
            (ours, theirs) = (Layer3::default(), symphonia());
            continue;
        }
        good += 1;
        assert_eq!(made.len(), planes.len());
        // A loud frame rings on in the next, and so do its roundings.
        let loudest = planes.iter().flatten().fold(1.0, |most: f32, sample| most.max(sample.abs()));
        for (made, plane) in made.iter().zip(&planes) {
            assert_eq!(made.len(), plane.len());
            let off = made.iter().zip(plane).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
            worst = worst.max(off / loudest.max(before));
        }
        before = loudest;
    }
    (good, worst)
}

fn fixture(name: &str) -> Vec<(FrameHeader, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audio").join(name);
    frames(&std::fs::read(path).unwrap())
}

#[test]
fn recordings_decode_alike() {
    for name in ["tones.mp3", "tones_bare.mp3", "other.mp3", "speech.mp3"] {
        let frames = fixture(name);
        let (good, worst) = compare(&frames);
        assert!(good as usize >= frames.len() - 2 && worst < 1e-5, "{name}: {good} of {}, {worst}", frames.len());
    }
}

/// Of a frame of MPEG 1: its header, and of each channel of a granule the side information and, first in it, the length.
const HEADER_BITS: usize = 32;
const CODING_BITS: usize = 59;
const LENGTH_BITS: usize = 12;

/// Bits of headers and side information changed at random make blocks of every kind, joint stereo of every kind and
/// tables of every kind: noise, but the same noise.
#[test]
fn nonsense_decodes_alike() {
    for (name, every) in [("tones_bare.mp3", 5), ("other.mp3", 3), ("speech.mp3", 4)] {
        let mut frames = fixture(name);
        let mut state = 11u32;
        let mut noise = |most: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % most
        };
        for (header, frame) in &mut frames {
            if header.channels == 2 {
                // Joint stereo; which of its kinds changes.
                frame[3] = frame[3] & 0x0f | 0x40 | (noise(4) as u8) << 4;
            }
            // Not the lengths of what is coded, from which symphonia works out what later frames may lean on.
            let (first, codings) = if header.channels == 1 { (18, 2) } else { (20, 4) };
            let place = noise(CODING_BITS * codings);
            if place % CODING_BITS >= LENGTH_BITS && noise(every) == 0 {
                let bit = HEADER_BITS + first + place;
                frame[bit / 8] ^= 0x80 >> (bit % 8);
            }
        }
        let (good, worst) = compare(&frames);
        assert!(good as usize > frames.len() / 2 && worst < 1e-4, "{name}: {good} of {}, {worst}", frames.len());
    }
}
