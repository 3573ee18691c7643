//! Ogg files whose pages say something else of time than their packets: what is heard, how long it is, what is lost.

use aftercall::audio::AudioError;
use aftercall::domain::RecordingState;

use super::containers::{Page, ogg_flac, opus_packets, paged_singly, read_ogg, write_ogg};
use super::{Heard, Noise, Studio, fixture};

const SECOND: i64 = 48_000;

/// 12 s with beeps at 1 s and 11 s, its pages from zero on.
fn beeps() -> Vec<Page> {
    let mut pages = read_ogg(&fixture("beeps_late.ogg"));
    for page in &mut pages[2..] {
        page.granule -= 60 * SECOND;
    }
    pages
}

fn with_granules(pages: &[Page], change: impl Fn(i64) -> i64) -> Vec<u8> {
    let mut pages = pages.to_vec();
    // Headers are at zero.
    for page in pages.iter_mut().filter(|page| page.granule != 0) {
        page.granule = change(page.granule);
    }
    write_ogg(&pages)
}

fn assert_whole(name: &str, bytes: &[u8], ms: u64) -> Heard {
    let heard = Studio::new(bytes).run().unwrap_or_else(|error| panic!("{name}: {error}"));
    let (normalized, source) = (&heard.normalized, &heard.normalized.source);
    assert!(normalized.duration_ms.abs_diff(ms) <= 50, "{name}: {} ms", normalized.duration_ms);
    assert_eq!((source.lost_ms, source.state), (0, RecordingState::Ok), "{name}");
    heard
}

