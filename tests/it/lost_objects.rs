//! Objects that are lost: found by the sweep's listing, told, fetched again while the source has them.

use std::time::Duration;

use aftercall::demo::{Api, FaultAnswer, RequestKind, SampleCall, recordings};
use aftercall::domain::{Artifact, CallFlag, Outcome, RecordFlag};
use aftercall::jobs::backfill;
use aftercall::jobs::object_check::{Found, Orphans, check};
use aftercall::jobs::retention_sweep::{Consent, sweep};
use aftercall::queue::JobState;
use aftercall::store::{BackfillState, CallFilter, CallRecord, NewBackfill, Orders, Origin, OurCalls};
use jiff::{SignedDuration, Timestamp};

use crate::fake_s3::{self, FakeS3, Fault as Wrong};
use crate::harness::{Backend, Fixture, Plan, on_every_backend, source};
use crate::process::{Site, ago};

on_every_backend!(
    lost_and_cut_objects_are_flagged_and_unflagged_when_they_are_back,
    a_store_that_was_emptied_is_noticed_with_one_question_a_call,
    what_a_listing_does_not_show_yet_is_not_lost,
    a_call_asked_for_again_is_fetched_again_while_its_source_has_it,
    a_backfill_by_flag_mends_those_calls_and_no_others,
    what_its_source_does_not_have_any_more_stays_flagged_and_done,
    an_original_lost_before_its_call_has_ended_is_fetched_again,
    a_sweep_that_refuses_to_delete_still_notices,
);

/// A store of either kind, and the hands that do damage to it.
enum Place {
    Dir,
    S3(FakeS3),
}

impl Place {
    async fn both() -> [Self; 2] {
        [Self::Dir, Self::S3(FakeS3::start().await)]
    }

    async fn fixture(&self, backend: Backend, calls: impl FnOnce(Timestamp) -> Vec<SampleCall>) -> Fixture {
        self.fixture_with(backend, "", calls).await
    }

    async fn fixture_with(
        &self,
        backend: Backend,
        more: &str,
        calls: impl FnOnce(Timestamp) -> Vec<SampleCall>,
    ) -> Fixture {
        let objects = match self {
            Self::Dir => String::new(),
            Self::S3(fake) => format!(
                "[objects]\nkind = \"s3\"\nendpoint = \"{}\"\nbucket = \"{}\"\naccess_key_id = \"{}\"\n\
                 secret_access_key = \"{}\"\n",
                fake.endpoint(),
                fake_s3::BUCKET,
                fake_s3::ACCESS_KEY_ID,
                fake_s3::SECRET_ACCESS_KEY,
            ),
        };
        let settings = format!("{objects}{more}");
        Fixture::planned(backend, Plan { settings: settings.leak(), ..Plan::default() }, calls).await
    }

    fn lose(&self, fixture: &Fixture, artifact: &Artifact) {
        match self {
            Self::Dir => std::fs::remove_file(fixture.config.objects.path.join(artifact.key.as_str())).unwrap(),
            Self::S3(fake) => fake.delete_by_hand(artifact.key.as_str()),
        }
    }

    fn cut(&self, fixture: &Fixture, artifact: &Artifact) {
        let length = artifact.size_bytes / 2;
        match self {
            Self::Dir => {
                let path = fixture.config.objects.path.join(artifact.key.as_str());
                std::fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
            }
            Self::S3(fake) => fake.cut_by_hand(artifact.key.as_str(), length as usize),
        }
    }

    fn empty(&self, fixture: &Fixture) {
        match self {
            Self::Dir => {
                let root = &fixture.config.objects.path;
                std::fs::remove_dir_all(root).unwrap();
                std::fs::create_dir(root).unwrap();
            }
            Self::S3(fake) => fake.empty_by_hand(),
        }
    }

    /// Questions of this kind so far; none are counted at a directory.
    fn asked(&self, kind: &str) -> usize {
        match self {
            Self::Dir => 0,
            Self::S3(fake) => fake.requests().iter().filter(|&&asked| asked == kind).count(),
        }
    }
}

/// With little to decode: what the recording is like is of no matter here.
fn tiny(call: SampleCall) -> SampleCall {
    SampleCall { audio: Some(recordings::tiny()), ..call }
}

fn calls(count: u32) -> impl FnOnce(Timestamp) -> Vec<SampleCall> {
    move |now| {
        let at = |n: u32| now - SignedDuration::from_hours(i64::from(n) + 2);
        (0..count).map(|n| tiny(SampleCall::numbered(Api::KrosaiV1, n, at(n)))).collect()
    }
}

fn id(n: u32) -> String {
    format!("call_{n:06}")
}

