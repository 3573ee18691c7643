//! Retention's half of the store: what is due, what a hold keeps, and that scrubbed means gone, down to the bytes.

use std::collections::BTreeSet;
use std::time::Duration;

use aftercall::artifacts::{Body, artifact_of_bytes};
use aftercall::domain::{
    Artifact, ArtifactKind, CallId, Container, Enrolled, Outcome, RetentionState, SourceCall, SpeakerEmbedding,
};
use aftercall::jobs::Job;
use aftercall::jobs::retention_sweep::{self, Consent};
use aftercall::queue::{Lane, NewJob};
use aftercall::store::{CallRecord, Db, FinishedCall, NewHold};
use futures::StreamExt;
use jiff::SignedDuration;
use serde_json::json;

use super::{admit, read, set_progress};
use crate::harness::{Backend, TestApp, job, on_every_backend, source_call, transcript};

const DAY: Duration = Duration::from_secs(86_400);

on_every_backend!(
    a_hold_keeps_a_call_and_its_release_frees_it,
    a_condemned_call_takes_no_hold,
    scrubbed_content_is_in_no_byte_of_the_database,
    the_sweep_takes_what_is_due_and_nothing_else,
    the_kill_switch_stops_erasures_that_were_decided,
    a_sweep_before_anything_was_stored_is_no_failure,
);

