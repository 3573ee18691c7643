//! Words that somebody gives: their times are believed where they fit the recording, captions are read as captions, and
//! where there are no words a person is told why and what brings them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aftercall::demo::recordings::Sheet;
use aftercall::demo::{Api, SampleCall, SampleText, recordings};
use aftercall::domain::transcript::TextSource;
use aftercall::domain::{Outcome, ProviderTurn, Transcript};
use jiff::SignedDuration;
use serde_json::Value;

use crate::harness::{Backend, Fixture, Plan};
use crate::process::{Said, Site};
use crate::words::recording;

/// The turns of the tickets' call, every time taken through `at`.
fn turns(at: impl Fn(u64) -> u64) -> Arc<[ProviderTurn]> {
    let dialogue = Sheet::read().unwrap().dialogue("wordless").unwrap();
    let mut turns: Vec<ProviderTurn> = dialogue.turns.to_vec();
    for turn in &mut turns {
        (turn.start_ms, turn.end_ms) = (turn.start_ms.map(&at), turn.end_ms.map(&at));
        for word in &mut turn.words {
            (word.start_ms, word.end_ms) = (word.start_ms.map(&at), word.end_ms.map(&at));
        }
    }
    turns.into()
}

/// The call as a platform gives it that counts so, processed with these settings; flags and transcript.
async fn processed(settings: &'static str, at: fn(u64) -> u64) -> (Vec<String>, Transcript) {
    let mut id = String::new();
    let fixture = Fixture::planned(Backend::Sqlite, Plan { settings, ..Plan::default() }, |now| {
        let mut call = SampleCall::numbered(Api::Zudu, 1, now - SignedDuration::from_mins(5));
        (call.audio, call.text, call.duration_ms) = (Some(recordings::wordless()), SampleText::Turns, 14_000);
        call.turns = turns(at);
        id.clone_from(&call.id);
        vec![call]
    })
    .await;
    fixture.trigger(Api::Zudu, &id).await;
    fixture.run_pending().await;
    let record = fixture.record(Api::Zudu, &id).await;
    assert_eq!(record.outcome, Some(Outcome::Done), "{:?}", record.outcome_reason);
    let stored = fixture.store.transcripts(record.uid).await.unwrap().pop().unwrap();
    (record.flags, stored.transcript)
}

