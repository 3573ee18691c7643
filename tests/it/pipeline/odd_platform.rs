//! Platforms whose lists hold zeros for times, rows that are no JSON, and one call twice: no call is lost or given up.

use std::time::Duration;

use aftercall::demo::{Api, FaultAnswer, RequestKind, SampleCall};
use aftercall::domain::{Outcome, RetentionState};
use aftercall::jobs::Job;
use aftercall::jobs::retention_sweep::{self, Consent};
use aftercall::jobs::trigger::TriggerState;
use aftercall::queue::{JobState, Lane};
use aftercall::store::BackfillState;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{done, short};
use crate::harness::{Backend, Fixture, on_every_backend, source};

on_every_backend!(
    an_end_that_cannot_be_is_no_end,
    a_call_whose_times_are_mended_is_taken_up,
    a_call_past_its_term_stays_so_however_often_it_is_seen,
    a_kept_call_is_not_erased_for_a_zero,
    an_odd_row_holds_up_neither_reconciliation_nor_backfill,
    a_call_that_is_listed_as_going_and_as_over_is_done,
);

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn answer(body: String) -> FaultAnswer {
    FaultAnswer::Status { code: 200, headers: vec![("content-type", "application/json".to_owned())], body }
}

/// KrosAI's row of a call, which is also enough of a detail.
fn row(call: &SampleCall) -> Value {
    json!({ "id": call.id, "status": "completed", "created_at": call.created_at(), "answered_at": call.answered_at(),
        "completed_at": call.ended_at, "duration": call.duration_ms as f64 / 1000.0,
        "transcript": "[Agent]: Hello there.\n[Caller]: Good morning." })
}

/// Answers for KrosAI: this list, and each row as its call's detail.
fn tell(fixture: &Fixture, rows: Vec<Value>) {
    fixture.platform.set_faults(move |asked| match asked.kind {
        RequestKind::List => Some(answer(json!({ "calls": rows, "total": rows.len() }).to_string())),
        RequestKind::Detail => {
            rows.iter().find(|row| row["id"].as_str() == asked.call_id.as_deref()).map(|row| answer(row.to_string()))
        }
        _ => None,
    });
}

async fn an_end_that_cannot_be_is_no_end(backend: Backend) {
    const ENDS: [&str; 7] = [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00",
        "1970-01-01T01:00:00+01:00",
        "1899-12-31T00:00:00Z",
        "2000-01-01T00:00:00Z",
        "2019-05-05T12:00:00Z",
        "9999-12-31T23:59:59Z",
    ];
    let mut calls = Vec::new();
    let fixture = Fixture::start(backend, |now| {
        calls = (1..).zip(ENDS).map(|(n, _)| short(Api::KrosaiV1, n, now - Duration::from_secs(600))).collect();
        calls.clone()
    })
    .await;
    let rows = calls.iter().zip(ENDS).map(|(call, end)| {
        let mut row = row(call);
        row["completed_at"] = json!(end);
        row
    });
    tell(&fixture, rows.collect());
    let balance = fixture.reconcile(Api::KrosaiV1).await;
    assert_eq!((balance.listed, balance.running, balance.missing), (7, 7, 0), "{balance:?}");
    fixture.run_pending().await;
    let now = fixture.now();
    for (call, told) in calls.iter().zip(ENDS) {
        let record = fixture.record(Api::KrosaiV1, &call.id).await;
        done(&fixture, &record).await;
        assert_eq!(record.retention_basis, "answered_plus_duration", "{told}");
        let left = record.retain_until.duration_since(now);
        assert!(left > DAY * 89 && left < DAY * 90, "{told}: kept for {left:?}");
        let read = record.call.unwrap();
        assert!(
            read.ended_at_estimated
                && read.ended_at.unwrap().duration_since(call.ended_at).abs() < SignedDuration::from_secs(1)
        );
    }
}

/// The same call with times of now.
fn mended(fixture: &Fixture, call: &SampleCall) {
    fixture.platform.add_call(SampleCall { ended_at: fixture.now() - SignedDuration::from_mins(10), ..call.clone() });
}

async fn swept(fixture: &Fixture) -> u64 {
    let plan = retention_sweep::sweep(&fixture.app, Consent::Scheduled).await.unwrap();
    assert_eq!(plan.refused, None);
    fixture.run_pending().await;
    plan.due
}

