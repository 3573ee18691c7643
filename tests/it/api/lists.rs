//! `GET /v1/calls` in the platform's two forms.

use aftercall::domain::{CallStatus, Cost, CostUnit, Direction, Outcome, SourceCall};
use aftercall::store::Scope;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::server::{Server, answer, call, dialect};
use crate::harness::Backend;

/// Ids of a list in either form, in its order.
fn ids(list: &Value) -> Vec<&str> {
    let rows = list.get("calls").or_else(|| list.get("data")).and_then(Value::as_array).unwrap();
    rows.iter().map(|call| call["id"].as_str().unwrap()).collect()
}

fn members(list: &Value) -> Vec<&str> {
    list.as_object().unwrap().keys().map(String::as_str).collect()
}

/// A call that ended this many hours ago.
fn ended(id: &str, hours: i64) -> SourceCall {
    let ended_at = Timestamp::now() - SignedDuration::from_hours(hours);
    SourceCall { ended_at: Some(ended_at), ..call(id) }
}

#[tokio::test]
async fn the_parameters_choose_the_form() {
    let server = Server::start().await;
    server.done("desk", &call("c1")).await;
    let key = server.key(&[Scope::CallsRead], None).await;
    let (call_logs, cockpit) =
        (["calls", "limit", "offset", "total"], ["data", "limit", "page", "total", "total_pages"]);
    for query in ["", "?limit=5", "?offset=0", "?from_date=2020-01-01", "?endpoint_id=ep_1", "?limit=5&offset=0&page=1"]
    {
        let list = server.get(&key, &format!("/v1/calls{query}")).await.json();
        assert_eq!((members(&list), ids(&list)), (call_logs.to_vec(), vec!["c1"]), "{query}");
    }
    for query in ["?page=1", "?start_date=2020-01-01", "?page=1&limit=5"] {
        let list = server.get(&key, &format!("/v1/calls{query}")).await.json();
        assert_eq!((members(&list), ids(&list)), (cockpit.to_vec(), vec!["c1"]), "{query}");
    }
    let with_header = server.request(Method::GET, &key, "/v1/calls").header("x-organization-id", "o");
    assert_eq!(members(&answer(with_header).await.json()), cockpit);
}

#[tokio::test]
async fn rows_have_the_members_of_their_form_and_no_more_text_than_a_glimpse() {
    let server = Server::start().await;
    server.done("desk", &SourceCall { org_id: Some("org-a".to_owned()), ..call("c1") }).await;
    let key = server.key(&[Scope::CallsRead, Scope::TranscriptsRead], None).await;
    let row = server.get(&key, "/v1/calls").await.json()["calls"][0].clone();
    let documented = [
        "id",
        "from_number",
        "to_number",
        "direction",
        "status",
        "duration",
        "cost_cents",
        "endpoint_id",
        "phone_number_id",
        "recording_url",
        "transcript",
        "created_at",
        "answered_at",
        "completed_at",
    ];
    for member in documented {
        assert_eq!(row[member].is_null(), member == "recording_url", "{member}: {row}");
    }
    assert_eq!((&row["duration"], &row["cost_cents"], &row["outcome"]), (&json!(42), &json!(3), &json!("done")));
    assert_eq!((&row["cost"], &row["cost_unit"]), (&json!(3), &json!("cents")));
    let glimpse = row["transcript"].as_str().unwrap();
    assert!(glimpse.starts_with("[Agent]: Good morning, canary-words") && glimpse.ends_with("..."), "{glimpse}");
    assert_eq!(glimpse.chars().count(), 83);

    let answer = server.get(&key, "/v1/calls?page=1").await;
    let row = answer.json()["data"][0].clone();
    assert_eq!((&row["cost"], &row["organization_id"]), (&json!(3), &json!("org-a")));
    assert_eq!((row.get("transcript"), row.get("cost_cents")), (None, None));
    assert!(!answer.text.contains("canary"), "{}", answer.text);
}

#[tokio::test]
async fn credits_do_not_pass_for_cents() {
    let server = Server::start().await;
    for (id, amount, unit) in [("c1", 3.25, CostUnit::Credits), ("c2", 7.0, CostUnit::Unknown)] {
        server.admit("desk", &SourceCall { cost: Some(Cost { amount, unit }), ..call(id) }).await;
    }
    let key = server.key(&[Scope::CallsRead], None).await;
    for (id, cost, unit) in [("c1", json!(3.25), "credits"), ("c2", json!(7), "unknown")] {
        let call = server.get(&key, &format!("/v1/calls/{id}")).await.json();
        assert_eq!((&call["cost_cents"], &call["cost"], &call["cost_unit"]), (&json!(null), &cost, &json!(unit)));
    }
}

