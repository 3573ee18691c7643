//! No-op jobs through our queue beside bare River on the same database, and how fast jobs are enqueued.
//!
//! `cargo bench --bench queue`. PostgreSQL too when AFTERCALL_BENCH_POSTGRES holds the URL of a server on which this
//! may make databases (and drop them again).
#![allow(clippy::disallowed_methods, clippy::print_stdout, unreachable_pub)]

mod measure;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aftercall::config::Config;
use aftercall::queue::{Handler, JobAttempt, Kind, Lane, Lanes, NewJob, Queue, Verdict};
use aftercall::store::{Db, Store, Tx};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use riverqueue::{Client, JobArgs, QueueConfig, WorkContext, WorkOutcome, Workers};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::sync::mpsc;

use measure::{cpu_seconds, whole};

/// Each figure is the median of so many rounds; in a round every contender has its turn.
const ROUNDS: usize = 3;
/// Jobs per transaction where several go into one, as a backfill feeds them.
const BATCH: usize = 25;
/// Single-job transactions per measurement of the enqueue rate.
const SINGLES: usize = 400;
/// Jobs of a run in which each waits for its own commit: on a slow disk there are only some hundred of those a second.
const COMMITTED: usize = 400;
/// Jobs enqueued one by one into an idle queue.
const PICK_UPS: usize = 21;
/// A run that takes longer than this is stuck.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    /// Does nothing; River writes completions in batches.
    BareIdle,
    OursIdle,
    /// Completes its job in a transaction of its own, as every job with a result must.
    BareInTransaction,
    OursInTransaction,
}

impl Contender {
    const ALL: [Self; 4] = [Self::BareIdle, Self::OursIdle, Self::BareInTransaction, Self::OursInTransaction];

    const fn name(self) -> &'static str {
        match self {
            Self::BareIdle => "bare River, does nothing",
            Self::OursIdle => "aftercall, does nothing",
            Self::BareInTransaction => "bare River, completes in its transaction",
            Self::OursInTransaction => "aftercall, completes in its fenced transaction",
        }
    }

    /// What it is compared with.
    const fn base(self) -> Self {
        match self {
            Self::BareIdle | Self::OursIdle => Self::BareIdle,
            Self::BareInTransaction | Self::OursInTransaction => Self::BareInTransaction,
        }
    }
}

/// How the worker is set.
struct Setting {
    name: &'static str,
    toml: &'static str,
    /// Jobs of a run in which completions are written in batches.
    jobs: usize,
}

impl Setting {
    const fn jobs_of(&self, contender: Contender) -> usize {
        match contender {
            Contender::BareIdle | Contender::OursIdle => self.jobs,
            Contender::BareInTransaction | Contender::OursInTransaction => COMMITTED,
        }
    }
}

const SETTINGS: [Setting; 2] = [
    Setting { name: "default settings", toml: "", jobs: 1500 },
    Setting { name: "100 slots, 1 ms cooldown", toml: "[worker]\nconcurrency = 100\ncooldown = \"1ms\"\n", jobs: 4000 },
];

/// A database of its own for one measurement.
struct Place {
    store: Store,
    queue: Queue,
    config: Config,
    _dir: TempDir,
    /// The server and the name of the database to drop.
    drop: Option<(sqlx::PgPool, String)>,
}

impl Place {
    async fn make(server: Option<&str>, toml: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (url, drop) = match server {
            None => (format!("sqlite://{}/bench.db", dir.path().display()), None),
            Some(server) => {
                let (url, pool, name) = make_database(server).await?;
                (url, Some((pool, name)))
            }
        };
        let config = Config::from_toml(&format!("{toml}[store]\nurl = {url:?}\n"))?;
        let store = Store::connect(&config.store).await?;
        let queue = Queue::open(&store)?;
        Ok(Self { store, queue, config, _dir: dir, drop })
    }

