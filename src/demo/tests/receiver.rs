use serde_json::json;

use super::*;

const PATH: &str = "/receiver/calls/call-1";

/// Sends a change. Returns the status and the version tag.
async fn send(site: &Site, headers: &[(&'static str, &str)], body: Value) -> (StatusCode, Option<String>) {
    let request = site.client.patch(site.url(PATH)).bearer_auth(Keys::default().receiver).json(&body);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let answer = request.send().await.unwrap();
    let tag = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
    (answer.status(), tag)
}

async fn site() -> Site {
    let site = Site::of([]).await;
    site.platform.register_record("call-1", json!({ "owner": "crm" }));
    site
}

#[tokio::test]
async fn a_change_needs_the_version_it_names() {
    let site = site().await;
    let stale = send(&site, &[("if-match", "\"v0\"")], json!({ "a": 1 })).await;
    assert_eq!(stale, (StatusCode::PRECONDITION_FAILED, None));
    let current = send(&site, &[("if-match", "\"v1\"")], json!({ "a": 1 })).await;
    assert_eq!(current, (StatusCode::OK, Some("\"v2\"".to_owned())));
    let record = site.platform.record("call-1").unwrap();
    assert_eq!((record.version, record.effects, record.body), (2, 1, json!({ "owner": "crm", "a": 1 })));
    let read = site.get(PATH).bearer_auth(Keys::default().receiver).send().await.unwrap();
    assert_eq!(read.headers()["etag"], "\"v2\"");
}

#[tokio::test]
async fn a_repeated_request_has_one_effect_and_the_first_answer() {
    let site = site().await;
    let headers = [("if-match", "\"v1\""), ("idempotency-key", "k1")];
    let first = send(&site, &headers, json!({ "a": 1 })).await;
    send(&site, &[], json!({ "b": 2 })).await;
    let again = send(&site, &headers, json!({ "a": 1 })).await;
    assert_eq!((&first, &again), (&(StatusCode::OK, Some("\"v2\"".to_owned())), &first));
    assert_eq!(site.platform.record("call-1").unwrap().effects, 2);
    let other = send(&site, &[("idempotency-key", "k1")], json!({ "a": 7 })).await;
    assert_eq!(other.0, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_refused_change_does_not_use_up_its_key() {
    let site = site().await;
    let refused = send(&site, &[("if-match", "\"v9\""), ("idempotency-key", "k1")], json!({ "a": 1 })).await;
    assert_eq!(refused.0, StatusCode::PRECONDITION_FAILED);
    let renewed = send(&site, &[("if-match", "\"v1\""), ("idempotency-key", "k1")], json!({ "a": 2 })).await;
    assert_eq!(renewed.0, StatusCode::OK);
}

#[tokio::test]
async fn a_receiver_that_commits_and_drops_its_answer_has_done_it_once() {
    let site = site().await;
    site.platform.set_faults(|request| {
        (request.kind == RequestKind::RecordWrite && request.nth == 1).then_some(FaultAnswer::CommitThenDrop)
    });
    let put = || {
        let request = site.client.put(site.url(PATH)).bearer_auth(Keys::default().receiver);
        request.header("if-match", "\"v1\"").header("idempotency-key", "k1").json(&json!({ "a": 1 })).send()
    };
    put().await.unwrap_err();
    assert_eq!(site.platform.record("call-1").unwrap().effects, 1);
    assert_eq!(put().await.unwrap().status(), StatusCode::OK);
    let record = site.platform.record("call-1").unwrap();
    assert_eq!((record.effects, record.body), (1, json!({ "a": 1 })), "PUT replaces");
}

#[tokio::test]
async fn strangers_and_unknown_calls_are_refused() {
    let site = site().await;
    assert_eq!(site.get(PATH).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let unknown = site.get("/receiver/calls/other").bearer_auth(Keys::default().receiver).send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    assert_eq!(site.platform.requests().of(RequestKind::RecordRead, "other"), 1);
}
