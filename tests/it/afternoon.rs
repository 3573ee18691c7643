//! An operator's afternoon with a fleet: three workers and the API start at once on an empty PostgreSQL, and everything
//! that an operator meets happens to them while a backfill runs.
//!
//! `AFTERCALL_AFTERNOON_CALLS=2000 cargo test --test it afternoon -- --nocapture` is the full run.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use aftercall::app::{App, Clock};
use aftercall::config::Config;
use aftercall::demo::{Api, SampleCall, SampleRecording, ZuduDetail};
use aftercall::domain::Outcome;
use aftercall::queue::{FinishedJobs, JobState};
use aftercall::store::{CallFilter, CallRecord, Listing};
use aftercall::worker::{self, DataLock, Signals, Until};
use jiff::SignedDuration;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::eventually;
use crate::postgres::{self, Cluster};
use crate::process::{Process, Site, ago, files_below, record, terminate};
use crate::watch::{API, INFO, OPS, SmallDisk, get, get_from, listening};

const WORKERS: usize = 3;
const SOURCE: &str = "zudu";
/// Every 25th call has no recording: 4 %.
const WITHOUT: u32 = 25;
/// A call without a recording ends this long after it was first seen, at the latest, outages left out.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(120);
/// Jobs may be due this long while no worker runs one, outages left out.
const LONGEST_IDLE: Duration = Duration::from_secs(5);

fn total() -> u32 {
    std::env::var("AFTERCALL_AFTERNOON_CALLS").map_or(150, |calls| calls.parse().unwrap())
}

/// Calls of two hours ago. 4 % have no recording, 8 % show it at the third look.
fn calls() -> Vec<SampleCall> {
    let call = |n: u32| {
        let ended = ago(SignedDuration::from_hours(2) + SignedDuration::from_secs(i64::from(n)));
        let mut call = SampleCall::numbered(Api::Zudu, n, ended);
        call.recording = match n % WITHOUT {
            0 => SampleRecording::Never,
            1 | 2 => SampleRecording::AfterReads(2),
            _ => SampleRecording::Ready,
        };
        call
    };
    (1..=total()).map(call).collect()
}

/// The processes of the fleet and where they listen.
struct Fleet {
    site: Site,
    cluster: Arc<Cluster>,
    workers: Vec<(Process, SocketAddr)>,
    serve: (Process, SocketAddr, SocketAddr),
}

impl Fleet {
    /// Starts everything at once. Each process finds an empty database.
    async fn start(cluster: Arc<Cluster>) -> Self {
        let settings = format!(
            "[store]\nurl = \"{}\"\n[worker]\nbackfill_cpu = \"normal\"\nbackoff_base = \"1s\"\n\
             backoff_max = \"10s\"\nheartbeat = \"500ms\"\nsilent_after = \"5s\"\nrest_after = 3\n\
             rest_look = \"300ms\"\n[schedule]\nenabled = true",
            cluster.database()
        );
        // The brief detail would make each look at a call a walk through the list, which this fake renders slowly.
        let site = Site::with(calls(), &settings, |builder| builder.zudu_detail(ZuduDetail::Full)).await;
        let worker = |n: usize| {
            let data = site.place().join(format!("worker-{n}")).display().to_string();
            site.spawn(&["work"], &[OPS, INFO, ("AFTERCALL__DATA_DIR", &data)])
        };
        let mut starting: Vec<Process> = (0..WORKERS).map(worker).collect();
        let mut serve = site.spawn(&["serve"], &[OPS, API, INFO]);
        let mut workers = Vec::new();
        for mut process in starting.drain(..) {
            let at = listening(&mut process, "health and metrics listening").await;
            process.hear("worker started").await;
            workers.push((process, at));
        }
        let ops = listening(&mut serve, "health and metrics listening").await;
        let api = listening(&mut serve, "API listening").await;
        Self { site, cluster, workers, serve: (serve, ops, api) }
    }

