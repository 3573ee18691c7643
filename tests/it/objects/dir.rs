//! The local directory: durability, modes, damage on disk.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

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

/// Its place on disk is one with the maker's file; it is an object all the same.
#[tokio::test]
async fn a_file_made_for_the_store_is_taken_over_and_outlives_its_maker() {
    let (dir, store) = store();
    let (call, from) = (Call::new(), dir.path().join("audio.flac"));
    let made = tempfile::NamedTempFile::new_in(dir.path()).unwrap();
    std::fs::write(made.path(), "sound").unwrap();
    made.persist(&from).unwrap();
    let artifact = call.artifact(ArtifactKind::AudioFlac, b"sound");
    for _attempt in 1..=2 {
        store.put(&artifact, Body::Made(from.clone())).await.unwrap();
        assert_eq!(store.list_call(&call.prefix()).await.unwrap().len(), 1);
    }
    let path = dir.path().join("objects").join(artifact.key.as_str());
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), std::fs::metadata(&from).unwrap().ino());
    assert_eq!(mode(&path), 0o600);
    // The next of its name is another file.
    let next = tempfile::NamedTempFile::new_in(dir.path()).unwrap();
    std::fs::write(next.path(), "other").unwrap();
    next.persist(&from).unwrap();
    assert_eq!(store.get(&artifact).await.unwrap(), "sound");
    std::fs::remove_file(&from).unwrap();
    assert_eq!(store.get(&artifact).await.unwrap(), "sound");
}

#[tokio::test]
async fn a_file_made_for_the_store_that_has_another_length_is_refused() {
    let (dir, store) = store();
    let (call, from) = (Call::new(), dir.path().join("audio.flac"));
    std::fs::write(&from, "sound and more").unwrap();
    let artifact = call.artifact(ArtifactKind::AudioFlac, b"sound");
    let err = store.put(&artifact, Body::Made(from)).await.unwrap_err();
    assert!(matches!(err, ObjectError::BodyChanged { .. }), "{err:?}");
    assert!(store.list_call(&call.prefix()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_made_on_another_file_system_is_copied() {
    let (dir, store) = store();
    // Where there is no other, there is nothing to see.
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    if dir.path().metadata().unwrap().dev() == elsewhere.path().metadata().unwrap().dev() {
        return;
    }
    let (call, from) = (Call::new(), elsewhere.path().join("audio.flac"));
    std::fs::write(&from, "sound").unwrap();
    let artifact = call.artifact(ArtifactKind::AudioFlac, b"sound");
    store.put(&artifact, Body::Made(from.clone())).await.unwrap();
    std::fs::write(&from, "other").unwrap();
    assert_eq!(store.get(&artifact).await.unwrap(), "sound");
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

static LONG: [u8; 100_000] = [b'a'; 100_000];
static SHORT: [u8; 60_000] = [b'b'; 60_000];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_never_sees_half_a_write() {
    let (dir, store) = store();
    let call = Call::new();
    let contents: [&'static [u8]; 2] = [&LONG, &SHORT];
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
