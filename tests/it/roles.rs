//! Roles put right by hand: on the record, in the objects, at the receiver, and for good.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aftercall::app::App;
use aftercall::demo::{Api, RequestKind, SampleCall};
use aftercall::domain::transcript::Evidence;
use aftercall::domain::{Quality, Role, Transcript};
use aftercall::jobs::correct::{Corrected, correct};
use aftercall::store::CallRecord;
use aftercall::transcript::{Correction, CorrectionError};
use aftercall::worker::{self, DataLock, Signals, Until};
use serde_json::json;

use crate::harness::{Backend, Fixture, Plan, eventually, on_every_backend};

on_every_backend!(
    a_correction_is_a_new_version_everywhere,
    a_correction_outlives_later_runs,
    a_correction_during_a_run_is_not_lost,
    a_correction_is_not_lost_to_what_a_dead_worker_noted,
    without_a_transcript_there_is_nothing_to_correct,
);

async fn processed(backend: Backend) -> (Fixture, CallRecord) {
    let mut id = String::new();
    let fixture = Fixture::planned(backend, Plan::default(), |now| {
        let call = SampleCall::numbered(Api::Atoms, 1, now - Duration::from_secs(60));
        id.clone_from(&call.id);
        vec![call]
    })
    .await;
    fixture.platform.register_record(&id, json!({ "theirs": "stays" }));
    fixture.trigger(Api::Atoms, &id).await;
    fixture.run_pending().await;
    let record = fixture.record(Api::Atoms, &id).await;
    assert_eq!(record.transcript_version, 1);
    (fixture, record)
}

async fn swapped(fixture: &Fixture, record: &CallRecord) -> (u32, Transcript) {
    match correct(&fixture.app.app, record.uid, Correction::Swap, "ada").await.unwrap() {
        Corrected::Version(version, words) => (version, *words),
        other => panic!("{other:?}"),
    }
}

fn roles(words: &Transcript) -> Vec<Role> {
    words.utterances.iter().map(|utterance| words.role(utterance.speaker)).collect()
}

const fn other_side(role: Role) -> Role {
    match role {
        Role::Agent => Role::Caller,
        Role::Caller => Role::Agent,
        role => role,
    }
}

async fn a_correction_is_a_new_version_everywhere(backend: Backend) {
    let (fixture, before) = processed(backend).await;
    let first = fixture.store.transcripts(before.uid).await.unwrap().remove(0);
    let (version, words) = swapped(&fixture, &before).await;
    assert_eq!(version, 2);
    let expected: Vec<Role> = roles(&first.transcript).into_iter().map(other_side).collect();
    assert_eq!(roles(&words), expected);
    assert_eq!(expected, [Role::Caller], "the sample has one utterance, the agent's");

    let record = fixture.record(Api::Atoms, before.call_id.as_str()).await;
    assert_eq!((record.transcript_version, record.outcome), (2, before.outcome));
    let versions = fixture.store.transcripts(record.uid).await.unwrap();
    assert_eq!((versions.len(), &versions[0].transcript), (2, &first.transcript), "the first is as it was");
    assert_eq!(
        versions[1].text,
        first.text.replace("[Agent]", "[_]").replace("[Caller]", "[Agent]").replace("[_]", "[Caller]")
    );
    // The objects say the same, and the manifest names them.
    for artifact in &record.artifacts {
        let bytes = fixture.objects.get(artifact).await.unwrap();
        match artifact.name.as_str() {
            "transcript.json" => {
                assert_eq!(serde_json::from_slice::<Transcript>(&bytes).unwrap(), versions[1].transcript);
            }
            "manifest.json" => {
                let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                assert_eq!(manifest["transcript_version"], 2);
                for named in manifest["artifacts"].as_array().unwrap() {
                    assert!(record.artifacts.iter().any(|artifact| named["key"] == artifact.key.as_str()), "{named}");
                }
            }
            _ => {}
        }
    }
    let talk = |record: &CallRecord| {
        let quality: Quality = serde_json::from_value(record.quality.clone().unwrap()).unwrap();
        quality.conversation.map(|talk| (talk.agent_talk_ms, talk.caller_talk_ms))
    };
    assert_eq!(talk(&record), talk(&before).map(|(agent, caller)| (caller, agent)));
    let audit = fixture.store.audit_entries(Some(&record.uid.to_string())).await.unwrap();
    assert!(audit.iter().any(|entry| entry.action == "roles_corrected" && entry.actor == "ada"), "{audit:?}");
    // The receiver hears of it.
    fixture.run_pending().await;
    let delivered = fixture.platform.record(record.call_id.as_str()).unwrap();
    assert_eq!(delivered.effects, 2);
    assert!(
        delivered.body.to_string().contains(&serde_json::to_string(&versions[1].text).unwrap()),
        "{}",
        delivered.body
    );
}

