//! What watches the process: a listener of its own for health and metrics, metrics that are there from the start, and
//! places that idle connections cannot take.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use aftercall::demo::{Api, SampleCall};
use aftercall::domain::Outcome;
use jiff::SignedDuration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Backend, Fixture, Plan, eventually};
use crate::process::{Process, Site, ago, terminate};

pub const OPS: (&str, &str) = ("AFTERCALL__OPS__LISTEN", "127.0.0.1:0");
pub const API: (&str, &str) = ("AFTERCALL__API__LISTEN", "127.0.0.1:0");
pub const INFO: (&str, &str) = ("AFTERCALL__LOG__LEVEL", "info");

/// The address in the line of a process that says where it listens.
pub async fn listening(process: &mut Process, word: &str) -> SocketAddr {
    let line = process.hear_line(word).await;
    line.split("listen=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// An answer over a connection from this address.
pub async fn get_from(from: &str, at: SocketAddr, path: &str) -> std::io::Result<String> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{from}:0").parse().unwrap())?;
    let mut stream = socket.connect(at).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

pub async fn get(at: SocketAddr, path: &str) -> String {
    get_from("127.0.0.1", at, path).await.unwrap()
}

/// The value of a sample of the exposition.
fn sample(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_has_health_and_metrics_of_its_own_where_it_is_told_to() {
    let site = Site::start(Vec::new(), "").await;
    for command in ["work", "serve", "run"] {
        let mut process = site.spawn(&[command], &[OPS, API, INFO]);
        let at = listening(&mut process, "health and metrics listening").await;
        assert!(get(at, "/healthz").await.ends_with("ok"), "{command}");
        assert!(get(at, "/readyz").await.starts_with("HTTP/1.1 200"), "{command}");
        let metrics = get(at, "/metrics").await;
        for name in [
            "aftercall_jobs_total{kind=\"process_call\",outcome=\"done\"}",
            "aftercall_jobs_total{kind=\"deliver\",outcome=\"dead_letter\"}",
            "aftercall_calls_erased_total",
            "aftercall_writeback_failures_total{source=\"zudu\"}",
            "aftercall_outbox_oldest_age_seconds",
            "aftercall_worker_resting",
            "aftercall_backfill_calls{source=\"atoms\",state=\"listed\"}",
        ] {
            assert_eq!(sample(&metrics, name), Some(0.0), "{command}: {name} in {metrics}");
        }
        // Nothing else is there, and nothing without being asked for.
        assert!(get(at, "/v1/calls").await.starts_with("HTTP/1.1 404"), "{command}");
        let health = [("AFTERCALL__OPS__LISTEN", at.to_string())];
        let health: Vec<(&str, &str)> = health.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(site.run_with(&["healthcheck"], &health).await.code(), Some(0), "{command}");
        terminate(process.id());
        let (ended, said) = process.end().await;
        assert!(ended.success(), "{said:?}");
        assert_eq!(site.run_with(&["healthcheck"], &health).await.code(), Some(1), "{command}");
    }
    let mut process = site.spawn(&["work"], &[INFO]);
    process.hear("worker started").await;
    terminate(process.id());
    let (_, said) = process.end().await;
    assert!(!said.iter().any(|line| line.contains("listening")), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_of_sources_schedules_workers_and_what_is_owed() {
    let call = SampleCall::numbered(Api::Zudu, 1, ago(SignedDuration::from_mins(5)));
    let mut site = Site::start(vec![call], "[schedule]\nenabled = true").await;
    site.replace("poll = \"off\"", "poll = \"5m\"");
    let mut process = site.spawn(&["run"], &[OPS, API, INFO]);
    let at = listening(&mut process, "health and metrics listening").await;
    let metrics = eventually("the sources to be polled", async || {
        let metrics = get(at, "/metrics").await;
        sample(&metrics, "aftercall_source_last_poll_timestamp_seconds{source=\"zudu\"}").map(|_| metrics)
    })
    .await;
    let now = ago(SignedDuration::ZERO).as_second() as f64;
    let of = |name: &str| sample(&metrics, name).unwrap_or_else(|| panic!("{name} is not in {metrics}"));
    assert!((of("aftercall_source_last_poll_timestamp_seconds{source=\"zudu\"}") - now).abs() < 120.0);
    assert!((of("aftercall_schedule_last_firing_timestamp_seconds{schedule=\"reconcile:zudu\"}") - now).abs() < 120.0);
    let next = of("aftercall_schedule_next_firing_timestamp_seconds{schedule=\"retention\"}");
    assert!(next > now - 120.0 && next <= now + 3600.0);
    assert_eq!(sample(&metrics, "aftercall_schedule_lag_seconds{schedule=\"retention\"}"), Some(0.0));
    assert_eq!((of("aftercall_workers"), of("aftercall_workers_resting")), (1.0, 0.0));
    assert_eq!(sample(&metrics, "aftercall_clock_ahead_seconds"), Some(0.0));
    terminate(process.id());
    process.end().await;
}

/// 512 idle connections of an address that may have them, and 2,000 of one that may not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_keep_nobody_out() {
    let site = Site::start(Vec::new(), "[api]\nproxies = [\"127.0.0.1\"]").await;
    let mut process = site.spawn(&["serve"], &[OPS, API, INFO]);
    let ops = listening(&mut process, "health and metrics listening").await;
    let api = listening(&mut process, "API listening").await;
    // An address of many: it gets no further than its own number.
    let mut crowd = Vec::new();
    for n in 0..2000 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
        let stream = socket.connect(api).await.unwrap();
        // As many as are kept and some more: those beyond are closed by the other side.
        if n < 160 {
            crowd.push(stream);
        }
    }
    assert!(get_from("127.0.0.8", api, "/healthz").await.unwrap().ends_with("ok"), "another address");
    let closed = eventually("those beyond the limit to be closed", async || {
        let mut closed = 0;
        for stream in &crowd {
            let ended = stream.try_read(&mut [0]);
            closed += usize::from(!matches!(ended, Err(err) if err.kind() == std::io::ErrorKind::WouldBlock));
        }
        (closed >= 32).then_some(closed)
    })
    .await;
    assert_eq!(closed, 32, "128 of one address are kept");
    drop(crowd);
    // A proxy may take all the places there are.
    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(TcpStream::connect(api).await.unwrap());
    }
    let started = Instant::now();
    assert!(get(ops, "/healthz").await.ends_with("ok"));
    assert!(get(ops, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    // Those that ask for nothing leave within seconds; before, they had a minute.
    let answer = tokio::time::timeout(Duration::from_secs(40), get(api, "/healthz")).await.expect("the API is dead");
    assert!(answer.ends_with("ok"), "{answer}");
    drop(idle);
    terminate(process.id());
    process.end().await;
}

/// A small disk of the test's own, where this machine lets it have one.
pub struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    pub fn at(place: &std::path::Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(place).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(place);
        let mounted = mount.stdin(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("this machine lets nobody mount: a full disk is not tried");
        }
        mounted.then(|| Self(place.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_object_directory_has_the_worker_rest_and_not_ready() {
    let settings = "[worker]\nrest_after = 3\nrest_look = \"200ms\"\nbackoff_base = \"100ms\"\nmax_attempts = 12\n\
                    [schedule]\nenabled = false";
    let plan = Plan { settings, ..Plan::default() };
    let fixture = Fixture::planned(Backend::Sqlite, plan, |now| {
        (0..8).map(|n| SampleCall::numbered(Api::KrosaiV1, n, now - SignedDuration::from_mins(5))).collect()
    })
    .await;
    let objects = fixture.data_dir().join("objects");
    let Some(_disk) = SmallDisk::at(&objects, "48m") else { return };
    // Some room is left, for the small things that a probe may write, and none for a recording.
    let filler = objects.join("filler");
    let mut room: usize = 48 << 20;
    while std::fs::write(&filler, vec![1_u8; room]).is_err() {
        room -= 4096;
    }
    std::fs::write(&filler, vec![1_u8; room - 66_000 - 8192]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(aftercall::api::serve_ops(fixture.app.app.clone(), listener, stop.clone()));
    for n in 0..8 {
        fixture.trigger(Api::KrosaiV1, &format!("call_{n:06}")).await;
    }
    let working = fixture.work();
    let cause = fixture.rests().await;
    assert!(cause.contains("no space left"), "{cause}");
    let used: i64 = fixture.jobs().await.iter().map(|job| job.attempt).sum();
    let ready = eventually("readiness to be looked at again", async || {
        let ready = get(at, "/readyz").await;
        ready.starts_with("HTTP/1.1 503").then_some(ready)
    })
    .await;
    assert!(ready.contains("\"worker\":\"resting\""), "{ready}");
    // It rests for as long as there is no room, and nothing is used up.
    let metrics = get(at, "/metrics").await;
    assert_eq!(sample(&metrics, "aftercall_workers_resting"), Some(1.0), "{metrics}");
    for _ in 0..10 {
        assert!(fixture.probe_health().await.is_err(), "a probe found room that a recording does not");
    }
    assert_eq!(fixture.jobs().await.iter().map(|job| job.attempt).sum::<i64>(), used);
    std::fs::remove_file(&filler).unwrap();
    eventually("all calls to be done", async || {
        let jobs = fixture.jobs().await;
        jobs.iter().all(|job| job.state.is_finished()).then_some(())
    })
    .await;
    for n in 0..8 {
        let record = fixture.record(Api::KrosaiV1, &format!("call_{n:06}")).await;
        assert_eq!(record.outcome, Some(Outcome::Done), "{:?}", record.outcome_reason);
    }
    assert!(get(at, "/readyz").await.starts_with("HTTP/1.1 200") || used > 0);
    working.drain().await;
    stop.cancel();
    serving.await.unwrap().unwrap();
}