    async fn remove(self) -> Result<()> {
        self.store.close().await;
        if let Some((pool, name)) = self.drop {
            let sql = format!("DROP DATABASE {name} WITH (FORCE)");
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&pool).await?;
        }
        Ok(())
    }

    fn bare(&self) -> riverqueue::ClientBuilder {
        match self.store.db() {
            Db::Sqlite(pool) => Client::builder(pool.clone()),
            Db::Postgres(pool) => Client::builder(pool.clone()),
        }
    }

    async fn unfinished(&self) -> Result<i64> {
        let sql = "SELECT COUNT(*) FROM river_job WHERE finalized_at IS NULL";
        Ok(match self.store.db() {
            Db::Sqlite(pool) => sqlx::query_scalar(sql).fetch_one(pool).await?,
            Db::Postgres(pool) => sqlx::query_scalar(sql).fetch_one(pool).await?,
        })
    }

    /// Waits until every job has run and been written down as ended.
    async fn ended(&self, done: &AtomicUsize, jobs: usize) -> Result<()> {
        let started = Instant::now();
        while done.load(Ordering::Relaxed) < jobs || self.unfinished().await? > 0 {
            if started.elapsed() > LIMIT {
                bail!("{} of {jobs} jobs within {LIMIT:?}: stuck", done.load(Ordering::Relaxed));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

async fn make_database(server: &str) -> Result<(String, sqlx::PgPool, String)> {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let name = format!("aftercall_bench_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let pool = sqlx::PgPool::connect(server).await.context("AFTERCALL_BENCH_POSTGRES")?;
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await?;
    let mut url = url::Url::parse(server)?;
    url.set_path(&name);
    Ok((url.to_string(), pool, name))
}

/// A job of bare River's.
#[derive(Debug, Clone, Serialize, Deserialize, JobArgs)]
#[river(kind = "bench_no_op")]
struct NoOp {
    subject: String,
}

fn our_job(n: usize) -> NewJob {
    NewJob {
        kind: Kind::ProcessCall,
        unique: format!("call-{n}"),
        subject: Some(format!("call-{n}")),
        tenant: None,
        payload: serde_json::json!({ "do": "process_call", "call": format!("call-{n}"), "again": false }),
        lane: Lane::Live,
        priority: 1,
        max_attempts: 12,
    }
}

async fn insert_bare(client: &Client, tx: &mut Tx, n: usize) -> Result<()> {
    let request = client.insert(NoOp { subject: format!("call-{n}") });
    match tx {
        Tx::Sqlite(tx) => request.tx(tx).await?,
        Tx::Postgres(tx) => request.tx(tx).await?,
    };
    Ok(())
}

/// Enqueues jobs `from..to`, `batch` per transaction; seconds per job.
async fn fill(place: &Place, ours: Option<&Client>, from: usize, to: usize, batch: usize) -> Result<f64> {
    let started = Instant::now();
    let mut next = from;
    while next < to {
        let mut tx = place.store.begin().await?;
        for n in next..(next + batch).min(to) {
            match ours {
                None => place.queue.enqueue(&mut tx, our_job(n)).await.map(drop)?,
                Some(bare) => insert_bare(bare, &mut tx, n).await?,
            }
        }
        tx.commit().await?;
        next += batch;
    }
    Ok(started.elapsed().as_secs_f64() / (to - from) as f64)
}

/// Our handler: ends jobs in a fenced transaction, or does nothing.
struct Ending {
    store: Store,
    queue: Queue,
    contender: Contender,
    done: Arc<AtomicUsize>,
}

impl Ending {
    async fn complete(&self, job: &JobAttempt) -> Result<()> {
        let mut tx = self.store.begin().await?;
        if !self.queue.complete(&mut tx, job).await? {
            bail!("fenced");
        }
        Ok(tx.commit().await?)
    }
}

#[async_trait]
impl Handler for Ending {
    async fn run(&self, job: JobAttempt) -> Verdict {
        if self.contender == Contender::OursInTransaction && self.complete(&job).await.is_err() {
            return Verdict::Snooze(Duration::ZERO);
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        Verdict::Complete
    }
}

/// Seconds of wall and of processor time per job.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

async fn measure(server: Option<&str>, setting: &Setting, contender: Contender) -> Result<Cost> {
    let place = Place::make(server, setting.toml).await?;
    let done = Arc::new(AtomicUsize::new(0));
    let ours = matches!(contender, Contender::OursIdle | Contender::OursInTransaction);
    let jobs = setting.jobs_of(contender);
    let client = place.bare().build()?;
    fill(&place, (!ours).then_some(&client), 0, jobs, 500).await?;
    let (started, cpu) = (Instant::now(), cpu_seconds()?);
    if ours {
        run_ours(&place, contender, &done, jobs).await?;
    } else {
        run_bare(&place, contender, &done, jobs).await?;
    }
    let jobs = jobs as f64;
    let cost = Cost { wall: started.elapsed().as_secs_f64() / jobs, cpu: (cpu_seconds()? - cpu) / jobs };
    place.remove().await?;
    Ok(cost)
}

async fn run_ours(place: &Place, contender: Contender, done: &Arc<AtomicUsize>, jobs: usize) -> Result<()> {
    let settings = &place.config.worker;
    place.queue.heartbeat("bench", "bench").await?;
    let lanes = Lanes { live: settings.concurrency, backfill: 1, maintenance: 1 };
    let handler = Ending { store: place.store.clone(), queue: place.queue.clone(), contender, done: done.clone() };
    let mut running = place.queue.start("bench", Arc::new(handler), lanes, settings)?;
    place.ended(done, jobs).await?;
    Ok(running.drain().await?)
}

/// River as its documents show it, with the pool, slots and pauses of ours.
async fn run_bare(place: &Place, contender: Contender, done: &Arc<AtomicUsize>, jobs: usize) -> Result<()> {
    let settings = &place.config.worker;
    let mut workers = Workers::new();
    let (store, counted) = (place.store.clone(), done.clone());
    workers.add_fn(move |context: WorkContext, _job: riverqueue::Job<NoOp>| {
        let (store, counted) = (store.clone(), counted.clone());
        async move {
            if contender == Contender::BareInTransaction {
                let mut tx = store.begin().await?;
                match &mut tx {
                    Tx::Sqlite(tx) => context.job_complete_tx(tx).await?,
                    Tx::Postgres(tx) => context.job_complete_tx(tx).await?,
                };
                tx.commit().await?;
            }
            counted.fetch_add(1, Ordering::Relaxed);
            anyhow::Ok(WorkOutcome::Complete)
        }
    })?;
    let queue = QueueConfig::new(settings.concurrency)
        .with_fetch_poll_interval(settings.poll.0)
        .with_fetch_cooldown(settings.cooldown.0);
    let client = place.bare().workers(workers).fetch_cooldown(settings.cooldown.0).queue("default", queue).build()?;
    let mut running = client.start()?;
    place.ended(done, jobs).await?;
    Ok(running.stop().await?)
}

/// The middle of an odd number of figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn enqueue_rates(server: Option<&str>) -> Result<()> {
    let mut seconds = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let place = Place::make(server, "").await?;
        let client = place.bare().build()?;
        for (i, (bare, batch)) in [(true, 1), (false, 1), (true, BATCH), (false, BATCH)].into_iter().enumerate() {
            let (from, jobs) = (i * 100_000, SINGLES * if batch == 1 { 1 } else { 5 });
            seconds[i].push(fill(&place, bare.then_some(&client), from, from + jobs, batch).await?);
        }
        place.remove().await?;
    }
    let rates = seconds.map(|seconds| 1.0 / median(seconds));
    println!("| enqueue | bare River, jobs/s | aftercall, jobs/s | ratio |\n|---|---:|---:|---:|");
    for (name, pair) in ["one per transaction", "25 per transaction, as a backfill"].into_iter().zip(rates.chunks(2)) {
        println!("| {name} | {} | {} | {:.2} |", whole(pair[0]), whole(pair[1]), pair[1] / pair[0]);
    }
    println!();
    Ok(())
}

async fn work_rates(server: Option<&str>) -> Result<()> {
    println!("| work | settings | jobs/s | to bare River | CPU per job |\n|---|---|---:|---:|---:|");
    for setting in &SETTINGS {
        let mut costs = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            for contender in Contender::ALL {
                costs[contender as usize].push(measure(server, setting, contender).await?);
            }
        }
        let walls = costs.each_ref().map(|costs| median(costs.iter().map(|cost| cost.wall).collect()));
        for contender in Contender::ALL {
            let (wall, base) = (walls[contender as usize], walls[contender.base() as usize]);
            let cpu = median(costs[contender as usize].iter().map(|cost| cost.cpu).collect());
            let (rate, micros) = (whole(1.0 / wall), whole(cpu * 1e6));
            println!("| {} | {} | {rate} | {:.2} | {micros} µs |", contender.name(), setting.name, base / wall);
        }
    }
    println!();
    Ok(())
}

/// Sends the moment at which a job started.
struct Starting(mpsc::UnboundedSender<Instant>);

#[async_trait]
impl Handler for Starting {
    async fn run(&self, _job: JobAttempt) -> Verdict {
        let _ = self.0.send(Instant::now());
        Verdict::Complete
    }
}

/// How long a job waits in an otherwise idle queue, from the commit that made it to its start.
async fn pick_up(server: Option<&str>) -> Result<()> {
    let place = Place::make(server, "").await?;
    let settings = &place.config.worker;
    let (send, mut started) = mpsc::unbounded_channel();
    place.queue.heartbeat("bench", "bench").await?;
    let lanes = Lanes { live: settings.concurrency, backfill: 1, maintenance: 1 };
    let mut running = place.queue.start("bench", Arc::new(Starting(send)), lanes, settings)?;
    let mut waits = Vec::new();
    for n in 0..PICK_UPS {
        // Not in step with the worker's polls.
        tokio::time::sleep(Duration::from_millis(37 * n as u64 % 400)).await;
        fill(&place, None, n, n + 1, 1).await?;
        let committed = Instant::now();
        let at = tokio::time::timeout(LIMIT, started.recv()).await?.context("the worker has stopped")?;
        waits.push(at.saturating_duration_since(committed).as_secs_f64() * 1000.0);
    }
    running.drain().await?;
    place.remove().await?;
    waits.sort_by(f64::total_cmp);
    let within = waits[PICK_UPS * 9 / 10];
    println!(
        "from commit to start in an idle queue: median {:.0} ms, nine of ten within {within:.0} ms\n",
        median(waits)
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test --benches` runs this with --test: no measurement, it has been compiled.
    if std::env::args().any(|arg| arg == "--test") {
        return Ok(());
    }
    let server = std::env::var("AFTERCALL_BENCH_POSTGRES").ok();
    println!("{}\n", measure::machine());
    println!("SQLite (WAL, synchronous=FULL)\n");
    enqueue_rates(None).await?;
    work_rates(None).await?;
    pick_up(None).await?;
    if let Some(server) = server.as_deref() {
        println!("PostgreSQL\n");
        enqueue_rates(Some(server)).await?;
        work_rates(Some(server)).await?;
        pick_up(Some(server)).await?;
    }
    Ok(())
}
