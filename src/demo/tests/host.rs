use std::sync::Arc;

use jiff::SignedDuration;

use super::*;

const ID: &str = "call_000000";

/// The link in the list.
async fn link(site: &Site) -> String {
    let list = site.read(Api::KrosaiV1, "/calls").await;
    list["calls"][0]["recording_url"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn ranges_are_honoured_for_the_version_they_were_asked_of() {
    let site = Site::of(many(Api::KrosaiV1, 1)).await;
    let (url, bytes) = (link(&site).await, recordings::tiny().bytes);
    let whole = site.client.get(&url).send().await.unwrap();
    let tag = whole.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(whole.headers()["content-type"], "audio/mpeg");
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    assert_eq!(whole.bytes().await.unwrap(), bytes);
    let last = bytes.len() - 1;
    for (range, slice) in [
        ("bytes=0-9".to_owned(), 0..10),
        ("bytes=100-".to_owned(), 100..bytes.len()),
        ("bytes=-7".to_owned(), bytes.len() - 7..bytes.len()),
        (format!("bytes={last}-999999"), last..bytes.len()),
    ] {
        let part = site.client.get(&url).header("range", &range).header("if-range", &tag).send().await.unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        let expected = format!("bytes {}-{}/{}", slice.start, slice.end - 1, bytes.len());
        assert_eq!(part.headers()["content-range"], expected.as_str());
        assert_eq!(part.bytes().await.unwrap(), bytes.slice(slice));
    }
    let beyond = site.client.get(&url).header("range", format!("bytes={}-", bytes.len())).send().await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let changed =
        site.client.get(&url).header("range", "bytes=0-9").header("if-range", "\"old\"").send().await.unwrap();
    assert_eq!((changed.status(), changed.bytes().await.unwrap().len()), (StatusCode::OK, bytes.len()));
}

#[tokio::test]
async fn a_link_works_until_it_expires_and_only_as_signed() {
    let site =
        Site::with(|builder| builder.link_ttl(SignedDuration::from_mins(10)).calls(many(Api::KrosaiV1, 2))).await;
    let url = link(&site).await;
    let status = async |url: &str| site.client.get(url).send().await.unwrap().status();
    site.turn_clock(599);
    assert_eq!(status(&url).await, StatusCode::OK);
    site.turn_clock(1);
    assert_eq!(status(&url).await, StatusCode::FORBIDDEN);
    let fresh = link(&site).await;
    assert_eq!(status(&fresh).await, StatusCode::OK);
    assert_eq!(status(&fresh.replace("call_000001", ID)).await, StatusCode::FORBIDDEN, "signed for another file");
    assert_eq!(status(fresh.split('?').next().unwrap()).await, StatusCode::FORBIDDEN, "not signed at all");
    let with_key = site.client.get(&fresh).bearer_auth("key").send().await.unwrap();
    assert_eq!(with_key.status(), StatusCode::BAD_REQUEST, "storage takes one kind of credentials");
}

#[tokio::test]
async fn a_file_that_is_gone_is_404() {
    let site = Site::of(many(Api::KrosaiV1, 1)).await;
    let url = link(&site).await;
    site.platform.remove_call(Api::KrosaiV1, ID);
    assert_eq!(site.client.get(&url).send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn ids_that_look_like_paths_are_only_ids() {
    let mut call = SampleCall::numbered(Api::KrosaiV1, 0, now());
    "../../etc/passwd?x=1#y".clone_into(&mut call.id);
    let site = Site::of([call]).await;
    let url = link(&site).await;
    assert!(url.contains("/recordings/krosai/..%2F..%2Fetc%2Fpasswd%3Fx%3D1%23y.mp3?"), "{url}");
    assert_eq!(site.client.get(&url).send().await.unwrap().bytes().await.unwrap(), recordings::tiny().bytes);
    let detail = site.read(Api::KrosaiV1, "/calls/..%2F..%2Fetc%2Fpasswd%3Fx%3D1%23y").await;
    assert_eq!(detail["id"], "../../etc/passwd?x=1#y");
    assert_eq!(site.platform.requests().of(RequestKind::Recording, "../../etc/passwd?x=1#y"), 1);
}

#[tokio::test]
async fn links_can_lead_to_another_host_or_anywhere() {
    let mut calls = many(Api::KrosaiV1, 2);
    calls[0].recording_url = Some("http://169.254.169.254/latest/meta-data".to_owned());
    let clock: Clock = Arc::new(now);
    let platform = SamplePlatform::builder(clock).recording_base("http://media.example.test").calls(calls).build();
    let running = platform.serve(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
    let site = Site { platform, running, client: client(), seconds: Arc::default() };
    let list = site.read(Api::KrosaiV1, "/calls").await;
    assert!(list["calls"][0]["recording_url"].as_str().unwrap().starts_with("http://media.example.test/recordings/"));
    assert_eq!(list["calls"][1]["recording_url"], "http://169.254.169.254/latest/meta-data");
}

#[tokio::test]
async fn the_log_tells_calls_kinds_and_credentials_apart() {
    let site = Site::of(many(Api::KrosaiV1, 2)).await;
    site.read(Api::KrosaiV1, "/calls?limit=1").await;
    site.read(Api::KrosaiV1, "/calls/call_000000").await;
    site.read(Api::KrosaiV1, "/calls/call_000000").await;
    site.read(Api::KrosaiV1, "/calls/call_000001/recording").await;
    let requests = site.platform.requests();
    assert_eq!((requests.of(RequestKind::Detail, ID), requests.of(RequestKind::Detail, "call_000001")), (2, 0));
    assert_eq!(requests.of(RequestKind::RecordingLink, "call_000001"), 1);
    let all: Vec<(RequestKind, u64)> = requests.iter().map(|request| (request.kind, request.nth)).collect();
    assert_eq!(
        all,
        [(RequestKind::List, 1), (RequestKind::Detail, 1), (RequestKind::Detail, 2), (RequestKind::RecordingLink, 1)]
    );
    let first = requests.iter().next().unwrap();
    assert_eq!((first.query.as_deref(), first.header("x-api-key")), (Some("limit=1"), Some("kros_live_sample")));
}