#[tokio::test]
async fn the_platforms_client_walks_both_forms_to_their_end() {
    let server = Server::start().await;
    for at in 0..7 {
        server.admit("desk", &ended(&format!("c{at}"), at)).await;
    }
    let key = server.key(&[Scope::CallsRead], None).await;
    let newest_first = ["c0", "c1", "c2", "c3", "c4", "c5", "c6"];
    let (mut by_offset, mut by_page) = (Vec::new(), Vec::new());
    for step in 0..3 {
        let list = server.get(&key, &format!("/v1/calls?limit=3&offset={}", step * 3)).await.json();
        assert_eq!((&list["total"], &list["limit"], &list["offset"]), (&json!(7), &json!(3), &json!(step * 3)));
        by_offset.extend(ids(&list).into_iter().map(str::to_owned));
        let list = server.get(&key, &format!("/v1/calls?limit=3&page={}", step + 1)).await.json();
        assert_eq!((&list["total_pages"], &list["page"]), (&json!(3), &json!(step + 1)));
        by_page.extend(ids(&list).into_iter().map(str::to_owned));
    }
    assert_eq!(
        (by_offset, by_page),
        (newest_first.map(str::to_owned).to_vec(), newest_first.map(str::to_owned).to_vec())
    );

    // As our own client asks a platform: both forms' paging at once, the answer shows which it was.
    let mut at = dialect().first_page();
    let mut walked = Vec::new();
    loop {
        let request = dialect().list(&at);
        let answer = answer(server.request(Method::GET, &key, "/v1/calls").query(&request.query)).await;
        let page = dialect().read_page(answer.text.as_bytes(), &at).unwrap();
        assert_eq!((page.total, page.unreadable.len()), (Some(7), 0));
        walked.extend(page.calls);
        let Some(next) = page.next else { break };
        at = next;
    }
    assert_eq!(walked.iter().map(|call| call.id.as_str()).collect::<Vec<_>>(), newest_first);
    assert!(walked.iter().all(|call| call.status == CallStatus::Completed && call.duration_ms == Some(42_000)));
}

#[tokio::test]
async fn limits_are_clamped_above_and_refused_below() {
    let server = Server::start().await;
    let key = server.key(&[Scope::CallsRead], None).await;
    let limit = async |query: &str| server.get(&key, &format!("/v1/calls{query}")).await.json()["limit"].clone();
    assert_eq!((limit("").await, limit("?page=1").await), (json!(50), json!(20)));
    assert_eq!((limit("?limit=101").await, limit("?limit=99999999999999999999").await), (json!(100), json!(100)));
    let refused = [
        ("limit", "0"),
        ("limit", "-1"),
        ("limit", "ten"),
        ("limit", ""),
        ("limit", "1.5"),
        ("offset", "-1"),
        ("offset", "x"),
        ("page", "0"),
        ("page", "x"),
        ("status", "done"),
        ("direction", "sideways"),
        ("from_date", "yesterday"),
        ("to_date", "2025-02-30"),
        ("start_date", "1"),
        ("end_date", "2025"),
        ("action", "stats"),
        ("outcome", "nonsense"),
        ("flag", "loud"),
        ("number", "%2B2348012345678"),
        ("colour", ""),
    ];
    for (parameter, value) in refused {
        let answer = server.get(&key, &format!("/v1/calls?{parameter}={value}")).await;
        assert_eq!(answer.code(), "400 invalid_parameter", "{parameter}={value}");
        assert_eq!(answer.json()["details"], json!({ "parameter": parameter }));
        assert!(answer.json()["error"].as_str().unwrap().starts_with(parameter));
    }
    for beyond in ["?offset=99999999999999999999", "?page=99999999999999999999&limit=100"] {
        let answer = server.get(&key, &format!("/v1/calls{beyond}")).await;
        assert_eq!((answer.status, ids(&answer.json())), (StatusCode::OK, vec![]), "{beyond}");
    }
    assert_eq!(server.get(&key, "/v1/calls?status=").await.status, StatusCode::OK);
}

crate::harness::on_every_backend!(filters_and_terms_hold);

