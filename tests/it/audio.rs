//! Audio from outside: whole files through `normalize`, judged by what is heard in the result.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aftercall::audio::probe::{Sniffed, sniff};
use aftercall::audio::{AudioError, BlockSink, CancelFlag, NormalizeRequest, Normalized, normalize};
use aftercall::config;
use aftercall::domain::quality::Flag;
use aftercall::domain::{Container, Outcome, RecordingState};
use aftercall::quality::signal::SignalMeter;
use tempfile::TempDir;

mod containers;
mod damage;
mod forms;
mod fuzz;
mod he_aac;
mod levels;
mod offset;
mod ogg;
mod oracles;
mod pbx;
mod riff;
mod surround;
mod times;

const RATE: usize = 48_000;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audio").join(name)).unwrap()
}

const fn settings() -> config::Audio {
    config::Audio {
        target_lufs: -16.0,
        ceiling_dbtp: -1.0,
        max_duration: config::Span(Duration::from_secs(6 * 3600)),
        memory_cap_bytes: 64 << 20,
    }
}

/// A folder with one recording in it.
struct Studio {
    folder: TempDir,
    settings: config::Audio,
}

impl Studio {
    fn new(recording: &[u8]) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("in"), recording).unwrap();
        Self { folder, settings: settings() }
    }

    fn input(&self) -> PathBuf {
        self.folder.path().join("in")
    }

    fn wav(&self) -> PathBuf {
        self.folder.path().join("out.wav")
    }

    fn flac(&self) -> PathBuf {
        self.folder.path().join("out.flac")
    }

    fn run_with(&self, sinks: &mut [&mut dyn BlockSink], cancel: &CancelFlag) -> Result<Normalized, AudioError> {
        let Sniffed::Audio(container) = sniff(&self.input()).unwrap() else {
            return Err(AudioError::NotAudio { reason: "test" });
        };
        let (input, wav) = (self.input(), self.wav());
        let request = NormalizeRequest {
            input: &input,
            container,
            settings: &self.settings,
            spool: self.folder.path(),
            wav: Some(&wav),
            flac: None,
        };
        normalize(&request, sinks, cancel)
    }

    fn run(&self) -> Result<Heard, AudioError> {
        self.heard_by(&mut [])
    }

    fn heard_by(&self, sinks: &mut [&mut dyn BlockSink]) -> Result<Heard, AudioError> {
        let normalized = self.run_with(sinks, &CancelFlag::default())?;
        let mut reader = hound::WavReader::open(self.wav()).unwrap();
        let spec = reader.spec();
        assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (1, 48_000, 16));
        let samples = reader.samples::<i16>().map(|sample| f32::from(sample.unwrap()) / 32_768.0).collect();
        Ok(Heard { normalized, samples })
    }
}

/// What came out.
#[derive(Debug)]
struct Heard {
    normalized: Normalized,
    samples: Vec<f32>,
}

impl Heard {
    fn of(recording: &[u8]) -> Self {
        Studio::new(recording).run().unwrap()
    }

    fn window(&self, seconds: f64) -> &[f32] {
        let start = (seconds * RATE as f64) as usize;
        &self.samples[start..(start + RATE / 5).min(self.samples.len())]
    }

    /// Amplitude of a tone in the 200 ms from `seconds` on.
    fn tone(&self, seconds: f64, hz: f64) -> f64 {
        tone(self.window(seconds), hz)
    }

    fn rms(&self, seconds: f64) -> f64 {
        rms(self.window(seconds))
    }

    /// This tone and hardly anything else.
    fn assert_tone(&self, seconds: f64, hz: f64) {
        let (tone, rms) = (self.tone(seconds, hz), self.rms(seconds));
        assert!(rms > 0.05 && tone / std::f64::consts::SQRT_2 > 0.92 * rms, "{hz} Hz at {seconds} s: {tone} of {rms}");
    }

    fn assert_silence(&self, seconds: f64) {
        assert!(self.rms(seconds) < 0.002, "silence at {seconds} s: {}", self.rms(seconds));
    }

