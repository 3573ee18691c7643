//! Files whose times do not begin at zero, or leave something out: Matroska and MP4.

use aftercall::domain::RecordingState;

use super::containers::{Timed, fragmented, matroska, opus_packets, timed, with_empty_edit};
use super::{Heard, fixture};

fn assert_whole(name: &str, bytes: &[u8], ms: u64) -> Heard {
    let heard = Heard::of(bytes);
    let (normalized, source) = (&heard.normalized, &heard.normalized.source);
    assert!(normalized.duration_ms.abs_diff(ms) <= 50, "{name}: {} ms", normalized.duration_ms);
    assert!(source.expected_ms.abs_diff(ms) <= 50, "{name}: {source:?}");
    assert_eq!((source.lost_ms, source.state), (0, RecordingState::Ok), "{name}");
    heard
}

#[test]
fn time_begins_with_the_first_sample() {
    assert_whole("as recorded", &fixture("beeps_late.webm"), 12_000).assert_beeps(&[1.0, 11.0]);
    let (head, packets) = opus_packets(&fixture("beeps_late.ogg"));
    for start in [0, 7, 3_000, 60_000, 5_000_000, 90_000_000] {
        let bytes = matroska(&head, 1, timed(1, start, &packets));
        assert_whole(&format!("from {start} ms on"), &bytes, 12_000).assert_beeps(&[1.0, 11.0]);
    }
}

#[test]
fn tracks_keep_their_distance() {
    let (head, packets) = opus_packets(&fixture("tones_opus.ogg"));
    for (own, other, lead) in [(5_000, 3_000, 2.0), (3_000, 3_000, 0.0), (3_000, 5_000, 0.0), (60_400, 60_000, 0.4)] {
        let blocks: Vec<Timed> = timed(1, own, &packets).into_iter().chain(timed(2, other, &packets)).collect();
        let heard =
            assert_whole(&format!("{own} {other}"), &matroska(&head, 2, blocks), 6_000 + (lead * 1000.0) as u64);
        heard.assert_tones(lead);
        if lead > 1.0 {
            heard.assert_silence(0.0);
            heard.assert_silence(lead - 0.25);
        }
    }
}

#[test]
fn mp4_begins_with_its_first_sample() {
    let mp4 = fixture("tones.m4a");
    for ms in [20, 3_000, 60_000] {
        assert_whole(&format!("{ms} ms of nothing first"), &with_empty_edit(&mp4, ms), 6_000).assert_tones(0.0);
    }
    for start in [0, 48_000, 60 * 48_000] {
        assert_whole(&format!("fragments from {start} on"), &fragmented(&mp4, start), 6_000).assert_tones(0.0);
    }
}

#[test]
fn a_gap_between_silences_or_by_the_encoder_is_no_loss() {
    let (head, packets) = opus_packets(&fixture("tones_opus.ogg"));
    let split = |at: usize, pause: u64, last: &[u8]| {
        let mut first = packets[..at].to_vec();
        if !last.is_empty() {
            first.push(last.to_vec());
        }
        let second = 1_000 + 20 * first.len() as u64 + pause;
        let blocks = timed(1, 1_000, &first).into_iter().chain(timed(1, second, &packets[at..]));
        matroska(&head, 1, blocks.collect())
    };
    // In the silence at 3 s, and in the tone at 1 s.
    let (silent, dropouts) = super::with_dropouts(&split(150, 2_000, &[]));
    assert_eq!(
        (silent.normalized.source.lost_ms, silent.normalized.source.state, dropouts),
        (0, RecordingState::Ok, 0)
    );
    silent.assert_tone(1.7, 440.0);
    silent.assert_silence(4.0);
    silent.assert_tone(6.2, 880.0);
    for last in [&[0x78][..], &[0x78, 0], &[0xf8, 0xff, 0xfe]] {
        let (pausing, dropouts) = super::with_dropouts(&split(50, 1_500, last));
        let source = &pausing.normalized.source;
        assert_eq!((source.lost_ms, source.state, dropouts), (0, RecordingState::Ok, 0), "{last:x?}");
        pausing.assert_silence(1.5);
        pausing.assert_tone(2.7, 440.0);
    }
    let (cut, dropouts) = super::with_dropouts(&split(50, 1_500, &[]));
    let source = &cut.normalized.source;
    assert!(source.lost_ms.abs_diff(1_500) <= 10, "{source:?}");
    assert_eq!((source.state, dropouts), (RecordingState::Degraded, 1));
    cut.assert_silence(1.5);
    cut.assert_tone(2.7, 440.0);
}
