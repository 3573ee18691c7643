//! Who gets in, what one call shows to whom, and its transcript.

use aftercall::domain::{CallId, Outcome, Role, SourceCall, Transcript};
use aftercall::store::Scope;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::server::{DAY, Server, answer, call, dialect, spoken};

const READ: [Scope; 2] = [Scope::CallsRead, Scope::TranscriptsRead];

#[tokio::test]
async fn a_key_in_either_header_opens_and_nothing_else_does() {
    let server = Server::start().await;
    let key = server.key(&[Scope::CallsRead], None).await;
    let url = format!("{}/v1/calls", server.base);
    let bearer = |scheme: &str| server.client.get(&url).header("authorization", format!("{scheme} {key}"));
    assert_eq!(server.get(&key, "/v1/calls").await.status, StatusCode::OK);
    assert_eq!(answer(bearer("Bearer")).await.status, StatusCode::OK);
    assert_eq!(answer(bearer("bearer")).await.status, StatusCode::OK);

    let refused = [
        answer(server.client.get(&url)).await,
        answer(bearer("Basic")).await,
        server.get("", "/v1/calls").await,
        server.get("ac_wrong", "/v1/calls").await,
        server.get("ac_wrong", "/v1/calls/x").await,
        server.get("ac_wrong", "/v1/calls/x/transcript.txt").await,
        server.trigger("ac_wrong", &json!({})).await,
    ];
    for answer in refused {
        assert_eq!(answer.code(), "401 unauthorized");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert!(!answer.text.contains("ac_wrong"));
    }
    server.app.store.revoke_key("test", server.app.now()).await.unwrap();
    assert_eq!(server.get(&key, "/v1/calls").await.code(), "401 unauthorized");
}

#[tokio::test]
async fn each_route_wants_its_scope_and_admin_has_all() {
    let server = Server::start().await;
    server.done("desk", &call("c1")).await;
    let routes = [
        (Scope::CallsRead, "/v1/calls"),
        (Scope::CallsRead, "/v1/calls/c1"),
        (Scope::TranscriptsRead, "/v1/calls/c1/transcript.txt"),
        (Scope::TranscriptsRead, "/v1/calls/c1/transcript.json"),
    ];
    for held in [Scope::CallsRead, Scope::TranscriptsRead, Scope::CallsWrite, Scope::HoldsWrite, Scope::Admin] {
        let key = server.key(&[held], None).await;
        for (needed, path) in routes {
            let answer = server.get(&key, path).await;
            if held == needed || held == Scope::Admin {
                assert_eq!(answer.status, StatusCode::OK, "{held} {path}");
            } else {
                assert_eq!(answer.code(), "403 forbidden", "{held} {path}");
                assert_eq!(answer.json()["details"], json!({ "scope": needed.to_string() }));
            }
        }
        let triggered = server.trigger(&key, &json!({ "source": "desk", "call_id": "c1" })).await;
        let may = held == Scope::CallsWrite || held == Scope::Admin;
        assert_eq!(triggered.status.as_u16(), if may { 200 } else { 403 }, "{held}");
    }
}

