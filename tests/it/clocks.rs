//! Machines whose clocks are wrong beside a database that knows better. Tests turn both by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aftercall::app::{App, Clock};
use aftercall::jobs::schedule::Schedules;
use aftercall::queue::{Handler, JobState, Lanes, Timekeeping, Verdict};
use aftercall::store::{Db, ScheduleRow};
use aftercall::worker::{self, DataLock, Signals, Until};
use jiff::{SignedDuration, Timestamp};

use crate::harness::{Backend, Space, TestApp, eventually, failure, job, on_every_backend, script};
use crate::process::Site;

on_every_backend!(a_firing_too_far_away_is_pulled_back, jobs_wait_as_long_by_either_clock,);

const DAY_MS: i64 = 86_400_000;
/// Sources that nobody has to ask: their polls fail and are tried again.
const SOURCES: &str = "[[source]]\nname = \"krosai\"\ndialect = \"krosai\"\nbase_url = \"http://127.0.0.1:1/\"\n\
                       api_key = \"k\"\npoll = \"5m\"\n[worker]\nheartbeat = \"200ms\"\nsilent_after = \"15s\"\n";

/// An app in this place on a machine whose clock is this far ahead.
async fn on_a_machine(space: &Arc<Space>, ahead_ms: i64) -> (Arc<App>, Arc<AtomicI64>) {
    let ahead = Arc::new(AtomicI64::new(ahead_ms));
    let app = App::build(space.config(), Clock::skewed(Arc::default(), ahead.clone())).await.unwrap();
    (app, ahead)
}

async fn rows(app: &App) -> Vec<ScheduleRow> {
    app.store.schedules().await.unwrap()
}

