//! What real files do, and what is to come of it: the whole table in one place. Every row is judged by its length, by what
//! is said of it, and by the tones at their times.

use aftercall::audio::AudioError;
use aftercall::domain::RecordingState;

use super::{Heard, Noise, Studio, faststart, fixture, pcm16, sine, wav};

/// What is to be heard: a tone (0 for silence) at a time, seconds.
type Sounds = &'static [(f64, f64)];

/// The fixture's two tones with silence between them.
const TONES: Sounds = &[(0.9, 440.0), (1.7, 440.0), (2.2, 0.0), (3.6, 0.0), (4.2, 880.0), (5.5, 880.0)];

struct Row {
    name: &'static str,
    bytes: Vec<u8>,
    /// How long the call was, in truth.
    true_ms: u64,
    /// The least and the most that may be said to be lost.
    lost_ms: (u64, u64),
    state: RecordingState,
    sounds: Sounds,
}

impl Row {
    fn check(&self) {
        let heard = Studio::new(&self.bytes).run().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let (normalized, source) = (&heard.normalized, &heard.normalized.source);
        let name = self.name;
        assert!(source.expected_ms.abs_diff(self.true_ms) <= 50, "{name}: expected {}", source.expected_ms);
        assert!((self.lost_ms.0..=self.lost_ms.1).contains(&source.lost_ms), "{name}: lost {}", source.lost_ms);
        assert_eq!(source.state, self.state, "{name}: {source:?}");
        // What is missing at the end is not made up; everything else is there or is silence of its length.
        let at_the_end = self.true_ms.saturating_sub(normalized.duration_ms);
        assert!(at_the_end <= self.lost_ms.1 + 50, "{name}: {} ms", normalized.duration_ms);
        assert!(normalized.duration_ms <= self.true_ms + 50, "{name}: {} ms", normalized.duration_ms);
        for &(seconds, hz) in self.sounds {
            match hz {
                0.0 => heard.assert_silence(seconds),
                hz => heard.assert_tone(seconds, hz),
            }
        }
    }
}

fn ok(name: &'static str, bytes: Vec<u8>, true_ms: u64, sounds: Sounds) -> Row {
    Row { name, bytes, true_ms, lost_ms: (0, 0), state: RecordingState::Ok, sounds }
}

fn degraded(name: &'static str, bytes: Vec<u8>, true_ms: u64, lost_ms: (u64, u64), sounds: Sounds) -> Row {
    Row { name, bytes, true_ms, lost_ms, state: RecordingState::Degraded, sounds }
}

/// 48 kbit/s at 48 kHz: a frame of 24 ms is 144 bytes.
const FRAME: usize = 144;

#[test]
fn appended_and_changing_files_lose_nothing() {
    let (tones, bare, other) = (fixture("tones.mp3"), fixture("tones_bare.mp3"), fixture("other.mp3"));
    let both: Sounds = &[(0.9, 440.0), (5.5, 880.0), (6.9, 440.0), (8.2, 0.0), (10.2, 880.0), (11.5, 880.0)];
    ok("pieces joined, each with a LAME header", [&tones[..], &tones].concat(), 12_000, both).check();
    ok("two bare MP3s joined", [&bare[..], &bare].concat(), 2 * 6_048, both).check();
    let changing: Sounds = &[(0.9, 440.0), (5.5, 880.0), (6.2, 660.0), (8.5, 660.0), (9.9, 440.0), (14.5, 880.0)];
    ok("mono, stereo at 44.1 kHz, mono", [&tones[..], &other, &tones].concat(), 15_000, changing).check();
    let layers: Sounds = &[(0.9, 440.0), (5.5, 880.0), (6.9, 440.0), (11.5, 880.0)];
    ok("layer III, then layer II", [&tones[..], &fixture("tones.mp2")].concat(), 12_024, layers).check();
}

#[test]
fn holes_are_silence_and_times_stay_true() {
    let later: Sounds = &[(0.5, 440.0), (1.2, 0.0), (1.75, 440.0), (4.2, 880.0), (5.5, 880.0)];
    let mut bytes = fixture("tones_bare.mp3");
    bytes[6_000..9_000].fill(0);
    degraded("a zeroed hole", bytes, 6_048, (480, 640), later).check();
    // Taken out instead: the note at the start still says how many frames there were.
    let mut bytes = fixture("tones.mp3");
    bytes.drain(170 * FRAME..200 * FRAME);
    // Main data of up to four frames after the cut (511 bytes of bit reservoir) lay in the frames taken out.
    degraded("frames dropped from silence", bytes, 6_000, (700, 820), &[(0.9, 440.0), (2.2, 0.0)]).check();
}

