//! The command `doctor`. The configuration goes in. The command tests every dependency by using it and prints one
//! finding for each.

use std::sync::Arc;

use anyhow::Result;
use jiff::SignedDuration;
use serde::Serialize;

use super::{Ended, out};
use crate::app::{App, CLOCK_TOLERANCE, Clock};
use crate::config::Config;
use crate::config::EngineChoice;
use crate::domain::Segment;
use crate::jobs::object_check;
use crate::jobs::schedule::{ScheduleStatus, Schedules};
use crate::source::SourceError;
use crate::store::StoreError;
use crate::transcript::engine::{EngineError, SAMPLE, sample_sentence};
use crate::transcript::engines::installed;
use crate::worker::DataLock;

/// The number of newest calls whose objects are checked.
const NEWEST: u32 = 20;
/// A schedule that is late by more than this has no worker to fire it.
const LATE: SignedDuration = SignedDuration::from_mins(10);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

/// The result of one test.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    ok: bool,
    /// The observation, or the fault and its remedy.
    detail: String,
}

impl Finding {
    fn of<T>(
        what: impl Into<String>,
        tried: Result<T, impl Into<anyhow::Error>>,
        good: impl FnOnce(T) -> String,
    ) -> Self {
        match tried {
            Ok(seen) => Self { what: what.into(), ok: true, detail: good(seen) },
            Err(err) => Self { what: what.into(), ok: false, detail: briefly(&err.into()) },
        }
    }
}

/// An error as one line. For a platform that cannot be reached, the line holds only the root cause.
fn briefly(err: &anyhow::Error) -> String {
    let Some(SourceError::Unreachable { host, .. }) = err.downcast_ref() else { return format!("{err:#}") };
    let kind = err.root_cause().downcast_ref().map(std::io::Error::kind);
    match kind {
        Some(std::io::ErrorKind::ConnectionRefused) => format!("{host} refuses connections"),
        Some(std::io::ErrorKind::TimedOut) => format!("{host} does not answer"),
        _ => format!("cannot reach {host}: {}", err.root_cause()),
    }
}

/// Runs all tests and prints the findings. The command fails when one test fails.
pub(super) async fn run(config: Config, args: Args) -> Result<Ended> {
    let mut findings = vec![data_dir(&config)];
    match connect(config).await {
        Ok(app) => {
            findings.push(Finding {
                what: "database".to_owned(),
                ok: true,
                detail: "connected, schema up to date".to_owned(),
            });
            findings.extend(look(&app).await);
        }
        Err(err) => findings.push(Finding { what: "database".to_owned(), ok: false, detail: format!("{err:#}") }),
    }
    let ok = findings.iter().all(|finding| finding.ok);
    if args.json {
        out::json(&findings)?;
    } else {
        for finding in &findings {
            let mark = if finding.ok { "ok  " } else { "FAIL" };
            out::line(&format!("{mark} {}: {}", finding.what, finding.detail));
        }
    }
    Ok(if ok { Ended::Well } else { Ended::Failed })
}

/// Opens the database. An older schema is a finding and is not migrated. A database without a schema gets one.
async fn connect(config: Config) -> Result<Arc<App>> {
    match App::look(config.clone(), Clock::system()).await {
        Err(err) if matches!(err.downcast_ref(), Some(StoreError::NoSchema { .. })) => {
            App::build(config, Clock::system()).await
        }
        Err(err) => Err(err),
        // Requests to sources are counted in the database. All other tests also work on a read-only database.
        Ok(looked) => Ok(App::build(config, Clock::system()).await.unwrap_or(looked)),
    }
}

fn data_dir(config: &Config) -> Finding {
    let path = config.data_dir.display().to_string();
    match DataLock::take(&config.data_dir) {
        Ok(_) => Finding { what: "data directory".to_owned(), ok: true, detail: format!("{path} is writable") },
        Err(err) if err.is::<crate::worker::Locked>() => Finding {
            what: "data directory".to_owned(),
            ok: true,
            detail: format!("{path}; a worker is running on it"),
        },
        Err(err) => Finding { what: "data directory".to_owned(), ok: false, detail: format!("{err:#}") },
    }
}