/// Processes calls 0 to `count`.
async fn processed(fixture: &Fixture, count: u32) -> Vec<CallRecord> {
    let mut records = Vec::new();
    for n in 0..count {
        fixture.trigger(Api::KrosaiV1, &id(n)).await;
    }
    fixture.run_pending().await;
    for n in 0..count {
        let record = fixture.record(Api::KrosaiV1, &id(n)).await;
        assert_eq!(record.outcome, Some(Outcome::Done), "{:?}", record.outcome_reason);
        records.push(record);
    }
    records
}

fn named<'a>(record: &'a CallRecord, start: &str) -> &'a Artifact {
    record.artifacts.iter().find(|artifact| artifact.name.starts_with(start)).unwrap()
}

/// The calls with the flag, as `calls list --flag missing_object` finds them.
async fn flagged(fixture: &Fixture) -> Vec<String> {
    let flag = Some(CallFlag::Record(RecordFlag::MissingObject));
    let found = fixture.store.calls(&CallFilter { flag, ..CallFilter::default() }).await.unwrap();
    let mut ids: Vec<String> = found.iter().map(|record| record.call_id.to_string()).collect();
    ids.sort();
    assert_eq!(fixture.store.missing_objects().await.unwrap().values().sum::<u64>(), ids.len() as u64);
    assert_eq!(fixture.reconcile(Api::KrosaiV1).await.missing_objects, ids.len() as u64);
    ids
}

async fn whole(fixture: &Fixture, n: u32) {
    let record = fixture.record(Api::KrosaiV1, &id(n)).await;
    assert_eq!(record.outcome, Some(Outcome::Done));
    for artifact in &record.artifacts {
        let bytes = fixture.objects.get(artifact).await.unwrap();
        assert_eq!(bytes.len() as u64, artifact.size_bytes, "{}", artifact.name);
    }
    assert!(!record.has_flag(RecordFlag::MissingObject), "{:?}", record.flags);
}

async fn lost_and_cut_objects_are_flagged_and_unflagged_when_they_are_back(backend: Backend) {
    for place in Place::both().await {
        let fixture = place.fixture(backend, calls(5)).await;
        let records = processed(&fixture, 5).await;
        assert_eq!(sweep(&fixture, Consent::Scheduled).await.unwrap().refused, None);
        assert_eq!(flagged(&fixture).await, Vec::<String>::new());
        let kept = fixture.objects.get(named(&records[1], "original")).await.unwrap();
        place.lose(&fixture, named(&records[1], "original"));
        place.lose(&fixture, named(&records[2], "manifest"));
        place.cut(&fixture, named(&records[3], "audio"));
        for artifact in &records[4].artifacts {
            place.lose(&fixture, artifact);
        }
        assert_eq!(sweep(&fixture, Consent::Scheduled).await.unwrap().refused, None);
        assert_eq!(flagged(&fixture).await, [id(1), id(2), id(3), id(4)]);
        // Nothing else of the record is touched, and it is told once.
        let record = fixture.record(Api::KrosaiV1, &id(1)).await;
        assert_eq!((record.outcome, &record.artifacts), (Some(Outcome::Done), &records[1].artifacts));
        assert_eq!(check(&fixture, Orphans::Delete).await.unwrap(), Found::default());
        let measured = aftercall::telemetry::metrics_handle().unwrap();
        aftercall::jobs::object_check::measure(&fixture).await.unwrap();
        let text = measured.render();
        assert!(text.contains("aftercall_calls_missing_objects{source=\"krosai\"}"), "{text}");
        // Somebody puts it back.
        let original = named(&records[1], "original").clone();
        fixture.objects.put(&original, aftercall::artifacts::Body::Bytes(kept)).await.unwrap();
        let found = check(&fixture, Orphans::Delete).await.unwrap();
        assert_eq!(found, Found { mended: 1, ..Found::default() });
        assert_eq!(flagged(&fixture).await, [id(2), id(3), id(4)]);
    }
}

async fn a_store_that_was_emptied_is_noticed_with_one_question_a_call(backend: Backend) {
    for place in Place::both().await {
        let fixture = place.fixture(backend, calls(7)).await;
        processed(&fixture, 7).await;
        place.empty(&fixture);
        let heads = place.asked("head");
        assert_eq!(check(&fixture, Orphans::Delete).await.unwrap().lost, 7);
        assert_eq!(flagged(&fixture).await.len(), 7);
        if let Place::S3(_) = place {
            assert_eq!(place.asked("head") - heads, 7);
        }
        let (heads, lists) = (place.asked("head"), place.asked("list"));
        assert_eq!(check(&fixture, Orphans::Delete).await.unwrap(), Found::default());
        assert_eq!(place.asked("head"), heads, "what is known to be lost is not asked for again");
        assert!(place.asked("list") - lists <= 1);
    }
}

