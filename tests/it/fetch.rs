//! Fetching from a host that does everything a host can do wrong.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use aftercall::audio::probe;
use aftercall::config::{self, Config};
use aftercall::domain::{Classify, Fault, RecordingUrl, Sha256, Side};
use aftercall::fetch::{FetchError, Fetched, Fetcher, HostPolicy, Timing};
use sha2::Digest;
use tokio::net::TcpListener;
use url::Url;

use host::{Host, Reply, SECRET, Seen, Then, reply, status, whole};

mod answers;
mod codings;
pub(crate) mod host;
mod limits;

struct Bench {
    fetcher: Fetcher,
    policy: HostPolicy,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with("", Duration::from_secs(30))
    }

    fn with(toml: &str, window: Duration) -> Self {
        let limits: config::Fetch = Config::from_toml(&format!("[fetch]\n{toml}")).unwrap().fetch;
        let timing = Timing { window, resume_pause: Duration::from_millis(1) };
        Self {
            fetcher: Fetcher::new(&limits, probe::looks_like_audio).with_timing(timing),
            policy: HostPolicy::new(&Url::parse("https://api.platform.test/v1").unwrap(), &["127.0.0.1".to_owned()]),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn dest(&self) -> PathBuf {
        self.dir.path().join("original")
    }

    fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    async fn fetch(&self, url: &RecordingUrl) -> Fetched {
        self.fetcher.fetch(url, &self.policy, &self.dest()).await.unwrap()
    }

    /// Every failure: nothing under the final name, no signature in the error.
    async fn fail(&self, url: &RecordingUrl) -> FetchError {
        let err = self.fetcher.fetch(url, &self.policy, &self.dest()).await.unwrap_err();
        assert!(!self.dest().exists(), "a failed fetch left a recording");
        let text = format!("{err} {err:?}");
        assert!(!text.contains("5ecre7") && !text.contains("Signature"), "{text}");
        err
    }
}

/// Bytes that look like MP3 at their beginning and repeat nowhere.
fn recording(len: usize) -> Vec<u8> {
    let mut body = b"ID3\x04\x00\x00".to_vec();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    while body.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        body.extend_from_slice(&state.to_le_bytes());
    }
    body.truncate(len);
    body
}

fn digest(body: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(body).into())
}

fn assert_is(bench: &Bench, fetched: &Fetched, body: &[u8]) {
    assert_eq!(fetched.size_bytes, body.len() as u64);
    assert_eq!(fetched.sha256, digest(body));
    assert_eq!(fetched.head, &body[..body.len().min(4096)]);
    assert!(std::fs::read(&fetched.path).unwrap() == body, "file differs from what was served");
    assert_eq!(bench.files(), ["original"]);
}

#[tokio::test]
async fn a_recording_arrives_whole_private_and_without_any_key_of_ours() {
    let body = recording(300_000);
    let served = body.clone();
    let host = Host::start(move |_, _| whole(&served)).await;
    let bench = Bench::new();
    let fetched = bench.fetch(&host.url("/a.mp3")).await;
    assert_is(&bench, &fetched, &body);
    assert_eq!(fetched.content_type.as_deref(), Some("audio/mpeg"));
    assert_eq!(std::fs::metadata(&fetched.path).unwrap().permissions().mode() & 0o777, 0o600);
    let seen = host.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].target.ends_with(SECRET), "the signature belongs to the request");
    let names: Vec<&str> = seen[0].headers.keys().map(String::as_str).collect();
    assert_eq!(names, ["accept", "accept-encoding", "host", "user-agent"]);
}

/// Serves `body` with ranges; each connection breaks after `step` bytes.
fn brittle(body: Vec<u8>, step: usize, then: Then) -> impl Fn(&Seen, usize) -> Reply {
    move |seen, _| {
        let from = seen.offset("\"v1\"").unwrap_or(0);
        let to = (from + step).min(body.len());
        let then = if to == body.len() { Then::Close } else { then };
        let length = format!("Content-Length: {}", body.len() - from);
        if from == 0 {
            return reply("200 OK", &[&length, "ETag: \"v1\""], &body[..to], then);
        }
        let range = format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len());
        reply("206 Partial Content", &[&length, &range, "ETag: \"v1\""], &body[from..to], then)
    }
}