async fn look(app: &Arc<App>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let objects = app.objects.check().await;
    findings
        .push(Finding::of("object store", objects, |health| format!("{}: written, read and deleted", health.place)));
    if let Ok(Some(theirs)) = app.objects.server_date().await {
        let apart = app.now().duration_since(theirs).abs();
        let ok = apart < SignedDuration::from_secs(60);
        findings.push(Finding {
            what: "clock".to_owned(),
            ok,
            detail: format!("{apart:#} apart from the object store's"),
        });
    }
    findings.push(stored_objects(app).await);
    findings.push(database_clock(app).await);
    findings.extend(schedules(app).await);
    for (name, platform) in &app.platforms {
        let listed = platform.source.check().await;
        let seen = |page: crate::wire::Page| match page.total {
            Some(total) => format!("key accepted, {total} calls listed"),
            None => format!("key accepted, {} calls on the first page", page.calls.len()),
        };
        findings.push(Finding::of(format!("source {name}"), listed, seen));
        if let Some(budget) = platform.settings.requests_per_day {
            let asked = app.store.rate_limit(name).await.map(|row| row.asked_on(app.now()));
            let seen = |asked: u64| format!("{asked} of {budget} requests asked today (UTC)");
            findings.push(Finding::of(format!("budget of {name}"), asked, seen));
        }
    }
    if app.platforms.is_empty() {
        findings.push(Finding {
            what: "sources".to_owned(),
            ok: false,
            detail: "none configured: add a [[source]]".to_owned(),
        });
    }
    findings.push(self_test(app));
    findings.push(engine(app));
    if let Some(checked) = app.engines.diarizer_check() {
        findings.push(Finding::of("diarizer".to_owned(), checked, |()| "its models load".to_owned()));
    }
    for engine in &app.remote_stt {
        let settings = engine.remote.settings();
        let heard = settings.organizations.len();
        let seen = |()| format!("key accepted; may hear {heard} organisations at {}", settings.price());
        findings.push(Finding::of(format!("speech engine {}", settings.name), engine.remote.check().await, seen));
    }
    if !app.config.retention.enabled {
        let detail = "retention.enabled is false: nothing is ever erased".to_owned();
        findings.push(Finding { what: "retention".to_owned(), ok: false, detail });
    }
    findings
}

/// Checks the stored objects. It counts the calls that a sweep has flagged and looks for the objects of the newest
/// calls.
async fn stored_objects(app: &App) -> Finding {
    let what = "stored objects".to_owned();
    let looked = async {
        let flagged: u64 = app.store.missing_objects().await?.values().sum();
        let (mut lost, newest) = (Vec::new(), app.store.newest_stored(NEWEST).await?);
        for uid in &newest {
            let Some(record) = app.store.call(*uid).await? else { continue };
            let first: Vec<_> = record.artifacts.iter().take(1).collect();
            if object_check::first_lost(app, &first).await?.is_some() {
                lost.push(record.call_id.to_string());
            }
        }
        anyhow::Ok((flagged, lost, newest.len()))
    };
    let again = "`aftercall backfill start --source … --from … --where flag=missing_object` fetches them again";
    match looked.await {
        Ok((0, lost, of)) if lost.is_empty() => {
            let detail = format!("none known to be lost; those of the newest {of} calls are there");
            Finding { what, ok: true, detail }
        }
        Ok((0, lost, of)) => {
            let (calls, names) = (lost.len(), lost.join(", "));
            let detail =
                format!("lost of {calls} of the newest {of} calls ({names}); the next sweep flags all, then {again}");
            Finding { what, ok: false, detail }
        }
        Ok((flagged, ..)) => {
            let detail = format!("lost of {flagged} calls (`aftercall calls list --flag missing_object`); {again}");
            Finding { what, ok: false, detail }
        }
        Err(err) => Finding { what, ok: false, detail: format!("{err:#}") },
    }
}

/// Compares the clocks of this machine and of the workers with the database's clock.
async fn database_clock(app: &App) -> Finding {
    let what = "clock".to_owned();
    if app.store.is_embedded() {
        return Finding { what, ok: true, detail: "the database is a file and has this machine's".to_owned() };
    }
    let compared = async {
        let ahead = app.compare_clocks().await?;
        anyhow::Ok((ahead, app.queue.wrong_clocks(CLOCK_TOLERANCE.unsigned_abs()).await?))
    };
    match compared.await {
        Ok((ahead, _)) if app.clock.is_wrong() => {
            let detail = format!(
                "this machine's is {ahead:#} ahead of the database's; a worker here takes no scheduled work: set it right (NTP)"
            );
            Finding { what, ok: false, detail }
        }
        Ok((_, wrong)) if !wrong.is_empty() => {
            let of = |(host, ms): &(String, i64)| format!("{host} ({:#} ahead)", SignedDuration::from_millis(*ms));
            let hosts: Vec<String> = wrong.iter().map(of).collect();
            let detail = format!("of workers that keep another time than the database: {}", hosts.join(", "));
            Finding { what, ok: false, detail }
        }
        Ok((ahead, _)) => Finding { what, ok: true, detail: format!("{ahead:#} ahead of the database's") },
        Err(err) => Finding { what, ok: false, detail: format!("{err:#}") },
    }
}

