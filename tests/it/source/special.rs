//! Requests that only one platform has: recordings, outcomes and fresh links.

use super::*;

#[tokio::test]
async fn zudus_recording_comes_from_the_list_and_its_older_list_is_known_too() {
    let platform = Platform::start(|seen, _| match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", _) => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        ("GET", "/api/calls") => body(&json!({ "status": "success", "data": { "calls": [{ "call_id": "c1",
            "call_status": "ENDED", "recording_url": "https://storage.test/a.mp4", "transcript": "Agent: hi" }] } })),
        _ => body(&json!({ "status": "success", "data": { "call_id": "c1", "call_status": "ENDED" } })),
    })
    .await;
    let zudu = platform.source("zudu", "");
    let call = zudu.call_for_processing(&id("c1"), None).await.unwrap().unwrap();
    assert!(call.recording_url.is_some() && call.turns.len() == 1);
    let link = zudu.fresh_recording_url(&call).await.unwrap().unwrap();
    assert_eq!(link.url.without_query(), "https://storage.test/a.mp4");
}

#[tokio::test]
async fn a_wish_not_to_store_that_only_the_list_tells_is_honoured() {
    let platform = Platform::start(|seen, _| match seen.path.as_str() {
        "/api/calls" => body(&json!({ "status": "success", "data": { "calls": [{ "call_id": "c1",
            "opt_out_sensitive_data_storage": true }] } })),
        _ => body(&json!({ "status": "success", "data": { "call_id": "c1", "call_status": "ENDED",
            "recording_url": "https://storage.test/a.mp4", "from_number": "+15550100" } })),
    })
    .await;
    let call = platform.source("zudu", "").call_for_processing(&id("c1"), None).await.unwrap().unwrap();
    let stored = serde_json::to_string(&call).unwrap();
    assert!(call.opt_out && !stored.contains("15550100") && !stored.contains("storage.test"), "{stored}");
}

#[tokio::test]
async fn an_outcome_is_written_into_zudus_metadata_under_its_key() {
    let platform =
        Platform::start(|_, _| body(&json!({ "status": "success", "data": { "operation": "update" } }))).await;
    let outcome = json!({ "status": "done", "mos": 4.1 });
    platform.source("zudu", "").write_metadata(&id("c/1"), &outcome, "key-1").await.unwrap();
    let seen = platform.seen().remove(0);
    assert_eq!((seen.method, seen.path.as_str()), (Method::PUT, "/api/calls/c%2F1"));
    let sent: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(sent, json!({ "metadata": { "aftercall": outcome } }));
    for (name, value) in [("x-api-key", "s3cret-key"), ("x-api-secret", "s3cret-half"), ("idempotency-key", "key-1")] {
        assert_eq!(seen.headers[name], value);
    }
    let refused = Platform::start(|_, _| body(&json!({ "status": "error", "message": "no" }))).await;
    assert!(refused.source("zudu", "").write_metadata(&id("c1"), &outcome, "k").await.is_err());
    let krosai = platform.source("krosai", "").write_metadata(&id("c1"), &outcome, "k").await.unwrap_err();
    assert_eq!(krosai.fault(), Fault::Permanent);
}

#[tokio::test]
async fn a_fresh_link_is_asked_for_where_each_platform_has_it() {
    let krosai = Platform::start(|seen, _| match seen.path.as_str() {
        "/calls/new/recording" => {
            body(&json!({ "recording_url": "https://storage.test/a.mp3?sig=2", "size_bytes": 9 }))
        }
        "/calls/old" => body(&json!({ "id": "old", "recording_url": "https://storage.test/b.mp3?sig=3" })),
        _ => status(404, &json!({ "error": "Not found" })),
    })
    .await;
    let source = krosai.source("krosai", "");
    let fresh = async |name: &str| {
        let known = source.get(&id("old")).await.unwrap().unwrap();
        source.fresh_recording_url(&SourceCall { id: id(name), ..known }).await.unwrap()
    };
    assert_eq!(fresh("new").await.unwrap().size_bytes, Some(9));
    assert_eq!(
        fresh("old").await.unwrap().url.as_url().unwrap().query(),
        Some("sig=3"),
        "no such route: the call is asked"
    );
    assert_eq!(fresh("gone").await, None);

    let atoms = Platform::start(|seen, _| match seen.path.as_str() {
        "/conversation/a/recording/download-url" => {
            body(&json!({ "status": true, "data": { "presignedUrl": "https://s3.test/a?sig=1" } }))
        }
        _ => body(&json!({ "status": true, "data": { "callId": "a", "status": "completed" } })),
    })
    .await;
    let source = atoms.source("atoms", "");
    let call = source.get(&id("a")).await.unwrap().unwrap();
    assert_eq!(source.fresh_recording_url(&call).await.unwrap().unwrap().url.as_url().unwrap().query(), Some("sig=1"));
}
