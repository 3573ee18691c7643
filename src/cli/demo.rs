//! The command `demo`. It serves sample calls from a sample platform on loopback and needs no network. The real worker,
//! queue, store and object store process these calls. The results go to stdout and to a folder.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::calls::show::loudness;
use super::{Ended, Failed, out, serve, signals};
use crate::app::{App, Clock};
use crate::config::{Config, own_dir};
use crate::demo;
use crate::demo::Sample;
use crate::domain::{CallId, Outcome, SourceName};
use crate::jobs::retention_sweep::{self, Consent};
use crate::jobs::{backfill, reconcile};
use crate::store::{CallFilter, CallRecord, NewBackfill, Origin, Scope};
use crate::telemetry;
use crate::wire::Window;
use crate::worker;
use crate::worker::{DataLock, Signals, Until};

const DEFAULT_DIR: &str = "aftercall-demo";
/// File that marks the folder of a demo. The next demo may empty a folder with this file.
const MARKER: &str = ".aftercall-demo";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  aftercall demo\n  aftercall demo --keep /tmp/look     leave database, objects and originals there\n  aftercall demo --serve              then stay up as an API on the processed calls"
)]
pub(super) struct Args {
    /// Work in this folder instead of ./aftercall-demo
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Stay up and serve the API afterwards
    #[arg(long)]
    serve: bool,
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Runs the demo. It fails when a call has another outcome than its sample expects.
pub(super) async fn run(args: Args) -> Result<Ended> {
    let dir = args.keep.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DIR));
    prepare(&dir)?;
    let clock = Clock::system();
    let platform_clock = clock.clone();
    let (samples, platform) = demo::sample(clock.now(), Arc::new(move || platform_clock.now()))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen on loopback")?;
    let serving = platform.serve(listener)?;
    let config = configuration(&dir, &serving.base_url())?;
    telemetry::start_logs(&config.log)?;
    telemetry::metrics_handle()?;
    let lock = DataLock::take(&config.data_dir)?;
    let app = App::build(config, clock).await?;
    if !args.json {
        out::line(&format!("{} sample calls on {}, working in {}\n", samples.len(), serving.base_url(), dir.display()));
    }
    process(&app, &lock, &samples).await?;
    let records = records(&app, &samples).await?;
    let (listed, balanced) = balance(&app).await?;
    let swept = retention_sweep::sweep(&app, Consent::Forced).await.map_err(Failed::from)?;
    if args.json {
        out::json(&json(&app, &records).await?)?;
    } else {
        show(&app, &records).await?;
        out::line(&summary(listed, &records));
        out::line(&written_back(&app, &records).await?);
        out::line(&retention(swept.due, swept.held, &records));
    }
    let wrong = wrong(&samples, &records);
    for line in &wrong {
        out::error(line);
    }
    if !balanced {
        out::error("a completed call of the sample platform is not accounted for");
    }
    if args.serve {
        stay_up(&app, &lock).await?;
    }
    serving.stop().await;
    Ok(if wrong.is_empty() && balanced { Ended::Well } else { Ended::Failed })
}

