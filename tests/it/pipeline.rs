//! The mission from end to end: real HTTP to a platform of four dialects, real recordings, real files.

mod delivery;
mod growth;
mod lapses;
mod odd_platform;
mod receivers;
mod trouble;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aftercall::demo::{self, Api, RequestKind, SampleCall, SampleRecording};
use aftercall::domain::{Outcome, ProviderTurn, Role};
use aftercall::jobs::trigger::TriggerState;
use aftercall::store::{BackfillState, CallRecord, Db};
use aftercall::worker::{self, DataLock, Signals, Until};
use futures::StreamExt;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};

use crate::harness::{Backend, Fixture, Plan, TestApp, eventually, logs, on_every_backend};

on_every_backend!(
    every_sample_call_ends_as_it_should,
    any_number_of_triggers_is_one_run,
    a_recording_that_comes_late_is_picked_up,
    a_backfill_goes_on_after_a_restart,
    nothing_is_asked_of_a_call_past_its_term,
    nothing_is_kept_of_a_call_that_opted_out,
    a_call_asked_for_again_gets_a_new_version,
    a_call_condemned_while_it_is_processed_leaves_nothing,
);

/// A short call with everything, of this platform.
pub(super) fn short(api: Api, n: u32, now: Timestamp) -> SampleCall {
    SampleCall::numbered(api, n, now - Duration::from_secs(60 * u64::from(n)))
}

/// All objects, by key.
pub(super) async fn objects(app: &TestApp) -> BTreeSet<String> {
    if !app.config.objects.path.exists() {
        return BTreeSet::new();
    }
    app.objects.list_all(None).map(|entry| entry.unwrap().key).collect().await
}

/// The call is done: one version, every artifact there and whole.
pub(super) async fn done(app: &TestApp, record: &CallRecord) {
    assert_eq!(record.outcome, Some(Outcome::Done), "{:?}", record.outcome_reason);
    assert_eq!(record.transcript_version, 1);
    assert_eq!(app.store.transcripts(record.uid).await.unwrap().len(), 1);
    whole(app, record).await;
    let names: BTreeSet<&str> = record.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    for name in ["audio.flac", "transcript.json", "quality.json", "waveform.json", "manifest.json"] {
        assert!(names.contains(name), "{names:?}");
    }
    assert!(names.iter().any(|name| name.starts_with("original.")), "{names:?}");
}

/// Every artifact is there and has the digest the record says.
async fn whole(app: &TestApp, record: &CallRecord) {
    for artifact in &record.artifacts {
        let bytes = app.objects.get(artifact).await.unwrap();
        assert_eq!(bytes.len() as u64, artifact.size_bytes, "{}", artifact.name);
    }
}

fn spool(app: &TestApp) -> usize {
    std::fs::read_dir(app.config.spool_dir()).map_or(0, Iterator::count)
}

async fn every_sample_call_ends_as_it_should(backend: Backend) {
    let mut samples = Vec::new();
    // As the demo has it: the call without text gets its words from the model that knows its sentences.
    let plan = Plan { settings: "[transcript]\nmodel = \"sample\"\n", ..Plan::default() };
    let fixture = Fixture::planned(backend, plan, |now| {
        samples = demo::sample_calls(now).unwrap();
        samples.iter().map(|sample| sample.call.clone()).collect()
    })
    .await;
    for sample in samples.iter().filter(|sample| sample.call.api == Api::Atoms) {
        fixture.platform.register_record(&sample.call.id, serde_json::json!({ "call_id": sample.call.id }));
    }
    for api in Api::ALL {
        let balance = fixture.reconcile(api).await;
        assert_eq!((balance.missing, balance.running), (0, balance.enqueued));
    }
    fixture.run_pending().await;

    let mut kept = BTreeSet::new();
    for sample in &samples {
        let (api, id) = (sample.call.api, sample.call.id.as_str());
        let Some(record) = fixture.find(api, id).await else {
            assert_eq!(sample.expected, Outcome::NotEligible, "{id} has no record");
            continue;
        };
        assert_eq!(record.outcome, Some(sample.expected), "{id}: {:?}", record.outcome_reason);
        if sample.expected == Outcome::Done {
            done(&fixture, &record).await;
        }
        whole(&fixture, &record).await;
        kept.extend(record.artifacts.iter().map(|artifact| artifact.key.as_str().to_owned()));
        let deliveries = fixture.store.deliveries(record.uid).await.unwrap();
        assert!(deliveries.iter().all(|delivery| delivery.delivered), "{id}");
        let effects = match api {
            Api::Zudu => fixture.platform.effects(id),
            Api::Atoms => fixture.platform.record(id).unwrap().effects,
            Api::KrosaiV1 | Api::KrosaiCockpit => continue,
        };
        assert_eq!(effects, deliveries.len() as u64, "{id}");
        assert!(sample.expected != Outcome::Done || effects == 1, "{id}");
    }
    assert_eq!(objects(&fixture).await, kept, "objects and records differ");
    assert_eq!(spool(&fixture), 0);

    // Once more everything is accounted for, and nothing is fetched again.
    let recordings = fixture.platform.requests().count(RequestKind::Recording);
    for api in Api::ALL {
        let balance = fixture.reconcile(api).await;
        let ended = balance.done + balance.terminal.values().sum::<u64>();
        assert_eq!((balance.enqueued, balance.missing, ended), (0, 0, balance.completed), "{balance:?}");
    }
    fixture.run_pending().await;
    assert_eq!(fixture.platform.requests().count(RequestKind::Recording), recordings);
}

