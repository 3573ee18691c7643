//! WAV with headers that are wrong in every way seen, and with things behind the sound: what comes out is what comes out of
//! the same samples in a plain file, sample by sample.

use aftercall::domain::RecordingState;

use super::levels::babble;
use super::{Heard, RATE, fixture, pcm16, sine, wav};

const BEEP_HZ: f64 = 1_000.0;
const CALL_HZ: u32 = 8_000;

/// Three seconds of a call at 8 kHz: silence, 0.1 s of 1 kHz from 1 s on, and speech from 1.5 s on.
pub(super) fn call() -> Vec<f64> {
    let mut call = vec![0.0; 3 * CALL_HZ as usize];
    call[8_000..8_800].copy_from_slice(&sine(CALL_HZ, BEEP_HZ, 0.4, 0.1));
    call[12_000..].copy_from_slice(&babble(CALL_HZ, 1.5, 0.2));
    call
}

/// The beginning of the beep that is closest to `near`, seconds.
pub(super) fn beep(heard: &Heard, near: f64) -> f64 {
    let window = RATE / 200;
    let level = |start: usize| {
        let samples = &heard.samples[start..(start + window).min(heard.samples.len())];
        let (mut re, mut im) = (0.0, 0.0);
        for (n, sample) in samples.iter().enumerate() {
            let angle = std::f64::consts::TAU * BEEP_HZ * n as f64 / RATE as f64;
            re += f64::from(*sample) * angle.cos();
            im += f64::from(*sample) * angle.sin();
        }
        re.hypot(im)
    };
    let at = |seconds: f64| (seconds.max(0.0) * RATE as f64) as usize;
    let levels: Vec<(usize, f64)> =
        (at(near - 0.5)..at(near + 0.4)).step_by(48).map(|start| (start, level(start))).collect();
    let loudest = levels.iter().map(|(_, level)| *level).fold(0.0, f64::max);
    let (start, _) = levels.iter().find(|(_, level)| *level > 0.5 * loudest).unwrap();
    // Half of the window holds the tone.
    (*start + window / 2) as f64 / RATE as f64
}

