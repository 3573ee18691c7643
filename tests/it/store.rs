//! What the record store promises, on both engines.

mod agent_voices;
mod erasure;

use aftercall::domain::{
    Artifact, ArtifactKey, ArtifactKind, CallId, CallUid, Container, Outcome, RetentionState, RetentionTerm, Sha256,
    SourceCall, SourceName,
};
use aftercall::queue::Verdict;
use aftercall::store::{Admitted, BackfillState, CallRecord, FinishedCall, NewBackfill, NewItem, Origin, Scope, Store};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::harness::{Backend, TestApp, eventually, failure, job, on_every_backend, script, source_call, transcript};

const TERM: RetentionTerm = RetentionTerm::DEFAULT;

on_every_backend!(
    a_call_is_admitted_once,
    a_detail_never_erases_what_was_known,
    nothing_known_before_an_opt_out_survives_it,
    retention_counts_from_the_best_known_end,
    an_end_is_refused_once_the_call_is_condemned,
    transcript_versions_are_counted_and_kept,
    concurrent_versions_do_not_collide,
    a_delivery_lives_and_dies_with_its_transaction,
    an_unfinished_backfill_of_the_schedule_refuses_another,
    a_backfill_counts_what_became_of_its_calls,
    keys_are_found_by_their_secret_until_revoked,
);

pub(super) fn name(text: &str) -> SourceName {
    SourceName::parse(text).unwrap()
}

/// Notes what was made, as a run does.
pub(super) async fn set_progress(app: &TestApp, uid: CallUid, generation: i64, progress: &serde_json::Value) -> bool {
    let mut tx = app.store.begin().await.unwrap();
    let owned = app.store.set_progress(&mut tx, uid, generation, progress).await.unwrap();
    tx.commit().await.unwrap();
    owned
}

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) async fn admit(store: &Store, call: &SourceCall, now: Timestamp) -> CallRecord {
    let mut tx = store.begin().await.unwrap();
    let source = name("krosai");
    let admitted = Admitted { source: &source, call_id: &call.id, call: Some(call), now, term: TERM };
    let record = store.admit(&mut tx, admitted).await.unwrap();
    tx.commit().await.unwrap();
    record
}

/// The record as another reader sees it.
pub(super) async fn read(store: &Store, uid: CallUid) -> CallRecord {
    store.call(uid).await.unwrap().unwrap()
}

async fn a_call_is_admitted_once(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let call = source_call("c-1");
    let records = join_all((0..20).map(|_| admit(&app.store, &call, app.now()))).await;
    assert!(records.iter().all(|record| record.uid == records[0].uid && record.org_uid == records[0].org_uid));
    let stored = read(&app.store, records[0].uid).await;
    assert_eq!(stored.call.as_ref(), Some(&call));
    assert_eq!((stored.retention_state, stored.generation, stored.outcome), (RetentionState::Active, 0, None));
    // The same id at another source is another call.
    let mut tx = app.store.begin().await.unwrap();
    let other = name("zudu");
    let admitted = Admitted { source: &other, call_id: &call.id, call: Some(&call), now: app.now(), term: TERM };
    let there = app.store.admit(&mut tx, admitted).await.unwrap();
    tx.commit().await.unwrap();
    assert_ne!(there.uid, stored.uid);
    assert_ne!(there.org_uid, stored.org_uid, "organisations of two platforms are not mixed up");
    assert_eq!(app.store.calls_by_id(&call.id, None).await.unwrap().len(), 2);
    assert_eq!(app.store.calls_by_id(&call.id, Some(&other)).await.unwrap().len(), 1);
}

async fn a_detail_never_erases_what_was_known(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let call = source_call("c-1");
    let known = admit(&app.store, &call, app.now()).await;
    let poor = SourceCall {
        org_id: None,
        agent_id: None,
        direction: None,
        from_number: None,
        to_number: None,
        end_reason: None,
        created_at: None,
        answered_at: None,
        ended_at: None,
        duration_ms: None,
        cost: None,
        recording_url: None,
        turns: Vec::new(),
        language: None,
        metadata: None,
        etag: None,
        ..call.clone()
    };
    // A list row that shows less, and a trigger that knows nothing but the id.
    let again = admit(&app.store, &poor, app.now()).await;
    let mut tx = app.store.begin().await.unwrap();
    let source = name("krosai");
    let bare = Admitted { source: &source, call_id: &call.id, call: None, now: app.now(), term: TERM };
    let triggered = app.store.admit(&mut tx, bare).await.unwrap();
    tx.commit().await.unwrap();
    for record in [again, triggered, read(&app.store, known.uid).await] {
        assert_eq!(record.call.as_ref(), Some(&call));
        assert_eq!((record.org_uid, record.org_id.as_deref()), (known.org_uid, Some("org-1")));
        assert_eq!((record.ended_at, record.duration_ms), (known.ended_at, Some(61_500)));
        assert_eq!((record.retain_until, record.direction.as_deref()), (known.retain_until, Some("inbound")));
    }
    // The other way round: what a trigger did not know is filled in.
    let id = CallId::parse("c-2").unwrap();
    let mut tx = app.store.begin().await.unwrap();
    let bare = Admitted { source: &source, call_id: &id, call: None, now: app.now(), term: TERM };
    let first = app.store.admit(&mut tx, bare).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((first.call.as_ref(), first.status.as_str()), (None, "unknown"));
    let told = admit(&app.store, &SourceCall { id, ..call.clone() }, app.now()).await;
    assert_eq!((told.uid, told.org_uid, told.status.as_str()), (first.uid, known.org_uid, "completed"));
}