#[tokio::test]
async fn a_transfer_that_breaks_is_continued_where_it_broke() {
    let body = recording(100_000);
    let host = Host::start(brittle(body.clone(), 30_000, Then::Close)).await;
    let bench = Bench::new();
    let fetched = bench.fetch(&host.url("/a.mp3")).await;
    assert_is(&bench, &fetched, &body);
    let offsets: Vec<_> = host.seen().iter().map(|seen| seen.offset("\"v1\"")).collect();
    assert_eq!(offsets, [None, Some(30_000), Some(60_000), Some(90_000)]);
}

#[tokio::test]
async fn a_reset_connection_costs_nothing_but_another_request() {
    let body = recording(100_000);
    let host = Host::start(brittle(body.clone(), 40_000, Then::Reset)).await;
    let bench = Bench::new();
    // How much a reset lets through is the network's affair; enough tries are part of the promise.
    let mut tries = 0;
    let fetched = loop {
        match bench.fetcher.fetch(&host.url("/a.mp3"), &bench.policy, &bench.dest()).await {
            Ok(fetched) => break fetched,
            Err(err @ (FetchError::Interrupted { .. } | FetchError::Unreachable { .. })) => {
                tries += 1;
                assert!(tries < 10, "{err}");
            }
            Err(err) => panic!("{err}"),
        }
    };
    assert_is(&bench, &fetched, &body);
}

#[tokio::test]
async fn a_host_that_always_breaks_is_given_up_and_continued_by_the_next_attempt() {
    let body = recording(100_000);
    let host = Host::start(brittle(body.clone(), 10_000, Then::Close)).await;
    let bench = Bench::new();
    let err = bench.fail(&host.url("/a.mp3")).await;
    assert!(
        matches!(err, FetchError::Interrupted { received_bytes: 50_000, expected_bytes: Some(100_000), .. }),
        "{err:?}"
    );
    assert_eq!((err.fault(), err.side()), (Fault::Transient, Side::RecordingHost));
    assert_eq!(bench.files(), ["original.part", "original.resume"]);
    // Signed anew in between, as platforms do.
    let fresh =
        RecordingUrl::parse(&host.url("/a.mp3").as_url().unwrap().as_str().replace("5ecre7", "another")).unwrap();
    let fetched = bench.fetch(&fresh).await;
    assert_is(&bench, &fetched, &body);
    assert_eq!(host.seen().len(), 10, "no byte was asked for twice");
}

#[tokio::test]
async fn another_recording_never_continues_a_broken_one() {
    // The same size and the same tag: only the address tells them apart.
    let (first, second) = (recording(100_000), recording(100_004).split_off(7));
    let second = [b"ID3".to_vec(), second].concat();
    let (one, two) = (brittle(first, 10_000, Then::Close), brittle(second.clone(), 100_000, Then::Close));
    let host =
        Host::start(move |seen, n| if seen.target.starts_with("/first") { one(seen, n) } else { two(seen, n) }).await;
    let bench = Bench::new();
    bench.fail(&host.url("/first.mp3")).await;
    let fetched = bench.fetch(&host.url("/second.mp3")).await;
    assert_is(&bench, &fetched, &second);
}

#[tokio::test]
async fn a_recording_that_changed_meanwhile_is_taken_from_its_beginning() {
    let (old, new) = (recording(50_000), recording(60_001).split_off(1));
    let served = new.clone();
    let host = Host::start(move |_, number| match number {
        0 => reply("200 OK", &["Content-Length: 50000", "ETag: \"old\""], &old[..20_000], Then::Close),
        _ => reply("200 OK", &["Content-Length: 60000", "ETag: \"new\""], &served, Then::Close),
    })
    .await;
    let bench = Bench::new();
    let fetched = bench.fetch(&host.url("/a.mp3")).await;
    assert_is(&bench, &fetched, &new);
    assert_eq!(host.seen()[1].headers["if-range"], "\"old\"");
}