    /// Beeps of 1 kHz begin at these times and nowhere near them, seconds.
    fn assert_beeps(&self, times: &[f64]) {
        for &time in times {
            let beep = &self.samples[((time + 0.02) * RATE as f64) as usize..][..RATE * 6 / 100];
            let (of_beep, all) = (tone(beep, 1000.0), rms(beep));
            assert!(all > 0.02 && of_beep / std::f64::consts::SQRT_2 > 0.9 * all, "at {time} s: {of_beep} of {all}");
            let from = ((time - 0.3) * RATE as f64) as usize;
            let strengths: Vec<f64> =
                self.samples[from..from + RATE * 6 / 10].chunks(RATE / 200).map(|slice| tone(slice, 1000.0)).collect();
            let most = strengths.iter().fold(0.0, |most: f64, strength| most.max(*strength));
            let begin = strengths.iter().position(|strength| *strength > most / 2.0).unwrap() as f64 * 0.005 - 0.3;
            assert!(begin.abs() <= 0.015, "a beep {begin} s off {time} s");
        }
    }

    /// The three parts of the fixture, beginning at `start`.
    fn assert_tones(&self, start: f64) {
        self.assert_tone(start + 0.9, 440.0);
        self.assert_tone(start + 1.7, 440.0);
        self.assert_silence(start + 2.1);
        self.assert_silence(start + 3.7);
        self.assert_tone(start + 4.1, 880.0);
        self.assert_tone(start + 5.6, 880.0);
    }
}

/// Amplitude of a tone.
fn tone(window: &[f32], hz: f64) -> f64 {
    let (mut re, mut im) = (0.0, 0.0);
    for (n, sample) in window.iter().enumerate() {
        let angle = std::f64::consts::TAU * hz * n as f64 / RATE as f64;
        re += f64::from(*sample) * angle.cos();
        im += f64::from(*sample) * angle.sin();
    }
    2.0 * f64::hypot(re, im) / window.len() as f64
}

fn rms(window: &[f32]) -> f64 {
    (window.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / window.len() as f64).sqrt()
}

/// The result, and how many dropouts were found in it.
fn with_dropouts(recording: &[u8]) -> (Heard, u32) {
    let mut meter = SignalMeter::new();
    let heard = Studio::new(recording).heard_by(&mut [&mut meter]).unwrap();
    (heard, meter.finish().signal.dropouts)
}

#[test]
fn two_recordings_in_one_file_are_both_heard() {
    let one = fixture("tones.mp3");
    let heard = Heard::of(&[one.clone(), one].concat());
    heard.assert_tones(0.0);
    heard.assert_tones(6.0);
    assert_eq!((heard.normalized.duration_ms, heard.normalized.source.lost_ms), (12_000, 0));
    let bare = fixture("tones_bare.mp3");
    let heard = Heard::of(&[bare.clone(), bare].concat());
    heard.assert_tone(0.9, 440.0);
    heard.assert_tone(11.0, 880.0);
    assert_eq!(heard.normalized.source.lost_ms, 0);
}

#[test]
fn a_change_of_rate_and_channels_in_mid_stream_loses_nothing() {
    let heard = Heard::of(&[fixture("tones.mp3"), fixture("other.mp3"), fixture("tones.mp3")].concat());
    heard.assert_tones(0.0);
    heard.assert_tone(6.2, 660.0);
    heard.assert_tone(8.5, 660.0);
    heard.assert_tones(9.0);
    assert_eq!(heard.normalized.source.lost_ms, 0);
    assert!(heard.normalized.duration_ms.abs_diff(15_000) <= 2, "{}", heard.normalized.duration_ms);
}

#[test]
fn a_hole_becomes_silence_and_times_stay_true() {
    for name in ["tones.mp3", "tones_bare.mp3"] {
        let mut bytes = fixture(name);
        // 48 kbit/s: 6,000 bytes a second. Half a second is zeroed; the frames after it lean on bytes that are gone.
        bytes[6_000..9_000].fill(0);
        let heard = Heard::of(&bytes);
        heard.assert_silence(1.2);
        heard.assert_tone(1.75, 440.0);
        heard.assert_silence(2.2);
        heard.assert_tone(4.2, 880.0);
        heard.assert_tone(5.6, 880.0);
        let source = &heard.normalized.source;
        assert!(source.lost_ms.abs_diff(560) <= 80, "{name}: {}", source.lost_ms);
        assert_eq!(source.state, RecordingState::Degraded);
        assert!(heard.normalized.flags.contains(&Flag::Degraded));
    }
}

