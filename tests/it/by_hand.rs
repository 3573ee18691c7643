//! What an operator does by hand: ends jobs, meets somebody else's lock on the database, looks at a configuration, mistypes.

use aftercall::demo::{Api, SampleCall};
use aftercall::domain::Outcome;
use jiff::SignedDuration;
use sqlx::{ConnectOptions, Connection, Executor};

use crate::process::{Site, ago, record};

fn call(n: u32) -> SampleCall {
    SampleCall::numbered(Api::KrosaiV1, n, ago(SignedDuration::from_mins(10)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_and_waiting_jobs_are_ended_with_a_reason_and_stay_ended() {
    let (dead, waiting) = (call(1), call(2));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/krosai/v1", listener.local_addr().unwrap());
    drop(listener);
    let away = format!(
        "[worker]\nmax_attempts = 1\n[[source]]\nname = \"krosai\"\ndialect = \"krosai\"\nbase_url = \"{nobody}\"\napi_key = \"k\""
    );
    let mut site = Site::start(vec![dead.clone(), waiting.clone()], &away).await;
    site.well(&["trigger", &dead.id, "--source", "krosai"]).await;
    site.well(&["work", "--until-idle"]).await;
    site.well(&["trigger", &waiting.id, "--source", "krosai"]).await;
    let jobs = site.well(&["jobs", "list", "--json"]).await.json();
    let states: Vec<_> = jobs.as_array().unwrap().iter().map(|job| job["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["available", "dead_letter"], "{jobs}");

    let reason = "recording lost at the host";
    let ended = ["jobs", "cancel", "--where", "state=dead_letter", "--where", "stage=source", "--reason", reason];
    let said = site.well(&ended).await;
    assert!(said.stdout.contains("its call ends as `cancelled`") && said.stderr.contains("1 of 1 jobs"), "{said:?}");
    let id = jobs[0]["id"].to_string();
    site.well(&["jobs", "cancel", &id, "--by", "J. Doe"]).await;
    assert_eq!(site.well(&["jobs", "list", "--json"]).await.json(), serde_json::json!([]));
    let again = site.run(&["jobs", "cancel", &id]).await;
    assert_eq!(again.code(), Some(1), "{again:?}");
    assert!(again.stderr.contains("neither a dead letter nor waiting"), "{again:?}");

    let app = site.app().await;
    let (first, second) = (record(&app, &dead.id).await, record(&app, &waiting.id).await);
    assert_eq!((first.outcome, first.outcome_reason.as_deref()), (Some(Outcome::Cancelled), Some(reason)));
    assert_eq!((second.outcome, second.outcome_reason.as_deref()), (Some(Outcome::Cancelled), None));
    for (record, actor, why) in [(&first, "command line", reason), (&second, "J. Doe", "no reason given")] {
        let entries = app.store.audit_entries(Some(&record.uid.to_string())).await.unwrap();
        let entry = entries.iter().find(|entry| entry.action == "job_cancelled").unwrap();
        assert!(entry.actor == actor && entry.detail.ends_with(why), "{entry:?}");
    }
    app.store.close().await;

    // Nothing brings them back but somebody who asks for it.
    site.configure("");
    let balance = site.well(&["reconcile", "--source", "krosai", "--json"]).await.json();
    assert_eq!((&balance["missing"], &balance["terminal"]["cancelled"]), (&0.into(), &2.into()), "{balance}");
    site.well(&["trigger", &dead.id, "--source", "krosai", "--again"]).await;
    site.well(&["work", "--until-idle"]).await;
    let app = site.app().await;
    assert_eq!(record(&app, &dead.id).await.outcome, Some(Outcome::Done));
    assert_eq!(record(&app, &waiting.id).await.outcome, Some(Outcome::Cancelled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trigger_under_a_foreign_lock_says_who_holds_it_and_may_be_tried_again() {
    let call = call(1);
    let site = Site::start(vec![call.clone()], "[store]\nbusy_timeout = \"300ms\"\n").await;
    site.well(&["work", "--until-idle"]).await;
    let file = site.data_dir().join("aftercall.db");
    let me = format!("process {}", std::process::id());
    let table = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    for lock in ["BEGIN IMMEDIATE", "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE held (x)"] {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
        let mut holder = options.connect().await.unwrap();
        holder.execute(sqlx::AssertSqlSafe(lock)).await.unwrap();
        let said = site.run(&["trigger", &call.id, "--source", "krosai"]).await;
        assert_eq!(said.code(), Some(75), "{lock}: {said:?}");
        assert!(said.stderr.contains("is locked by") && !said.stderr.contains("room on the disk"), "{lock}: {said:?}");
        if !table.is_empty() {
            assert!(said.stderr.contains(&me), "{lock}: {said:?}");
        }
        holder.close().await.unwrap();
    }
    site.well(&["trigger", &call.id, "--source", "krosai"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_what_is_set_twice_and_what_is_not_there() {
    let mut site = Site::start(Vec::new(), "").await;
    let said = site.well(&["check"]).await;
    assert!(!said.stderr.contains("warning"), "{said:?}");
    let key = site.place().join("key");
    std::fs::write(&key, "from-the-file").unwrap();
    let url = site.place().join("url");
    std::fs::write(&url, format!("sqlite://{}/other.db", site.place().display())).unwrap();
    site.configure(&format!(
        "[store]\nurl_file = {url:?}\n[[source]]\nname = \"k\"\ndialect = \"krosai\"\nbase_url = \"https://k.test\"\n\
         api_key = \"canary-key\"\napi_key_file = {key:?}\n"
    ));
    let said = site.well(&["check"]).await;
    for warning in ["source `k`: api_key and api_key_file are both set", "store.url and url_file are both set"] {
        assert!(said.stderr.contains(&format!("warning: {warning}")), "{said:?}");
    }
    assert!(!said.stderr.contains("canary") && !said.stderr.contains("from-the-file"), "{said:?}");

    site.configure("[schedule]\nfile = \"/nowhere/schedule.toml\"\n");
    let said = site.run(&["check"]).await;
    assert_eq!(said.code(), Some(64), "{said:?}");
    assert!(said.stderr.contains("schedule.file: cannot read /nowhere/schedule.toml"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_do_not_exist_are_answered_with_those_that_do() {
    let site = Site::start(Vec::new(), "").await;
    for (args, words) in [
        (&["calls", "list", "--outcome", "nonsense"][..], &["done", "no_recording", "cancelled"][..]),
        (&["keys", "add", "x", "--scope", "calls:peek"], &["calls:read", "admin"]),
        (&["jobs", "show", "abc"], &["a job id is a number"]),
        (&["jobs", "cancel", "abc"], &["a job id is a number"]),
        (&["jobs", "cancel", "--where", "colour=blue"], &["stage", "kind", "state"]),
        (&["jobs", "cancel"], &["<IDS>"]),
    ] {
        let said = site.run(args).await;
        assert_eq!(said.code(), Some(2), "{args:?}: {said:?}");
        assert!(words.iter().all(|word| said.stderr.contains(word)), "{args:?}: {said:?}");
    }
}
