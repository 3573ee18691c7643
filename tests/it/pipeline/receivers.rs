//! What receivers do that is on public record: tags that compression has made weak, conflicts, redirects, failures inside
//! a 200, keys that have run out.

use std::time::Duration;

use aftercall::demo::{Api, FaultAnswer, RequestInfo, RequestKind, SampleCall, recordings};
use aftercall::domain::{Outcome, RecordFlag, Side};
use aftercall::queue::JobState;
use jiff::Timestamp;
use serde_json::json;

use super::done;
use crate::harness::{Backend, Fixture, Plan, on_every_backend};

on_every_backend!(
    a_record_with_a_weak_tag_is_written_without_a_condition_and_flagged,
    a_conflict_means_read_again,
    a_redirect_to_the_same_host_is_followed_with_method_and_body,
    a_redirect_to_anywhere_else_is_not_followed,
    a_failure_inside_a_200_is_tried_again,
    a_receiver_that_refuses_the_key_keeps_its_deliveries_waiting,
    a_platform_that_refuses_the_key_keeps_its_deliveries_waiting,
);

/// A short call, with little to decode.
fn short(api: Api, n: u32, now: Timestamp) -> SampleCall {
    SampleCall { audio: Some(recordings::tiny()), ..super::short(api, n, now) }
}

/// The calls that are written back to the receiver.
async fn with_records(backend: Backend, plan: Plan, count: u32) -> (Fixture, Vec<String>) {
    let mut ids = Vec::new();
    let fixture = Fixture::planned(backend, plan, |now| {
        let calls: Vec<_> = (1..=count).map(|n| short(Api::Atoms, n, now)).collect();
        ids.extend(calls.iter().map(|call| call.id.clone()));
        calls
    })
    .await;
    for id in &ids {
        fixture.platform.register_record(id, json!({ "theirs": "stays" }));
        fixture.trigger(Api::Atoms, id).await;
    }
    (fixture, ids)
}

async fn with_record(backend: Backend, plan: Plan) -> (Fixture, String) {
    let (fixture, mut ids) = with_records(backend, plan, 1).await;
    (fixture, ids.remove(0))
}

/// What the receiver was sent of this kind.
fn sent(fixture: &Fixture, kind: RequestKind) -> Vec<RequestInfo> {
    fixture.platform.requests().iter().filter(|asked| asked.kind == kind).cloned().collect()
}

fn shown(tag: Option<&str>) -> FaultAnswer {
    let headers = tag.map(|tag| ("etag", tag.to_owned())).into_iter().collect();
    FaultAnswer::Status { code: 200, headers, body: json!({ "theirs": "stays" }).to_string() }
}

async fn a_record_with_a_weak_tag_is_written_without_a_condition_and_flagged(backend: Backend) {
    for tag in [Some("W/\"v1\""), Some("W/\"\""), None] {
        let (fixture, id) = with_record(backend, Plan::default()).await;
        fixture.platform.set_faults(move |asked| (asked.kind == RequestKind::RecordRead).then(|| shown(tag)));
        fixture.run_pending().await;
        let record = fixture.record(Api::Atoms, &id).await;
        done(&fixture, &record).await;
        assert!(record.has_flag(RecordFlag::Unconditional), "{tag:?}: {:?}", record.flags);
        let reads = sent(&fixture, RequestKind::RecordRead);
        assert!(reads.iter().all(|asked| asked.header("accept-encoding") == Some("identity")), "{reads:?}");
        let writes = sent(&fixture, RequestKind::RecordWrite);
        assert_eq!((writes.len(), writes[0].header("if-match")), (1, None), "{tag:?}");
        let receiver = fixture.platform.record(&id).unwrap();
        assert_eq!((receiver.effects, &receiver.body["theirs"]), (1, &"stays".into()));
        // Once the receiver names its state, the condition is sent and the flag is gone.
        fixture.platform.clear_faults();
        fixture.trigger_again(Api::Atoms, &id).await;
        fixture.run_pending().await;
        let writes = sent(&fixture, RequestKind::RecordWrite);
        assert_eq!((writes.len(), writes[1].header("if-match")), (2, Some("\"v2\"")), "{tag:?}");
        assert!(!fixture.record(Api::Atoms, &id).await.has_flag(RecordFlag::Unconditional), "{tag:?}");
    }
}