#[test]
fn a_truncated_recording_says_what_is_missing() {
    for name in ["tones.mp3", "tones.m4a", "tones.flac"] {
        let bytes = fixture(name);
        let bytes = if name == "tones.m4a" { faststart(&bytes) } else { bytes };
        let heard = Heard::of(&bytes[..bytes.len() * 8 / 10]);
        let source = &heard.normalized.source;
        assert_eq!(
            (source.state, source.expected_ms.abs_diff(6_000) < 50),
            (RecordingState::Degraded, true),
            "{name}: {source:?}"
        );
        assert!(source.lost_ms > 400 && source.lost_ms < 2_900, "{name}: {source:?}");
        let error = Studio::new(&bytes[..bytes.len() / 4]).run().unwrap_err();
        assert!(matches!(error, AudioError::Damaged { .. }), "{name}: {error}");
        assert_eq!(error.outcome(), Some(Outcome::Damaged));
    }
}

/// Puts the index of an MP4 in front of its sound, as streaming recorders do, and moves the chunk offsets along.
fn faststart(bytes: &[u8]) -> Vec<u8> {
    let (mut at, mut boxes) = (0, Vec::new());
    while at < bytes.len() {
        let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        boxes.push(&bytes[at..at + size]);
        at += size;
    }
    let named = |name: &[u8]| boxes.iter().copied().filter(|b| &b[4..8] == name).collect::<Vec<_>>().concat();
    let mut moov = named(b"moov");
    let shift = moov.len() as u32;
    let table = moov.windows(4).position(|w| w == b"stco").unwrap();
    let count = u32::from_be_bytes(moov[table + 8..table + 12].try_into().unwrap()) as usize;
    for n in 0..count {
        let entry = table + 12 + 4 * n;
        let offset = u32::from_be_bytes(moov[entry..entry + 4].try_into().unwrap());
        moov[entry..entry + 4].copy_from_slice(&(offset + shift).to_be_bytes());
    }
    let rest: Vec<u8> =
        boxes.iter().filter(|b| !matches!(&b[4..8], b"moov" | b"ftyp")).flat_map(|b| b.to_vec()).collect();
    [named(b"ftyp"), moov, rest].concat()
}

#[test]
fn corrupt_frames_do_not_shift_or_crush_the_rest() {
    let mut bytes = fixture("tones_bare.mp3");
    let mut noise = Noise(3);
    // Every byte of two separate segments of 0.2 s but the frame headers.
    for at in (7_000..8_200).chain(14_000..15_200) {
        if at % 144 > 4 {
            bytes[at] = noise.next() as u8;
        }
    }
    let heard = Heard::of(&bytes);
    assert!(heard.normalized.duration_ms.abs_diff(6_000) < 80);
    heard.assert_tone(0.5, 440.0);
    heard.assert_silence(3.2);
    heard.assert_tone(4.5, 880.0);
    heard.assert_tone(5.6, 880.0);
}

#[test]
fn junk_and_lying_tags_around_the_frames_cost_nothing() {
    let one = fixture("tones.mp3");
    let lying = [b"ID3\x03\0\0\x7f\x7f\x7f\x7f".to_vec(), one.clone()].concat();
    let junk = [(0..999u32).map(|n| (n * 7 % 250) as u8).collect(), one.clone(), vec![0x55; 500]].concat();
    let tag = [one.clone(), b"TAG".to_vec(), vec![b' '; 125]].concat();
    for bytes in [lying, junk, tag] {
        let heard = Heard::of(&bytes);
        heard.assert_tones(0.0);
        assert_eq!((heard.normalized.duration_ms, heard.normalized.source.lost_ms), (6_000, 0));
    }
}

