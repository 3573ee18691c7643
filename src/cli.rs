//! The command line. Data on stdout, logs and progress on stderr; exit codes: 0 done, 1 failed, 2 usage,
//! 64 bad configuration, 75 temporary failure.

mod backfill;
mod calls;
mod check;
mod costs;
mod demo;
mod doctor;
mod evaluate;
mod healthcheck;
mod hold;
mod jobs;
mod keys;
mod leftovers;
mod migrate;
mod models;
mod out;
mod process;
mod reconcile;
mod retention;
mod serve;
mod signals;
mod trigger;
mod voices;
mod work;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};

use crate::app::{App, Clock};
use crate::artifacts::ObjectError;
use crate::config::Config;
use crate::domain::{Classify, Fault};
use crate::jobs::Stop;
use crate::queue::QueueError;
use crate::source::SourceError;
use crate::store::StoreError;
use crate::telemetry;
use crate::worker::Locked;

/// `EX_CONFIG` and `EX_TEMPFAIL` are the names sysexits.h has for these; the first is 78 there, 64 here by contract.
const BAD_CONFIGURATION: u8 = 64;
/// As clap exits where a command line cannot be parsed.
const BAD_USAGE: u8 = 2;
const TRY_AGAIN: u8 = 75;

/// The after-call worker: recordings in, measured audio and labelled transcripts out, under a retention policy.
#[derive(Debug, Parser)]
#[command(
    name = "aftercall",
    version,
    max_term_width = 110,
    after_help = "Examples:\n  aftercall demo                            the whole job on sample calls, offline\n  aftercall process call.mp3 --out DIR      one recording, no server\n  aftercall run                             worker, API and schedules in one process\n  aftercall trigger call_abc123 --source krosai\n  aftercall backfill start --source krosai --from 2026-11-01 --wait\n\nThe configuration is ./aftercall.toml (or --config FILE), then AFTERCALL__SECTION__KEY in the environment."
)]
struct Cli {
    /// Configuration file [default: ./aftercall.toml where there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the main job on sample calls, offline, and show what comes out
    Demo(demo::Args),
    /// Worker, API and schedules in one process: all that one machine needs
    Run,
    /// Worker and schedules
    Work(work::Args),
    /// The HTTP API
    Serve,
    /// Measure, normalise and label recordings from files or URLs, without a server
    Process(process::Args),
    /// Process calls now; a finished call is left alone without --again
    Trigger(trigger::Args),
    /// Bring in the calls a source holds
    #[command(subcommand)]
    Backfill(backfill::Command),
    /// Account for every completed call of a source
    Reconcile(reconcile::Args),
    /// What is past its term, and erasing it
    #[command(subcommand)]
    Retention(retention::Command),
    /// Keep calls from being erased
    #[command(subcommand)]
    Hold(hold::Command),
    /// Jobs and dead letters
    #[command(subcommand)]
    Jobs(jobs::Command),
    /// Call records
    #[command(subcommand)]
    Calls(calls::Command),
    /// Judge words, speakers and roles against references of your own
    Evaluate(evaluate::Args),
    /// Speech-to-text models: what there is, fetching one, where it is
    #[command(subcommand)]
    Models(models::Command),
    /// What is kept of the voices of synthetic agents
    #[command(subcommand)]
    Voices(voices::Command),
    /// What the work used and what it cost
    Costs(costs::Args),
    /// Move an installation from SQLite to PostgreSQL, without losing a job or a record
    Migrate(migrate::Args),
    /// API keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// Print the effective configuration, secrets as ***
    Check(check::Args),
    /// Try every dependency for real
    Doctor(doctor::Args),
    /// Ask the running process whether it is up, at ops.listen or else api.listen (for containers)
    Healthcheck,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Well,
    /// It ran, and what it found is a failure.
    Failed,
    /// Nothing can be said yet: try again.
    TryAgain,
}

/// The configuration could not be used.
#[derive(Debug)]
struct BadConfiguration(anyhow::Error);

impl fmt::Display for BadConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for BadConfiguration {}

/// Arguments that parse, but make no sense together.
#[derive(Debug)]
struct BadUsage(String);

impl fmt::Display for BadUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUsage {}

/// A job's stop, met at the command line.
#[derive(Debug)]
struct Failed {
    cause: String,
    temporary: bool,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for Failed {}

impl From<Stop> for Failed {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Trouble(trouble) | Stop::Barred(trouble) => {
                Self { cause: trouble.cause, temporary: !matches!(trouble.fault, Fault::Permanent | Fault::Fenced) }
            }
            Stop::Snooze { .. } => Self { cause: "not ready yet, try again later".to_owned(), temporary: true },
            Stop::Fenced => Self { cause: "another process owns this now".to_owned(), temporary: true },
        }
    }
}

