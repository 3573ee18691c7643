//! What a fleet promises, measured: workers scale on work that waits, one organisation's flood does not hold up another's
//! call, and a backfill of very many calls is planned quickly in flat memory.
//!
//! `cargo bench --bench fleet`. PostgreSQL too when AFTERCALL_BENCH_POSTGRES holds the URL of a server on which this may
//! make databases (and drop them again). AFTERCALL_BENCH_CALLS (100,000) sizes the flood, AFTERCALL_BENCH_PLAN (1,000,000)
//! the plan; `-- plan` makes that alone, `-- computing` measures work that computes alone.
#![allow(clippy::disallowed_methods, clippy::print_stdout, unreachable_pub)]

mod measure;
#[path = "pipeline/stage.rs"]
#[allow(dead_code)]
mod stage;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aftercall::config::Config;
use aftercall::domain::{Outcome, SourceName};
use aftercall::queue::{Handler, JobAttempt, Kind, Lane, Lanes, NewJob, Queue, Running, Verdict};
use aftercall::store::{Db, NewBackfill, Origin, OurCalls, Store};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use measure::{cpu_seconds, machine, whole};
use stage::Stage;

/// A slow remote step.
const STEP: Duration = Duration::from_millis(200);
const SLOTS: usize = 8;
const JOBS: usize = 256;
/// Jobs that compute; the fixture lasts about twenty seconds.
const COMPUTED: usize = 48;
const COMPUTED_REPEATS: usize = 9;
/// A machine's rate is not the same from one minute to the next.
const COMPUTED_TURNS: usize = 3;
/// Ten organisations' ids but for the last digit.
const ORG: &str = "01a1fe3d-e455-7111-ade5-c7c157aaf6c";
const LIMIT: Duration = Duration::from_secs(300);

struct Place {
    store: Store,
    queue: Queue,
    config: Config,
    _dir: TempDir,
}

impl Place {
    async fn make(server: Option<&str>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let url = match server {
            None => format!("sqlite://{}/bench.db", dir.path().display()),
            Some(server) => {
                let name = format!("bench_{}", uuid::Uuid::now_v7().simple());
                let pool = sqlx::PgPool::connect(server).await.context("AFTERCALL_BENCH_POSTGRES")?;
                sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await?;
                let mut url = url::Url::parse(server)?;
                url.set_path(&name);
                url.to_string()
            }
        };
        let worker = format!("[worker]\nconcurrency = {SLOTS}\npoll = \"50ms\"\ncooldown = \"5ms\"\n");
        let config = Config::from_toml(&format!("{worker}[store]\nurl = {url:?}\nmax_connections = 20\n"))?;
        let store = Store::connect(&config.store).await?;
        let queue = Queue::open(&store)?;
        Ok(Self { store, queue, config, _dir: dir })
    }

    async fn worker(&self, n: usize, handler: Arc<dyn Handler>, slots: usize) -> Result<Running> {
        let name = format!("bench-{n}");
        self.queue.heartbeat(&name, "bench").await?;
        let lanes = Lanes { live: slots, backfill: 1, maintenance: 1 };
        Ok(self.queue.start(&name, handler, lanes, &self.config.worker)?)
    }

    async fn enqueue(&self, tenant: &str, jobs: std::ops::Range<usize>) -> Result<()> {
        for from in jobs.clone().step_by(500) {
            let mut tx = self.store.begin().await?;
            for n in from..(from + 500).min(jobs.end) {
                let job = NewJob {
                    kind: Kind::Deliver,
                    unique: format!("{tenant}-{n}"),
                    subject: None,
                    tenant: Some(tenant.to_owned()),
                    payload: serde_json::json!({ "tenant": tenant }),
                    lane: Lane::Live,
                    priority: 1,
                    max_attempts: 1,
                };
                self.queue.enqueue(&mut tx, job).await?;
            }
            tx.commit().await?;
        }
        Ok(())
    }
}

/// A job that waits for somebody far away.
struct Waiting {
    done: AtomicUsize,
    others: AtomicUsize,
}

