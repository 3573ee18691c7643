//! The scheduled job kinds. Each schedule has a row with its next firing. The worker that advances the row enqueues the
//! job in the same transaction. A firing therefore happens once, with any number of workers. A firing missed during
//! downtime happens late.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use riverqueue::CronSchedule;
use serde::Deserialize;

use super::{At, Job, Stop, backfill};
use crate::app::{App, CLOCK_TOLERANCE};
use crate::config::{Poll, Span, misread};
use crate::domain::{SourceName, Stage};
use crate::queue::Lane;
use crate::store::{NewBackfill, Orders, Origin, StoreError, Tx};
use crate::telemetry;

const DEFAULT: &str = include_str!("schedule.toml");

/// The scheduled job kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ScheduledKind {
    RetentionSweep,
    Backfill,
    Reconcile,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleEntry {
    name: String,
    kind: ScheduledKind,
    cron: String,
    /// A source's name, or `*` for all sources.
    source: Option<String>,
    window: Option<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    schedule: Vec<ScheduleEntry>,
}

#[derive(Debug, Clone)]
enum When {
    Cron(Box<CronSchedule>),
    Every(Duration),
}

/// One schedule of one source, or of no source.
#[derive(Debug, Clone)]
struct Schedule {
    /// Key of its row.
    name: String,
    kind: ScheduledKind,
    source: Option<SourceName>,
    when: When,
    window: Duration,
}

/// All schedules of a configuration.
#[derive(Debug, Clone)]
pub struct Schedules(Vec<Schedule>);

/// The status of a schedule, by the database's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleStatus {
    pub name: String,
    pub fired_at: Option<Timestamp>,
    /// `None` if no worker has seen the schedule yet.
    pub next_at: Option<Timestamp>,
    /// Delay of the next firing after its due time.
    pub lag: SignedDuration,
    /// The next firing is more than one period ahead.
    pub astray: bool,
}

impl Schedules {
    /// Reads `[schedule] file`, or the compiled-in default, and checks every entry.
    ///
    /// # Errors
    /// Names the file, the schedule and the problem.
    pub fn load(app: &App) -> Result<Self> {
        let settings = &app.config.schedule;
        if !settings.enabled {
            return Ok(Self(Vec::new()));
        }
        let (place, text) = match settings.file.as_str() {
            "" => ("jobs/schedule.toml".to_owned(), DEFAULT.to_owned()),
            path => (path.to_owned(), std::fs::read_to_string(path).with_context(|| format!("schedule.file: {path}"))?),
        };
        let file: File = toml::from_str(&text).map_err(|err| anyhow!("{place}: {}", misread(&text, &err)))?;
        let mut all = Vec::new();
        for entry in &file.schedule {
            all.extend(entry.expand(app).with_context(|| format!("{place}: schedule `{}`", entry.name))?);
        }
        Ok(Self(all))
    }

    /// Fires the due schedules. A failure of one schedule does not stop the others.
    pub async fn tick(&self, app: &App) {
        for schedule in &self.0 {
            match schedule.tick(app).await {
                Err(Stop::Trouble(trouble)) if telemetry::outage(trouble.side).is_some() => {
                    telemetry::out_of_reach(trouble.side, &trouble.cause);
                }
                Err(err) => {
                    tracing::error!(schedule = schedule.name, error = ?err, "schedule could not fire, will be tried again");
                }
                Ok(()) => {}
            }
        }
    }

    /// The status of each schedule.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn statuses(&self, app: &App) -> Result<Vec<ScheduleStatus>, StoreError> {
        let (rows, now) = (app.store.schedules().await?, app.now());
        let status = |schedule: &Schedule| {
            let row = rows.iter().find(|row| row.name == schedule.name);
            let next_at = row.map(|row| row.next_at);
            let lag = next_at.map_or(SignedDuration::ZERO, |next| now.duration_since(next).max(SignedDuration::ZERO));
            ScheduleStatus {
                name: schedule.name.clone(),
                fired_at: row.and_then(|row| row.fired_at),
                next_at,
                lag,
                astray: next_at.is_some_and(|next| schedule.when.is_astray(next, now)),
            }
        };
        Ok(self.0.iter().map(status).collect())
    }
}

