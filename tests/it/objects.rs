//! What is true of every object store, and what each of them does when its neighbour lies.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aftercall::artifacts::{
    self, Body, CallPrefix, DirStore, EntryKind, Erased, ObjectError, ObjectStore, artifact_of_bytes, artifact_of_file,
};
use aftercall::config::{Config, Objects};
use aftercall::domain::{
    Artifact, ArtifactKey, ArtifactKind, CallUid, Classify, Container, Fault, OrgUid, Sha256, Side,
};
use bytes::Bytes;
use futures::TryStreamExt;

use crate::fake_s3::{self, FakeS3};

const ORIGINAL: ArtifactKind = ArtifactKind::Original(Container::Mp3);

/// One store and what must outlive it.
struct Place {
    name: &'static str,
    store: Arc<dyn ObjectStore>,
    _kept: Box<dyn std::any::Any>,
}

/// Every kind of store; a real service too where the environment names one.
async fn places() -> Vec<Place> {
    let dir = tempfile::tempdir().unwrap();
    let (plain, versioned) = (FakeS3::start().await, FakeS3::start_versioned().await);
    let mut places = vec![
        Place { name: "dir", store: Arc::new(DirStore::new(dir.path().join("objects"))), _kept: Box::new(dir) },
        Place { name: "s3", store: on(&plain), _kept: Box::new(plain) },
        Place { name: "s3 versioned", store: on(&versioned), _kept: Box::new(versioned) },
    ];
    if let Ok(endpoint) = std::env::var("S3_TEST_ENDPOINT") {
        let of = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let config = s3_config(&format!(
            "endpoint = \"{endpoint}\"\nbucket = \"{}\"\nregion = \"{}\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"",
            of("S3_TEST_BUCKET", "aftercall-test"),
            of("S3_TEST_REGION", "us-east-1"),
            of("S3_TEST_ACCESS_KEY_ID", ""),
            of("S3_TEST_SECRET_ACCESS_KEY", ""),
        ));
        places.push(Place { name: "S3_TEST_ENDPOINT", store: artifacts::open(&config).unwrap(), _kept: Box::new(()) });
    }
    places
}

fn s3_config(lines: &str) -> Objects {
    Config::from_toml(&format!("[objects]\nkind = \"s3\"\n{lines}")).unwrap().objects
}

fn on_with(fake: &FakeS3, more: &str) -> Arc<dyn ObjectStore> {
    artifacts::open(&s3_config(&format!(
        "endpoint = \"{}\"\nbucket = \"{}\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"\n{more}",
        fake.endpoint(),
        fake_s3::BUCKET,
        fake_s3::ACCESS_KEY_ID,
        fake_s3::SECRET_ACCESS_KEY,
    )))
    .unwrap()
}

fn on(fake: &FakeS3) -> Arc<dyn ObjectStore> {
    on_with(fake, "")
}

/// A call and the artifacts made for it.
struct Call {
    org: OrgUid,
    uid: CallUid,
}

impl Call {
    fn new() -> Self {
        Self { org: OrgUid::new(), uid: CallUid::new() }
    }

    fn prefix(&self) -> CallPrefix {
        CallPrefix::new(self.org, self.uid)
    }

    fn artifact(&self, kind: ArtifactKind, bytes: &[u8]) -> Artifact {
        artifact_of_bytes(self.org, self.uid, kind, bytes)
    }