    async fn count(&self, app: &App, outcome: Outcome) -> u64 {
        let listing = Listing { outcome: Some(outcome), ..Listing::default() };
        app.store.count_listed(&listing).await.unwrap_or(0)
    }

    /// Waits until this share of the calls is done.
    async fn done(&self, app: &App, percent: u32) {
        let wanted = u64::from(total() * percent / 100);
        let deadline = Instant::now() + Duration::from_secs(120 + u64::from(total()));
        while self.count(app, Outcome::Done).await < wanted {
            assert!(Instant::now() < deadline, "{percent} % of the calls are not done in time");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The status line of `/readyz` of each worker.
    async fn ready(&self) -> Vec<bool> {
        let mut ready = Vec::new();
        for (_, at) in &self.workers {
            ready.push(get(*at, "/readyz").await.starts_with("HTTP/1.1 200"));
        }
        ready
    }

    /// A worker with a clock ten days ahead joins. It moves no schedule.
    async fn skewed_worker(&self, app: &App) {
        let schedules = eventually("the schedules", async || {
            let rows = app.store.schedules().await.unwrap();
            (!rows.is_empty()).then_some(rows)
        });
        let before = schedules.await;
        let mut config = Config::from_toml(&std::fs::read_to_string(self.site.config_file()).unwrap()).unwrap();
        config.data_dir = self.site.place().join("skewed");
        let ahead = Arc::new(AtomicI64::new(10 * 86_400_000));
        let wrong = App::build(config, Clock::skewed(Arc::default(), ahead)).await.unwrap();
        let signals = Signals::default();
        let (inner, told) = (wrong.clone(), signals.clone());
        let working = tokio::spawn(async move {
            let lock = DataLock::take(&inner.config.data_dir).unwrap();
            worker::run(inner, &lock, Until::Stopped, told).await
        });
        eventually("the fleet to see the wrong clock", async || {
            let wrong = app.queue.wrong_clocks(Duration::from_secs(30)).await.unwrap();
            (!wrong.is_empty()).then_some(())
        })
        .await;
        signals.drain.cancel();
        signals.stop.cancel();
        working.await.unwrap().unwrap();
        let after = app.store.schedules().await.unwrap();
        for row in &after {
            let known = before.iter().find(|known| known.name == row.name);
            let moved = known.map_or(SignedDuration::ZERO, |known| row.next_at.duration_since(known.next_at));
            assert!(moved < SignedDuration::from_hours(25), "{} moved by {moved:#}", row.name);
        }
    }

    /// The database is stopped for some seconds. Commands and the API say so within seconds.
    async fn database_away(&self) {
        let stopping = self.cluster.clone();
        tokio::task::spawn_blocking(move || stopping.stop()).await.unwrap();
        let started = Instant::now();
        let said = self.site.run(&["calls", "list"]).await;
        assert_eq!(said.code(), Some(75), "{said:?}");
        assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
        assert!(get(self.serve.1, "/readyz").await.starts_with("HTTP/1.1 503"));
        assert!(get(self.serve.1, "/healthz").await.ends_with("ok"));
        let starting = self.cluster.clone();
        tokio::task::spawn_blocking(move || starting.restart("fast")).await.unwrap();
        eventually("all workers to be ready again", async || {
            self.ready().await.into_iter().all(|ready| ready).then_some(())
        })
        .await;
    }

    /// The object directory has no room for a while. Workers rest and use up no attempt.
    async fn no_room(&self) {
        let filler = self.site.objects_dir().join("filler");
        let (mut file, block) = (File::create(&filler).unwrap(), vec![1_u8; 1 << 16]);
        while file.write_all(&block).is_ok() {}
        // An open file keeps its room after its removal.
        drop(file);
        eventually("a worker to rest", async || self.ready().await.contains(&false).then_some(())).await;
        std::fs::remove_file(&filler).unwrap();
        eventually("all workers to be ready again", async || {
            self.ready().await.into_iter().all(|ready| ready).then_some(())
        })
        .await;
    }

    /// 2,000 connections of one address that ask for nothing keep nobody out.
    async fn idle_connections(&self) {
        let (_, ops, api) = &self.serve;
        let mut idle: Vec<TcpStream> = Vec::new();
        for n in 0..2000 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
            let stream = socket.connect(*api).await.unwrap();
            // The process of the tests may have few files open. The API closes those beyond its limit anyway.
            if n < 300 {
                idle.push(stream);
            }
        }
        let started = Instant::now();
        assert!(get_from("127.0.0.8", *api, "/healthz").await.unwrap().ends_with("ok"));
        assert!(get(*ops, "/healthz").await.ends_with("ok"));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }

    /// An object is deleted behind the store's back. The sweep flags its call, and `--again` fetches it once more.
    async fn lost_object(&self, app: &App) -> CallRecord {
        let call = self.some_done(app, 0).await;
        let lost = call.artifacts.first().expect("a done call has objects");
        std::fs::remove_file(self.site.objects_dir().join(lost.key.as_str())).unwrap();
        self.site.well(&["retention", "run", "--force", "--expect", "0"]).await;
        let listed = async || {
            let calls = self.site.well(&["calls", "list", "--flag", "missing_object", "--json"]).await.json();
            calls.as_array().map_or(0, Vec::len)
        };
        assert_eq!(listed().await, 1);
        self.site.well(&["trigger", call.call_id.as_str(), "--source", SOURCE, "--again"]).await;
        eventually("the lost object to be fetched again", async || {
            let mended = record(app, call.call_id.as_str()).await;
            (mended.transcript_version == 2 && !mended.flags.iter().any(|flag| flag == "missing_object")).then_some(())
        })
        .await;
        assert_eq!(listed().await, 0);
        call
    }

    /// The platform says after the fact that a call opted out. A trigger erases it.
    async fn late_opt_out(&self, app: &App) -> CallRecord {
        let call = self.some_done(app, 1).await;
        let sample = calls().into_iter().find(|sample| sample.id == call.call_id.as_str()).unwrap();
        self.site.platform.add_call(SampleCall { opt_out: true, ..sample });
        self.site.well(&["trigger", call.call_id.as_str(), "--source", SOURCE]).await;
        let prefix = call.uid.to_string();
        eventually("the call that opted out to be erased", async || {
            let files = files_below(&self.site.objects_dir());
            let there = files.iter().any(|file| file.to_string_lossy().contains(&prefix));
            let versions = app.store.transcripts(call.uid).await.unwrap().len();
            (!there && versions == 0).then_some(())
        })
        .await;
        call
    }

    async fn some_done(&self, app: &App, skip: usize) -> CallRecord {
        let filter = CallFilter { outcome: Some(Outcome::Done), ..CallFilter::default() };
        app.store.calls(&filter).await.unwrap().into_iter().nth(skip).expect("a call that is done")
    }

    async fn end(self) {
        let (serve, ..) = self.serve;
        for process in self.workers.into_iter().map(|(process, _)| process).chain([serve]) {
            terminate(process.id());
            let (ended, said) = process.end().await;
            assert!(ended.success(), "{said:?}");
        }
    }
}

/// Room for the objects of all calls.
fn disk_bytes() -> usize {
    total() as usize * (2 << 20)
}

/// Looks at the queue until `over`; returns the longest time in which jobs were due and no worker ran one.
async fn longest_idle(app: Arc<App>, outage: Arc<AtomicBool>, over: Arc<AtomicBool>) -> Duration {
    let (mut longest, mut since) = (Duration::ZERO, None::<Instant>);
    while !over.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let idle = app.queue.depth().await.is_ok_and(|(counts, _)| {
            let jobs = |wanted| counts.iter().find(|(kind, state, _)| kind == "process_call" && state == wanted);
            jobs("available").is_some_and(|(.., due)| *due >= 2) && jobs("running").is_none()
        });
        if !idle || outage.load(Ordering::SeqCst) {
            since = None;
            continue;
        }
        longest = longest.max(since.get_or_insert_with(Instant::now).elapsed());
    }
    longest
}

