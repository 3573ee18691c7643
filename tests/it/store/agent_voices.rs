//! What is kept of the voices of synthetic agents: so many calls of each, of one version, under holds and until erased.

use std::time::Duration;

use aftercall::domain::{CallId, CallUid, Enrolled, SourceCall, SourceName, SpeakerEmbedding};
use aftercall::store::{AgentVoiceRow, ErasedVoice, NewHold};
use jiff::SignedDuration;

use super::admit;
use crate::harness::{Backend, TestApp, on_every_backend, source_call};

on_every_backend!(
    the_newest_calls_of_an_agent_are_kept_and_no_more,
    figures_of_a_new_version_take_the_place_of_the_old_ones,
    a_hold_keeps_what_its_call_taught,
    voices_of_other_agents_are_nobody_s_business,
);

const AGENT: &str = "agent-1";

async fn teach(app: &TestApp, id: &str, agent_id: &str, version: u32) -> (CallUid, SourceName, bool) {
    let call = SourceCall { id: CallId::parse(id).unwrap(), ..source_call(id) };
    let record = admit(&app.store, &call, app.now()).await;
    let enrolled = Enrolled {
        agent_id: agent_id.to_owned(),
        embedding: SpeakerEmbedding { version, at: vec![f64::from(version); 24], speech_ms: 9_000 },
    };
    let mut tx = app.store.begin().await.unwrap();
    let first = app.store.enroll_agent_voice(&mut tx, record.uid, &record.source, &enrolled, app.now()).await.unwrap();
    tx.commit().await.unwrap();
    // What comes after is later.
    app.advance(Duration::from_secs(1)).await;
    (record.uid, record.source, first)
}

async fn kept(app: &TestApp) -> Vec<(String, u32, u64)> {
    let row = |row: AgentVoiceRow| (row.agent_id, row.version, row.calls);
    app.store.agent_voices().await.unwrap().into_iter().map(row).collect()
}

async fn erase(app: &TestApp, source: &SourceName, agent_id: &str) -> ErasedVoice {
    let mut tx = app.store.begin().await.unwrap();
    let erased = app.store.erase_agent_voice(&mut tx, source, agent_id).await.unwrap();
    tx.commit().await.unwrap();
    erased
}

async fn hold(app: &TestApp, call: CallUid) -> String {
    let now = app.now();
    let review_by = now + SignedDuration::from_hours(24 * 30);
    let new = NewHold { call_uid: call, matter: "M-1", placed_by: "legal", now, review_by };
    let mut tx = app.store.begin().await.unwrap();
    let id = app.store.place_hold(&mut tx, new).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    id
}

async fn release(app: &TestApp, hold: &str) {
    let mut tx = app.store.begin().await.unwrap();
    assert!(app.store.release_hold(&mut tx, hold, "legal", app.now()).await.unwrap());
    tx.commit().await.unwrap();
}

async fn the_newest_calls_of_an_agent_are_kept_and_no_more(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let (oldest, source, first) = teach(&app, "c-0", AGENT, 1).await;
    assert!(first);
    for n in 1..15 {
        assert!(!teach(&app, &format!("c-{n}"), AGENT, 1).await.2);
    }
    assert_eq!(kept(&app).await, [(AGENT.to_owned(), 1, 12)]);
    // The newest ones: without those of a call that is asked about itself.
    let (newest, ..) = teach(&app, "c-15", AGENT, 1).await;
    assert_eq!(app.store.agent_voice(&source, AGENT, 1, newest).await.unwrap().len(), 11);
    assert_eq!(app.store.agent_voice(&source, AGENT, 1, oldest).await.unwrap().len(), 12);
    // The same call once more is not another one.
    teach(&app, "c-15", AGENT, 1).await;
    assert_eq!(app.store.agent_voice(&source, AGENT, 1, newest).await.unwrap().len(), 11);
}

async fn figures_of_a_new_version_take_the_place_of_the_old_ones(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let (_, source, _) = teach(&app, "c-0", AGENT, 1).await;
    teach(&app, "c-1", AGENT, 1).await;
    assert_eq!(app.store.agent_voice(&source, AGENT, 2, CallUid::new()).await.unwrap(), []);
    let (newest, ..) = teach(&app, "c-2", AGENT, 2).await;
    assert_eq!(kept(&app).await, [(AGENT.to_owned(), 2, 1)]);
    // A worker of the build before goes on with its own, and takes nothing away.
    teach(&app, "c-3", AGENT, 1).await;
    assert_eq!(kept(&app).await, [(AGENT.to_owned(), 1, 1), (AGENT.to_owned(), 2, 1)]);
    assert_eq!(app.store.agent_voice(&source, AGENT, 2, newest).await.unwrap(), []);
}

async fn a_hold_keeps_what_its_call_taught(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let (held, source, _) = teach(&app, "c-0", AGENT, 1).await;
    let id = hold(&app, held).await;
    for n in 1..15 {
        teach(&app, &format!("c-{n}"), AGENT, 1).await;
    }
    assert_eq!(kept(&app).await, [(AGENT.to_owned(), 1, 13)], "the held one is none of the twelve newest");
    assert_eq!(erase(&app, &source, AGENT).await, ErasedVoice::Held { calls: 1 });
    assert_eq!(kept(&app).await, [(AGENT.to_owned(), 1, 13)]);
    release(&app, &id).await;
    assert_eq!(erase(&app, &source, AGENT).await, ErasedVoice::Erased { calls: 13 });
    assert_eq!(kept(&app).await, []);
    assert_eq!(erase(&app, &source, AGENT).await, ErasedVoice::Erased { calls: 0 });
}

async fn voices_of_other_agents_are_nobody_s_business(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let (call, source, _) = teach(&app, "c-0", AGENT, 1).await;
    let (_, _, first) = teach(&app, "c-1", "agent-2", 1).await;
    assert!(first, "of its own agent");
    assert_eq!(app.store.agent_voice(&source, "agent-2", 1, call).await.unwrap().len(), 1);
    let elsewhere = SourceName::parse("elsewhere").unwrap();
    assert_eq!(app.store.agent_voice(&elsewhere, AGENT, 1, CallUid::new()).await.unwrap(), []);
    assert_eq!(erase(&app, &elsewhere, AGENT).await, ErasedVoice::Erased { calls: 0 });
    assert_eq!(erase(&app, &source, AGENT).await, ErasedVoice::Erased { calls: 1 });
    // A call that somebody has put right may have taught the other's voice.
    let (agents, calls) = ("agent-2".to_owned(), 1);
    assert_eq!(kept(&app).await, [(agents, 1, calls)]);
    let (other, ..) = teach(&app, "c-1", "agent-2", 1).await;
    let mut tx = app.store.begin().await.unwrap();
    app.store.unenroll_agent_voice(&mut tx, other).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(kept(&app).await, []);
}
