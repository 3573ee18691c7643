//! Erasure and a store that lies, or holds what nobody knows.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aftercall::artifacts::{Body, CallPrefix, Entry, Erased, ObjectError, ObjectHead, ObjectStore, StoreHealth};
use aftercall::demo::Api;
use aftercall::domain::{Artifact, ArtifactKey, ArtifactKind, CallUid, OrgUid, Outcome, RetentionState, Side};
use aftercall::jobs::retention_sweep::Consent;
use aftercall::queue::{FinishedJobs, JobState};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;

use super::{bring_in, ended_days_ago, place_hold, state, swept};
use crate::process::{Site, days, files_below, record, run_pending};

/// A store that answers deletions with success and deletes nothing, for as long as it lies.
#[derive(Debug)]
struct Lying {
    inner: Arc<dyn ObjectStore>,
    lies: Arc<AtomicBool>,
}

#[async_trait]
impl ObjectStore for Lying {
    fn place(&self) -> String {
        self.inner.place()
    }
    async fn put(&self, artifact: &Artifact, body: Body) -> Result<(), ObjectError> {
        self.inner.put(artifact, body).await
    }
    async fn get(&self, artifact: &Artifact) -> Result<Bytes, ObjectError> {
        self.inner.get(artifact).await
    }
    async fn get_to_file(&self, artifact: &Artifact, dest: &std::path::Path) -> Result<(), ObjectError> {
        self.inner.get_to_file(artifact, dest).await
    }
    async fn head(&self, key: &ArtifactKey) -> Result<Option<ObjectHead>, ObjectError> {
        self.inner.head(key).await
    }
    fn list_all(&self, after: Option<String>) -> BoxStream<'static, Result<Entry, ObjectError>> {
        self.inner.list_all(after)
    }
    async fn list_call(&self, call: &CallPrefix) -> Result<Vec<Entry>, ObjectError> {
        self.inner.list_call(call).await
    }
    async fn delete(&self, key: &ArtifactKey) -> Result<(), ObjectError> {
        self.inner.delete(key).await
    }
    async fn delete_prefix(&self, call: &CallPrefix, known: &[ArtifactKey]) -> Result<Erased, ObjectError> {
        if self.lies.load(Ordering::SeqCst) {
            return Ok(Erased { objects: 9, ..Erased::default() });
        }
        self.inner.delete_prefix(call, known).await
    }
    async fn verify_empty(&self, call: &CallPrefix, known: &[ArtifactKey]) -> Result<(), ObjectError> {
        self.inner.verify_empty(call, known).await
    }
    async fn check(&self) -> Result<StoreHealth, ObjectError> {
        self.inner.check().await
    }
    async fn server_date(&self) -> Result<Option<Timestamp>, ObjectError> {
        self.inner.server_date().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_only_says_it_deleted_blocks_the_erasure_until_it_did() {
    let calls = ended_days_ago(1, 80);
    let site = Site::start(calls.clone(), "[worker]\nmax_attempts = 2").await;
    let lies = Arc::new(AtomicBool::new(true));
    let mut app = Arc::into_inner(site.app().await).unwrap();
    app.objects = Arc::new(Lying { inner: app.objects.clone(), lies: lies.clone() });
    let app = Arc::new(app);
    bring_in(&app, Api::KrosaiV1).await;
    site.turn(days(11));
    swept(&app, Consent::Scheduled).await;
    run_pending(&app).await;

    let blocked = record(&app, &calls[0].id).await;
    assert_eq!(blocked.retention_state, RetentionState::Blocked);
    assert!(blocked.retention_reason.is_some_and(|reason| !reason.is_empty()));
    assert!(blocked.outcome != Some(Outcome::Erased));
    let jobs = app.queue.jobs(FinishedJobs::Left, 10).await.unwrap();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!((jobs[0].kind.as_str(), jobs[0].state), ("erase_call", JobState::DeadLetter));
    assert_eq!(jobs[0].failure.as_ref().map(|failure| failure.side), Some(Side::ObjectStore));
    let audit = app.store.audit_entries(None).await.unwrap();
    assert!(audit.iter().all(|entry| entry.action != "erased"), "{audit:?}");

    // The next sweep starts it again, dead letter or not.
    lies.store(false, Ordering::SeqCst);
    swept(&app, Consent::Scheduled).await;
    run_pending(&app).await;
    assert_eq!(state(&app, &calls[0]).await, RetentionState::Erased);
    assert_eq!(files_below(&site.objects_dir()), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_without_a_living_record_are_found_once_they_are_a_day_old() {
    let calls = ended_days_ago(2, 80);
    let (due, kept) = (&calls[0], &calls[1]);
    let site = Site::start(calls.clone(), "").await;
    let app = site.app().await;
    bring_in(&app, Api::KrosaiV1).await;
    place_hold(&app, kept).await;
    site.turn(days(11));
    swept(&app, Consent::Scheduled).await;
    run_pending(&app).await;
    assert_eq!(state(&app, due).await, RetentionState::Erased);
    let kept_files = files_below(&site.objects_dir());
    assert!(!kept_files.is_empty());

    // One of nobody, one of an erased call, one of nobody that may belong to a run not committed yet.
    let erased = record(&app, &due.id).await;
    let hour = Duration::from_secs(3600);
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(app.now().as_millisecond()).unwrap());
    let mut young = PathBuf::new();
    for (org, call, age) in [
        (OrgUid::new(), CallUid::new(), 25 * hour),
        (erased.org_uid, erased.uid, 25 * hour),
        (OrgUid::new(), CallUid::new(), 23 * hour),
    ] {
        let artifact =
            aftercall::artifacts::artifact_of_bytes(org, call, ArtifactKind::Quality, b"{\"left\":\"behind\"}");
        app.objects.put(&artifact, Body::Bytes(Bytes::from_static(b"{\"left\":\"behind\"}"))).await.unwrap();
        young = site.objects_dir().join(artifact.key.as_str());
        std::fs::File::options().write(true).open(&young).unwrap().set_modified(now - age).unwrap();
    }
    assert_eq!(swept(&app, Consent::Scheduled).await.refused, None);
    let mut expected = kept_files;
    expected.push(young);
    expected.sort();
    assert_eq!(files_below(&site.objects_dir()), expected);
}
