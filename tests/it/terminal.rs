//! What the program says to a person at a terminal.

use aftercall::demo::{Api, SampleCall, recordings};
use jiff::SignedDuration;
use serde_json::Value;

use crate::process::{Site, ago};

/// A site with one call of Zudu that is done and was delivered.
async fn with_a_call() -> Site {
    let mut call = SampleCall::numbered(Api::Zudu, 1, ago(SignedDuration::from_mins(5)));
    call.audio = Some(recordings::wordless());
    call.duration_ms = 14_000;
    let site = Site::start(vec![call], "").await;
    site.well(&["trigger", "call-000001", "--source", "zudu"]).await;
    site.well(&["work", "--until-idle"]).await;
    site
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_shown_with_its_figures_deliveries_and_jobs() {
    let site = with_a_call().await;
    let shown = site.well(&["calls", "show", "call-000001"]).await.stdout;
    for part in [
        "kept until ",
        "quality: ",
        " → -16.0 LUFS",
        "stored: 6 objects, ",
        "by `metadata`, delivered",
        "process_call: completed",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(!shown.contains("v1/"), "keys are shown without --keys: {shown}");
    let keys = site.well(&["calls", "show", "call-000001", "--keys"]).await.stdout;
    assert_eq!(keys.matches("  v1/").count(), 6, "{keys}");
    site.age("call-000001").await;
    site.well(&["retention", "run", "--force"]).await;
    let condemned = site.well(&["calls", "show", "call-000001"]).await.stdout;
    assert!(condemned.contains("erasure has been decided") && !condemned.contains("kept until"), "{condemned}");
    site.well(&["work", "--until-idle"]).await;
    let erased = site.well(&["calls", "show", "call-000001"]).await.stdout;
    assert!(erased.contains("erased: recording, transcript and figures are gone"), "{erased}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_in_json_are_as_exact_as_they_were_measured() {
    let site = with_a_call().await;
    let shown = site.well(&["calls", "show", "call-000001", "--json"]).await.json();
    let mut figures = Vec::new();
    collect(&shown["quality"], &mut figures);
    assert!(figures.len() > 10, "{figures:?}");
    for figure in figures {
        let digits = figure.split_once('.').map_or("", |(_, places)| places);
        assert!(digits.len() <= 3 || digits.trim_start_matches('0').len() <= 3, "{figure}");
    }
}

/// The numbers with a fraction below a value, as they are written.
fn collect(value: &Value, figures: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.values().for_each(|value| collect(value, figures)),
        Value::Array(items) => items.iter().for_each(|value| collect(value, figures)),
        Value::Number(number) if number.is_f64() => figures.push(number.to_string()),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_table_says_what_there_is_none_of() {
    let site = Site::start(Vec::new(), "").await;
    site.well(&["work", "--until-idle"]).await;
    for (args, words) in [
        (["calls", "list"], "no call record yet; `aftercall trigger`"),
        (["jobs", "list"], "--all lists finished jobs too"),
        (["backfill", "list"], "`aftercall backfill start"),
        (["hold", "list"], "`aftercall hold add --help`"),
        (["keys", "list"], "`aftercall keys add"),
        (["voices", "list"], "`synthetic = true`"),
    ] {
        let said = site.well(&args).await;
        assert!(said.stderr.contains(words) && said.stdout.is_empty(), "{args:?}: {said:?}");
        let mut json = args.to_vec();
        json.push("--json");
        assert_eq!(site.well(&json).await.json(), serde_json::json!([]), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_answered_in_a_line_that_helps() {
    let mut site = Site::start(Vec::new(), "").await;
    let erase = site.run(&["erase"]).await;
    assert!(erase.code() == Some(2) && !erase.stderr.contains("serve"), "{erase:?}");
    let near = site.run(&["call"]).await;
    assert!(near.code() == Some(2) && near.stderr.contains("'calls'"), "{near:?}");
    let id = site.run(&["jobs", "show", "abc"]).await;
    assert!(id.code() == Some(2) && id.stderr.contains("a job id is a number"), "{id:?}");
    let outcome = site.run(&["calls", "list", "--outcome", "nonsense"]).await;
    assert!(outcome.code() == Some(2) && outcome.stderr.contains("no_recording"), "{outcome:?}");
    let scope = site.run(&["keys", "add", "x", "--scope", "everything"]).await;
    assert!(scope.code() == Some(2) && scope.stderr.contains("transcripts:read"), "{scope:?}");
    let triggered = site.well(&["trigger", "nobody", "--source", "zudu"]).await;
    assert!(triggered.stderr.contains("aftercall calls show"), "{triggered:?}");
    let base = site.serving.base_url();
    let place = base.trim_start_matches("http://").to_owned();
    site.replace(&place, "127.0.0.1:1");
    let doctor = site.run(&["doctor"]).await;
    assert_eq!(doctor.code(), Some(1), "{doctor:?}");
    assert!(doctor.stdout.contains("FAIL source zudu: 127.0.0.1:1 refuses connections\n"), "{}", doctor.stdout);
}