async fn a_conflict_means_read_again(backend: Backend) {
    let (fixture, id) = with_record(backend, Plan::default()).await;
    fixture.platform.set_faults(|asked| {
        (asked.kind == RequestKind::RecordWrite && asked.nth <= 2).then(|| FaultAnswer::status(409))
    });
    fixture.run_pending().await;
    done(&fixture, &fixture.record(Api::Atoms, &id).await).await;
    assert_eq!((fixture.asked(RequestKind::RecordRead, &id), fixture.asked(RequestKind::RecordWrite, &id)), (3, 3));
    assert_eq!(fixture.platform.record(&id).unwrap().effects, 1);
    assert!(fixture.jobs().await.iter().all(|job| job.failure.is_none()));
    // Without a condition a conflict is none that reading again could end.
    let plan = Plan { sources: &[("if_match = true", "if_match = false")], ..Plan::default() };
    let (fixture, id) = with_record(backend, plan).await;
    fixture.platform.set_faults(|asked| (asked.kind == RequestKind::RecordWrite).then(|| FaultAnswer::status(409)));
    fixture.run_pending().await;
    assert_eq!(fixture.asked(RequestKind::RecordWrite, &id), 1);
    assert!(fixture.jobs().await.iter().any(|job| job.state == JobState::DeadLetter));
}

fn moved(code: u16, to: String) -> FaultAnswer {
    FaultAnswer::Status { code, headers: vec![("location", to)], body: String::new() }
}

async fn a_redirect_to_the_same_host_is_followed_with_method_and_body(backend: Backend) {
    for code in [307, 308] {
        let (fixture, id) = with_record(backend, Plan::default()).await;
        fixture.platform.set_faults(move |asked| {
            let moves =
                matches!(asked.kind, RequestKind::RecordRead | RequestKind::RecordWrite) && asked.query.is_none();
            moves.then(|| moved(code, format!("{}?moved=1", asked.path)))
        });
        fixture.run_pending().await;
        done(&fixture, &fixture.record(Api::Atoms, &id).await).await;
        let writes = sent(&fixture, RequestKind::RecordWrite);
        assert_eq!(writes.len(), 2, "{code}");
        for name in ["if-match", "idempotency-key", "authorization"] {
            assert_eq!(writes[0].header(name), writes[1].header(name), "{code} {name}");
        }
        assert_eq!((writes[1].method.as_str(), writes[1].header("if-match")), ("PATCH", Some("\"v1\"")), "{code}");
        let receiver = fixture.platform.record(&id).unwrap();
        assert_eq!((receiver.effects, &receiver.body["outcome"]), (1, &"done".into()), "{code}");
    }
}

