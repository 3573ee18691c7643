//! The dialects against the contract fixtures and the examples in the platforms' own documents, there and back.

#[path = "wire/fuzz.rs"]
mod fuzz;
#[path = "wire/odd.rs"]
mod odd;
#[path = "wire/render.rs"]
mod render;
#[path = "wire/strange.rs"]
mod strange;

use std::path::PathBuf;

use aftercall::domain::{
    CallChannel, CallId, CallStatus, Cost, CostUnit, Direction, EndReason, Network, PhoneNumber, ProviderTurn,
    ProviderWord, RecordingUrl, Role, SourceCall,
};
use aftercall::wire::krosai::KrosaiForm;
use aftercall::wire::{Dialect, KeyHeaders, LossUnit, Vendor, WireError, atoms, krosai, text};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/contracts").join(name);
    std::fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

fn json_fixture(name: &str) -> Value {
    serde_json::from_slice(&fixture(name)).unwrap()
}

fn dialect(platform: Vendor) -> Dialect {
    Dialect { platform, loss_unit: LossUnit::Documented, key_headers: KeyHeaders::Both, organization: None }
}

fn page(platform: Vendor, body: &[u8]) -> Vec<SourceCall> {
    let dialect = dialect(platform);
    dialect.read_page(body, &dialect.first_page()).unwrap().calls
}

fn detail(platform: Vendor, body: &[u8], id: &str) -> SourceCall {
    dialect(platform).read_detail(body, &CallId::parse(id).unwrap()).unwrap()
}

/// A call in the shape of the `*.expected.json` files.
fn canonical(call: &SourceCall) -> Value {
    let at = |at: Option<Timestamp>| at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string());
    let url = |url: &Option<RecordingUrl>| url.clone().map(String::from);
    let mut out = json!({
        "source_id": call.id,
        "org_id": call.org_id,
        "agent_id": call.agent_id,
        "phone_number_id": call.phone_number_id,
        "direction": call.direction,
        "channel": call.channel,
        "from_number": call.from_number,
        "to_number": call.to_number,
        "status": call.status,
        "status_raw": call.status_raw,
        "end_reason": call.end_reason,
        "created_at": at(call.created_at),
        "answered_at": at(call.answered_at),
        "ended_at": at(call.ended_at),
        "duration_ms": call.duration_ms,
        "cost": call.cost.map(|cost| json!([cost.amount, cost.unit])),
        "recording_url": url(&call.recording_url),
        "dual_url": url(&call.dual_url),
        "segments": call.turns.iter().map(segment).collect::<Vec<_>>(),
        "opt_out": call.opt_out,
        "network": network(&call.network),
        "caller_number": call.caller_number(),
        "transcript_text": (!call.turns.is_empty()).then(|| text::write(&call.turns)),
        "labelled": call.turns.iter().any(|turn| turn.role != Role::Unknown),
        "eligible": call.eligible(),
    });
    if call.ended_at_estimated {
        out["ended_at_estimated"] = json!(true);
    }
    with_float_numbers(&out)
}

fn segment(turn: &ProviderTurn) -> Value {
    let mut out = json!({ "speaker": format!("{:?}", turn.role), "text": turn.text });
    for (key, ms) in [("start", turn.start_ms), ("end", turn.end_ms)] {
        if let Some(ms) = ms {
            out[key] = json!(ms as f64 / 1000.0);
        }
    }
    if turn.approximate {
        out["approx"] = json!(true);
    }
    out
}

fn network(network: &Network) -> Value {
    let mut out = Map::new();
    let Value::Object(members) = serde_json::to_value(network).unwrap() else { panic!("an object") };
    for (key, value) in members {
        if !value.is_null() || (key == "packet_loss_percent" && network.packet_loss_raw.is_some()) {
            out.insert(key, value);
        }
    }
    Value::Object(out)
}

/// 3 and 3.0 are the same figure.
fn with_float_numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(with_float_numbers).collect(),
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), with_float_numbers(value))).collect(),
        other => other.clone(),
    }
}

/// The expected file, without the form's name, and with opted-out calls emptied: the contract forbids keeping more.
fn expected(name: &str) -> Vec<Value> {
    let Value::Array(calls) = json_fixture(&format!("{name}.expected.json")) else { panic!("{name}: not a list") };
    let mut calls: Vec<Value> = calls.iter().map(with_float_numbers).collect();
    for call in &mut calls {
        call.as_object_mut().unwrap().remove("source");
        if call["opt_out"] == json!(true) {
            for key in ["direction", "from_number", "to_number", "caller_number", "agent_id", "end_reason"] {
                call[key] = Value::Null;
            }
        }
    }
    calls
}

