//! The worker: it runs jobs, heartbeats and maintenance until a signal arrives or the queue is idle. On PostgreSQL
//! several workers share one queue. A schedule fires once, because a worker claims it by its database row.

use std::fs::File;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::SignedDuration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app;
use crate::app::App;
use crate::domain::{CallUid, RetentionState, Side};
use crate::jobs::Jobs;
use crate::jobs::schedule::Schedules;
use crate::queue::{Lanes, QueueError, Requeued, Timekeeping};
use crate::telemetry;
use crate::telemetry::Outage;

/// `--until-idle` also counts jobs that become due within this time, such as a backfill's next snooze or a quick retry.
const IDLE_HORIZON: Duration = Duration::from_secs(3);
/// `--until-idle` no longer waits for a platform that has only asked for pauses for this long.
const PATIENCE: SignedDuration = SignedDuration::from_secs(20);
const AFTER_A_FAILURE: Duration = Duration::from_millis(500);
const AFTER_AN_ABSENCE: Duration = Duration::from_secs(2);
/// A restarted database usually answers again within this time.
const PASSES_WITHIN: Duration = Duration::from_secs(10);
const IDLE_LOOK: Duration = Duration::from_millis(100);
/// Interval of the log line about a paused worker.
const STILL: Duration = Duration::from_secs(60);

/// Another process runs jobs on the same data directory.
#[derive(Debug, thiserror::Error)]
#[error(
    "another aftercall process runs jobs on {path}; stop it first, or use another data_dir (lock file {path}/lock)"
)]
pub struct Locked {
    path: String,
}

/// Lock of a data directory. It is held while the file is open.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`Locked`] when another process holds it; otherwise the reason why the lock file cannot be used.
    pub fn take(data_dir: &Path) -> Result<Self> {
        app::own_dir(data_dir).with_context(|| format!("data_dir: cannot use {}", data_dir.display()))?;
        let path = data_dir.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("data_dir: cannot write {} (is the directory writable?)", path.display()))?;
        // An earlier build may have created the file with wider permissions.
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
            .with_context(|| format!("data_dir: cannot close {} to others", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(Locked { path: data_dir.display().to_string() }.into()),
            Err(std::fs::TryLockError::Error(err)) => {
                Err(err).with_context(|| format!("data_dir: cannot lock {}", path.display()))
            }
        }
    }
}

/// The condition that ends a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Stopped,
    /// No job runs and no job is due.
    Idle,
}

/// Signals to a worker. The first drains, the second stops at once.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    pub drain: CancellationToken,
    pub stop: CancellationToken,
}

/// Runs jobs until a signal or until idle. The caller must hold the data directory's lock.
///
/// # Errors
/// The reason why it cannot start, or why the queue ended unexpectedly.
pub async fn run(app: Arc<App>, _lock: &DataLock, until: Until, signals: Signals) -> Result<()> {
    // The data directory's lock is not enough, because several data directories may name one database file.
    let _claim = app.store.claim()?;
    let worker = format!("{}-{}", std::process::id(), uuid::Uuid::now_v7());
    let host = gethost();
    app.queue.heartbeat(&worker, &host).await?;
    if app.store.is_embedded() {
        // The claim proves that no other worker uses this database. So jobs marked as running are orphans.
        report(app.queue.requeue_expired(&worker, Duration::ZERO).await?);
    }
    empty_spool(&app).await?;
    let schedules = if until == Until::Stopped { Some(Schedules::load(&app)?) } else { None };
    let slots = app.config.worker.concurrency;
    tracing::info!(worker, concurrency = slots, "worker started");
    let over = CancellationToken::new();
    let clock = Arc::new(ClockWatch::of(&app));
    clock.look(&app, &worker).await;
    let maintenance = tokio::spawn({
        let (app, worker, over, clock) = (app.clone(), worker.clone(), over.clone(), clock.clone());
        async move {
            tokio::join!(
                heartbeat(&app, &worker, &host, &over),
                maintenance(&app, &worker, schedules.as_ref(), &clock, &over)
            )
        }
    });
    let ended = work(&app, &worker, until, &signals, &clock).await;
    // A late heartbeat would register the worker again after it has left.
    over.cancel();
    let _ = maintenance.await;
    app.queue.leave(&worker).await?;
    tracing::info!(worker, "worker stopped");
    ended
}

/// Why a worker stops taking jobs.
enum Pause {
    /// The run is over.
    Ended,
    /// The worker is unhealthy.
    Unfit(String),
    /// The state of its clock has changed.
    Clock,
}

