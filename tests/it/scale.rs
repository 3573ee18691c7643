//! Many calls and a bad day: one request in twenty goes wrong in one of six ways, and still nothing is lost and
//! nothing happens twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aftercall::app::App;
use aftercall::demo::{Api, SampleCall};
use aftercall::domain::Outcome;
use aftercall::jobs::backfill;
use aftercall::jobs::reconcile;
use aftercall::jobs::reconcile::Balance;
use aftercall::queue::{FinishedJobs, JobState};
use aftercall::store::{BackfillState, CallFilter, NewBackfill, Origin};
use aftercall::wire::Window;
use jiff::{SignedDuration, Timestamp};

use crate::harness::dice;
use crate::process::{Site, ago, run_pending, source};

/// How many calls in all. `AFTERCALL_SCALE_CALLS=10000` is the full run and takes long.
fn total() -> u32 {
    std::env::var("AFTERCALL_SCALE_CALLS").map_or(400, |calls| calls.parse().unwrap())
}

fn everything() -> Window {
    Window { from: Timestamp::UNIX_EPOCH, to: ago(SignedDuration::from_hours(-1)) }
}

/// A pass over the source's list; one that the platform's faults cut short is made again, as its job would be.
async fn balance(app: &App, api: Api) -> Balance {
    for _ in 0..20 {
        if let Ok(balance) = reconcile::balance(app, &source(api), everything()).await {
            return balance;
        }
    }
    panic!("no pass over {api:?} came to its end");
}

async fn start_backfills(app: &App) -> Vec<String> {
    let mut ids = Vec::new();
    for api in Api::ALL {
        let Window { from, to } = everything();
        let new = NewBackfill { source: &source(api), from, to, again: false, origin: Origin::Command, now: app.now() };
        ids.push(backfill::start(app, &new).await.unwrap().unwrap());
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_of_a_faulty_platform_is_accounted_for_and_written_back_once() {
    let each = total() / 4;
    let of = |api: Api| {
        (1..=each).map(move |n| SampleCall::numbered(api, n, ago(SignedDuration::from_secs(3600 + i64::from(n)))))
    };
    let calls: Vec<SampleCall> = Api::ALL.into_iter().flat_map(of).collect();
    let site = Site::start(calls.clone(), "[worker]\nconcurrency = 8\n[log]\nlevel = \"error\"").await;
    let faults = Arc::new(AtomicU64::new(0));
    let counted = faults.clone();
    site.platform.set_faults(move |request| {
        let fault = dice::fault(request);
        counted.fetch_add(u64::from(fault.is_some()), Ordering::Relaxed);
        fault
    });
    let app = site.app().await;
    let started = Instant::now();
    let backfills = start_backfills(&app).await;
    let balances = loop {
        run_pending(&app).await;
        let mut balances = Vec::new();
        for api in Api::ALL {
            balances.push(balance(&app, api).await);
        }
        let waiting = app.queue.jobs(FinishedJobs::Left, 1).await.unwrap();
        if waiting.is_empty() && balances.iter().all(|balance| balance.running == 0) {
            break balances;
        }
        // A platform that names no pause is given half a minute; nobody has to sit through it here.
        app.queue.bring_forward(Duration::from_secs(60)).await.unwrap();
        assert!(started.elapsed().as_secs() < 7200, "never done: {balances:?}");
    };
    let took = started.elapsed();
    for balance in &balances {
        let ended: u64 = balance.terminal.values().sum();
        assert_eq!(balance.completed, u64::from(each), "{balance:?}");
        assert_eq!((balance.missing, balance.done + ended), (0, balance.completed), "{balance:?}");
        assert_eq!((balance.dead_letters, balance.unreadable), (0, 0), "{balance:?}");
        assert!(balance.done * 100 >= balance.completed * 97, "{balance:?}");
    }
    for id in &backfills {
        let backfill = app.store.backfill(id).await.unwrap().unwrap();
        assert_eq!((backfill.state, backfill.failed), (BackfillState::Done, 0), "{backfill:?}");
    }
    nothing_happened_twice(&site, &app, &calls).await;
    let requests = site.platform.requests().iter().count();
    let (rate, faults) = (calls.len() as f64 / took.as_secs_f64(), faults.load(Ordering::Relaxed));
    eprintln!("{} calls in {took:?} ({rate:.1}/s), {requests} requests, {faults} faults", calls.len());
    for Balance { source, done, terminal, .. } in &balances {
        eprintln!("{source}: done {done}, ended otherwise {terminal:?}");
    }
}

async fn nothing_happened_twice(site: &Site, app: &App, calls: &[SampleCall]) {
    let records = app.store.calls(&CallFilter::default()).await.unwrap();
    assert_eq!(records.len(), calls.len());
    for record in &records {
        let id = record.call_id.as_str();
        let versions = app.store.transcripts(record.uid).await.unwrap().len();
        assert_eq!(versions, usize::try_from(record.transcript_version).unwrap(), "{id}");
        assert!(versions <= 1, "{id} has {versions} versions");
        if record.outcome == Some(Outcome::Done) {
            assert_eq!(versions, 1, "{id}");
        }
        let effects = match record.source.as_str() {
            "zudu" => Some(site.platform.effects(id)),
            "atoms" => Some(site.platform.record(id).map_or(0, |record| record.effects)),
            _ => None,
        };
        assert!(effects.is_none_or(|effects| effects == 1), "{id}: {effects:?} write-backs");
    }
    let jobs = app.queue.jobs(FinishedJobs::Included, 1_000_000).await.unwrap();
    let unwell: Vec<_> = jobs.iter().filter(|job| job.state != JobState::Completed).collect();
    assert!(unwell.is_empty(), "{unwell:?}");
    let processed = jobs.iter().filter(|job| job.kind == "process_call").count();
    assert_eq!(processed, calls.len(), "jobs made twice");
}