/// A receiver's answer, how often it is asked, and what the failure says.
type Redirect = (fn(&RequestInfo) -> FaultAnswer, usize, &'static str);

async fn a_redirect_to_anywhere_else_is_not_followed(backend: Backend) {
    let circle = |asked: &RequestInfo| moved(307, asked.path.clone());
    let port = |_: &RequestInfo| moved(307, "http://127.0.0.1:1/receiver".to_owned());
    let host = |_: &RequestInfo| moved(308, "http://localhost/receiver".to_owned());
    let scheme = |asked: &RequestInfo| moved(308, format!("https://127.0.0.1{}", asked.path));
    let nowhere = |_: &RequestInfo| FaultAnswer::Status { code: 307, headers: vec![], body: String::new() };
    let cases: [Redirect; 5] = [
        (port, 1, "another host"),
        (host, 1, "another host"),
        (scheme, 1, "another host"),
        (nowhere, 1, "without a location"),
        (circle, 4, "redirects more than"),
    ];
    for (answer, asked_times, said) in cases {
        let (fixture, id) = with_record(backend, Plan::default()).await;
        fixture.platform.set_faults(move |asked| (asked.kind == RequestKind::RecordWrite).then(|| answer(asked)));
        fixture.run_pending().await;
        assert_eq!(fixture.record(Api::Atoms, &id).await.outcome, Some(Outcome::Done));
        let jobs = fixture.jobs().await;
        let dead: Vec<_> = jobs.iter().filter(|job| job.state == JobState::DeadLetter).collect();
        assert_eq!(dead.len(), 1, "{jobs:?}");
        let failure = dead[0].failure.clone().unwrap();
        assert!(failure.side == Side::Receiver && failure.cause.contains(said), "{failure:?}");
        assert_eq!(fixture.asked(RequestKind::RecordWrite, &id), asked_times, "{said}");
        assert_eq!(fixture.platform.record(&id).unwrap().effects, 0);
    }
}

async fn a_failure_inside_a_200_is_tried_again(backend: Backend) {
    const FAILED_IF: (&str, &str) = ("if_match = true", "failed_if = \"answer.ok == false or status == 202\"");
    for (code, body) in [(200, json!({ "ok": false, "error": "try later" })), (202, json!({})), (202, json!(null))] {
        let (fixture, id) = with_record(backend, Plan { sources: &[FAILED_IF], ..Plan::default() }).await;
        let body = body.to_string();
        fixture.platform.set_faults(move |asked| {
            let answer = FaultAnswer::Status { code, headers: vec![], body: body.clone() };
            (asked.kind == RequestKind::RecordWrite && asked.nth == 1).then_some(answer)
        });
        fixture.run_pending().await;
        let record = fixture.record(Api::Atoms, &id).await;
        done(&fixture, &record).await;
        assert_eq!(fixture.asked(RequestKind::RecordWrite, &id), 2, "{code}");
        assert_eq!(fixture.platform.record(&id).unwrap().effects, 1);
        let deliveries = fixture.store.deliveries(record.uid).await.unwrap();
        assert!(deliveries.iter().all(|delivery| delivery.delivered));
        let failures: Vec<_> = fixture.jobs().await.into_iter().filter_map(|job| job.failure).collect();
        assert_eq!((failures.len(), failures[0].side), (1, Side::Receiver));
        assert!(failures[0].cause.contains("failed_if"), "{}", failures[0].cause);
    }
}

async fn a_receiver_that_refuses_the_key_keeps_its_deliveries_waiting(backend: Backend) {
    for code in [401, 403] {
        let (fixture, ids) = with_records(backend, Plan::default(), 3).await;
        let refuses = move |asked: &RequestInfo| {
            matches!(asked.kind, RequestKind::RecordRead | RequestKind::RecordWrite).then(|| FaultAnswer::status(code))
        };
        fixture.platform.set_faults(refuses);
        let asked = || sent(&fixture, RequestKind::RecordRead).len();
        // Far more rounds than there are attempts: nothing is used up, and one delivery a minute asks.
        for minute in 0..8 {
            fixture.run_pending().await;
            for id in &ids {
                assert_eq!(fixture.record(Api::Atoms, id).await.outcome, Some(Outcome::Done));
            }
            let jobs = fixture.jobs().await;
            let waiting: Vec<_> = jobs.iter().filter(|job| job.kind == "deliver").collect();
            assert_eq!(waiting.len(), 3, "{jobs:?}");
            for job in waiting {
                assert_eq!((job.state, job.attempt), (JobState::Scheduled, 0), "{code} {minute}: {job:?}");
                let failure = job.failure.clone().unwrap();
                assert_eq!((failure.side, failure.fault.as_str()), (Side::Receiver, "barred"), "{failure:?}");
            }
            fixture.advance(Duration::from_secs(66)).await;
        }
        assert!((8..=10).contains(&asked()), "{code}: {} questions in eight minutes", asked());
        // The key is put right: within two minutes all of them are there.
        fixture.platform.clear_faults();
        for _ in 0..2 {
            fixture.run_pending().await;
            fixture.advance(Duration::from_secs(66)).await;
        }
        fixture.run_pending().await;
        for id in &ids {
            assert_eq!(fixture.platform.record(id).unwrap().effects, 1, "{code}");
        }
        assert!(fixture.jobs().await.iter().all(|job| job.state == JobState::Completed));
    }
}

async fn a_platform_that_refuses_the_key_keeps_its_deliveries_waiting(backend: Backend) {
    let fixture = Fixture::start(backend, |now| vec![short(Api::Zudu, 1, now)]).await;
    fixture.platform.set_faults(|asked| (asked.kind == RequestKind::MetadataWrite).then(|| FaultAnswer::status(401)));
    fixture.trigger(Api::Zudu, "call-000001").await;
    for _ in 0..6 {
        fixture.run_pending().await;
        fixture.advance(Duration::from_secs(90)).await;
    }
    let jobs = fixture.jobs().await;
    assert!(jobs.iter().all(|job| job.state != JobState::DeadLetter), "{jobs:?}");
    assert_eq!(fixture.platform.effects("call-000001"), 0);
    fixture.platform.clear_faults();
    for _ in 0..3 {
        fixture.run_pending().await;
        fixture.advance(Duration::from_secs(90)).await;
    }
    assert_eq!(fixture.platform.effects("call-000001"), 1);
}
