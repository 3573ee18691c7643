use std::time::Duration;

use futures::StreamExt;

use super::*;

const TIMEOUT: Duration = Duration::from_millis(200);

/// A platform that answers all recording requests with `fault`, and a link to one recording.
async fn faulty(fault: FaultAnswer) -> (Site, String) {
    let mut call = SampleCall::numbered(Api::KrosaiV1, 0, now());
    call.audio = Some(recordings::delivery());
    let site = Site::of([call]).await;
    let list = site.read(Api::KrosaiV1, "/calls").await;
    site.platform.set_faults(move |request| (request.kind == RequestKind::Recording).then(|| fault.clone()));
    let link = list["calls"][0]["recording_url"].as_str().unwrap().to_owned();
    (site, link)
}

/// The number of received bytes, and whether the body ended as announced.
async fn drain(answer: Response) -> (u64, bool) {
    let mut stream = answer.bytes_stream();
    let mut arrived = 0;
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => arrived += piece.len() as u64,
            Err(_) => return (arrived, false),
        }
    }
    (arrived, true)
}

#[tokio::test]
async fn a_reset_comes_after_the_bytes_that_were_promised() {
    let (site, url) = faulty(FaultAnswer::ResetAfter(70_000)).await;
    let answer = site.client.get(&url).send().await.unwrap();
    assert_eq!(answer.content_length(), Some(recordings::delivery().bytes.len() as u64));
    let (arrived, complete) = drain(answer).await;
    assert_eq!((arrived, complete), (70_000, false));
}

#[tokio::test]
async fn a_truncated_answer_claims_to_be_whole() {
    let (site, url) = faulty(FaultAnswer::Truncate(1000)).await;
    let answer = site.client.get(&url).send().await.unwrap();
    assert_eq!((answer.status(), drain(answer).await), (StatusCode::OK, (1000, true)));
}

#[tokio::test]
async fn a_dropped_request_has_no_answer_and_leaves_the_server_usable() {
    let (site, url) = faulty(FaultAnswer::Drop).await;
    site.client.get(&url).send().await.unwrap_err();
    site.platform.clear_faults();
    assert_eq!(site.client.get(&url).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(site.platform.requests().count(RequestKind::Recording), 2);
}

#[tokio::test]
async fn silence_lasts_until_the_server_stops() {
    for fault in [FaultAnswer::Hang, FaultAnswer::StallAfter(100)] {
        let (site, url) = faulty(fault).await;
        let mut waiting = tokio::spawn({
            let client = site.client.clone();
            async move { client.get(&url).timeout(Duration::from_secs(60)).send().await?.bytes().await }
        });
        tokio::time::timeout(TIMEOUT, &mut waiting).await.expect_err("no answer while the server runs");
        site.running.stop().await;
        waiting.await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn huge_answers_are_announced_or_not() {
    const HUGE: u64 = 600 * 1024 * 1024;
    let (site, url) = faulty(FaultAnswer::HugeLength(HUGE)).await;
    assert_eq!(site.client.get(&url).send().await.unwrap().content_length(), Some(HUGE));
    let (site, url) = faulty(FaultAnswer::HugeBody(5_000_000)).await;
    let answer = site.client.get(&url).send().await.unwrap();
    assert_eq!((answer.content_length(), drain(answer).await), (None, (5_000_000, true)));
}

#[tokio::test]
async fn pages_and_nothing_in_place_of_audio() {
    let (site, url) = faulty(FaultAnswer::Html).await;
    let page = site.client.get(&url).send().await.unwrap();
    assert_eq!(
        (page.status(), page.headers()["content-type"].to_str().unwrap()),
        (StatusCode::OK, "text/html; charset=utf-8")
    );
    let (site, url) = faulty(FaultAnswer::Empty).await;
    let nothing = site.client.get(&url).send().await.unwrap();
    assert_eq!((nothing.status(), nothing.content_length()), (StatusCode::OK, Some(0)));
}

#[tokio::test]
async fn throttling_speaks_each_platforms_language() {
    let site = Site::with(|builder| {
        builder.calls(many(Api::KrosaiV1, 1)).faults(|request| request.api.map(|api| FaultAnswer::throttled(api, 1.5)))
    })
    .await;
    let request = signed(site.get("/krosai/v1/calls"), Api::KrosaiV1);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["retry-after"], "1.5");
    let (status, body) = site.status(Api::Atoms, "/conversation").await;
    assert_eq!((status, body["retry_after"].as_f64()), (StatusCode::TOO_MANY_REQUESTS, Some(1.5)));
}

#[tokio::test]
async fn a_fault_may_choose_by_call_and_count() {
    let site = Site::with(|builder| {
        builder.calls(many(Api::KrosaiV1, 2)).faults(|request| {
            let second_try = request.call_id.as_deref() == Some("call_000001") && request.nth == 2;
            second_try.then(|| FaultAnswer::status(503))
        })
    })
    .await;
    let status = async |id: &str| site.status(Api::KrosaiV1, &format!("/calls/{id}")).await.0.as_u16();
    let seen = [
        status("call_000001").await,
        status("call_000000").await,
        status("call_000001").await,
        status("call_000001").await,
    ];
    assert_eq!(seen, [200, 200, 503, 200]);
}
