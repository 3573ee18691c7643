//! Recordings that come short: still growing at their host, or cut on their way. Nothing of what can be had is missing in
//! the end, and nobody waits for more than a minute.

use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aftercall::demo::{Api, SampleCall, recordings};
use aftercall::domain::Outcome;
use aftercall::store::CallRecord;

use super::{objects, short};
use crate::fetch::host::{Host, Reply, Seen, Then, reply, status, whole};
use crate::harness::{Backend, Fixture, on_every_backend};

on_every_backend!(
    a_recording_that_still_grows_is_fetched_again,
    two_equal_sizes_end_it_and_a_repeat_does_not_doubt_it_again,
    a_recording_that_grows_on_is_taken_as_it_is_within_a_minute,
    a_link_that_expires_meanwhile_does_not_cost_the_first_copy,
    another_worker_goes_on_with_the_looks,
    a_body_cut_on_its_way_is_fetched_again_where_its_own_header_tells,
    a_host_that_tells_no_size_is_asked_for_the_whole,
    a_host_without_ranges_is_believed_by_its_length_or_tag,
    the_recording_of_an_old_call_is_asked_about_at_once,
);

const ID: &str = "call_000001";
const RATE_HZ: u32 = 8000;
const JUST_OVER: Duration = Duration::from_secs(5);

/// So many seconds of noise with beeps at 1 s and 11 s.
fn wav(seconds: u32) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: RATE_HZ,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
    let mut state = 1_u32;
    for n in 0..seconds * RATE_HZ {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = f64::from(state >> 16) / 65_536.0 - 0.5;
        let beeps = matches!(n / (RATE_HZ / 5), 5 | 55);
        let beep = if beeps { (f64::from(n) * 0.785).sin() } else { 0.0 };
        writer.write_sample((noise * 600.0 + beep * 12_000.0) as i16).unwrap();
    }
    writer.finalize().unwrap();
    bytes.into_inner()
}

fn asks_size(seen: &Seen) -> bool {
    seen.headers.get("range").is_some_and(|range| range == "bytes=0-0")
}

fn ranged(seen: &Seen, body: &[u8]) -> Reply {
    if asks_size(seen) {
        let range = format!("Content-Range: bytes 0-0/{}", body.len());
        return reply("206 Partial Content", &["Content-Length: 1", &range], &body[..1], Then::Close);
    }
    whole(body)
}

/// A host that knows ranges, and has so many seconds before the first question for the size, at that, at the next, and
/// so on. What it has depends on what it was asked, never on how fast the machine is.
async fn growing(seconds: &'static [u32]) -> Host {
    let questions = AtomicUsize::new(0);
    Host::start(move |seen, _| {
        let asked = questions.fetch_add(usize::from(asks_size(seen)), Ordering::SeqCst) + usize::from(asks_size(seen));
        ranged(seen, &wav(seconds[asked.min(seconds.len() - 1)]))
    })
    .await
}

/// Questions for the size, and downloads.
fn asked(host: &Host) -> (usize, usize) {
    let seen = host.seen();
    let sizes = seen.iter().filter(|seen| asks_size(seen)).count();
    (sizes, seen.len() - sizes)
}

/// A call of this length, so long over, whose recording is at this host; its first attempt has been made.
async fn begun(backend: Backend, host: &Host, call_ms: u64, ago: Duration) -> Fixture {
    let url = host.url("/a").as_url().unwrap().to_string();
    let fixture = Fixture::start(backend, |now| {
        let call = SampleCall { ended_at: now - ago, ..short(Api::KrosaiV1, 1, now) };
        vec![SampleCall { duration_ms: call_ms, recording_url: Some(url), ..call }]
    })
    .await;
    fixture.trigger(Api::KrosaiV1, ID).await;
    fixture.run_pending().await;
    fixture
}

/// As it stands once a minute has passed.
async fn settled(fixture: &Fixture) -> CallRecord {
    for seconds in [5, 10, 25, 10] {
        fixture.advance(Duration::from_secs(seconds)).await;
        fixture.run_pending().await;
    }
    fixture.record(Api::KrosaiV1, ID).await
}