async fn nothing_known_before_an_opt_out_survives_it(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let call = source_call("c-1");
    let uid = admit(&app.store, &call, app.now()).await.uid;
    let opted = aftercall::jobs::admit::bare(&SourceCall { opt_out: true, ..call.clone() });
    admit(&app.store, &opted, app.now()).await;
    let kept = read(&app.store, uid).await.call.unwrap();
    assert!(kept.opt_out);
    assert_eq!((kept.from_number, kept.recording_url, kept.turns.len()), (None, None, 0));
    let json = format!("{:?}{}", kept.raw, kept.metadata.is_some());
    assert!(!json.contains("canary"), "{json}");
}

async fn retention_counts_from_the_best_known_end(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let (seen, days) = (at("2026-05-01T00:00:00Z"), SignedDuration::from_hours(24 * 90));
    let full = source_call("c");
    let created = SourceCall { ended_at: None, answered_at: None, ..full.clone() };
    let first_seen = SourceCall { created_at: None, ..created.clone() };
    let answered = SourceCall { ended_at: None, ..full.clone() };
    let cases = [
        ("ended", full.clone(), full.ended_at.unwrap()),
        ("answered_plus_duration", answered, full.answered_at.unwrap() + SignedDuration::from_millis(61_500)),
        ("created", created, full.created_at.unwrap()),
        ("first_seen", first_seen, seen),
    ];
    for (basis, call, from) in &cases {
        let call = SourceCall { id: CallId::parse(basis).unwrap(), ..call.clone() };
        let uid = admit(&app.store, &call, seen).await.uid;
        let record = read(&app.store, uid).await;
        assert_eq!((record.retention_basis.as_str(), record.retain_until), (*basis, *from + days));
        // What is learnt later, the better basis, moves the end; a later sight without it does not.
        let enrolled = SourceCall { id: call.id.clone(), ..full.clone() };
        for told in [&enrolled, &call] {
            admit(&app.store, told, seen + SignedDuration::from_hours(1)).await;
            let record = read(&app.store, uid).await;
            assert_eq!(
                (record.retention_basis.as_str(), record.retain_until),
                ("ended", full.ended_at.unwrap() + days)
            );
        }
    }
    // A trigger's record has its term from the first moment.
    let mut tx = app.store.begin().await.unwrap();
    let (source, id) = (name("krosai"), CallId::parse("triggered").unwrap());
    let bare = Admitted { source: &source, call_id: &id, call: None, now: seen, term: TERM };
    let record = app.store.admit(&mut tx, bare).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((record.retention_basis.as_str(), record.retain_until), ("first_seen", seen + days));
}

/// An object of a call, as if it had been stored.
pub(super) fn artifact(record: &CallRecord, kind: ArtifactKind) -> Artifact {
    let sha256 = Sha256::from_bytes([7; 32]);
    let key = ArtifactKey::new(record.org_uid, record.uid, kind, &sha256);
    Artifact { name: kind.name(), key, size_bytes: 10, sha256, content_type: kind.content_type().as_str().to_owned() }
}