/// What it is called, and what it makes of milliseconds.
type Unit = (&'static str, fn(u64) -> u64);

const UNITS: [Unit; 3] =
    [("ms as s", |at| at * 1000), ("ticks of 10 ms as s", |at| at * 100), ("another clock", |at| at + 3_600_000)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_of_another_unit_are_aligned_anew_or_not_believed() {
    let (flags, fits) = processed("", |at| at).await;
    assert!(!flags.contains(&"times_misfit".to_owned()), "{flags:?}");
    assert_eq!((fits.reason.as_deref(), fits.source), (None, TextSource::Provider));
    let texts = |transcript: &Transcript| -> Vec<String> {
        transcript.utterances.iter().map(|utterance| utterance.text.clone()).collect()
    };
    for (name, at) in UNITS {
        let (flags, none) = processed("", at).await;
        assert!(flags.contains(&"times_misfit".to_owned()), "{name}: {flags:?}");
        assert_eq!(none.reason.as_deref(), Some("times_misfit"), "{name}");
        assert!(none.utterances.iter().all(|u| u.start_ms.or(u.end_ms).is_none()), "{name}: {none:#?}");
        assert_eq!(texts(&none), texts(&fits), "{name}");

        let (flags, aligned) = processed("[transcript]\nmodel = \"sample\"\n", at).await;
        assert!(!flags.contains(&"times_misfit".to_owned()), "{name}: {flags:?}");
        assert_eq!((aligned.reason.as_deref(), aligned.source), (None, TextSource::ProviderAligned), "{name}");
        for (found, truth) in aligned.utterances.iter().zip(&fits.utterances) {
            let apart = found.start_ms.unwrap().abs_diff(truth.start_ms.unwrap());
            assert!(apart <= 400, "{name}: {} is {apart} ms off", truth.text);
        }
    }
}

/// A file beside the site's data, processed with `more`; what came of it and the folder it is in.
async fn process(site: &Site, name: &str, given: Option<(&str, &str)>, more: &[&str]) -> (Said, PathBuf) {
    let out = site.place().join(name);
    let call = recording("wordless.mp3").display().to_string();
    let into = out.display().to_string();
    let mut args = vec!["process", &call, "--out", &into];
    let path;
    if let Some((file, text)) = given {
        path = site.place().join(file).display().to_string();
        std::fs::write(&path, text).unwrap();
        args.extend(["--transcript", path.as_str()]);
    }
    args.extend(more);
    (site.well(&args).await, out)
}

fn document(out: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(out.join("transcript.json")).unwrap()).unwrap()
}

/// The names in the folder's manifest, and the files that are there.
fn files(out: &Path) -> (Vec<String>, Vec<String>) {
    let manifest: Value = serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
    let listed = manifest["artifacts"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned());
    let mut listed: Vec<String> = listed.chain(["manifest.json".to_owned()]).collect();
    let there = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut there: Vec<String> = there.collect();
    listed.sort();
    there.sort();
    (listed, there)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_files_given_back_are_read_as_what_they_are() {
    let site = Site::start(Vec::new(), "").await;
    let written: String = {
        let cue = |(n, turn): (usize, &ProviderTurn)| {
            let clock = |ms: u64| format!("00:00:{:02}.{:03}", ms / 1000, ms % 1000);
            let who = if n % 2 == 0 { "Agent" } else { "Caller" };
            format!("\n{} --> {}\n<v {who}>{}\n", clock(turn.start_ms.unwrap()), clock(turn.end_ms.unwrap()), turn.text)
        };
        let cues: Vec<String> = turns(|at| at).iter().enumerate().map(cue).collect();
        format!("WEBVTT\n{}", cues.concat())
    };
    let (_, first) = process(&site, "first", Some(("given.vtt", &written)), &[]).await;
    let read = |out: &Path, name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(read(&first, "transcript.vtt"), written);
    let text = read(&first, "transcript.txt");
    assert!(text.starts_with("[Agent]: ") && text.contains("\n[Caller]: "), "{text}");
    let srt = written
        .strip_prefix("WEBVTT\n\n")
        .unwrap()
        .replace("<v Agent>", "[Agent]: ")
        .replace("<v Caller>", "[Caller]: ");
    let numbered =
        srt.split("\n\n").enumerate().map(|(n, cue)| format!("{}\r\n{}\r\n", n + 1, cue.trim().replace('\n', "\r\n")));
    let srt: Vec<String> = numbered.collect();
    for (name, file, given, timed) in [
        ("vtt", "again.vtt", written.clone(), true),
        ("srt", "again.srt", srt.join("\r\n"), true),
        ("json", "again.json", read(&first, "transcript.json"), true),
        ("txt", "again.txt", text.clone(), false),
    ] {
        let (said, out) = process(&site, name, Some((file, &given)), &["--json"]).await;
        assert_eq!(read(&out, "transcript.txt"), text, "{name}");
        assert_eq!(out.join("transcript.vtt").is_file(), timed, "{name}");
        if timed {
            assert_eq!(read(&out, "transcript.vtt"), written, "{name}");
        } else {
            assert_eq!(document(&out)["reason"], "no_times");
            assert_eq!(said.json()[0]["words"]["no_captions"], "no_times", "{said:?}");
        }
        let (listed, there) = files(&out);
        assert_eq!(listed, there, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn captions_of_another_clock_do_not_become_captions() {
    let site = Site::start(Vec::new(), "").await;
    let given = "WEBVTT\n\n26:40.000 --> 26:41.500\n<v Agent>Thank you for calling.\n\n26:42.000 --> 26:43.000\n<v Caller>Hello.\n";
    let (said, out) = process(&site, "late", Some(("late.vtt", given)), &[]).await;
    assert!(said.stderr.contains("no captions (times_misfit)"), "{said:?}");
    assert!(!out.join("transcript.vtt").exists());
    let document = document(&out);
    assert_eq!(document["reason"], "times_misfit");
    assert_eq!(document["utterances"][0]["start_ms"], Value::Null);
    let quality: Value = serde_json::from_slice(&std::fs::read(out.join("quality.json")).unwrap()).unwrap();
    assert!(quality["flags"].as_array().unwrap().contains(&"times_misfit".into()), "{quality}");

    // A model that hears the words finds their places.
    let (_, out) =
        process(&site, "placed", Some(("late.vtt", given)), &["--model", "sample", "--language", "en"]).await;
    let start = document_start(&out);
    assert!(start.is_none_or(|start| start < 14_000), "{start:?}");
}

fn document_start(out: &Path) -> Option<u64> {
    document(out)["utterances"][0]["start_ms"].as_u64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_without_words_says_why_and_what_brings_them() {
    let site = Site::start(Vec::new(), "").await;
    let (said, out) = process(&site, "plain", None, &[]).await;
    let row = said.stdout.lines().find(|line| line.contains("wordless.mp3") && !line.contains("->")).unwrap();
    assert!(row.contains("none: no speech-to-text model; aftercall models list"), "{said:?}");
    for command in ["aftercall models list", "aftercall models pull", "--transcript FILE", "[[engine]]", "no_engine"] {
        assert!(said.stderr.contains(command), "{command}: {said:?}");
    }
    let written = document(&out);
    assert_eq!(written["reason"], "no_engine");
    assert!(written["help"].as_str().unwrap().contains("aftercall models pull"), "{written}");
    let (listed, there) = files(&out);
    assert_eq!(listed, there);
    assert!(!there.contains(&"transcript.vtt".to_owned()), "{there:?}");

    let (said, _) = process(&site, "json", None, &["--json", "--engine", "off"]).await;
    let one = said.json()[0].clone();
    assert_eq!((&one["words"]["count"], &one["words"]["reason"]), (&0.into(), &"no_engine".into()), "{one}");
    assert!(!one["files"].as_array().unwrap().contains(&"transcript.vtt".into()), "{one}");

    // With words there is nothing to say.
    let (said, out) = process(&site, "heard", None, &["--model", "sample"]).await;
    assert!(out.join("transcript.vtt").is_file() && !said.stderr.contains("no words"), "{said:?}");
    assert_eq!(document(&out).get("help"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_and_an_unknown_language_are_other_reasons() {
    let site = Site::start(Vec::new(), "[transcript]\nmodel = \"sample\"\n").await;
    let (said, out) = process(&site, "tongue", None, &[]).await;
    assert_eq!(document(&out)["reason"], "language_unknown");
    assert!(said.stderr.contains("--language en"), "{said:?}");
    let silence = site.place().join("silence.wav");
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::create(&silence, spec).unwrap();
    (0..48_000).for_each(|n| wav.write_sample(((n * 7919) % 5) as i16 - 2).unwrap());
    wav.finalize().unwrap();
    let (silence, out) = (silence.display().to_string(), site.place().join("silent"));
    let said = site.well(&["process", &silence, "--out", &out.display().to_string(), "--language", "en"]).await;
    assert_eq!(document(&out)["reason"], "no_speech");
    assert!(said.stderr.contains("no words (no_speech): nobody speaks") && !said.stderr.contains("models"), "{said:?}");
}
