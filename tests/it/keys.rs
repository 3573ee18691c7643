//! Keys that a platform refuses: nothing is lost for it, and a mended one is taken up without a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aftercall::app::App;
use aftercall::demo::{self, Api, FaultAnswer, RequestKind, SampleCall};
use aftercall::domain::{CallId, Outcome};
use aftercall::jobs::admit::Repeat;
use aftercall::jobs::reconcile;
use aftercall::jobs::trigger;
use aftercall::queue::{JobState, JobView};
use aftercall::store::Db;
use aftercall::wire::Window;
use jiff::{SignedDuration, Timestamp};

use crate::harness::{Backend, Fixture, Plan, on_every_backend};
use crate::process::{Site, ago, record, run_pending, source};

on_every_backend!(
    dead_letters_whose_cause_is_gone_are_taken_up,
    dead_letters_whose_cause_remains_are_not,
    a_poll_leaves_a_dead_letter_alone_for_an_hour,
);

const API: Api = Api::KrosaiV1;
const ID: &str = "call_000001";

fn call(n: u32) -> SampleCall {
    SampleCall::numbered(API, n, ago(SignedDuration::from_mins(5 + i64::from(n))))
}

/// A site whose source reads its key from a file.
struct Locked {
    site: Site,
    file: PathBuf,
}

impl Locked {
    async fn start(calls: u32, key: &str) -> Self {
        let mut site = Site::start((1..=calls).map(call).collect(), "").await;
        let file = site.place().join("key");
        std::fs::write(&file, key).unwrap();
        let right = demo::Keys::default().krosai;
        let sources = demo::sources_toml(&site.serving.base_url());
        let named =
            sources.replacen(&format!("api_key = \"{right}\""), &format!("api_key_file = \"{}\"", file.display()), 1);
        assert_ne!(named, sources);
        site.configure(&format!("{named}\n[log]\nlevel = \"info\"\n"));
        Self { site, file }
    }

    fn mend(&self) {
        std::fs::write(&self.file, demo::Keys::default().krosai).unwrap();
    }

    async fn refused(app: &App) -> bool {
        app.store.rate_limit(&source(API)).await.unwrap().held_for.as_deref() == Some("refused")
    }
}

async fn trigger(app: &App, id: &str) {
    trigger::trigger(app, &source(API), &CallId::parse(id).unwrap(), Repeat::Never).await.unwrap();
}

async fn processing(app: &App, id: &str) -> JobView {
    let uid = record(app, id).await.uid.to_string();
    app.queue.jobs_about(&uid).await.unwrap().into_iter().find(|job| job.kind == "process_call").unwrap()
}

