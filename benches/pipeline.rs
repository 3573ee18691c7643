//! Whole three-minute calls from a sample platform on loopback through the real worker, SQLite and a directory store:
//! calls per second beside what the audio stage alone allows, stage times, and what a thousand of them cost.
//!
//! `cargo bench --bench pipeline`, or `cargo bench --bench pipeline -- 200` for another number of calls a round.
#![allow(clippy::disallowed_methods, clippy::print_stdout, unreachable_pub)]

#[path = "pipeline/counting.rs"]
mod counting;
mod measure;
#[path = "pipeline/platform.rs"]
mod platform;
#[path = "pipeline/stage.rs"]
mod stage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aftercall::app::{App, Clock};
use aftercall::config::Config;
use aftercall::demo;
use aftercall::demo::{Api, RequestKind, SampleCall};
use aftercall::domain::{Outcome, SourceName};
use aftercall::jobs::backfill;
use aftercall::store::{CallFilter, NewBackfill, Origin};
use aftercall::telemetry;
use aftercall::wire::Window;
use aftercall::worker::{self, DataLock, Signals, Until};
use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp};

use counting::{Counting, Written};
use measure::{cpu_seconds, whole};
use platform::{LENGTH_MS, Serving};
use stage::Stage;

/// Calls of a round unless told otherwise: twenty of each source.
const CALLS: u32 = 80;
/// Whole jobs and the stage alone in turns: a machine's rate is not the same from one minute to the next.
const ROUNDS: usize = 5;
/// Calls that are processed one at a time, for the stage times of a call that has the machine to itself.
const ALONE: u32 = 8;
/// For the pages of lists, which few calls do not fill.
const THOUSAND: u32 = 1000;
const LIMIT: Duration = Duration::from_secs(900);

/// What some calls took.
struct Run {
    calls: u32,
    /// From the first request to the last outcome.
    wall: f64,
    /// Of the worker, without the platform.
    cpu: f64,
    stages: Stages,
    written: BTreeMap<String, Written>,
    /// Growth of the database file.
    database_bytes: u64,
    requests: BTreeMap<(Option<Api>, RequestKind), usize>,
}

/// Seconds and count by stage.
type Stages = BTreeMap<String, (f64, f64)>;

async fn run(calls: Vec<SampleCall>, concurrency: usize) -> Result<Run> {
    let count = u32::try_from(calls.len())?;
    let serving = Serving::start(calls).await?;
    let dir = tempfile::tempdir()?;
    let place = dir.path().to_str().context("the temporary directory's path is not UTF-8")?;
    let config = Config::from_toml(&format!(
        "data_dir = {place:?}\n[store]\nurl = \"sqlite://{place}/bench.db\"\n[objects]\npath = \"{place}/objects\"\n\
         [worker]\nconcurrency = {concurrency}\n{}",
        demo::sources_toml(&serving.base_url)
    ))?;
    let lock = DataLock::take(dir.path())?;
    let built = App::build(config, Clock::system()).await?;
    let mut app = Arc::into_inner(built).context("the application is in use before it runs")?;
    let counting = Counting::new(app.objects.clone());
    app.objects = Arc::new(counting.clone());
    let app = Arc::new(app);
    let database = || platform::size_of(dir.path().join("bench.db"));
    app.store.truncate_wal().await?;
    let (empty, stages) = (database(), stages()?);
    let (cpu, theirs, started, at) = (cpu_seconds()?, Serving::cpu_seconds()?, Instant::now(), Timestamp::now());
    work(&app, &lock).await?;
    let cpu = cpu_seconds()? - cpu - (Serving::cpu_seconds()? - theirs);
    app.store.truncate_wal().await?;
    let wall = last_outcome(&app, count).await?.duration_since(at).as_secs_f64().min(started.elapsed().as_secs_f64());
    let mut requests = BTreeMap::new();
    for request in serving.platform.requests().iter() {
        *requests.entry((request.api, request.kind)).or_default() += 1;
    }
    let database_bytes = database().saturating_sub(empty);
    app.store.close().await;
    serving.stop()?;
    Ok(Run { calls: count, wall, cpu, stages: since(&stages)?, written: counting.written(), database_bytes, requests })
}