/// Runs jobs, and pauses while this worker is unhealthy.
async fn work(app: &Arc<App>, worker: &str, until: Until, signals: &Signals, clock: &ClockWatch) -> Result<()> {
    let slots = app.config.worker.concurrency;
    let lanes = Lanes { live: slots, backfill: slots, maintenance: slots.clamp(2, 8) };
    loop {
        let mut kept = clock.0.subscribe();
        let keeping = *kept.borrow_and_update();
        let handler = Arc::new(Jobs(app.clone()));
        let mut running = app.queue.start_keeping(worker, handler, lanes, &app.config.worker, keeping)?;
        let pause = tokio::select! {
            ended = running.wait() => return ended.context("the queue ended unasked"),
            () = signals.drain.cancelled() => {
                tracing::info!("draining: running jobs may finish, no new ones start");
                Pause::Ended
            }
            () = idle(app), if until == Until::Idle => Pause::Ended,
            // With `--until-idle` the worker does not pause, because it could wait forever for a full disk.
            cause = unfit(app), if until == Until::Stopped => Pause::Unfit(cause),
            _ = kept.changed() => Pause::Clock,
        };
        let stop_now = running.stopper();
        let stop = signals.stop.clone();
        let watch: JoinHandle<()> = tokio::spawn(async move {
            stop.cancelled().await;
            tracing::warn!("stopping at once: running jobs go back to the queue");
            stop_now();
        });
        let drained = running.drain().await;
        watch.abort();
        drained.context("stopping the queue")?;
        match pause {
            Pause::Ended => return Ok(()),
            Pause::Clock => {}
            Pause::Unfit(cause) => {
                if !rest(app, worker, cause, signals).await {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether this machine's clock agrees with the database's clock. `work` receives each change.
struct ClockWatch(watch::Sender<Timekeeping>);

impl ClockWatch {
    fn of(app: &App) -> Self {
        Self(watch::Sender::new(Self::now(app)))
    }

    fn now(app: &App) -> Timekeeping {
        if app.clock.is_wrong() { Timekeeping::Wrong } else { Timekeeping::Right }
    }

    /// Compares the clocks, logs a difference and stores it for the other workers.
    async fn look(&self, app: &App, worker: &str) {
        static WRONG: Outage = Outage::new("clock of this machine");
        let ahead = match app.compare_clocks().await {
            Ok(ahead) => ahead,
            Err(err) => return telemetry::out_of_reach(Side::Database, &err.to_string()),
        };
        metrics::gauge!(telemetry::CLOCK_AHEAD_SECONDS).set(ahead.as_secs_f64());
        let keeping = Self::now(app);
        if keeping == Timekeeping::Wrong {
            WRONG.failed(&format!(
                "it is {ahead:#} ahead of the database's; no scheduled work is taken here until they agree (NTP)"
            ));
            if let Err(err) = app.queue.wake().await {
                telemetry::out_of_reach(Side::Database, &err.to_string());
            }
        } else {
            WRONG.works();
        }
        let noted = app.queue.note_clock(worker, ahead.as_millis() as i64).await;
        if let Err(err) = noted {
            telemetry::out_of_reach(Side::Database, &err.to_string());
        }
        self.0.send_if_modified(|known| std::mem::replace(known, keeping) != keeping);
    }
}

/// Waits until this worker is unhealthy, and returns the cause. A pause interrupts long jobs and leaves slots empty. So
/// a cause that has passed by the time of the probe, such as a restart of the database, does not count.
async fn unfit(app: &App) -> String {
    loop {
        let cause = app.health.unfit().await;
        match tokio::time::timeout(PASSES_WITHIN, app.probe_health()).await {
            Ok(Ok(())) => tracing::info!(cause, "jobs failed one after another, but the cause is gone"),
            Ok(Err(still)) => return still,
            Err(_) => return cause,
        }
    }
}

/// Takes no jobs until the failed component works again. False when a drain signal arrives first.
async fn rest(app: &App, worker: &str, cause: String, signals: &Signals) -> bool {
    tracing::error!(cause, "this worker takes no work until the cause is gone");
    metrics::gauge!(telemetry::WORKER_RESTING).set(1.0);
    let (mut cause, mut said) = (cause, Instant::now());
    loop {
        if let Err(err) = app.queue.rest(worker, Some(&cause)).await {
            telemetry::out_of_reach(Side::Database, &err.to_string());
        }
        tokio::select! {
            () = tokio::time::sleep(app.config.worker.rest_look.0) => {}
            () = signals.drain.cancelled() => return false,
        }
        match app.probe_health().await {
            Ok(()) => break,
            Err(still) => {
                if said.elapsed() >= STILL {
                    tracing::warn!(cause = still, "still no work");
                    said = Instant::now();
                }
                cause = still;
            }
        }
    }
    tracing::info!("this worker is fit again and takes work");
    metrics::gauge!(telemetry::WORKER_RESTING).set(0.0);
    if let Err(err) = app.queue.rest(worker, None).await {
        tracing::warn!(error = %err, "cannot note that this worker works again");
    }
    true
}

/// Returns when no job runs and no job is due.
async fn idle(app: &App) {
    loop {
        match app.queue.due(IDLE_HORIZON, app.now() - PATIENCE).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(err) => telemetry::out_of_reach(Side::Database, &format!("cannot look at the queue: {err}")),
        }
        tokio::time::sleep(IDLE_LOOK).await;
    }
}

/// Sends heartbeats and requeues the jobs of dead workers, every few seconds. This loop does nothing else, so that
/// nothing else can delay it.
async fn heartbeat(app: &App, worker: &str, host: &str, over: &CancellationToken) {
    let settings = &app.config.worker;
    let mut ticks = ticking(settings.heartbeat.0);
    let mut heard = Ok(());
    loop {
        tokio::select! {
            biased;
            () = over.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let before =
            std::mem::replace(&mut heard, in_time(settings.heartbeat.0, app.queue.heartbeat(worker, host)).await);
        if let Err(cause) = &heard {
            telemetry::out_of_reach(Side::Database, &format!("no heartbeat: {cause}"));
            // A restarted database is back within moments, and the jobs of dead workers wait for this loop.
            ticks.reset_after(AFTER_A_FAILURE);
            continue;
        }
        telemetry::within_reach(Side::Database);
        if before.is_err() {
            // No worker could send a heartbeat while the database was away. Live workers get time to send one before
            // any is declared dead.
            ticks.reset_after(AFTER_AN_ABSENCE);
            continue;
        }
        match in_time(settings.silent_after.0, app.queue.requeue_expired(worker, settings.silent_after.0)).await {
            Ok(requeued) => report(requeued),
            Err(cause) => {
                telemetry::out_of_reach(Side::Database, &format!("cannot look for dead workers: {cause}"));
                ticks.reset_after(AFTER_A_FAILURE);
            }
        }
    }
}

/// Limits the time of a database call, so that a slow database cannot delay the next heartbeat.
async fn in_time<T>(limit: Duration, work: impl Future<Output = Result<T, QueueError>>) -> Result<T, String> {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(err)) => Err(err.to_string()),
        Err(_) => Err(format!("no answer from the database within {} s", limit.as_secs_f64())),
    }
}

/// Maintenance at the heartbeat interval: clock comparison, schedules and metrics.
async fn maintenance(
    app: &App,
    worker: &str,
    schedules: Option<&Schedules>,
    clock: &ClockWatch,
    over: &CancellationToken,
) {
    let mut look = ticking(app.config.worker.heartbeat.0);
    loop {
        tokio::select! {
            biased;
            () = over.cancelled() => return,
            _ = look.tick() => {}
        }
        clock.look(app, worker).await;
        if let Some(schedules) = schedules.filter(|_| !app.clock.is_wrong()) {
            schedules.tick(app).await;
        }
        // Histograms keep every sample until they are read. This folds the samples where no scraper reads them.
        if let Ok(metrics) = telemetry::metrics_handle() {
            metrics.run_upkeep();
        }
    }
}

fn ticking(every: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

fn report(requeued: Requeued) {
    let all = requeued.returned + requeued.dead_lettered;
    if all > 0 {
        tracing::warn!(
            returned = requeued.returned,
            dead_lettered = requeued.dead_lettered,
            "took back the jobs of dead workers"
        );
        metrics::counter!(telemetry::REQUEUED_TOTAL).increment(all);
    }
}

/// Removes spool directories of calls that no job needs any more.
async fn empty_spool(app: &App) -> Result<()> {
    let spool = app.config.spool_dir();
    app::private_dir(&spool).with_context(|| format!("cannot create the spool {}", spool.display()))?;
    for entry in std::fs::read_dir(&spool).with_context(|| format!("cannot read the spool {}", spool.display()))? {
        let entry = entry?;
        let call = entry.file_name().to_str().and_then(|name| CallUid::parse(name).ok());
        let record = match call {
            Some(call) => app.store.call(call).await?,
            None => None,
        };
        let needed =
            record.is_some_and(|record| record.outcome.is_none() && record.retention_state == RetentionState::Active);
        if !needed && entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())
                .with_context(|| format!("cannot empty the spool {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn gethost() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}
