//! The platform's own record: written once, whatever happens to the answer, and never over somebody else's change.

use std::time::Duration;

use aftercall::demo::{Api, FaultAnswer, Kind};
use aftercall::domain::{Outcome, Side, Stage};
use aftercall::queue::JobState;

use super::{done, short};
use crate::harness::{Backend, Fixture, on_every_backend};

on_every_backend!(
    an_answer_that_is_lost_means_one_effect,
    a_record_that_changed_meanwhile_is_read_again,
    a_receiver_that_refuses_leaves_the_call_done_and_a_dead_letter,
);

async fn with_record(backend: Backend) -> (Fixture, String) {
    let mut id = String::new();
    let fixture = Fixture::start(backend, |now| {
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

async fn an_answer_that_is_lost_means_one_effect(backend: Backend) {
    let (fixture, id) = with_record(backend).await;
    fixture.platform.set_faults(|asked| {
        let writes = matches!(asked.kind, Kind::RecordWrite | Kind::WriteBack);
        (writes && asked.nth == 1).then_some(FaultAnswer::CommitThenDrop)
    });
    fixture.run_pending().await;
    done(&fixture, &fixture.record(Api::Atoms, &id).await).await;
    assert_eq!(fixture.asked(Kind::RecordWrite, &id), 2);
    let record = fixture.platform.record(&id).unwrap();
    assert_eq!(record.effects, 1);
    assert_eq!(record.body["theirs"], "stays");
    let requests = fixture.platform.requests();
    let keys: Vec<&str> = requests
        .iter()
        .filter(|asked| asked.kind == Kind::RecordWrite)
        .map(|asked| asked.header("idempotency-key").unwrap())
        .collect();
    assert_eq!(keys[0], keys[1]);
    // A platform without such keys: writing the same again changes nothing.
    done(&fixture, &fixture.record(Api::Zudu, "call-000002").await).await;
    assert_eq!(fixture.platform.effects("call-000002"), 1);
}

async fn a_record_that_changed_meanwhile_is_read_again(backend: Backend) {
    let (fixture, id) = with_record(backend).await;
    fixture
        .platform
        .set_faults(|asked| (asked.kind == Kind::RecordWrite && asked.nth == 1).then(|| FaultAnswer::status(412)));
    fixture.run_pending().await;
    done(&fixture, &fixture.record(Api::Atoms, &id).await).await;
    assert_eq!((fixture.asked(Kind::RecordRead, &id), fixture.asked(Kind::RecordWrite, &id)), (2, 2));
    let record = fixture.platform.record(&id).unwrap();
    assert_eq!((record.version, record.effects), (2, 1));
    let requests = fixture.platform.requests();
    assert!(
        requests
            .iter()
            .filter(|asked| asked.kind == Kind::RecordWrite)
            .all(|asked| asked.header("if-match") == Some("\"v1\"")),
        "a write without a condition"
    );
}

async fn a_receiver_that_refuses_leaves_the_call_done_and_a_dead_letter(backend: Backend) {
    let (fixture, id) = with_record(backend).await;
    fixture.platform.set_faults(|asked| (asked.kind == Kind::RecordWrite).then(|| FaultAnswer::status(422)));
    fixture.run_pending().await;
    let record = fixture.record(Api::Atoms, &id).await;
    assert_eq!(record.outcome, Some(Outcome::Done));
    let jobs = fixture.jobs().await;
    let dead: Vec<_> = jobs.iter().filter(|job| job.state == JobState::DeadLetter).collect();
    assert_eq!(dead.len(), 1, "{jobs:?}");
    let failure = dead[0].failure.clone().unwrap();
    assert_eq!((failure.stage, failure.side), (Some(Stage::Deliver), Side::Receiver));
    assert!(failure.cause.contains("422"), "{}", failure.cause);
    // Once the receiver is mended a retry delivers it.
    fixture.platform.clear_faults();
    assert!(fixture.queue.retry(dead[0].id).await.unwrap());
    fixture.advance(Duration::from_secs(1)).await;
    fixture.run_pending().await;
    assert_eq!(fixture.platform.record(&id).unwrap().effects, 1);
}
