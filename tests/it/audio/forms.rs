//! Every container and codec calls come in, and every width of sample.

use aftercall::audio::probe::{Sniffed, sniff};
use aftercall::domain::{Container, RecordingState};

use super::{Heard, Studio, fixture, pcm16, sine, wav};

#[test]
fn every_container_sounds_the_same() {
    for (name, container, codec) in [
        ("tones.mp3", Container::Mp3, "mp3"),
        ("tones_bare.mp3", Container::Mp3, "mp3"),
        ("tones_free.mp3", Container::Mp3, "mp3"),
        ("tones.mp2", Container::Mp3, "mp2"),
        ("tones.m4a", Container::Mp4, "aac"),
        ("tones.aac", Container::Adts, "aac"),
        ("tones.ogg", Container::Ogg, "vorbis"),
        ("tones.flac", Container::Flac, "flac"),
        ("tones_opus.ogg", Container::Ogg, "opus"),
        ("tones_opus.webm", Container::Matroska, "opus"),
    ] {
        let studio = Studio::new(&fixture(name));
        assert_eq!(sniff(&studio.input()).unwrap(), Sniffed::Audio(container), "{name}");
        let heard = studio.run().unwrap_or_else(|error| panic!("{name}: {error}"));
        heard.assert_tones(0.0);
        let source = &heard.normalized.source;
        assert_eq!((source.codec.as_str(), source.lost_ms, source.state), (codec, 0, RecordingState::Ok), "{name}");
        // Without a note on delay and padding a file keeps them; with one it is as long as what went in.
        let bare = matches!(name, "tones_bare.mp3" | "tones.aac" | "tones.mp2");
        // Symphonia does not read how much of the last packet Matroska says to discard.
        let tolerance = if bare {
            80
        } else if name == "tones_opus.webm" {
            20
        } else {
            1
        };
        assert!(heard.normalized.duration_ms.abs_diff(6_000) <= tolerance, "{name}: {}", heard.normalized.duration_ms);
    }
}

/// ITU-T G.711 mu-law, by search over its own decoding rule.
fn mu_law(sample: f64) -> u8 {
    let level = |code: u8| {
        let code = !code;
        let magnitude = (((i32::from(code & 15) << 3) + 0x84) << (code >> 4 & 7)) - 0x84;
        f64::from(if code & 0x80 != 0 { -magnitude } else { magnitude }) / 32_768.0
    };
    (0..=255).min_by(|a, b| (level(*a) - sample).abs().total_cmp(&(level(*b) - sample).abs())).unwrap()
}

#[test]
fn wav_files_of_every_kind_and_with_every_lie() {
    let wave = sine(8_000, 500.0, 0.25, 2.0);
    let eight: Vec<u8> = wave.iter().map(|s| (128.0 + s * 127.0).round() as u8).collect();
    let law: Vec<u8> = wave.iter().map(|s| mu_law(*s)).collect();
    let sixteen = pcm16(&wave);
    let float: Vec<u8> = wave.iter().flat_map(|s| (*s as f32).to_le_bytes()).collect();
    let honest = sixteen.len() as u32;
    for (bytes, codec, warned) in [
        (wav(1, 8, 1, 8_000, &eight, eight.len() as u32), "pcm_u8", false),
        (wav(7, 8, 1, 8_000, &law, law.len() as u32), "pcm_mulaw", false),
        (wav(3, 32, 1, 8_000, &float, float.len() as u32), "pcm_f32le", false),
        (wav(1, 16, 1, 8_000, &sixteen, honest), "pcm_s16le", false),
        (wav(1, 16, 1, 8_000, &sixteen, 0), "pcm_s16le", false),
        (wav(1, 16, 1, 8_000, &sixteen, u32::MAX), "pcm_s16le", false),
        (wav(1, 16, 1, 8_000, &sixteen, honest * 100), "pcm_s16le", true),
    ] {
        let heard = Heard::of(&bytes);
        heard.assert_tone(0.2, 500.0);
        heard.assert_tone(1.7, 500.0);
        let normalized = &heard.normalized;
        assert_eq!((normalized.duration_ms, normalized.source.lost_ms), (2_000, 0), "{codec}");
        assert_eq!(normalized.source.codec, codec);
        assert_eq!(normalized.warnings.len(), usize::from(warned), "{:?}", normalized.warnings);
    }
}
