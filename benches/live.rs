//! What a live call feels of a backfill: the time from its trigger until its transcript is on the customer's record, with a
//! backfill of very many calls going on beside it and with that paused, in turns, so that the machine's moods meet both
//! alike. The dialect is one that answers about a call by its id: what a list of ever more calls costs the sample platform,
//! in this very process, is not asked here.
//!
//! `cargo bench --bench live`; `-- 40` for another number of live calls. AFTERCALL_BENCH_CALLS (100,000) sizes the
//! backfill. PostgreSQL when AFTERCALL_BENCH_POSTGRES holds the URL of an empty database.
#![allow(clippy::disallowed_methods, clippy::print_stdout, unreachable_pub)]

mod measure;
#[path = "pipeline/platform.rs"]
#[allow(dead_code)]
mod platform;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aftercall::app::{App, Clock};
use aftercall::config::Config;
use aftercall::demo::{self, Api, SampleCall, SampleText, atoms_id};
use aftercall::domain::{CallId, SourceName};
use aftercall::jobs::admit::Repeat;
use aftercall::jobs::{backfill, trigger};
use aftercall::queue::Kind;
use aftercall::store::{NewBackfill, Origin, Steering};
use aftercall::worker::{self, DataLock, Signals, Until};
use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp};

use platform::Serving;

/// Live calls of each kind unless told otherwise; the first of a turn warms up and does not count.
const LIVE: u32 = 200;
const ROUNDS: u32 = 20;
/// Calls of the backfill that end before live calls are looked at beside it.
const UNDER_WAY: u64 = 8;
const LIMIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(5);
/// A tenth of the time between two looks of the queue.
const LOOKS_APART: Duration = Duration::from_millis(10);
/// A backfill gives its calls their turns when it has listed them all: some thousand pages.
const LISTED_WITHIN: Duration = Duration::from_secs(1200);

struct Scene {
    app: Arc<App>,
    serving: Serving,
    source: SourceName,
    /// What every call of the scene is like.
    like: SampleCall,
    next: u32,
}

