//! What the program says when it is given something it cannot work with: an outcome, or an error that names the thing
//! and what to do about it, with the exit code scripts can rely on.

mod configuration;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aftercall::demo::{Api, FaultAnswer, Keys, RequestKind, SampleAudio, SampleCall};
use aftercall::domain::{Container, Outcome};
use aftercall::queue::{FinishedJobs, JobState};
use aftercall::telemetry;
use aftercall::wire::Window;
use jiff::{SignedDuration, Timestamp};

use crate::process::{Site, ago, files_below, record, source, terminate};

fn call(api: Api, n: u32) -> SampleCall {
    SampleCall::numbered(api, n, ago(SignedDuration::from_mins(10)))
}

/// The path of an unfinished network address: somebody listened here a moment ago, nobody does now.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/krosai/v1", listener.local_addr().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_holds_the_source_and_names_the_setting() {
    let keys = Keys { krosai: "kros_live_changed".to_owned(), ..Keys::default() };
    let call = call(Api::KrosaiV1, 1);
    let site = Site::with(vec![call.clone()], "", |builder| builder.keys(keys)).await;
    site.well(&["trigger", &call.id, "--source", "krosai"]).await;
    site.well(&["work", "--until-idle"]).await;
    let jobs = site.well(&["jobs", "list", "--json"]).await.json();
    let job = &jobs[0];
    assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("scheduled"), Some(0)), "{jobs}");
    assert_eq!((job["side"].as_str(), job["stage"].as_str()), (Some("source"), Some("source")), "{jobs}");
    assert!(job["cause"].as_str().is_some_and(|cause| cause.contains("krosai") && cause.contains("api_key")), "{jobs}");
    for (command, code, named) in
        [(&["reconcile", "--source", "krosai"][..], 75, "the platform refuses the key"), (&["doctor"], 1, "api_key")]
    {
        let said = site.run(command).await;
        assert_eq!(said.code(), Some(code), "{said:?}");
        let text = format!("{}{}", said.stdout, said.stderr);
        assert!(text.contains("krosai") && text.contains(named), "{said:?}");
        assert!(!text.contains("kros_live"), "a key is shown: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_that_is_not_there_is_waited_for_and_nothing_is_lost() {
    let calls = vec![call(Api::KrosaiV1, 1), call(Api::KrosaiV1, 2)];
    let away = format!(
        "[worker]\nbackoff_base = \"1h\"\nbackoff_max = \"2h\"\n[[source]]\nname = \"krosai\"\ndialect = \"krosai\"\n\
         base_url = \"{}\"\napi_key = \"k\"",
        nobody()
    );
    let mut site = Site::start(calls.clone(), &away).await;
    let said = site.run(&["reconcile", "--source", "krosai"]).await;
    assert_eq!(said.code(), Some(75), "{said:?}");
    assert!(said.stderr.contains("krosai"), "{said:?}");

    site.well(&["backfill", "start", "--source", "krosai", "--from", "2020-01-01"]).await;
    site.well(&["work", "--until-idle"]).await;
    let jobs = site.well(&["jobs", "list", "--json"]).await.json();
    assert_eq!((jobs[0]["kind"].as_str(), jobs[0]["state"].as_str()), (Some("backfill"), Some("retryable")), "{jobs}");
    assert_eq!((jobs[0]["fault"].as_str(), jobs[0]["side"].as_str()), (Some("transient"), Some("source")), "{jobs}");

    site.configure("");
    site.well(&["jobs", "retry", &jobs[0]["id"].to_string()]).await;
    site.well(&["work", "--until-idle"]).await;
    let app = site.app().await;
    for call in &calls {
        assert_eq!(record(&app, &call.id).await.outcome, Some(Outcome::Done));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_climbs_is_only_an_id() {
    let mut climbing = call(Api::KrosaiV1, 1);
    "../../../../etc/passwd".clone_into(&mut climbing.id);
    let site = Site::start(vec![climbing.clone()], "").await;
    site.well(&["trigger", &climbing.id, "--source", "krosai"]).await;
    site.well(&["work", "--until-idle"]).await;
    let app = site.app().await;
    assert_eq!(record(&app, &climbing.id).await.outcome, Some(Outcome::Done));
    let (data, config) = (site.data_dir(), site.config_file());
    let outside: Vec<PathBuf> =
        files_below(site.place()).into_iter().filter(|path| !path.starts_with(&data) && *path != config).collect();
    assert_eq!(outside, Vec::<PathBuf>::new());
    assert!(files_below(&data).iter().all(|path| !path.to_string_lossy().contains("passwd")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_at_a_private_address_is_refused() {
    let urls = [
        "http://169.254.169.254/latest/meta-data/recording.mp3",
        "https://10.0.0.7/recording.mp3",
        "https://[::ffff:192.168.0.1]/recording.mp3",
    ];
    let calls: Vec<SampleCall> = (1..)
        .zip(urls)
        .map(|(n, url)| SampleCall { recording_url: Some(url.to_owned()), ..call(Api::Atoms, n) })
        .collect();
    let site = Site::start(calls.clone(), "").await;
    let mut trigger = vec!["trigger", "--source", "atoms"];
    trigger.extend(calls.iter().map(|call| call.id.as_str()));
    site.well(&trigger).await;
    site.well(&["work", "--until-idle"]).await;
    let app = site.app().await;
    for (call, url) in calls.iter().zip(urls) {
        assert_eq!(record(&app, &call.id).await.outcome, Some(Outcome::RefusedUrl), "{url}");
    }
    assert_eq!(site.platform.requests().count(RequestKind::Recording), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_nobody_knows_is_counted_and_left_alone() {
    let strange = SampleCall { status_word: Some("teleported".to_owned()), ..call(Api::KrosaiV1, 1) };
    let site = Site::start(vec![strange, call(Api::KrosaiV1, 2)], "").await;
    let metrics = telemetry::metrics_handle().unwrap();
    let app = site.app().await;
    let window = Window { from: Timestamp::UNIX_EPOCH, to: app.now() };
    let balance = aftercall::jobs::reconcile::balance(&app, &source(Api::KrosaiV1), window).await.unwrap();
    assert_eq!((balance.listed, balance.completed, balance.missing), (2, 1, 0));
    let jobs = app.queue.jobs(FinishedJobs::Included, 10).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.state).collect::<Vec<_>>(), [JobState::Available]);
    let shown = metrics.render();
    assert!(shown.contains(r#"aftercall_unknown_call_status_total{source="krosai"}"#), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconcile_names_what_somebody_has_to_look_at() {
    let calls = vec![call(Api::KrosaiV1, 1), call(Api::KrosaiV1, 2)];
    let site = Site::start(calls.clone(), "[worker]\nmax_attempts = 1").await;
    let reconcile = ["reconcile", "--source", "krosai", "--json"];
    let clear = site.well(&reconcile).await.json();
    let shown = |balance: &serde_json::Value| {
        ["listed", "completed", "done", "running", "dead_letters", "unreadable", "missing"]
            .map(|name| balance[name].as_u64())
    };
    assert_eq!(shown(&clear), [2, 2, 0, 2, 0, 0, 0].map(Some), "{clear}");
    let (dead, odd) = (calls[0].id.clone(), calls[1].id.clone());
    site.platform.set_faults(move |asked| {
        (asked.kind == RequestKind::Detail && asked.call_id.as_ref() == Some(&dead)).then(|| FaultAnswer::status(400))
    });
    site.well(&["work", "--until-idle"]).await;
    let said = site.run(&reconcile).await;
    let balance = said.json();
    assert_eq!((said.code(), shown(&balance)), (Some(1), [2, 2, 1, 0, 1, 0, 0].map(Some)), "{said:?}");
    assert_eq!(balance["terminal"], serde_json::json!({}), "{balance}");

    let body = format!("{{\"calls\":[{{\"id\":\"{odd}\",\"status\":\"completed\",\"note\":}}],\"total\":1}}");
    site.platform.set_faults(move |asked| {
        let answer = FaultAnswer::Status { code: 200, headers: Vec::new(), body: body.clone() };
        (asked.kind == RequestKind::List).then_some(answer)
    });
    let said = site.run(&reconcile).await;
    let balance = said.json();
    assert_eq!((said.code(), shown(&balance)), (Some(1), [1, 0, 0, 0, 0, 1, 0].map(Some)), "{said:?}");
    assert_eq!(balance["unreadable_ids"], serde_json::json!([odd]), "{balance}");
    let said = site.run(&reconcile[..3]).await;
    assert!(said.code() == Some(1) && said.stderr.contains(&odd) && said.stdout.contains("unreadable"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_worker_on_a_data_directory_is_told_so_and_everything_else_goes_on() {
    let call = call(Api::Atoms, 1);
    let site = Site::start(vec![call.clone()], "[log]\nlevel = \"info\"").await;
    let mut first = site.spawn(&["work"], &[]);
    first.hear("worker started").await;
    for command in [&["work"][..], &["work", "--until-idle"], &["run"]] {
        let said = site.run(command).await;
        assert_eq!(said.code(), Some(75), "{said:?}");
        let place = site.data_dir().display().to_string();
        assert!(
            said.stderr.contains("another aftercall process runs jobs on") && said.stderr.contains(&place),
            "{said:?}"
        );
    }
    site.well(&["trigger", &call.id, "--source", "atoms"]).await;
    first.hear("outcome=\"delivered\"").await;
    terminate(first.id());
    assert!(first.end().await.0.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_cannot_be_written_is_named() {
    let mut site = Site::start(Vec::new(), "").await;
    let place = |dir: &str| {
        format!(
            "data_dir = {dir:?}\n[store]\nurl = \"sqlite://{dir}/aftercall.db\"\n[objects]\npath = \"{dir}/objects\""
        )
    };
    let mut places = vec!["/dev/null/data".to_owned()];
    let locked = site.place().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o500)).unwrap();
    // Root may write everywhere.
    if std::fs::write(locked.join("probe"), "").is_err() {
        places.push(locked.display().to_string());
    }
    for dir in places {
        site.configure(&place(&dir));
        // A command that only reads makes nothing.
        let said = site.run(&["calls", "list"]).await;
        assert!(said.code() == Some(75) && said.stderr.contains("no tables yet"), "{said:?}");
        for command in [&["work", "--until-idle"][..], &["doctor"]] {
            let said = site.run(command).await;
            assert_eq!(said.code(), Some(1), "{command:?}: {said:?}");
            let text = format!("{}{}", said.stdout, said.stderr);
            assert!(text.contains("data_dir") && text.contains(&dir), "{command:?}: {said:?}");
        }
    }
}

/// A second of silence and six megabytes of something that is no audio.
fn bulky() -> SampleAudio {
    const RATE: u32 = 8000;
    let (silence, ballast) = (vec![0_u8; 2 * RATE as usize], vec![0x55_u8; 6 << 20]);
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_le_bytes();
    let mut format = Vec::new();
    for field in [1_u16.to_le_bytes(), 1_u16.to_le_bytes()] {
        format.extend(field);
    }
    format.extend(RATE.to_le_bytes());
    format.extend((2 * RATE).to_le_bytes());
    format.extend([2, 0, 16, 0]);
    let mut chunks = b"WAVE".to_vec();
    for (name, body) in [(b"fmt ", &format), (b"data", &silence), (b"JUNK", &ballast)] {
        chunks.extend(name);
        chunks.extend(length(body.len()));
        chunks.extend(body);
    }
    let bytes = [&b"RIFF"[..], &length(chunks.len()), &chunks].concat();
    SampleAudio { bytes: bytes.into(), container: Container::Wav }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_waited_for_and_shows_nothing_half_written() {
    let call = SampleCall { audio: Some(bulky()), ..call(Api::Atoms, 1) };
    let mut site = Site::start(vec![call.clone()], "[worker]\nbackoff_base = \"1h\"\nbackoff_max = \"2h\"").await;
    site.well(&["trigger", &call.id, "--source", "atoms"]).await;
    let cramped = site.run_cramped(&["work", "--until-idle"]).await;
    assert_eq!(cramped.code(), Some(0), "{cramped:?}");
    let jobs = site.well(&["jobs", "list", "--json"]).await.json();
    assert_eq!(
        (jobs[0]["state"].as_str(), jobs[0]["fault"].as_str()),
        (Some("retryable"), Some("transient")),
        "{jobs}"
    );
    assert_eq!(jobs[0]["side"].as_str(), Some("worker"), "{jobs}");
    let spool = site.data_dir().join("spool").display().to_string();
    assert!(jobs[0]["cause"].as_str().is_some_and(|cause| cause.contains(&spool)), "{jobs}");
    assert_eq!(files_below(&site.objects_dir()), Vec::<PathBuf>::new());

    site.configure("");
    site.well(&["jobs", "retry", &jobs[0]["id"].to_string()]).await;
    site.well(&["work", "--until-idle"]).await;
    let app = site.app().await;
    let record = record(&app, &call.id).await;
    assert_eq!(record.outcome, Some(Outcome::Done));
    let original = app.objects.get(record.original.as_ref().unwrap()).await.unwrap();
    assert!(original == call.audio.unwrap().bytes, "the original is not what the platform has");
}

/// Some seconds of a tone, 16 kHz mono.
fn write_tone(path: &Path) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    for n in 0..24_000 {
        writer.write_sample(((f64::from(n) * 0.2).sin() * 8000.0) as i16).unwrap();
    }
    writer.finalize().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_entry_of_a_folder_costs_only_itself() {
    let site = Site::start(Vec::new(), "").await;
    let (folder, out) = (site.place().join("calls"), site.place().join("out"));
    std::fs::create_dir_all(folder.join("older")).unwrap();
    std::fs::create_dir_all(&out).unwrap();
    for name in ["a.wav", "b.wav", "c.wav"] {
        write_tone(&folder.join(name));
    }
    std::fs::write(folder.join("notes.txt"), "called back twice").unwrap();
    std::os::unix::fs::symlink(site.place().join("gone.wav"), folder.join("gone.wav")).unwrap();
    // Where the second recording's files would go, the user has a file.
    std::fs::write(out.join("b"), "mine").unwrap();
    let (calls, into) = (folder.display().to_string(), out.display().to_string());
    let said = site.run(&["process", &calls, "--out", &into, "--no-transcript", "--json"]).await;
    assert_eq!(said.code(), Some(1), "{said:?}");
    let said_of = |name: &str, why: &str| {
        assert!(said.stderr.lines().any(|line| line.contains(name) && line.contains(why)), "{name}: {said:?}");
    };
    said_of("gone.wav", "cannot be read, passed over");
    said_of("notes.txt", "no audio, passed over");
    said_of("older", "a folder, passed over");
    let all = said.json();
    let states: Vec<_> = all.as_array().unwrap().iter().map(|one| one["state"].as_str()).collect();
    assert_eq!(states, [Some("ok"), None, Some("ok")], "{all:#}");
    assert!(all[1]["reason"].as_str().unwrap().contains("cannot create"), "{all:#}");
    assert!(out.join("a/audio.wav").is_file() && out.join("c/audio.wav").is_file());
    assert_eq!(std::fs::read(out.join("b")).unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_filled_before_keeps_nothing_of_an_earlier_recording() {
    let site = Site::start(Vec::new(), "").await;
    let (good, noise, out) = (site.place().join("call.wav"), site.place().join("noise"), site.place().join("out"));
    write_tone(&good);
    // Bytes of no format: neither text nor a signature of any kind.
    std::fs::write(
        &noise,
        (0..5000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80).collect::<Vec<_>>(),
    )
    .unwrap();
    let out_arg = out.display().to_string();
    let process =
        |file: &PathBuf| vec!["process".to_owned(), file.display().to_string(), "--out".to_owned(), out_arg.clone()];
    let run = |args: Vec<String>| {
        let site = &site;
        async move { site.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(&out).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(run(process(&good)).await.code(), Some(0));
    for file in files_below(&out) {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o644, "{}", file.display());
    }
    assert!(names().contains(&"audio.wav".to_owned()) && names().contains(&"manifest.json".to_owned()));
    std::fs::write(out.join("notes.txt"), "mine").unwrap();
    let said = run(process(&noise)).await;
    assert_eq!(said.code(), Some(1), "{said:?}");
    assert!(said.stdout.contains("no container we know") && !said.stdout.contains("codec"), "{said:?}");
    assert_eq!(names(), ["notes.txt", "original.bin"]);
    // A codec that is not read is named, and its recording is not called damaged.
    std::fs::write(&noise, [&b"#!AMR\n"[..], &[0x3c; 640]].concat()).unwrap();
    let said = run([process(&noise), vec!["--json".to_owned()]].concat()).await;
    assert_eq!(said.code(), Some(1), "{said:?}");
    assert!(said.stdout.contains("\"unsupported_media\"") && said.stdout.contains("codec amr"), "{said:?}");
    assert!(!said.stdout.contains("damaged"), "{said:?}");
    assert_eq!(names(), ["notes.txt", "original.bin"]);
    // What is worked on now is no leftover, even under a known name.
    std::fs::copy(&good, out.join("original.wav")).unwrap();
    assert_eq!(run(process(&out.join("original.wav"))).await.code(), Some(0));
    assert!(names().contains(&"original.wav".to_owned()) && !names().contains(&"original.bin".to_owned()));
}
