//! Calls that opt out once they are finished, told by a trigger or by a list: they are looked at and erased, unless a
//! hold keeps them.

use std::path::PathBuf;

use aftercall::demo::{Api, RequestKind, SampleCall};
use aftercall::domain::{CallId, Outcome, RetentionState};
use aftercall::jobs::admit::Repeat;
use aftercall::jobs::retention_sweep::Consent;
use aftercall::jobs::trigger::{TriggerState, trigger};

use super::{balance, bring_in, marked, place_hold, state, swept, traces, whole};
use crate::process::{Site, holding, record, run_pending, source};

fn opts_out(site: &Site, call: &SampleCall) {
    site.platform.remove_call(Api::Zudu, &call.id);
    site.platform.add_call(SampleCall { opt_out: true, ..call.clone() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trigger_of_a_finished_call_finds_its_opt_out_and_erases_it() {
    let (call, other) = (marked("late", 1, 1), marked("young", 2, 1));
    let site = Site::start(vec![call.clone(), other.clone()], "").await;
    let app = site.app().await;
    bring_in(&app, Api::Zudu).await;
    let before = whole(&app, &other).await;
    opts_out(&site, &call);
    for call in [&call, &other] {
        let told = trigger(&app, &source(Api::Zudu), &CallId::parse(&call.id).unwrap(), Repeat::Never).await.unwrap();
        assert_eq!((told.state, told.outcome), (TriggerState::AlreadyDone, Some(Outcome::Done)));
        assert!(told.job_id.is_some(), "it is looked at");
        assert!(!told.describe().contains("nothing to do"), "{}", told.describe());
    }
    run_pending(&app).await;
    assert_eq!(state(&app, &call).await, RetentionState::Erased);
    for trace in traces(&call, "late") {
        let found = holding(&site.data_dir(), &trace);
        assert_eq!(found, Vec::<PathBuf>::new(), "{}", String::from_utf8_lossy(&trace));
    }
    assert_eq!(whole(&app, &other).await, before, "its neighbour has not opted out");
    assert_eq!(site.platform.requests().of(RequestKind::Recording, &other.id), 1, "nothing is fetched for a look");
    // It stays erased, and nobody asks about it any more.
    let asked = site.platform.requests().count(RequestKind::Detail);
    let told = trigger(&app, &source(Api::Zudu), &CallId::parse(&call.id).unwrap(), Repeat::Never).await.unwrap();
    assert_eq!((told.state, told.job_id), (TriggerState::Erased, None));
    run_pending(&app).await;
    assert_eq!(site.platform.requests().count(RequestKind::Detail), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_a_finished_call_does_not_stand_in_for_a_repeat() {
    let call = marked("young", 1, 1);
    let site = Site::start(vec![call.clone()], "").await;
    let app = site.app().await;
    bring_in(&app, Api::Zudu).await;
    let (name, id) = (source(Api::Zudu), CallId::parse(&call.id).unwrap());
    let look = trigger(&app, &name, &id, Repeat::Never).await.unwrap();
    let second = trigger(&app, &name, &id, Repeat::Never).await.unwrap();
    assert_eq!((second.job_id, second.duplicate), (look.job_id, true), "any number of looks is one");
    let again = trigger(&app, &name, &id, Repeat::Again).await.unwrap();
    assert_eq!((again.state, again.duplicate), (TriggerState::Queued, false));
    run_pending(&app).await;
    assert_eq!(record(&app, &call.id).await.transcript_version, 2);
}

/// By whichever way it is told, what a hold keeps is kept whole, and goes with the hold.
async fn held(by_trigger: bool) {
    let (call, name) = (marked("held", 1, 1), source(Api::Zudu));
    let site = Site::start(vec![call.clone()], "").await;
    let app = site.app().await;
    bring_in(&app, Api::Zudu).await;
    let hold = place_hold(&app, &call).await;
    let (_, words, objects) = whole(&app, &call).await;
    let numbers = record(&app, &call.id).await.call.unwrap();
    opts_out(&site, &call);
    if by_trigger {
        trigger(&app, &name, &CallId::parse(&call.id).unwrap(), Repeat::Never).await.unwrap();
    } else {
        balance(&app, Api::Zudu).await;
    }
    run_pending(&app).await;
    let kept = record(&app, &call.id).await;
    assert_eq!((kept.retention_state, kept.outcome), (RetentionState::Active, Some(Outcome::Done)));
    let (_, words_now, objects_now) = whole(&app, &call).await;
    assert_eq!((words_now, objects_now), (words, objects));
    let told = kept.call.unwrap();
    assert!(told.opt_out);
    assert_eq!((&told.from_number, &told.turns, &told.raw), (&numbers.from_number, &numbers.turns, &numbers.raw));
    assert_eq!(swept(&app, Consent::Scheduled).await.held, 1);

    let mut tx = app.store.begin().await.unwrap();
    assert!(app.store.release_hold(&mut tx, &hold, "counsel", app.now()).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(swept(&app, Consent::Scheduled).await.due, 1, "an opt-out does not wait for the term");
    run_pending(&app).await;
    assert_eq!(state(&app, &call).await, RetentionState::Erased);
    for trace in traces(&call, "held") {
        assert_eq!(holding(&site.data_dir(), &trace), Vec::<PathBuf>::new(), "{}", String::from_utf8_lossy(&trace));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_outlasts_an_opt_out_that_a_trigger_tells() {
    held(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_outlasts_an_opt_out_that_a_list_tells() {
    held(false).await;
}