impl Scene {
    /// One call ends and is announced: seconds until its transcript is on the customer's record.
    async fn live_call(&mut self) -> Result<f64> {
        let call = self.numbered(Timestamp::now() - Duration::from_secs(1));
        let id = call.id.clone();
        self.serving.platform.register_record(&id, serde_json::json!({ "call_id": id, "status": "completed" }));
        self.serving.platform.add_call(call);
        let started = Instant::now();
        let call_id = CallId::parse(&id)?;
        if let Err(stop) = trigger::trigger(&self.app, &self.source, &call_id, Repeat::Never).await {
            bail!("the trigger of {id} is refused: {stop:?}");
        }
        while self.serving.platform.record(&id).is_none_or(|record| record.effects == 0) {
            if started.elapsed() > LIMIT {
                bail!("{id} has no transcript after {LIMIT:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(started.elapsed().as_secs_f64())
    }

    fn numbered(&mut self, ended_at: Timestamp) -> SampleCall {
        let mut call = SampleCall::numbered(Api::Atoms, self.next, ended_at);
        call.id = atoms_id(call.created_at(), self.next);
        self.next += 1;
        (call.audio, call.turns) = (self.like.audio.clone(), self.like.turns.clone());
        (call.duration_ms, call.text) = (self.like.duration_ms, self.like.text);
        call
    }

    async fn live_calls(&mut self, count: u32) -> Result<Vec<f64>> {
        let mut seconds = Vec::new();
        for n in 0..=count {
            // Calls end at any moment between two looks of the queue, which are a tenth of a second apart on SQLite.
            tokio::time::sleep(LOOKS_APART * (n * 7 % 10)).await;
            let took = self.live_call().await?;
            if n > 0 {
                seconds.push(took);
            }
        }
        Ok(seconds)
    }

    async fn flood(&self) -> Result<String> {
        let now = Timestamp::now();
        let from = now.checked_sub(SignedDuration::from_hours(24 * 30))?;
        let new = NewBackfill { source: &self.source, from, to: now, again: false, origin: Origin::Command, now };
        match backfill::start(&self.app, &new).await {
            Ok(Some(id)) => Ok(id),
            other => bail!("the backfill does not start: {other:?}"),
        }
    }

    async fn steer(&self, backfill: &str, to: Steering) -> Result<()> {
        if !self.app.store.steer_backfill(backfill, to).await? {
            bail!("the backfill cannot be steered to {to:?}");
        }
        Ok(())
    }

    /// Waits until nothing of it is under way any more.
    async fn pause(&self, backfill: &str) -> Result<()> {
        self.steer(backfill, Steering::Paused).await?;
        let started = Instant::now();
        while self.app.queue.depth().await?.0.iter().any(|(kind, ..)| kind == Kind::ProcessCall.as_str()) {
            if started.elapsed() > LIMIT {
                bail!("the backfill goes on after {LIMIT:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until calls of it end.
    async fn under_way(&self, backfill: &str, limit: Duration) -> Result<()> {
        let (before, started) = (self.ended(backfill).await?, Instant::now());
        while self.ended(backfill).await? < before + UNDER_WAY {
            if started.elapsed() > limit {
                bail!("the backfill does nothing");
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn ended(&self, backfill: &str) -> Result<u64> {
        let backfill = self.app.store.backfill(backfill).await?.context("the backfill is gone")?;
        Ok(backfill.done)
    }
}

fn sorted(mut seconds: Vec<f64>) -> Vec<f64> {
    seconds.sort_by(f64::total_cmp);
    seconds
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

async fn scene(calls: u32) -> Result<(Scene, DataLock, tempfile::TempDir)> {
    let like =
        platform::calls(4, Timestamp::now())?.into_iter().find(|call| call.api == Api::Atoms).context("no Atoms")?;
    let serving = Serving::start(Vec::new()).await?;
    let dir = tempfile::tempdir()?;
    let place = dir.path().to_str().context("the temporary directory's path is not UTF-8")?;
    let url = std::env::var("AFTERCALL_BENCH_POSTGRES").unwrap_or_else(|_| format!("sqlite://{place}/bench.db"));
    let config = Config::from_toml(&format!(
        "data_dir = {place:?}\n[store]\nurl = {url:?}\n[objects]\npath = \"{place}/objects\"\n{}",
        demo::sources_toml(&serving.base_url)
    ))?;
    let lock = DataLock::take(dir.path())?;
    let app = App::build(config, Clock::system()).await?;
    let source = SourceName::parse(demo::source_name(Api::Atoms))?;
    let mut scene = Scene { app, serving, source, like, next: 0 };
    let now = Timestamp::now();
    for n in 0..calls {
        // Without words: what a platform's list of very many calls costs to write and read is not what is asked here.
        let call = SampleCall {
            turns: Arc::default(),
            text: SampleText::None,
            ..scene.numbered(now - Duration::from_secs(600 + 20 * u64::from(n)))
        };
        scene.serving.platform.add_call(call);
    }
    Ok((scene, lock, dir))
}

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test --benches` runs this with --test: no measurement, it has been compiled.
    if std::env::args().any(|arg| arg == "--test") {
        return Ok(());
    }
    let live = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(LIVE);
    let calls: u32 = std::env::var("AFTERCALL_BENCH_CALLS").map_or(Ok(100_000), |calls| calls.parse())?;
    println!("{}\n", measure::machine());
    let (mut scene, lock, _dir) = scene(calls).await?;
    let signals = Signals::default();
    let (app, told) = (scene.app.clone(), signals.clone());
    let working = tokio::spawn(async move { worker::run(app, &lock, Until::Stopped, told).await });
    let before = sorted(scene.live_calls(live / ROUNDS).await?);
    let backfill = scene.flood().await?;
    scene.under_way(&backfill, LISTED_WITHIN).await?;
    let (mut idle, mut beside) = (Vec::new(), Vec::new());
    let (mut done, mut cores, mut seconds) = (0, 0.0, 0.0);
    for _ in 0..ROUNDS {
        scene.pause(&backfill).await?;
        idle.extend(scene.live_calls(live / ROUNDS).await?);
        scene.steer(&backfill, Steering::Run).await?;
        scene.under_way(&backfill, LIMIT).await?;
        let (ended, cpu, from) = (scene.ended(&backfill).await?, measure::cpu_seconds()?, Instant::now());
        beside.extend(scene.live_calls(live / ROUNDS).await?);
        done += scene.ended(&backfill).await? - ended;
        cores += measure::cpu_seconds()? - cpu;
        seconds += from.elapsed().as_secs_f64();
    }
    let (idle, beside) = (sorted(idle), sorted(beside));
    println!("| trigger to write-back, s ({live} calls of 180 s, in {ROUNDS} turns) | median | p95 |\n|---|---:|---:|");
    println!("| before there is a backfill | {:.2} | {:.2} |", quantile(&before, 0.5), quantile(&before, 0.95));
    println!(
        "| backfill of {} calls paused | {:.2} | {:.2} |",
        measure::whole(f64::from(calls)),
        quantile(&idle, 0.5),
        quantile(&idle, 0.95)
    );
    println!("| backfill going on | {:.2} | {:.2} |", quantile(&beside, 0.5), quantile(&beside, 0.95));
    println!(
        "| ratio to paused | {:.2} | {:.2} |",
        quantile(&beside, 0.5) / quantile(&idle, 0.5),
        quantile(&beside, 0.95) / quantile(&idle, 0.95)
    );
    println!(
        "\nBeside them the backfill ended {:.2} calls/s; {:.1} cores were busy.",
        done as f64 / seconds,
        cores / seconds
    );
    signals.drain.cancel();
    signals.stop.cancel();
    working.await?.ok();
    scene.serving.stop()
}