#[async_trait]
impl Handler for Waiting {
    async fn run(&self, job: JobAttempt) -> Verdict {
        if job.payload["tenant"] == "b" {
            self.others.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(STEP).await;
        self.done.fetch_add(1, Ordering::SeqCst);
        Verdict::Complete
    }
}

fn waiting() -> Arc<Waiting> {
    Arc::new(Waiting { done: AtomicUsize::new(0), others: AtomicUsize::new(0) })
}

async fn reaches(counter: &AtomicUsize, count: usize) -> Result<()> {
    let started = Instant::now();
    while counter.load(Ordering::SeqCst) < count {
        if started.elapsed() > LIMIT {
            bail!("{} of {count} after {LIMIT:?}", counter.load(Ordering::SeqCst));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

async fn scaling(server: Option<&str>) -> Result<()> {
    let mut first = None;
    for workers in [1, 2, 4] {
        let place = Place::make(server).await?;
        place.enqueue("a", 0..JOBS).await?;
        let handler = waiting();
        let (started, cpu) = (Instant::now(), cpu_seconds()?);
        let mut running = Vec::new();
        for n in 0..workers {
            running.push(place.worker(n, handler.clone(), SLOTS).await?);
        }
        reaches(&handler.done, JOBS).await?;
        let rate = JOBS as f64 / started.elapsed().as_secs_f64();
        for worker in &mut running {
            worker.drain().await?;
        }
        let base = *first.get_or_insert(rate);
        let cpu_ms = (cpu_seconds()? - cpu) * 1000.0 / JOBS as f64;
        let times = rate / base;
        println!("| {workers} | {rate:.1} | {times:.2} | {:.2} | {cpu_ms:.2} |", times / workers as f64);
        place.store.close().await;
    }
    Ok(())
}

/// A job that computes: the audio stage of a call of three minutes.
struct Computing {
    stage: Arc<Stage>,
    done: AtomicUsize,
}

#[async_trait]
impl Handler for Computing {
    async fn run(&self, _job: JobAttempt) -> Verdict {
        let stage = self.stage.clone();
        if !matches!(tokio::task::spawn_blocking(move || stage.run()).await, Ok(Ok(()))) {
            return Verdict::Snooze(Duration::ZERO);
        }
        self.done.fetch_add(1, Ordering::SeqCst);
        Verdict::Complete
    }
}

/// One worker and two in turns, each of which computes one job at a time, beside one thread and two of the stage alone:
/// what the machine has for a second one. The median pair.
async fn computing(server: Option<&str>) -> Result<()> {
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audio/speech.mp3");
    let stage = Arc::new(Stage::of(&std::fs::read(fixture)?.repeat(COMPUTED_REPEATS))?);
    println!("{COMPUTED} audio stages of calls of three minutes, one at a time each:\n");
    println!("| one worker, jobs/s | two | times one | the stage alone on two threads, times one |\n|---|---|---|---|");
    let mut times = Vec::new();
    for _ in 0..COMPUTED_TURNS {
        let (one, two) = (computed(server, &stage, 1).await?, computed(server, &stage, 2).await?);
        let alone = stage.throughput(COMPUTED, 2)? / stage.throughput(COMPUTED, 1)?;
        println!("| {one:.2} | {two:.2} | {:.2} | {alone:.2} |", two / one);
        times.push(two / one);
    }
    times.sort_by(f64::total_cmp);
    println!("\ntwo workers compute {:.2} times what one does, in the median\n", times[COMPUTED_TURNS / 2]);
    Ok(())
}

/// Jobs a second of so many workers.
async fn computed(server: Option<&str>, stage: &Arc<Stage>, workers: usize) -> Result<f64> {
    let place = Place::make(server).await?;
    place.enqueue("a", 0..COMPUTED).await?;
    let handler = Arc::new(Computing { stage: stage.clone(), done: AtomicUsize::new(0) });
    let started = Instant::now();
    let mut running = Vec::new();
    for n in 0..workers {
        running.push(place.worker(n, handler.clone(), 1).await?);
    }
    reaches(&handler.done, COMPUTED).await?;
    let rate = COMPUTED as f64 / started.elapsed().as_secs_f64();
    for worker in &mut running {
        worker.drain().await?;
    }
    place.store.close().await;
    Ok(rate)
}

/// How long another's one call waits in front of a flood, in job lengths.
async fn flood(server: Option<&str>, calls: usize) -> Result<()> {
    let place = Place::make(server).await?;
    let started = Instant::now();
    place.enqueue("a", 0..calls).await?;
    let took = started.elapsed();
    let handler = waiting();
    let mut worker = place.worker(0, handler.clone(), SLOTS).await?;
    reaches(&handler.done, 2 * SLOTS).await?;
    let asked = Instant::now();
    place.enqueue("b", 0..1).await?;
    reaches(&handler.others, 1).await?;
    let waited = asked.elapsed();
    println!(
        "{} calls of one organisation enqueued in {took:.1?}; another's one began after {waited:.0?}, {:.2} job lengths",
        whole(calls as f64),
        waited.as_secs_f64() / STEP.as_secs_f64()
    );
    worker.drain().await?;
    place.store.close().await;
    Ok(())
}

fn resident_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("VmRSS")?.parse::<f64>()? / 1024.0)
}

/// So many records of ours that ended without words, of ten organisations.
async fn fill(place: &Place, calls: usize) -> Result<()> {
    for n in 0..10 {
        let sql = format!("INSERT INTO organization (uid, source, org_id) VALUES ('{ORG}{n}', 's', 'o{n}')");
        match place.store.db() {
            Db::Sqlite(pool) => sqlx::query(AssertSqlSafe(sql)).execute(pool).await.map(drop)?,
            Db::Postgres(pool) => sqlx::query(AssertSqlSafe(sql)).execute(pool).await.map(drop)?,
        }
    }
    let records = |uid: &str| {
        format!(
            "INSERT INTO call_record (uid, source, call_id, org_uid, status, call_json, first_seen_at, updated_at, \
             retain_until, retention_basis, retention_days, retention_state, outcome, ended_at) \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {calls}) \
             SELECT '01890000-0000-7000-8000-' || {uid}, 's', 'call-' || i, '{ORG}' || (i * 7 % 10), 'completed', \
             '{{}}', 0, 0, 9, 'ended', 90, 'active', 'no_engine', 1700000000000 + i FROM n"
        )
    };
    match place.store.db() {
        Db::Sqlite(pool) => {
            sqlx::query(AssertSqlSafe(records("printf('%012x', i)"))).execute(pool).await.map(drop)?;
        }
        Db::Postgres(pool) => {
            let sql = records("lpad(to_hex(i), 12, '0')");
            sqlx::query(AssertSqlSafe(sql)).execute(pool).await.map(drop)?;
        }
    }
    Ok(())
}

/// A backfill over so many records of ours: noted with their turns, and the first of them found. Then the turns alone, as
/// after the listing of a source, which takes its pages' time and ends with them.
async fn plan(server: Option<&str>, calls: usize) -> Result<()> {
    let place = Place::make(server).await?;
    fill(&place, calls).await?;
    let source = SourceName::parse("s")?;
    let (from, to) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 * 100));
    let new = NewBackfill { source: &source, from, to, again: false, origin: Origin::Command, now: from };
    let before = resident_mib()?;
    let started = Instant::now();
    let mut tx = place.store.begin().await?;
    let id = place.store.add_backfill(&mut tx, &new).await?.context("refused")?;
    tx.commit().await?;
    let backfill = place.store.backfill(&id).await?.context("gone")?;
    let mut tx = place.store.begin().await?;
    let listed =
        place.store.add_backfill_items_of_ours(&mut tx, &backfill, OurCalls::Outcome(Outcome::NoEngine)).await?;
    tx.commit().await?;
    let planned = started.elapsed();
    let asked = Instant::now();
    let next = place.store.next_backfill_items(&id, from, 25).await?;
    if next.len() != 25 {
        bail!("{} of the next 25", next.len());
    }
    let found = asked.elapsed();
    let started = Instant::now();
    let mut tx = place.store.begin().await?;
    place.store.take_turns(&mut tx, &id).await?;
    tx.commit().await?;
    println!(
        "{} calls planned in {planned:.1?}, the next 25 found in {found:.1?}; turns after a listing {:.1?}; memory {:+.1} \
         MiB",
        whole(listed as f64),
        started.elapsed(),
        resident_mib()? - before
    );
    place.store.close().await;
    Ok(())
}