/// A worker works beside what the test does until nothing is left to do.
pub(super) async fn beside<T>(fixture: &Fixture, act: impl Future<Output = T>) -> T {
    let lock = DataLock::take(fixture.data_dir()).unwrap();
    let signals = Signals::default();
    let worker = worker::run(fixture.app.app.clone(), &lock, Until::Stopped, signals.clone());
    let acted = async {
        let acted = act.await;
        eventually("nothing to be left to do", async || {
            (fixture.queue.due(Duration::from_secs(3), Timestamp::MIN).await.unwrap() == 0).then_some(())
        })
        .await;
        signals.drain.cancel();
        acted
    };
    let (ended, acted) = tokio::join!(worker, acted);
    ended.unwrap();
    acted
}

async fn any_number_of_triggers_is_one_run(backend: Backend) {
    let plan = Plan { settings: "[schedule]\nenabled = false", ..Plan::default() };
    let fixture = Fixture::planned(backend, plan, |now| {
        vec![short(Api::Zudu, 1, now), short(Api::Atoms, 2, now), short(Api::KrosaiV1, 3, now)]
    })
    .await;
    let ids = calls_of(&fixture, &[Api::Zudu, Api::Atoms, Api::KrosaiV1]).await;
    fixture.platform.register_record(&ids[1].1, serde_json::json!({}));
    beside(&fixture, async {
        let triggers = join_all((0..50).flat_map(|_| &ids).map(|(api, id)| fixture.trigger(*api, id)));
        let backfills = join_all(ids.iter().map(|(api, _)| fixture.start_backfill(*api)));
        let balances = join_all(ids.iter().map(|(api, _)| fixture.reconcile(*api)));
        tokio::join!(triggers, backfills, balances);
    })
    .await;
    for (api, id) in &ids {
        done(&fixture, &fixture.record(*api, id).await).await;
        assert_eq!(fixture.asked(RequestKind::Recording, id), 1, "{id} was downloaded more than once");
    }
    assert_eq!(fixture.platform.effects(&ids[0].1), 1);
    assert_eq!(fixture.platform.record(&ids[1].1).unwrap().effects, 1);
    for backfill in fixture.store.backfills().await.unwrap() {
        assert_eq!((backfill.state, backfill.failed), (BackfillState::Done, 0));
    }
}

/// The ids the platform lists.
async fn calls_of(fixture: &Fixture, apis: &[Api]) -> Vec<(Api, String)> {
    let mut ids = Vec::new();
    for api in apis {
        let window = aftercall::wire::Window { from: Timestamp::UNIX_EPOCH, to: Timestamp::MAX };
        let platform = fixture.platform(&crate::harness::source(*api)).unwrap();
        let calls = platform.source.collect(window).await.unwrap();
        ids.extend(calls.into_iter().map(|call| (*api, call.id.as_str().to_owned())));
    }
    ids
}