async fn an_end_is_refused_once_the_call_is_condemned(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let record = admit(&app.store, &source_call("c-1"), app.now()).await;
    let due = record.retain_until;
    let original = artifact(&record, ArtifactKind::Original(Container::Mp3));
    assert!(app.store.set_original(record.uid, record.generation, &original).await.unwrap());
    assert!(set_progress(&app, record.uid, record.generation, &json!({ "made": 1 })).await);

    let mut tx = app.store.begin().await.unwrap();
    assert!(!app.store.condemn(&mut tx, record.uid, due - SignedDuration::from_secs(1)).await.unwrap(), "not due yet");
    assert!(app.store.condemn(&mut tx, record.uid, due).await.unwrap());
    assert!(!app.store.condemn(&mut tx, record.uid, due).await.unwrap(), "condemned already");
    tx.commit().await.unwrap();

    // A run that began before writes nothing any more, whatever it holds.
    let end = FinishedCall {
        outcome: Outcome::Done,
        reason: None,
        artifacts: std::slice::from_ref(&original),
        quality: None,
        flags: &[],
        transcript_version: Some(1),
        left: None,
        now: due,
    };
    let mut tx = app.store.begin().await.unwrap();
    assert!(!app.store.own_generation(&mut tx, record.uid, record.generation).await.unwrap());
    for generation in [record.generation, record.generation + 1] {
        assert!(!app.store.finish_call(&mut tx, record.uid, generation, &end).await.unwrap());
    }
    tx.commit().await.unwrap();
    assert!(!app.store.set_original(record.uid, record.generation, &original).await.unwrap());
    assert!(!set_progress(&app, record.uid, record.generation, &json!({ "made": 2 })).await);
    let refused = admit(&app.store, &source_call("c-1"), app.now()).await;
    assert_eq!(refused.retention_state, RetentionState::Condemned);
    let stored = read(&app.store, record.uid).await;
    assert_eq!((stored.outcome, stored.generation), (None, record.generation + 1));
    assert_eq!(stored.progress, Some(json!({ "made": 1 })));
}

async fn transcript_versions_are_counted_and_kept(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let uid = admit(&app.store, &source_call("c-1"), app.now()).await.uid;
    let other = admit(&app.store, &source_call("c-2"), app.now()).await.uid;
    for (call, words, expected) in [(uid, "one", 1), (uid, "two", 2), (other, "else", 1), (uid, "three", 3)] {
        let mut tx = app.store.begin().await.unwrap();
        let version = app.store.add_transcript(&mut tx, call, &transcript(words), words, app.now()).await.unwrap();
        assert_eq!(version, expected);
        tx.commit().await.unwrap();
    }
    let versions = app.store.transcripts(uid).await.unwrap();
    let texts: Vec<(u32, &str)> = versions.iter().map(|row| (row.version, row.text.as_str())).collect();
    assert_eq!(texts, [(1, "one"), (2, "two"), (3, "three")]);
    assert_eq!(versions[1].transcript, transcript("two"));
}

async fn concurrent_versions_do_not_collide(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let record = admit(&app.store, &source_call("c-1"), app.now()).await;
    let written = join_all((0..10).map(|n| {
        let (app, record) = (&app, &record);
        async move {
            let mut tx = app.store.begin().await.unwrap();
            assert!(app.store.own_generation(&mut tx, record.uid, record.generation).await.unwrap());
            let text = n.to_string();
            let document = transcript(&text);
            let version = app.store.add_transcript(&mut tx, record.uid, &document, &text, app.now()).await.unwrap();
            tx.commit().await.unwrap();
            version
        }
    }))
    .await;
    let mut written = written;
    written.sort_unstable();
    assert_eq!(written, (1..=10).collect::<Vec<u32>>());
}