async fn just_over(backend: Backend, host: &Host, call_ms: u64) -> (Fixture, CallRecord) {
    let fixture = begun(backend, host, call_ms, JUST_OVER).await;
    let record = settled(&fixture).await;
    (fixture, record)
}

async fn holds(fixture: &Fixture, record: &CallRecord, original: &[u8]) {
    assert_eq!(record.outcome, Some(Outcome::Done), "{:?}", record.outcome_reason);
    let kept = fixture.objects.get(record.original.as_ref().unwrap()).await.unwrap();
    assert!(kept == original, "{} bytes are kept, not {}", kept.len(), original.len());
    let originals = objects(fixture).await.into_iter().filter(|key| key.contains("/original")).count();
    assert_eq!(originals, 1, "a shorter copy is left");
    assert!(fixture.jobs().await.iter().all(|job| job.attempt == 1), "waiting is no failure");
}

async fn ends_with(fixture: &Fixture, record: &CallRecord, original: &[u8], seconds: u64) {
    holds(fixture, record, original).await;
    let quality = record.quality.as_ref().unwrap();
    let length = quality["duration_ms"].as_u64().unwrap();
    assert!(length.abs_diff(seconds * 1000) <= 50, "{length} ms");
}

fn is_flagged(record: &CallRecord) -> bool {
    record.flags.iter().any(|flag| flag == "duration_mismatch")
}

