//! Where the download stops: addresses it may not ask, sizes and times it may not pass.

use std::time::Duration;

use aftercall::domain::{Classify, Fault, RecordingUrl};
use aftercall::fetch::{FetchError, HostPolicy};
use url::Url;

use super::host::{Host, Reply, SECRET, Then, reply, status, whole};
use super::{Bench, assert_is, brittle, recording};

#[tokio::test]
async fn a_redirect_to_a_private_address_is_refused_before_it_is_asked() {
    let inside = Host::start_on("127.0.0.2:0", |_, _| whole(&recording(1000))).await;
    let targets = [
        inside.url("/secret").as_url().unwrap().to_string(),
        format!("https://localhost:{}/", inside.address.port()),
        "http://169.254.169.254/latest/meta-data?x=5ecre7".to_owned(),
        "https://[::ffff:10.0.0.1]/".to_owned(),
        "http://recordings.example.com/plain-http".to_owned(),
    ];
    for target in targets {
        let location = format!("Location: {target}");
        let host = Host::start(move |_, _| status("302 Found", &[&location])).await;
        let bench = Bench::new();
        let err = bench.fail(&host.url("/a.mp3")).await;
        assert!(matches!(err, FetchError::RefusedUrl { .. }), "{target}: {err:?}");
        assert_eq!(err.fault(), Fault::Permanent);
    }
    assert_eq!(inside.seen().len(), 0);
}

#[tokio::test]
async fn a_name_that_resolves_to_loopback_is_refused_by_the_resolver() {
    let inside = Host::start(|_, _| whole(&recording(1000))).await;
    let bench = Bench { policy: HostPolicy::public_only(), ..Bench::new() };
    let url = RecordingUrl::parse(&format!("https://localhost:{}/a.mp3?{SECRET}", inside.address.port())).unwrap();
    let err = bench.fail(&url).await;
    assert!(matches!(&err, FetchError::RefusedUrl { host: Some(host), .. } if host == "localhost"), "{err:?}");
    assert!(err.to_string().contains("recording_hosts"), "the remedy is named: {err}");
    assert_eq!(inside.seen().len(), 0);
}

#[tokio::test]
async fn a_named_host_may_be_plain_http_and_local() {
    let body = recording(1000);
    let served = body.clone();
    let host = Host::start(move |_, _| whole(&served)).await;
    let base = Url::parse("https://api.platform.test").unwrap();
    let bench = Bench { policy: HostPolicy::new(&base, &["LocalHost".to_owned()]), ..Bench::new() };
    let url = RecordingUrl::parse(&format!("http://localhost:{}/a.mp3", host.address.port())).unwrap();
    let fetched = bench.fetch(&url).await;
    assert_is(&bench, &fetched, &body);
}

#[tokio::test]
async fn redirects_are_followed_a_few_times_and_no_further() {
    let body = recording(1000);
    let served = body.clone();
    let host = Host::start(move |seen, _| match seen.target.as_str() {
        "/3" => whole(&served),
        "/2" => status("307 Temporary Redirect", &["Location: /3"]),
        "/1" => status("303 See Other", &["Location: /2"]),
        target if target.starts_with("/start") => status("301 Moved Permanently", &["Location: /1"]),
        _ => status("302 Found", &["Location: /loop"]),
    })
    .await;
    let bench = Bench::new();
    let fetched = bench.fetch(&host.url("/start")).await;
    assert_is(&bench, &fetched, &body);
    std::fs::remove_file(bench.dest()).unwrap();
    let err = bench.fail(&host.url("/loop")).await;
    assert!(matches!(err, FetchError::TooManyRedirects { limit: 3 }), "{err:?}");
    assert_eq!(host.seen().len(), 4 + 4);
}

#[tokio::test]
async fn a_claimed_600_megabytes_are_refused_before_they_are_read() {
    let host = Host::start(|_, _| reply("200 OK", &["Content-Length: 629145600"], b"ID3\x04", Then::Hang)).await;
    let bench = Bench::new();
    let err = bench.fail(&host.url("/a.mp3")).await;
    assert!(matches!(err, FetchError::TooLarge { size_bytes: 629_145_600, .. }), "{err:?}");
    assert_eq!(err.fault(), Fault::Permanent);
    assert_eq!(bench.files(), Vec::<String>::new());
}

#[tokio::test]
async fn an_endless_body_is_cut_at_the_limit() {
    let host = Host::start(|_, _| reply("200 OK", &[], &recording(10_000), Then::Forever)).await;
    let bench = Bench::with("max_bytes = 1000000", Duration::from_secs(30));
    let err = bench.fail(&host.url("/a.mp3")).await;
    assert!(matches!(err, FetchError::TooLarge { limit_bytes: 1_000_000, .. }), "{err:?}");
    assert_eq!(bench.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_trickling_body_is_given_up_and_continued_later() {
    let body = recording(20_000);
    let served = body.clone();
    let host = Host::start(move |seen, number| {
        if number == 0 {
            return reply("200 OK", &["Content-Length: 20000", "ETag: \"v1\""], &served[..10], Then::Hang);
        }
        brittle(served.clone(), 20_000, Then::Close)(seen, number)
    })
    .await;
    let bench = Bench::with("", Duration::from_millis(500));
    let err = bench.fail(&host.url("/a.mp3")).await;
    assert!(matches!(err, FetchError::TooSlow { received_bytes: 10, .. }), "{err:?}");
    assert_eq!(err.fault(), Fault::Transient);
    let fetched = bench.fetch(&host.url("/a.mp3")).await;
    assert_is(&bench, &fetched, &body);
    assert_eq!(host.seen()[1].offset("\"v1\""), Some(10));
}

#[tokio::test]
async fn a_silent_host_is_given_up() {
    let host = Host::start(|_, _| Reply { bytes: Vec::new(), then: Then::Hang }).await;
    let bench = Bench::with("", Duration::from_millis(60));
    let err = bench.fail(&host.url("/a.mp3")).await;
    assert!(matches!(err, FetchError::TooSlow { received_bytes: 0, .. }), "{err:?}");
}

#[tokio::test]
async fn the_whole_download_has_a_time_limit() {
    let host = Host::start(|_, _| reply("200 OK", &["Content-Length: 90000"], &recording(5000), Then::Hang)).await;
    let bench = Bench::with("total_timeout = \"60ms\"", Duration::from_secs(30));
    let err = bench.fail(&host.url("/a.mp3")).await;
    assert!(matches!(err, FetchError::TimedOut { .. }), "{err:?}");
    assert_eq!(err.fault(), Fault::Transient);
}
