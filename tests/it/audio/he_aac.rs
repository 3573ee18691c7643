//! High-efficiency AAC, however its configuration says so: the core at its length, with the flag that tells it.

use aftercall::audio::AudioError;
use aftercall::domain::RecordingState;
use aftercall::domain::quality::Flag;

use super::riff::beep;
use super::{Heard, Studio, fixture};

/// Half the rate of the whole, which is 48 kHz.
const CORE_HZ: u32 = 24_000;
/// By ffmpeg: 284 frames of 2,048 samples at 48 kHz.
const WHOLE_MS: u64 = 12_117;

/// The file with another configuration in its `esds`, and all boxes around that as long as they then are.
fn with_config(bytes: &[u8], config: &[u8]) -> Vec<u8> {
    let find = |name: &[u8; 4], from: usize| from + bytes[from..].windows(4).position(|w| w == name).unwrap();
    let moov = find(b"moov", 0);
    let esds = find(b"esds", moov);
    let info = esds + bytes[esds..].windows(2).position(|window| window == [5, 4]).unwrap();
    let more = config.len() as u32 - 4;
    let mut changed = bytes.to_vec();
    changed.splice(info + 2..info + 6, config.iter().copied());
    for name in [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"mp4a", b"esds"] {
        let at = find(name, moov) - 4;
        let len = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) + more;
        changed[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }
    // The descriptors of the stream, of its decoder, and of what is special to it.
    for at in [esds + 9, esds + 14, info + 1] {
        changed[at] += more as u8;
    }
    changed
}

/// The frames of the file.
fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    let find = |name: &[u8; 4]| bytes.windows(4).position(|window| window == name).unwrap();
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let table = find(b"stsz") + 12;
    let mut at = word(find(b"stco") + 12);
    (0..word(table))
        .map(|n| {
            let len = word(table + 4 + 4 * n);
            at += len;
            bytes[at - len..at].to_vec()
        })
        .collect()
}

/// The same frames in ADTS, which knows low complexity alone.
fn adts(bytes: &[u8]) -> Vec<u8> {
    let frame = |frame: &Vec<u8>| {
        let len = frame.len() + 7;
        let head = [0xff, 0xf1, 0x58, 0x40 | (len >> 11) as u8, (len >> 3) as u8, (len << 5) as u8 | 0x1f, 0xfc];
        [&head[..], frame].concat()
    };
    frames(bytes).iter().flat_map(frame).collect()
}

fn boxed(name: &[u8], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], name, body].concat()
}

/// The same frames in fragments of fifty, as recorders of live sound write them.
fn fragmented(bytes: &[u8]) -> Vec<u8> {
    let find = |name: &[u8; 4], from: usize| from + bytes[from..].windows(4).position(|w| w == name).unwrap() - 4;
    let whole = |name: &[u8; 4], from: usize| {
        let at = find(name, from);
        bytes[at..at + u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize].to_vec()
    };
    let moov = find(b"moov", 0);
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let empty = [(b"stts", 2), (b"stsc", 2), (b"stsz", 3), (b"stco", 2)];
    let tables = empty.map(|(name, count)| boxed(name, &words(&vec![0; count]))).concat();
    let stbl = boxed(b"stbl", &[whole(b"stsd", moov), tables].concat());
    let minf = boxed(b"minf", &[whole(b"smhd", moov), whole(b"dinf", moov), stbl].concat());
    let mdia = boxed(b"mdia", &[whole(b"mdhd", moov), whole(b"hdlr", moov), minf].concat());
    let trak = boxed(b"trak", &[whole(b"tkhd", moov), mdia].concat());
    let mvex = boxed(b"mvex", &boxed(b"trex", &words(&[0, 1, 1, 2_048, 0, 0])));
    let mut file = [whole(b"ftyp", 0), boxed(b"moov", &[whole(b"mvhd", moov), trak, mvex].concat())].concat();
    for (number, part) in frames(bytes).chunks(50).enumerate() {
        let lens: Vec<u32> = part.iter().map(|frame| frame.len() as u32).collect();
        // Sizes are given frame by frame, offsets from the start of the fragment.
        let run = |offset: u32| boxed(b"trun", &words(&[&[0x201, part.len() as u32, offset][..], &lens].concat()));
        let time = boxed(b"tfdt", &words(&[0, (number * 50 * 2_048) as u32]));
        let moof = |offset: u32| {
            let traf = [boxed(b"tfhd", &words(&[0x2_0000, 1])), time.clone(), run(offset)].concat();
            boxed(b"moof", &[boxed(b"mfhd", &words(&[0, number as u32 + 1])), boxed(b"traf", &traf)].concat())
        };
        let offset = moof(0).len() as u32 + 8;
        file.extend(moof(offset));
        file.extend(boxed(b"mdat", &part.concat()));
    }
    file
}