#[tokio::test]
async fn a_wrong_continuation_is_never_glued_on() {
    let body = recording(50_000);
    for wrong in ["bytes 10000-49999/50000", "bytes 20000-49999/50001", "bytes */50000", "nonsense"] {
        let served = body.clone();
        let host = Host::start(move |seen, number| match number {
            0 => reply("200 OK", &["Content-Length: 50000", "ETag: \"v1\""], &served[..20_000], Then::Close),
            _ if seen.headers.contains_key("range") => reply(
                "206 Partial Content",
                &["Content-Length: 30000", &format!("Content-Range: {wrong}")],
                &served[10_000..40_000],
                Then::Close,
            ),
            _ => whole(&served),
        })
        .await;
        let bench = Bench::new();
        let fetched = bench.fetch(&host.url("/a.mp3")).await;
        assert_is(&bench, &fetched, &body);
        assert_eq!(host.seen().len(), 3, "{wrong}");
    }
}

#[tokio::test]
async fn a_range_of_a_changed_body_from_a_host_that_ignores_if_range_is_not_glued_on() {
    let (old, new) = (recording(50_000), recording(50_001).split_off(1));
    let served = new.clone();
    let host = Host::start(move |seen, number| match number {
        0 => reply("200 OK", &["Content-Length: 50000", "ETag: \"old\""], &old[..20_000], Then::Close),
        _ if seen.headers.contains_key("range") => reply(
            "206 Partial Content",
            &["Content-Length: 30000", "Content-Range: bytes 20000-49999/50000", "ETag: \"new\""],
            &served[20_000..],
            Then::Close,
        ),
        _ => whole(&served),
    })
    .await;
    let bench = Bench::new();
    let fetched = bench.fetch(&host.url("/a.mp3")).await;
    assert_is(&bench, &fetched, &new);
}

#[tokio::test]
async fn without_a_validator_a_broken_transfer_begins_again() {
    let body = recording(50_000);
    let served = body.clone();
    let host = Host::start(move |_, number| match number {
        0 => reply("200 OK", &["Content-Length: 50000", "ETag: W/\"weak\""], &served[..20_000], Then::Close),
        _ => whole(&served),
    })
    .await;
    let bench = Bench::new();
    let fetched = bench.fetch(&host.url("/a.mp3")).await;
    assert_is(&bench, &fetched, &body);
    assert!(!host.seen()[1].headers.contains_key("range"));
}

#[tokio::test]
async fn a_body_shorter_than_promised_is_never_a_recording() {
    let body = recording(5_000);
    let host = Host::start(move |_, _| reply("200 OK", &["Content-Length: 6000"], &body, Then::Close)).await;
    let bench = Bench::new();
    let err = bench.fail(&host.url("/a.mp3")).await;
    assert!(matches!(err, FetchError::Interrupted { expected_bytes: Some(6000), .. }), "{err:?}");
    assert_eq!(bench.files(), Vec::<String>::new(), "nothing to continue with, nothing kept");
}

