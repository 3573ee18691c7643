//! What exchanges and recorders write besides WAV: decoded, or named for what it is.

use aftercall::audio::probe::{Sniffed, sniff};
use aftercall::audio::{AudioError, CancelFlag, NormalizeRequest, normalize};
use aftercall::domain::{Container, Outcome, RecordingState};
use oxideav_gsm::{EncoderState, UnpackedFrame};

use super::riff::{beep, call, wave64};
use super::{Heard, Studio, faststart, fixture, pcm16, wav};

/// Big-endian samples of a width.
fn big_endian(samples: &[f64], bytes: usize) -> Vec<u8> {
    let scale = f64::from(1u32 << (8 * bytes - 1)) - 1.0;
    samples.iter().flat_map(|s| ((s * scale).round() as i32).to_be_bytes()[4 - bytes..].to_vec()).collect()
}

/// G.711 by search over its own rule, and of a few hundred levels only: quick enough.
fn mu_law(sample: f64) -> u8 {
    let level = |code: u8| {
        let code = !code;
        let magnitude = (((i32::from(code & 15) << 3) + 0x84) << (code >> 4 & 7)) - 0x84;
        f64::from(if code & 0x80 != 0 { -magnitude } else { magnitude }) / 32_768.0
    };
    (0..=255).min_by(|a, b| (level(*a) - sample).abs().total_cmp(&(level(*b) - sample).abs())).unwrap()
}