/// Sets the mark while something is away, and returns how long that took.
async fn during(outage: &AtomicBool, away: impl Future<Output = ()>) -> SignedDuration {
    let started = Instant::now();
    outage.store(true, Ordering::SeqCst);
    away.await;
    outage.store(false, Ordering::SeqCst);
    started.elapsed().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fleet_can_be_trusted_for_an_afternoon() {
    let Some(cluster) = postgres::own() else { return };
    let fleet = Fleet::start(Arc::new(cluster)).await;
    let disk = SmallDisk::at(&fleet.site.objects_dir(), &disk_bytes().to_string());
    let app = fleet.site.app().await;
    let (outage, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let watching = tokio::spawn(longest_idle(app.clone(), outage.clone(), over.clone()));
    fleet.skewed_worker(&app).await;
    let started = Instant::now();
    let begun = ["backfill", "start", "--source", SOURCE, "--from", "2020-01-01", "--rate", "900/min", "--json"];
    let id = fleet.site.well(&begun).await.json()["id"].as_str().unwrap().to_owned();

    fleet.done(&app, 15).await;
    let mut away = during(&outage, fleet.database_away()).await;
    if disk.is_some() {
        fleet.done(&app, 40).await;
        away += during(&outage, fleet.no_room()).await;
    }
    fleet.done(&app, 60).await;
    fleet.idle_connections().await;
    let without = total() / WITHOUT;
    fleet.done(&app, (total() - without) * 100 / total()).await;

    let ended = eventually("the backfill to end", async || {
        let shown: Value = fleet.site.well(&["backfill", "show", &id, "--json"]).await.json();
        (shown["state"] == "done").then_some(shown)
    })
    .await;
    eprintln!("{} calls in {:.1?}: {ended}", total(), started.elapsed());
    assert_eq!((ended["listed"].as_u64(), ended["failed"].as_u64()), (Some(u64::from(total())), Some(0)), "{ended}");
    assert_eq!(fleet.count(&app, Outcome::Done).await, u64::from(total() - without));
    assert_eq!(fleet.count(&app, Outcome::NoRecording).await, u64::from(without));
    for call in app.store.calls(&CallFilter::default()).await.unwrap() {
        let waited = call.outcome_at.unwrap().duration_since(call.first_seen_at);
        assert!(call.outcome == Some(Outcome::Done) || waited < LONGEST_WAIT + away, "{}: {waited:#}", call.call_id);
        assert_eq!(fleet.site.platform.effects(call.call_id.as_str()), 1, "{}: write-backs", call.call_id);
    }

    let mended = fleet.lost_object(&app).await;
    let opted_out = fleet.late_opt_out(&app).await;
    assert_ne!(mended.uid, opted_out.uid);
    over.store(true, Ordering::SeqCst);
    let idle = watching.await.unwrap();
    assert!(idle < LONGEST_IDLE, "jobs were due and no worker ran one for {idle:?}");
    let jobs = app.queue.jobs(FinishedJobs::Included, u64::MAX).await.unwrap();
    let dead: Vec<_> = jobs.iter().filter(|job| job.state == JobState::DeadLetter).collect();
    assert!(dead.is_empty(), "{dead:?}");
    let balance = fleet.site.well(&["reconcile", "--source", SOURCE, "--json"]).await.json();
    assert_eq!((balance["missing"].as_u64(), balance["running"].as_u64()), (Some(0), Some(0)), "{balance}");
    eprintln!("longest time without a running job while jobs were due: {idle:.1?}");
    app.store.close().await;
    fleet.end().await;
}
