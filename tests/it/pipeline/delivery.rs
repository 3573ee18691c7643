//! The platform's own record: written once, whatever happens to the answer, and never over somebody else's change.

use std::time::Duration;

use aftercall::demo::{Api, FaultAnswer, IdempotencyKeys, RequestKind, SampleCall};
use aftercall::domain::{Outcome, Side, Stage};
use aftercall::queue::{Failure, JobState};

use super::{done, short};
use crate::harness::{Backend, Fixture, Plan, on_every_backend};

on_every_backend!(
    an_answer_that_is_lost_means_one_effect,
    a_receiver_that_ignores_the_key_has_one_effect,
    a_record_that_changed_meanwhile_is_read_again,
    a_receiver_that_refuses_leaves_the_call_done_and_a_dead_letter,
    a_receiver_that_is_not_there_is_named_without_its_query,
    a_body_that_is_no_json_is_not_sent,
    a_call_id_cannot_choose_another_record,
);

async fn with_record(backend: Backend, plan: Plan) -> (Fixture, String) {
    let mut id = String::new();
    let fixture = Fixture::planned(backend, plan, |now| {
        let call = short(Api::Atoms, 1, now);
        id.clone_from(&call.id);
        vec![call, short(Api::Zudu, 2, now)]
    })
    .await;
    fixture.platform.register_record(&id, serde_json::json!({ "theirs": "stays" }));
    fixture.trigger(Api::Atoms, &id).await;
    fixture.trigger(Api::Zudu, "call-000002").await;
    (fixture, id)
}

/// The failure of the one delivery that failed, and how its job stands.
async fn failed(fixture: &Fixture) -> (Failure, JobState) {
    let jobs = fixture.jobs().await;
    let mut failed = jobs.iter().filter_map(|job| Some((job.failure.clone()?, job.state)));
    match (failed.next(), failed.next()) {
        (Some(one), None) => one,
        _ => panic!("not one failure: {jobs:?}"),
    }
}

async fn an_answer_that_is_lost_means_one_effect(backend: Backend) {
    // Without a look first it is the key alone that tells the receiver.
    let plan = Plan { sources: &[("if_match = true", "if_match = false")], ..Plan::default() };
    let (fixture, id) = with_record(backend, plan).await;
    fixture.platform.set_faults(|asked| {
        let writes = matches!(asked.kind, RequestKind::RecordWrite | RequestKind::MetadataWrite);
        (writes && asked.nth == 1).then_some(FaultAnswer::CommitThenDrop)
    });
    fixture.run_pending().await;
    done(&fixture, &fixture.record(Api::Atoms, &id).await).await;
    assert_eq!(fixture.asked(RequestKind::RecordWrite, &id), 2);
    let record = fixture.platform.record(&id).unwrap();
    assert_eq!(record.effects, 1);
    assert_eq!(record.body["theirs"], "stays");
    let requests = fixture.platform.requests();
    let keys: Vec<&str> = requests
        .iter()
        .filter(|asked| asked.kind == RequestKind::RecordWrite)
        .map(|asked| asked.header("idempotency-key").unwrap())
        .collect();
    assert_eq!(keys[0], keys[1]);
    // A platform without such keys: writing the same again changes nothing.
    done(&fixture, &fixture.record(Api::Zudu, "call-000002").await).await;
    assert_eq!(fixture.platform.effects("call-000002"), 1);
}

async fn a_receiver_that_ignores_the_key_has_one_effect(backend: Backend) {
    let ignored = |builder: aftercall::demo::Builder| builder.idempotency_keys(IdempotencyKeys::Ignored);
    let (fixture, id) = with_record(backend, Plan { builder: ignored, ..Plan::default() }).await;
    fixture.platform.set_faults(|asked| {
        (asked.kind == RequestKind::RecordWrite && asked.nth == 1).then_some(FaultAnswer::CommitThenDrop)
    });
    fixture.run_pending().await;
    done(&fixture, &fixture.record(Api::Atoms, &id).await).await;
    assert!(fixture.jobs().await.iter().all(|job| job.state == JobState::Completed), "{:?}", fixture.jobs().await);
    let record = fixture.platform.record(&id).unwrap();
    assert_eq!((record.effects, &record.body["theirs"]), (1, &"stays".into()));
    assert_eq!(record.body["outcome"], "done");
    assert_eq!((fixture.asked(RequestKind::RecordRead, &id), fixture.asked(RequestKind::RecordWrite, &id)), (2, 1));
}