#[tokio::test]
async fn pages_and_answers_are_not_recordings_and_are_not_quoted() {
    let page = format!("<!DOCTYPE html><title>canary-text</title>{}", "x".repeat(4000));
    let bodies =
        [("HTML", page), ("JSON", r#"{"error":"canary-text"}"#.to_owned()), ("text", "canary-text".to_owned())];
    for (kind, body) in bodies {
        let served = body.clone();
        let host = Host::start(move |_, _| whole(served.as_bytes())).await;
        let bench = Bench::new();
        let err = bench.fail(&host.url("/a.mp3")).await;
        let FetchError::NotARecording { what, size_bytes, .. } = &err else { panic!("{err:?}") };
        assert_eq!((*what, *size_bytes), (kind, body.len() as u64));
        assert!(!format!("{err} {err:?}").contains("canary"), "{err:?}");
        assert_eq!(err.fault(), Fault::Permanent);
        assert_eq!(bench.files(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn nothing_is_not_a_recording_yet() {
    for reply_of in [|| whole(b""), || status("202 Accepted", &[]), || reply("204 No Content", &[], b"", Then::Close)] {
        let host = Host::start(move |_, _| reply_of()).await;
        let bench = Bench::new();
        let err = bench.fail(&host.url("/a.mp3")).await;
        assert!(matches!(err, FetchError::Empty { .. }), "{err:?}");
    }
}

#[tokio::test]
async fn each_status_says_what_to_do_next() {
    let pause = |millis| Fault::Throttled { retry_after: Duration::from_millis(millis) };
    let cases: [(&str, &[&str], &str, Fault); 12] = [
        ("400 Bad Request", &[], "Denied", Fault::Permanent),
        ("401 Unauthorized", &[], "Denied", Fault::Permanent),
        ("403 Forbidden", &[], "Denied", Fault::Permanent),
        ("404 Not Found", &[], "Gone", Fault::Transient),
        ("410 Gone", &[], "Gone", Fault::Transient),
        ("429 Too Many Requests", &["Retry-After: 1.5"], "Throttled", pause(1500)),
        ("429 Too Many Requests", &[], "Throttled", Fault::Transient),
        ("503 Service Unavailable", &["Retry-After: 7"], "Throttled", pause(7000)),
        ("503 Service Unavailable", &[], "ServerError", Fault::Transient),
        ("500 Internal Server Error", &[], "ServerError", Fault::Transient),
        ("418 Teapot", &[], "Unexpected", Fault::Permanent),
        ("302 Found", &[], "Unexpected", Fault::Permanent),
    ];
    for (line, headers, variant, fault) in cases {
        let headers: Vec<String> = headers.iter().map(|&header| header.to_owned()).collect();
        let host = Host::start(move |_, _| status(line, &headers.iter().map(String::as_str).collect::<Vec<_>>())).await;
        let bench = Bench::new();
        let err = bench.fail(&host.url("/a.mp3")).await;
        assert!(format!("{err:?}").starts_with(variant), "{line}: {err:?}");
        assert_eq!(err.fault(), fault, "{line}");
        assert_eq!(err.side(), Side::RecordingHost);
        assert_eq!(host.seen().len(), 1, "{line}: retries are the job's affair");
    }
}

#[tokio::test]
async fn an_expired_url_does_not_lose_what_has_arrived() {
    let body = recording(60_000);
    let served = body.clone();
    let host = Host::start(move |seen, number| match number {
        0 => reply("200 OK", &["Content-Length: 60000", "ETag: \"v1\""], &served[..25_000], Then::Close),
        1 => status("403 Forbidden", &[]),
        _ => brittle(served.clone(), 60_000, Then::Close)(seen, number),
    })
    .await;
    let bench = Bench::new();
    let err = bench.fail(&host.url("/a.mp3")).await;
    assert!(matches!(err, FetchError::Denied { status: 403, .. }), "{err:?}");
    let fetched = bench.fetch(&host.url("/a.mp3")).await;
    assert_is(&bench, &fetched, &body);
    assert_eq!(host.seen()[2].offset("\"v1\""), Some(25_000));
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let bench = Bench::new();
    let url = RecordingUrl::parse(&format!("http://{address}/a.mp3?{SECRET}")).unwrap();
    let err = bench.fail(&url).await;
    assert!(matches!(err, FetchError::Unreachable { .. }), "{err:?}");
    assert_eq!(err.fault(), Fault::Transient);
}

#[tokio::test]
async fn a_spool_that_cannot_be_written_is_named() {
    let host = Host::start(|_, _| whole(&recording(1000))).await;
    let bench = Bench::new();
    let dest = bench.dir.path().join("absent").join("original");
    let err = bench.fetcher.fetch(&host.url("/a.mp3"), &bench.policy, &dest).await.unwrap_err();
    assert!(matches!(err, FetchError::Spool { .. }), "{err:?}");
    assert_eq!((err.fault(), err.side()), (Fault::Transient, Side::Worker));
    assert!(err.to_string().contains("absent"), "{err}");
    assert_eq!(host.seen().len(), 0, "no byte is asked for that cannot be kept");
}

#[tokio::test]
async fn a_limit_that_is_met_exactly_is_not_exceeded() {
    let body = recording(4096);
    let served = body.clone();
    let host = Host::start(move |_, _| whole(&served)).await;
    let bench = Bench::with("max_bytes = 4096", Duration::from_secs(30));
    let fetched = bench.fetch(&host.url("/a.mp3")).await;
    assert_is(&bench, &fetched, &body);
}
