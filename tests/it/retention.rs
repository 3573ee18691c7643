//! Retention with the clock turned: what is due leaves no byte behind, what is not stays as it is, and a sweep that
//! has reason to doubt does nothing.

mod bare;
mod guards;
mod opt_out;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use aftercall::app::App;
use aftercall::demo::{Api, RequestKind, SampleCall, recordings};
use aftercall::domain::{CallId, Outcome, RetentionState};
use aftercall::jobs::admit::Repeat;
use aftercall::jobs::backfill;
use aftercall::jobs::reconcile;
use aftercall::jobs::reconcile::Balance;
use aftercall::jobs::retention_sweep::{Consent, SweepPlan, sweep};
use aftercall::jobs::trigger::{TriggerState, trigger};
use aftercall::store::{NewBackfill, NewHold, Origin};
use aftercall::wire::Window;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use crate::process::{Site, ago, days, holding, record, run_pending, source};

/// A call marked in every place where something personal can stand.
fn marked(name: &str, n: u32, ended_days_ago: i64) -> SampleCall {
    let mut call = SampleCall::numbered(Api::Zudu, n, ago(days(ended_days_ago)));
    let [words, note, audio, number] = canaries(name);
    let mut turns = call.turns.to_vec();
    turns[0].text = format!("Hello, {words}.");
    turns[0].words.clear();
    call.turns = turns.into();
    call.metadata.insert("note".to_owned(), note.into());
    call.caller_number = number;
    let mut recording = recordings::tiny();
    // An ID3v1 tag: 128 bytes after the last frame.
    recording.bytes = [&recording.bytes[..], format!("TAG{audio:<125}").as_bytes()].concat().into();
    call.audio = Some(recording);
    call
}

fn canaries(name: &str) -> [String; 4] {
    let number = name.bytes().fold(0_u64, |sum, byte| sum * 31 + u64::from(byte)) % 10_000_000;
    [
        format!("canary-words-{name}"),
        format!("canary-note-{name}"),
        format!("canary-audio-{name}"),
        format!("+1999{number:07}"),
    ]
}

/// What stands in the data directory of a call: its canaries, the path of its recording's URL.
fn traces(call: &SampleCall, name: &str) -> Vec<Vec<u8>> {
    let mut traces: Vec<Vec<u8>> = canaries(name).into_iter().map(String::into_bytes).collect();
    traces.push(format!("recordings/zudu/{}", call.id).into_bytes());
    traces
}

fn everything() -> Window {
    Window { from: Timestamp::UNIX_EPOCH, to: ago(SignedDuration::from_hours(-24 * 365)) }
}

async fn balance(app: &App, api: Api) -> Balance {
    reconcile::balance(app, &source(api), everything()).await.unwrap()
}

/// Lets in and processes everything the platform has.
async fn bring_in(app: &Arc<App>, api: Api) {
    balance(app, api).await;
    run_pending(app).await;
    let balance = balance(app, api).await;
    assert_eq!((balance.running, balance.missing), (0, 0), "{balance:?}");
}

async fn swept(app: &App, consent: Consent) -> SweepPlan {
    sweep(app, consent).await.unwrap()
}

async fn state(app: &App, call: &SampleCall) -> RetentionState {
    record(app, &call.id).await.retention_state
}

async fn place_hold(app: &App, call: &SampleCall) -> String {
    let call_uid = record(app, &call.id).await.uid;
    let now = app.now();
    let hold = NewHold { call_uid, matter: "claim 4711", placed_by: "counsel", now, review_by: now + days(365) };
    let mut tx = app.store.begin().await.unwrap();
    let id = app.store.place_hold(&mut tx, hold).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    id
}