async fn what_a_listing_does_not_show_yet_is_not_lost(backend: Backend) {
    let fake = FakeS3::start().await;
    let place = Place::S3(fake.clone());
    let fixture = place.fixture(backend, calls(3)).await;
    processed(&fixture, 3).await;
    fake.fail("list", Wrong::Stale, 99);
    assert_eq!(check(&fixture, Orphans::Delete).await.unwrap(), Found::default());
    assert_eq!(flagged(&fixture).await, Vec::<String>::new());
    fake.fail("list", Wrong::Stale, 0);
    // A whole listing is enough: no object is asked for by its name.
    let heads = place.asked("head");
    assert_eq!(check(&fixture, Orphans::Delete).await.unwrap(), Found::default());
    assert_eq!(place.asked("head"), heads);
    // A store that does not answer proves nothing.
    fake.fail("list", Wrong::Denied, 99);
    check(&fixture, Orphans::Delete).await.unwrap_err();
    assert_eq!(flagged(&fixture).await, Vec::<String>::new());
}

async fn a_call_asked_for_again_is_fetched_again_while_its_source_has_it(backend: Backend) {
    for place in Place::both().await {
        let fixture = place.fixture(backend, calls(3)).await;
        let records = processed(&fixture, 3).await;
        let asked = fixture.asked(RequestKind::Recording, &id(0));
        // Gone, cut, and only its derived audio gone: the last needs nothing of its source.
        place.lose(&fixture, named(&records[0], "original"));
        place.cut(&fixture, named(&records[1], "original"));
        place.lose(&fixture, named(&records[2], "audio"));
        check(&fixture, Orphans::Delete).await.unwrap();
        assert_eq!(flagged(&fixture).await, [id(0), id(1), id(2)]);
        for n in 0..3 {
            fixture.trigger_again(Api::KrosaiV1, &id(n)).await;
        }
        fixture.run_pending().await;
        for n in 0..3 {
            whole(&fixture, n).await;
            assert_eq!(fixture.record(Api::KrosaiV1, &id(n)).await.transcript_version, 2);
        }
        let fetched = [0, 1, 2].map(|n| fixture.asked(RequestKind::Recording, &id(n)));
        assert_eq!(fetched, [asked + 1, asked + 1, asked]);
        assert_eq!(check(&fixture, Orphans::Delete).await.unwrap(), Found::default());
        assert!(fixture.jobs().await.iter().all(|job| job.state == JobState::Completed));
    }
}

async fn a_backfill_by_flag_mends_those_calls_and_no_others(backend: Backend) {
    for place in Place::both().await {
        let fixture = place.fixture(backend, calls(4)).await;
        let records = processed(&fixture, 4).await;
        for n in [1, 2] {
            for artifact in &records[n].artifacts {
                place.lose(&fixture, artifact);
            }
        }
        check(&fixture, Orphans::Delete).await.unwrap();
        let (now, name) = (fixture.now(), source(Api::KrosaiV1));
        let from = now - SignedDuration::from_hours(24 * 30);
        let new = NewBackfill { source: &name, from, to: now, again: false, origin: Origin::Command, now };
        let only = Some(OurCalls::Flag(CallFlag::Record(RecordFlag::MissingObject)));
        let orders = Orders { only, ..Orders::default() };
        let plan = aftercall::jobs::backfill_plan::plan(&fixture, &name, (from, now), false, orders).await.unwrap();
        assert_eq!(plan.to_do, 2);
        let backfill = backfill::start_ordered(&fixture, &new, orders).await.unwrap().unwrap();
        let shown =
            aftercall::jobs::backfill_status::shown(&fixture.app, &fixture.backfill(&backfill).await).await.unwrap();
        assert_eq!(shown["where_flag"], "missing_object", "{shown}");
        fixture.run_pending().await;
        let ended = fixture.backfill(&backfill).await;
        assert_eq!((ended.state, ended.listed, ended.done), (BackfillState::Done, 2, 2), "{ended:?}");
        for n in 0..4 {
            whole(&fixture, n).await;
            let version = if n == 1 || n == 2 { 2 } else { 1 };
            assert_eq!(fixture.record(Api::KrosaiV1, &id(n)).await.transcript_version, version);
        }
        assert_eq!(flagged(&fixture).await, Vec::<String>::new());
    }
}