/// A backfill of every source, and the worker until nothing is left to do.
async fn work(app: &Arc<App>, lock: &DataLock) -> Result<()> {
    let now = app.now();
    let (from, to) = (now.checked_sub(SignedDuration::from_hours(48))?, now);
    for source in app.platforms.keys() {
        let new = NewBackfill { source, from, to, again: false, origin: Origin::Command, now };
        if let Err(stop) = backfill::start(app, &new).await {
            bail!("the backfill of {source} does not start: {stop:?}");
        }
    }
    let worked = worker::run(app.clone(), lock, Until::Idle, Signals::default());
    tokio::time::timeout(LIMIT, worked).await.context("the worker is not idle in time")?
}

/// When the last call ended; fails unless every call is done, or the figures would be those of failures.
async fn last_outcome(app: &App, count: u32) -> Result<Timestamp> {
    let calls = app.store.calls(&CallFilter::default()).await?;
    let done = calls.iter().filter(|call| call.outcome == Some(Outcome::Done)).count();
    if done != count as usize {
        bail!("{done} of {count} calls are done; nothing was measured");
    }
    calls.iter().filter_map(|call| call.outcome_at).max().context("no call has ended")
}

/// The stage times so far, from what `/metrics` shows.
fn stages() -> Result<Stages> {
    let text = telemetry::metrics_handle()?.render();
    let mut stages = Stages::new();
    for line in text.lines().filter_map(|line| line.strip_prefix(telemetry::STAGE_SECONDS)) {
        // `_sum{stage="audio"} 1.25`; the lines of the buckets have a second label.
        let Some((which, rest)) = line.split_once("{stage=\"") else { continue };
        let Some((name, figure)) = rest.split_once("\"} ") else { continue };
        let figure: f64 = figure.parse()?;
        match which {
            "_sum" => stages.entry(name.to_owned()).or_default().0 = figure,
            "_count" => stages.entry(name.to_owned()).or_default().1 = figure,
            _ => {}
        }
    }
    Ok(stages)
}

fn since(before: &Stages) -> Result<Stages> {
    let mut stages = stages()?;
    for (name, (sum, count)) in &mut stages {
        let (sum_before, count_before) = before.get(name).copied().unwrap_or_default();
        (*sum, *count) = (*sum - sum_before, *count - count_before);
    }
    Ok(stages)
}

/// The audio stage of as many of the same calls and nothing else, on every core: what it allows.
fn stage_alone(calls: &[SampleCall]) -> Result<(f64, f64)> {
    let audio = calls.first().and_then(|call| call.audio.as_ref()).context("a call without a recording")?;
    let stage = Stage::of(&audio.bytes)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = cpu_seconds()?;
    let throughput = stage.throughput(calls.len(), cores)?;
    Ok((throughput, (cpu_seconds()? - cpu) / calls.len() as f64))
}

/// Whole jobs between two measurements of the stage alone.
struct Round {
    run: Run,
    /// Whole jobs' rate as a part of the stage's, and the stage's core-seconds as a part of theirs.
    share: (f64, f64),
}

/// Measures in turns; the rounds come sorted by what whole jobs reach.
async fn rounds(calls: u32, slots: usize) -> Result<Vec<Round>> {
    let same = platform::calls(calls, Timestamp::now())?;
    let mut rounds = Vec::new();
    let mut before = stage_alone(&same)?;
    for _ in 0..ROUNDS {
        let run = run(platform::calls(calls, Timestamp::now())?, slots).await?;
        let after = stage_alone(&same)?;
        let (throughput, cpu) = (f64::midpoint(before.0, after.0), f64::midpoint(before.1, after.1));
        let share = (f64::from(run.calls) / run.wall / throughput, cpu * f64::from(run.calls) / run.cpu);
        println!(
            "| {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            before.0,
            throughput * share.0,
            after.0,
            share.0,
            share.1
        );
        rounds.push(Round { run, share });
        before = after;
    }
    println!();
    rounds.sort_by(|one, other| one.share.0.total_cmp(&other.share.0));
    Ok(rounds)
}

/// Pages it takes to list a thousand calls, by source.
async fn list_pages() -> Result<BTreeMap<SourceName, u64>> {
    let now = Timestamp::now();
    let calls = Api::ALL.into_iter().flat_map(|api| {
        (0..THOUSAND).map(move |n| SampleCall::numbered(api, n, now - Duration::from_secs(60 + u64::from(n))))
    });
    let serving = Serving::start(calls.collect()).await?;
    let config = Config::from_toml(&demo::sources_toml(&serving.base_url))?;
    let mut pages = BTreeMap::new();
    for settings in &config.source {
        let source = aftercall::source::Source::new(settings)?;
        let mut walk = source.walk(Window { from: now.checked_sub(SignedDuration::from_hours(48))?, to: now });
        while walk.next().await?.is_some() {}
        pages.insert(settings.name.clone(), walk.pages());
    }
    serving.stop()?;
    Ok(pages)
}