async fn a_delivery_lives_and_dies_with_its_transaction(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let uid = admit(&app.store, &source_call("c-1"), app.now()).await.uid;
    let mut tx = app.store.begin().await.unwrap();
    let lost = app.store.add_pending_delivery(&mut tx, uid, "http", 1, app.now()).await.unwrap();
    app.queue.enqueue(&mut tx, job(&lost)).await.unwrap();
    drop(tx);
    assert!(app.store.delivery(&lost).await.unwrap().is_none());
    assert_eq!(app.jobs().await.len(), 0);

    let mut tx = app.store.begin().await.unwrap();
    let pending = app.store.add_pending_delivery(&mut tx, uid, "http", 1, app.now()).await.unwrap();
    app.queue.enqueue(&mut tx, job(&pending)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(app.jobs().await.len(), 1);
    let row = app.store.delivery(&pending).await.unwrap().unwrap();
    assert_eq!((row.call_uid, row.target.as_str(), row.version, row.delivered), (uid, "http", 1, false));
    let mut tx = app.store.begin().await.unwrap();
    app.store.delivered(&mut tx, &pending, app.now()).await.unwrap();
    tx.commit().await.unwrap();
    assert!(app.store.deliveries(uid).await.unwrap()[0].delivered);
    app.leave_queue();
}

async fn add_backfill(app: &TestApp, origin: Origin) -> Option<String> {
    let source = name("krosai");
    let to = app.now();
    let from = to - SignedDuration::from_hours(1);
    let mut tx = app.store.begin().await.unwrap();
    let new = NewBackfill { source: &source, from, to, again: false, origin, now: to };
    let id = app.store.add_backfill(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn an_unfinished_backfill_of_the_schedule_refuses_another(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let first = add_backfill(&app, Origin::Schedule).await.unwrap();
    assert_eq!(add_backfill(&app, Origin::Schedule).await, None);
    assert!(add_backfill(&app, Origin::Command).await.is_some(), "a person may ask whenever they like");
    let mut backfill = app.store.backfill(&first).await.unwrap().unwrap();
    backfill.state = BackfillState::Done;
    backfill.skipped.insert("opted_out".to_owned(), 3);
    let mut tx = app.store.begin().await.unwrap();
    app.store.save_backfill(&mut tx, &backfill, app.now()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(app.store.backfill(&first).await.unwrap().unwrap().skipped["opted_out"], 3);
    assert!(add_backfill(&app, Origin::Schedule).await.is_some());
    assert_eq!(app.store.backfills().await.unwrap().len(), 3);
}

async fn a_backfill_counts_what_became_of_its_calls(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let backfill = add_backfill(&app, Origin::Command).await.unwrap();
    let mut uids = Vec::new();
    let newest = at("2026-02-02T00:00:00Z");
    for n in 0..4 {
        let uid = admit(&app.store, &source_call(&format!("c-{n}")), app.now()).await.uid;
        let mut tx = app.store.begin().await.unwrap();
        let ended = newest - SignedDuration::from_hours(n);
        let item = NewItem { call: uid, org: None, ended_at: ended, expires_at: None };
        assert!(app.store.add_backfill_item(&mut tx, &backfill, item).await.unwrap());
        assert!(!app.store.add_backfill_item(&mut tx, &backfill, item).await.unwrap(), "rows move while paging");
        tx.commit().await.unwrap();
        uids.push(uid);
    }
    let next = app.store.next_backfill_items(&backfill, app.now(), 3).await.unwrap();
    let oldest_first: Vec<CallUid> = next.iter().map(|item| item.call_uid).collect();
    assert_eq!(oldest_first, [uids[3], uids[2], uids[1]]);

    // One done, one a dead letter, one whose job an erasure took along, one not fed yet.
    let handler = script(|job| async move {
        if job.payload["key"] == "good" { Verdict::Complete } else { Verdict::DeadLetter(failure("bad")) }
    });
    let crew = app.crew("w", 2, handler).await;
    let ids = [app.enqueue(job("good")).await.id, app.enqueue(job("bad")).await.id, i64::MAX];
    for (item, id) in oldest_first.iter().zip(ids) {
        let mut tx = app.store.begin().await.unwrap();
        app.store.feed_backfill_item(&mut tx, &backfill, *item, id).await.unwrap();
        tx.commit().await.unwrap();
    }
    eventually("both jobs to end", async || app.jobs().await.iter().all(|job| job.state.is_finished()).then_some(()))
        .await;
    crew.drain().await;
    let mut read = app.store.backfill(&backfill).await.unwrap().unwrap();
    let mut tx = app.store.begin().await.unwrap();
    assert_eq!(app.store.settle_backfill(&mut tx, &mut read).await.unwrap().open(), 0, "all fed ones have ended");
    tx.commit().await.unwrap();
    assert_eq!((read.done, read.failed), (2, 1));
    assert_eq!(app.store.waiting_items(&backfill, app.now()).await.unwrap(), (1, 0));
}

async fn keys_are_found_by_their_secret_until_revoked(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let now = app.now();
    app.store.add_key("reader", "secret-1", &[Scope::CallsRead], Some("org-1"), now).await.unwrap();
    app.store.add_key("boss", "secret-2", &[Scope::Admin], None, now).await.unwrap();
    let key = app.store.key_by_secret("secret-1").await.unwrap().unwrap();
    assert!(key.may(Scope::CallsRead) && !key.may(Scope::CallsWrite) && key.org_id.as_deref() == Some("org-1"));
    assert!(app.store.key_by_secret("secret-2").await.unwrap().unwrap().may(Scope::Erase));
    assert!(app.store.key_by_secret("reader").await.unwrap().is_none());
    assert_eq!(app.store.revoke_key("reader", now).await.unwrap(), 1);
    assert!(app.store.key_by_secret("secret-1").await.unwrap().is_none());
    assert_eq!(app.store.keys().await.unwrap().len(), 2);
    assert_eq!(app.store.revoke_key(&key.id, now).await.unwrap(), 0);
}