async fn what_its_source_does_not_have_any_more_stays_flagged_and_done(backend: Backend) {
    for place in Place::both().await {
        let fixture = place.fixture(backend, calls(1)).await;
        let records = processed(&fixture, 1).await;
        place.lose(&fixture, named(&records[0], "original"));
        check(&fixture, Orphans::Delete).await.unwrap();
        fixture.platform.set_faults(|asked| (asked.kind == RequestKind::Recording).then(|| FaultAnswer::status(404)));
        fixture.trigger_again(Api::KrosaiV1, &id(0)).await;
        for _ in 0..4 {
            fixture.run_pending().await;
            fixture.advance(Duration::from_secs(30)).await;
        }
        let record = fixture.record(Api::KrosaiV1, &id(0)).await;
        assert_eq!((record.outcome, record.transcript_version), (Some(Outcome::Done), 1), "what is kept stays");
        assert!(fixture.jobs().await.iter().all(|job| job.state == JobState::Completed), "{:?}", fixture.jobs().await);
        assert_eq!(flagged(&fixture).await, [id(0)]);
    }
}

async fn an_original_lost_before_its_call_has_ended_is_fetched_again(backend: Backend) {
    for place in Place::both().await {
        let fixture = place.fixture(backend, calls(2)).await;
        let records = processed(&fixture, 2).await;
        // As an attempt leaves it that got as far as the original.
        let mut tx = fixture.store.begin().await.unwrap();
        for record in &records {
            fixture.store.reopen(&mut tx, record.uid).await.unwrap();
        }
        tx.commit().await.unwrap();
        place.lose(&fixture, named(&records[0], "original"));
        for n in 0..2 {
            fixture.trigger(Api::KrosaiV1, &id(n)).await;
        }
        fixture.run_pending().await;
        for n in 0..2 {
            whole(&fixture, n).await;
        }
        assert_eq!([0, 1].map(|n| fixture.asked(RequestKind::Recording, &id(n))), [2, 1]);
    }
}

async fn a_sweep_that_refuses_to_delete_still_notices(backend: Backend) {
    for place in Place::both().await {
        let fixture = place.fixture_with(backend, "[retention]\nenabled = false\n", calls(2)).await;
        let records = processed(&fixture, 2).await;
        place.lose(&fixture, named(&records[0], "original"));
        let job = aftercall::jobs::Job::RetentionSweep;
        fixture.enqueue(job.queued(&fixture, aftercall::queue::Lane::Maintenance)).await;
        fixture.run_pending().await;
        assert_eq!(flagged(&fixture).await, [id(0)]);
    }
}

/// What `doctor` says of the stored objects.
async fn doctor(site: &Site) -> (bool, String) {
    let findings = site.run(&["doctor", "--json"]).await.json();
    let found = findings.as_array().unwrap().iter().find(|finding| finding["what"] == "stored objects").unwrap();
    (found["ok"].as_bool().unwrap(), found["detail"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_tells_what_is_lost_and_brings_it_back() {
    let calls: Vec<SampleCall> = (1..=2)
        .map(|n| tiny(SampleCall::numbered(Api::KrosaiV1, n, ago(SignedDuration::from_hours(i64::from(n))))))
        .collect();
    let site = Site::start(calls, "").await;
    let (first, second) = (id(1), id(2));
    site.well(&["trigger", "--source", "krosai", &first, &second]).await;
    site.well(&["work", "--until-idle"]).await;
    assert!(doctor(&site).await.0);
    let shown = site.well(&["calls", "show", &first, "--json"]).await.json();
    for artifact in shown["artifacts"].as_array().unwrap() {
        std::fs::remove_file(site.objects_dir().join(artifact["key"].as_str().unwrap())).unwrap();
    }
    // Before any sweep doctor sees it of the newest calls; after one everybody sees it.
    let (ok, detail) = doctor(&site).await;
    assert!(!ok && detail.contains(&first) && !detail.contains(&second), "{detail}");
    site.well(&["retention", "run", "--force", "--expect", "0"]).await;
    let (ok, detail) = doctor(&site).await;
    assert!(!ok && detail.contains("--where flag=missing_object"), "{detail}");
    let listed = async || site.well(&["calls", "list", "--flag", "missing_object", "--json"]).await.json();
    let lost = listed().await;
    assert_eq!((lost.as_array().unwrap().len(), lost[0]["id"].as_str()), (1, Some(first.as_str())), "{lost}");
    let balance = site.run(&["reconcile", "--source", "krosai", "--json"]).await;
    assert_eq!((balance.code(), balance.json()["missing_objects"].as_u64()), (Some(1), Some(1)), "{balance:?}");
    let unknown = site.run(&["calls", "list", "--flag", "lost"]).await;
    assert!(unknown.code() == Some(2) && unknown.stderr.contains("missing_object"), "{unknown:?}");
    let backfill =
        ["backfill", "start", "--source", "krosai", "--from", "2020-01-01", "--where", "flag=missing_object"];
    site.well(&backfill).await;
    site.well(&["work", "--until-idle"]).await;
    assert_eq!(listed().await.as_array().unwrap().len(), 0);
    assert!(doctor(&site).await.0);
    site.well(&["reconcile", "--source", "krosai", "--json"]).await;
}