fn show_throughput(run: &Run, slots: usize) {
    let (calls, seconds) = (f64::from(run.calls), LENGTH_MS as f64 / 1000.0);
    println!("{} calls of {seconds} s, {slots} at once: {:.2} calls/s", run.calls, calls / run.wall);
    println!(
        "{:.2} core-seconds per call, {:.0} times real time per core\n",
        run.cpu / calls,
        seconds * calls / run.cpu
    );
}

fn show_stages(alone: &Run, many: &Run) {
    println!("| stage | one call at a time, s | all slots busy, s |\n|---|---:|---:|");
    let mean = |run: &Run, name: &str| run.stages.get(name).map_or(0.0, |(sum, count)| sum / count);
    for name in many.stages.keys() {
        println!("| {name} | {:.3} | {:.3} |", mean(alone, name), mean(many, name));
    }
    println!();
}

fn show_thousand(run: &Run, pages: &BTreeMap<SourceName, u64>) {
    let per_call = |figure: f64| figure / f64::from(run.calls);
    let thousand = |figure: f64| whole(per_call(figure) * 1000.0);
    let megabytes = |bytes: u64| per_call(bytes as f64) * 1000.0 / 1e6;
    println!("| 1,000 calls of three minutes cost | |\n|---|---:|");
    println!("| core-seconds | {} |", thousand(run.cpu));
    println!("| object writes | {} |", thousand(run.written.values().map(|written| written.objects as f64).sum()));
    println!("| stored, MB | {:.0} |", run.written.values().map(|written| megabytes(written.bytes)).sum::<f64>());
    for (name, written) in &run.written {
        println!("| – {name}, MB | {:.1} |", megabytes(written.bytes));
    }
    println!("| growth of the database, MB | {:.1} |", megabytes(run.database_bytes));
    println!();
    println!("| requests for 1,000 calls of a source | list | detail | link | recording | write-back |");
    println!("|---|---:|---:|---:|---:|---:|");
    for api in Api::ALL {
        let name = demo::source_name(api);
        let of = |api: Option<Api>, kinds: &[RequestKind]| {
            let count: usize = kinds.iter().filter_map(|kind| run.requests.get(&(api, *kind))).sum();
            whole(per_call(count as f64) * 1000.0 * Api::ALL.len() as f64)
        };
        let listed = pages.iter().find(|(source, _)| source.as_str() == name).map_or(0, |(_, pages)| *pages);
        let back = match api {
            Api::Atoms => of(None, &[RequestKind::RecordRead, RequestKind::RecordWrite]),
            _ => of(Some(api), &[RequestKind::MetadataWrite]),
        };
        let [detail, link, recording] = [RequestKind::Detail, RequestKind::RecordingLink, RequestKind::Recording]
            .map(|kind| of(Some(api), &[kind]));
        println!("| {name} | {listed} | {detail} | {link} | {recording} | {back} |");
    }
    println!();
}

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test --benches` runs this with --test: no measurement, it has been compiled.
    if std::env::args().any(|arg| arg == "--test") {
        return Ok(());
    }
    let calls = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(CALLS);
    println!("{}\n", measure::machine());
    telemetry::metrics_handle()?;
    let slots = Config::from_toml("")?.worker.concurrency;
    let alone = run(platform::calls(ALONE, Timestamp::now())?, 1).await?;
    println!("| stage alone, every core, calls/s | whole jobs | stage alone | reached | stage's core-seconds |");
    println!("|---:|---:|---:|---:|---:|");
    let mut rounds = rounds(calls, slots).await?;
    let median = rounds.swap_remove(ROUNDS / 2);
    println!(
        "whole jobs reach {:.2} of the audio stage alone, median of {ROUNDS} rounds; that round:\n",
        median.share.0
    );
    show_throughput(&median.run, slots);
    show_stages(&alone, &median.run);
    show_thousand(&median.run, &list_pages().await?);
    Ok(())
}
