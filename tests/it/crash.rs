//! What is left when a worker dies at any moment: real processes, killed by signals. However and whenever one ends,
//! the next finds everything it needs, and the world sees each call once.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aftercall::app::App;
use aftercall::demo::{Api, FaultAnswer, RequestKind, SampleCall};
use aftercall::domain::{Outcome, RetentionState};
use aftercall::queue::{FinishedJobs, JobState};
use jiff::SignedDuration;

use crate::process::{Site, ago, files_below, holding, record, terminate};

/// Kills per boundary. A full run (`AFTERCALL_CRASH_ROUNDS=20`) takes minutes.
fn rounds() -> u32 {
    std::env::var("AFTERCALL_CRASH_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap())
}

fn calls(api: Api, count: u32) -> Vec<SampleCall> {
    (1..=count).map(|n| SampleCall::numbered(api, n, ago(SignedDuration::from_mins(i64::from(n))))).collect()
}

fn ids(calls: &[SampleCall]) -> Vec<String> {
    calls.iter().map(|call| call.id.clone()).collect()
}

macro_rules! killed_at {
    ($($boundary:ident: attempts $attempts:literal;)+) => {
        mod killed_at {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $boundary() {
                    super::killed(stringify!($boundary), $attempts).await;
                }
            )+
        }
    };
}

killed_at! {
    source: attempts 2;
    fetch: attempts 2;
    put_original: attempts 2;
    original: attempts 2;
    audio: attempts 2;
    put_audio: attempts 2;
    quality: attempts 2;
    artifacts: attempts 2;
    manifest: attempts 2;
    before_commit: attempts 2;
    writeback: attempts 1;
}

/// Kills a worker at this boundary once per call, and lets the next one go on.
async fn killed(boundary: &str, attempts: i64) {
    let calls = calls(Api::Atoms, rounds());
    let ids = ids(&calls);
    let site = Site::start(calls, "").await;
    for id in &ids {
        site.well(&["trigger", id, "--source", "atoms"]).await;
        let mut worker = site.parking_worker(boundary);
        worker.hear("parked").await;
        worker.kill().await;
        site.well(&["work", "--until-idle"]).await;
    }
    let app = site.app().await;
    for id in &ids {
        ended_once(&site, &app, id).await;
        let asked = site.platform.requests().of(RequestKind::Recording, id);
        assert_eq!(asked, 1, "{id}: a recording that had arrived was asked for again");
        let uid = record(&app, id).await.uid.to_string();
        let jobs = app.queue.jobs_about(&uid).await.unwrap();
        let processing: Vec<_> = jobs.iter().filter(|job| job.kind == "process_call").collect();
        assert_eq!(processing.len(), 1, "{id}: {jobs:?}");
        assert_eq!(processing[0].attempt, attempts, "{id}: was it killed where it should be?");
    }
    nothing_lies_about(&site, &app).await;
}

/// Done, one transcript, one effect at the receiver, every artifact there and whole.
async fn ended_once(site: &Site, app: &App, id: &str) {
    let record = record(app, id).await;
    assert_eq!(record.outcome, Some(Outcome::Done), "{id}");
    assert_eq!(record.transcript_version, 1, "{id}");
    assert_eq!(app.store.transcripts(record.uid).await.unwrap().len(), 1, "{id}");
    assert_eq!(site.platform.record(id).map(|record| record.effects), Some(1), "{id}: write-backs");
    for artifact in &record.artifacts {
        app.objects.get(artifact).await.unwrap_or_else(|err| panic!("{id}: {err}"));
    }
}

/// No object but those of the records, no file in the spool, no job that has not ended well.
async fn nothing_lies_about(site: &Site, app: &App) {
    nothing_but(site, app, files_below(&site.objects_dir())).await;
}