fn check(name: &str, bytes: &[u8], flagged: bool) -> Heard {
    let heard = Studio::new(bytes).run().unwrap_or_else(|error| panic!("{name}: {error}"));
    let (normalized, source) = (&heard.normalized, &heard.normalized.source);
    assert_eq!((source.codec.as_str(), source.sample_rate_hz), ("aac", CORE_HZ), "{name}");
    assert_eq!((source.lost_ms, source.state), (0, RecordingState::Ok), "{name}");
    assert!(normalized.duration_ms.abs_diff(WHOLE_MS) <= 50, "{name}: {} ms", normalized.duration_ms);
    assert_eq!(normalized.flags.contains(&Flag::HeAacCore), flagged, "{name}: {:?}", normalized.flags);
    // The files keep the encoder's delay: no edit list takes it off.
    let (first, last) = (beep(&heard, 1.05), beep(&heard, 11.05));
    assert!((1.0..1.13).contains(&first) && (last - first - 10.0).abs() < 0.01, "{name}: {first} {last}");
    heard
}

#[test]
fn the_given_files() {
    for name in ["he_v1_explicit.m4a", "he_v2_explicit.m4a"] {
        check(name, &fixture(name), true);
    }
}

#[test]
fn every_way_to_say_it_is_the_same_sound() {
    let given = fixture("he_v1_explicit.m4a");
    let whole = check("type 5", &given, true);
    for (name, bytes, flagged) in [
        ("type 29", with_config(&given, &[0xeb, 0x09, 0x88, 0x00]), true),
        // Low complexity; 0x2b7, type 5, present, 48 kHz; and 0x548 for the second channel.
        ("sync extension", with_config(&given, &[0x13, 0x08, 0x56, 0xe5, 0x98]), true),
        ("sync extension with stereo", with_config(&given, &[0x13, 0x08, 0x56, 0xe5, 0x9d, 0x48, 0x80]), true),
        ("sync extension that says no", with_config(&given, &[0x13, 0x08, 0x56, 0xe5, 0x00]), false),
        ("nothing said", with_config(&given, &[0x13, 0x08, 0x00, 0x00]), false),
        ("fragments", fragmented(&given), true),
        ("fragments, sync extension", fragmented(&with_config(&given, &[0x13, 0x08, 0x56, 0xe5, 0x98])), true),
        ("ADTS", adts(&given), false),
    ] {
        let heard = check(name, &bytes, flagged);
        let apart = heard.samples.iter().zip(&whole.samples).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-3, "{name}: {apart}");
    }
}

#[test]
fn kinds_of_aac_that_are_not_read_are_named() {
    let given = fixture("he_v1_explicit.m4a");
    for (config, name) in [
        ([0x0b, 0x08, 0x00, 0x00], "aac main"),
        ([0xf8, 0xe6, 0x20, 0x00], "aac eld"),
        ([0xf9, 0x46, 0x20, 0x00], "xhe-aac"),
        ([0x13, 0x30, 0x00, 0x00], "aac of 6 channels"),
        ([0x13, 0x0c, 0x00, 0x00], "aac of 960 samples a frame"),
    ] {
        let error = Studio::new(&with_config(&given, &config)).run().unwrap_err();
        assert!(matches!(&error, AudioError::Unsupported { codec } if codec == name), "{name}: {error}");
    }
}
