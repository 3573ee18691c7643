//! Records of nothing but the bare facts: no sweep looks at them, and none refuses because of their number.

use aftercall::demo::{Api, SampleCall};
use aftercall::domain::{Outcome, RetentionState};
use aftercall::jobs::backfill;
use aftercall::jobs::retention_sweep::{Consent, plan};
use aftercall::store::{Db, NewBackfill, Origin};

use super::{bring_in, ended_days_ago, everything, state, swept};
use crate::harness::{Backend, Fixture, Plan, on_every_backend};
use crate::process::{Site, ago, days, record, run_pending, source};

on_every_backend!(a_backfill_beyond_the_term_leaves_nothing_due);

const GUARDED: &str = "[retention]\nguard_minimum = 2\n";

async fn a_backfill_beyond_the_term_leaves_nothing_due(backend: Backend) {
    let plan_of = Plan { settings: GUARDED, ..Plan::default() };
    let fixture = Fixture::planned(backend, plan_of, |now| {
        let of = |api, n: u32| SampleCall::numbered(api, n, now - days(91 + i64::from(n)));
        let mut calls: Vec<SampleCall> =
            Api::ALL.into_iter().flat_map(|api| (1..=4).map(move |n| of(api, n))).collect();
        let young = SampleCall::numbered(Api::Zudu, 9, now - days(1));
        calls.push(SampleCall { opt_out: true, ..young });
        calls
    })
    .await;
    for api in Api::ALL {
        fixture.start_backfill(api).await;
    }
    // By the id alone, too: the record was there before anybody knew how old the call is.
    fixture.trigger(Api::Zudu, "call-000001").await;
    fixture.run_pending().await;
    assert_eq!(fixture.record(Api::Zudu, "call-000009").await.outcome, Some(Outcome::OptedOut));
    assert_eq!(fixture.record(Api::Zudu, "call-000001").await.outcome, Some(Outcome::PastRetention));
    let plan = plan(&fixture.app).await.unwrap();
    assert_eq!((plan.due, plan.held, plan.refused), (0, 0, None));
    // What an opted-out call's term would have been changes nothing.
    fixture.advance(std::time::Duration::from_secs(95 * 86_400)).await;
    let later = aftercall::jobs::retention_sweep::plan(&fixture.app).await.unwrap();
    assert_eq!(later.due, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bare_facts_explain_no_number_of_due_calls_either() {
    // As many came too late as are due by and by: had they been stored, they would explain those.
    let site = Site::start(ended_days_ago(6, 88), GUARDED).await;
    let app = site.app().await;
    let Db::Sqlite(pool) = app.store.db() else { unreachable!("sites stand on SQLite") };
    bring_in(&app, Api::KrosaiV1).await;
    let from = app.now() - days(3);
    assert_eq!(app.store.ended_between(from - days(90), app.now()).await.unwrap(), 6);
    sqlx::query(
        "UPDATE call_record SET outcome = 'past_retention', original_json = NULL, artifacts_json = '[]', \
         quality_json = NULL, progress_json = NULL, transcript_version = 0, call_json = \
         json_remove(json_set(call_json, '$.turns', json('[]')), '$.agent_id', '$.phone_number_id', '$.from_number', \
         '$.to_number', '$.recording_url', '$.dual_url', '$.metadata', '$.analysis', '$.raw')",
    )
    .execute(pool)
    .await
    .unwrap();
    assert_eq!(app.store.ended_between(from - days(90), app.now()).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_holds_more_stays_due_whatever_its_outcome() {
    let calls = ended_days_ago(4, 80);
    let site = Site::start(calls.clone(), "").await;
    let app = site.app().await;
    // A store that is not there is taken for a disk that is not mounted, and blocks erasures.
    app.objects.check().await.unwrap();
    // Let in within its term, and looked at after it: what the list told of it is there.
    let window = everything();
    let name = source(Api::KrosaiV1);
    let new = NewBackfill {
        source: &name,
        from: window.from,
        to: window.to,
        again: false,
        origin: Origin::Command,
        now: app.now(),
    };
    backfill::start(&app, &new).await.unwrap().unwrap();
    aftercall::jobs::reconcile::balance(&app, &name, window).await.unwrap();
    site.turn(days(11));
    run_pending(&app).await;
    for call in &calls {
        let record = record(&app, &call.id).await;
        assert_eq!(record.outcome, Some(Outcome::PastRetention));
        assert!(record.call.is_some_and(|call| call.from_number.is_some()), "the list told its number");
    }
    assert_eq!(swept(&app, Consent::Scheduled).await.due, 4);
    run_pending(&app).await;
    let left = app.queue.jobs(aftercall::queue::FinishedJobs::Left, 20).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    for call in &calls {
        assert_eq!(state(&app, call).await, RetentionState::Erased);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_single_personal_thing_makes_a_record_due() {
    let site = Site::start(vec![SampleCall::numbered(Api::KrosaiV1, 1, ago(days(91)))], "").await;
    let app = site.app().await;
    bring_in(&app, Api::KrosaiV1).await;
    let Db::Sqlite(pool) = app.store.db() else { unreachable!("sites stand on SQLite") };
    let due = async || plan(&app).await.unwrap().due;
    assert_eq!(due().await, 0);
    let things = [
        ("from_number", "\"+1\""),
        ("to_number", "\"+1\""),
        ("metadata", "{\"a\":1}"),
        ("analysis", "{\"a\":1}"),
        ("recording_url", "\"https://a.test/b\""),
        ("dual_url", "\"https://a.test/b\""),
        ("raw", "{\"a\":1}"),
        ("turns", "[{\"role\":\"agent\"}]"),
    ];
    for (member, value) in things {
        let before: String = sqlx::query_scalar("SELECT call_json FROM call_record").fetch_one(pool).await.unwrap();
        sqlx::query("UPDATE call_record SET call_json = json_set(call_json, '$.' || $1, json($2))")
            .bind(member)
            .bind(value)
            .execute(pool)
            .await
            .unwrap();
        assert_eq!(due().await, 1, "{member}");
        sqlx::query("UPDATE call_record SET call_json = $1").bind(before).execute(pool).await.unwrap();
    }
    sqlx::query("UPDATE call_record SET original_json = '{}'").execute(pool).await.unwrap();
    assert_eq!(due().await, 1, "an object is something");
}
