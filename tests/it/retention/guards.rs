//! When a sweep refuses, and what it takes to make it go on.

use std::time::Duration;

use aftercall::demo::{Api, SampleCall};
use aftercall::domain::{Outcome, RetentionState};
use aftercall::jobs::retention_sweep::{Consent, plan};
use jiff::SignedDuration;

use super::{bring_in, ended_days_ago, place_hold, state, swept};
use crate::process::{Site, ago, days, record, run_pending};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_due_than_the_history_explains_needs_the_number() {
    let calls = ended_days_ago(5, 80);
    let site = Site::start(calls.clone(), "[retention]\nguard_minimum = 2").await;
    let app = site.app().await;
    bring_in(&app, Api::KrosaiV1).await;
    site.turn(days(11));
    for consent in [Consent::Scheduled, Consent::Forced, Consent::Expecting(4), Consent::Expecting(6)] {
        let plan = swept(&app, consent).await;
        assert_eq!(plan.due, 5);
        assert!(plan.refused.is_some_and(|reason| reason.contains('5')), "{consent:?}");
    }
    run_pending(&app).await;
    for call in &calls {
        assert_eq!(state(&app, call).await, RetentionState::Active);
    }
    assert_eq!(app.store.audit_entries(None).await.unwrap().len(), 0);
    assert_eq!(swept(&app, Consent::Expecting(5)).await.refused, None);
    run_pending(&app).await;
    for call in &calls {
        assert_eq!(state(&app, call).await, RetentionState::Erased);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_due_as_the_history_explains_go_unasked() {
    let calls = ended_days_ago(5, 88);
    let site = Site::start(calls.clone(), "[retention]\nguard_minimum = 2").await;
    let app = site.app().await;
    bring_in(&app, Api::KrosaiV1).await;
    assert_eq!(swept(&app, Consent::Scheduled).await.due, 0);
    site.turn(days(3));
    let plan = swept(&app, Consent::Scheduled).await;
    assert_eq!((plan.due, plan.refused), (5, None));
    run_pending(&app).await;
    for call in &calls {
        assert_eq!(state(&app, call).await, RetentionState::Erased);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doubtful_clock_erases_nothing() {
    let calls = ended_days_ago(1, 85);
    let site = Site::start(calls.clone(), "").await;
    let app = site.app().await;
    bring_in(&app, Api::KrosaiV1).await;
    assert_eq!(swept(&app, Consent::Scheduled).await.refused, None);
    site.turn(SignedDuration::from_hours(-1));
    let back = swept(&app, Consent::Scheduled).await;
    assert!(back.refused.is_some_and(|reason| reason.contains("clock doubt")));
    site.turn(SignedDuration::from_hours(1) + days(9));
    let ahead = swept(&app, Consent::Scheduled).await;
    assert_eq!(ahead.due, 1);
    assert!(ahead.refused.is_some_and(|reason| reason.contains("clock doubt")));
    run_pending(&app).await;
    assert_eq!(state(&app, &calls[0]).await, RetentionState::Active);
    // Somebody has looked at the clock.
    assert_eq!(swept(&app, Consent::Forced).await.refused, None);
    run_pending(&app).await;
    assert_eq!(state(&app, &calls[0]).await, RetentionState::Erased);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kill_switch_stops_sweeps_and_erasures_until_it_is_turned_back() {
    let calls = ended_days_ago(2, 80);
    let mut site = Site::start(calls.clone(), "").await;
    let app = site.app().await;
    bring_in(&app, Api::KrosaiV1).await;
    let hold = place_hold(&app, &calls[1]).await;
    site.turn(days(11));
    assert_eq!(swept(&app, Consent::Scheduled).await.due, 1);
    app.store.close().await;

    site.configure("[retention]\nenabled = false");
    let off = site.app().await;
    let mut tx = off.store.begin().await.unwrap();
    off.store.release_hold(&mut tx, &hold, "counsel", off.now()).await.unwrap();
    tx.commit().await.unwrap();
    for consent in [Consent::Scheduled, Consent::Forced, Consent::Expecting(1)] {
        assert!(swept(&off, consent).await.refused.is_some_and(|reason| reason.contains("retention.enabled")));
    }
    run_pending(&off).await;
    assert_eq!(state(&off, &calls[0]).await, RetentionState::Condemned);
    assert_eq!(state(&off, &calls[1]).await, RetentionState::Active);
    off.store.close().await;

    site.configure("");
    let on = site.app().await;
    on.queue.bring_forward(Duration::from_secs(120)).await.unwrap();
    assert_eq!(swept(&on, Consent::Scheduled).await.refused, None);
    run_pending(&on).await;
    for call in &calls {
        assert_eq!(state(&on, call).await, RetentionState::Erased);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_command_line_a_run_is_dry_until_it_is_forced_and_counted() {
    let calls: Vec<SampleCall> =
        (1..=4).map(|n| SampleCall::numbered(Api::KrosaiV1, n, ago(SignedDuration::from_hours(1)))).collect();
    let site = Site::start(calls.clone(), "[retention]\nguard_minimum = 2").await;
    let mut args = vec!["trigger", "--source", "krosai"];
    args.extend(calls.iter().map(|call| call.id.as_str()));
    site.well(&args).await;
    site.well(&["work", "--until-idle"]).await;
    let hold =
        ["hold", "add", "--call", &calls[3].id, "--matter", "claim", "--by", "counsel", "--review-by", "2099-01-01"];
    site.well(&hold).await;
    for call in &calls {
        site.age(&call.id).await;
    }
    let plan_json = ["retention", "plan", "--json"];
    let planned = site.well(&plan_json).await.json();
    assert_eq!((planned["due"].as_u64(), planned["held"].as_u64()), (Some(3), Some(1)), "{planned}");
    assert!(planned["refused"].as_str().is_some_and(|reason| reason.contains('3')), "{planned}");

    let dry = site.well(&["retention", "run"]).await;
    assert!(dry.stderr.contains("nothing was erased"), "{dry:?}");
    for wrong in [&["retention", "run", "--force"][..], &["retention", "run", "--force", "--expect", "4"]] {
        let said = site.run(wrong).await;
        assert_eq!(said.code(), Some(1), "{said:?}");
        assert!(said.stderr.contains("refused"), "{said:?}");
    }
    assert_eq!(site.run(&["retention", "run", "--expect", "3"]).await.code(), Some(2));
    site.well(&["work", "--until-idle"]).await;
    assert_eq!(site.well(&plan_json).await.json(), planned, "something changed");

    site.well(&["retention", "run", "--force", "--expect", "3"]).await;
    site.well(&["work", "--until-idle"]).await;
    let app = site.app().await;
    for call in &calls[..3] {
        assert_eq!(state(&app, call).await, RetentionState::Erased);
    }
    assert_eq!(record(&app, &calls[3].id).await.outcome, Some(Outcome::Done));
    assert_eq!(plan(&app).await.unwrap().held, 1);
}