/// Runs a worker while something comes about.
async fn working<T>(app: &Arc<App>, wanted: impl Future<Output = T>) -> T {
    let signals = Signals::default();
    let lock = DataLock::take(&app.config.data_dir).unwrap();
    let (inner, told) = (app.clone(), signals.clone());
    let worker = tokio::spawn(async move { worker::run(inner, &lock, Until::Stopped, told).await });
    let came = wanted.await;
    signals.drain.cancel();
    signals.stop.cancel();
    worker.await.unwrap().unwrap();
    came
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_a_wrong_clock_moves_no_schedule_and_goes_by_the_databases() {
    if !Backend::Postgres.is_here() {
        return;
    }
    let space = Arc::new(Space::new(Backend::Postgres, SOURCES));
    space.leave_queue();
    let right = TestApp::over(space.clone(), Arc::default()).await;
    working(
        &right.app,
        eventually("the schedules to be there", async || (rows(&right).await.len() == 3).then_some(())),
    )
    .await;
    let before = rows(&right).await;
    for ahead_ms in [10 * DAY_MS, -10 * DAY_MS, 31_000, -45_000] {
        let (wrong, _) = on_a_machine(&space, ahead_ms).await;
        assert!(wrong.clock.is_wrong());
        let apart = wrong.now().duration_since(Timestamp::now()).abs();
        assert!(apart < SignedDuration::from_secs(2), "{ahead_ms}: it goes by its own clock, {apart:#} apart");
        // It has looked at the clock and told the others, and at what the next look may fire.
        working(&wrong, async {
            eventually("the others to be told", async || {
                let told = right.queue.wrong_clocks(Duration::from_secs(30)).await.unwrap();
                told.first().filter(|(_, ms)| (ms - ahead_ms).abs() < 2000).map(drop)
            })
            .await;
            // What it does not do it must have had the time to do: a job gets through meanwhile.
            let id = right.enqueue(job(&format!("meanwhile {ahead_ms}"))).await.id;
            eventually("a job to run", async || (right.job(id).await.attempt > 0).then_some(())).await;
        })
        .await;
        let after = rows(&right).await;
        assert_eq!(before, after, "{ahead_ms}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_right_fires_again() {
    if !Backend::Postgres.is_here() {
        return;
    }
    let space = Arc::new(Space::new(Backend::Postgres, SOURCES));
    space.leave_queue();
    let (app, ahead) = on_a_machine(&space, 10 * DAY_MS).await;
    working(&app, async {
        eventually("it to be known", async || {
            (!app.queue.wrong_clocks(Duration::from_secs(30)).await.unwrap().is_empty()).then_some(())
        })
        .await;
        assert_eq!(rows(&app).await, []);
        // NTP has come to its senses; a little off is right enough.
        ahead.store(20_000, Ordering::SeqCst);
        eventually("the schedules to be there", async || (rows(&app).await.len() == 3).then_some(())).await;
    })
    .await;
    assert!(app.queue.wrong_clocks(Duration::from_secs(30)).await.unwrap().is_empty());
    for row in rows(&app).await {
        assert!(row.next_at.duration_since(Timestamp::now()) < SignedDuration::from_hours(25), "{row:?}");
    }
}

async fn a_firing_too_far_away_is_pulled_back(backend: Backend) {
    let app = TestApp::start(backend, SOURCES).await;
    app.leave_queue();
    let schedules = Schedules::load(&app).unwrap();
    schedules.tick(&app).await;
    let first = rows(&app).await;
    let names: Vec<&str> = first.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["recent-calls:krosai", "reconcile:krosai", "retention"]);
    assert!(first[1].fired_at.is_some() && first[0].fired_at.is_none(), "polling alone starts at once: {first:?}");
    // A worker ten days ahead was here, or two, or a year.
    for days in [2, 10, 365] {
        for row in rows(&app).await {
            let mut tx = app.store.begin().await.unwrap();
            let astray = row.next_at + SignedDuration::from_hours(24 * days);
            assert!(app.store.schedule_move(&mut tx, &row.name, Some(row.next_at), astray).await.unwrap());
            tx.commit().await.unwrap();
        }
        assert!(schedules.statuses(&app).await.unwrap().iter().all(|status| status.astray));
        schedules.tick(&app).await;
        let statuses = schedules.statuses(&app).await.unwrap();
        assert!(statuses.iter().all(|status| !status.astray && status.lag.is_zero()), "{statuses:?}");
        for (row, period_h) in rows(&app).await.iter().zip([24, 1, 1]) {
            let away = row.next_at.duration_since(app.now());
            assert!(!away.is_negative() && away <= SignedDuration::from_hours(period_h), "{days}: {row:?}");
        }
    }
    // It fires when its time comes, and its lag is seen until then.
    app.advance(Duration::from_secs(600)).await;
    let statuses = schedules.statuses(&app).await.unwrap();
    let status = statuses.into_iter().find(|status| status.name == "reconcile:krosai").unwrap();
    assert!(status.lag > SignedDuration::from_secs(290) && status.lag < SignedDuration::from_secs(330), "{status:?}");
    schedules.tick(&app).await;
    let fired = rows(&app).await.remove(1);
    assert!(app.now().duration_since(fired.fired_at.unwrap()) < SignedDuration::from_secs(60), "{fired:?}");
    // What right clocks make of it is left alone, however often it is looked at.
    let before = rows(&app).await;
    for _ in 0..3 {
        schedules.tick(&app).await;
    }
    assert_eq!(rows(&app).await, before);
}

/// What each key is to be told: once, and then that it is done.
fn answers(key: &str, attempt: i32, looks: u32, throttled: bool) -> Verdict {
    let pause = Duration::from_secs(40);
    match key {
        "retried" if attempt == 1 => Verdict::Retry { failure: failure("broken"), after: pause },
        "looked at" if looks == 0 => Verdict::SnoozeCounted(pause),
        "throttled" if !throttled => {
            Verdict::Throttled { failure: failure("asked to wait"), after: pause, since_ms: 7 }
        }
        _ => Verdict::Complete,
    }
}

fn handler() -> Arc<dyn Handler> {
    script(async |job| {
        let key = job.payload["key"].as_str().unwrap();
        answers(key, job.attempt, job.snoozes, job.throttled_since.is_some())
    })
}

/// A worker that does not trust its own clock leaves jobs as any other does, and needs no leader.
async fn jobs_wait_as_long_by_either_clock(backend: Backend) {
    const KEYS: [&str; 4] = ["retried", "looked at", "throttled", "done"];
    let mut seen = Vec::new();
    for keeping in [Timekeeping::Right, Timekeeping::Wrong] {
        if (backend, keeping) == (Backend::Sqlite, Timekeeping::Wrong) {
            // There is no clock but this machine's.
            continue;
        }
        let app = TestApp::start(backend, "").await;
        app.queue.heartbeat("w", "test").await.unwrap();
        let lanes = Lanes { live: 4, backfill: 1, maintenance: 1 };
        let mut running = app.queue.start_keeping("w", handler(), lanes, &app.config.worker, keeping).unwrap();
        let mut ids = Vec::new();
        for key in KEYS {
            ids.push(app.enqueue(job(key)).await.id);
        }
        eventually("all to have been tried", async || {
            let jobs = app.jobs().await;
            let tried = |state| !matches!(state, JobState::Available | JobState::Running);
            jobs.iter().all(|job| tried(job.state)).then_some(())
        })
        .await;
        let mut left = Vec::new();
        for id in &ids {
            let job = app.job(*id).await;
            if let Some(next) = job.next_at {
                let wait = next.duration_since(Timestamp::now());
                assert!(
                    wait > SignedDuration::from_secs(20) && wait <= SignedDuration::from_secs(41),
                    "{keeping:?} {job:?}"
                );
            }
            left.push((job.state, job.attempt, job.failure, job.last_error));
        }
        seen.push(left);
        app.queue.bring_forward(Duration::from_secs(60)).await.unwrap();
        eventually("all to be done", async || {
            if keeping == Timekeeping::Wrong {
                app.queue.wake().await.unwrap();
            }
            app.jobs().await.iter().all(|job| job.state == JobState::Completed).then_some(())
        })
        .await;
        running.drain().await.unwrap();
        app.queue.leave("w").await.unwrap();
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_tells_of_clocks_and_of_every_schedule() {
    let Some(cluster) = crate::postgres::cluster() else { return };
    let url = cluster.database();
    let more = format!("[store]\nurl = \"{url}\"\n[schedule]\nenabled = true");
    let mut site = Site::start(Vec::new(), &more).await;
    site.replace("poll = \"off\"", "poll = \"5m\"");
    let app = site.app().await;
    let schedules = Schedules::load(&app).unwrap();
    schedules.tick(&app).await;
    let said = site.run(&["doctor"]).await;
    let line =
        |said: &str, of: &str| said.lines().find(|line| line.contains(of)).map(str::to_owned).unwrap_or_default();
    assert!(line(&said.stdout, " clock:").starts_with("ok"), "{}", said.stdout);
    let shown = line(&said.stdout, "schedule reconcile:krosai");
    assert!(shown.starts_with("ok") && shown.contains("last fired 20") && shown.contains("lag 0 s"), "{shown}");
    assert!(line(&said.stdout, "schedule retention").contains("last fired never"), "{}", said.stdout);
    // A worker elsewhere is wrong, one schedule astray and one late.
    app.queue.heartbeat("w", "somewhere").await.unwrap();
    app.queue.note_clock("w", 10 * DAY_MS).await.unwrap();
    let Db::Postgres(pool) = app.store.db() else { unreachable!() };
    for (name, by_ms) in [("reconcile:krosai", 10 * DAY_MS), ("reconcile:atoms", -DAY_MS)] {
        let move_it = "UPDATE schedule SET next_at = next_at + $2 WHERE name = $1";
        sqlx::query(move_it).bind(name).bind(by_ms).execute(pool).await.unwrap();
    }
    let said = site.run(&["doctor"]).await;
    assert_eq!(said.code(), Some(1));
    let wrong = line(&said.stdout, " clock:");
    assert!(wrong.starts_with("FAIL") && wrong.contains("somewhere"), "{wrong}");
    let astray = line(&said.stdout, "schedule reconcile:krosai");
    assert!(astray.starts_with("FAIL") && astray.contains("further away than one period"), "{astray}");
    let late = line(&said.stdout, "schedule reconcile:atoms");
    assert!(late.starts_with("FAIL") && late.contains("no worker fires it"), "{late}");
}