async fn later(site: &Site, app: &Arc<App>, by: Duration) {
    site.turn(SignedDuration::try_from(by).unwrap());
    app.queue.bring_forward(by).await.unwrap();
    run_pending(app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_key_holds_the_source_and_costs_no_attempt() {
    let locked = Locked::start(3, "wrong").await;
    let (site, app) = (&locked.site, locked.site.app().await);
    trigger(&app, ID).await;
    for _ in 0..20 {
        later(site, &app, Duration::from_secs(130)).await;
    }
    let waits = processing(&app, ID).await;
    assert_eq!((waits.state, waits.attempt), (JobState::Scheduled, 0), "{waits:?}");
    assert!(waits.failure.is_some_and(|failure| failure.cause.contains("key")));
    assert!(Locked::refused(&app).await);
    let asked = site.platform.requests().count(RequestKind::Detail);
    assert!((10..=21).contains(&asked), "tried again now and then, and no more: {asked}");
    // Another call does not ask for itself.
    trigger(&app, "call_000002").await;
    run_pending(&app).await;
    assert_eq!(site.platform.requests().of(RequestKind::Detail, "call_000002"), 0);
    let doctor = site.run(&["doctor"]).await;
    assert_eq!(doctor.code(), Some(1));
    assert!(doctor.stdout.contains("FAIL source krosai") && doctor.stdout.contains("wrong key"), "{doctor:?}");

    locked.mend();
    for _ in 0..3 {
        later(site, &app, Duration::from_secs(130)).await;
    }
    for id in [ID, "call_000002"] {
        assert_eq!(record(&app, id).await.outcome, Some(Outcome::Done), "{id}");
    }
    assert!(!Locked::refused(&app).await);
    // Not by a restart: this app was built with the wrong key.
    let doctor = site.run(&["doctor"]).await;
    assert!(doctor.stdout.contains("ok   source krosai"), "{doctor:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_is_read_again_before_anybody_waits() {
    let locked = Locked::start(2, "of yesterday").await;
    let app = locked.site.app().await;
    locked.mend();
    trigger(&app, ID).await;
    run_pending(&app).await;
    assert_eq!(record(&app, ID).await.outcome, Some(Outcome::Done));
    assert!(!Locked::refused(&app).await);
    // A file that was emptied by mistake changes nothing about a key that works.
    std::fs::write(&locked.file, "").unwrap();
    trigger(&app, "call_000002").await;
    run_pending(&app).await;
    assert_eq!(record(&app, "call_000002").await.outcome, Some(Outcome::Done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doctor_that_sees_the_mended_key_ends_the_hold_for_all() {
    let locked = Locked::start(1, "wrong").await;
    let app = locked.site.app().await;
    trigger(&app, ID).await;
    run_pending(&app).await;
    assert!(Locked::refused(&app).await);
    locked.mend();
    locked.site.run(&["doctor"]).await;
    assert!(!Locked::refused(&app).await);
    later(&locked.site, &app, Duration::from_secs(130)).await;
    assert_eq!(record(&app, ID).await.outcome, Some(Outcome::Done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_signal_has_the_keys_read_again() {
    let locked = Locked::start(1, "wrong").await;
    locked.site.well(&["trigger", ID, "--source", "krosai"]).await;
    let mut worker = locked.site.spawn(&["work"], &[]);
    worker.hear("refuses the key").await;
    locked.mend();
    let told = std::process::Command::new("sh").args(["-c", &format!("kill -HUP {}", worker.id())]).status().unwrap();
    assert!(told.success());
    worker.hear("renewed=\"krosai\"").await;
    crate::process::terminate(worker.id());
    assert!(worker.end().await.0.success(), "a hangup ends nobody");
    let app = locked.site.app().await;
    assert!(!Locked::refused(&app).await, "the hold was that of the other key");
    app.queue.bring_forward(Duration::from_secs(130)).await.unwrap();
    run_pending(&app).await;
    assert_eq!(record(&app, ID).await.outcome, Some(Outcome::Done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_may_not_be_seen_holds_nobody_else() {
    let site = Site::start(vec![call(1), call(2)], "").await;
    let app = site.app().await;
    let theirs = |asked: &demo::RequestInfo| asked.kind == RequestKind::Detail && asked.call_id.as_deref() == Some(ID);
    site.platform.set_faults(move |asked| theirs(asked).then(|| FaultAnswer::status(403)));
    trigger(&app, ID).await;
    trigger(&app, "call_000002").await;
    run_pending(&app).await;
    assert_eq!(record(&app, "call_000002").await.outcome, Some(Outcome::Done));
    assert!(!Locked::refused(&app).await);
    // A list that answers so is another matter.
    site.platform.set_faults(|asked| (asked.kind == RequestKind::List).then(|| FaultAnswer::status(403)));
    let window = Window { from: Timestamp::UNIX_EPOCH, to: Timestamp::MAX };
    reconcile::balance(&app, &source(API), window).await.unwrap_err();
    assert!(Locked::refused(&app).await);
}

async fn dead(backend: Backend, fault: FaultAnswer) -> Fixture {
    let plan = Plan { settings: "[worker]\nmax_attempts = 1\n", ..Plan::default() };
    let fixture = Fixture::planned(backend, plan, |now| {
        (1..=2).map(|n| SampleCall::numbered(API, n, now - Duration::from_secs(60 * u64::from(n)))).collect()
    })
    .await;
    fixture.platform.set_faults(move |asked| (asked.kind == RequestKind::Detail).then(|| fault.clone()));
    fixture.trigger(API, ID).await;
    fixture.run_pending().await;
    assert_eq!(processing(&fixture.app, ID).await.state, JobState::DeadLetter);
    fixture.platform.clear_faults();
    fixture
}

async fn dead_letters_whose_cause_is_gone_are_taken_up(backend: Backend) {
    let fixture = dead(backend, FaultAnswer::status(500)).await;
    let letter = processing(&fixture.app, ID).await.id;
    let balance = fixture.reconcile(API).await;
    assert_eq!((balance.running, balance.enqueued, balance.missing), (2, 2, 0), "{balance:?}");
    assert_eq!(balance.dead_letters, 0, "{balance:?}");
    fixture.run_pending().await;
    let done = processing(&fixture.app, ID).await;
    assert_eq!((done.id, done.state), (letter, JobState::Completed), "the letter itself, not one beside it");
    assert_eq!(fixture.record(API, ID).await.outcome, Some(Outcome::Done));
    let balance = fixture.reconcile(API).await;
    assert_eq!((balance.done, balance.running), (2, 0), "{balance:?}");
}

async fn dead_letters_whose_cause_remains_are_not(backend: Backend) {
    // Nothing that trying again would change.
    let fixture = dead(backend, FaultAnswer::status(400)).await;
    for _ in 0..2 {
        let balance = fixture.reconcile(API).await;
        assert_eq!(balance.dead_letters, 1, "{balance:?}");
        fixture.run_pending().await;
    }
    assert_eq!(processing(&fixture.app, ID).await.state, JobState::DeadLetter);
    // A build before this one made such a letter of a refused key.
    let said = r#"{"stage":"source","fault":"permanent","side":"source","cause":"source `krosai`: wrong key: api.test answers 401; check api_key"}"#;
    let letter = processing(&fixture.app, ID).await.id;
    match fixture.store.db() {
        Db::Sqlite(pool) => {
            let sql = "UPDATE river_job SET metadata = jsonb_set(metadata, '$.failure', jsonb($2)) WHERE id = $1";
            sqlx::query(sql).bind(letter).bind(said).execute(pool).await.map(drop).unwrap();
        }
        Db::Postgres(pool) => {
            let sql = "UPDATE river_job SET metadata = jsonb_set(metadata, '{failure}', $2::jsonb) WHERE id = $1";
            sqlx::query(sql).bind(letter).bind(said).execute(pool).await.map(drop).unwrap();
        }
    }
    fixture.reconcile(API).await;
    fixture.run_pending().await;
    assert_eq!(fixture.record(API, ID).await.outcome, Some(Outcome::Done));
}

async fn a_poll_leaves_a_dead_letter_alone_for_an_hour(backend: Backend) {
    let fixture = dead(backend, FaultAnswer::status(500)).await;
    let window = |now: Timestamp| Window { from: now - SignedDuration::from_hours(48), to: now };
    reconcile::poll(&fixture.app, &source(API), window(fixture.now())).await.unwrap();
    fixture.run_pending().await;
    assert_eq!(processing(&fixture.app, ID).await.state, JobState::DeadLetter);
    assert_eq!(fixture.record(API, "call_000002").await.outcome, Some(Outcome::Done));
    fixture.set_clock(SignedDuration::from_mins(61));
    // A pass: the top of the list is past it.
    fixture.set_clock(SignedDuration::from_hours(24 * 8));
    let state = fixture.store.reconcile_state(&source(API)).await.unwrap();
    assert!(state.passed_at.is_some());
    let wide = Window { from: fixture.now() - SignedDuration::from_hours(24 * 30), to: fixture.now() };
    reconcile::poll(&fixture.app, &source(API), wide).await.unwrap();
    fixture.run_pending().await;
    assert_eq!(fixture.record(API, ID).await.outcome, Some(Outcome::Done));
}
