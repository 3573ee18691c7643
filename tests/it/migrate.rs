//! From SQLite to PostgreSQL with work in flight: nothing is lost, nothing is done twice.

use aftercall::demo::{Api, RequestKind, SampleCall};
use aftercall::domain::Outcome;
use aftercall::queue::{FinishedJobs, JobState, Kind as JobKind, Lane, NewJob};
use aftercall::store::{AuditEntry, CallFilter, Scope};
use jiff::SignedDuration;

use crate::harness::Backend;
use crate::process::{Site, ago, record};

fn calls(count: u32) -> Vec<SampleCall> {
    (1..=count).map(|n| SampleCall::numbered(Api::Atoms, n, ago(SignedDuration::from_mins(i64::from(n))))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_moves_with_everything_it_has() {
    if !Backend::Postgres.is_here() {
        return;
    }
    let calls = calls(8);
    let ids: Vec<&str> = calls.iter().map(|call| call.id.as_str()).collect();
    let mut site = Site::start(calls.clone(), "").await;
    let mut trigger = vec!["trigger", "--source", "atoms"];
    trigger.extend(&ids[..4]);
    site.well(&trigger).await;
    site.well(&["work", "--until-idle"]).await;
    // In flight: one stopped dead in the middle, three not begun, one waiting for its moment, one dead.
    let mut trigger = vec!["trigger", "--source", "atoms"];
    trigger.extend(&ids[4..]);
    site.well(&trigger).await;
    let mut worker = site.parking_worker("original");
    worker.hear("parked").await;
    worker.kill().await;
    let app = site.app().await;
    let odd = |unique: &str| NewJob {
        kind: JobKind::Reconcile,
        unique: unique.to_owned(),
        subject: Some("é \"quoted\" \\ back".to_owned()),
        tenant: None,
        payload: serde_json::json!({ "do": "nothing", "text": "ü\n\t{}" }),
        lane: Lane::Maintenance,
        priority: 3,
        max_attempts: 7,
    };
    let mut tx = app.store.begin().await.unwrap();
    app.queue.enqueue(&mut tx, odd("waiting")).await.unwrap();
    app.store
        .audit(
            &mut tx,
            &AuditEntry {
                actor: "t".into(),
                action: "noted".into(),
                subject: "s".into(),
                detail: "d".into(),
                at: app.now(),
            },
        )
        .await
        .unwrap();
    tx.commit().await.unwrap();
    app.store.add_key("boss", "secret-2", &[Scope::Admin], None, app.now()).await.unwrap();
    let mut before = app.queue.jobs(FinishedJobs::Included, 1000).await.unwrap();
    before.sort_by_key(|job| job.id);
    let records = app.store.calls(&CallFilter::default()).await.unwrap();
    let audited = app.store.audit_entries(None).await.unwrap().len();
    app.store.close().await;

    let url = crate::postgres::cluster().unwrap().database();
    let moved = site.well(&["migrate", "--to", &url, "--json"]).await.json();
    let rows = |table: &str| {
        let found = moved["tables"].as_array().unwrap().iter().find(|moved| moved["table"] == table);
        found.unwrap_or_else(|| panic!("{table} stayed behind: {moved}"))["rows"].as_u64().unwrap()
    };
    assert_eq!((rows("call_record"), rows("river_job"), rows("api_key")), (8, before.len() as u64, 1));
    // The old place refuses to be worked on, and to be moved once more.
    for command in [&["work", "--until-idle"][..], &["calls", "list"], &["migrate", "--to", &url]] {
        let said = site.run(command).await;
        assert!(!said.status.success() && said.stderr.contains("moved to"), "{said:?}");
    }
    site.configure(&format!("[store]\nurl = \"{url}\""));
    let app = site.app().await;
    let mut after = app.queue.jobs(FinishedJobs::Included, 1000).await.unwrap();
    after.sort_by_key(|job| job.id);
    for (old, new) in before.iter().zip(&after) {
        let state = if old.state == JobState::Running { JobState::Available } else { old.state };
        assert_eq!(
            (old.id, &old.kind, state, old.attempt, &old.subject, &old.payload),
            (new.id, &new.kind, new.state, new.attempt, &new.subject, &new.payload)
        );
    }
    assert_eq!(before.len(), after.len());
    for old in &records {
        let new = app.store.call(old.uid).await.unwrap().unwrap();
        assert_eq!(format!("{old:?}"), format!("{new:?}"));
        let (old, new) = (old.transcript_version as usize, app.store.transcripts(old.uid).await.unwrap().len());
        assert_eq!(old, new);
    }
    assert_eq!(app.store.audit_entries(None).await.unwrap().len(), audited);
    assert!(app.store.key_by_secret("secret-2").await.unwrap().is_some());
    // The same work is still the same work, and new jobs get new numbers.
    let mut tx = app.store.begin().await.unwrap();
    assert!(app.queue.enqueue(&mut tx, odd("waiting")).await.unwrap().duplicate);
    let fresh = app.queue.enqueue(&mut tx, odd("another")).await.unwrap();
    assert!(!fresh.duplicate && before.iter().all(|job| job.id < fresh.id));
    drop(tx);
    app.store.close().await;
    site.well(&["work", "--until-idle"]).await;
    let app = site.app().await;
    for id in &ids {
        assert_eq!(record(&app, id).await.outcome, Some(Outcome::Done), "{id}");
        assert_eq!(site.platform.record(id).map(|record| record.effects), Some(1), "{id}");
    }
    for id in &ids[..4] {
        assert_eq!(site.platform.requests().of(RequestKind::Recording, id), 1, "{id} was downloaded again");
    }
    // A target that holds something is refused.
    let other = Site::start(vec![], "").await;
    let said = other.run(&["migrate", "--to", &url]).await;
    assert!(!said.status.success() && said.stderr.contains("not empty"), "{said:?}");
}
