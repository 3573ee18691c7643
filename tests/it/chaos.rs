//! A fleet on its worst day: three worker processes on one PostgreSQL and one bucket, killed at random; the database
//! restarted; the platform and the bucket failing in every way they know. Nothing is lost, nothing happens twice.
//!
//! `AFTERCALL_CHAOS_CALLS=2000 cargo test --test it chaos -- --nocapture` is the full run.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aftercall::app::{App, Clock};
use aftercall::config::Config;
use aftercall::demo::{self, Api, FaultAnswer, RequestInfo, SampleCall, SamplePlatform};
use aftercall::domain::Outcome;
use aftercall::jobs::{backfill, reconcile};
use aftercall::queue::{FinishedJobs, JobState};
use aftercall::store::{CallFilter, Db, NewBackfill, Origin};
use aftercall::wire::Window;
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::fake_s3::{ACCESS_KEY_ID, BUCKET, FakeS3, Fault, SECRET_ACCESS_KEY};
use crate::harness::dice;
use crate::postgres;
use crate::process::{ago, source};

const WORKERS: usize = 3;
/// What the issue promises: work of a killed worker is resumed within this time.
const LONGEST_STALL: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);
const BETWEEN_KILLS: Duration = Duration::from_secs(6);

fn total() -> u32 {
    std::env::var("AFTERCALL_CHAOS_CALLS").map_or(120, |calls| calls.parse().unwrap())
}

fn platform_fault(request: &RequestInfo) -> Option<FaultAnswer> {
    // Each of these costs its caller a minute: in the full run only.
    if total() >= 1000 && dice::dice(request).is_multiple_of(701) && !dice::writes(request) {
        return Some(FaultAnswer::Hang);
    }
    dice::fault(request)
}

fn bucket_fault(operation: &'static str, number: usize) -> Option<Fault> {
    match number % 41 {
        7 => Some(Fault::Busy),
        23 if operation == "PutObject" => Some(Fault::FailAfterCommit),
        _ => None,
    }
}

fn settings(dir: &Path, url: &str, bucket: &FakeS3, base_url: &str) -> String {
    let data = dir.display();
    let endpoint = bucket.endpoint();
    format!(
        "data_dir = \"{data}\"\n[store]\nurl = \"{url}\"\n[objects]\nkind = \"s3\"\nbucket = \"{BUCKET}\"\n\
         endpoint = \"{endpoint}\"\naccess_key_id = \"{ACCESS_KEY_ID}\"\nsecret_access_key = \"{SECRET_ACCESS_KEY}\"\n\
         timeout = \"5s\"\n[worker]\nconcurrency = 4\ncpu_concurrency = 1\npoll = \"50ms\"\nbackoff_base = \"100ms\"\n\
         backoff_max = \"2s\"\nmax_attempts = 30\nrest_look = \"500ms\"\n[fetch]\nnot_ready_pause = \"200ms\"\n\
         [schedule]\nenabled = false\n[log]\nlevel = \"warn\"\n{}",
        demo::sources_toml(base_url)
    )
}

/// A worker process that is started again whenever it ends, as whatever keeps services running does.
struct Slot {
    dir: std::path::PathBuf,
    child: Child,
    starts: u32,
}

impl Slot {
    fn start(dir: std::path::PathBuf) -> Self {
        let child = Self::spawn(&dir);
        Self { dir, child, starts: 1 }
    }