async fn a_record_that_changed_meanwhile_is_read_again(backend: Backend) {
    let (fixture, id) = with_record(backend, Plan::default()).await;
    fixture.platform.set_faults(|asked| {
        (asked.kind == RequestKind::RecordWrite && asked.nth == 1).then(|| FaultAnswer::status(412))
    });
    fixture.run_pending().await;
    done(&fixture, &fixture.record(Api::Atoms, &id).await).await;
    assert_eq!((fixture.asked(RequestKind::RecordRead, &id), fixture.asked(RequestKind::RecordWrite, &id)), (2, 2));
    let record = fixture.platform.record(&id).unwrap();
    assert_eq!((record.version, record.effects), (2, 1));
    let requests = fixture.platform.requests();
    assert!(
        requests
            .iter()
            .filter(|asked| asked.kind == RequestKind::RecordWrite)
            .all(|asked| asked.header("if-match") == Some("\"v1\"")),
        "a write without a condition"
    );
}

async fn a_receiver_that_refuses_leaves_the_call_done_and_a_dead_letter(backend: Backend) {
    let (fixture, id) = with_record(backend, Plan::default()).await;
    fixture.platform.set_faults(|asked| (asked.kind == RequestKind::RecordWrite).then(|| FaultAnswer::status(422)));
    fixture.run_pending().await;
    let record = fixture.record(Api::Atoms, &id).await;
    assert_eq!(record.outcome, Some(Outcome::Done));
    let jobs = fixture.jobs().await;
    let dead: Vec<_> = jobs.iter().filter(|job| job.state == JobState::DeadLetter).collect();
    assert_eq!(dead.len(), 1, "{jobs:?}");
    let failure = dead[0].failure.clone().unwrap();
    assert_eq!((failure.stage, failure.side), (Some(Stage::Deliver), Side::Receiver));
    assert!(failure.cause.contains("422") && failure.cause.contains("127.0.0.1"), "{}", failure.cause);
    // Once the receiver is mended a retry delivers it.
    fixture.platform.clear_faults();
    assert!(fixture.queue.retry(dead[0].id).await.unwrap());
    fixture.advance(Duration::from_secs(1)).await;
    fixture.run_pending().await;
    assert_eq!(fixture.platform.record(&id).unwrap().effects, 1);
}

async fn a_receiver_that_is_not_there_is_named_without_its_query(backend: Backend) {
    // Nobody listens on the first port (tcpmux, RFC 1078).
    const NOBODY: (&str, &str) = ("\nurl = \"http://127.0.0.1:", "\nurl = \"http://127.0.0.1:1/?key=s3cret&at=");
    let (fixture, _) = with_record(
        backend,
        Plan { sources: &[NOBODY], settings: "[worker]\nbackoff_base = \"1h\"", ..Plan::default() },
    )
    .await;
    fixture.run_pending().await;
    let (failure, state) = failed(&fixture).await;
    assert_eq!((failure.stage, failure.side, state), (Some(Stage::Deliver), Side::Receiver, JobState::Retryable));
    assert_eq!(failure.cause, "receiver 127.0.0.1:1: connection refused");
    fixture.leave_queue();
}

async fn a_body_that_is_no_json_is_not_sent(backend: Backend) {
    const BARE: (&str, &str) = ("if_match = true", "body = '{\"text\": {{ transcript }}}'");
    let (fixture, id) = with_record(backend, Plan { sources: &[BARE], ..Plan::default() }).await;
    fixture.run_pending().await;
    done(&fixture, &fixture.record(Api::Atoms, &id).await).await;
    let (failure, state) = failed(&fixture).await;
    assert_eq!((failure.stage, failure.side, state), (Some(Stage::Deliver), Side::Configuration, JobState::DeadLetter));
    assert!(failure.cause.contains("source.http.body") && failure.cause.contains("not JSON"), "{}", failure.cause);
    assert_eq!(fixture.asked(RequestKind::RecordWrite, &id), 0);
}

async fn a_call_id_cannot_choose_another_record(backend: Backend) {
    let id = "../other?all=1#x";
    let fixture = Fixture::start(backend, |now| vec![SampleCall { id: id.to_owned(), ..short(Api::Atoms, 1, now) }]);
    let fixture = fixture.await;
    for record in [id, "other"] {
        fixture.platform.register_record(record, serde_json::json!({}));
    }
    fixture.trigger(Api::Atoms, id).await;
    fixture.run_pending().await;
    assert_eq!(fixture.record(Api::Atoms, id).await.outcome, Some(Outcome::Done));
    let effects = |record: &str| fixture.platform.record(record).unwrap().effects;
    assert_eq!((effects(id), effects("other")), (1, 0));
    assert!(fixture.jobs().await.iter().all(|job| job.failure.is_none()));
}