/// What a wrong writer makes of a right position.
type Wrong = (&'static str, fn(i64) -> i64);

const WRONG: &[Wrong] = &[
    ("a third", |at| at / 3),
    ("zero", |_| 0),
    ("double", |at| at * 2),
    ("milliseconds", |at| at / 48),
    ("of 44.1 kHz", |at| at * 441 / 480),
    ("of 52.2 kHz", |at| at * 480 / 441),
    ("none", |_| -1),
    ("constant", |_| 3 * SECOND),
    ("decreasing", |at| 100 * SECOND - at),
    ("huge", |at| (1 << 62) + at / 7),
    ("negative", |at| i64::MIN + at),
    ("from a minute on", |at| at + 60 * SECOND),
    ("from a day on", |at| at + 86_400 * SECOND),
    ("huge in the middle", |at| if at == 5 * SECOND { 1 << 62 } else { at }),
    ("ten minutes off in the middle", |at| if at == 5 * SECOND { at + 600 * SECOND } else { at }),
    ("zero in the middle", |at| if (4 * SECOND..=5 * SECOND).contains(&at) { 0 } else { at }),
    ("from zero again", |at| if at > 4 * SECOND { at - 4 * SECOND } else { at }),
];

#[test]
fn positions_that_do_not_fit_the_packets_are_not_believed() {
    let beeps = beeps();
    let right = assert_whole("right", &with_granules(&beeps, |at| at), 12_000);
    assert!(right.normalized.duration_ms.abs_diff(12_000) <= 1, "{}", right.normalized.duration_ms);
    right.assert_beeps(&[1.0, 11.0]);
    for (name, change) in WRONG {
        assert_whole(name, &with_granules(&beeps, change), 12_000).assert_beeps(&[1.0, 11.0]);
    }
    assert_whole("as recorded", &fixture("beeps_late.ogg"), 12_000).assert_beeps(&[1.0, 11.0]);
}

#[test]
fn other_codecs_and_pages_are_judged_alike() {
    let (head, packets) = opus_packets(&fixture("tones_opus.ogg"));
    let ends: Vec<(Vec<u8>, i64)> = (1..).map(|n| n * 960).zip(packets).map(|(end, packet)| (packet, end)).collect();
    let files = [
        ("opus", read_ogg(&fixture("tones_opus.ogg"))),
        ("opus, a packet a page", paged_singly(&head, &ends)),
        ("vorbis", read_ogg(&fixture("tones.ogg"))),
    ];
    for (codec, pages) in &files {
        for (name, change) in WRONG {
            assert_whole(&format!("{codec}, {name}"), &with_granules(pages, change), 6_000).assert_tones(0.0);
        }
    }
}

#[test]
fn flac_goes_on_from_page_to_page() {
    for scale in [1, 2, 0] {
        let heard = assert_whole("flac", &ogg_flac(&fixture("tones.flac"), scale), 6_000);
        assert_eq!((heard.normalized.duration_ms, heard.normalized.source.codec.as_str()), (6_000, "flac"), "{scale}");
        heard.assert_tones(0.0);
    }
    // Three pages gone, 7,650 bytes of a tone: five frames or six.
    let mut bytes = ogg_flac(&fixture("tones.flac"), 1);
    let starts: Vec<usize> = (0..bytes.len() - 4).filter(|&at| &bytes[at..at + 4] == b"OggS").collect();
    bytes.drain(starts[8]..starts[11]);
    let heard = Heard::of(&bytes);
    assert_eq!(heard.normalized.duration_ms, 6_000);
    assert!((360..=504).contains(&heard.normalized.source.lost_ms), "{}", heard.normalized.source.lost_ms);
    heard.assert_tone(4.2, 880.0);
    heard.assert_tone(5.7, 880.0);
}

#[test]
fn short_files_have_no_other_pages_to_compare_with() {
    let (head, packets) = opus_packets(&fixture("tones_opus.ogg"));
    for (name, change) in WRONG {
        let mut pages = paged_singly(&head, &[]);
        for (n, packets) in packets[..60].chunks(30).enumerate() {
            let granule = change((n as i64 + 1) * 30 * 960);
            pages.push(Page { flags: 0, granule, serial: 1, sequence: n as u32 + 2, packets: packets.to_vec() });
        }
        assert_whole(&format!("two pages, {name}"), &write_ogg(&pages), 1_194);
        pages.pop();
        assert_whole(&format!("one page, {name}"), &write_ogg(&pages), 594);
    }
}

#[test]
fn the_last_page_is_cut_by_no_more_than_it_holds() {
    let mut pages = beeps();
    let last = pages.len() - 1;
    for (granule, ms) in [(576_312, 12_000), (576_000 + 200, 11_998), (576_000, 11_994), (0, 12_014), (48_000, 12_014)]
    {
        pages[last].granule = granule;
        let heard = Heard::of(&write_ogg(&pages));
        assert!(heard.normalized.duration_ms.abs_diff(ms) <= 1, "{granule}: {}", heard.normalized.duration_ms);
        assert_eq!(heard.normalized.source.lost_ms, 0, "{granule}");
    }
    // The marker of an end that some recorders append.
    pages[last].granule = i64::MAX;
    assert_whole("all ones", &write_ogg(&pages), 12_000).assert_beeps(&[1.0, 11.0]);
}

/// The tones fixture has pages of a second: 2 is the first one with sound.
fn without_pages(pages: &[Page], gone: std::ops::Range<usize>) -> Vec<u8> {
    write_ogg(
        &pages.iter().enumerate().filter(|(n, _)| !gone.contains(n)).map(|(_, page)| page.clone()).collect::<Vec<_>>(),
    )
}

#[test]
fn time_that_was_left_out_stays() {
    let pages = read_ogg(&fixture("tones_opus.ogg"));
    // 3 s to 4 s is silence between silences, 1 s to 2 s the middle of a tone, with a sequence of pages that says so.
    assert_whole("silence", &without_pages(&pages, 5..6), 6_000).assert_tones(0.0);
    let heard = Heard::of(&without_pages(&pages, 3..4));
    assert!(heard.normalized.duration_ms.abs_diff(6_000) <= 1, "{}", heard.normalized.duration_ms);
    assert_eq!((heard.normalized.source.lost_ms, heard.normalized.source.state), (1_000, RecordingState::Degraded));
    heard.assert_tone(0.6, 440.0);
    heard.assert_silence(1.3);
    heard.assert_tone(4.2, 880.0);
    // Two seconds more between 3 s and 4 s, and the same from an hour on.
    for start in [0, 3_600 * SECOND] {
        let bytes = with_granules(&pages, |at| start + at + if at > 3 * SECOND { 2 * SECOND } else { 0 });
        let heard = assert_whole("two seconds more", &bytes, 8_000);
        heard.assert_tone(1.7, 440.0);
        heard.assert_silence(2.1);
        heard.assert_silence(5.7);
        heard.assert_tone(6.2, 880.0);
        heard.assert_tone(7.7, 880.0);
    }
}

#[test]
fn packets_lost_one_by_one_do_not_shift_the_rest() {
    let (head, packets) = opus_packets(&fixture("tones_opus.ogg"));
    let ends: Vec<(Vec<u8>, i64)> = (1..).map(|n| n * 960).zip(packets).map(|(end, packet)| (packet, end)).collect();
    // Every tenth packet, but not the last.
    let kept: Vec<_> = ends.iter().enumerate().filter(|(n, _)| n % 10 != 5).map(|(_, packet)| packet.clone()).collect();
    let heard = Heard::of(&write_ogg(&paged_singly(&head, &kept)));
    assert!(heard.normalized.duration_ms.abs_diff(6_014) <= 1, "{}", heard.normalized.duration_ms);
    // Twenty in the tones are lost; those in the silence between them are not.
    assert!(heard.normalized.source.lost_ms.abs_diff(400) <= 40, "{}", heard.normalized.source.lost_ms);
    heard.assert_silence(2.1);
    heard.assert_silence(3.7);
    assert!(heard.tone(4.1, 880.0) > 0.05 && heard.tone(1.7, 440.0) > 0.05);
}

/// 1 s of a tone, packets that end it, 1.5 s of nothing, packets that begin again, 1 s of the tone.
fn pausing(before: &[u8], after: &[u8]) -> (Vec<u8>, Vec<(Vec<u8>, i64)>) {
    let (head, packets) = opus_packets(&fixture("tones_opus.ogg"));
    let (mut end, mut timed) = (0, Vec::new());
    let mut push = |packet: &[u8], pause: i64| {
        end += pause + 960;
        timed.push((packet.to_vec(), end));
    };
    for packet in &packets[..50] {
        push(packet, 0);
    }
    if !before.is_empty() {
        push(before, 0);
    }
    let mut pause = 3 * SECOND / 2;
    for packet in
        [after].into_iter().filter(|packet| !packet.is_empty()).chain(packets[50..100].iter().map(Vec::as_slice))
    {
        push(packet, std::mem::take(&mut pause));
    }
    (head, timed)
}

#[test]
fn an_encoder_that_falls_silent_loses_nothing() {
    for (name, before, after) in [
        ("a byte before", &[0x78][..], &[][..]),
        ("two bytes before", &[0x78, 0], &[]),
        ("three bytes of silence before", &[0xf8, 0xff, 0xfe], &[]),
        ("a byte after", &[], &[0x78]),
        ("bytes on both sides", &[0x78], &[0x78]),
    ] {
        let (head, timed) = pausing(before, after);
        let (studio, dropouts) = super::with_dropouts(&write_ogg(&paged_singly(&head, &timed)));
        let ms = 3_500 + 20 * u64::from(!before.is_empty()) + 20 * u64::from(!after.is_empty()) - 6;
        let source = &studio.normalized.source;
        assert!(studio.normalized.duration_ms.abs_diff(ms) <= 1, "{name}: {}", studio.normalized.duration_ms);
        assert_eq!((source.lost_ms, source.state, dropouts), (0, RecordingState::Ok, 0), "{name}");
        studio.assert_tone(0.7, 440.0);
        studio.assert_silence(1.3);
        studio.assert_tone(2.7, 440.0);
    }
    let (head, timed) = pausing(&[], &[]);
    let (studio, dropouts) = super::with_dropouts(&write_ogg(&paged_singly(&head, &timed)));
    let source = &studio.normalized.source;
    assert_eq!(
        (source.lost_ms, source.state, dropouts),
        (1_500, RecordingState::Degraded, 1),
        "in the middle of sound"
    );
}

#[test]
fn a_pause_within_a_page_begins_where_the_encoder_fell_silent() {
    let (head, timed) = pausing(&[0x78], &[]);
    let mut pages = paged_singly(&head, &[]);
    // One page from 0.5 s before the pause to 0.5 s after it.
    for (n, (range, last)) in [(0..25, 24), (25..76, 75), (76..101, 100)].into_iter().enumerate() {
        let packets = timed[range].iter().map(|(packet, _)| packet.clone()).collect();
        pages.push(Page { flags: 0, granule: timed[last].1, serial: 1, sequence: n as u32 + 2, packets });
    }
    let heard = assert_whole("within", &write_ogg(&pages), 3_514);
    heard.assert_tone(0.75, 440.0);
    heard.assert_silence(1.1);
    heard.assert_silence(2.25);
    heard.assert_tone(2.6, 440.0);
}

#[test]
fn chained_streams_have_times_of_their_own() {
    let one = read_ogg(&fixture("tones_opus.ogg"));
    let vorbis = fixture("tones.ogg");
    for (name, second) in [
        ("right", with_granules(&one, |at| at)),
        ("a third", with_granules(&one, |at| at / 3)),
        ("from a minute on", with_granules(&one, |at| at + 60 * SECOND)),
        ("zero", with_granules(&one, |_| 0)),
        ("another codec", vorbis.clone()),
    ] {
        for (first, second) in [(write_ogg(&one), second.clone()), (second, write_ogg(&one))] {
            let heard = assert_whole(name, &[first, second].concat(), 12_000);
            heard.assert_tones(0.0);
            heard.assert_tones(6.0);
        }
    }
}

#[test]
fn a_stream_keeps_its_distance_to_an_earlier_one() {
    let one = read_ogg(&fixture("tones_opus.ogg"));
    let at = |serial: u32, start: i64| -> Vec<Page> {
        one.iter()
            .map(|page| Page {
                serial,
                granule: if page.granule == 0 { 0 } else { page.granule + start },
                ..page.clone()
            })
            .collect()
    };
    for (own, other, lead) in [(62, 60, 2.0), (60, 60, 0.0), (60, 62, 0.0)] {
        let (own, other) = (at(1, own * SECOND), at(2, other * SECOND));
        let mut pages: Vec<Page> = own[2..].iter().chain(&other[2..]).cloned().collect();
        pages.sort_by_key(|page| page.granule);
        let heads = [&own[..1], &other[..1], &own[1..2], &other[1..2]].concat();
        let heard = assert_whole("two streams", &write_ogg(&[heads, pages].concat()), 6_000 + (lead * 1000.0) as u64);
        heard.assert_tones(lead);
    }
}

#[test]
fn pages_without_checksums_are_read_and_broken_ones_are_not() {
    let one = fixture("tones_opus.ogg");
    let mut bytes = one.clone();
    let starts: Vec<usize> = (0..bytes.len() - 4).filter(|&at| &bytes[at..at + 4] == b"OggS").collect();
    for at in &starts {
        bytes[at + 22..at + 26].fill(0);
    }
    assert_whole("no checksums", &bytes, 6_000).assert_tones(0.0);
    // The first page with sound: it is known by its number that there was one.
    for (page, silence) in [(2, 0.4), (3, 1.4)] {
        let mut bytes = one.clone();
        bytes[starts[page] + 200] ^= 0x55;
        let heard = Heard::of(&bytes);
        assert!(heard.normalized.duration_ms.abs_diff(6_000) <= 10, "{page}: {}", heard.normalized.duration_ms);
        assert!(heard.normalized.source.lost_ms.abs_diff(1_000) <= 10, "{page}: {}", heard.normalized.source.lost_ms);
        heard.assert_silence(silence);
        heard.assert_tone(4.2, 880.0);
    }
    let heard = Heard::of(&one[..starts[7] + 400]);
    assert!(heard.normalized.source.lost_ms.abs_diff(1_000) <= 20, "{}", heard.normalized.source.lost_ms);
    assert!(heard.normalized.source.expected_ms.abs_diff(6_000) <= 50, "{}", heard.normalized.source.expected_ms);
    assert_eq!(heard.normalized.warnings, ["the last page is cut off"]);
}

#[test]
fn what_cannot_be_decoded_is_named() {
    for (head, name) in [(&b"Speex   1.2"[..], "speex"), (b"\x80theora", "theora"), (b"fishead\0", "unknown")] {
        let mut pages = read_ogg(&fixture("tones_opus.ogg"));
        pages[0].packets[0] = head.to_vec();
        let error = Studio::new(&write_ogg(&pages)).run().unwrap_err();
        assert!(matches!(&error, AudioError::Unsupported { codec } if codec == name), "{error}");
    }
}

/// Pages changed at random and written with right checksums.
#[test]
fn any_pages_end_in_a_result_or_a_typed_error() {
    let files = [fixture("tones_opus.ogg"), fixture("tones.ogg"), fixture("beeps_late.ogg")];
    let count = super::fuzz::files() * 4;
    for (file, seed) in files.iter().flat_map(|file| (0..count).map(move |seed| (file, seed))) {
        let mut noise = Noise(seed.wrapping_mul(2_654_435_761) ^ file.len() as u32);
        let mut pages = read_ogg(file);
        for _ in 0..=noise.next() % 12 {
            let at = noise.next() as usize % pages.len();
            let page = &mut pages[at];
            match noise.next() % 9 {
                0 => page.granule = i64::from(noise.next()) << (noise.next() % 40),
                1 => page.granule = -i64::from(noise.next()),
                2 => page.sequence = noise.next(),
                3 => page.serial ^= noise.next() & 1,
                4 => page.flags = (noise.next() & 7) as u8,
                5 => page.packets.clear(),
                6 => {
                    for packet in &mut page.packets {
                        packet.truncate(noise.next() as usize % 8);
                    }
                }
                7 => drop(pages.remove(at)),
                _ => pages.insert(at, pages[noise.next() as usize % pages.len()].clone()),
            }
            if pages.is_empty() {
                break;
            }
        }
        super::fuzz::assert_typed(&format!("pages, seed {seed}"), &write_ogg(&pages), 2 * 3_600_000);
    }
}