async fn a_correction_outlives_later_runs(backend: Backend) {
    let (fixture, before) = processed(backend).await;
    let (_, right) = swapped(&fixture, &before).await;
    fixture.run_pending().await;
    fixture.trigger_again(Api::Atoms, before.call_id.as_str()).await;
    fixture.run_pending().await;
    let record = fixture.record(Api::Atoms, before.call_id.as_str()).await;
    assert_eq!(record.transcript_version, 3);
    let newest = fixture.store.transcripts(record.uid).await.unwrap().pop().unwrap();
    assert_eq!(roles(&newest.transcript), roles(&right));
    assert!(newest.transcript.speakers.iter().any(|speaker| speaker.evidence == Some(Evidence::Correction)));
    // Swapped back it is as before, and stays so too.
    swapped(&fixture, &record).await;
    fixture.run_pending().await;
    fixture.trigger_again(Api::Atoms, before.call_id.as_str()).await;
    fixture.run_pending().await;
    let versions = fixture.store.transcripts(record.uid).await.unwrap();
    assert_eq!((versions.len(), roles(&versions[4].transcript)), (5, roles(&versions[0].transcript)));
}

async fn a_correction_during_a_run_is_not_lost(backend: Backend) {
    let (fixture, before) = processed(backend).await;
    fixture.trigger_again(Api::Atoms, before.call_id.as_str()).await;
    // In the very moment in which the run asks about the call, having read its record already.
    let (app, uid, done) = (fixture.app.app.clone(), before.uid, AtomicBool::new(false));
    fixture.platform.set_faults(move |asked| {
        if asked.kind == RequestKind::Detail && !done.swap(true, Ordering::SeqCst) {
            // The platform answers when it has been done; its thread's other work is taken over by another one.
            tokio::task::block_in_place(|| {
                let correction = correct(&app, uid, Correction::Swap, "ada");
                let corrected = tokio::runtime::Handle::current().block_on(correction).unwrap();
                assert!(matches!(corrected, Corrected::Version(2, _)));
            });
        }
        None
    });
    fixture.run_pending().await;
    let versions = fixture.store.transcripts(before.uid).await.unwrap();
    assert_eq!(versions.len(), 3, "the correction and the run");
    let expected: Vec<Role> = roles(&versions[0].transcript).into_iter().map(other_side).collect();
    assert_eq!((roles(&versions[1].transcript), roles(&versions[2].transcript)), (expected.clone(), expected));
    assert_eq!(fixture.record(Api::Atoms, before.call_id.as_str()).await.transcript_version, 3);
}

async fn a_correction_is_not_lost_to_what_a_dead_worker_noted(backend: Backend) {
    let (fixture, before) = processed(backend).await;
    fixture.trigger_again(Api::Atoms, before.call_id.as_str()).await;
    // A worker that dies when it has measured the call and noted so.
    let mut config = fixture.space.config();
    "quality".clone_into(&mut config.worker.park_at);
    let doomed = App::build(config, fixture.clock.clone()).await.unwrap();
    let lock = DataLock::take(fixture.data_dir()).unwrap();
    let working = tokio::spawn(async move { worker::run(doomed, &lock, Until::Idle, Signals::default()).await });
    let noted = eventually("what it measured is noted", async || {
        fixture.record(Api::Atoms, before.call_id.as_str()).await.progress.filter(|note| note.get("quality").is_some())
    });
    let noted = noted.await;
    working.abort();
    let _ = working.await;
    // The correction came a moment before that note, which therefore has the roles as they were.
    let (_, right) = swapped(&fixture, &before).await;
    let mut tx = fixture.store.begin().await.unwrap();
    assert!(fixture.store.set_progress(&mut tx, before.uid, before.generation, &noted).await.unwrap());
    tx.commit().await.unwrap();
    fixture.queue.requeue_expired("another", Duration::ZERO).await.unwrap();
    fixture.run_pending().await;
    let versions = fixture.store.transcripts(before.uid).await.unwrap();
    assert_eq!(versions.len(), 3, "the correction and the run");
    assert_eq!(roles(&versions[2].transcript), roles(&right));
}

async fn without_a_transcript_there_is_nothing_to_correct(backend: Backend) {
    let (fixture, record) = processed(backend).await;
    let unknown = aftercall::domain::CallUid::new();
    let none = correct(&fixture.app.app, unknown, Correction::Swap, "ada").await.unwrap();
    assert!(matches!(none, Corrected::NoTranscript));
    let named = correct(&fixture.app.app, record.uid, Correction::Agent(1), "ada").await.unwrap();
    assert!(matches!(named, Corrected::Refused(CorrectionError::AgentNamed)), "{named:?}");
    assert_eq!(fixture.store.transcripts(record.uid).await.unwrap().len(), 1);
}
