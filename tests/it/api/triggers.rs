//! `POST /v1/triggers`.

use std::collections::BTreeSet;
use std::time::Duration;

use aftercall::domain::{Outcome, SourceCall};
use aftercall::queue;
use aftercall::store::Scope;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::server::{Server, answer, call};
use crate::harness::Backend;

crate::harness::on_every_backend!(fifty_triggers_at_once_make_one_job);

async fn fifty_triggers_at_once_make_one_job(backend: Backend) {
    let server = &Server::on(backend).await;
    let key = server.key(&[Scope::CallsWrite], None).await;
    let body = json!({ "source": "desk", "call_id": "c1" });
    let answers = join_all((0..50).map(|_| server.trigger(&key, &body))).await;
    let (mut ids, mut jobs, mut fresh) = (BTreeSet::new(), BTreeSet::new(), 0);
    for answer in answers {
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        let triggered = answer.json()["triggers"][0].clone();
        assert_eq!((&triggered["state"], &triggered["outcome"]), (&json!("queued"), &Value::Null));
        assert_eq!((&triggered["call_id"], &triggered["source"]), (&json!("c1"), &json!("desk")));
        ids.insert(triggered["id"].as_str().unwrap().to_owned());
        jobs.insert(triggered["job_id"].as_i64().unwrap());
        fresh += usize::from(triggered["duplicate"] == false);
    }
    assert_eq!((ids.len(), jobs.len(), fresh), (1, 1, 1));
    let queued = server.app.queue.jobs(queue::FinishedJobs::Included, 100).await.unwrap();
    assert_eq!(queued.iter().map(|job| job.kind.as_str()).collect::<Vec<_>>(), ["process_call"]);
    assert_eq!(server.app.queue.jobs_about(ids.first().unwrap()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_call_that_has_ended_is_left_alone_unless_asked_for_again() {
    let server = Server::start().await;
    let record = server.done("desk", &call("c1")).await;
    let key = server.key(&[Scope::CallsWrite], None).await;
    let ended = server.trigger(&key, &json!({ "source": "desk", "call_id": "c1" })).await;
    assert_eq!(ended.status, StatusCode::OK);
    let expected = json!({ "id": record.uid.to_string(), "call_id": "c1", "source": "desk", "job_id": null,
        "duplicate": false, "state": "already_done", "outcome": "done" });
    assert_eq!(ended.json(), json!({ "triggers": [expected] }));
    assert_eq!(server.app.queue.due(Duration::ZERO, jiff::Timestamp::MIN).await.unwrap(), 0);

    let again = json!({ "source": "desk", "call_id": "c1", "again": true });
    let asked: Vec<_> = join_all((0..5).map(|_| server.trigger(&key, &again))).await;
    assert!(asked.iter().all(|answer| answer.status == StatusCode::ACCEPTED));
    assert_eq!(server.app.queue.due(Duration::ZERO, jiff::Timestamp::MIN).await.unwrap(), 1);
    let job = &server.app.queue.jobs_about(&record.uid.to_string()).await.unwrap()[0];
    assert_eq!(job.kind, "process_call");
}

#[tokio::test]
async fn what_may_not_be_kept_is_not_asked_for_again() {
    let server = Server::start().await;
    let key = server.key(&[Scope::CallsWrite], None).await;
    let record = server.admit("desk", &call("c1")).await;
    server.finish(&record, Outcome::OptedOut, None).await;
    let answer = server.trigger(&key, &json!({ "source": "desk", "call_id": "c1", "again": true })).await;
    assert_eq!(answer.status, StatusCode::OK);
    let triggered = answer.json()["triggers"][0].clone();
    assert_eq!((&triggered["state"], &triggered["outcome"]), (&json!("refused"), &json!("opted_out")));
    for (id, scrubbed) in [("c3", false), ("c4", true)] {
        let record = server.done("desk", &call(id)).await;
        server.condemn(&record).await;
        if scrubbed {
            let mut tx = server.app.store.begin().await.unwrap();
            server.app.store.scrub(&mut tx, record.uid, server.app.now()).await.unwrap();
            tx.commit().await.unwrap();
        }
        for again in [false, true] {
            let answer = server.trigger(&key, &json!({ "source": "desk", "call_id": id, "again": again })).await;
            let triggered = answer.json()["triggers"][0].clone();
            assert_eq!((&triggered["state"], &triggered["outcome"]), (&json!("erased"), &json!("erased")));
        }
    }
    assert_eq!(server.app.queue.due(Duration::ZERO, jiff::Timestamp::MIN).await.unwrap(), 0);
}

#[tokio::test]
async fn several_calls_go_in_one_request() {
    let server = Server::start().await;
    server.done("desk", &SourceCall { org_id: Some("org-a".to_owned()), ..call("old") }).await;
    let key = server.key(&[Scope::CallsWrite], Some("org-a")).await;
    let body = json!({ "calls": [{ "source": "desk", "call_id": "old" }, { "source": "branch", "call_id": "new" },
        { "source": "branch", "call_id": "new", "again": false }] });
    let answer = server.trigger(&key, &body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let states: Vec<(Value, Value)> = answer.json()["triggers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|triggered| (triggered["state"].clone(), triggered["duplicate"].clone()))
        .collect();
    let expected = [("already_done", false), ("queued", false), ("queued", true)];
    assert_eq!(states, expected.map(|(state, duplicate)| (json!(state), json!(duplicate))));
}

#[tokio::test]
async fn a_body_that_cannot_be_read_says_where_and_does_nothing() {
    let server = Server::start().await;
    let key = server.key(&[Scope::CallsWrite], None).await;
    let good = json!({ "source": "desk", "call_id": "c1" });
    let wrong = [
        (json!("x"), Value::Null),
        (json!([good]), Value::Null),
        (json!({ "calls": {} }), json!({ "field": "calls" })),
        (json!({ "calls": [] }), json!({ "field": "calls" })),
        (json!({ "calls": vec![&good; 101] }), json!({ "field": "calls" })),
        (json!({}), json!({ "index": 0, "field": "source" })),
        (json!({ "source": "desk" }), json!({ "index": 0, "field": "call_id" })),
        (json!({ "source": "desk", "call_id": 7 }), json!({ "index": 0, "field": "call_id" })),
        (
            json!({ "calls": [good, { "source": "desk", "call_id": "a\nb" }] }),
            json!({ "index": 1, "field": "call_id" }),
        ),
        (json!({ "source": "desk", "call_id": "c1", "again": "yes" }), json!({ "index": 0, "field": "again" })),
        (json!({ "source": "desk", "call_id": "c1", "agian": true }), json!({ "index": 0, "field": "agian" })),
        (json!({ "calls": [good], "source": "desk" }), json!({ "field": "source" })),
        (
            json!({ "calls": [good, { "source": "desk", "call_id": "c2", "id": 1 }] }),
            json!({ "index": 1, "field": "id" }),
        ),
    ];
    for (body, details) in wrong {
        let answer = server.trigger(&key, &body).await;
        assert_eq!(answer.code(), "400 invalid_body", "{body}");
        assert_eq!(answer.json()["details"], details, "{body}");
    }
    for unknown in ["nowhere", "Not A Name"] {
        let body = json!({ "calls": [good, { "source": unknown, "call_id": "c1" }] });
        let answer = server.trigger(&key, &body).await;
        assert_eq!(answer.code(), "422 unknown_source");
        assert_eq!(answer.json()["details"], json!({ "source": unknown }));
    }
    let asked = answer(server.request(Method::POST, &key, "/v1/triggers?again=true").body(good.to_string())).await;
    assert_eq!(
        (asked.code(), asked.json()["details"].clone()),
        ("400 invalid_parameter".to_owned(), json!({ "parameter": "again" }))
    );
    let post = |body: String| answer(server.request(Method::POST, &key, "/v1/triggers").body(body));
    let cut = post(r#"{"source": "desk", "call_id": "canary"#.to_owned()).await;
    assert_eq!(cut.code(), "400 invalid_body");
    assert!(!cut.text.contains("canary"));
    assert_eq!(post(format!("\"{}\"", "x".repeat(20_000))).await.code(), "413 too_large");
    assert_eq!(server.app.queue.due(Duration::ZERO, jiff::Timestamp::MIN).await.unwrap(), 0);
}