#[test]
fn cut_off_files_say_what_is_missing() {
    let start: Sounds = &[(0.9, 440.0), (1.7, 440.0), (2.2, 0.0), (4.2, 880.0)];
    for name in ["tones.mp3", "tones.m4a", "tones.flac"] {
        let bytes = fixture(name);
        let bytes = if name == "tones.m4a" { faststart(&bytes) } else { bytes };
        let cut = bytes[..bytes.len() * 8 / 10].to_vec();
        degraded(name, cut, 6_000, (400, 2_900), if name == "tones.mp3" { &start[..3] } else { &start[..2] }).check();
        let error = Studio::new(&bytes[..bytes.len() / 4]).run().unwrap_err();
        let AudioError::Damaged { expected_ms, lost_ms, .. } = error else { panic!("{name}: {error}") };
        assert!(expected_ms.abs_diff(6_000) <= 50 && lost_ms > 3_000, "{name}: {expected_ms} {lost_ms}");
    }
}

#[test]
fn corrupt_frames_neither_shift_nor_crush_the_rest() {
    let mut bytes = fixture("tones_bare.mp3");
    let mut noise = Noise(3);
    for at in (50 * FRAME..58 * FRAME).chain(100 * FRAME..108 * FRAME) {
        if at % FRAME > 4 {
            bytes[at] = noise.next() as u8;
        }
    }
    let heard = Heard::of(&bytes);
    assert!(heard.normalized.duration_ms.abs_diff(6_048) <= 50, "{}", heard.normalized.duration_ms);
    heard.assert_tone(0.5, 440.0);
    heard.assert_silence(3.2);
    heard.assert_tone(4.5, 880.0);
}

#[test]
fn what_is_around_the_sound_costs_nothing() {
    let tones = fixture("tones.mp3");
    let lying = [b"ID3\x03\0\0\x7f\x7f\x7f\x7f".to_vec(), tones.clone()].concat();
    ok("an ID3 size that lies", lying, 6_000, TONES).check();
    let mut tag = b"ID3\x03\0\0\0\0\x02\x00".to_vec();
    tag.extend([0x55; 256]);
    let ends = [tag, tones.clone(), b"TAG".to_vec(), vec![b' '; 125]].concat();
    ok("ID3 at both ends", ends, 6_000, TONES).check();
    let junk = [(0..999u32).map(|n| (n * 7 % 250) as u8).collect(), tones, vec![0x55; 500]].concat();
    ok("junk at both ends", junk, 6_000, TONES).check();
    ok("no note on the stream", fixture("tones_bare.mp3"), 6_048, TONES).check();
    ok("AAC with an edit list", fixture("tones.m4a"), 6_000, TONES).check();
}

#[test]
fn wav_headers_are_not_believed() {
    let data = pcm16(&sine(8_000, 500.0, 0.25, 2.0));
    let honest = data.len() as u32;
    let sounds: Sounds = &[(0.2, 500.0), (1.7, 500.0)];
    for (name, claimed) in [
        ("honest", honest),
        ("0", 0),
        ("0xFFFFFFFF", u32::MAX),
        // Two hours claimed, two seconds there.
        ("far longer than its data", 2 * 3600 * 16_000),
    ] {
        ok(name, wav(1, 16, 1, 8_000, &data, claimed), 2_000, sounds).check();
    }
}

/// Headers may promise hours: that alone is no reason to refuse. Hours of sound are, as soon as the limit is met.
#[test]
fn the_length_limit_is_for_what_is_there() {
    let mut promising = fixture("tones.mp3");
    let at = promising.windows(4).position(|window| window == b"Info" || window == b"Xing").unwrap() + 8;
    promising[at..at + 4].copy_from_slice(&(10 * 3600 * 1000 / 24u32).to_be_bytes());
    let error = Studio::new(&promising).run().unwrap_err();
    assert!(matches!(error, AudioError::Damaged { .. }), "{error}");

    let bare = fixture("tones_bare.mp3");
    let mut long = Studio::new(&bare.repeat(20));
    long.settings.max_duration = aftercall::config::Span(std::time::Duration::from_secs(60));
    assert!(matches!(long.run().unwrap_err(), AudioError::TooLong { limit_ms: 60_000 }));
    assert!(!long.wav().exists());
}
