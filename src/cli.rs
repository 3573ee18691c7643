//! The command line of `aftercall`. The module parses the arguments, loads the configuration and runs one command.
//! Data goes to stdout. Logs and progress go to stderr.
//!
//! The exit code is 0 for success, 1 for a failure, 2 for wrong usage, 64 for a bad configuration and 75 for a
//! temporary failure.

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

/// Exit code for a bad configuration. The contract of this program says 64, where sysexits.h has 78 (`EX_CONFIG`).
const BAD_CONFIGURATION: u8 = 64;
/// Exit code for wrong usage. clap exits with the same code when it cannot parse a command line.
const BAD_USAGE: u8 = 2;
/// Exit code for a temporary failure, `EX_TEMPFAIL` in sysexits.h.
const TRY_AGAIN: u8 = 75;

/// The after-call worker turns recordings into measured audio and labelled transcripts, under a retention policy.
#[derive(Debug, Parser)]
#[command(
    name = "aftercall",
    version,
    max_term_width = 110,
    after_help = "Examples:\n  aftercall demo                            the whole job on sample calls, offline\n  aftercall process call.mp3 --out DIR      one recording, no server\n  aftercall run                             worker, API and schedules in one process\n  aftercall trigger call_abc123 --source krosai\n  aftercall backfill start --source krosai --from 2026-11-01 --wait\n\nThe configuration is ./aftercall.toml (or --config FILE), then AFTERCALL__SECTION__KEY in the environment."
)]
struct Cli {
    /// Configuration file [default: ./aftercall.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the main job offline on sample calls and show the results
    Demo(demo::Args),
    /// Run worker, API and schedules in one process, for an installation on one machine
    Run,
    /// Run the worker and the schedules
    Work(work::Args),
    /// Serve the HTTP API
    Serve,
    /// Measure, normalise and label recordings from files or URLs, without a server
    Process(process::Args),
    /// Process calls now. A finished call is processed again only with --again
    Trigger(trigger::Args),
    /// Import the calls of a source
    #[command(subcommand)]
    Backfill(backfill::Command),
    /// Account for every completed call of a source
    Reconcile(reconcile::Args),
    /// List and erase calls after their retention date
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
    /// Score words, speakers and roles against your own references
    Evaluate(evaluate::Args),
    /// List, fetch and locate speech-to-text models
    #[command(subcommand)]
    Models(models::Command),
    /// List and erase the stored voices of synthetic agents
    #[command(subcommand)]
    Voices(voices::Command),
    /// Show the usage and the cost of the work
    Costs(costs::Args),
    /// Move an installation from SQLite to PostgreSQL, without losing a job or a record
    Migrate(migrate::Args),
    /// API keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// Print the effective configuration, with secrets shown as ***
    Check(check::Args),
    /// Test every dependency by using it
    Doctor(doctor::Args),
    /// Ask the running process for its health, at ops.listen or else at api.listen (for containers)
    Healthcheck,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Well,
    /// The command ran and its result is a failure.
    Failed,
    /// The result is not known yet. A later try can succeed.
    TryAgain,
}

/// The error of a configuration that cannot be used.
#[derive(Debug)]
struct BadConfiguration(anyhow::Error);

impl fmt::Display for BadConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for BadConfiguration {}

/// The error of arguments that parse but contradict each other.
#[derive(Debug)]
struct BadUsage(String);

impl fmt::Display for BadUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUsage {}

/// The stop of a job, as an error of the command line.
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

/// Parses the arguments, runs the command and returns the exit code of its result.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|err| without_far_fetched(err).exit());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => return report(&anyhow::Error::new(err).context("cannot start the async runtime")),
    };
    let ended = runtime.block_on(run(cli));
    // A blocking task, such as a decoder between two blocks, must not delay the exit for longer.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match ended {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Failed) => ExitCode::FAILURE,
        Ok(Ended::TryAgain) => ExitCode::from(TRY_AGAIN),
        Err(err) => report(&err),
    }
}

/// The error with fewer suggested commands. A suggestion stays when it starts with the first letter of the typed word.
/// So `erase` does not suggest `serve`.
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

/// Loads the configuration and starts logging and metrics.
fn load(file: Option<&Path>) -> Result<Config> {
    let config = Config::load(file).map_err(BadConfiguration)?;
    telemetry::start_logs(&config.log).map_err(BadConfiguration)?;
    telemetry::metrics_handle()?;
    Ok(config)
}

/// What a command does with the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The command only reads. A replica or a read-only database is enough.
    Look,
    /// The command writes.
    Change,
}

/// The app of a command that writes. Workers may run at the same time.
async fn open(file: Option<&Path>) -> Result<Arc<App>> {
    open_to(Purpose::Change, file).await
}

/// The app of a command with the given purpose. Log level `info` becomes `warn` here.
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