fn main() -> Result<()> {
    // `cargo test --benches` runs this with --test: no measurement, it has been compiled.
    if std::env::args().any(|arg| arg == "--test") {
        return Ok(());
    }
    let server = std::env::var("AFTERCALL_BENCH_POSTGRES").ok();
    let calls: usize = std::env::var("AFTERCALL_BENCH_CALLS").map_or(Ok(100_000), |calls| calls.parse())?;
    let planned: usize = std::env::var("AFTERCALL_BENCH_PLAN").map_or(Ok(1_000_000), |calls| calls.parse())?;
    let part = std::env::args().find(|arg| arg == "plan" || arg == "computing");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("{}", machine());
    runtime.block_on(async {
        let mut engines: Vec<(&str, Option<&str>)> = vec![("SQLite", None)];
        engines.extend(server.as_deref().map(|url| ("PostgreSQL", Some(url))));
        for (name, server) in engines {
            println!("\n## {name}\n");
            match part.as_deref() {
                Some("plan") => plan(server, planned).await?,
                Some(_) => computing(server).await?,
                None => {
                    println!("Workers on work that waits ({} ms a job, {SLOTS} slots each):\n", STEP.as_millis());
                    println!("| workers | jobs/s | times one | of N | CPU ms a job |\n|---|---|---|---|---|");
                    scaling(server).await?;
                    println!();
                    computing(server).await?;
                    flood(server, calls).await?;
                    plan(server, planned).await?;
                }
            }
        }
        anyhow::Ok(())
    })
}