async fn a_recording_that_still_grows_is_fetched_again(backend: Backend) {
    let cases: [(&'static [u32], u32, (usize, usize)); 4] =
        [(&[3, 12], 12, (1, 2)), (&[3, 3, 12], 12, (2, 2)), (&[2, 4, 12], 12, (2, 3)), (&[1, 1, 11], 11, (2, 2))];
    for (seconds, last, requests) in cases {
        let host = growing(seconds).await;
        let (fixture, record) = just_over(backend, &host, 12_000).await;
        ends_with(&fixture, &record, &wav(last), last.into()).await;
        assert_eq!((asked(&host), is_flagged(&record)), (requests, false), "{seconds:?}");
    }
}

async fn two_equal_sizes_end_it_and_a_repeat_does_not_doubt_it_again(backend: Backend) {
    let host = growing(&[3]).await;
    let (fixture, record) = just_over(backend, &host, 12_000).await;
    ends_with(&fixture, &record, &wav(3), 3).await;
    assert_eq!(asked(&host), (2, 1), "the same size was downloaded again");
    assert!(is_flagged(&record), "{:?}", record.flags);
    fixture.trigger_again(Api::KrosaiV1, ID).await;
    fixture.run_pending().await;
    let again = fixture.record(Api::KrosaiV1, ID).await;
    assert_eq!((again.outcome, again.transcript_version), (Some(Outcome::Done), 2));
    assert_eq!(asked(&host), (2, 1));
}

async fn a_recording_that_grows_on_is_taken_as_it_is_within_a_minute(backend: Backend) {
    let host = growing(&[3, 5, 7, 9, 11]).await;
    let (fixture, record) = just_over(backend, &host, 60_000).await;
    ends_with(&fixture, &record, &wav(9), 9).await;
    assert_eq!(asked(&host), (3, 4));
    assert!(is_flagged(&record), "{:?}", record.flags);
}

async fn a_link_that_expires_meanwhile_does_not_cost_the_first_copy(backend: Backend) {
    for refusal in ["403 Forbidden", "404 Not Found", "500 Internal Server Error"] {
        let host = Host::start(move |_, number| if number == 0 { whole(&wav(3)) } else { status(refusal, &[]) }).await;
        let (fixture, record) = just_over(backend, &host, 12_000).await;
        ends_with(&fixture, &record, &wav(3), 3).await;
        assert!(asked(&host).0 >= 3, "{refusal}");
    }
}

async fn another_worker_goes_on_with_the_looks(backend: Backend) {
    let host = growing(&[3, 3, 12]).await;
    let fixture = begun(backend, &host, 12_000, JUST_OVER).await;
    // Another machine has nothing of it.
    let uid = fixture.record(Api::KrosaiV1, ID).await.uid;
    let _ = std::fs::remove_dir_all(fixture.spool_of(uid));
    let later = fixture.again().await;
    for seconds in [5, 10, 10] {
        later.advance(Duration::from_secs(seconds)).await;
        later.run_pending().await;
    }
    let record = fixture.record(Api::KrosaiV1, ID).await;
    ends_with(&fixture, &record, &wav(12), 12).await;
    assert_eq!(asked(&host), (2, 2), "the wait began anew");
}

/// Serves a part without a length the first time, and everything afterwards.
async fn cut_once(body: Vec<u8>, part: usize) -> Host {
    Host::start(move |seen, number| match number {
        0 => reply("200 OK", &[], &body[..part], Then::Close),
        _ => ranged(seen, &body),
    })
    .await
}

async fn a_body_cut_on_its_way_is_fetched_again_where_its_own_header_tells(backend: Backend) {
    let (mp3, mp4) = (recordings::wordless().bytes.to_vec(), recordings::booking().bytes.to_vec());
    // The platform's length is what arrives: nothing but the file itself tells that it was cut.
    for (body, share, call_ms) in [(mp3, 70, 9_900), (wav(12), 70, 8_400), (wav(12), 30, 3_600), (mp4, 60, 1_000)] {
        let part = body.len() * share / 100;
        let host = cut_once(body.clone(), part).await;
        let (fixture, record) = just_over(backend, &host, call_ms).await;
        holds(&fixture, &record, &body).await;
        assert_eq!(asked(&host), (1, 2));
    }
}

async fn a_host_that_tells_no_size_is_asked_for_the_whole(backend: Backend) {
    let body = recordings::wordless().bytes.to_vec();
    let served = body.clone();
    let host = Host::start(move |_, number| {
        let part = if number == 0 { served.len() * 7 / 10 } else { served.len() };
        reply("200 OK", &[], &served[..part], Then::Close)
    })
    .await;
    let (fixture, record) = just_over(backend, &host, 9_900).await;
    holds(&fixture, &record, &body).await;
    // Where it is the same each time, two more downloads end it.
    let host = Host::start(move |_, _| reply("200 OK", &[], &wav(3), Then::Close)).await;
    let (fixture, record) = just_over(backend, &host, 12_000).await;
    ends_with(&fixture, &record, &wav(3), 3).await;
    assert_eq!(asked(&host), (2, 3));
}

async fn a_host_without_ranges_is_believed_by_its_length_or_tag(backend: Backend) {
    let tagged = |_: &Seen, _: usize| reply("200 OK", &["ETag: W/\"v1\""], &wav(3), Then::Close);
    for host in [Host::start(|_, _| whole(&wav(3))).await, Host::start(tagged).await] {
        let (fixture, record) = just_over(backend, &host, 12_000).await;
        ends_with(&fixture, &record, &wav(3), 3).await;
        assert_eq!(asked(&host), (2, 1), "what had not changed was downloaded again");
    }
}

async fn the_recording_of_an_old_call_is_asked_about_at_once(backend: Backend) {
    let long_over = Duration::from_secs(30 * 3600);
    let host = growing(&[3]).await;
    let fixture = begun(backend, &host, 12_000, long_over).await;
    ends_with(&fixture, &fixture.record(Api::KrosaiV1, ID).await, &wav(3), 3).await;
    assert_eq!(asked(&host), (1, 1));
    // One that was cut on its way is mended in the same breath.
    let body = wav(12);
    let host = cut_once(body.clone(), body.len() * 7 / 10).await;
    let fixture = begun(backend, &host, 8_400, long_over).await;
    ends_with(&fixture, &fixture.record(Api::KrosaiV1, ID).await, &body, 12).await;
    assert_eq!(asked(&host), (1, 2));
}
