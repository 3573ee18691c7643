//! Schedules of several processes over one database.

use std::time::Duration;

use aftercall::jobs::schedule::Schedules;
use futures::future::join_all;

use super::{HOUR, note};
use crate::harness::{Backend, TestApp, on_every_backend};

on_every_backend!(a_schedule_fires_once, a_missed_firing_happens_once_and_late, one_firing_has_one_owner);

/// Three processes with a schedule of every minute over one database.
async fn three_with_a_schedule(backend: Backend) -> [(TestApp, Schedules); 3] {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "[[schedule]]\nname = \"often\"\nkind = \"retention_sweep\"\ncron = \"* * * * *\"\n";
    std::fs::write(file.path(), text).unwrap();
    let extra = format!("[schedule]\nfile = \"{}\"", file.path().display());
    let first = TestApp::start(backend, &extra).await;
    let others = [first.again().await, first.again().await];
    let [second, third] = others;
    [first, second, third].map(|app| {
        let schedules = Schedules::load(&app).unwrap();
        (app, schedules)
    })
}

async fn tick_all(three: &[(TestApp, Schedules); 3]) {
    join_all((0..30).map(|n| {
        let (app, schedules) = &three[n % 3];
        schedules.tick(app)
    }))
    .await;
}

/// To five seconds past the next minute: none begins by itself while the ticks of one are looked at.
async fn next_minute(app: &TestApp) {
    let past = app.now().as_second().rem_euclid(60) as u64;
    app.advance(Duration::from_secs(60 - past + 5)).await;
}

async fn a_schedule_fires_once(backend: Backend) {
    let three = three_with_a_schedule(backend).await;
    let app = &three[0].0;
    next_minute(app).await;
    tick_all(&three).await;
    assert_eq!(app.jobs().await.len(), 0, "seen for the first time it waits for its moment");
    for fired in 1..=3 {
        next_minute(app).await;
        tick_all(&three).await;
        // Run between the ticks, so that a second firing would not merely coalesce with the first.
        app.run_pending().await;
        tick_all(&three).await;
        app.run_pending().await;
        assert_eq!(app.jobs().await.len(), fired);
    }
}

async fn a_missed_firing_happens_once_and_late(backend: Backend) {
    let three = three_with_a_schedule(backend).await;
    let app = &three[0].0;
    next_minute(app).await;
    tick_all(&three).await;
    app.advance(10 * HOUR).await;
    tick_all(&three).await;
    app.run_pending().await;
    tick_all(&three).await;
    assert_eq!(app.jobs().await.len(), 1);
}

async fn one_firing_has_one_owner(backend: Backend) {
    let app = TestApp::start(backend, "").await;
    let (first, next) = (app.now(), app.now() + HOUR);
    let moved = async |from| {
        let mut tx = app.store.begin().await.unwrap();
        let mine = app.store.schedule_move(&mut tx, "often", from, next).await.unwrap();
        app.store.audit(&mut tx, &note("often")).await.unwrap();
        if mine {
            tx.commit().await.unwrap();
        }
        mine
    };
    let owners = async |from| join_all((0..20).map(|_| moved(from))).await.into_iter().filter(|mine| *mine).count();
    assert_eq!(owners(None).await, 1);
    assert_eq!(owners(Some(first)).await, 0, "a firing of the past belongs to nobody");
    assert_eq!(app.store.audit_entries(None).await.unwrap().len(), 1);
}
