//! An S3 service that fails, lies or forgets.

use std::time::Duration;

use aftercall::domain::Sha256;

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
    for (kind, bytes) in [(ORIGINAL, b"a".as_slice()), (ArtifactKind::Quality, b"{}"), (ArtifactKind::Manifest, b"{}")]
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
    let bytes = Bytes::from(noise(11 * MIB));
    let artifact = call.artifact(ORIGINAL, &bytes);
    fake.fail("part", Wrong::Denied, 99);
    let err = store.put(&artifact, Body::Bytes(bytes.clone())).await.unwrap_err();
    assert!(matches!(err, ObjectError::Denied { .. }), "{err:?}");
    assert_eq!(fake.everything(), Vec::<String>::new());
    fake.fail("part", Wrong::Busy, 1);
    store.put(&artifact, Body::Bytes(bytes.clone())).await.unwrap();
    assert!(fake.body(artifact.key.as_str()).unwrap() == bytes);
    // Three parts of at most 5 MiB, one of them tried twice, one denied.
    assert_eq!(fake.requests().iter().filter(|&&request| request == "part").count(), 1 + 1 + 3);
}

#[tokio::test]
async fn an_upload_whose_last_answer_is_lost_is_done() {
    let fake = FakeS3::start().await;
    let (store, call) = (on(&fake), Call::new());
    let bytes = Bytes::from(noise(11 * MIB));
    let artifact = call.artifact(ORIGINAL, &bytes);
    fake.fail("complete", Wrong::FailAfterCommit, 1);
    store.put(&artifact, Body::Bytes(bytes.clone())).await.unwrap();
    assert!(fake.body(artifact.key.as_str()).unwrap() == bytes);
    assert_eq!(fake.everything().len(), 1);
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
        assert_eq!(err.fault(), Fault::Transient);
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
    assert_eq!(denied.fault(), Fault::Transient, "mended by hand, and the jobs wait for that");
    let absent = artifacts::open(&settings("elsewhere", fake_s3::SECRET_ACCESS_KEY)).unwrap();
    let absent = absent.check().await.unwrap_err();
    assert!(absent.to_string().contains("NoSuchBucket") && absent.to_string().contains("elsewhere"), "{absent}");
    assert_eq!(absent.fault(), Fault::Transient);
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