    async fn put(&self, store: &dyn ObjectStore, kind: ArtifactKind, bytes: &'static [u8]) -> Artifact {
        let artifact = self.artifact(kind, bytes);
        store.put(&artifact, Body::Bytes(Bytes::from_static(bytes))).await.unwrap();
        artifact
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[tokio::test]
async fn what_is_written_is_read_back() {
    for place in places().await {
        let (store, name, call) = (&place.store, place.name, Call::new());
        for bytes in [noise(0), noise(1), noise(300_000)] {
            let artifact = call.artifact(ORIGINAL, &bytes);
            store.put(&artifact, Body::Bytes(bytes.clone().into())).await.unwrap();
            assert_eq!(store.get(&artifact).await.unwrap(), bytes, "{name}");
            let head = store.head(&artifact.key).await.unwrap().unwrap();
            assert_eq!(head.size_bytes, bytes.len() as u64, "{name}");
            assert_eq!(head.content_type.as_deref(), Some("audio/mpeg"), "{name}");
            assert!(head.sha256.is_none_or(|sha256| sha256 == artifact.sha256), "{name}");
            // A retry of the same step.
            store.put(&artifact, Body::Bytes(bytes.clone().into())).await.unwrap();
            assert_eq!(store.get(&artifact).await.unwrap(), bytes, "{name}");
        }
        store.delete_prefix(&call.prefix(), &[]).await.unwrap();
    }
}

#[tokio::test]
async fn files_go_in_and_come_out() {
    for place in places().await {
        let (store, name, call) = (&place.store, place.name, Call::new());
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let bytes = noise(700_001);
        std::fs::write(&from, &bytes).unwrap();
        let artifact = artifact_of_file(call.org, call.uid, ArtifactKind::AudioFlac, &from).await.unwrap();
        assert_eq!(artifact, call.artifact(ArtifactKind::AudioFlac, &bytes));
        store.put(&artifact, Body::File(from)).await.unwrap();
        store.get_to_file(&artifact, &to).await.unwrap();
        assert!(std::fs::read(&to).unwrap() == bytes, "{name}");
        store.delete_prefix(&call.prefix(), &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_large_file_arrives_whole() {
    for place in places().await {
        let (store, name, call) = (&place.store, place.name, Call::new());
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, noise(66 * 1024 * 1024)).unwrap();
        let artifact = artifact_of_file(call.org, call.uid, ORIGINAL, &from).await.unwrap();
        store.put(&artifact, Body::File(from.clone())).await.unwrap();
        let head = store.head(&artifact.key).await.unwrap().unwrap();
        assert_eq!(head.content_type.as_deref(), Some("audio/mpeg"), "{name}");
        store.get_to_file(&artifact, &to).await.unwrap();
        assert!(std::fs::read(&to).unwrap() == std::fs::read(&from).unwrap(), "{name}");
        let erased = store.delete_prefix(&call.prefix(), &[]).await.unwrap();
        assert_eq!(erased, Erased { objects: 1, versions: 0, unfinished: 0 }, "{name}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_the_one_described_is_not_stored() {
    for place in places().await {
        let (store, name, call) = (&place.store, place.name, Call::new());
        let artifact = call.artifact(ORIGINAL, b"the recording");
        for body in ["the recordinG", "the recording, and more", ""] {
            let err = store.put(&artifact, Body::Bytes(body.into())).await.unwrap_err();
            assert!(matches!(err, ObjectError::BodyChanged { .. }), "{name}: {err:?}");
            assert_eq!(err.side(), Side::Worker);
        }
        assert_eq!(store.head(&artifact.key).await.unwrap(), None, "{name}");
        let gone = Body::File("/nonexistent/recording".into());
        assert!(store.put(&artifact, gone).await.is_err(), "{name}");
        store.check().await.unwrap();
        store.verify_empty(&call.prefix(), std::slice::from_ref(&artifact.key)).await.unwrap();
    }
}

#[tokio::test]
async fn the_manifest_is_replaced_in_place() {
    for place in places().await {
        let (store, name, call) = (&place.store, place.name, Call::new());
        let first = call.put(store.as_ref(), ArtifactKind::Manifest, b"{\"version\":1}").await;
        let second = call.put(store.as_ref(), ArtifactKind::Manifest, b"{\"version\":2,\"more\":true}").await;
        assert_eq!(first.key, second.key);
        assert_eq!(store.get(&second).await.unwrap(), "{\"version\":2,\"more\":true}", "{name}");
        let err = store.get(&first).await.unwrap_err();
        assert!(matches!(err, ObjectError::WrongContent { .. }), "{name}: {err:?}");
        store.delete_prefix(&call.prefix(), &[]).await.unwrap();
        store.verify_empty(&call.prefix(), &[second.key]).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_there_is_missing() {
    for place in places().await {
        let (store, name, call) = (&place.store, place.name, Call::new());
        store.check().await.unwrap();
        let artifact = call.artifact(ORIGINAL, b"never written");
        let err = store.get(&artifact).await.unwrap_err();
        assert!(matches!(err, ObjectError::Missing { .. }), "{name}: {err:?}");
        assert_eq!((err.fault(), err.side()), (Fault::Permanent, Side::ObjectStore));
        let dir = tempfile::tempdir().unwrap();
        assert!(store.get_to_file(&artifact, &dir.path().join("to")).await.is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{name}");
        assert_eq!(store.head(&artifact.key).await.unwrap(), None, "{name}");
        store.delete(&artifact.key).await.unwrap();
        assert_eq!(store.delete_prefix(&call.prefix(), &[artifact.key]).await.unwrap(), Erased::default(), "{name}");
    }
}

#[tokio::test]
async fn listings_are_sorted_and_can_be_continued() {
    for place in places().await {
        let (store, name) = (&place.store, place.name);
        let org = OrgUid::new();
        let mut keys = Vec::new();
        for _ in 0..4 {
            let call = Call { org, uid: CallUid::new() };
            keys.push(call.put(store.as_ref(), ORIGINAL, b"audio").await.key.to_string());
            keys.push(call.put(store.as_ref(), ArtifactKind::Transcript, b"{}").await.key.to_string());
            keys.push(call.put(store.as_ref(), ArtifactKind::Manifest, b"{\"a\":1}").await.key.to_string());
        }
        keys.sort();
        let start = format!("v1/{org}/");
        let after = async |after: &str| -> Vec<String> {
            let entries = store.list_all(Some(after.to_owned()));
            let entries: Vec<_> = entries.try_collect().await.unwrap();
            assert!(entries.iter().all(|entry| entry.kind == EntryKind::Current && entry.modified.is_some()), "{name}");
            entries.into_iter().map(|entry| entry.key).filter(|key| key.starts_with(&start)).collect()
        };
        assert_eq!(after(&start).await, keys, "{name}");
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(after(key).await, keys[index + 1..], "{name}");
        }
        for key in keys {
            store.delete(&ArtifactKey::parse(&key).unwrap()).await.unwrap();
        }
        assert_eq!(after(&start).await, Vec::<String>::new(), "{name}");
    }
}

#[tokio::test]
async fn erasing_a_call_leaves_nothing_of_it_and_all_of_its_neighbours() {
    for place in places().await {
        let (store, name) = (&place.store, place.name);
        let org = OrgUid::new();
        let (call, neighbour) = (Call { org, uid: CallUid::new() }, Call { org, uid: CallUid::new() });
        let mut known = Vec::new();
        for (kind, bytes) in [
            (ORIGINAL, b"audio".as_slice()),
            (ArtifactKind::AudioFlac, b"flac"),
            (ArtifactKind::Quality, b"{\"q\":1}"),
            (ArtifactKind::Transcript, b"{\"t\":1}"),
            (ArtifactKind::Manifest, b"{}"),
        ] {
            known.push(call.put(store.as_ref(), kind, bytes).await.key);
        }
        let kept = neighbour.put(store.as_ref(), ORIGINAL, b"audio").await;
        let err = store.verify_empty(&call.prefix(), &known).await.unwrap_err();
        assert!(matches!(err, ObjectError::StillThere { .. }), "{name}: {err:?}");
        assert_eq!(err.fault(), Fault::Transient);

        let erased = store.delete_prefix(&call.prefix(), &known).await.unwrap();
        assert_eq!(erased.objects, 5, "{name}");
        store.verify_empty(&call.prefix(), &known).await.unwrap();
        assert_eq!(store.list_call(&call.prefix()).await.unwrap(), [], "{name}");
        // A crash after the deed repeats it.
        assert_eq!(store.delete_prefix(&call.prefix(), &known).await.unwrap(), Erased::default(), "{name}");
        assert_eq!(store.get(&kept).await.unwrap(), "audio", "{name}");
        store.delete_prefix(&neighbour.prefix(), &[]).await.unwrap();
    }
}

#[tokio::test]
async fn one_object_can_be_taken_back() {
    for place in places().await {
        let (store, name, call) = (&place.store, place.name, Call::new());
        let kept = call.put(store.as_ref(), ORIGINAL, b"audio").await;
        let lost = call.put(store.as_ref(), ArtifactKind::Transcript, b"{}").await;
        store.delete(&lost.key).await.unwrap();
        let left: Vec<String> = store.list_call(&call.prefix()).await.unwrap().into_iter().map(|e| e.key).collect();
        assert_eq!(left, [kept.key.to_string()], "{name}");
        store.delete_prefix(&call.prefix(), &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_works_passes_its_check_and_keeps_no_probe() {
    for place in places().await {
        let health = place.store.check().await.unwrap();
        assert_eq!(health.place, place.store.place());
        assert_eq!(health.server_date.is_some(), place.name != "dir", "{}", place.name);
    }
    let fake = FakeS3::start_versioned().await;
    on(&fake).check().await.unwrap();
    assert_eq!(fake.everything(), Vec::<String>::new());
    let dir = tempfile::tempdir().unwrap();
    DirStore::new(dir.path().to_owned()).check().await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

mod dir {
    use super::*;

    fn store() -> (tempfile::TempDir, DirStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::new(dir.path().join("objects"));
        (dir, store)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn nobody_else_can_read() {
        let (dir, store) = store();
        let artifact = Call::new().put(&store, ORIGINAL, b"audio").await;
        let mut path = dir.path().join("objects").join(artifact.key.as_str());
        assert_eq!(mode(&path), 0o600);
        while path.pop() && path != dir.path() {
            assert_eq!(mode(&path), 0o700, "{}", path.display());
        }
    }

    #[tokio::test]
    async fn damage_on_disk_is_noticed_on_reading() {
        let (dir, store) = store();
        let artifact = Call::new().put(&store, ORIGINAL, b"audio").await;
        let path = dir.path().join("objects").join(artifact.key.as_str());
        for damaged in ["audi", "audiO", "", "audio and more"] {
            std::fs::write(&path, damaged).unwrap();
            let err = store.get(&artifact).await.unwrap_err();
            assert!(matches!(err, ObjectError::WrongContent { .. }), "{damaged}: {err:?}");
            let to = dir.path().join("to");
            assert!(store.get_to_file(&artifact, &to).await.is_err());
            assert!(!to.exists());
        }
    }

    #[tokio::test]
    async fn what_a_crash_left_behind_is_no_object_and_is_erased_too() {
        let (dir, store) = store();
        let call = Call::new();
        let artifact = call.put(&store, ORIGINAL, b"audio").await;
        let path = dir.path().join("objects").join(call.prefix().as_str());
        std::fs::write(path.join(".tmp-abc"), "half a transcript").unwrap();
        let all: Vec<_> = store.list_all(None).try_collect().await.unwrap();
        assert_eq!(all.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), [artifact.key.as_str()]);
        let kinds: Vec<_> = store.list_call(&call.prefix()).await.unwrap().iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [EntryKind::Temporary, EntryKind::Current]);
        let erased = store.delete_prefix(&call.prefix(), &[]).await.unwrap();
        assert_eq!(erased, Erased { objects: 1, versions: 0, unfinished: 1 });
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn erasing_does_not_follow_links_out_of_the_store() {
        let (dir, store) = store();
        let call = Call::new();
        call.put(&store, ORIGINAL, b"audio").await;
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("precious"), "p").unwrap();
        let link = dir.path().join("objects").join(call.prefix().as_str()).join("link");
        std::os::unix::fs::symlink(&outside, link).unwrap();
        store.delete_prefix(&call.prefix(), &[]).await.unwrap();
        store.verify_empty(&call.prefix(), &[]).await.unwrap();
        assert!(outside.join("precious").exists());
    }

    #[tokio::test]
    async fn a_lost_mount_is_not_an_empty_store() {
        let (dir, store) = store();
        let call = Call::new();
        let artifact = call.put(&store, ORIGINAL, b"audio").await;
        std::fs::rename(dir.path().join("objects"), dir.path().join("elsewhere")).unwrap();
        let known = [artifact.key];
        assert!(store.verify_empty(&call.prefix(), &known).await.is_err());
        assert!(store.delete_prefix(&call.prefix(), &known).await.is_err());
        let listing: Result<Vec<_>, _> = store.list_all(None).try_collect().await;
        assert_eq!(listing.unwrap_err().fault(), Fault::Transient);
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_named_with_its_remedy() {
        // Not even root makes directories here.
        let store = DirStore::new("/sys/aftercall-objects".into());
        let err = store.check().await.unwrap_err();
        assert!(matches!(err, ObjectError::NotWritable { .. }), "{err:?}");
        let text = err.to_string();
        assert!(text.contains("/sys/aftercall-objects") && text.contains("read-only"), "{text}");
        let call = Call::new();
        let put = store.put(&call.artifact(ORIGINAL, b"audio"), Body::Bytes("audio".into())).await;
        assert_eq!(put.unwrap_err().fault(), Fault::Transient);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_reader_never_sees_half_a_write() {
        let (dir, store) = store();
        let call = Call::new();
        let contents: [&'static [u8]; 2] = [&[b'a'; 100_000], &[b'b'; 60_000]];
        call.put(&store, ArtifactKind::Manifest, contents[0]).await;
        let path = dir.path().join("objects").join(call.prefix().as_str()).join("manifest.json");
        let writers: Vec<_> = contents
            .into_iter()
            .map(|bytes| {
                let (store, artifact) = (store.clone(), call.artifact(ArtifactKind::Manifest, bytes));
                tokio::spawn(async move {
                    for _ in 0..40 {
                        store.put(&artifact, Body::Bytes(Bytes::from_static(bytes))).await.unwrap();
                    }
                })
            })
            .collect();
        while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
            let seen = tokio::fs::read(&path).await.unwrap();
            assert!(contents.contains(&seen.as_slice()), "{} bytes", seen.len());
        }
        for writer in writers {
            writer.await.unwrap();
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
    }
}

mod s3 {
    use super::*;
    use crate::fake_s3::Fault as Wrong;

    #[tokio::test]
    async fn every_version_marker_and_upload_of_a_call_is_erased() {
        let fake = FakeS3::start_versioned().await;
        let store = on(&fake);
        let (call, neighbour) = (Call::new(), Call::new());
        for bytes in [b"{\"v\":1}".as_slice(), b"{\"v\":2}", b"{\"v\":3}", b"{\"v\":4}"] {
            call.put(store.as_ref(), ArtifactKind::Manifest, bytes).await;
        }
        let original = call.put(store.as_ref(), ORIGINAL, b"audio").await;
        fake.delete_by_hand(original.key.as_str());
        fake.begin_upload(original.key.as_str());
        neighbour.put(store.as_ref(), ORIGINAL, b"audio").await;
        fake.begin_upload(&format!("{}audio-0.flac", neighbour.prefix()));
        assert_eq!(store.head(&original.key).await.unwrap(), None, "hidden behind its marker");
        assert!(store.verify_empty(&call.prefix(), &[]).await.is_err());

        let erased = store.delete_prefix(&call.prefix(), &[original.key]).await.unwrap();
        assert_eq!(erased, Erased { objects: 1, versions: 3 + 2, unfinished: 1 });
        store.verify_empty(&call.prefix(), &[]).await.unwrap();
        let left = fake.everything();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.iter().all(|key| key.starts_with(neighbour.prefix().as_str())));
    }

    #[tokio::test]
    async fn a_delete_that_lies_is_found_out() {
        let fake = FakeS3::start().await;
        let (store, call) = (on(&fake), Call::new());
        let known = [call.put(store.as_ref(), ORIGINAL, b"audio").await.key];
        fake.fail("delete", Wrong::Lie, 99);
        store.delete_prefix(&call.prefix(), &known).await.unwrap();
        let err = store.verify_empty(&call.prefix(), &known).await.unwrap_err();
        assert!(matches!(&err, ObjectError::StillThere { example, .. } if *example == known[0].to_string()), "{err:?}");
    }

    #[tokio::test]
    async fn what_a_stale_listing_hides_is_erased_and_proven_by_name() {
        let fake = FakeS3::start_versioned().await;
        let (store, call) = (on(&fake), Call::new());
        let known = [call.put(store.as_ref(), ORIGINAL, b"audio").await.key];
        fake.fail("versions", Wrong::Stale, 99);
        assert!(store.verify_empty(&call.prefix(), &known).await.is_err());
        assert_eq!(store.delete_prefix(&call.prefix(), &known).await.unwrap().objects, 1);
        store.verify_empty(&call.prefix(), &known).await.unwrap();
        assert_eq!(fake.everything(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn one_refused_delete_does_not_keep_the_others_and_is_told() {
        let fake = FakeS3::start().await;
        let (store, call) = (on(&fake), Call::new());
        for (kind, bytes) in
            [(ORIGINAL, b"a".as_slice()), (ArtifactKind::Quality, b"{}"), (ArtifactKind::Manifest, b"{}")]
        {
            call.put(store.as_ref(), kind, bytes).await;
        }
        fake.fail("delete", Wrong::Denied, 1);
        let err = store.delete_prefix(&call.prefix(), &[]).await.unwrap_err();
        assert!(matches!(err, ObjectError::Denied { .. }), "{err:?}");
        assert_eq!(fake.everything().len(), 1);
    }

    #[tokio::test]
    async fn a_service_without_versions_or_uploads_is_served_too() {
        let fake = FakeS3::start().await;
        let (store, call) = (on(&fake), Call::new());
        fake.fail("versions", Wrong::Absent, 99);
        fake.fail("uploads", Wrong::Absent, 99);
        for (kind, bytes) in [
            (ORIGINAL, b"a".as_slice()),
            (ArtifactKind::AudioFlac, b"f"),
            (ArtifactKind::Quality, b"{}"),
            (ArtifactKind::Manifest, b"{}"),
        ] {
            call.put(store.as_ref(), kind, bytes).await;
        }
        assert_eq!(store.delete_prefix(&call.prefix(), &[]).await.unwrap().objects, 4);
        store.verify_empty(&call.prefix(), &[]).await.unwrap();
        assert_eq!(fake.everything(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_busy_service_is_asked_again_and_then_left_alone() {
        let fake = FakeS3::start().await;
        let (store, call) = (on(&fake), Call::new());
        fake.fail("put", Wrong::Busy, 2);
        call.put(store.as_ref(), ORIGINAL, b"audio").await;
        let quality = call.artifact(ArtifactKind::Quality, b"{}");
        fake.fail("put", Wrong::Busy, 99);
        let err = store.put(&quality, Body::Bytes("{}".into())).await.unwrap_err();
        assert!(matches!(err, ObjectError::Unavailable { .. }), "{err:?}");
        assert_eq!(err.fault(), Fault::Transient);
        fake.fail("put", Wrong::Pause, 99);
        let err = store.put(&quality, Body::Bytes("{}".into())).await.unwrap_err();
        assert_eq!(err.fault(), Fault::Throttled { retry_after: Duration::from_millis(1500) });
    }

    #[tokio::test]
    async fn an_answer_lost_after_the_commit_changes_nothing() {
        let fake = FakeS3::start().await;
        let (store, call) = (on(&fake), Call::new());
        fake.fail("put", Wrong::FailAfterCommit, 1);
        let artifact = call.put(store.as_ref(), ORIGINAL, b"audio").await;
        assert_eq!(fake.everything().len(), 1);
        fake.fail("delete", Wrong::FailAfterCommit, 1);
        store.delete_prefix(&call.prefix(), &[artifact.key]).await.unwrap();
        assert_eq!(fake.everything(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_body_damaged_on_its_way_is_an_error_and_never_a_file() {
        let fake = FakeS3::start().await;
        let (store, call) = (on(&fake), Call::new());
        let bytes: &'static [u8] = Box::leak(noise(200_000).into_boxed_slice());
        let artifact = call.put(store.as_ref(), ORIGINAL, bytes).await;
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        for wrong in [Wrong::ResetMidBody, Wrong::Truncated, Wrong::Flipped] {
            fake.fail("get", wrong, 99);
            for err in [store.get(&artifact).await.unwrap_err(), store.get_to_file(&artifact, &to).await.unwrap_err()] {
                let as_expected = match wrong {
                    Wrong::ResetMidBody => matches!(err, ObjectError::Unavailable { .. }),
                    _ => matches!(err, ObjectError::WrongContent { .. }),
                };
                assert!(as_expected, "{wrong:?}: {err:?}");
                assert_eq!(err.fault(), Fault::Transient);
            }
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{wrong:?}");
        }
        fake.fail("get", Wrong::Flipped, 0);
        assert_eq!(store.get(&artifact).await.unwrap(), bytes);
    }

    #[tokio::test]
    async fn a_write_that_is_only_claimed_is_found_out() {
        let fake = FakeS3::start().await;
        let (store, call) = (on(&fake), Call::new());
        for wrong in [Wrong::Lie, Wrong::Halve] {
            fake.fail("put", wrong, 99);
            let err = store.put(&call.artifact(ORIGINAL, b"audio"), Body::Bytes("audio".into())).await.unwrap_err();
            assert!(matches!(err, ObjectError::WrongContent { .. }), "{wrong:?}: {err:?}");
        }
    }

    #[tokio::test]
    async fn an_upload_that_fails_is_taken_back() {
        let fake = FakeS3::start().await;
        let (store, call) = (on(&fake), Call::new());
        let bytes = Bytes::from(noise(65 * 1024 * 1024));
        let artifact = call.artifact(ORIGINAL, &bytes);
        fake.fail("part", Wrong::Denied, 99);
        let err = store.put(&artifact, Body::Bytes(bytes.clone())).await.unwrap_err();
        assert!(matches!(err, ObjectError::Denied { .. }), "{err:?}");
        assert_eq!(fake.everything(), Vec::<String>::new());
        fake.fail("part", Wrong::Busy, 1);
        store.put(&artifact, Body::Bytes(bytes.clone())).await.unwrap();
        assert!(fake.body(artifact.key.as_str()).unwrap() == bytes);
        // Five parts of at most 16 MiB, one of them tried twice, one denied.
        assert_eq!(fake.requests().iter().filter(|&&request| request == "part").count(), 1 + 1 + 5);
    }

    #[tokio::test]
    async fn encryption_is_confirmed_or_the_object_is_taken_back() {
        let (good, bad) = (FakeS3::start().await, FakeS3::start_unencrypted().await);
        let call = Call::new();
        let artifact = call.artifact(ORIGINAL, b"audio");
        on_with(&good, "sse = \"AES256\"").put(&artifact, Body::Bytes("audio".into())).await.unwrap();
        for asked in ["AES256", "aws:kms"] {
            let store = on_with(&bad, &format!("sse = \"{asked}\""));
            let err = store.put(&artifact, Body::Bytes("audio".into())).await.unwrap_err();
            assert!(matches!(&err, ObjectError::NotEncrypted { wanted, .. } if *wanted == asked), "{err:?}");
            assert_eq!(err.fault(), Fault::Permanent);
            assert_eq!(bad.everything(), Vec::<String>::new());
            assert!(matches!(store.check().await.unwrap_err(), ObjectError::NotEncrypted { .. }));
            assert_eq!(bad.everything(), Vec::<String>::new());
        }
    }

    #[tokio::test]
    async fn a_listing_that_goes_in_circles_ends() {
        let fake = FakeS3::start().await;
        let (store, call) = (on(&fake), Call::new());
        fake.fail("versions", Wrong::Circle, 99);
        fake.fail("list", Wrong::Circle, 99);
        assert_eq!(store.list_call(&call.prefix()).await.unwrap_err().fault(), Fault::Transient);
        let all: Result<Vec<_>, _> = store.list_all(None).try_collect().await;
        assert_eq!(all.unwrap_err().fault(), Fault::Transient);
        assert!(fake.requests().len() < 10, "{:?}", fake.requests());
    }

    #[tokio::test]
    async fn a_wrong_key_or_bucket_is_said_plainly_and_without_the_secret() {
        let fake = FakeS3::start().await;
        let settings = |bucket: &str, secret: &str| {
            s3_config(&format!(
                "endpoint = \"{}\"\nbucket = \"{bucket}\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{secret}\"",
                fake.endpoint(),
                fake_s3::ACCESS_KEY_ID,
            ))
        };
        let denied = artifacts::open(&settings(fake_s3::BUCKET, "wrong-canary")).unwrap().check().await.unwrap_err();
        assert!(matches!(denied, ObjectError::Denied { .. }), "{denied:?}");
        assert_eq!(denied.fault(), Fault::Permanent);
        let absent = artifacts::open(&settings("elsewhere", fake_s3::SECRET_ACCESS_KEY)).unwrap();
        let absent = absent.check().await.unwrap_err();
        assert!(absent.to_string().contains("NoSuchBucket") && absent.to_string().contains("elsewhere"), "{absent}");
        assert_eq!(absent.fault(), Fault::Permanent);
        let store = on(&fake);
        for text in [format!("{denied} {denied:?}"), format!("{absent} {absent:?}"), format!("{store:?}")] {
            assert!(!text.contains("canary"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_missing_setting_is_named() {
        let config = s3_config("bucket = \"b\"\naccess_key_id = \"a\"");
        let err = artifacts::open(&config).unwrap_err();
        assert!(err.to_string().contains("objects.secret_access_key"), "{err}");
        assert_eq!(err.side(), Side::Configuration);
    }

    #[tokio::test]
    async fn a_service_that_is_gone_or_silent_is_transient() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = |timeout: &str| {
            s3_config(&format!(
                "endpoint = \"http://{address}\"\nbucket = \"b\"\naccess_key_id = \"a\"\nsecret_access_key = \"s\"\ntimeout = \"{timeout}\""
            ))
        };
        // Connections are accepted by the kernel and never answered.
        let silent = artifacts::open(&config("100ms")).unwrap().check().await.unwrap_err();
        drop(listener);
        let gone = artifacts::open(&config("5s")).unwrap().check().await.unwrap_err();
        for err in [silent, gone] {
            assert!(matches!(err, ObjectError::Unavailable { .. }), "{err:?}");
            assert_eq!(err.fault(), Fault::Transient);
            assert!(err.to_string().contains(&address.to_string()), "{err}");
        }
    }

    #[tokio::test]
    async fn the_stores_clock_is_read_even_from_a_refusal() {
        let fake = FakeS3::start().await;
        let store = on(&fake);
        let here = jiff::Timestamp::now();
        let there = store.server_date().await.unwrap().unwrap();
        assert!(here.duration_since(there).as_secs().abs() < 60, "{here} {there}");
        fake.fail("head_bucket", Wrong::Denied, 99);
        assert!(store.server_date().await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_recorded_digest_travels_with_the_object() {
        let fake = FakeS3::start().await;
        let (store, call) = (on(&fake), Call::new());
        let artifact = call.put(store.as_ref(), ORIGINAL, b"audio").await;
        let head = store.head(&artifact.key).await.unwrap().unwrap();
        assert_eq!(head.sha256, Some(artifact.sha256));
        assert_ne!(head.sha256, Some(Sha256::from_bytes([0; 32])));
    }
}