#[tokio::test]
async fn the_platforms_client_reads_a_call_back_with_our_words_in_it() {
    let server = Server::start().await;
    let told = call("c1");
    let record = server.done("desk", &told).await;
    let key = server.key(&READ, None).await;
    let answer = server.get(&key, "/v1/calls/c1").await;

    let read = dialect().read_detail(answer.text.as_bytes(), &told.id).unwrap();
    let words: Vec<(Role, &str)> = read.turns.iter().map(|turn| (turn.role, turn.text.as_str())).collect();
    assert_eq!(words[1], (Role::Caller, "Where is my parcel?"));
    let rest = |call: &SourceCall| SourceCall {
        turns: Vec::new(),
        recording_url: None,
        network: call.network.clone(),
        raw: Value::Null,
        ..call.clone()
    };
    // The score is ours, so it comes on top of what the platform told.
    let mut expected = rest(&told);
    expected.network.mos = Some(4.2);
    assert_eq!(rest(&read), expected);

    let shown = answer.json();
    let metrics = json!({ "mos": 4.2, "mos_source": "e-model", "jitter_ms": null, "packet_loss": 0.01,
        "packet_loss_percent": null, "latency_ms": 120, "audio_codec": "opus" });
    assert_eq!(shown["quality_metrics"], metrics);
    assert_eq!(shown["endpoint"], json!({ "id": "ep_1" }));
    assert_eq!(shown["phone_number"], json!({ "id": "pn_1", "number": "+2348000000001" }));
    assert_eq!(shown["uid"], json!(record.uid.to_string()));
    assert_eq!(shown["quality"]["schema"], "aftercall.quality/1");
    assert_eq!(shown["recording_url"], Value::Null);
    let ours = ["source", "outcome", "transcript_version", "flags", "legal_hold", "artifacts", "outcome_reason"];
    let ours: Value = ours.into_iter().map(|name| (name.to_owned(), shown[name].clone())).collect();
    assert_eq!(
        ours,
        json!({ "source": "desk", "outcome": "done", "transcript_version": 1, "flags": ["narrowband"],
            "legal_hold": false, "artifacts": [], "outcome_reason": null })
    );
    assert_eq!(shown["retain_until"], json!(record.retain_until.to_string()));
    assert!(!answer.text.contains("canary-signature") && !answer.text.contains("canary-platform-text"));
    assert_eq!(answer.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn the_platforms_own_score_is_called_so() {
    let server = Server::start().await;
    let mut told = call("c1");
    told.network.mos = Some(3.9);
    server.done("desk", &told).await;
    let key = server.key(&READ, None).await;
    let metrics = server.get(&key, "/v1/calls/c1").await.json()["quality_metrics"].clone();
    assert_eq!((&metrics["mos"], &metrics["mos_source"]), (&json!(3.9), &json!("provider")));
}

#[tokio::test]
async fn words_are_for_keys_that_may_read_them_and_every_reading_is_written_down() {
    let server = Server::start().await;
    let record = server.done("desk", &call("c1")).await;
    let (deaf, reader) = (server.key(&[Scope::CallsRead], None).await, server.key(&READ, None).await);
    for path in ["/v1/calls/c1", "/v1/calls", "/v1/calls?page=1"] {
        let answer = server.get(&deaf, path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(!answer.text.contains("canary-words"), "{path}");
    }
    assert_eq!(server.get(&deaf, "/v1/calls/c1").await.json()["transcript"], Value::Null);
    assert!(server.audit(&record).await.is_empty());

    for path in ["/v1/calls/c1", "/v1/calls", "/v1/calls/c1/transcript.vtt"] {
        assert!(server.get(&reader, path).await.text.contains("canary-words"), "{path}");
    }
    assert_eq!(server.audit(&record).await, ["transcript_read version 1"; 3]);
    // A form it has not got, and a list without text, are no reading.
    server.get(&reader, "/v1/calls?page=1").await;
    assert_eq!(server.audit(&record).await.len(), 3);
}

#[tokio::test]
async fn a_transcript_comes_in_every_form_it_has() {
    let server = Server::start().await;
    server.done("desk", &call("c1")).await;
    let timeless = server.admit("desk", &call("c2")).await;
    let mut words = spoken();
    for utterance in &mut words.utterances {
        (utterance.start_ms, utterance.end_ms) = (None, None);
    }
    server.finish(&timeless, Outcome::Done, Some(&words)).await;
    let wordless = server.admit("desk", &call("c3")).await;
    server.finish(&wordless, Outcome::NoEngine, None).await;
    let key = server.key(&[Scope::TranscriptsRead], None).await;
    let get = async |path: &str| server.get(&key, &format!("/v1/calls/{path}")).await;

    let text = get("c1/transcript.txt").await;
    assert_eq!(text.headers["content-type"], "text/plain; charset=utf-8");
    let lines: Vec<&str> = text.text.split('\n').collect();
    assert!(lines[0].starts_with("[Agent]: Good morning"), "{}", text.text);
    assert_eq!(lines[1..], ["[Caller]: Where is my parcel?"]);
    let document: Transcript = serde_json::from_str(&get("c1/transcript.json").await.text).unwrap();
    assert_eq!(document, spoken());
    assert!(get("c1/transcript.vtt").await.text.starts_with("WEBVTT"));
    assert!(get("c1/transcript.srt").await.text.contains("00:00:00,000 --> 00:00:02,000"));

    assert_eq!(get("c2/transcript.txt").await.status, StatusCode::OK);
    let omitted = get("c2/transcript.srt").await;
    assert_eq!(omitted.code(), "404 no_such_form");
    assert_eq!(omitted.json()["details"], json!({ "form": "srt", "reason": "no_times" }));
    let none = get("c3/transcript.txt").await;
    assert_eq!(none.code(), "404 no_transcript");
    assert_eq!(none.json()["details"], json!({ "outcome": "no_engine" }));
    assert_eq!(get("c1/transcript.docx").await.code(), "404 not_found");
}

#[tokio::test]
async fn the_newest_version_is_the_one_shown() {
    let server = Server::start().await;
    let record = server.done("desk", &call("c1")).await;
    let mut words = spoken();
    words.utterances[1].text = "second hearing".to_owned();
    server.finish(&record, Outcome::Done, Some(&words)).await;
    let key = server.key(&READ, None).await;
    let shown = server.get(&key, "/v1/calls/c1").await.json();
    assert_eq!(shown["transcript_version"], 2);
    assert!(shown["transcript"].as_str().unwrap().ends_with("[Caller]: second hearing"));
    assert!(server.get(&key, "/v1/calls/c1/transcript.txt").await.text.ends_with("second hearing"));
}

#[tokio::test]
async fn a_confined_key_sees_its_organisation_and_nothing_else_exists() {
    let server = Server::start().await;
    let of = |id: &str, org: Option<&str>| SourceCall { org_id: org.map(str::to_owned), ..call(id) };
    let mine = server.done("desk", &of("mine", Some("org-a"))).await;
    let theirs = server.done("desk", &of("theirs", Some("org-b"))).await;
    let nobodys = server.done("desk", &of("nobodys", None)).await;
    let all = [READ[0], READ[1], Scope::CallsWrite, Scope::HoldsWrite, Scope::Admin];
    let key = server.key(&all, Some("org-a")).await;

    assert_eq!(server.get(&key, "/v1/calls").await.json()["total"], 1);
    for hidden in [&theirs, &nobodys] {
        for id in [hidden.uid.to_string(), hidden.call_id.to_string()] {
            for form in ["", "/transcript.txt"] {
                assert_eq!(server.get(&key, &format!("/v1/calls/{id}{form}")).await.code(), "404 not_found");
            }
        }
        let body = json!({ "calls": [{ "source": "desk", "call_id": "new" },
            { "source": "desk", "call_id": hidden.call_id, "again": true }] });
        let refused = server.trigger(&key, &body).await;
        assert_eq!(refused.code(), "404 not_found");
        assert!(!refused.text.contains("org-b") && !refused.text.contains(&hidden.uid.to_string()));
    }
    assert_eq!(
        server.app.queue.due(std::time::Duration::ZERO, jiff::Timestamp::MIN).await.unwrap(),
        0,
        "refused whole"
    );
    assert_eq!(server.get(&key, &format!("/v1/calls/{}", mine.uid)).await.status, StatusCode::OK);

    // The header narrows what a key for every organisation sees, and widens nothing.
    let open = server.key(&READ, None).await;
    let named = async |key: &str, org: &str| {
        let request = server.request(Method::GET, key, "/v1/calls").header("x-organization-id", org);
        answer(request).await.json()["data"].as_array().unwrap().len()
    };
    assert_eq!((named(&open, "org-b").await, named(&key, "org-b").await, named(&key, "org-a").await), (1, 0, 1));
}

#[tokio::test]
async fn an_id_that_two_sources_share_is_ambiguous() {
    let server = Server::start().await;
    let of = |org: &str| SourceCall { org_id: Some(org.to_owned()), ..call("shared") };
    let first = server.done("desk", &of("org-a")).await;
    server.done("branch", &of("org-b")).await;
    let key = server.key(&READ, None).await;
    let both = server.get(&key, "/v1/calls/shared").await;
    assert_eq!(both.code(), "409 ambiguous");
    assert_eq!(both.json()["details"], json!({ "sources": ["branch", "desk"] }));
    assert_eq!(server.get(&key, "/v1/calls/shared/transcript.txt").await.code(), "409 ambiguous");
    assert_eq!(server.get(&key, "/v1/calls/shared?source=branch").await.json()["source"], "branch");
    assert_eq!(server.get(&key, "/v1/calls/shared/transcript.txt?source=desk").await.status, StatusCode::OK);
    assert_eq!(server.get(&key, &format!("/v1/calls/{}", first.uid)).await.json()["source"], "desk");
    assert_eq!(server.get(&key, "/v1/calls/shared?source=nowhere").await.code(), "404 not_found");
    assert_eq!(server.get(&key, "/v1/calls/shared?source=NO%20NAME").await.code(), "400 invalid_parameter");
    // Within one organisation it means one call.
    let confined = server.key(&READ, Some("org-b")).await;
    assert_eq!(server.get(&confined, "/v1/calls/shared").await.json()["source"], "branch");
}

#[tokio::test]
async fn ids_are_opaque_texts() {
    let server = Server::start().await;
    let uuid = "0b0f6c0e-0000-4000-8000-000000000001";
    server.done("desk", &SourceCall { id: CallId::parse("../../etc/passwd").unwrap(), ..call("x") }).await;
    server.done("desk", &call(uuid)).await;
    let key = server.key(&READ, None).await;
    assert_eq!(server.get(&key, "/v1/calls/..%2F..%2Fetc%2Fpasswd").await.json()["id"], "../../etc/passwd");
    assert_eq!(server.get(&key, &format!("/v1/calls/{uuid}")).await.json()["id"], uuid);
    for strange in ["%FF%FE", "a%00b", "a%0Ab", &"x".repeat(300), "%25", "'%20OR%201=1--"] {
        assert_eq!(server.get(&key, &format!("/v1/calls/{strange}")).await.code(), "404 not_found", "{strange}");
    }
}

#[tokio::test]
async fn a_call_leaves_the_api_with_its_term_and_for_good_with_its_condemnation() {
    let server = Server::start().await;
    let (due, held, young) = (
        server.done("desk", &call("due")).await,
        server.done("desk", &call("held")).await,
        server.done("desk", &call("young")).await,
    );
    server.hold(&held).await;
    let ordinary = server.key(&READ, None).await;
    let keeper = server.key(&[READ[0], READ[1], Scope::HoldsWrite], None).await;
    assert_eq!(server.get(&ordinary, "/v1/calls/held").await.json()["legal_hold"], true);
    server.turn_clock(91 * DAY);

    let ids = async |key: &str| {
        let list = server.get(key, "/v1/calls").await.json();
        let mut ids: Vec<String> =
            list["calls"].as_array().unwrap().iter().map(|call| call["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        assert_eq!(list["total"], ids.len());
        ids
    };
    assert_eq!(ids(&ordinary).await, [""; 0]);
    assert_eq!(server.get(&ordinary, "/v1/calls/held").await.code(), "404 not_found");
    assert_eq!(server.get(&ordinary, "/v1/calls/held/transcript.txt").await.code(), "404 not_found");
    assert_eq!(ids(&keeper).await, ["due", "held", "young"]);
    assert_eq!(server.get(&keeper, "/v1/calls/held").await.json()["legal_hold"], true);

    server.condemn(&due).await;
    server.app.store.block_erasure(due.uid, "still there").await.unwrap();
    server.condemn(&young).await;
    let admin = server.key(&[Scope::Admin], None).await;
    assert_eq!(ids(&admin).await, ["held"]);
    for gone in [due.uid.to_string(), "due".to_owned(), "young".to_owned()] {
        assert_eq!(server.get(&admin, &format!("/v1/calls/{gone}")).await.code(), "404 not_found");
        assert_eq!(server.get(&admin, &format!("/v1/calls/{gone}/transcript.txt")).await.code(), "404 not_found");
    }
}

#[tokio::test]
async fn a_call_that_was_only_triggered_is_shown_with_what_is_known() {
    let server = Server::start().await;
    let key = server.key(&[Scope::Admin], None).await;
    server.trigger(&key, &json!({ "source": "desk", "call_id": "c9" })).await;
    let shown = server.get(&key, "/v1/calls/c9").await.json();
    assert_eq!((&shown["id"], &shown["status"], &shown["outcome"]), (&json!("c9"), &json!("unknown"), &Value::Null));
    assert_eq!(server.get(&key, "/v1/calls?page=1").await.json()["data"][0]["id"], "c9");
}
