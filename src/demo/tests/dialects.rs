use serde_json::json;

use crate::domain::{CallChannel, CallStatus, Direction, Network};

use super::*;

fn spoken(api: Api, id: &str, text: SampleText) -> SampleCall {
    let dialogue = recordings::Sheet::read().unwrap().dialogue("booking").unwrap();
    SampleCall {
        turns: dialogue.turns,
        duration_ms: dialogue.duration_ms,
        audio: Some(recordings::booking()),
        text,
        ..SampleCall::new(api, id, now())
    }
}

#[tokio::test]
async fn krosai_lists_as_its_document_shows() {
    let site = Site::of(many(Api::KrosaiV1, 130)).await;
    let page = site.read(Api::KrosaiV1, "/calls?limit=10&offset=120").await;
    assert_eq!(keys_of(&page), ["calls", "limit", "offset", "total"]);
    assert_eq!((&page["total"], &page["limit"], &page["offset"]), (&json!(130), &json!(10), &json!(120)));
    let call = &page["calls"][9];
    assert_eq!(call["id"], "call_000000", "newest first");
    assert_eq!(
        keys_of(call),
        [
            "answered_at",
            "completed_at",
            "cost_cents",
            "created_at",
            "direction",
            "duration",
            "endpoint_id",
            "from_number",
            "id",
            "phone_number_id",
            "recording_url",
            "status",
            "to_number",
            "transcript"
        ]
    );
    assert_eq!(call["transcript"], "Hello....");
    assert_eq!(call["completed_at"], "2026-03-01T09:51:00Z");
    assert_eq!(call["answered_at"], "2026-03-01T09:50:59Z");
    assert_eq!(site.read(Api::KrosaiV1, "/calls").await["calls"].as_array().unwrap().len(), 50);
    let most = site.read(Api::KrosaiV1, "/calls?limit=4000").await;
    assert_eq!((most["calls"].as_array().unwrap().len(), &most["limit"]), (100, &json!(100)));
    assert_eq!(site.status(Api::KrosaiV1, "/calls?limit=0").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn krosai_tells_more_about_one_call() {
    let mut call = spoken(Api::KrosaiV1, "call_a", SampleText::Labelled);
    call.network = Network { latency_ms: Some(120.0), packet_loss_raw: Some(0.01), ..Network::default() };
    let site = Site::of([call]).await;
    let row = site.read(Api::KrosaiV1, "/calls").await["calls"][0].clone();
    let detail = site.read(Api::KrosaiV1, "/calls/call_a").await;
    assert!(row["transcript"].as_str().unwrap().len() < detail["transcript"].as_str().unwrap().len());
    assert!(detail["transcript"].as_str().unwrap().contains("\n[Caller]: Bisi Adeyemi.\n"));
    assert_eq!((&detail["duration"], &detail["cost_cents"]), (&json!(30), &json!(1)));
    assert_eq!(detail["quality_metrics"]["packet_loss"], 0.01);
    assert_eq!(keys_of(&detail["endpoint"]), ["id", "name", "provider"]);
    assert!(detail.get("endpoint_id").is_none());
    let link = site.read(Api::KrosaiV1, "/calls/call_a/recording").await;
    assert_eq!(keys_of(&link), ["duration_seconds", "expires_at", "format", "recording_url", "size_bytes"]);
    assert_eq!(link["expires_at"], "2026-03-01T13:00:00Z");
    let events = site.read(Api::KrosaiV1, "/calls/call_a/events").await;
    assert_eq!(events["events"][4]["event_data"], json!({ "duration": 30, "hangup_cause": "normal_clearing" }));
    let stats = site.read(Api::KrosaiV1, "/calls/stats").await;
    assert_eq!((&stats["total_calls"], &stats["total_duration_seconds"]), (&json!(1), &json!(30)));
    let (status, body) = site.status(Api::KrosaiV1, "/calls/call_b").await;
    assert_eq!((status, body["error"].is_string()), (StatusCode::NOT_FOUND, true));
}

#[tokio::test]
async fn krosai_filters_by_status_and_date() {
    let mut calls = many(Api::KrosaiV1, 3);
    calls[1].status = CallStatus::NoAnswer;
    let site = Site::of(calls).await;
    let total = async |query: &str| site.read(Api::KrosaiV1, &format!("/calls?{query}")).await["total"].clone();
    assert_eq!(total("status=completed").await, 2);
    assert_eq!(total("direction=outbound").await, 0);
    assert_eq!(total("from_date=2026-03-01T11:58:30Z").await, 2);
    assert_eq!(total("to_date=2026-03-01").await, 0, "a bare date is its first moment");
    assert_eq!(site.status(Api::KrosaiV1, "/calls?from_date=yesterday").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn cockpit_pages_from_one_and_ignores_offset() {
    let site = Site::of(many(Api::KrosaiCockpit, 25)).await;
    let page = site.read(Api::KrosaiCockpit, "/calls?offset=20").await;
    assert_eq!(keys_of(&page), ["data", "limit", "page", "total", "total_pages"]);
    assert_eq!((&page["page"], &page["limit"], &page["total_pages"]), (&json!(1), &json!(20), &json!(2)));
    assert_eq!(page["data"][0]["id"], "0b0f6c0e-0000-4000-9000-000000000018");
    assert!(page["data"][0].get("transcript").is_none());
    let second = site.read(Api::KrosaiCockpit, "/calls?page=2").await;
    assert_eq!(second["data"].as_array().unwrap().len(), 5);
    for query in ["page=0", "limit=101", "limit=0"] {
        let (status, _) = site.status(Api::KrosaiCockpit, &format!("/calls?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
    }
    assert!(site.read(Api::KrosaiCockpit, "/calls?action=trends").await.is_array());
    assert_eq!(site.read(Api::KrosaiCockpit, "/calls?action=stats").await["completed"], 25);
}

#[tokio::test]
async fn cockpit_details_hold_quality_events_and_text() {
    let mut call = spoken(Api::KrosaiCockpit, "u-1", SampleText::Unlabelled);
    call.direction = Direction::Outbound;
    call.network = Network { mos: Some(4.2), jitter_ms: Some(12.0), packet_loss_raw: Some(0.3), ..Network::default() };
    let site = Site::of([call]).await;
    let detail = site.read(Api::KrosaiCockpit, "/calls/u-1").await;
    assert_eq!(detail["quality_metrics"], json!({ "mos": 4.2, "jitter_ms": 12.0, "packet_loss": 0.3 }));
    assert_eq!(detail["events"].as_array().unwrap().len(), 5);
    assert!(detail["transcript"].as_str().unwrap().starts_with("Welcome to Palm Court Hotel."));
    assert_eq!((&detail["from_number"], &detail["to_number"]), (&json!("+2348000000001"), &json!("+14155550123")));
    assert!(detail["cost"].is_f64());
}

#[tokio::test]
async fn cockpit_falls_silently_to_the_first_organization() {
    let mut calls = many(Api::KrosaiCockpit, 2);
    "other".clone_into(&mut calls[1].organization);
    let site = Site::of(calls).await;
    assert_eq!(site.read(Api::KrosaiCockpit, "/calls").await["total"], 1);
    let named = |organization: &'static str| {
        let request = site.get("/cockpit/v1/calls").header("x-organization-id", organization);
        signed(request, Api::KrosaiCockpit).send()
    };
    let other = json_of(named("other").await.unwrap()).await;
    assert_eq!(other["data"][0]["organization_id"], "other");
    assert_eq!(named("foreign").await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn zudu_pages_from_zero_in_its_envelope() {
    let site = Site::of(many(Api::Zudu, 45)).await;
    let page = site.post(Api::Zudu, "/api/calls", &json!({ "page": 2, "limit": 20 })).await;
    assert_eq!(keys_of(&page), ["data", "error", "message", "status"]);
    let data = &page["data"];
    assert_eq!((&page["status"], &data["returned_count"]), (&json!("success"), &json!(5)));
    assert_eq!(
        data["pagination"],
        json!({ "page": 2, "limit": 20, "total_count": 45, "total_pages": 3, "has_next_page": false,
                "has_previous_page": true })
    );
    let first = site.read(Api::Zudu, "/api/calls?page=1&limit=40").await;
    assert_eq!(first["data"]["returned_count"], 20, "the document gives this request no parameters");
    let filter = json!({ "limit": 100, "filter_criteria": { "call_status": ["ongoing"] } });
    assert_eq!(site.post(Api::Zudu, "/api/calls", &filter).await["data"]["pagination"]["total_count"], 0);
    let filter = json!({ "filter_criteria": { "call_status": ["ended"], "duration_ms": { "lower_threshold": 1000 } } });
    assert_eq!(site.post(Api::Zudu, "/api/calls", &filter).await["data"]["pagination"]["total_count"], 45);
}

#[tokio::test]
async fn zudu_shows_words_with_times_in_the_list_and_little_in_the_detail() {
    let call = spoken(Api::Zudu, "call-a", SampleText::Turns);
    let site = Site::of([call.clone()]).await;
    let row = site.read(Api::Zudu, "/api/calls").await["data"]["calls"][0].clone();
    let ended = now().as_millisecond();
    assert_eq!((&row["call_status"], &row["end_timestamp"]), (&json!("ENDED"), &json!(ended)));
    assert_eq!(row["call_duration"].as_i64().unwrap(), ended - row["start_timestamp"].as_i64().unwrap());
    assert_ne!(row["id"], row["call_id"]);
    let turn = &row["transcript_object"][1];
    assert_eq!((&turn["role"], &turn["words"][0]["word"]), (&json!("user"), &json!("I")));
    let start_ms = (turn["words"][0]["start"].as_f64().unwrap() * 1000.0).round() as u64;
    assert_eq!(Some(start_ms), call.turns[1].start_ms);
    assert!(row["transcript"].as_str().unwrap().contains("\nUser: Bisi Adeyemi.\n"));
    let detail = site.read(Api::Zudu, "/api/calls/call-a").await;
    assert_eq!(
        keys_of(&detail["data"]),
        [
            "agent_id",
            "call_id",
            "call_status",
            "call_type",
            "created_at",
            "direction",
            "end_timestamp",
            "events",
            "from_number",
            "metadata",
            "organization_id",
            "start_timestamp",
            "to_number",
            "updated_at"
        ]
    );
    let full = Site::with(|builder| builder.zudu_detail(ZuduDetail::Full).calls([call])).await;
    assert!(full.read(Api::Zudu, "/api/calls/call-a").await["data"]["recording_url"].is_string());
    let (status, body) = site.status(Api::Zudu, "/api/calls/call-z").await;
    assert_eq!((status, &body["status"]), (StatusCode::NOT_FOUND, &json!("error")));
}

#[tokio::test]
async fn zudu_merges_metadata_and_a_repeated_update_changes_nothing() {
    let mut call = spoken(Api::Zudu, "call-a", SampleText::Turns);
    call.metadata.insert("campaign".to_owned(), json!("summer"));
    let site = Site::of([call]).await;
    for _ in 0..2 {
        let update = json!({ "metadata": { "aftercall": { "status": "done" } }, "call_status": "ERROR" });
        let request = site.client.put(site.url("/zudu/api/calls/call-a")).json(&update);
        let answer = json_of(signed(request, Api::Zudu).send().await.unwrap()).await;
        assert_eq!(answer["data"]["operation"], "update");
    }
    let merged = json!({ "campaign": "summer", "aftercall": { "status": "done" } });
    assert_eq!(site.read(Api::Zudu, "/api/calls/call-a").await["data"]["metadata"], merged);
    assert_eq!(site.platform.metadata("call-a"), Some(merged));
    assert_eq!(
        (site.platform.effects("call-a"), site.platform.requests().of(RequestKind::MetadataWrite, "call-a")),
        (1, 2)
    );
}

#[tokio::test]
async fn a_call_nobody_answered_is_ended_at_zudu_all_the_same() {
    let mut call = spoken(Api::Zudu, "call-a", SampleText::None);
    (call.status, call.opt_out) = (CallStatus::NoAnswer, true);
    "DIAL_NO_ANSWER".clone_into(&mut call.end_reason);
    let site = Site::of([call]).await;
    let row = site.read(Api::Zudu, "/api/calls").await["data"]["calls"][0].clone();
    assert_eq!((&row["call_status"], &row["disconnection_reason"]), (&json!("ENDED"), &json!("DIAL_NO_ANSWER")));
    assert_eq!(row["opt_out_sensitive_data_storage"], true);
}

#[tokio::test]
async fn atoms_pages_from_one_and_clamps_silently() {
    let mut calls = many(Api::Atoms, 600);
    calls[0].retry_of = Some(calls[1].id.clone());
    let retry = calls[0].id.clone();
    let site = Site::of(calls).await;
    let list = async |query: &str| site.read(Api::Atoms, &format!("/conversation?{query}")).await["data"].clone();
    assert_eq!(list("").await["logs"].as_array().unwrap().len(), 5);
    let most = list("limit=1000&page=2").await;
    assert_eq!(most["pagination"], json!({ "total": 599, "page": 2, "limit": 500, "hasMore": false, "totalPages": 2 }));
    assert_eq!(most["logs"].as_array().unwrap().len(), 99);
    assert_eq!(list("callAttemptFilter=retry").await["logs"][0]["callId"], json!(retry));
    let found = site.post(Api::Atoms, "/conversation/search", &json!({ "callIds": [retry, "CALL-0-0"] })).await;
    assert_eq!((&found["data"]["total"], &found["data"]["requestedCount"]), (&json!(1), &json!(2)));
    assert_eq!(list("statusFilter=failed,busy").await["pagination"]["total"], 0);
}

#[tokio::test]
async fn atoms_gives_turns_in_the_detail_and_the_creation_time_in_the_list() {
    let id = atoms_id(now(), 0xab);
    let mut call = spoken(Api::Atoms, &id, SampleText::Turns);
    call.channel = CallChannel::Web;
    call.dual_audio = Some(recordings::clinic_dual());
    let site = Site::of([call.clone(), spoken(Api::Atoms, "CALL-2", SampleText::Unlabelled)]).await;
    let detail = site.read(Api::Atoms, &format!("/conversation/{id}")).await["data"].clone();
    assert!(detail.get("createdAt").is_none());
    assert_eq!((&detail["type"], &detail["duration"]), (&json!("webcall"), &json!(30)));
    assert_eq!(detail["agent"]["_id"], "agent-sample");
    let turn = &detail["transcript"][1];
    assert_eq!(turn["role"], "user");
    let said: Timestamp = turn["timestamp"].as_str().unwrap().parse().unwrap();
    let offset = said.duration_since(call.answered_at().unwrap()).as_millis();
    assert_eq!(offset, i128::from(call.turns[1].start_ms.unwrap()));
    let dual = site.client.get(detail["recordingDualUrl"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(dual.bytes().await.unwrap(), recordings::clinic_dual().bytes);
    let row = site.read(Api::Atoms, "/conversation").await["data"]["logs"][1].clone();
    assert!(row["createdAt"].is_string() && row.get("transcript").is_none());
    let strings = site.read(Api::Atoms, "/conversation/CALL-2").await["data"]["transcript"][1].clone();
    assert!(strings.is_string());
    let link = site.read(Api::Atoms, &format!("/conversation/{id}/recording/download-url")).await;
    assert!(link["data"]["presignedUrl"].is_string());
    let mongo = detail["_id"].as_str().unwrap();
    assert_eq!(site.status(Api::Atoms, &format!("/conversation/{mongo}")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_late_recording_appears_on_a_later_look() {
    for (api, path, member, absent) in [
        (Api::KrosaiV1, "/calls/late", "/recording_url", Value::Null),
        (Api::KrosaiCockpit, "/calls/late", "/recording_url", Value::Null),
        (Api::Atoms, "/conversation/late", "/data/recordingUrl", json!("")),
    ] {
        let mut call = spoken(api, "late", SampleText::None);
        call.recording = SampleRecording::AfterReads(2);
        let site = Site::of([call]).await;
        for there in [false, false, true] {
            let value = site.read(api, path).await.pointer(member).unwrap().clone();
            assert_eq!(value != absent, there, "{api:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_or_wrong_key_is_401_in_each_platforms_words() {
    let calls = Api::ALL.map(|api| spoken(api, "a", SampleText::None));
    let site = Site::of(calls).await;
    for (api, path, error) in [
        (Api::KrosaiV1, "/calls/a", "/error"),
        (Api::KrosaiCockpit, "/calls/a", "/error"),
        (Api::Zudu, "/api/calls/a", "/error"),
        (Api::Atoms, "/conversation/a", "/errors/0"),
    ] {
        let path = format!("{}{path}", api.base_path());
        let wrong = site.get(&path).bearer_auth("wrong").header("x-api-key", "wrong").header("x-api-secret", "wrong");
        for request in [site.get(&path), wrong] {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{api:?}");
            let body: Value = answer.json().await.unwrap();
            assert!(body.pointer(error).is_some_and(Value::is_string), "{api:?}: {body}");
        }
    }
    let half = site.get("/zudu/api/calls").header("x-api-key", Keys::default().zudu).send().await.unwrap();
    assert_eq!(half.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn calls_come_and_go_while_clients_page() {
    let site = Site::with(|builder| builder.order(ListOrder::OldestFirst).calls(many(Api::KrosaiV1, 3))).await;
    let first = async || site.read(Api::KrosaiV1, "/calls").await["calls"][0]["id"].clone();
    assert_eq!(first().await, "call_000000");
    site.platform.remove_call(Api::KrosaiV1, "call_000000");
    assert_eq!(first().await, "call_000001");
    assert_eq!(site.status(Api::KrosaiV1, "/calls/call_000000").await.0, StatusCode::NOT_FOUND);
    site.platform.add_call(SampleCall::numbered(Api::KrosaiV1, 9, now() - std::time::Duration::from_secs(86_400)));
    assert_eq!(first().await, "call_000009");
}

#[tokio::test]
async fn ten_thousand_calls_share_one_recording() {
    let calls = many(Api::KrosaiV1, 10_000);
    let bytes = calls[0].audio.as_ref().unwrap().bytes.as_ptr();
    assert!(calls.iter().all(|call| call.audio.as_ref().unwrap().bytes.as_ptr() == bytes));
    let site = Site::of(calls).await;
    let mut seen = std::collections::HashSet::new();
    for page in 0..100 {
        let body = site.read(Api::KrosaiV1, &format!("/calls?limit=100&offset={}", page * 100)).await;
        seen.extend(body["calls"].as_array().unwrap().iter().map(|call| call["id"].as_str().unwrap().to_owned()));
    }
    assert_eq!((seen.len(), site.platform.requests().count(RequestKind::List)), (10_000, 100));
}