async fn a_call_whose_times_are_mended_is_taken_up(backend: Backend) {
    let mut calls = Vec::new();
    let fixture = Fixture::start(backend, |now| {
        calls = Api::ALL.map(|api| SampleCall::numbered(api, 1, now - DAY * 150)).to_vec();
        calls.clone()
    })
    .await;
    for call in &calls {
        assert_eq!(fixture.reconcile(call.api).await.terminal["past_retention"], 1);
    }
    let of = |api: Api| calls.iter().find(|call| call.api == api).unwrap();
    let first = of(Api::KrosaiV1);
    mended(&fixture, first);
    assert_eq!(fixture.reconcile(first.api).await.running, 1);
    fixture.run_pending().await;
    done(&fixture, &fixture.record(first.api, &first.id).await).await;

    // A sweep leaves the bare facts of a call that came too late.
    assert_eq!(swept(&fixture).await, 0);
    for call in &calls[1..] {
        let record = fixture.record(call.api, &call.id).await;
        let ended = (record.retention_state, record.outcome);
        assert_eq!(ended, (RetentionState::Active, Some(Outcome::PastRetention)));
        assert_eq!(fixture.trigger(call.api, &call.id).await.state, TriggerState::AlreadyDone);
        mended(&fixture, call);
    }
    assert_eq!(fixture.reconcile(Api::Atoms).await.running, 1);
    fixture.start_backfill(Api::Zudu).await;
    assert_eq!(fixture.trigger_again(Api::KrosaiCockpit, &of(Api::KrosaiCockpit).id).await.state, TriggerState::Queued);
    fixture.run_pending().await;
    for call in &calls {
        let record = fixture.record(call.api, &call.id).await;
        done(&fixture, &record).await;
        assert!(record.retain_until.duration_since(fixture.now()) > DAY * 89, "{record:?}");
    }
    assert_eq!(swept(&fixture).await, 0);
}

async fn a_call_past_its_term_stays_so_however_often_it_is_seen(backend: Backend) {
    let mut calls = Vec::new();
    let fixture = Fixture::start(backend, |now| {
        calls = Api::ALL.map(|api| SampleCall::numbered(api, 1, now - DAY * 100)).to_vec();
        calls.clone()
    })
    .await;
    // Where nothing was ever stored there is no directory that could prove to be empty.
    std::fs::create_dir_all(&fixture.config.objects.path).unwrap();
    for round in 0..3 {
        for call in &calls {
            let balance = fixture.reconcile(call.api).await;
            assert_eq!((balance.terminal["past_retention"], balance.enqueued), (1, 0), "{round}: {balance:?}");
            fixture.start_backfill(call.api).await;
        }
        fixture.run_pending().await;
        fixture.advance(Duration::from_secs(7200)).await;
        assert_eq!(swept(&fixture).await, 0);
    }
    for call in &calls {
        for kind in [RequestKind::Detail, RequestKind::RecordingLink, RequestKind::Recording] {
            assert_eq!(fixture.asked(kind, &call.id), 0, "{kind:?} of {}", call.id);
        }
    }
    // Asked for by hand the source is asked once more, and says the same.
    for call in &calls {
        assert_eq!(fixture.trigger_again(call.api, &call.id).await.state, TriggerState::Queued);
    }
    fixture.run_pending().await;
    for call in &calls {
        let record = fixture.record(call.api, &call.id).await;
        assert_eq!(record.outcome, Some(Outcome::PastRetention));
        assert!(record.outcome_reason.is_some_and(|reason| reason.contains("term ended")));
        assert_eq!(
            (fixture.asked(RequestKind::Detail, &call.id), fixture.asked(RequestKind::Recording, &call.id)),
            (1, 0)
        );
        assert_eq!(fixture.reconcile(call.api).await.enqueued, 0);
    }
    assert_eq!(swept(&fixture).await, 0, "nothing of it is stored");
}

async fn a_kept_call_is_not_erased_for_a_zero(backend: Backend) {
    let mut call = None;
    let fixture = Fixture::start(backend, |now| {
        call = Some(short(Api::KrosaiV1, 1, now));
        call.clone().into_iter().collect()
    })
    .await;
    let call = call.unwrap();
    fixture.reconcile(call.api).await;
    fixture.run_pending().await;
    let before = fixture.record(call.api, &call.id).await;
    for zero in ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2001-01-01T00:00:00Z"] {
        let mut told = row(&call);
        told["completed_at"] = json!(zero);
        told["answered_at"] = json!(zero);
        tell(&fixture, vec![told]);
        fixture.reconcile(call.api).await;
        fixture.trigger_again(call.api, &call.id).await;
        fixture.run_pending().await;
        let after = fixture.record(call.api, &call.id).await;
        assert_eq!((after.outcome, after.retention_state), (Some(Outcome::Done), RetentionState::Active));
        assert!(after.retain_until.duration_since(before.retain_until).abs() < SignedDuration::from_mins(1), "{zero}");
        assert_eq!(swept(&fixture).await, 0);
    }
}

