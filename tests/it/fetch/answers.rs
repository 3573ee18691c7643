//! Answers of every form that hold a recording, redirects of every kind, and what a host says of a size.

use aftercall::demo::recordings;
use aftercall::domain::RecordingUrl;
use aftercall::fetch::FetchError;

use super::host::{Host, Reply, Seen, Then, reply, status, whole};
use super::{Bench, assert_is, recording};

#[tokio::test]
async fn any_success_with_a_body_is_a_recording() {
    let body = recordings::tiny().bytes.to_vec();
    let size = body.len();
    let all = format!("Content-Range: bytes 0-{}/{size}", size - 1);
    let untold = format!("Content-Range: bytes 0-{}/*", size - 1);
    let answers = [
        ("200 OK", String::new()),
        ("201 Created", String::new()),
        ("202 Accepted", String::new()),
        ("203 Non-Authoritative Information", String::new()),
        ("226 IM Used", String::new()),
        ("299 Whatever", String::new()),
        ("206 Partial Content", all),
        ("206 Partial Content", untold),
        ("206 Partial Content", String::new()),
    ];
    for (line, range) in answers {
        let (served, length) = (body.clone(), format!("Content-Length: {size}"));
        let host = Host::start(move |_, _| {
            let headers: Vec<&str> =
                [length.as_str(), &range].into_iter().filter(|header| !header.is_empty()).collect();
            reply(line, &headers, &served, Then::Close)
        })
        .await;
        let bench = Bench::new();
        let fetched = bench.fetch(&host.url("/a.mp3")).await;
        assert_is(&bench, &fetched, &body);
        assert_eq!((host.seen().len(), fetched.is_short), (1, false), "{line}");
    }
}

/// Gives at most `step` bytes to whoever asks, for a range or not.
fn in_parts(body: Vec<u8>, step: usize, tag: &'static str) -> impl Fn(&Seen, usize) -> Reply {
    move |seen, _| {
        let from = seen.offset(tag.strip_prefix("ETag: ").unwrap_or_default()).unwrap_or(0);
        let to = (from + step).min(body.len());
        let range = format!("Content-Range: bytes {from}-{}/{}", to - 1, body.len());
        let length = format!("Content-Length: {}", to - from);
        reply("206 Partial Content", &[&length, &range, tag], &body[from..to], Then::Close)
    }
}

#[tokio::test]
async fn a_host_that_sends_parts_is_asked_for_all_of_them() {
    let body = recording(50_000);
    for tag in ["ETag: \"v1\"", "X-Tag: none"] {
        let host = Host::start(in_parts(body.clone(), 4_000, tag)).await;
        let bench = Bench::new();
        let fetched = bench.fetch(&host.url("/a.mp3")).await;
        assert_is(&bench, &fetched, &body);
        assert_eq!((host.seen().len(), fetched.is_short), (13, false), "{tag}");
    }
}

#[tokio::test]
async fn a_host_that_sends_one_part_and_no_more_has_sent_a_short_recording() {
    let body = recordings::delivery().bytes.to_vec();
    let range = format!("Content-Range: bytes 0-59999/{}", body.len());
    let served = body.clone();
    let host = Host::start(move |_, _| {
        reply("206 Partial Content", &["Content-Length: 60000", &range], &served[..60_000], Then::Close)
    })
    .await;
    let bench = Bench::new();
    let fetched = bench.fetch(&host.url("/a.mp3")).await;
    assert_is(&bench, &fetched, &body[..60_000]);
    assert!(fetched.is_short);
}

#[tokio::test]
async fn a_part_from_the_middle_is_no_answer() {
    let host = Host::start(|_, _| {
        let headers = ["Content-Length: 100", "Content-Range: bytes 100-199/200"];
        reply("206 Partial Content", &headers, &recording(100), Then::Close)
    })
    .await;
    let err = Bench::new().fail(&host.url("/a.mp3")).await;
    assert!(matches!(err, FetchError::Unexpected { status: 206, .. }), "{err:?}");
}

#[tokio::test]
async fn every_redirect_a_browser_follows_is_followed() {
    let body = recordings::tiny().bytes.to_vec();
    for code in
        ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        for location in ["/there", "there", "./there", "../there", "//HOST/there", "http://HOST/there", "/there#part"] {
            let served = body.clone();
            let host = Host::start(move |seen, _| {
                let location = format!("Location: {}", location.replace("HOST", &seen.headers["host"]));
                if seen.target == "/there" { whole(&served) } else { status(code, &[&location]) }
            })
            .await;
            let bench = Bench::new();
            let fetched = bench.fetch(&host.url("/here")).await;
            assert_is(&bench, &fetched, &body);
        }
    }
}

