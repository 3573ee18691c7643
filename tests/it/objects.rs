//! What is true of every object store, and what each of them does when its neighbour lies.

use std::sync::Arc;

use aftercall::artifacts::{
    self, Body, CallPrefix, DirStore, EntryKind, Erased, ObjectError, ObjectStore, S3Store, artifact_of_bytes,
    artifact_of_file,
};
use aftercall::config::{Config, Objects};
use aftercall::domain::{Artifact, ArtifactKey, ArtifactKind, CallUid, Classify, Container, Fault, OrgUid, Side};
use bytes::Bytes;
use futures::TryStreamExt;

use crate::fake_s3::{self, FakeS3};

mod dir;
mod refusals;
mod s3;

const MIB: usize = 1024 * 1024;
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
        places.push(Place { name: "S3_TEST_ENDPOINT", store: in_parts(&config), _kept: Box::new(()) });
    }
    places
}

fn s3_config(lines: &str) -> Objects {
    Config::from_toml(&format!("[objects]\nkind = \"s3\"\n{lines}")).unwrap().objects
}

/// The least parts S3 allows: a few megabytes are enough to see several.
fn in_parts(config: &Objects) -> Arc<dyn ObjectStore> {
    Arc::new(S3Store::new(config).unwrap().with_parts(6 * MIB as u64, 5 * MIB))
}

fn on_with(fake: &FakeS3, more: &str) -> Arc<dyn ObjectStore> {
    in_parts(&s3_config(&format!(
        "endpoint = \"{}\"\nbucket = \"{}\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"\n{more}",
        fake.endpoint(),
        fake_s3::BUCKET,
        fake_s3::ACCESS_KEY_ID,
        fake_s3::SECRET_ACCESS_KEY,
    )))
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
        for put in [Body::File(from.clone()), Body::Made(from.clone())] {
            // Twice, as an attempt does whose predecessor got as far.
            store.put(&artifact, put.clone()).await.unwrap();
            store.put(&artifact, put).await.unwrap();
            store.get_to_file(&artifact, &to).await.unwrap();
            assert!(std::fs::read(&to).unwrap() == bytes, "{name}");
            store.delete_prefix(&call.prefix(), &[]).await.unwrap();
            assert!(std::fs::read(&from).unwrap() == bytes, "{name}");
        }
    }
}

#[tokio::test]
async fn a_large_file_arrives_whole() {
    for place in places().await {
        let (store, name, call) = (&place.store, place.name, Call::new());
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, noise(11 * MIB)).unwrap();
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