async fn filters_and_terms_hold(backend: Backend) {
    let server = &Server::on(backend).await;
    server.done("desk", &ended("c0", 1)).await;
    server.admit("desk", &SourceCall { direction: Some(Direction::Outbound), ..ended("c1", 30) }).await;
    server.admit("desk", &SourceCall { agent_id: Some("ep_2".to_owned()), ..ended("c2", 60) }).await;
    server.admit("branch", &SourceCall { phone_number_id: Some("pn_2".to_owned()), ..ended("c3", 90) }).await;
    server
        .admit("branch", &SourceCall { status: CallStatus::Busy, org_id: Some("org-a".to_owned()), ..ended("c4", 120) })
        .await;
    let gone = server.admit("branch", &ended("c5", 150)).await;
    server.condemn(&gone).await;
    let key = server.key(&[Scope::CallsRead, Scope::TranscriptsRead], None).await;
    let confined = server.key(&[Scope::CallsRead], Some("org-a")).await;

    let day = |hours: i64| (Timestamp::now() - SignedDuration::from_hours(hours)).to_string();
    let (newer, older) = (&day(45)[..10], &day(75)[..10]);
    let moments = format!("?from_date={}&to_date={}", day(100), day(59));
    let expected: [(&str, &[&str]); 15] = [
        ("", &["c0", "c1", "c2", "c3", "c4"]),
        ("?status=busy", &["c4"]),
        ("?direction=outbound", &["c1"]),
        ("?endpoint_id=ep_2", &["c2"]),
        ("?phone_number_id=pn_2&page=1", &["c3"]),
        ("?endpoint_id=ep_1&direction=inbound&status=completed", &["c0", "c3"]),
        ("?status=failed", &[]),
        (&moments, &["c2", "c3"]),
        ("?from_date=2020-01-01&to_date=2020-12-31", &[]),
        ("?endpoint_id=ep_1'--", &[]),
        ("?outcome=done", &["c0"]),
        ("?outcome=no_engine", &[]),
        ("?source=branch", &["c3", "c4"]),
        ("?flag=narrowband", &["c0"]),
        ("?flag=clipped", &[]),
    ];
    for (query, expected) in expected {
        let list = server.get(&key, &format!("/v1/calls{query}")).await.json();
        assert_eq!((ids(&list), &list["total"]), (expected.to_vec(), &json!(expected.len())), "{query}");
    }
    // Whole days, whatever the hour the test runs at: a day holds what ended in it.
    for (id, hours) in [("c1", 30), ("c2", 60)] {
        let date = &day(hours)[..10];
        let list = server.get(&key, &format!("/v1/calls?from_date={date}&to_date={date}")).await.json();
        assert!(ids(&list).contains(&id), "{date}: {list}");
    }
    let since = server.get(&key, &format!("/v1/calls?start_date={newer}")).await.json();
    assert!(ids(&since).contains(&"c1") && !ids(&since).contains(&"c4"), "{since}");
    let until = server.get(&key, &format!("/v1/calls?end_date={older}")).await.json();
    assert!(ids(&until).contains(&"c4") && !ids(&until).contains(&"c1"), "{until}");
    assert_eq!(ids(&server.get(&confined, "/v1/calls").await.json()), ["c4"]);
    let glimpse = server.get(&key, "/v1/calls?limit=1").await.json()["calls"][0]["transcript"].clone();
    assert_eq!(glimpse.as_str().unwrap().chars().count(), 83);
    let ended = server.app.store.call(gone.uid).await.unwrap().unwrap();
    assert_eq!(ended.outcome, None::<Outcome>);
}

#[tokio::test]
async fn parameters_that_a_route_does_not_have_are_refused_by_name() {
    let server = Server::start().await;
    server.done("desk", &call("c1")).await;
    let key = server.key(&[Scope::CallsRead, Scope::TranscriptsRead, Scope::CallsWrite], None).await;
    for (method, path) in [
        (Method::GET, "/v1/calls/c1?sauce=desk"),
        (Method::GET, "/v1/calls/c1/transcript.txt?version=2"),
        (Method::POST, "/v1/calls/c1/swap-roles?agent=1"),
        (Method::GET, "/v1/backfills?state=running"),
        (Method::POST, "/v1/backfills?dry_run=true"),
        (Method::POST, "/v1/backfills/b1/pause?now=1"),
        (Method::POST, "/v1/triggers?call_id=c1"),
    ] {
        let refused = answer(server.request(method, &key, path)).await;
        assert_eq!(refused.code(), "400 invalid_parameter", "{path}");
        let name = path.split(['?', '=']).nth(1).unwrap();
        assert_eq!(refused.json()["details"], json!({ "parameter": name }), "{path}");
    }
    // Who has no key, or no call, learns nothing else.
    assert_eq!(server.get("none", "/v1/calls?number=1").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.get(&key, "/v1/calls/c9?number=1").await.status, StatusCode::NOT_FOUND);
}