async fn a_recording_that_comes_late_is_picked_up(backend: Backend) {
    let mut late = None;
    let fixture = Fixture::start(backend, |now| {
        let call = short(Api::Atoms, 1, now);
        late = Some(call.clone());
        vec![SampleCall { recording: SampleRecording::Never, ..call }]
    })
    .await;
    let late = late.unwrap();
    fixture.platform.register_record(&late.id, serde_json::json!({}));
    fixture.reconcile(Api::Atoms).await;
    fixture.run_pending().await;
    assert_eq!(fixture.record(Api::Atoms, &late.id).await.outcome, Some(Outcome::NoRecording));
    let looks = fixture.jobs().await;
    assert!(looks.iter().all(|job| job.attempt == 1), "looking costs no attempts: {looks:?}");
    // Still not there: nothing to do.
    assert_eq!(fixture.reconcile(Api::Atoms).await.enqueued, 0);
    fixture.platform.remove_call(Api::Atoms, &late.id);
    fixture.platform.add_call(late.clone());
    assert_eq!(fixture.reconcile(Api::Atoms).await.enqueued, 1);
    fixture.run_pending().await;
    let record = fixture.record(Api::Atoms, &late.id).await;
    assert_eq!(record.outcome, Some(Outcome::Done));
    whole(&fixture, &record).await;
}

async fn a_backfill_goes_on_after_a_restart(backend: Backend) {
    const CALLS: u32 = 30;
    let plan = Plan { settings: "[schedule]\nenabled = false", ..Plan::default() };
    let fixture =
        Fixture::planned(backend, plan, |now| (1..=CALLS).map(|n| short(Api::KrosaiV1, n, now)).collect()).await;
    let id = fixture.start_backfill(Api::KrosaiV1).await;
    {
        let lock = DataLock::take(fixture.data_dir()).unwrap();
        let signals = Signals::default();
        let worker = worker::run(fixture.app.app.clone(), &lock, Until::Stopped, signals.clone());
        let stop = async {
            eventually("some calls to be done", async || {
                (fixture.platform.requests().count(RequestKind::Recording) >= 5).then_some(())
            })
            .await;
            signals.drain.cancel();
            signals.stop.cancel();
        };
        tokio::join!(worker, stop).0.unwrap();
    }
    assert_ne!(fixture.backfill(&id).await.state, BackfillState::Done, "it was over before it was stopped");
    let later = fixture.again().await;
    later.run_pending().await;
    let backfill = fixture.backfill(&id).await;
    assert_eq!((backfill.state, backfill.listed, backfill.done), (BackfillState::Done, 30, 30), "{backfill:?}");
    for (api, id) in calls_of(&fixture, &[Api::KrosaiV1]).await {
        done(&fixture, &fixture.record(api, &id).await).await;
    }
    // Fed oldest first.
    let first = fixture.platform.requests().iter().find(|asked| asked.kind == RequestKind::Recording).cloned().unwrap();
    assert!(first.call_id.unwrap().as_str() > "call_000020");
}

async fn nothing_is_asked_of_a_call_past_its_term(backend: Backend) {
    let fixture = Fixture::start(backend, |now| {
        let old = now - SignedDuration::from_hours(24 * 91);
        Api::ALL.into_iter().map(|api| SampleCall::numbered(api, 1, old)).collect()
    })
    .await;
    let ids = calls_of(&fixture, &Api::ALL).await;
    for (api, id) in &ids {
        fixture.reconcile(*api).await;
        fixture.start_backfill(*api).await;
        fixture.trigger(*api, id).await;
    }
    fixture.run_pending().await;
    for (api, id) in &ids {
        let record = fixture.record(*api, id).await;
        assert_eq!(record.outcome, Some(Outcome::PastRetention));
        let call = record.call.unwrap();
        assert!(
            call.turns.is_empty() && call.from_number.is_none() && call.raw.is_null(),
            "content was kept: {call:?}"
        );
        for kind in [RequestKind::Detail, RequestKind::RecordingLink, RequestKind::Recording] {
            assert_eq!(fixture.asked(kind, id), 0, "{kind:?} of {id}");
        }
    }
    assert!(objects(&fixture).await.is_empty());
}

fn files_under(dir: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_under(&path, found);
        } else {
            found.push(std::fs::read(path).unwrap());
        }
    }
}