impl ScheduleEntry {
    fn expand(&self, app: &App) -> Result<Vec<Schedule>> {
        let window = self.window.map_or(Duration::from_secs(86_400), |span| span.0);
        let sources: Vec<Option<SourceName>> = match (self.kind, self.source.as_deref()) {
            (ScheduledKind::RetentionSweep, None) => vec![None],
            (ScheduledKind::RetentionSweep, Some(_)) => bail!("source: a retention sweep has no source"),
            (_, None) => bail!("source: must be a source's name or \"*\""),
            // `*` leaves out a source with `poll = "off"`. A schedule can still name that source.
            (_, Some("*")) => {
                let polled = app.platforms.iter().filter(|(_, platform)| platform.settings.poll != Poll::Off);
                polled.map(|(name, _)| Some(name.clone())).collect()
            }
            (_, Some(name)) => {
                let name = SourceName::parse(name)?;
                if app.platform(&name).is_none() {
                    bail!("source: `{name}` is not in the configuration");
                }
                vec![Some(name)]
            }
        };
        let mut all = Vec::new();
        for source in sources {
            let Some(when) = self.when(app, source.as_ref())? else { continue };
            let name = source.as_ref().map_or_else(|| self.name.clone(), |source| format!("{}:{source}", self.name));
            all.push(Schedule { name, kind: self.kind, source, when, window });
        }
        Ok(all)
    }

    fn when(&self, app: &App, source: Option<&SourceName>) -> Result<Option<When>> {
        if self.cron == "poll" {
            let Some(platform) = source.and_then(|source| app.platform(source)) else {
                bail!("cron: \"poll\" is for schedules of sources");
            };
            return Ok(match platform.settings.poll {
                Poll::Off => None,
                Poll::Every(pause) => Some(When::Every(pause)),
            });
        }
        let cron = CronSchedule::parse(&self.cron).with_context(|| format!("cron: `{}`", self.cron))?;
        Ok(Some(When::Cron(Box::new(cron))))
    }
}

impl When {
    fn after(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => cron.next_after(&now.to_zoned(TimeZone::UTC)).map(|next| next.timestamp()),
            Self::Every(pause) => now.checked_add(*pause).ok(),
        }
    }

    /// Whether the next firing is more than one period ahead, which cannot happen with correct clocks. The tolerance
    /// keeps two workers with slightly different clocks from resetting a firing.
    fn is_astray(&self, next: Timestamp, now: Timestamp) -> bool {
        let Ok(later) = now.checked_add(CLOCK_TOLERANCE) else { return false };
        self.after(later).is_some_and(|latest| next > latest)
    }
}

impl Schedule {
    async fn tick(&self, app: &App) -> Result<(), Stop> {
        let now = app.now();
        let known_next = app.store.schedule_next(&self.name).await.at(Stage::Source)?;
        if let Some(pending_at) = known_next.filter(|next| *next > now) {
            return self.pull_back(app, pending_at, now).await;
        }
        let Some(next) = self.when.after(now) else { return Ok(()) };
        let mut tx = app.store.begin().await.at(Stage::Source)?;
        if !app.store.schedule_move(&mut tx, &self.name, known_next, next).await.at(Stage::Source)? {
            return Ok(());
        }
        // A new schedule waits for its first due time. Only polling starts at once.
        if known_next.is_some() || matches!(self.when, When::Every(_)) {
            self.fire(app, &mut tx, now).await?;
            app.store.schedule_fired(&mut tx, &self.name, now).await.at(Stage::Source)?;
        }
        tx.commit().await.at(Stage::Source)
    }

    /// Resets a firing that is more than one period ahead, after a wrong clock or a changed schedule.
    async fn pull_back(&self, app: &App, pending_at: Timestamp, now: Timestamp) -> Result<(), Stop> {
        if !self.when.is_astray(pending_at, now) {
            return Ok(());
        }
        let Some(next) = self.when.after(now) else { return Ok(()) };
        let mut tx = app.store.begin().await.at(Stage::Source)?;
        let moved = app.store.schedule_move(&mut tx, &self.name, Some(pending_at), next).await.at(Stage::Source)?;
        tx.commit().await.at(Stage::Source)?;
        if moved {
            tracing::warn!(
                schedule = self.name, stood_at = %pending_at, next_at = %next,
                "the next firing was further away than one period (a clock was wrong, or the schedule has changed): pulled back"
            );
        }
        Ok(())
    }

    async fn fire(&self, app: &App, tx: &mut Tx, now: Timestamp) -> Result<(), Stop> {
        let (from, to) = backfill::rolling(now, self.window);
        let job = match (self.kind, &self.source) {
            (ScheduledKind::Backfill, Some(source)) => {
                let new = NewBackfill { source, from, to, again: false, origin: Origin::Schedule, now };
                let started = backfill::start_in(app, tx, &new, Orders::default()).await?;
                tracing::debug!(schedule = self.name, started = started.is_some(), "schedule fired");
                return Ok(());
            }
            (ScheduledKind::Reconcile, Some(source)) => Job::Reconcile { source: source.clone(), from, to },
            _ => Job::RetentionSweep,
        };
        let enqueued = app.queue.enqueue(tx, job.queued(app, Lane::Maintenance)).await.at(Stage::Source)?;
        tracing::debug!(schedule = self.name, started = !enqueued.duplicate, "schedule fired");
        Ok(())
    }
}