fn at(host: &Host, target: &str) -> RecordingUrl {
    RecordingUrl::parse(&format!("http://{}{target}", host.address)).unwrap()
}

#[tokio::test]
async fn path_and_query_are_asked_for_byte_for_byte() {
    let targets = [
        "/a.mp3?X-Amz-Signature=it's",
        "/./a/../b.mp3?x=/./",
        "/%2e/%2E%2e/a.mp3?%2E",
        "/a//b.mp3?a=1|2|3",
        "/a|b{c}[d]^e.mp3?f={g}[h]^i`j",
        "/a\\b.mp3?c\\d",
        "/a%2Fb%2fc.mp3?d=%2B+%20",
        "/a.mp3?response-content-disposition=attachment;filename='a b'",
        "/~a;v=1!$&'()*+,@:.mp3??",
    ];
    for target in targets {
        let host = Host::start(|_, _| whole(&recordings::tiny().bytes)).await;
        let url = at(&host, target);
        let bench = Bench::new();
        bench.fetch(&url).await;
        assert_eq!(host.seen()[0].target, target.replace(' ', "%20"));
        assert_eq!(host.seen()[0].headers["host"], host.address.to_string());
    }
    let host = Host::start(|_, _| whole(&recordings::tiny().bytes)).await;
    Bench::new().fetch(&at(&host, "/é/a?ü=<\">")).await;
    assert_eq!(host.seen()[0].target, "/%C3%A9/a?%C3%BC=%3C%22%3E", "only what no request can hold is encoded");
}

#[tokio::test]
async fn locations_are_followed_byte_for_byte() {
    let targets = ["/./x/%2e/y.mp3?sig='a'|b", "/x'y/../z.mp3?{a}", "/a%2fb?c=%20+"];
    for target in targets {
        for base in ["", "http://HOST", "//HOST"] {
            let host = Host::start(move |seen, number| match number {
                0 => status(
                    "302 Found",
                    &[&format!("Location: {}{target}", base.replace("HOST", &seen.headers["host"]))],
                ),
                _ => whole(&recordings::tiny().bytes),
            })
            .await;
            Bench::new().fetch(&host.url("/start/./here")).await;
            assert_eq!(host.seen()[1].target, target, "{base}");
        }
    }
}

#[tokio::test]
async fn a_size_is_asked_for_without_a_download() {
    let size = async |line: &'static str, headers: &'static [&'static str], then: Then| {
        let host = Host::start(move |_, _| reply(line, headers, &recording(2000)[..1025], then)).await;
        let bench = Bench::new();
        let told = bench.fetcher.ask(&host.url("/a.mp3"), &bench.policy).await;
        assert_eq!(host.seen()[0].headers["range"], "bytes=0-0");
        assert_eq!(host.seen()[0].headers["accept-encoding"], "identity");
        assert_eq!(bench.files(), Vec::<String>::new());
        told
    };
    let partial = ["Content-Range: bytes 0-0/123456", "Content-Length: 1", "ETag: \"v7\""];
    let partial: &'static [&'static str] = partial.to_vec().leak();
    let told = size("206 Partial Content", partial, Then::Close).await.unwrap();
    assert_eq!((told.size_bytes, told.tag.as_deref()), (Some(123_456), Some("\"v7\"")));
    // An endless body is not read.
    let told = size("200 OK", &["Content-Length: 777777777"], Then::Forever).await.unwrap();
    assert_eq!((told.size_bytes, told.tag), (Some(777_777_777), None));
    let told = size("200 OK", &["Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT"], Then::Forever).await.unwrap();
    assert_eq!((told.size_bytes, told.tag.as_deref()), (None, Some("Sun, 06 Nov 1994 08:00:00 GMT")));
    let told = size("416 Range Not Satisfiable", &["Content-Range: bytes */0", "Content-Length: 0"], Then::Close).await;
    assert_eq!(told.unwrap().size_bytes, Some(0));
    let err = size("403 Forbidden", &["Content-Length: 0"], Then::Close).await.unwrap_err();
    assert!(matches!(err, FetchError::Denied { status: 403, .. }), "{err:?}");
}
