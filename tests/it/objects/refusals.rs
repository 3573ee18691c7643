//! A bucket that is full, denies, is slow or damages what it is sent: every operation says so in words that name the
//! remedy, nothing is half done, and all is well again when the cause is gone.

use aftercall::demo::{Api, SampleCall};
use aftercall::domain::Outcome;
use aftercall::queue::JobState;
use jiff::SignedDuration;

use super::*;
use crate::fake_s3::{Fault as Wrong, Strict};
use crate::harness::{Backend, Fixture, Plan, eventually};

/// What each of these must be told as.
fn is_told(wrong: Wrong, err: &ObjectError) -> bool {
    match wrong {
        Wrong::Denied => matches!(err, ObjectError::Denied { .. }),
        Wrong::Full | Wrong::Quota | Wrong::TooLarge => matches!(err, ObjectError::Full { .. }),
        _ => matches!(err, ObjectError::Unavailable { .. }),
    }
}

const REFUSALS: [Wrong; 5] = [Wrong::Denied, Wrong::Full, Wrong::Quota, Wrong::TooLarge, Wrong::Busy];

#[tokio::test]
async fn a_write_that_is_refused_leaves_nothing_and_is_tried_again() {
    for fake in [FakeS3::start().await, FakeS3::start_versioned().await] {
        let (store, call) = (on(&fake), Call::new());
        let artifact = call.artifact(ORIGINAL, b"audio");
        for wrong in REFUSALS {
            fake.fail("put", wrong, 99);
            let err = store.put(&artifact, Body::Bytes("audio".into())).await.unwrap_err();
            assert!(is_told(wrong, &err), "{wrong:?}: {err:?}");
            assert_eq!((err.fault(), err.side()), (Fault::Transient, Side::ObjectStore), "{wrong:?}");
            assert!(err.to_string().contains(fake_s3::BUCKET), "{err}");
            assert!(store.check().await.is_err(), "{wrong:?}: a bucket that takes nothing is not well");
            assert_eq!(fake.everything(), Vec::<String>::new(), "{wrong:?}");
        }
        fake.fail("put", Wrong::Busy, 0);
        store.put(&artifact, Body::Bytes("audio".into())).await.unwrap();
        assert_eq!(store.get(&artifact).await.unwrap(), "audio");
        store.check().await.unwrap();
    }
}

#[tokio::test]
async fn a_large_write_that_is_refused_at_any_point_is_taken_back() {
    let bytes = Bytes::from(noise(11 * MIB));
    for wrong in REFUSALS {
        for operation in ["create_upload", "part", "complete"] {
            let fake = FakeS3::start().await;
            let (store, call) = (on(&fake), Call::new());
            let artifact = call.artifact(ORIGINAL, &bytes);
            fake.fail(operation, wrong, 99);
            let err = store.put(&artifact, Body::Bytes(bytes.clone())).await.unwrap_err();
            assert!(is_told(wrong, &err), "{wrong:?} {operation}: {err:?}");
            assert_eq!(fake.everything(), Vec::<String>::new(), "{wrong:?} {operation}");
            fake.fail(operation, wrong, 0);
            store.put(&artifact, Body::Bytes(bytes.clone())).await.unwrap();
            assert!(fake.body(artifact.key.as_str()).unwrap() == bytes);
        }
    }
}