/// One finding for each schedule, with its last and next time and its lag.
async fn schedules(app: &App) -> Vec<Finding> {
    let what = "schedules".to_owned();
    let loaded = match Schedules::load(app) {
        Ok(loaded) => loaded,
        Err(err) => return vec![Finding { what, ok: false, detail: format!("{err:#}") }],
    };
    match loaded.statuses(app).await {
        Ok(all) if all.is_empty() => vec![Finding { what, ok: true, detail: "none".to_owned() }],
        Ok(all) => all.iter().map(schedule).collect(),
        Err(err) => vec![Finding { what, ok: false, detail: err.to_string() }],
    }
}

fn schedule(status: &ScheduleStatus) -> Finding {
    let what = format!("schedule {}", status.name);
    let Some(next) = status.next_at else {
        return Finding { what, ok: true, detail: "no worker has seen it yet".to_owned() };
    };
    let fired = status.fired_at.map_or_else(|| "never".to_owned(), |at| format!("{at:.0}"));
    let seen = format!("last fired {fired}, next {next:.0}, lag {} s", status.lag.as_secs());
    if status.astray {
        let detail = format!("{seen}: further away than one period; a worker with a right clock pulls it back");
        return Finding { what, ok: false, detail };
    }
    if status.lag > LATE {
        return Finding { what, ok: false, detail: format!("{seen}: no worker fires it (`aftercall work`)") };
    }
    Finding { what, ok: true, detail: seen }
}

/// Recognises the built-in sentence with the built-in model. It shows that neural networks run on this machine.
fn self_test(app: &App) -> Finding {
    let (samples, text) = sample_sentence();
    let duration_ms = samples.len() as u64 / 16;
    let tried = app.engines.named(SAMPLE).and_then(|engine| {
        let words = engine.recognise(&mut samples.as_slice(), &[Segment::new(0, duration_ms)], duration_ms)?;
        let said: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        Ok(said.join(" "))
    });
    let what = "speech engine".to_owned();
    match tried {
        Ok(said) if said == text => {
            Finding { what, ok: true, detail: format!("recognises its self-test (\u{201c}{said}\u{201d})") }
        }
        Ok(said) => Finding {
            what,
            ok: false,
            detail: format!("heard \u{201c}{said}\u{201d} where \u{201c}{text}\u{201d} is said"),
        },
        Err(err) => Finding { what, ok: false, detail: err.to_string() },
    }
}

/// The finding's text where no model is installed. It tells the outcome of calls without text.
fn without_model(app: &App) -> String {
    let named: Vec<&str> = app.remote_stt.iter().map(|engine| engine.remote.settings().name.as_str()).collect();
    if named.is_empty() {
        return "none installed: calls without text end as no_engine; see `aftercall models list`".to_owned();
    }
    format!(
        "none installed: calls without text are heard by {} where it may hear their organisation, and end as no_engine \
         elsewhere",
        named.join(" or ")
    )
}

/// Loads the model that is used for real calls.
fn engine(app: &App) -> Finding {
    let what = "speech model".to_owned();
    let settings = &app.config.transcript;
    let all = installed(&app.config.models_dir());
    let named = if settings.model.is_empty() {
        all.first().map(|dir| dir.display().to_string())
    } else {
        Some(settings.model.clone())
    };
    match (settings.engine, named) {
        (EngineChoice::Off, _) => {
            Finding { what, ok: true, detail: "off: only the platform's text is used".to_owned() }
        }
        (choice, None) => Finding { what, ok: choice != EngineChoice::Embedded, detail: without_model(app) },
        (_, Some(name)) => {
            let loaded: Result<_, EngineError> = app.engines.named(&name);
            Finding::of(what, loaded, |engine| format!("{} loads", engine.manifest().name))
        }
    }
}