fn assert_canonical(name: &str, calls: &[SourceCall]) {
    let expected = expected(name);
    assert_eq!(calls.len(), expected.len(), "{name}");
    for (call, expected) in calls.iter().zip(expected) {
        let read = canonical(call);
        assert_eq!(read, expected, "{name}: {}\nread {read:#}\nexpected {expected:#}", call.id);
    }
}

#[test]
fn every_fixture_reads_as_expected() {
    for (name, platform) in [
        ("krosai_v1_list", Vendor::Krosai),
        ("krosai_cockpit_list", Vendor::Krosai),
        ("zudu_list", Vendor::Zudu),
        ("atoms_list", Vendor::Atoms),
    ] {
        assert_canonical(name, &page(platform, &fixture(&format!("{name}.json"))));
    }
    for (name, platform, id) in [
        ("krosai_v1_detail", Vendor::Krosai, "call_fx001"),
        ("atoms_detail", Vendor::Atoms, "CALL-1737000000000-abc123"),
        ("atoms_detail_strings", Vendor::Atoms, "CALL-1737000000002-abc125"),
    ] {
        assert_canonical(name, &[detail(platform, &fixture(&format!("{name}.json")), id)]);
    }
    let webhook = atoms::post_conversation(&fixture("atoms_post_conversation.json")).unwrap();
    assert_canonical("atoms_post_conversation", &[webhook]);
}

#[test]
fn the_two_forms_of_krosai_are_told_apart_by_the_answer() {
    for (name, form) in [("krosai_v1_list", KrosaiForm::CallLogs), ("krosai_cockpit_list", KrosaiForm::Cockpit)] {
        let first = dialect(Vendor::Krosai).first_page();
        let (found, _) = krosai::read_page(&fixture(&format!("{name}.json")), &first, LossUnit::Documented).unwrap();
        assert_eq!(found, form);
    }
}

#[test]
fn a_fresh_link_is_read_with_its_size_and_end() {
    let link = dialect(Vendor::Krosai).read_recording(&fixture("krosai_recording.json")).unwrap().unwrap();
    assert_eq!(link.url.as_url().unwrap().query(), Some("X-Amz-Expires=3600"));
    assert_eq!(link.expires_at.unwrap().to_string(), "2026-01-10T11:00:00Z");
    assert_eq!((link.duration_ms, link.size_bytes), (Some(42_000), Some(504_000)));
}

