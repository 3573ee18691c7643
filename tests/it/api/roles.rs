//! `POST /v1/calls/{id}/swap-roles`.

use aftercall::domain::Outcome;
use aftercall::store::Scope;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::server::{Answer, Server, answer, call, spoken};

async fn swap(server: &Server, key: &str, id: &str, body: &str) -> Answer {
    let path = format!("/v1/calls/{id}/swap-roles");
    answer(server.request(Method::POST, key, &path).body(body.to_owned())).await
}

#[tokio::test]
async fn roles_are_swapped_by_those_who_may_write() {
    let server = Server::start().await;
    let record = server.done("desk", &call("c1")).await;
    let key = server.key(&[Scope::CallsWrite, Scope::TranscriptsRead], None).await;
    let reader = server.key(&[Scope::TranscriptsRead], None).await;
    assert_eq!(swap(&server, &reader, "c1", "").await.status, StatusCode::FORBIDDEN);
    let elsewhere = server.key(&[Scope::CallsWrite], Some("other")).await;
    assert_eq!(swap(&server, &elsewhere, "c1", "").await.status, StatusCode::NOT_FOUND);

    let swapped = swap(&server, &key, "c1", "").await;
    assert_eq!(swapped.status, StatusCode::OK, "{}", swapped.text);
    let said = swapped.json();
    assert_eq!((&said["transcript_version"], &said["speakers"][0]["role"]), (&json!(2), &json!("caller")));
    assert_eq!(said["speakers"][0]["evidence"], "correction");
    let text = server.get(&key, "/v1/calls/c1/transcript.txt").await.text;
    assert!(text.starts_with("[Caller]: Good morning") && text.contains("[Agent]: Where is"), "{text}");
    assert!(server.audit(&record).await.contains(&"roles_corrected version 2".to_owned()));
}

#[tokio::test]
async fn what_cannot_be_corrected_is_said() {
    let server = Server::start().await;
    let key = server.key(&[Scope::CallsWrite], None).await;
    server.done("desk", &call("c1")).await;
    let wordless = server.admit("desk", &call("c2")).await;
    server.finish(&wordless, Outcome::NoEngine, None).await;
    let mut nameless = spoken();
    for speaker in &mut nameless.speakers {
        *speaker = aftercall::domain::transcript::Speaker::nameless(speaker.id);
    }
    let unknown = server.admit("desk", &call("c3")).await;
    server.finish(&unknown, Outcome::Done, Some(&nameless)).await;
    for (id, body, status, code) in [
        ("c1", r#"{"agent":1}"#, StatusCode::CONFLICT, "nothing_to_correct"),
        ("c1", r#"{"agent":"x"}"#, StatusCode::BAD_REQUEST, "invalid_body"),
        ("c1", r#"{"agnet":1}"#, StatusCode::BAD_REQUEST, "invalid_body"),
        ("c1", "[]", StatusCode::BAD_REQUEST, "invalid_body"),
        ("c1", "{", StatusCode::BAD_REQUEST, "invalid_body"),
        ("c2", "", StatusCode::CONFLICT, "no_transcript"),
        ("c3", "{}", StatusCode::CONFLICT, "nothing_to_correct"),
        ("c3", r#"{"agent":3}"#, StatusCode::CONFLICT, "nothing_to_correct"),
        ("c9", "", StatusCode::NOT_FOUND, "not_found"),
    ] {
        let said = swap(&server, &key, id, body).await;
        assert_eq!((said.status, said.json()["code"].as_str().unwrap()), (status, code), "{id} {body}: {}", said.text);
    }
    let named = swap(&server, &key, "c3", r#"{"agent":2}"#).await;
    let roles: Vec<_> = named.json()["speakers"].as_array().unwrap().iter().map(|s| s["role"].clone()).collect();
    assert_eq!(roles, [json!("caller"), json!("agent")]);
}