/// Parses, runs, and turns what came of it into an exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|err| without_far_fetched(err).exit());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => return report(&anyhow::Error::new(err).context("cannot start the async runtime")),
    };
    let ended = runtime.block_on(run(cli));
    // A blocking task that does not stop (a decoder between two blocks) must not hold the exit up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match ended {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Failed) => ExitCode::FAILURE,
        Ok(Ended::TryAgain) => ExitCode::from(TRY_AGAIN),
        Err(err) => report(&err),
    }
}

/// The error without commands that merely share a few letters with what was typed: nobody who types `erase` means `serve`.
fn without_far_fetched(mut err: clap::Error) -> clap::Error {
    let typed = match err.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(typed)) => typed.chars().next(),
        _ => return err,
    };
    if let Some(ContextValue::Strings(near)) = err.remove(ContextKind::SuggestedSubcommand) {
        let near: Vec<String> = near.into_iter().filter(|name| name.chars().next() == typed).collect();
        if !near.is_empty() {
            err.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(near));
        }
    }
    err
}

fn report(err: &anyhow::Error) -> ExitCode {
    out::error(&format!("{err:#}"));
    ExitCode::from(exit_code(err))
}

fn exit_code(err: &anyhow::Error) -> u8 {
    let pooled = |cause: &StoreError| matches!(cause, StoreError::Pooled { .. });
    if err.is::<BadConfiguration>() || err.chain().any(|cause| cause.downcast_ref().is_some_and(pooled)) {
        return BAD_CONFIGURATION;
    }
    if err.downcast_ref::<BadUsage>().is_some() {
        return BAD_USAGE;
    }
    let passes = |fault: Fault| !matches!(fault, Fault::Permanent | Fault::Fenced);
    let temporary = err.chain().any(|cause| {
        cause.is::<Locked>()
            || cause.downcast_ref::<Failed>().is_some_and(|failed| failed.temporary)
            || cause.downcast_ref::<SourceError>().is_some_and(|err| passes(err.fault()))
            || cause.downcast_ref::<StoreError>().is_some_and(|err| passes(err.fault()))
            || cause.downcast_ref::<QueueError>().is_some_and(|err| passes(err.fault()))
            || cause.downcast_ref::<ObjectError>().is_some_and(|err| passes(err.fault()))
    });
    if temporary { TRY_AGAIN } else { 1 }
}

async fn run(cli: Cli) -> Result<Ended> {
    let file = cli.config.as_deref();
    match cli.command {
        Command::Demo(args) => demo::run(args).await,
        Command::Run => work::run_all(load(file)?).await,
        Command::Work(args) => work::run(load(file)?, args).await,
        Command::Serve => serve::run(load(file)?).await,
        Command::Process(args) => process::run(load(file)?, args).await,
        Command::Trigger(args) => trigger::run(&open(file).await?, args).await,
        Command::Backfill(command) => backfill::run(&open_to(command.purpose(), file).await?, command).await,
        Command::Reconcile(args) => reconcile::run(&open(file).await?, args).await,
        Command::Retention(command) => retention::run(&open_to(command.purpose(), file).await?, command).await,
        Command::Hold(command) => hold::run(&open_to(command.purpose(), file).await?, command).await,
        Command::Jobs(command) => jobs::run(&open_to(command.purpose(), file).await?, command).await,
        Command::Calls(command) => calls::run(&open_to(command.purpose(), file).await?, command).await,
        Command::Evaluate(args) => evaluate::run(load(file)?, args).await,
        Command::Models(command) => models::run(load(file)?, command).await,
        Command::Keys(command) => keys::run(&open_to(command.purpose(), file).await?, command).await,
        Command::Voices(command) => voices::run(&open_to(command.purpose(), file).await?, command).await,
        Command::Costs(args) => costs::run(&open_to(Purpose::Look, file).await?, args).await,
        Command::Migrate(args) => migrate::run(load(file)?, args).await,
        Command::Check(args) => check::run(file, &args),
        Command::Doctor(args) => doctor::run(load(file)?, args).await,
        Command::Healthcheck => healthcheck::run(&load(file)?).await,
    }
}

/// The configuration, with logging started as it says.
fn load(file: Option<&Path>) -> Result<Config> {
    let config = Config::load(file).map_err(BadConfiguration)?;
    telemetry::start_logs(&config.log).map_err(BadConfiguration)?;
    telemetry::metrics_handle()?;
    Ok(config)
}

/// What a command does with the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Nothing but reading: a replica, or a database that cannot be written, will do.
    Look,
    Change,
}

/// The app of a command that works beside running workers.
async fn open(file: Option<&Path>) -> Result<Arc<App>> {
    open_to(Purpose::Change, file).await
}

/// The same for a command that may only look. It logs only what goes wrong.
async fn open_to(purpose: Purpose, file: Option<&Path>) -> Result<Arc<App>> {
    let mut config = Config::load(file).map_err(BadConfiguration)?;
    if config.log.level == "info" {
        "warn".clone_into(&mut config.log.level);
    }
    telemetry::start_logs(&config.log).map_err(BadConfiguration)?;
    match purpose {
        Purpose::Look => App::look(config, Clock::system()).await,
        Purpose::Change => App::build(config, Clock::system()).await,
    }
}