/// Everything there is of a call: its record, its words, its objects.
async fn whole(app: &App, call: &SampleCall) -> (String, Vec<String>, Vec<Bytes>) {
    let record = record(app, &call.id).await;
    let words = app.store.transcripts(record.uid).await.unwrap().into_iter().map(|version| version.text).collect();
    let mut objects = Vec::new();
    for artifact in &record.artifacts {
        objects.push(app.objects.get(artifact).await.unwrap());
    }
    (format!("{record:?}"), words, objects)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opt_out_that_comes_late_leaves_no_byte_either() {
    let (call, other) = (marked("late", 1, 1), marked("young", 2, 1));
    let site = Site::start(vec![call.clone(), other.clone()], "").await;
    let data = site.data_dir();
    let app = site.app().await;
    bring_in(&app, Api::Zudu).await;
    for trace in traces(&call, "late") {
        assert!(!holding(&data, &trace).is_empty(), "the search does not see {}", String::from_utf8_lossy(&trace));
    }
    site.platform.remove_call(Api::Zudu, &call.id);
    site.platform.add_call(SampleCall { opt_out: true, ..call.clone() });
    balance(&app, Api::Zudu).await;
    assert_eq!(state(&app, &call).await, RetentionState::Condemned);
    run_pending(&app).await;
    for trace in traces(&call, "late") {
        let found = holding(&data, &trace);
        assert!(found.is_empty(), "{} is still in {found:?}", String::from_utf8_lossy(&trace));
    }
    assert_eq!(state(&app, &call).await, RetentionState::Erased);
    assert_eq!(state(&app, &other).await, RetentionState::Active);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_past_its_term_leaves_no_byte_and_its_neighbours_stay_as_they_are() {
    let (mut due, held, young) = (marked("due", 1, 80), marked("held", 2, 80), marked("young", 3, 1));
    // Other audio than its neighbours', so that its normalised form is its own.
    let mut audio = recordings::wordless();
    audio.bytes = [&audio.bytes[..], format!("TAG{:<125}", canaries("due")[2]).as_bytes()].concat().into();
    due.audio = Some(audio);
    let site = Site::start(vec![due.clone(), held.clone(), young.clone()], "").await;
    let data = site.data_dir();
    let app = site.app().await;
    bring_in(&app, Api::Zudu).await;
    let hold = place_hold(&app, &held).await;
    let neighbours = [whole(&app, &held).await, whole(&app, &young).await];

    let mut gone = traces(&due, "due");
    let made = record(&app, &due.id).await;
    assert_eq!(made.outcome, Some(Outcome::Done));
    let flac = made.artifacts.iter().find(|artifact| artifact.name == "audio.flac").expect("a normalised form");
    let flac = app.objects.get(flac).await.unwrap();
    gone.push(flac[flac.len() / 2..flac.len() / 2 + 48].to_vec());
    let spooled = app.spool_of(made.uid).join("original.part");
    std::fs::create_dir_all(spooled.parent().unwrap()).unwrap();
    std::fs::write(&spooled, &due.audio.as_ref().unwrap().bytes).unwrap();
    for trace in gone.iter().chain(&traces(&held, "held")).chain(&traces(&young, "young")) {
        assert!(!holding(&data, trace).is_empty(), "the search does not see {}", String::from_utf8_lossy(trace));
    }

    site.turn(days(11));
    let plan = swept(&app, Consent::Scheduled).await;
    assert_eq!((plan.due, plan.held, plan.refused.as_deref()), (1, 1, None));
    assert_eq!(state(&app, &due).await, RetentionState::Condemned);
    run_pending(&app).await;

    for trace in &gone {
        let found = holding(&data, trace);
        assert!(found.is_empty(), "{} is still in {found:?}", String::from_utf8_lossy(trace));
    }
    let tombstone = record(&app, &due.id).await;
    assert_eq!((tombstone.retention_state, tombstone.outcome), (RetentionState::Erased, Some(Outcome::Erased)));
    assert!(tombstone.call.is_none() && tombstone.quality.is_none() && tombstone.artifacts.is_empty());
    assert_eq!([whole(&app, &held).await, whole(&app, &young).await], neighbours);

    let mut tx = app.store.begin().await.unwrap();
    assert!(app.store.release_hold(&mut tx, &hold, "counsel", app.now()).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(swept(&app, Consent::Scheduled).await.due, 1);
    run_pending(&app).await;
    for trace in traces(&held, "held") {
        assert_eq!(holding(&data, &trace), Vec::<PathBuf>::new(), "{}", String::from_utf8_lossy(&trace));
    }
    assert_eq!(whole(&app, &young).await, neighbours[1]);

    let audit = app.store.audit_entries(None).await.unwrap();
    let actions: Vec<&str> = audit.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["condemned", "erased", "condemned", "erased"]);
    let written = format!("{audit:?}");
    for call in [&due, &held] {
        let name = if call.id == due.id { "due" } else { "held" };
        assert!(!written.contains(&call.id), "{written}");
        assert!(!canaries(name).iter().any(|canary| written.contains(canary)), "{written}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_asked_about_a_call_that_is_past_its_term_in_the_list() {
    let calls: Vec<SampleCall> = Api::ALL.iter().map(|api| SampleCall::numbered(*api, 1, ago(days(91)))).collect();
    let site = Site::start(calls, "").await;
    let app = site.app().await;
    let now = app.now();
    for api in Api::ALL {
        let name = source(api);
        let window = everything();
        let new =
            NewBackfill { source: &name, from: window.from, to: window.to, again: false, origin: Origin::Command, now };
        let id = backfill::start(&app, &new).await.unwrap().unwrap();
        run_pending(&app).await;
        let skipped = app.store.backfill(&id).await.unwrap().unwrap().skipped;
        assert_eq!(skipped, BTreeMap::from([("past_retention".to_owned(), 1)]), "{api:?}");
        let balance = balance(&app, api).await;
        assert_eq!(balance.terminal, BTreeMap::from([("past_retention".to_owned(), 1)]), "{api:?}");
    }
    run_pending(&app).await;
    let asked: Vec<RequestKind> = site.platform.requests().iter().map(|request| request.kind).collect();
    assert!(asked.iter().all(|kind| *kind == RequestKind::List), "{asked:?}");
    assert_eq!(holding(&site.data_dir(), b"+14155550123"), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trigger_learns_of_the_term_and_asks_for_no_recording() {
    let calls: Vec<SampleCall> = Api::ALL.iter().map(|api| SampleCall::numbered(*api, 1, ago(days(91)))).collect();
    let site = Site::start(calls.clone(), "").await;
    let app = site.app().await;
    for call in &calls {
        trigger(&app, &source(call.api), &CallId::parse(&call.id).unwrap(), Repeat::Never).await.unwrap();
    }
    run_pending(&app).await;
    for call in &calls {
        assert_eq!(record(&app, &call.id).await.outcome, Some(Outcome::PastRetention), "{:?}", call.api);
    }
    let requests = site.platform.requests();
    assert_eq!((requests.count(RequestKind::Recording), requests.count(RequestKind::RecordingLink)), (0, 0));
    assert_eq!(holding(&site.data_dir(), b"+14155550123"), Vec::<PathBuf>::new());
}

fn ended_days_ago(count: u32, ended: i64) -> Vec<SampleCall> {
    (1..=count).map(|n| SampleCall::numbered(Api::KrosaiV1, n, ago(days(ended)))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_call_does_not_come_back_by_any_way() {
    let call = marked("due", 1, 80);
    let site = Site::start(vec![call.clone()], "").await;
    let app = site.app().await;
    bring_in(&app, Api::Zudu).await;
    site.turn(days(11));
    swept(&app, Consent::Scheduled).await;
    run_pending(&app).await;
    assert_eq!(state(&app, &call).await, RetentionState::Erased);
    let before = site.platform.requests();
    // The platform would have it last for another term now.
    let mut younger = call.clone();
    younger.ended_at = app.now() - days(1);
    site.platform.add_call(younger);

    let (name, id) = (source(Api::Zudu), CallId::parse(&call.id).unwrap());
    for repeat in [Repeat::Never, Repeat::Again] {
        assert_eq!(trigger(&app, &name, &id, repeat).await.unwrap().state, TriggerState::Erased);
        let window = everything();
        let again = repeat == Repeat::Again;
        let new = NewBackfill {
            source: &name,
            from: window.from,
            to: window.to,
            again,
            origin: Origin::Command,
            now: app.now(),
        };
        let id = backfill::start(&app, &new).await.unwrap().unwrap();
        run_pending(&app).await;
        let skipped = app.store.backfill(&id).await.unwrap().unwrap().skipped;
        assert_eq!(skipped, BTreeMap::from([("erased".to_owned(), 1)]));
    }
    assert_eq!(balance(&app, Api::Zudu).await.terminal, BTreeMap::from([("erased".to_owned(), 1)]));
    run_pending(&app).await;
    let after = site.platform.requests();
    for kind in [RequestKind::Recording, RequestKind::RecordingLink, RequestKind::Detail] {
        assert_eq!(after.count(kind), before.count(kind), "{kind:?}");
    }
    for trace in traces(&call, "due") {
        assert_eq!(holding(&site.data_dir(), &trace), Vec::<PathBuf>::new());
    }
}