async fn hold(app: &TestApp, record: &CallRecord) -> Option<String> {
    let mut tx = app.store.begin().await.unwrap();
    let now = app.now();
    let review_by = now + SignedDuration::from_hours(24 * 30);
    let new = NewHold { call_uid: record.uid, matter: "M-1", placed_by: "legal", now, review_by };
    let id = app.store.place_hold(&mut tx, new).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn condemn(app: &TestApp, record: &CallRecord) -> bool {
    let mut tx = app.store.begin().await.unwrap();
    let condemned = app.store.condemn(&mut tx, record.uid, record.retain_until).await.unwrap();
    tx.commit().await.unwrap();
    condemned
}

async fn a_hold_keeps_a_call_and_its_release_frees_it(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let record = admit(&app.store, &source_call("c-1"), app.now()).await;
    let (one, two) = (hold(&app, &record).await.unwrap(), hold(&app, &record).await.unwrap());
    let due = app.store.due_calls(record.retain_until).await.unwrap();
    assert_eq!((due.len(), due[0].held), (1, true));
    assert!(app.store.due_calls(record.retain_until - SignedDuration::from_secs(1)).await.unwrap().is_empty());
    for id in [one, two] {
        assert!(!condemn(&app, &record).await, "held");
        let mut tx = app.store.begin().await.unwrap();
        assert!(app.store.release_hold(&mut tx, &id, "legal", app.now()).await.unwrap());
        assert!(!app.store.release_hold(&mut tx, &id, "legal", app.now()).await.unwrap(), "released already");
        tx.commit().await.unwrap();
    }
    assert!(!app.store.is_held(record.uid).await.unwrap());
    assert!(condemn(&app, &record).await);
    let holds = app.store.holds(Some(record.uid)).await.unwrap();
    assert!(holds.len() == 2 && holds.iter().all(|hold| hold.released_by.as_deref() == Some("legal")));
}

async fn a_condemned_call_takes_no_hold(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let record = admit(&app.store, &source_call("c-1"), app.now()).await;
    assert!(condemn(&app, &record).await);
    assert_eq!(hold(&app, &record).await, None);
    assert_eq!(app.store.holds(None).await.unwrap().len(), 0);
}

/// A finished call with everything a record can hold, and its objects. `word` marks all that is somebody's own.
async fn finished_call(app: &TestApp, id: &str, word: &str) -> CallRecord {
    let call = serde_json::to_string(&SourceCall { id: CallId::parse(id).unwrap(), ..source_call("c") }).unwrap();
    // Long enough to spill over onto pages of its own, as real calls do.
    let call: SourceCall = serde_json::from_str(&call.replace("canary", word)).unwrap();
    let call = SourceCall { raw: json!({ "long": format!("{word} ").repeat(2000) }), ..call };
    let record = admit(&app.store, &call, app.now()).await;
    let (org, uid) = (record.org_uid, record.uid);
    let original =
        artifact_of_bytes(org, uid, ArtifactKind::Original(Container::Mp3), format!("{word} {id}").as_bytes());
    let body = Body::Bytes(format!("{word} {id}").into_bytes().into());
    app.objects.put(&original, body).await.unwrap();
    assert!(app.store.set_original(uid, record.generation, &original).await.unwrap());
    assert!(set_progress(app, uid, record.generation, &json!({ "progress": word })).await);
    let mut tx = app.store.begin().await.unwrap();
    let text = format!("{word} ").repeat(3000);
    for _ in 0..2 {
        app.store.add_transcript(&mut tx, uid, &transcript(&text), &text, app.now()).await.unwrap();
    }
    let end = FinishedCall {
        outcome: Outcome::Done,
        reason: Some(format!("{word} reason")),
        artifacts: &[Artifact { name: format!("{word}.mp3"), ..original.clone() }],
        quality: Some(&json!({ "codec": word })),
        flags: &[format!("{word}_flag")],
        transcript_version: Some(2),
        left: None,
        now: app.now(),
    };
    assert!(app.store.finish_call(&mut tx, uid, record.generation, &end).await.unwrap());
    app.store.add_pending_delivery(&mut tx, uid, &format!("{word}_target"), 2, app.now()).await.unwrap();
    let embedding = SpeakerEmbedding { version: 1, at: vec![0.5; 24], speech_ms: 9_000 };
    let enrolled = Enrolled { agent_id: format!("{word}_agent"), embedding };
    let source = record.source.clone();
    app.store.enroll_agent_voice(&mut tx, uid, &source, &enrolled, app.now()).await.unwrap();
    // A dead letter about the call, with a cause that quotes something.
    let dead = NewJob { subject: Some(uid.to_string()), payload: json!({ "quoted": word }), ..job(&uid.to_string()) };
    let dead = app.queue.enqueue(&mut tx, dead).await.unwrap().id;
    tx.commit().await.unwrap();
    assert!(app.queue.cancel(dead).await.unwrap());
    read(&app.store, uid).await
}

/// How often a word stands in what the database keeps: in the very bytes of SQLite's files, in every row of PostgreSQL.
async fn traces(app: &TestApp, word: &str) -> usize {
    match app.store.db() {
        Db::Sqlite(_) => {
            assert!(app.store.truncate_wal().await.unwrap());
            ["aftercall.db", "aftercall.db-wal", "aftercall.db-shm"]
                .iter()
                .map(|name| {
                    let bytes = std::fs::read(app.data_dir().join(name)).unwrap_or_default();
                    bytes.windows(word.len()).filter(|window| *window == word.as_bytes()).count()
                })
                .sum()
        }
        Db::Postgres(pool) => {
            let tables: Vec<String> = sqlx::query_scalar("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
                .fetch_all(pool)
                .await
                .unwrap();
            assert!(tables.len() > 12, "{tables:?}");
            let mut traces = 0;
            for table in tables {
                // Bytes as text where they are text; a row as PostgreSQL prints it.
                let sql = format!("SELECT COUNT(*) FROM {table} AS t WHERE t::text LIKE '%' || $1 || '%'");
                let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(word).fetch_one(pool).await.unwrap();
                traces += usize::try_from(rows).unwrap();
            }
            traces
        }
    }
}

async fn scrubbed_content_is_in_no_byte_of_the_database(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let mut gone = Vec::new();
    // As many as are kept of one agent.
    for n in 0..12 {
        // Interleaved, so that pages are shared.
        gone.push(finished_call(&app, &format!("gone-{n}"), "canary").await);
        finished_call(&app, &format!("kept-{n}"), "keepsake").await;
    }
    assert!(traces(&app, "canary").await >= 36, "the search finds nothing even before");
    let kept = traces(&app, "keepsake").await;
    for record in &gone {
        let mut tx = app.store.begin().await.unwrap();
        app.store.scrub(&mut tx, record.uid, app.now()).await.unwrap();
        app.queue.forget(&mut tx, &record.uid.to_string(), 0).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(traces(&app, "canary").await, 0);
    assert_eq!(traces(&app, "keepsake").await, kept, "a neighbour was touched");
    // The tombstone: ids, times and status, so that the call is known when it is seen again.
    let record = read(&app.store, gone[0].uid).await;
    assert_eq!((record.retention_state, record.outcome), (RetentionState::Erased, Some(Outcome::Erased)));
    assert_eq!((record.call_id.as_str(), record.ended_at), ("gone-0", gone[0].ended_at));
    assert!(record.call.is_none() && record.original.is_none() && record.artifacts.is_empty());
    let again = admit(&app.store, &SourceCall { id: record.call_id, ..source_call("c") }, app.now()).await;
    assert_eq!((again.uid, again.retention_state), (gone[0].uid, RetentionState::Erased));
    assert_eq!(traces(&app, "canary").await, 0, "a call seen again came back");
}

/// Turns the clock so that the sample calls are this many days past their end.
fn days_after_the_end(app: &TestApp, days: u32) {
    let end = source_call("c").ended_at.unwrap() + SignedDuration::try_from(days * DAY).unwrap();
    let ahead = end.duration_since(app.now());
    app.set_clock(ahead);
    assert!(app.now().duration_since(end).abs() < SignedDuration::from_secs(60));
}

async fn objects(app: &TestApp) -> BTreeSet<String> {
    app.objects.list_all(None).map(|entry| entry.unwrap().key).collect().await
}

async fn the_sweep_takes_what_is_due_and_nothing_else(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    days_after_the_end(&app, 1);
    let due = finished_call(&app, "due", "canary").await;
    let held = finished_call(&app, "held", "keepsake").await;
    let hold = hold(&app, &held).await.unwrap();
    // The day before: nothing.
    days_after_the_end(&app, 89);
    assert_eq!(retention_sweep::plan(&app).await.unwrap().due, 0);
    days_after_the_end(&app, 91);
    let plan = retention_sweep::plan(&app).await.unwrap();
    assert_eq!((plan.due, plan.held, plan.refused), (1, 1, None));
    assert_eq!(objects(&app).await.len(), 2, "a plan erases nothing");

    let done = retention_sweep::sweep(&app, Consent::Scheduled).await.unwrap();
    assert_eq!((done.due, done.refused), (1, None));
    app.run_pending().await;
    assert_eq!(read(&app.store, due.uid).await.retention_state, RetentionState::Erased);
    assert_eq!(traces(&app, "canary").await, 0);
    assert_eq!(objects(&app).await, BTreeSet::from([held.original.clone().unwrap().key.as_str().to_owned()]));
    let entries = app.store.audit_entries(Some(&due.uid.to_string())).await.unwrap();
    let actions: Vec<&str> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["condemned", "erased"]);

    let untouched = read(&app.store, held.uid).await;
    assert_eq!((untouched.retention_state, untouched.outcome), (RetentionState::Active, Some(Outcome::Done)));
    assert_eq!(app.store.transcripts(held.uid).await.unwrap().len(), 2);
    let voices = app.store.agent_voices().await.unwrap();
    assert_eq!(voices.iter().map(|voice| voice.agent_id.as_str()).collect::<Vec<_>>(), ["keepsake_agent"]);
    let mut tx = app.store.begin().await.unwrap();
    app.store.release_hold(&mut tx, &hold, "legal", app.now()).await.unwrap();
    tx.commit().await.unwrap();
    retention_sweep::sweep(&app, Consent::Scheduled).await.unwrap();
    app.run_pending().await;
    assert_eq!((traces(&app, "keepsake").await, objects(&app).await.len()), (0, 0));
}

async fn the_kill_switch_stops_erasures_that_were_decided(backend: Backend) {
    let app = TestApp::start(backend, "[retention]\nenabled = false").await;
    days_after_the_end(&app, 91);
    let record = finished_call(&app, "c-1", "canary").await;
    let refused = retention_sweep::sweep(&app, Consent::Scheduled).await.unwrap().refused;
    assert!(refused.is_some_and(|why| why.contains("retention.enabled")));
    assert!(condemn(&app, &record).await);
    let mut tx = app.store.begin().await.unwrap();
    let erasure = Job::EraseCall { call: record.uid };
    app.queue.enqueue(&mut tx, erasure.queued(&app, Lane::Maintenance)).await.unwrap();
    tx.commit().await.unwrap();
    app.run_pending().await;
    assert_eq!(objects(&app).await.len(), 1);
    assert_eq!(read(&app.store, record.uid).await.retention_state, RetentionState::Condemned);
    app.leave_queue();
}

async fn a_sweep_before_anything_was_stored_is_no_failure(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    admit(&app.store, &source_call("c-1"), app.now()).await;
    days_after_the_end(&app, 1);
    let plan = retention_sweep::sweep(&app, Consent::Scheduled).await.unwrap();
    assert_eq!((plan.due, plan.refused), (0, None));
}