async fn an_odd_row_holds_up_neither_reconciliation_nor_backfill(backend: Backend) {
    let mut calls = Vec::new();
    let fixture = Fixture::start(backend, |now| {
        calls = (1..=4).map(|n| short(Api::KrosaiV1, n, now)).collect();
        calls.clone()
    })
    .await;
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let odd = |n: usize, more: &str| row(&calls[n]).to_string().replacen('{', &format!("{{{more},"), 1);
    let rows = [
        odd(0, r#""note":"\ud83d""#),
        r#"{"id":"broken","status":"completed","note":"a"b"}"#.to_owned(),
        odd(1, r#""score":NaN,"cost_cents":1e999"#),
        format!(r#"{{"id":"deep","status":"completed","metadata":{deep}}}"#),
        odd(2, "\"note\":\"a\u{1}b\\u0000\""),
        odd(3, r#""organization_id":"o\u0000rg""#),
    ];
    let list = format!("{{\"calls\":[{}],\"total\":6}}", rows.join(","));
    let rows: Vec<Value> = calls.iter().map(row).collect();
    fixture.platform.set_faults(move |asked| match asked.kind {
        RequestKind::List => Some(answer(list.clone())),
        RequestKind::Detail => {
            rows.iter().find(|row| row["id"].as_str() == asked.call_id.as_deref()).map(|row| answer(row.to_string()))
        }
        _ => None,
    });
    let now = fixture.now();
    let window = (now - DAY * 2, now + SignedDuration::from_hours(1));
    let job = Job::Reconcile { source: source(Api::KrosaiV1), from: window.0, to: window.1 };
    let job = fixture.enqueue(job.queued(&fixture.app.app, Lane::Maintenance)).await;
    fixture.run_pending().await;
    assert_eq!(fixture.job(job.id).await.state, JobState::Completed);
    assert!(fixture.store.reconcile_state(&source(Api::KrosaiV1)).await.unwrap().tail_from.is_some(), "it moves on");
    for call in &calls {
        done(&fixture, &fixture.record(call.api, &call.id).await).await;
    }
    let balance = fixture.reconcile(Api::KrosaiV1).await;
    assert_eq!((balance.listed, balance.completed, balance.done, balance.unreadable), (6, 4, 4, 2), "{balance:?}");
    assert_eq!(
        (balance.unreadable_ids.as_slice(), balance.is_clear()),
        (&["broken".to_owned(), "deep".to_owned()][..], false)
    );
    let id = fixture.start_backfill(Api::KrosaiV1).await;
    fixture.run_pending().await;
    let backfill = fixture.backfill(&id).await;
    assert_eq!(
        (backfill.state, backfill.listed, backfill.skipped["unreadable"]),
        (BackfillState::Done, 6, 2),
        "{backfill:?}"
    );
}

async fn a_call_that_is_listed_as_going_and_as_over_is_done(backend: Backend) {
    let mut calls = Vec::new();
    let fixture = Fixture::start(backend, |now: Timestamp| {
        calls = (1..=3).map(|n| short(Api::KrosaiV1, n, now)).collect();
        calls.clone()
    })
    .await;
    let going = |call: &SampleCall| {
        let mut row = row(call);
        row["status"] = json!("in_progress");
        row["completed_at"] = Value::Null;
        row
    };
    // On one page, on a later page, and on an earlier one.
    let first = vec![going(&calls[0]), row(&calls[0]), going(&calls[1]), row(&calls[2])];
    let second = vec![row(&calls[1]), going(&calls[2])];
    fixture.platform.set_faults(move |asked| {
        let page =
            if asked.query.as_deref().is_some_and(|query| query.contains("offset=0")) { &first } else { &second };
        (asked.kind == RequestKind::List).then(|| answer(json!({ "calls": page, "total": 6 }).to_string()))
    });
    let balance = fixture.reconcile(Api::KrosaiV1).await;
    assert_eq!((balance.listed, balance.completed, balance.running), (3, 3, 3), "{balance:?}");
    let id = fixture.start_backfill(Api::KrosaiV1).await;
    fixture.run_pending().await;
    for call in &calls {
        assert_eq!(fixture.record(call.api, &call.id).await.outcome, Some(Outcome::Done));
    }
    let backfill = fixture.backfill(&id).await;
    assert_eq!((backfill.listed, backfill.skipped.contains_key("not_completed")), (3, false), "{backfill:?}");
}