/// A WAV file from samples already coded, with sizes as wanted.
fn wav(tag: u16, bits: u16, channels: u16, rate: u32, data: &[u8], claimed: u32) -> Vec<u8> {
    let width = channels * bits / 8;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend(claimed.wrapping_add(36).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0");
    bytes.extend(tag.to_le_bytes());
    bytes.extend(channels.to_le_bytes());
    bytes.extend(rate.to_le_bytes());
    bytes.extend((rate * u32::from(width)).to_le_bytes());
    bytes.extend(width.to_le_bytes());
    bytes.extend(bits.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend(claimed.to_le_bytes());
    bytes.extend(data);
    bytes
}

fn sine(rate: u32, hz: f64, amplitude: f64, seconds: f64) -> Vec<f64> {
    let step = std::f64::consts::TAU * hz / f64::from(rate);
    (0..(f64::from(rate) * seconds) as usize).map(|n| amplitude * (step * n as f64).sin()).collect()
}

fn pcm16(samples: &[f64]) -> Vec<u8> {
    samples.iter().flat_map(|s| ((s * 32_767.0).round() as i16).to_le_bytes()).collect()
}

#[test]
fn two_channels_of_one_sound_are_one_whatever_their_sign() {
    let wave = sine(16_000, 500.0, 0.25, 2.0);
    for (sign, flag) in [(1.0, Flag::DualMono), (-1.0, Flag::AntiPhase)] {
        let stereo: Vec<f64> = wave.iter().flat_map(|s| [*s, sign * s]).collect();
        let data = pcm16(&stereo);
        let heard = Heard::of(&wav(1, 16, 2, 16_000, &data, data.len() as u32));
        heard.assert_tone(0.05, 500.0);
        heard.assert_tone(1.5, 500.0);
        assert_eq!(heard.normalized.flags, [flag]);
        // Measured as recorded: both channels count (BS.1770-4), 3 dB more than one.
        let expected = 20.0 * 0.25f64.log10() - 0.691 + 0.0;
        let measured = heard.normalized.loudness.integrated_lufs.unwrap();
        assert!((measured - expected).abs() < 0.6, "{measured} {expected}");
    }
}

#[test]
fn what_does_not_fit_in_memory_gives_the_same_bytes() {
    let mut studio = Studio::new(&fixture("tones.mp3"));
    let stored = |studio: &Studio, wav: bool| {
        let (input, wav_path, flac) = (studio.input(), studio.wav(), studio.flac());
        let request = NormalizeRequest {
            input: &input,
            container: Container::Mp3,
            settings: &studio.settings,
            spool: studio.folder.path(),
            wav: wav.then_some(&*wav_path),
            flac: Some(&flac),
        };
        normalize(&request, &mut [], &CancelFlag::default()).unwrap().flac.unwrap().sha256
    };
    let in_memory = stored(&studio, false);
    // The samples wait in a file of the spool, and in the WAV to be.
    studio.settings.memory_cap_bytes = 100_000;
    assert_eq!(in_memory, stored(&studio, false));
    assert_eq!(std::fs::read_dir(studio.folder.path()).unwrap().count(), 2, "the recording and its output");
    assert_eq!(in_memory, stored(&studio, true));
    assert_eq!(std::fs::read_dir(studio.folder.path()).unwrap().count(), 3, "the recording and its outputs");
}

#[test]
fn limits_and_refusals_are_typed_and_leave_no_file() {
    let mut long = Studio::new(&fixture("tones.mp3"));
    long.settings.max_duration = config::Span(Duration::from_secs(5));
    let error = long.run().unwrap_err();
    assert_eq!((error.outcome(), long.wav().exists()), (Some(Outcome::TooLong), false));

    let ten = wav(1, 16, 10, 48_000, &vec![0; 20_000], 20_000);
    assert!(matches!(Studio::new(&ten).run().unwrap_err(), AudioError::TooManyChannels { channels: 10, .. }));
    let slow = wav(1, 16, 1, 100, &[0; 2_000], 2_000);
    assert!(matches!(Studio::new(&slow).run().unwrap_err(), AudioError::SampleRate { rate_hz: 100 }));

    for page in [&b"<html><body>expired</body></html>"[..], b"{\"error\":\"gone\"}", b""] {
        assert!(matches!(Studio::new(page).run().unwrap_err(), AudioError::NotAudio { .. }));
    }
}

#[test]
fn a_stopping_worker_leaves_nothing_behind() {
    let studio = Studio::new(&fixture("tones.mp3"));
    let cancel = CancelFlag::default();
    cancel.cancel();
    assert!(matches!(studio.run_with(&mut [], &cancel).unwrap_err(), AudioError::Cancelled));
    assert_eq!(std::fs::read_dir(studio.folder.path()).unwrap().count(), 1, "the recording alone");
}

#[test]
fn the_signal_is_measured_before_any_gain() {
    let clipped: Vec<f64> = sine(16_000, 300.0, 1.6, 2.0).iter().map(|s| s.clamp(-1.0, 1.0)).collect();
    let data = pcm16(&clipped);
    let studio = Studio::new(&wav(1, 16, 1, 16_000, &data, data.len() as u32));
    let mut meter = SignalMeter::new();
    studio.run_with(&mut [&mut meter], &CancelFlag::default()).unwrap();
    let measured = meter.finish();
    assert!(measured.signal.clipping_ratio > 0.4, "{:?}", measured.signal);
    assert!(measured.flags.contains(&Flag::Clipped));
}

struct Noise(u32);

impl Noise {
    const fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    fn uniform(&mut self) -> f64 {
        f64::from(self.next()) / f64::from(1 << 24)
    }
}