async fn nothing_is_kept_of_a_call_that_opted_out(backend: Backend) {
    const WORDS: &str = "optedoutcanary";
    const NUMBER: &str = "+49170999000777";
    // The only dialect with such a mark. A second call proves that the search finds what is there.
    let fixture = Fixture::start(backend, |now| {
        let spoken = |n, words: &str, number: &str| SampleCall {
            caller_number: number.to_owned(),
            turns: turns(words),
            ..short(Api::Zudu, n, now)
        };
        let metadata = serde_json::Map::from_iter([("note".to_owned(), WORDS.into())]);
        let secret = SampleCall { opt_out: true, metadata, ..spoken(1, WORDS, NUMBER) };
        vec![secret, spoken(2, "opencanary", "+49170111222333")]
    })
    .await;
    let id = "call-000001";
    fixture.trigger(Api::Zudu, id).await;
    fixture.reconcile(Api::Zudu).await;
    fixture.start_backfill(Api::Zudu).await;
    fixture.run_pending().await;
    let record = fixture.record(Api::Zudu, id).await;
    assert_eq!(record.outcome, Some(Outcome::OptedOut));
    assert_eq!(fixture.asked(RequestKind::Recording, id), 0);
    done(&fixture, &fixture.record(Api::Zudu, "call-000002").await).await;

    let mut kept = Vec::new();
    files_under(fixture.data_dir(), &mut kept);
    kept.push(logs());
    if let Db::Postgres(pool) = fixture.store.db() {
        let tables: Vec<String> = sqlx::query_scalar("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            .fetch_all(pool)
            .await
            .unwrap();
        for table in tables {
            let sql = sqlx::AssertSqlSafe(format!("SELECT t::text FROM {table} AS t"));
            let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(pool).await.unwrap();
            kept.extend(rows.into_iter().map(String::into_bytes));
        }
    }
    let holds = |word: &str| kept.iter().any(|bytes| bytes.windows(word.len()).any(|window| window == word.as_bytes()));
    assert!(holds("opencanary"), "the search finds nothing");
    for secret in [WORDS, NUMBER, &NUMBER[1..], &NUMBER[4..]] {
        assert!(!holds(secret), "{secret} was kept");
    }
    let logged = logs();
    assert!(!logged.is_empty());
    for word in ["opencanary", "170111222333"] {
        assert!(!logged.windows(word.len()).any(|window| window == word.as_bytes()), "{word} was logged");
    }
}

fn turns(text: &str) -> Arc<[ProviderTurn]> {
    let turn = ProviderTurn {
        role: Role::Caller,
        text: text.to_owned(),
        start_ms: Some(0),
        end_ms: Some(900),
        words: Vec::new(),
        approximate: false,
    };
    Arc::from([turn])
}

async fn a_call_asked_for_again_gets_a_new_version(backend: Backend) {
    let fixture = Fixture::start(backend, |now| vec![short(Api::Zudu, 1, now)]).await;
    let id = "call-000001";
    fixture.trigger(Api::Zudu, id).await;
    fixture.run_pending().await;
    let first = fixture.record(Api::Zudu, id).await;
    done(&fixture, &first).await;
    assert_eq!(fixture.trigger(Api::Zudu, id).await.state, TriggerState::AlreadyDone);
    assert!(fixture.trigger_again(Api::Zudu, id).await.job_id.is_some());
    fixture.run_pending().await;
    let second = fixture.record(Api::Zudu, id).await;
    assert_eq!((second.outcome, second.transcript_version), (Some(Outcome::Done), 2));
    assert_eq!(fixture.store.transcripts(second.uid).await.unwrap().len(), 2);
    assert_eq!(fixture.asked(RequestKind::Recording, id), 1, "the original is safe and was fetched again");
    assert_eq!(fixture.platform.effects(id), 2);
    whole(&fixture, &second).await;
}

async fn a_call_condemned_while_it_is_processed_leaves_nothing(backend: Backend) {
    let fixture = Fixture::start(backend, |now| vec![short(Api::KrosaiV1, 1, now)]).await;
    let (id, app) = ("call_000001", fixture.app.app.clone());
    let uid = fixture.trigger(Api::KrosaiV1, id).await.id;
    // In the very moment in which its recording is asked for.
    fixture.platform.set_faults(move |asked| {
        if asked.kind == RequestKind::Recording {
            let app = app.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut tx = app.store.begin().await.unwrap();
                    assert!(app.store.condemn(&mut tx, uid, Timestamp::MAX).await.unwrap());
                    tx.commit().await.unwrap();
                });
            })
            .join()
            .unwrap();
        }
        None
    });
    fixture.run_pending().await;
    let record = fixture.record(Api::KrosaiV1, id).await;
    assert_eq!((record.outcome, record.original, record.transcript_version), (None, None, 0));
    assert!(objects(&fixture).await.is_empty(), "what was uploaded is still there");
    assert_eq!(spool(&fixture), 0);
}