/// The same for these files of the object store.
async fn nothing_but(site: &Site, app: &App, stored: Vec<PathBuf>) {
    let objects = site.objects_dir();
    let known: BTreeSet<PathBuf> = app
        .store
        .calls(&aftercall::store::CallFilter::default())
        .await
        .unwrap()
        .iter()
        .flat_map(|record| record.artifacts.iter().map(|artifact| objects.join(artifact.key.as_str())))
        .collect();
    let there: BTreeSet<PathBuf> = stored.into_iter().collect();
    assert_eq!(there.difference(&known).collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "objects no record names");
    assert_eq!(files_below(&site.data_dir().join("spool")), Vec::<PathBuf>::new());
    let left = app.queue.jobs(FinishedJobs::Left, 1000).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jobs_of_a_killed_worker_are_resumed_at_once() {
    let calls = calls(Api::Atoms, 1);
    let id = calls[0].id.clone();
    // A heartbeat that would be believed for an hour: only the lock can tell that its owner is dead.
    let site = Site::start(calls, "[worker]\nsilent_after = \"1h\"\n[log]\nlevel = \"info\"").await;
    site.well(&["trigger", &id, "--source", "atoms"]).await;
    let mut worker = site.parking_worker("original");
    worker.hear("parked").await;
    worker.kill().await;
    let started = Instant::now();
    let mut next = site.spawn(&["work"], &[]);
    next.hear(r#"outcome="delivered""#).await;
    eprintln!("resumed and delivered {:?} after the restart", started.elapsed());
    terminate(next.id());
    assert!(next.end().await.0.success());
    let app = site.app().await;
    ended_once(&site, &app, &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_terminated_worker_finishes_what_it_has_begun_and_leaves_the_rest() {
    let calls = calls(Api::Atoms, 12);
    let ids = ids(&calls);
    let site = Site::start(calls, "[worker]\nconcurrency = 2\n[log]\nlevel = \"info\"").await;
    let mut trigger = vec!["trigger", "--source", "atoms"];
    trigger.extend(ids.iter().map(String::as_str));
    site.well(&trigger).await;
    // The signal comes while the third recording is being asked for, so a job is in the middle of its work.
    let worker_id = Arc::new(AtomicU32::new(0));
    let (target, asked) = (worker_id.clone(), AtomicU32::new(0));
    site.platform.set_faults(move |request| {
        if request.kind == RequestKind::Recording && asked.fetch_add(1, Ordering::SeqCst) == 2 {
            while target.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            terminate(target.load(Ordering::SeqCst));
        }
        None
    });
    let mut worker = site.spawn(&["work"], &[]);
    worker_id.store(worker.id(), Ordering::SeqCst);
    worker.hear("draining").await;
    let (status, _) = worker.end().await;
    assert!(status.success(), "{status}");
    let app = site.app().await;
    let jobs = app.queue.jobs(FinishedJobs::Left, 1000).await.unwrap();
    assert!(jobs.iter().all(|job| job.attempt == 0 && job.state == JobState::Available), "{jobs:?}");
    assert!(jobs.iter().any(|job| job.kind == "process_call"), "it did everything: the signal came too late to matter");
    app.store.close().await;
    site.well(&["work", "--until-idle"]).await;
    let app = site.app().await;
    for id in &ids {
        ended_once(&site, &app, id).await;
        assert_eq!(site.platform.requests().of(RequestKind::Recording, id), 1, "{id} was broken off");
    }
    nothing_lies_about(&site, &app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_second_signal_stops_at_once_and_costs_no_attempt() {
    let calls = calls(Api::Atoms, 1);
    let id = calls[0].id.clone();
    let site = Site::start(calls, "[worker]\ndrain_grace = \"1h\"\n[log]\nlevel = \"info\"").await;
    site.well(&["trigger", &id, "--source", "atoms"]).await;
    let (send, mut asked) = tokio::sync::mpsc::unbounded_channel();
    site.platform.set_faults(move |request| {
        if request.kind != RequestKind::Recording {
            return None;
        }
        send.send(()).unwrap();
        Some(FaultAnswer::StallAfter(1000))
    });
    let mut worker = site.spawn(&["work"], &[]);
    asked.recv().await.unwrap();
    terminate(worker.id());
    worker.hear("draining").await;
    let signalled = Instant::now();
    terminate(worker.id());
    let (status, _) = worker.end().await;
    eprintln!("ended {:?} after the second signal", signalled.elapsed());
    assert!(status.success(), "{status}");
    assert!(signalled.elapsed() < Duration::from_secs(15), "{:?}", signalled.elapsed());
    let app = site.app().await;
    let jobs = app.queue.jobs(FinishedJobs::Left, 1000).await.unwrap();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!((jobs[0].attempt, jobs[0].state), (0, JobState::Available), "{jobs:?}");
    app.store.close().await;
    site.platform.clear_faults();
    site.well(&["work", "--until-idle"]).await;
    let app = site.app().await;
    ended_once(&site, &app, &id).await;
    nothing_lies_about(&site, &app).await;
}

macro_rules! erasure_killed_at {
    ($($boundary:ident),+) => {
        mod erasure_killed_at {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $boundary() {
                    super::erasure_killed(stringify!($boundary)).await;
                }
            )+
        }
    };
}

erasure_killed_at!(erase_start, erase_deleted, erase_verified, erase_scrubbed, erase_log_emptied);

/// Kills a worker at this boundary of an erasure, once per call; a neighbour of the calls stays as it is.
async fn erasure_killed(boundary: &str) {
    let mut calls = calls(Api::Atoms, rounds() + 1);
    for (n, call) in calls.iter_mut().enumerate() {
        call.caller_number = format!("+1999555{n:04}");
    }
    let (neighbour, calls) = (calls[0].clone(), calls[1..].to_vec());
    let mut all = vec![neighbour.clone()];
    all.extend(calls.iter().cloned());
    let site = Site::start(all, "").await;
    let mut trigger = vec!["trigger", "--source", "atoms", &neighbour.id];
    trigger.extend(calls.iter().map(|call| call.id.as_str()));
    site.well(&trigger).await;
    site.well(&["work", "--until-idle"]).await;
    for call in &calls {
        assert!(!holding(&site.data_dir(), call.caller_number.as_bytes()).is_empty(), "the search finds nothing");
        site.age(&call.id).await;
        site.well(&["retention", "run", "--force"]).await;
        let mut worker = site.parking_worker(boundary);
        worker.hear("parked").await;
        worker.kill().await;
        site.well(&["work", "--until-idle"]).await;
        let found = holding(&site.data_dir(), call.caller_number.as_bytes());
        assert!(found.is_empty(), "{}: its number is still in {found:?}", call.id);
    }
    let app = site.app().await;
    for call in &calls {
        let record = record(&app, &call.id).await;
        assert_eq!(record.retention_state, RetentionState::Erased);
        assert_eq!(record.outcome, Some(Outcome::Erased));
        let audit = app.store.audit_entries(Some(&record.uid.to_string())).await.unwrap();
        let actions: Vec<&str> = audit.iter().map(|entry| entry.action.as_str()).collect();
        assert_eq!(actions, ["condemned", "erased"], "{}", call.id);
        assert_eq!(site.platform.requests().of(RequestKind::Recording, &call.id), 1, "{} came back", call.id);
    }
    ended_once(&site, &app, &neighbour.id).await;
    nothing_lies_about(&site, &app).await;
}

/// Kills of one worker during one backfill. The full run is `AFTERCALL_KILLS=60 AFTERCALL_KILL_CALLS=400`.
fn kills() -> (usize, u32) {
    let number = |name: &str| std::env::var(name).ok().map(|number| number.parse::<u32>().unwrap());
    (number("AFTERCALL_KILLS").unwrap_or(5) as usize, number("AFTERCALL_KILL_CALLS").unwrap_or(40))
}

/// More deaths than attempts: each of the lives of its worker has brought the backfill forward.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_outlives_its_workers() {
    let (kills, count) = kills();
    let calls: Vec<SampleCall> = (1..=count)
        .map(|n| {
            SampleCall::numbered(
                Api::Atoms,
                n,
                ago(SignedDuration::from_hours(2) + SignedDuration::from_secs(i64::from(n))),
            )
        })
        .collect();
    // As shipped there are twelve attempts: fewer, where there are fewer deaths.
    let attempts = if kills > 12 { 12 } else { 3 };
    let site = Site::start(calls.clone(), &format!("[worker]\nmax_attempts = {attempts}\n")).await;
    site.well(&["backfill", "start", "--source", "atoms", "--from", "2020-01-01"]).await;
    let recordings = || site.platform.requests().count(RequestKind::Recording);
    let started = Instant::now();
    for _ in 0..kills {
        let (before, worker) = (recordings(), site.spawn(&["work"], &[]));
        // Some calls of each life come to their end; what is in the middle of its work dies with its worker.
        let wanted = (before + (count as usize / (kills + 1)).max(2)).min(count as usize);
        while recordings() < wanted {
            assert!(started.elapsed() < Duration::from_secs(1200), "stands still at {} of {count}", recordings());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        worker.kill().await;
    }
    site.well(&["work", "--until-idle"]).await;
    let app = site.app().await;
    let jobs = app.queue.jobs(FinishedJobs::Included, u64::MAX).await.unwrap();
    let dead: Vec<_> = jobs.iter().filter(|job| job.state == JobState::DeadLetter).collect();
    assert!(dead.is_empty(), "{dead:?}");
    let backfill = jobs.iter().find(|job| job.kind == "backfill").unwrap();
    eprintln!(
        "{count} calls, {kills} kills in {:?}: the backfill's job was started {} times",
        started.elapsed(),
        backfill.attempt
    );
    let over = app.store.backfills().await.unwrap().remove(0);
    assert_eq!((over.done, over.failed), (u64::from(count), 0), "{over:?}");
    for call in &calls {
        ended_once(&site, &app, &call.id).await;
    }
    // A worker killed in the middle of a write leaves a temporary file, which is erased with its call.
    let mut stored = files_below(&site.objects_dir());
    stored.retain(|file| !file.file_name().unwrap().to_string_lossy().starts_with(".tmp-"));
    nothing_but(&site, &app, stored).await;
}
