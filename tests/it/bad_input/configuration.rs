//! A configuration, an environment or arguments that cannot be used.

use crate::process::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_configuration_is_64_with_file_key_and_reason() {
    let site = Site::start(Vec::new(), "").await;
    let file = site.config_file().display().to_string();
    for (text, named) in [
        ("[worker]\nheartbeat = \"soon\"", &["heartbeat", "soon"][..]),
        ("[retention]\ndayz = 3", &["dayz"]),
        ("[retention]\ndays = -1", &["days", "0 to 36500"]),
        ("[worker]\nconcurrency = 0", &["worker.concurrency", "at least 1"]),
        ("[store]\nurl = \"mysql://x\"", &["store.url", "sqlite://"]),
        ("[log]\nlevel = \"=!=\"", &["log.level"]),
        (
            "[[source]]\nname = \"k\"\ndialect = \"krosai\"\nbase_url = \"https://a.example\"",
            &["source `k`", "api_key"],
        ),
        ("[worker", &["line 1"]),
    ] {
        std::fs::write(site.config_file(), text).unwrap();
        for command in [&["check"][..], &["work", "--until-idle"], &["calls", "list"]] {
            // `check` starts no logging, so it cannot know about the filter.
            if command == ["check"] && text.contains("level") {
                continue;
            }
            let said = site.run(command).await;
            assert_eq!(said.code(), Some(64), "{text}: {said:?}");
            let names = text.contains("level") || said.stderr.contains(&file);
            assert!(names && named.iter().all(|word| said.stderr.contains(word)), "{text}: {said:?}");
        }
    }
    std::fs::write(site.config_file(), "").unwrap();
    let said = site.run_with(&["check"], &[("AFTERCALL__WORKER__CONCURRENCY", "many")]).await;
    assert_eq!(said.code(), Some(64), "{said:?}");
    assert!(said.stderr.contains("concurrency") && said.stderr.contains("many"), "{said:?}");
    std::fs::remove_file(site.config_file()).unwrap();
    let said = site.run(&["check"]).await;
    assert_eq!(said.code(), Some(64), "{said:?}");
    assert!(said.stderr.contains(&file), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_in_the_environment_names_its_variable_and_not_the_file() {
    let site = Site::start(Vec::new(), "").await;
    let file = site.config_file().display().to_string();
    for (variable, value, named) in [
        ("AFTERCALL__FOO__BAR", "1", "unknown field `foo`"),
        ("AFTERCALL__WORKER__CONCURRENCY", "many", "worker.concurrency"),
        ("AFTERCALL__OBJECTS__KIND", "disk", "`dir` or `s3`"),
    ] {
        let said = site.run_with(&["check"], &[(variable, value)]).await;
        assert_eq!(said.code(), Some(64), "{said:?}");
        assert!(said.stderr.contains(variable) && said.stderr.contains(named), "{said:?}");
        assert!(!said.stderr.contains(&file), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_that_make_no_sense_are_2() {
    let site = Site::start(Vec::new(), "").await;
    let from_to = ["--from", "2026-02-02", "--to", "2026-02-01"];
    for (command, named) in [
        (&["jobs", "retry"][..], "<IDS>"),
        (&["jobs", "retry", "--where", "foo=bar"], "none of stage"),
        (&["jobs", "retry", "--where", "stage"], "KEY=VALUE"),
        (&[&["backfill", "start", "--source", "krosai"], &from_to[..]].concat(), "is not before"),
        (&[&["backfill", "plan", "--source", "krosai"], &from_to[..]].concat(), "is not before"),
    ] {
        let said = site.run(command).await;
        assert_eq!(said.code(), Some(2), "{command:?}: {said:?}");
        assert!(said.stderr.contains(named), "{command:?}: {said:?}");
    }
    // Making sense and finding nothing is another thing.
    site.well(&["jobs", "retry", "--where", "stage=fetch"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_back_nobody_could_make_is_64_with_its_field() {
    let site = Site::start(Vec::new(), "").await;
    let source = "[[source]]\nname = \"a\"\ndialect = \"atoms\"\nbase_url = \"https://a.test\"\napi_key = \"k\"\n\
                  write_back = \"http\"\n[source.http]\n";
    for (http, named, reason) in [
        ("url = 'https://h.test/{{ call.id'", "source[0].http.url: ", "syntax error"),
        ("url = '/calls/{{ call.id }}'", "source[0].http.url: ", "absolute"),
        ("url = 'https://h.test/'\nmethod = 'P T'", "source[0].http.method: ", "P T"),
        ("url = 'https://h.test/'\nbody = '{{ nothing }}'", "source[0].http.body: ", "`nothing`"),
        ("url = 'https://h.test/'\n[source.http.headers]\n'a b' = 'c'", "source[0].http.headers.a b: ", "name"),
    ] {
        std::fs::write(site.config_file(), format!("{source}{http}")).unwrap();
        let said = site.run(&["check"]).await;
        assert_eq!(said.code(), Some(64), "{http}: {said:?}");
        assert!(said.stderr.contains(named) && said.stderr.contains(reason), "{http}: {said:?}");
    }
}
