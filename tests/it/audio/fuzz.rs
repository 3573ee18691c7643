//! Bytes changed, cut out, doubled and swapped at random: every file ends in a result or a typed error, never longer than
//! its bytes can account for. `AFTERCALL_FUZZ_FILES=10000 cargo test --release --test it fuzz` is the long run; coverage
//! guided targets are under `tests/fuzz`.

use aftercall::domain::Classify;
use aftercall::domain::Fault;

use super::pbx::{aiff, au, wav49};
use super::riff::{call, wave64};
use super::{Noise, Studio, fixture, pcm16, sine, wav};

/// Files per codec where nothing is asked for.
const FEW: u32 = 6;
/// The longest anything made of six seconds may become: all of it said twice, and a hole as long again.
const MOST_MS: u64 = 60_000;

pub fn files() -> u32 {
    std::env::var("AFTERCALL_FUZZ_FILES").ok().and_then(|count| count.parse().ok()).unwrap_or(FEW)
}

fn mutate(bytes: &mut Vec<u8>, noise: &mut Noise) {
    for _ in 0..=noise.next() % 40 {
        if bytes.is_empty() {
            return;
        }
        // Headers are where the interesting lies are: half of the changes go there.
        let reach = if noise.next().is_multiple_of(2) { bytes.len() } else { bytes.len().min(300) };
        let at = noise.next() as usize % reach;
        let len = (noise.next() as usize % 200).min(bytes.len() - at);
        match noise.next() % 6 {
            0 => bytes[at] = noise.next() as u8,
            1 => bytes[at..at + len].fill(0),
            2 => bytes[at..(at + 8).min(reach)].fill(0xff),
            3 => drop(bytes.drain(at..at + len)),
            4 => bytes.truncate(bytes.len() - len),
            _ => {
                let copy = bytes[at..at + len].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

/// A result no longer than this, or an error that is the recording's; whether it was a result.
pub fn assert_typed(name: &str, bytes: &[u8], most_ms: u64) -> bool {
    match Studio::new(bytes).run() {
        Ok(heard) => {
            let ms = heard.normalized.duration_ms;
            assert!(ms < most_ms, "{name}: {ms} ms");
            true
        }
        // The recording's fault, never this program's: nothing to be tried again.
        Err(error) => {
            assert!(error.fault() == Fault::Permanent && error.outcome().is_some(), "{name}: {error}");
            false
        }
    }
}

/// Runs the seeded corpus of one recording; how many of it gave a result.
fn run(name: &str, whole: &[u8]) -> u32 {
    let mut good = 0;
    for seed in 0..files() {
        let mut noise = Noise(seed.wrapping_mul(2_654_435_761) ^ whole.len() as u32);
        let mut bytes = whole.to_vec();
        mutate(&mut bytes, &mut noise);
        good += u32::from(assert_typed(&format!("{name}, seed {seed}"), &bytes, MOST_MS));
    }
    good
}

macro_rules! codecs {
    ($($test:ident: $file:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            run($file, &fixture($file));
        })*
    };
}

codecs! {
    mp3: "tones.mp3",
    mp3_without_note: "tones_bare.mp3",
    mp3_stereo: "other.mp3",
    mp3_free_format: "tones_free.mp3",
    mp2: "tones.mp2",
    mp4: "tones.m4a",
    adts: "tones.aac",
    vorbis: "tones.ogg",
    flac: "tones.flac",
    opus_in_ogg: "tones_opus.ogg",
    opus_in_matroska: "tones_opus.webm",
    he_aac: "he_v1_explicit.m4a",
    he_aac_with_stereo: "he_v2_explicit.m4a",
    rf64: "rf64_tail.wav",
    wav_with_a_stale_header: "stale_header.wav",
}

#[test]
fn wav_of_all_kinds() {
    let tone = sine(8_000, 500.0, 0.25, 2.0);
    let sixteen = pcm16(&tone);
    let eight: Vec<u8> = tone.iter().map(|sample| (sample * 127.0 + 128.0) as u8).collect();
    for (tag, bits, data) in [(1, 16, &sixteen), (1, 8, &eight), (7, 8, &eight), (6, 8, &eight)] {
        run("wav", &wav(tag, bits, 1, 8_000, data, data.len() as u32));
    }
}

#[test]
fn containers_of_exchanges() {
    let call = call();
    let sixteen = pcm16(&call);
    run("wave64", &wave64(&sixteen, 24 + sixteen.len() as u64, &[]));
    run("two recordings in one wav", &wav(1, 16, 1, 8_000, &sixteen, sixteen.len() as u32).repeat(2));
    run("aiff", &aiff(16, None, &sixteen, sixteen.len() as u32 + 8, &[]));
    run("au", &au(3, &sixteen, sixteen.len() as u32, &[]));
    run("gsm", &wav49(&call, None));
}