/// Prepares an empty folder for the demo. A folder with content is emptied only when a demo made it.
fn prepare(dir: &Path) -> Result<()> {
    let occupied = dir.exists() && std::fs::read_dir(dir)?.next().is_some();
    if occupied && !dir.join(MARKER).exists() {
        bail!("{} is not empty and not a demo's own; name another with --keep DIR", dir.display());
    }
    if occupied {
        let _lock = DataLock::take(dir)?;
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    own_dir(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    std::fs::write(dir.join(MARKER), "made by `aftercall demo`, which empties this folder when it runs again\n")
        .with_context(|| format!("cannot write into {}", dir.display()))
}

/// Writes and loads the configuration of the demo. It differs from a usual one in the folder, the short waits, the log
/// level, the sample model and the backfill priority. A backfill at idle priority makes little progress on a busy
/// machine.
fn configuration(dir: &Path, base_url: &str) -> Result<Config> {
    let place = dir.canonicalize()?;
    let place = place.to_str().context("the folder's path is not UTF-8")?;
    let text = format!(
        "data_dir = {place:?}\n[store]\nurl = \"sqlite://{place}/aftercall.db\"\n[objects]\npath = \"{place}/objects\"\n\
         [fetch]\nnot_ready_pause = \"500ms\"\n[worker]\npoll = \"100ms\"\nbackfill_cpu = \"normal\"\n[log]\nlevel = \"error\"\n\
         [transcript]\nmodel = \"sample\"\n{}",
        demo::sources_toml(base_url)
    );
    let path = dir.join("aftercall.toml");
    std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    Config::load(Some(&path))
}

/// Starts a backfill of every source and runs the worker until the queue is idle.
async fn process(app: &Arc<App>, lock: &DataLock, samples: &[Sample]) -> Result<()> {
    let now = app.now();
    let from = now.checked_sub(jiff::SignedDuration::from_hours(24 * 365))?;
    let to = now.checked_add(jiff::SignedDuration::from_hours(1))?;
    for source in app.platforms.keys() {
        let new = NewBackfill { source, from, to, again: false, origin: Origin::Command, now };
        backfill::start(app, &new).await.map_err(Failed::from)?;
    }
    let follow = tokio::spawn(follow(app.clone(), samples.len() as u64, not_completed(samples)));
    let signals = Signals::default();
    signals::listen(&signals)?;
    let worked = worker::run(app.clone(), lock, Until::Idle, signals).await;
    follow.abort();
    worked
}

fn not_completed(samples: &[Sample]) -> u64 {
    samples.iter().filter(|sample| sample.expected == Outcome::NotEligible).count() as u64
}

/// Shows the number of ended calls. Calls that were not completed count as ended from the first listing on.
async fn follow(app: Arc<App>, all: u64, not_completed: u64) {
    let bar = out::bar(all, "calls");
    while bar.position() < all {
        let calls = app.store.calls(&CallFilter::default()).await.unwrap_or_default();
        let ended = |call: &&CallRecord| call.outcome.is_some_and(|outcome| outcome != Outcome::NotEligible);
        let ended: Vec<&CallRecord> = calls.iter().filter(ended).collect();
        bar.set_position(if calls.is_empty() { 0 } else { ended.len() as u64 + not_completed });
        if let Some(last) = ended.iter().max_by_key(|call| call.outcome_at) {
            bar.set_message(format!("{} {}", last.call_id, last.outcome.map_or("", Outcome::as_str)));
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    bar.finish_and_clear();
}

/// The record of each sample, in the order of the samples. A call without a record gives `None`.
async fn records(app: &App, samples: &[Sample]) -> Result<Vec<Option<CallRecord>>> {
    let mut all = Vec::new();
    for sample in samples {
        let (id, source) = (CallId::parse(&sample.call.id)?, SourceName::parse(sample.source)?);
        all.push(app.store.calls_by_id(&id, Some(&source)).await?.pop());
    }
    Ok(all)
}

/// The number of calls that the sources list. The flag is true when every completed call is accounted for.
async fn balance(app: &App) -> Result<(u64, bool)> {
    let (mut listed, mut balanced) = (0, true);
    for source in app.platforms.keys() {
        let window = Window { from: jiff::Timestamp::UNIX_EPOCH, to: app.now() };
        let balance = reconcile::balance(app, source, window).await.map_err(Failed::from)?;
        listed += balance.listed;
        balanced &= balance.missing == 0 && balance.running == 0;
    }
    Ok((listed, balanced))
}

fn wrong(samples: &[Sample], records: &[Option<CallRecord>]) -> Vec<String> {
    let ended =
        |record: &Option<CallRecord>| record.as_ref().map_or(Some(Outcome::NotEligible), |record| record.outcome);
    samples
        .iter()
        .zip(records)
        .filter(|(sample, record)| ended(record) != Some(sample.expected))
        .map(|(sample, record)| {
            let got = ended(record).map_or("nothing", Outcome::as_str);
            format!("{}: expected {}, got {got}", sample.call.id, sample.expected)
        })
        .collect()
}

async fn show(app: &App, records: &[Option<CallRecord>]) -> Result<()> {
    let columns = [
        out::Column::kept("call"),
        out::Column::spare("source", 2),
        out::Column::spare("direction", 3),
        out::Column::kept("length"),
        out::Column::kept("MOS"),
        out::Column::spare("loudness", 1),
        out::Column::kept("speakers"),
        out::Column::kept("outcome"),
    ];
    let mut rows = Vec::new();
    let mut texts = Vec::new();
    for record in records.iter().flatten() {
        let version = app.store.transcripts(record.uid).await?.pop();
        let figure = |pointer: &str| record.quality.as_ref().and_then(|quality| quality.pointer(pointer)?.as_f64());
        rows.push(vec![
            record.call_id.to_string(),
            record.source.to_string(),
            out::or_dash(record.direction.as_deref()),
            record.duration_ms.map_or_else(|| "–".to_owned(), out::minutes),
            out::or_dash(figure("/mos/mos_cqe").map(|mos| format!("{mos:.2}"))),
            out::or_dash(record.quality.as_ref().and_then(loudness)),
            out::or_dash(version.as_ref().map(|version| version.transcript.speakers.len())),
            record.outcome.map_or_else(|| "…".to_owned(), |outcome| outcome.to_string()),
        ]);
        if let Some(version) = version {
            texts.push(format!("── {} ({})\n{}\n", record.call_id, record.source, version.text));
        }
    }
    out::table(&columns, rows, "no call was processed");
    out::line("");
    for text in texts {
        out::line(&text);
    }
    Ok(())
}

/// The counts as one line, such as `14 listed: 6 done, 1 damaged, 7 not completed`.
fn summary(listed: u64, records: &[Option<CallRecord>]) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for outcome in records.iter().flatten().filter_map(|record| record.outcome) {
        if outcome != Outcome::NotEligible {
            *counts.entry(outcome.as_str()).or_default() += 1;
        }
    }
    let ended: u64 = counts.values().sum();
    let not_completed = listed.saturating_sub(ended);
    let mut parts: Vec<String> = counts.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    parts.push(format!("{not_completed} not completed"));
    format!("{listed} listed: {}", parts.join(", "))
}

async fn written_back(app: &App, records: &[Option<CallRecord>]) -> Result<String> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for record in records.iter().flatten() {
        for delivery in app.store.deliveries(record.uid).await?.into_iter().filter(|delivery| delivery.delivered) {
            *counts.entry(format!("{} (write_back = \"{}\")", record.source, delivery.target)).or_default() += 1;
        }
    }
    let parts: Vec<String> =
        counts.iter().map(|(to, count)| format!("{} to {to}", out::counted(*count, "call"))).collect();
    Ok(format!("written back: {}", parts.join(", ")))
}

fn retention(due: u64, held: u64, records: &[Option<CallRecord>]) -> String {
    let next =
        records.iter().flatten().filter(|record| record.holds_content()).min_by_key(|record| record.retain_until);
    let next = next
        .map_or_else(String::new, |record| format!("; the next is {} at {:.0}", record.call_id, record.retain_until));
    format!("retention run: {due} due, {held} held{next}")
}

async fn json(app: &App, records: &[Option<CallRecord>]) -> Result<Value> {
    let mut calls = Vec::new();
    for record in records.iter().flatten() {
        let version = app.store.transcripts(record.uid).await?.pop();
        calls.push(json!({
            "id": record.call_id,
            "source": record.source,
            "direction": record.direction,
            "duration_ms": record.duration_ms,
            "outcome": record.outcome,
            "transcript": version.map(|version| version.text),
            "quality_metrics": record.quality,
            "artifacts": record.artifacts,
        }));
    }
    Ok(json!({ "calls": calls }))
}

async fn stay_up(app: &Arc<App>, lock: &DataLock) -> Result<()> {
    let listener =
        TcpListener::bind(app.config.api.listen).await.or(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await)?;
    let key = format!("ac_demo_{}", uuid::Uuid::now_v7().simple());
    app.store.add_key("demo", &key, &[Scope::Admin], None, app.now()).await?;
    let at = listener.local_addr()?;
    out::note(&format!("API on http://{at}, ctrl-c ends it. Try:\n  curl -H 'x-api-key: {key}' http://{at}/v1/calls"));
    let signals = Signals::default();
    signals::listen(&signals)?;
    let api = tokio::spawn(serve::until(app.clone(), listener, signals.drain.clone()));
    worker::run(app.clone(), lock, Until::Stopped, signals).await?;
    api.await?
}