fn aiff_chunk(name: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = name.to_vec();
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

/// AIFF, or AIFF-C with a compression; `told` is the length the sound chunk has.
pub(super) fn aiff(bits: u16, compression: Option<&[u8; 4]>, data: &[u8], told: u32, behind: &[u8]) -> Vec<u8> {
    let mut common = vec![0, 1];
    common.extend((data.len() as u32 * 8 / u32::from(bits)).to_be_bytes());
    common.extend(bits.to_be_bytes());
    // 8,000 in 80 bits.
    common.extend([0x40, 0x0b, 0xfa, 0, 0, 0, 0, 0, 0, 0]);
    let form = match compression {
        Some(name) => {
            common.extend(name);
            common.extend([0, 0]);
            b"AIFC"
        }
        None => b"AIFF",
    };
    let mut bytes = [&b"FORM\0\0\0\0"[..], form, &aiff_chunk(b"COMM", &common), b"SSND"].concat();
    bytes.extend(told.to_be_bytes());
    bytes.extend([0; 8]);
    [&bytes, data, behind].concat()
}

pub(super) fn au(encoding: u32, data: &[u8], told: u32, note: &[u8]) -> Vec<u8> {
    let mut bytes = b".snd".to_vec();
    for word in [24 + note.len() as u32, told, encoding, 8_000, 1] {
        bytes.extend(word.to_be_bytes());
    }
    [&bytes, note, data].concat()
}

/// GSM 06.10 in WAV as Asterisk writes it.
pub(super) fn wav49(samples: &[f64], told: Option<u32>) -> Vec<u8> {
    let mut encoder = EncoderState::new();
    let frames: Vec<UnpackedFrame> = samples
        .chunks_exact(160)
        .map(|frame| {
            let mut pcm = [0i16; 160];
            pcm.iter_mut().zip(frame).for_each(|(to, sample)| *to = (sample * 32_767.0).round() as i16);
            encoder.encode_frame(&pcm)
        })
        .collect();
    let data: Vec<u8> = frames.chunks_exact(2).flat_map(|p| UnpackedFrame::pair_to_msgsm_block(&p[0], &p[1])).collect();
    let mut bytes = b"RIFF\0\0\0\0WAVEfmt \x14\0\0\0\x31\0\x01\0".to_vec();
    bytes.extend(8_000u32.to_le_bytes());
    bytes.extend(1_625u32.to_le_bytes());
    bytes.extend([65, 0, 0, 0, 2, 0, 0x40, 1]);
    bytes.extend(b"data");
    bytes.extend(told.unwrap_or(data.len() as u32).to_le_bytes());
    [bytes, data].concat()
}

fn check(name: &str, bytes: &[u8], container: Container, codec: &str, ms: u64) {
    let studio = Studio::new(bytes);
    assert_eq!(sniff(&studio.input()).unwrap(), Sniffed::Audio(container), "{name}");
    let heard = studio.run().unwrap_or_else(|error| panic!("{name}: {error}"));
    let source = &heard.normalized.source;
    assert_eq!((source.codec.as_str(), source.sample_rate_hz, source.channels), (codec, 8_000, 1), "{name}");
    assert_eq!((source.lost_ms, source.state), (0, RecordingState::Ok), "{name}");
    assert!(heard.normalized.duration_ms.abs_diff(ms) <= 40, "{name}: {}", heard.normalized.duration_ms);
    assert!((beep(&heard, 1.0) - 1.0).abs() < 0.01, "{name}: {}", beep(&heard, 1.0));
    let data = pcm16(&call());
    let plain = Heard::of(&wav(1, 16, 1, 8_000, &data, data.len() as u32)).normalized.loudness.integrated_lufs.unwrap();
    let lufs = heard.normalized.loudness.integrated_lufs.unwrap();
    assert!((lufs - plain).abs() < 0.5, "{name}: {lufs} {plain}");
}

#[test]
fn aiff_of_every_kind() {
    let call = call();
    let sixteen = big_endian(&call, 2);
    let honest = sixteen.len() as u32 + 8;
    let law: Vec<u8> = call.iter().map(|s| mu_law(*s)).collect();
    let little: Vec<u8> = sixteen.as_chunks::<2>().0.iter().flat_map(|[a, b]| [*b, *a]).collect();
    let float: Vec<u8> = call.iter().flat_map(|s| (*s as f32).to_be_bytes()).collect();
    let mark = aiff_chunk(b"MARK", &[0x7f; 5_000]);
    for (name, bytes, codec) in [
        ("AIFF 16", aiff(16, None, &sixteen, honest, &[]), "pcm_s16be"),
        ("AIFF 8", aiff(8, None, &big_endian(&call, 1), 24_008, &[]), "pcm_s8"),
        ("AIFF 24", aiff(24, None, &big_endian(&call, 3), 72_008, &mark), "pcm_s24be"),
        ("AIFF 32", aiff(32, None, &big_endian(&call, 4), 96_008, &[]), "pcm_s32be"),
        ("AIFC sowt", aiff(16, Some(b"sowt"), &little, honest, &[]), "pcm_s16le"),
        ("AIFC ulaw", aiff(16, Some(b"ulaw"), &law, 24_008, &[]), "pcm_mulaw"),
        ("AIFC fl32", aiff(32, Some(b"fl32"), &float, 96_008, &[]), "pcm_f32be"),
        ("chunks behind", aiff(16, None, &sixteen, honest, &mark), "pcm_s16be"),
        ("no length", aiff(16, None, &sixteen, 0, &mark), "pcm_s16be"),
        ("stale", aiff(16, None, &sixteen, 8_000, &[]), "pcm_s16be"),
        ("too long", aiff(16, None, &sixteen, u32::MAX, &mark), "pcm_s16be"),
    ] {
        check(name, &bytes, Container::Aiff, codec, 3_000);
    }
}

#[test]
fn au_of_every_kind() {
    let call = call();
    let sixteen = big_endian(&call, 2);
    let law: Vec<u8> = call.iter().map(|s| mu_law(*s)).collect();
    let float: Vec<u8> = call.iter().flat_map(|s| (*s as f32).to_be_bytes()).collect();
    for (name, bytes, codec) in [
        ("mu-law", au(1, &law, 24_000, b""), "pcm_mulaw"),
        ("no length", au(1, &law, u32::MAX, b"a note of 16 by."), "pcm_mulaw"),
        ("8", au(2, &big_endian(&call, 1), 24_000, b""), "pcm_s8"),
        ("16", au(3, &sixteen, 48_000, b""), "pcm_s16be"),
        ("stale", au(3, &sixteen, 8_000, b""), "pcm_s16be"),
        ("24", au(4, &big_endian(&call, 3), 72_000, b""), "pcm_s24be"),
        ("float", au(6, &float, 96_000, b""), "pcm_f32be"),
    ] {
        check(name, &bytes, Container::Au, codec, 3_000);
    }
}

#[test]
fn wave64_and_gsm() {
    let data = pcm16(&call());
    check("Wave64", &wave64(&data, 24 + data.len() as u64, &[]), Container::Wave64, "pcm_s16le", 3_000);
    // 24,000 samples are 150 frames.
    for (name, told) in [("GSM", None), ("no length", Some(0)), ("stale", Some(650))] {
        check(name, &wav49(&call(), told), Container::Wav, "gsm", 3_000);
    }
    let twice = [wav49(&call(), None), wav49(&call(), None)].concat();
    let heard = Heard::of(&twice);
    assert!((beep(&heard, 4.0) - 4.0).abs() < 0.02, "{}", beep(&heard, 4.0));
}

/// What opening these bytes ends with.
fn refusal(bytes: &[u8]) -> AudioError {
    let studio = Studio::new(bytes);
    let container = match sniff(&studio.input()).unwrap() {
        Sniffed::Audio(container) => container,
        Sniffed::Unknown => Container::Other,
        other => panic!("{other:?}"),
    };
    let (input, wav) = (studio.input(), studio.wav());
    let request = NormalizeRequest {
        input: &input,
        container,
        settings: &studio.settings,
        spool: studio.folder.path(),
        wav: Some(&wav),
        flac: None,
    };
    normalize(&request, &mut [], &CancelFlag::default()).unwrap_err()
}

/// The sample entry of an MP4 under another name.
fn renamed(entry: [u8; 4]) -> Vec<u8> {
    let mut bytes = faststart(&fixture("tones.m4a"));
    let at = bytes.windows(4).position(|window| window == b"stsd").unwrap() + 16;
    assert_eq!(&bytes[at..at + 4], b"mp4a");
    bytes[at..at + 4].copy_from_slice(&entry);
    bytes
}

#[test]
fn what_is_not_read_is_named_and_never_damaged() {
    let frames = |count: usize| (0..count).map(|n| (n * 37 % 251) as u8).collect::<Vec<u8>>();
    let mut speex = b"OggS\0\x02\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x01\x50Speex   1.2rc1".to_vec();
    speex.resize(28 + 80, 0);
    let asf = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c";
    let mut bare_gsm: Vec<u8> = frames(33 * 50);
    bare_gsm.iter_mut().step_by(33).for_each(|byte| *byte = 0xd3);
    let adts = |config: u8| {
        let frame = [0xff, 0xf1, 0x4c | config >> 2, (config & 3) << 6, 0x0d, 0x1f, 0xfc];
        [&frame[..], &[0x21; 97]].concat().repeat(40)
    };
    for (codec, bytes) in [
        ("amr", [&b"#!AMR\n"[..], &frames(3_200)].concat()),
        ("amr_wb", [&b"#!AMR-WB\n"[..], &frames(3_200)].concat()),
        ("evs", [&b"#!EVS_MC1.0\n"[..], &frames(3_200)].concat()),
        ("ilbc", [&b"#!iLBC30\n"[..], &frames(3_200)].concat()),
        ("silk", [&b"\x02#!SILK_V3"[..], &frames(3_200)].concat()),
        ("wma", [&asf[..], &frames(3_200)].concat()),
        ("gsm", bare_gsm),
        ("speex", speex),
        ("g729", wav(0x83, 0, 1, 8_000, &frames(3_000), 3_000)),
        ("g722", wav(0x65, 0, 1, 16_000, &frames(3_000), 3_000)),
        ("g726", wav(0x45, 4, 1, 8_000, &frames(3_000), 3_000)),
        ("truespeech", wav(0x22, 1, 1, 8_000, &frames(3_000), 3_000)),
        ("g721", au(23, &frames(3_000), 3_000, b"")),
        ("ima4", aiff(16, Some(b"ima4"), &frames(3_000), 3_008, &[])),
        ("amr", renamed(*b"samr")),
        ("amr_wb", renamed(*b"sawb")),
        ("encrypted", renamed(*b"enca")),
        ("aac of 6 channels", adts(6)),
    ] {
        let error = refusal(&bytes);
        assert_eq!(error.outcome(), Some(Outcome::UnsupportedMedia), "{codec}: {error}");
        assert!(matches!(&error, AudioError::Unsupported { codec: said } if said.contains(codec)), "{codec}: {error}");
    }
    // What nobody knows is not called damaged either.
    assert_eq!(refusal(&frames(5_000)).outcome(), Some(Outcome::UnsupportedMedia));
}