#[test]
fn a_detail_fills_in_its_row_and_erases_nothing() {
    let row = page(Vendor::Krosai, &fixture("krosai_v1_list.json")).remove(0);
    let bare =
        detail(Vendor::Krosai, br#"{"id":"call_fx001","status":"completed","recording_url":null}"#, "call_fx001");
    let call = dialect(Vendor::Krosai).join(bare, row.clone());
    assert_eq!((&call.recording_url, call.duration_ms, call.cost), (&row.recording_url, Some(42_000), row.cost));
    assert!(call.turns.is_empty(), "the excerpt in a list never passes for the transcript");

    let row = page(Vendor::Atoms, &fixture("atoms_list.json")).remove(0);
    let whole = detail(Vendor::Atoms, &fixture("atoms_detail.json"), "CALL-1737000000000-abc123");
    let call = dialect(Vendor::Atoms).join(whole, row);
    assert_eq!(call.created_at.unwrap().to_string(), "2026-01-15T10:30:00Z", "given beats derived");
    assert_eq!(call.turns.len(), 2);
}

#[test]
fn the_documents_own_examples_are_read() {
    let calls = page(Vendor::Krosai, &fixture("documents/000_krosai_call_logs_list.json"));
    assert_eq!((calls[0].duration_ms, calls[0].turns[0].role), (Some(180_000), Role::Unknown));
    let answered = calls[0].answered_at.unwrap().as_second();
    assert_eq!(calls[0].ended_at.unwrap().as_second() - answered, 180, "duration counts from the answer");

    let call = detail(Vendor::Krosai, &fixture("documents/000_krosai_call_logs_detail.json"), "call_abc123");
    assert_eq!((call.agent_id.as_deref(), call.phone_number_id.as_deref()), (Some("ep_xyz789"), Some("pn_123")));
    assert_eq!((call.network.packet_loss_raw, call.network.packet_loss_percent), (Some(0.01), None));
    assert_eq!(call.end_reason, Some(EndReason::Normal));

    let turns = text::read(&String::from_utf8(fixture("documents/000_krosai_call_logs_transcript.txt")).unwrap());
    assert_eq!(turns.iter().map(|turn| turn.role).collect::<Vec<_>>(), [Role::Agent, Role::Caller, Role::Agent]);

    let zudu = dialect(Vendor::Zudu);
    let page = zudu.read_page(&fixture("documents/003_zudu_list.json"), &zudu.first_page()).unwrap();
    let call = &page.calls[0];
    assert_eq!((call.id.as_str(), page.total, page.next.is_some()), ("call-456", Some(25), true));
    assert_eq!(call.cost, Some(Cost { amount: 0.25, unit: CostUnit::Unknown }));
    assert_eq!(call.metadata.as_ref().unwrap()["customer_id"], "cust-001");
    assert_eq!(call.analysis.as_ref().unwrap()["user_sentiment"], "Positive");
}

#[test]
fn answers_that_are_no_calls_are_refused_by_the_member_that_is_missing() {
    let krosai = dialect(Vendor::Krosai);
    let stats = krosai.read_page(&fixture("documents/000_krosai_call_logs_stats.json"), &krosai.first_page());
    assert_eq!(stats.unwrap_err(), WireError::Shape { path: "calls", expected: "a list of calls (nor is `data`)" });
    let hangup = fixture("documents/000_krosai_call_logs_hangup.json");
    assert!(krosai.read_detail(&hangup, &CallId::parse("call_abc123").unwrap()).is_err());
}

/// The Cockpit document has schemas instead of examples: what we render has exactly its members.
#[test]
fn cockpit_calls_are_rendered_with_the_schemas_members() {
    let schemas = json_fixture("documents/001_krosai_cockpit_detail.openapi.json")["components"]["schemas"].take();
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let call = detail(Vendor::Krosai, &fixture("krosai_v1_detail.json"), "call_fx001");
    let (mut row, mut of_schema) = (names(&krosai::cockpit::row(&call)), names(&schemas["Call"]["properties"]));
    row.sort();
    of_schema.sort();
    assert_eq!(row, of_schema);
}

/// What a dialect has no words for is left out of the comparison.
fn without(mut call: Value, keys: &[&str]) -> Value {
    let members = call.as_object_mut().unwrap();
    members.retain(|key, _| !keys.contains(&key.as_str()) && key != "status_raw");
    call
}

fn without_times(mut call: Value) -> Value {
    for segment in call["segments"].as_array_mut().unwrap() {
        segment.as_object_mut().unwrap().retain(|key, _| key == "speaker" || key == "text");
    }
    call
}

const STATUSES: [CallStatus; 6] = [
    CallStatus::Queued,
    CallStatus::InProgress,
    CallStatus::Completed,
    CallStatus::Failed,
    CallStatus::Busy,
    CallStatus::NoAnswer,
];
const REASONS: [EndReason; 7] = [
    EndReason::Normal,
    EndReason::UserHangup,
    EndReason::AgentHangup,
    EndReason::Timeout,
    EndReason::Transferred,
    EndReason::Voicemail,
    EndReason::Error,
];

prop_compose! {
    fn a_turn()(role in 0..3_usize, text in "[A-Za-z][a-z ,.?!'é]{0,40}[a-z.]", start in 0..600_000_u64) -> ProviderTurn {
        let words: Vec<ProviderWord> = text.split_whitespace().zip(0..).map(|(word, index)| ProviderWord {
            text: word.to_owned(),
            start_ms: Some(start + index * 100),
            end_ms: Some(start + index * 100 + 90),
        }).collect();
        let role = [Role::Agent, Role::Caller, Role::Transfer][role];
        let end_ms = words.last().and_then(|word| word.end_ms);
        ProviderTurn { role, text, start_ms: Some(start), end_ms, words, approximate: false }
    }
}

prop_compose! {
    fn a_call()(
        direction in 0..2_usize, status in 0..STATUSES.len(), reason in 0..REASONS.len(),
        start_ms in 1_600_000_000_000_i64..1_900_000_000_000, seconds in 1..7200_i64, cents in 0..9999_u32,
        mut turns in prop::collection::vec(a_turn(), 0..6), latency in 0..900_u32, loss in 0..100_u32,
        recorded in any::<bool>(),
    ) -> SourceCall {
        turns.dedup_by_key(|turn| turn.role);
        let at = |offset_ms: i64| Timestamp::from_millisecond(start_ms + offset_ms).ok();
        let url = |name: &str| RecordingUrl::parse(&format!("https://storage.example.test/{name}.mp3?sig=1")).ok();
        let percent = f64::from(loss) / 10.0;
        let mut call = detail(Vendor::Krosai, br#"{"id":"call_1"}"#, "call_1");
        call.org_id = Some("org".to_owned());
        call.agent_id = Some("ep_1".to_owned());
        call.phone_number_id = Some("pn_1".to_owned());
        call.direction = Some([Direction::Inbound, Direction::Outbound][direction]);
        call.channel = CallChannel::Phone;
        call.from_number = PhoneNumber::parse("+15550100").ok();
        call.to_number = PhoneNumber::parse("+15550101").ok();
        call.status = STATUSES[status];
        call.end_reason = Some(REASONS[reason]);
        (call.created_at, call.answered_at, call.ended_at) = (at(-5_000), at(0), at(seconds * 1000));
        call.duration_ms = Some(seconds as u64 * 1000);
        call.cost = Some(Cost { amount: f64::from(cents), unit: CostUnit::Cents });
        call.recording_url = recorded.then(|| url("a")).flatten();
        call.turns = turns;
        call.metadata = Some(json!({ "k": "v" }));
        call.analysis = Some(json!({ "summary": "s" }));
        call.network = Network {
            latency_ms: Some(f64::from(latency)),
            jitter_ms: Some(7.0),
            packet_loss_raw: Some(percent),
            packet_loss_percent: Some(percent),
            mos: Some(4.1),
            codec: Some("opus".to_owned()),
            platform_response_ms: None,
        };
        call
    }
}

proptest! {
    #[test]
    fn call_logs_there_and_back(call in a_call()) {
        let body = krosai::call_logs::detail(&call).to_string();
        let back = detail(Vendor::Krosai, body.as_bytes(), "call_1");
        let kept = |call: &SourceCall| without(without_times(canonical(call)), &["org_id", "network"]);
        prop_assert_eq!(kept(&back), kept(&call));
        prop_assert_eq!((back.network.latency_ms, &back.network.codec), (call.network.latency_ms, &call.network.codec));
        let list = krosai::call_logs::list(&[krosai::call_logs::row(&call)], 1, 50, 0).to_string();
        let row = page(Vendor::Krosai, list.as_bytes()).remove(0);
        prop_assert_eq!((row.id, row.status, row.ended_at), (call.id, call.status, call.ended_at));
    }

    #[test]
    fn cockpit_there_and_back(call in a_call()) {
        let back = detail(Vendor::Krosai, render::cockpit_detail(&call).to_string().as_bytes(), "call_1");
        let kept = |call: &SourceCall| without(without_times(canonical(call)), &[]);
        prop_assert_eq!(kept(&back), kept(&call));
        let list = krosai::cockpit::list(&[krosai::cockpit::row(&call)], 1, 1, 20).to_string();
        let row = page(Vendor::Krosai, list.as_bytes()).remove(0);
        prop_assert_eq!((row.id, row.status, row.ended_at), (call.id, call.status, call.ended_at));
    }

    #[test]
    fn zudu_there_and_back(mut call in a_call()) {
        call.cost = Some(Cost { amount: 0.25, unit: CostUnit::Unknown });
        call.network = Network { platform_response_ms: Some(150.5), ..Network::default() };
        call.phone_number_id = None;
        let list = render::zudu_list(&[render::zudu_row(&call)]).to_string();
        let row = page(Vendor::Zudu, list.as_bytes()).remove(0);
        let kept = |call: &SourceCall| without(canonical(call), &["end_reason"]);
        prop_assert_eq!(kept(&row), kept(&call));
        prop_assert_eq!((&row.metadata, &row.analysis), (&call.metadata, &call.analysis));
        prop_assert_eq!(row.turns.iter().map(|turn| &turn.words).collect::<Vec<_>>(),
            call.turns.iter().map(|turn| &turn.words).collect::<Vec<_>>());
        let thin = detail(Vendor::Zudu, render::zudu_detail(&call).to_string().as_bytes(), "call_1");
        prop_assert!(thin.recording_url.is_none() && thin.turns.is_empty());
        prop_assert_eq!(kept(&dialect(Vendor::Zudu).join(thin, row)), kept(&call));
    }

    #[test]
    fn atoms_there_and_back(mut call in a_call()) {
        call.cost = Some(Cost { amount: 3.2, unit: CostUnit::Credits });
        call.network = Network { platform_response_ms: Some(420.0), ..Network::default() };
        (call.dual_url, call.phone_number_id) = (call.recording_url.clone(), None);
        let kept = |call: &SourceCall| {
            without(without_times(canonical(call)), &["org_id", "answered_at", "ended_at", "ended_at_estimated"])
        };
        let list = render::atoms_list(&[render::atoms_row(&call)]).to_string();
        let row = page(Vendor::Atoms, list.as_bytes()).remove(0);
        prop_assert!(row.turns.is_empty());
        let whole = detail(Vendor::Atoms, render::atoms_detail(&call).to_string().as_bytes(), "call_1");
        prop_assert_eq!((&whole.metadata, &whole.analysis), (&call.metadata, &call.analysis));
        prop_assert_eq!(kept(&dialect(Vendor::Atoms).join(whole, row)), kept(&call));
    }
}
