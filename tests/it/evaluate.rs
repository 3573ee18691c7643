//! `aftercall evaluate`: the figures of the sample calls may not become worse unseen, and what is wrong with somebody's
//! references is said.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

fn evaluate(args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_aftercall"));
    command.current_dir(dir.path()).arg("evaluate").args(args).output().unwrap()
}

fn baseline(name: &str) -> String {
    let dir: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/calls/baseline");
    dir.join(name).to_str().unwrap().to_owned()
}

#[test]
fn the_sample_calls_are_judged_no_worse_than_before() {
    let (refs, figures) = (baseline("calls"), baseline("figures.json"));
    let judged = ["--refs", &refs, "--model", "sample", "--language", "en", "--given", "agent-text"];
    let ended = evaluate(&[&judged[..], &["--baseline", &figures, "--json"]].concat());
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((report["each"].as_array().unwrap().len(), &report["all"]["recordings"]), (6, &Value::from(6)));
    for figure in
        ["wer", "cpwer", "der", "der_strict", "confidently_wrong", "invented_words_per_minute", "real_time_factor"]
    {
        assert!(report["all"][figure].is_number(), "{figure}: {report}");
    }
    // A baseline better than what is reached makes it fail, by name.
    let mut better: Value = serde_json::from_str(&std::fs::read_to_string(&figures).unwrap()).unwrap();
    better["all"]["der"] = Value::from(-1.0);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), better.to_string()).unwrap();
    let one = tempfile::tempdir().unwrap();
    let reference = std::fs::read_to_string(baseline("calls/late.json")).unwrap();
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo/recordings");
    let reference = reference.replace("../../../../src/demo/recordings", recordings.to_str().unwrap());
    std::fs::write(one.path().join("late.json"), reference).unwrap();
    let args =
        ["--refs", one.path().to_str().unwrap(), "--given", "words", "--baseline", file.path().to_str().unwrap()];
    let ended = evaluate(&args);
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("worse than the baseline: der: "));
}

#[test]
fn what_is_wrong_with_references_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let refs = dir.path().to_str().unwrap();
    let said = |args: &[&str]| {
        let ended = evaluate(args);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        String::from_utf8(ended.stderr).unwrap()
    };
    assert!(said(&["--refs", refs]).contains("holds no recording with a reference"));
    std::fs::write(dir.path().join("a.json"), "{}").unwrap();
    assert!(said(&["--refs", refs]).contains("a.json: no recording beside it"));
    std::fs::write(dir.path().join("a.json"), r#"{"file":"gone.mp3"}"#).unwrap();
    assert!(said(&["--refs", refs]).contains("gone.mp3"));
    std::fs::write(dir.path().join("a.json"), r#"{"utterances":[{"speaker":0}]}"#).unwrap();
    let text = said(&["--refs", refs]);
    assert!(text.contains("a.json: utterances[0]: missing field `text`"), "{text}");
    assert!(said(&["--refs", "/nowhere"]).contains("--refs: cannot read /nowhere"));
    let not_json = dir.path().join("figures");
    std::fs::write(&not_json, "x").unwrap();
    assert!(said(&["--refs", refs, "--baseline", not_json.to_str().unwrap()]).contains("is not JSON"));
}

#[test]
fn the_voice_of_an_agent_is_enrolled_from_its_other_recordings_of_two_channels() {
    let dir = tempfile::tempdir().unwrap();
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo/recordings");
    let reference = |from: &str, to: &str, more: &Value| {
        let text = std::fs::read_to_string(baseline(&format!("calls/{from}.json"))).unwrap();
        let mut reference: Value = serde_json::from_str(&text).unwrap();
        let file = Path::new(reference["file"].as_str().unwrap()).file_name().unwrap().to_owned();
        reference["file"] = recordings.join(file).to_str().unwrap().into();
        reference.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        std::fs::write(dir.path().join(format!("{to}.json")), reference.to_string()).unwrap();
    };
    let agent = serde_json::json!({ "agent_id": "ada", "dual_channels": "caller_left" });
    reference("clinic", "first", &agent);
    reference("wordless", "mono", &serde_json::json!({ "agent_id": "ada" }));
    let roles = || {
        let judged = ["--refs", dir.path().to_str().unwrap(), "--given", "words,agent-voice", "--json"];
        let ended = evaluate(&judged);
        let report: Value = serde_json::from_slice(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
        let mono = report["each"].as_array().unwrap().iter().find(|one| one["name"] == "mono").unwrap().clone();
        mono["roles"].as_array().unwrap().iter().map(|role| role["role"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(roles(), ["unknown", "unknown"], "one call says too little");
    reference("clinic", "second", &agent);
    assert_eq!(roles(), ["agent", "caller"]);
}