    fn spawn(dir: &Path) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        Command::new(env!("CARGO_BIN_EXE_aftercall"))
            .env_clear()
            .current_dir(dir)
            .args(["--config", "aftercall.toml", "work"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    fn revive(&mut self) {
        if self.child.try_wait().unwrap().is_some() {
            self.child = Self::spawn(&self.dir);
            self.starts += 1;
        }
    }

    /// How often it took no work because it could not.
    fn rests(&self) -> usize {
        std::fs::read_to_string(self.dir.join("log")).unwrap().matches("takes no work").count()
    }

    async fn kill(&mut self) -> u32 {
        let id = self.child.id().unwrap_or(0);
        let _ = self.child.kill().await;
        self.revive();
        id
    }
}

/// A job in the hands of a dead worker.
struct Stall {
    job: i64,
    worker: String,
    since: Instant,
    /// When it was first seen to wait for another worker.
    given_back: Option<Instant>,
}

#[derive(Default)]
struct Stalls {
    open: Vec<Stall>,
    longest: Duration,
    resumed: usize,
}

impl Stalls {
    /// The jobs that the process with this id was running.
    async fn killed(&mut self, app: &App, process: u32) {
        let Db::Postgres(pool) = app.store.db() else { unreachable!("a fleet stands on PostgreSQL") };
        let running: Vec<(i64, String)> = sqlx::query_as(
            "SELECT id, attempted_by[array_length(attempted_by, 1)] FROM river_job WHERE state = 'running' \
             AND attempted_by[array_length(attempted_by, 1)] LIKE $1",
        )
        .bind(format!("{process}-%"))
        .fetch_all(pool)
        .await
        .unwrap_or_default();
        let since = Instant::now();
        self.open.extend(running.into_iter().map(|(job, worker)| Stall { job, worker, since, given_back: None }));
    }

    async fn look(&mut self, app: &App) {
        let Db::Postgres(pool) = app.store.db() else { return };
        let jobs: Vec<i64> = self.open.iter().map(|stall| stall.job).collect();
        let Ok(now) = sqlx::query_as::<_, (i64, String, String)>(
            "SELECT id, CASE WHEN state = 'running' THEN attempted_by[array_length(attempted_by, 1)] \
             WHEN state = 'available' THEN 'waiting' ELSE 'elsewhere' END, kind FROM river_job WHERE id = ANY($1)",
        )
        .bind(&jobs)
        .fetch_all(pool)
        .await
        else {
            return;
        };
        for mut stall in std::mem::take(&mut self.open) {
            let owner = now.iter().find(|(id, ..)| *id == stall.job);
            match owner {
                Some((_, owner, _)) if *owner == stall.worker => self.open.push(stall),
                Some((_, owner, _)) if owner == "waiting" => {
                    stall.given_back.get_or_insert_with(Instant::now);
                    self.open.push(stall);
                }
                _ => self.resumed(&stall, owner.map_or("", |(.., kind)| kind)),
            }
        }
    }

    fn resumed(&mut self, stall: &Stall, kind: &str) {
        let after = stall.since.elapsed();
        if after > self.longest {
            let given_back = stall.given_back.map(|at| at.duration_since(stall.since));
            eprintln!("{kind} given back after {given_back:.1?}, resumed after {after:.1?}");
        }
        self.longest = self.longest.max(after);
        self.resumed += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_on_its_worst_day_loses_nothing_and_repeats_nothing() {
    let Some(cluster) = postgres::own() else { return };
    let cluster = Arc::new(cluster);
    let each = total() / 4;
    let of =
        |api| (0..each).map(move |n| SampleCall::numbered(api, n, ago(SignedDuration::from_mins(i64::from(n) + 2))));
    let calls: Vec<SampleCall> = Api::ALL.into_iter().flat_map(of).collect();
    let platform = SamplePlatform::builder(Arc::new(Timestamp::now)).calls(calls.clone()).build();
    for call in calls.iter().filter(|call| call.api == Api::Atoms) {
        platform.register_record(&call.id, json!({ "call_id": call.id, "status": "completed" }));
    }
    let serving = platform.serve(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
    let bucket = FakeS3::start().await;
    let place = tempfile::Builder::new().prefix("aftercall-chaos-").tempdir().unwrap();
    let url = cluster.database();
    let ours = place.path().join("ours");
    let app =
        App::build(Config::from_toml(&settings(&ours, &url, &bucket, &serving.base_url())).unwrap(), Clock::system())
            .await
            .unwrap();
    let window = Window { from: ago(SignedDuration::from_hours(24 * 30)), to: ago(SignedDuration::from_hours(-1)) };
    for api in Api::ALL {
        let (source, Window { from, to }) = (source(api), window);
        let new = NewBackfill { source: &source, from, to, again: false, origin: Origin::Command, now: app.now() };
        backfill::start(&app, &new).await.unwrap().unwrap();
    }
    platform.set_faults(platform_fault);
    bucket.set_hook(Some(bucket_fault));
    let mut slots = Vec::new();
    for n in 0..WORKERS {
        let dir = place.path().join(format!("worker-{n}"));
        std::fs::create_dir_all(&dir).unwrap();
        let text = settings(&dir.join("data"), &url, &bucket, &serving.base_url());
        std::fs::write(dir.join("aftercall.toml"), text).unwrap();
        slots.push(Slot::start(dir));
    }

    let started = Instant::now();
    let limit = Duration::from_secs(120 + u64::from(total()) * 2);
    let (mut stalls, mut kills, mut restarts) = (Stalls::default(), 0_usize, 0_usize);
    let mut next_kill = started + BETWEEN_KILLS;
    loop {
        tokio::time::sleep(LOOK).await;
        slots.iter_mut().for_each(Slot::revive);
        stalls.look(&app).await;
        let left = app.queue.jobs(FinishedJobs::Left, 5).await;
        if matches!(&left, Ok(left) if left.is_empty()) && stalls.open.is_empty() {
            break;
        }
        assert!(started.elapsed() < limit, "not done after {limit:?}: {left:?}");
        if Instant::now() < next_kill {
            continue;
        }
        next_kill = Instant::now() + BETWEEN_KILLS;
        if kills % 3 == 2 {
            let (server, mode) = (cluster.clone(), if restarts.is_multiple_of(2) { "immediate" } else { "fast" });
            tokio::task::spawn_blocking(move || server.restart(mode)).await.unwrap();
            restarts += 1;
            kills += 1;
        } else {
            let victim = &mut slots[kills % WORKERS];
            let process = victim.child.id().unwrap_or(0);
            let killed = victim.kill().await;
            assert!(killed == process || killed == 0);
            stalls.killed(&app, process).await;
            kills += 1;
        }
    }
    let took = started.elapsed();
    let starts: u32 = slots.iter().map(|slot| slot.starts).sum();
    let rests: usize = slots.iter().map(Slot::rests).sum();
    drop(slots);
    platform.clear_faults();
    bucket.set_hook(None);

    let mut lost = 0;
    for api in Api::ALL {
        let balance = reconcile::balance(&app, &source(api), window).await.unwrap();
        let ended: u64 = balance.terminal.values().sum();
        assert_eq!((balance.missing, balance.running, balance.enqueued), (0, 0, 0), "{balance:?}");
        assert_eq!(balance.done + ended, balance.completed, "{balance:?}");
        assert_eq!((balance.dead_letters, balance.unreadable), (0, 0), "{balance:?}");
        lost += u64::from(each) - balance.completed;
        eprintln!("{}: done {}, otherwise {:?}", balance.source, balance.done, balance.terminal);
    }
    let twice = repeated(&app, &platform).await;
    let orphans = orphans(&app).await;
    eprintln!(
        "{} calls in {took:?}: {kills} kills and restarts (of the database {restarts}), {starts} worker starts, {rests} \
         rests, {} jobs of dead workers resumed, longest after {:?}; lost {lost}, repeated {twice}, orphans {orphans}",
        calls.len(),
        stalls.resumed,
        stalls.longest
    );
    assert_eq!((lost, twice, orphans), (0, 0, 0));
    assert!(stalls.longest <= LONGEST_STALL, "{:?}", stalls.longest);
    assert!(restarts > 0 && kills > restarts, "nothing went wrong: this was no chaos");
}

/// Write-backs, transcripts or jobs that happened twice.
async fn repeated(app: &App, platform: &SamplePlatform) -> usize {
    let mut twice = 0;
    for record in app.store.calls(&CallFilter::default()).await.unwrap() {
        let id = record.call_id.as_str();
        let effects = match record.source.as_str() {
            "zudu" => platform.effects(id),
            "atoms" => platform.record(id).map_or(0, |record| record.effects),
            _ => 1,
        };
        assert!(effects > 0, "{id} was never written back");
        let versions = app.store.transcripts(record.uid).await.unwrap().len();
        assert!(versions == 1 || record.outcome != Some(Outcome::Done), "{id}: {versions} versions");
        twice += usize::from(effects > 1) + versions.saturating_sub(1);
    }
    let jobs = app.queue.jobs(FinishedJobs::Included, u64::MAX).await.unwrap();
    let unwell = jobs.iter().filter(|job| job.state != JobState::Completed).count();
    assert_eq!(unwell, 0, "jobs that did not end well");
    let mut subjects = BTreeSet::new();
    let processed = jobs.iter().filter(|job| job.kind == "process_call");
    twice + processed.filter(|job| !subjects.insert(job.subject.clone())).count()
}

/// Objects that no record names.
async fn orphans(app: &App) -> usize {
    let records = app.store.calls(&CallFilter::default()).await.unwrap();
    let named: BTreeSet<String> = records
        .iter()
        .flat_map(|record| record.artifacts.iter().map(|artifact| artifact.key.as_str().to_owned()))
        .collect();
    let there: Vec<_> = app.objects.list_all(None).try_collect().await.unwrap();
    there.iter().filter(|entry| !named.contains(&entry.key)).inspect(|entry| eprintln!("orphan {}", entry.key)).count()
}
