//! What an operator sees and relies on: lines by which one call can be followed, quiet where nothing happens, files that
//! nobody else can read.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aftercall::demo::{self, Api, RequestKind, SampleCall};
use aftercall::store::Scope;
use jiff::SignedDuration;
use reqwest::Method;
use serde_json::Value;

use crate::api::server::Server;
use crate::harness::{eventually, keep_logs, logs};
use crate::process::{Site, ago, record, terminate};

const LOGGED: &str = "[log]\nlevel = \"debug\"\nformat = \"json\"\n";

fn calls(count: u32) -> Vec<SampleCall> {
    (1..=count).map(|n| SampleCall::numbered(Api::Atoms, n, ago(SignedDuration::from_mins(i64::from(n))))).collect()
}

/// The job's span of a line, where the line is about a job.
fn job_of(line: &str) -> Option<Value> {
    let line: Value = serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}"));
    line["spans"].as_array()?.iter().find(|span| span["name"] == "job").cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_a_calls_jobs_names_the_call_and_its_trace() {
    let calls = calls(3);
    let site = Site::start(calls.clone(), LOGGED).await;
    let mut trigger = vec!["trigger", "--source", "atoms"];
    trigger.extend(calls.iter().map(|call| call.id.as_str()));
    site.well(&trigger).await;
    let worked = site.well(&["work", "--until-idle"]).await;
    let app = site.app().await;
    let lines: Vec<Value> = worked.stderr.lines().filter_map(job_of).collect();
    for call in &calls {
        let trace = record(&app, &call.id).await.uid.trace_id();
        for kind in ["process_call", "deliver"] {
            let of_kind = |span: &&Value| span["trace.id"] == trace.as_str() && span["job.kind"] == kind;
            let all: Vec<&Value> = lines.iter().filter(of_kind).collect();
            assert!(!all.is_empty(), "{kind} of {}: {}", call.id, worked.stderr);
            assert!(all.iter().all(|span| span["call.id"] == call.id.as_str()), "{all:?}");
            assert!(all.iter().all(|span| span["call.source"] == "atoms"), "{all:?}");
        }
        let shown = site.well(&["calls", "show", &call.id, "--json"]).await.json();
        assert_eq!(shown["trace_id"], trace.as_str());
        let jobs = shown["jobs"].as_array().unwrap();
        assert_eq!(jobs.len(), 2, "{shown}");
        for job in jobs {
            let moment = |name: &str| job[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            let took = moment("ended_at").duration_since(moment("started_at")).as_millis();
            assert!(moment("queued_at") <= moment("started_at"), "{job}");
            assert_eq!(job["took_ms"].as_u64().map(i128::from), Some(took), "{job}");
        }
    }
    let strangers: Vec<&Value> = lines.iter().filter(|span| span["call.id"].is_null()).collect();
    assert!(strangers.is_empty(), "lines of a job that name no call: {strangers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_that_find_nothing_say_nothing() {
    let mut site = Site::start(calls(1), "").await;
    let sources = demo::sources_toml(&site.serving.base_url()).replace("poll = \"off\"", "poll = \"1s\"");
    site.configure(&format!(
        "{sources}\n[schedule]\nenabled = true\n[worker]\nheartbeat = \"1s\"\n[log]\nlevel = \"info\"\n"
    ));
    // What there is to find is found first.
    site.well(&["reconcile", "--source", "atoms"]).await;
    site.well(&["work", "--until-idle"]).await;
    site.platform.forget_requests();
    let mut worker = site.spawn(&["work"], &[]);
    worker.hear("worker started").await;
    let lists = || site.platform.requests().count(RequestKind::List);
    eventually("some polls of all sources", async || (lists() >= 16).then_some(())).await;
    terminate(worker.id());
    let (_, said) = worker.end().await;
    let between: Vec<&String> = said
        .iter()
        .skip_while(|line| !line.contains("worker started"))
        .skip(1)
        .take_while(|line| !line.contains("draining"))
        .collect();
    assert!(between.is_empty(), "{between:#?}");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|err| panic!("{}: {err}", path.display())).permissions().mode() & 0o7777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_nobody_elses_to_read() {
    let calls = calls(1);
    let site = Site::start(calls.clone(), "").await;
    site.well(&["trigger", &calls[0].id, "--source", "atoms"]).await;
    let worker = site.parking_worker("original");
    let (data, database) = (site.data_dir(), site.data_dir().join("aftercall.db"));
    let mut worker = worker;
    worker.hear("parked").await;
    for (name, wanted) in [("", 0o700), ("aftercall.db", 0o600), ("aftercall.db-wal", 0o600), ("lock", 0o600)] {
        assert_eq!(mode(&data.join(name)), wanted, "{name}");
    }
    worker.kill().await;
    // As a build before this one left them.
    for (name, loose) in [("", 0o755), ("aftercall.db", 0o644), ("aftercall.db-wal", 0o644), ("lock", 0o664)] {
        std::fs::set_permissions(data.join(name), Permissions::from_mode(loose)).unwrap();
    }
    site.well(&["work", "--until-idle"]).await;
    for (name, wanted) in [("", 0o700), ("aftercall.db", 0o600), ("lock", 0o600)] {
        assert_eq!(mode(&data.join(name)), wanted, "{name}");
    }
    assert_eq!(mode(&database), 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_used_for_other_things_is_refused_while_others_can_look_into_it() {
    let site = Site::start(Vec::new(), "").await;
    let data = site.data_dir();
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("notes.txt"), "somebody's").unwrap();
    std::fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    let refused = site.run(&["work", "--until-idle"]).await;
    assert_ne!(refused.code(), Some(0));
    assert!(refused.stderr.contains("data_dir") && refused.stderr.contains("others may look into"), "{refused:?}");
    assert_eq!(mode(&data), 0o755, "it is not ours to close");
    std::fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
    site.well(&["work", "--until-idle"]).await;
    // An empty one is ours.
    let empty = site.place().join("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::set_permissions(&empty, Permissions::from_mode(0o750)).unwrap();
    let elsewhere = [("AFTERCALL__DATA_DIR", empty.to_str().unwrap())];
    assert_eq!(site.run_with(&["work", "--until-idle"], &elsewhere).await.code(), Some(0));
    assert_eq!(mode(&empty), 0o700);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_lacks_its_quote_is_not_printed() {
    let site = Site::start(Vec::new(), "").await;
    let text = std::fs::read_to_string(site.config_file()).unwrap();
    let broken = text.replacen("api_key = \"", "api_key = \"canary\"", 1);
    assert_ne!(text, broken);
    std::fs::write(site.config_file(), broken).unwrap();
    for command in [&["check"][..], &["doctor"], &["work", "--until-idle"]] {
        let said = site.run(command).await;
        assert_eq!(said.code(), Some(64), "{said:?}");
        assert!(said.stderr.contains("aftercall.toml: line ") && said.stderr.contains(", column "), "{said:?}");
        assert!(!said.stderr.contains("canary") && !said.stderr.contains("sample"), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_does_nothing_yet_is_warned_of() {
    let mut site = Site::start(Vec::new(), "").await;
    let quiet = site.well(&["check"]).await;
    assert!(!quiet.stderr.contains("warning"), "{quiet:?}");
    let secret = site.place().join("hook");
    std::fs::write(&secret, "s3cret").unwrap();
    let sources = demo::sources_toml(&site.serving.base_url());
    for line in ["webhook_secret = \"s3cret\"".to_owned(), format!("webhook_secret_file = {secret:?}")] {
        site.configure(&sources.replacen("dialect = \"zudu\"", &format!("dialect = \"zudu\"\n{line}"), 1));
        let said = site.well(&["check"]).await;
        assert!(said.stderr.contains("source `zudu`: webhook_secret is not used"), "{said:?}");
        assert!(!said.stderr.contains("s3cret") && !said.stdout.contains("\"s3cret"), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_says_what_is_true_of_budgets_and_engines() {
    let mut site = Site::start(calls(1), "").await;
    let sources = demo::sources_toml(&site.serving.base_url());
    let sources = sources.replacen("dialect = \"atoms\"", "dialect = \"atoms\"\nrequests_per_day = 500", 1);
    site.configure(&sources);
    let alone = site.run(&["doctor"]).await;
    assert!(!alone.stdout.contains("does not enforce"), "{alone:?}");
    assert!(alone.stdout.contains("budget of atoms: ") && alone.stdout.contains(" of 500 requests"), "{alone:?}");
    assert!(alone.stdout.contains("calls without text end as no_engine"), "{alone:?}");
    let engine = "[[engine]]\nname = \"listener\"\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
                  model = \"m\"\norganizations = [\"org-sample\"]\n";
    site.configure(&format!("{sources}\n{engine}"));
    let beside = site.run(&["doctor"]).await;
    assert!(!beside.stdout.contains("calls without text end as no_engine"), "{beside:?}");
    assert!(beside.stdout.contains("heard by listener where it may hear"), "{beside:?}");
}

#[tokio::test]
async fn a_request_is_logged_with_the_id_of_its_key_and_never_the_key() {
    keep_logs();
    let server = Server::start().await;
    let key = server.key(&[Scope::CallsRead], None).await;
    let id = server.app.store.keys().await.unwrap()[0].id.clone();
    let ask = |key: &str| server.request(Method::GET, key, "/v1/calls").send();
    assert!(ask(&key).await.unwrap().status().is_success());
    assert_eq!(ask("ac_nobody_has_this_one").await.unwrap().status().as_u16(), 401);
    let said = String::from_utf8(logs()).unwrap();
    let line = said.lines().find(|line| line.contains(&id)).unwrap_or_default();
    assert!(line.contains("request") && line.contains("/v1/calls") && line.contains("key="), "{line}");
    assert!(!said.contains(&key) && !said.contains("ac_nobody_has_this_one"));
}