#[tokio::test]
async fn reads_listings_and_deletes_that_are_refused_change_nothing() {
    for wrong in [Wrong::Denied, Wrong::Busy] {
        let fake = FakeS3::start_versioned().await;
        let (store, call) = (on(&fake), Call::new());
        let artifact = call.put(store.as_ref(), ORIGINAL, b"audio").await;
        for operation in ["get", "list", "versions", "delete"] {
            fake.fail(operation, wrong, 99);
        }
        let known = std::slice::from_ref(&artifact.key);
        let listed: Result<Vec<_>, _> = store.list_all(None).try_collect().await;
        let told = [
            store.get(&artifact).await.unwrap_err(),
            listed.unwrap_err(),
            store.list_call(&call.prefix()).await.unwrap_err(),
            store.delete_prefix(&call.prefix(), known).await.unwrap_err(),
            store.verify_empty(&call.prefix(), known).await.unwrap_err(),
        ];
        for err in told {
            assert!(is_told(wrong, &err), "{wrong:?}: {err:?}");
            assert_eq!(err.fault(), Fault::Transient);
        }
        assert_eq!(fake.everything().len(), 1, "{wrong:?}");
        for operation in ["get", "list", "versions", "delete"] {
            fake.fail(operation, wrong, 0);
        }
        assert_eq!(store.get(&artifact).await.unwrap(), "audio");
        store.delete_prefix(&call.prefix(), known).await.unwrap();
        store.verify_empty(&call.prefix(), known).await.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_arrives_damaged_is_refused_and_sent_again() {
    let fake = FakeS3::start().await;
    let (store, call) = (on(&fake), Call::new());
    let artifact = call.artifact(ORIGINAL, b"audio");
    fake.fail("put", Wrong::Damaged, 99);
    let err = store.put(&artifact, Body::Bytes("audio".into())).await.unwrap_err();
    assert!(matches!(err, ObjectError::Unavailable { .. }), "{err:?}");
    assert_eq!(err.fault(), Fault::Transient);
    assert_eq!(fake.everything(), Vec::<String>::new());
    fake.fail("put", Wrong::Damaged, 0);
    store.put(&artifact, Body::Bytes("audio".into())).await.unwrap();
    // In one part of many.
    let bytes = Bytes::from(noise(11 * MIB));
    let large = call.artifact(ArtifactKind::AudioFlac, &bytes);
    fake.fail("part", Wrong::Damaged, 99);
    assert_eq!(store.put(&large, Body::Bytes(bytes.clone())).await.unwrap_err().fault(), Fault::Transient);
    assert_eq!(fake.everything().len(), 1, "{:?}", fake.everything());
    fake.fail("part", Wrong::Damaged, 0);
    store.put(&large, Body::Bytes(bytes.clone())).await.unwrap();
    assert!(fake.body(large.key.as_str()).unwrap() == bytes);
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up_and_the_deed_may_stand() {
    let fake = FakeS3::start_versioned().await;
    let (hasty, patient) = (on_with(&fake, "timeout = \"100ms\""), on_with(&fake, "timeout = \"10s\""));
    let call = Call::new();
    let artifact = call.artifact(ORIGINAL, b"audio");
    fake.fail("put", Wrong::Slow, 99);
    let err = hasty.put(&artifact, Body::Bytes("audio".into())).await.unwrap_err();
    assert!(matches!(err, ObjectError::Unavailable { .. }), "{err:?}");
    assert_eq!(err.fault(), Fault::Transient);
    // Whoever waits longer gets through, and finds what the hasty one has left, version by version, when it erases.
    patient.put(&artifact, Body::Bytes("audio".into())).await.unwrap();
    fake.fail("get", Wrong::Slow, 1);
    assert_eq!(patient.get(&artifact).await.unwrap(), "audio");
    fake.fail("put", Wrong::Slow, 0);
    patient.delete_prefix(&call.prefix(), &[artifact.key]).await.unwrap();
    assert_eq!(fake.everything(), Vec::<String>::new());
}

#[tokio::test]
async fn a_store_that_refuses_checksum_headers_gets_content_md5_alone_from_then_on() {
    for strict in Strict::ALL {
        let fake = FakeS3::start_strict(strict).await;
        let (store, call) = (on(&fake), Call::new());
        // The first write finds it out, whether of bytes or of a file; the clones of a store know it too.
        call.put(store.as_ref(), ORIGINAL, b"audio").await;
        let puts = || fake.requests().iter().filter(|&&request| request == "put").count();
        assert_eq!(puts(), 2, "{strict:?}");
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        std::fs::write(&from, noise(300_000)).unwrap();
        let flac = artifact_of_file(call.org, call.uid, ArtifactKind::AudioFlac, &from).await.unwrap();
        store.put(&flac, Body::File(from)).await.unwrap();
        assert_eq!(puts(), 3, "{strict:?}: it is remembered");
        assert_eq!(store.get(&flac).await.unwrap(), noise(300_000), "{strict:?}");
        // In parts, nothing is sent that such a store refuses.
        let bytes = Bytes::from(noise(11 * MIB));
        let large = call.artifact(ArtifactKind::Waveform, &bytes);
        store.put(&large, Body::Bytes(bytes.clone())).await.unwrap();
        assert!(fake.body(large.key.as_str()).unwrap() == bytes, "{strict:?}");
        store.check().await.unwrap();
        // What is damaged on its way is still refused.
        fake.fail("put", Wrong::Damaged, 99);
        let err = store.put(&call.artifact(ArtifactKind::Quality, b"{}"), Body::Bytes("{}".into())).await.unwrap_err();
        assert!(matches!(err, ObjectError::Unavailable { .. }), "{strict:?}: {err:?}");
    }
}

#[tokio::test]
async fn a_store_that_takes_both_digests_is_sent_both_whatever_it_refused_meanwhile() {
    let fake = FakeS3::start().await;
    let (store, call) = (on(&fake), Call::new());
    for wrong in REFUSALS.into_iter().chain([Wrong::Absent]) {
        fake.fail("put", wrong, 99);
        store.put(&call.artifact(ORIGINAL, b"audio"), Body::Bytes("audio".into())).await.unwrap_err();
    }
    fake.fail("put", Wrong::Busy, 0);
    call.put(store.as_ref(), ORIGINAL, b"audio").await;
    assert_eq!(fake.sha256_headers(), 1, "the write that was taken carried x-amz-checksum-sha256");
}

#[tokio::test]
async fn a_write_that_is_not_understood_is_told_in_the_stores_words_and_tried_again() {
    let fake = FakeS3::start().await;
    let (store, call) = (on(&fake), Call::new());
    fake.fail("put", Wrong::Odd, 99);
    let told = [
        store.put(&call.artifact(ORIGINAL, b"audio"), Body::Bytes("audio".into())).await.unwrap_err(),
        store.check().await.unwrap_err(),
    ];
    for err in told {
        assert!(matches!(err, ObjectError::Rejected { .. }), "{err:?}");
        assert_eq!((err.fault(), err.side()), (Fault::Transient, Side::ObjectStore));
        let text = err.to_string();
        assert!(text.contains("InvalidRequest: Objects of this tier are written on Tuesdays."), "{text}");
    }
    // The same of a refusal for want of rights, of a full bucket, and of one that is busy.
    for (wrong, words) in
        [(Wrong::Denied, "AccessDenied"), (Wrong::Full, "XMinioStorageFull"), (Wrong::Busy, "SlowDown")]
    {
        fake.fail("put", wrong, 99);
        let err = store.check().await.unwrap_err();
        let text = format!("{:#}", anyhow::Error::from(err));
        assert!(text.contains(&format!("{words}: what the store says")), "{text}");
    }
}

/// The whole worker on such a bucket: it rests, says why, loses no job, and goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_bucket_refuses_rests_until_it_does_not() {
    for wrong in [Wrong::Denied, Wrong::Full, Wrong::Odd] {
        let fake = FakeS3::start().await;
        let settings = format!(
            "[objects]\nkind = \"s3\"\nendpoint = \"{}\"\nbucket = \"{}\"\naccess_key_id = \"{}\"\n\
             secret_access_key = \"{}\"\n[worker]\nrest_after = 3\nrest_look = \"100ms\"\nmax_attempts = 50\n\
             backoff_base = \"20ms\"\nbackoff_max = \"50ms\"\nheartbeat = \"1s\"\n[schedule]\nenabled = false\n",
            fake.endpoint(),
            fake_s3::BUCKET,
            fake_s3::ACCESS_KEY_ID,
            fake_s3::SECRET_ACCESS_KEY,
        );
        let plan = Plan { settings: settings.leak(), ..Plan::default() };
        let fixture = Fixture::planned(Backend::Sqlite, plan, |now| {
            let call = |n| SampleCall::numbered(Api::KrosaiV1, n, now - SignedDuration::from_mins(5));
            (0..4).map(call).collect()
        })
        .await;
        fake.fail("put", wrong, u32::MAX);
        for n in 0..4 {
            fixture.trigger(Api::KrosaiV1, &format!("call_{n:06}")).await;
        }
        let working = fixture.work();
        let cause = fixture.rests().await;
        assert!(cause.contains(fake_s3::BUCKET), "{cause}");
        assert!(fixture.jobs().await.iter().all(|job| job.state != JobState::DeadLetter), "{wrong:?}");
        fake.fail("put", wrong, 0);
        eventually("the calls to be done", async || {
            fixture.jobs().await.iter().all(|job| job.state == JobState::Completed).then_some(())
        })
        .await;
        for n in 0..4 {
            assert_eq!(fixture.record(Api::KrosaiV1, &format!("call_{n:06}")).await.outcome, Some(Outcome::Done));
        }
        working.drain().await;
    }
}