fn chunk(name: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = name.to_vec();
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

/// Metadata that would be heard: square waves.
fn loud(len: usize) -> Vec<u8> {
    (0..len).map(|n| if n / 20 % 2 == 0 { 0x7f } else { 0x80 }).collect()
}

fn fmt(tag: u16, bits: u16) -> Vec<u8> {
    let width = bits / 8;
    let mut body = tag.to_le_bytes().to_vec();
    body.extend(1u16.to_le_bytes());
    body.extend(CALL_HZ.to_le_bytes());
    body.extend((CALL_HZ * u32::from(width)).to_le_bytes());
    body.extend(width.to_le_bytes());
    body.extend(bits.to_le_bytes());
    chunk(b"fmt ", &body)
}

/// RF64 or BW64: 32 bits of ones where the lengths were, and the lengths in `ds64`.
fn rf64(id: &[u8], data: &[u8], told: u64, behind: &[u8]) -> Vec<u8> {
    let mut ds64 = (data.len() as u64 + 72).to_le_bytes().to_vec();
    ds64.extend(told.to_le_bytes());
    ds64.extend((data.len() as u64 / 2).to_le_bytes());
    ds64.extend([0; 4]);
    let mut bytes = [id, b"\xff\xff\xff\xffWAVE", &chunk(b"ds64", &ds64), &fmt(1, 16), b"data"].concat();
    bytes.extend([0xff; 4]);
    [&bytes, data, behind].concat()
}

fn riff(data: &[u8], told: u32, behind: &[u8]) -> Vec<u8> {
    [&wav(1, 16, 1, CALL_HZ, data, told), behind].concat()
}

const WAVE64_TAIL: [u8; 12] = [0xf3, 0xac, 0xd3, 0x11, 0x8c, 0xd1, 0x00, 0xc0, 0x4f, 0x8e, 0xdb, 0x8a];

fn wave64_chunk(name: &[u8], body: &[u8], told: u64) -> Vec<u8> {
    let mut bytes = [name, &WAVE64_TAIL].concat();
    bytes.extend(told.to_le_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Sony Wave64, whose lengths count the 24 bytes in front.
pub(super) fn wave64(data: &[u8], told: u64, behind: &[u8]) -> Vec<u8> {
    let format = &fmt(1, 16)[8..];
    let mut bytes = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00".to_vec();
    bytes.extend((data.len() as u64 + 104).to_le_bytes());
    bytes.extend([b"wave", &WAVE64_TAIL[..]].concat());
    bytes.extend(wave64_chunk(b"fmt ", format, 24 + format.len() as u64));
    bytes.extend(wave64_chunk(b"data", data, told));
    [&bytes, behind].concat()
}

/// The same sound as the plain file, of this length, with nothing of what is around it.
fn assert_same(name: &str, bytes: &[u8], plain: &Heard) -> Heard {
    let heard = Heard::of(bytes);
    let (normalized, source) = (&heard.normalized, &heard.normalized.source);
    assert_eq!((source.lost_ms, source.state), (0, RecordingState::Ok), "{name}");
    let off_ms = normalized.duration_ms.abs_diff(plain.normalized.duration_ms);
    assert!(off_ms <= 1, "{name}: {} ms", normalized.duration_ms);
    let lufs = |heard: &Heard| heard.normalized.loudness.integrated_lufs.unwrap();
    assert!((lufs(&heard) - lufs(plain)).abs() < 0.1, "{name}: {} {}", lufs(&heard), lufs(plain));
    let apart = heard.samples.iter().zip(&plain.samples).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 0.02, "{name}: {apart}");
    assert!((beep(&heard, 1.0) - 1.0).abs() < 0.01, "{name}: {}", beep(&heard, 1.0));
    heard
}

fn plain(data: &[u8]) -> Heard {
    Heard::of(&riff(data, data.len() as u32, &[]))
}

#[test]
fn the_given_files() {
    for (name, behind) in [("rf64_tail.wav", 8_000), ("stale_header.wav", 0)] {
        let bytes = fixture(name);
        let data = bytes.windows(4).position(|window| window == b"data").unwrap() + 8;
        let samples = &bytes[data..data + 48_000];
        assert!(bytes.len() >= data + 48_000 + behind, "{name}: {behind} bytes behind");
        let plain = plain(samples);
        assert_eq!(plain.normalized.duration_ms, 3_000);
        assert_same(name, &bytes, &plain);
    }
}

#[test]
fn what_is_behind_the_sound_is_not_played() {
    let data = pcm16(&call());
    let (plain, honest) = (plain(&data), data.len() as u32);
    let list = chunk(b"LIST", &loud(30_001));
    let bext = chunk(b"bext", &loud(602));
    let axml = chunk(b"axml", &loud(96_000));
    let private = chunk(b"x#7 ", &loud(40_000));
    let mut id3v1 = b"TAG".to_vec();
    id3v1.extend(loud(125));
    let cut_off = list[..9_000].to_vec();
    for (name, behind) in [
        ("LIST", list.clone()),
        ("bext and axml", [bext.clone(), axml.clone()].concat()),
        ("a chunk nobody knows", private),
        ("ID3v1", id3v1),
        ("a LIST that is cut off", cut_off),
        ("space that was never written", vec![0; 50_000]),
    ] {
        assert_same(name, &riff(&data, honest, &behind), &plain);
        let id = if name.len() % 2 == 0 { b"RF64" } else { b"BW64" };
        assert_same(name, &rf64(id, &data, u64::from(honest), &behind), &plain);
        assert_same(name, &wave64(&data, 24 + u64::from(honest), &wave64_behind(&behind)), &plain);
    }
    // With lengths that say nothing, chunks that lead to the end of the file are known by that.
    let both = [bext, axml].concat();
    for (told, behind) in
        [(0, &list), (u32::MAX, &both), (u32::MAX - 80, &list), (honest / 3, &both), (honest * 50, &list)]
    {
        assert_same(&format!("behind {told}"), &riff(&data, told, behind), &plain);
    }
}

/// The same bytes in a chunk of Wave64.
fn wave64_behind(bytes: &[u8]) -> Vec<u8> {
    if bytes.iter().all(|byte| *byte == 0) {
        return bytes.to_vec();
    }
    wave64_chunk(b"list", bytes, 24 + bytes.len() as u64)
}

#[test]
fn lengths_that_are_no_lengths() {
    let data = pcm16(&call());
    let (plain, honest) = (plain(&data), data.len() as u32);
    for told in [0, u32::MAX, 0x7fff_f000, honest / 3, honest - 2_000, honest + 1, honest * 100] {
        assert_same(&format!("RIFF {told}"), &riff(&data, told, &[]), &plain);
    }
    let honest = u64::from(honest);
    for told in [0, honest / 3, honest * 1_000, u64::MAX, u64::from(u32::MAX)] {
        assert_same(&format!("RF64 {told}"), &rf64(b"RF64", &data, told, &[]), &plain);
        assert_same(&format!("Wave64 {told}"), &wave64(&data, told, &[]), &plain);
    }
}

#[test]
fn odd_lengths_with_their_padding_and_without() {
    let mut samples = call();
    samples.pop();
    let eight: Vec<u8> = samples.iter().map(|s| (128.0 + s * 127.0).round() as u8).collect();
    assert_eq!(eight.len() % 2, 1);
    let plain = Heard::of(&wav(1, 8, 1, CALL_HZ, &eight, eight.len() as u32));
    let list = chunk(b"LIST", &loud(7_000));
    let head = wav(1, 8, 1, CALL_HZ, &eight, eight.len() as u32);
    assert_same("padded", &[&head[..], &[0], &list].concat(), &plain);
    assert_same("not padded", &[&head[..], &list].concat(), &plain);
}

#[test]
fn a_second_header_begins_another_piece() {
    let data = pcm16(&call());
    let honest = data.len() as u32;
    let both = plain(&[&data[..], &data].concat());
    let list = chunk(b"LIST", &loud(3_000));
    let one = riff(&data, honest, &[]);
    for (name, bytes) in [
        ("two whole files", [&one[..], &one].concat()),
        ("metadata between them", [&riff(&data, honest, &list), &one[..]].concat()),
        ("within the length of the first", riff(&data, honest * 2 + 44, &one)),
        ("behind a stale length", [&riff(&data, honest / 3, &[]), &one[..]].concat()),
        ("behind no length", [&riff(&data, u32::MAX, &[]), &one[..]].concat()),
        ("both stale", [riff(&data, honest / 3, &[]), riff(&data, honest / 3, &list)].concat()),
        ("RF64 behind RIFF", [&one[..], &rf64(b"RF64", &data, u64::from(honest), &list)].concat()),
    ] {
        let heard = assert_same(name, &bytes, &both);
        assert!((beep(&heard, 4.0) - 4.0).abs() < 0.01, "{name}: {}", beep(&heard, 4.0));
    }
}

/// IMA ADPCM in blocks of 256 bytes (Microsoft's variant, mono).
fn ima_adpcm(samples: &[f64]) -> Vec<u8> {
    let steps: Vec<i32> = (0..89).map(|n| (7.0 * 1.1f64.powi(n)).round().min(32_767.0) as i32).collect();
    let mut index = 0i32;
    let mut blocks = Vec::new();
    for block in samples.chunks_exact(505) {
        let whole = |sample: f64| (sample * 32_767.0).round() as i32;
        let mut predicted = whole(block[0]);
        blocks.extend((predicted as i16).to_le_bytes());
        blocks.extend([index as u8, 0]);
        let nibbles: Vec<u8> = block[1..]
            .iter()
            .map(|sample| {
                let step = steps[index as usize];
                let difference = whole(*sample) - predicted;
                let code = (difference.abs() * 4 / step).min(7);
                let change = step / 8 + step * code / 4;
                predicted = (predicted + if difference < 0 { -change } else { change }).clamp(-32_768, 32_767);
                index = (index + [-1, -1, -1, -1, 2, 4, 6, 8][code as usize]).clamp(0, 88);
                code as u8 | if difference < 0 { 8 } else { 0 }
            })
            .collect();
        blocks.extend(nibbles.chunks(2).map(|pair| pair[0] | pair[1] << 4));
    }
    blocks
}

#[test]
fn codecs_within_wav_end_where_their_sound_does() {
    let list = chunk(b"LIST", &loud(20_000));
    let mut body = fmt(0x11, 4)[8..].to_vec();
    body[12..14].copy_from_slice(&256u16.to_le_bytes());
    body.extend([2, 0, 0xf9, 1]);
    let data = ima_adpcm(&call());
    for (name, told, behind) in [("whole", data.len(), &list[..]), ("stale", 6_400, &[]), ("no length", 0, &list)] {
        let mut bytes = [&b"RIFF\0\0\0\0WAVE"[..], &chunk(b"fmt ", &body), b"data"].concat();
        bytes.extend((told as u32).to_le_bytes());
        let heard = Heard::of(&[&bytes, &data[..], behind].concat());
        assert_eq!(heard.normalized.source.codec, "adpcm_ima_wav", "{name}");
        assert!(heard.normalized.duration_ms.abs_diff(3_000) <= 65, "{name}: {}", heard.normalized.duration_ms);
        assert!((beep(&heard, 1.0) - 1.0).abs() < 0.01, "{name}: {}", beep(&heard, 1.0));
        assert_eq!(heard.normalized.source.lost_ms, 0, "{name}");
    }
    // MP3: 20 kB of junk would be three seconds of hole.
    let tones = fixture("tones_bare.mp3");
    let head = wav(0x55, 0, 1, 48_000, &tones, tones.len() as u32);
    let heard = Heard::of(&[head, list].concat());
    heard.assert_tones(0.0);
    assert_eq!(heard.normalized.source.lost_ms, 0);
    assert!(heard.normalized.duration_ms.abs_diff(6_048) <= 50, "{}", heard.normalized.duration_ms);
}

#[test]
fn a_later_piece_that_is_not_read_is_a_hole_of_its_length() {
    let data = pcm16(&call());
    let mut other = wav(0x83, 8, 1, CALL_HZ, &[0x55; 8_000], 8_000);
    // 1,000 bytes a second.
    other[28..32].copy_from_slice(&1_000u32.to_le_bytes());
    other.truncate(44 + 1_000);
    other[40..44].copy_from_slice(&1_000u32.to_le_bytes());
    let heard = Heard::of(&[riff(&data, data.len() as u32, &[]), other].concat());
    let source = &heard.normalized.source;
    assert_eq!((heard.normalized.duration_ms, source.lost_ms), (4_000, 1_000));
    assert!(
        heard.normalized.warnings.iter().any(|warning| warning.contains("g729")),
        "{:?}",
        heard.normalized.warnings
    );
    assert!((beep(&heard, 1.0) - 1.0).abs() < 0.01);
}
