//! Text forms against the platforms' worked examples: whatever turns a platform gave, its text form to the byte.

use std::fs;
use std::path::Path;

use aftercall::domain::ProviderTurn;
use aftercall::domain::Role;
use aftercall::transcript;
use aftercall::transcript::Form;
use serde_json::Value;

/// A segment of an expected record, as a turn with the times it names.
fn turn(segment: &Value) -> ProviderTurn {
    let at = |key: &str| segment[key].as_f64().map(|seconds| (seconds * 1000.0).round() as u64);
    ProviderTurn {
        role: Role::from_word(segment["speaker"].as_str().unwrap()).unwrap(),
        text: segment["text"].as_str().unwrap().to_owned(),
        start_ms: at("start"),
        end_ms: at("end"),
        words: Vec::new(),
        approximate: segment["approx"].as_bool().unwrap_or(false),
    }
}

fn expected_records() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/contracts");
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let records = files.filter(|path| path.to_string_lossy().ends_with(".expected.json")).flat_map(|path| {
        let records: Vec<Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        records.into_iter().map(move |record| (name.clone(), record))
    });
    records.collect()
}

#[test]
fn every_worked_example_has_its_text_form_and_reads_back() {
    let records = expected_records();
    assert!(records.len() >= 10, "only {} worked examples found", records.len());
    for (file, record) in records {
        let turns: Vec<ProviderTurn> = record["segments"].as_array().unwrap().iter().map(turn).collect();
        let document = transcript::from_turns(&turns, None);
        let text = transcript::text(&document);
        assert_eq!(text.as_deref(), record["transcript_text"].as_str(), "{file}");
        let named = document.speakers.iter().any(|speaker| speaker.role != Role::Unknown);
        assert_eq!(named, record["labelled"].as_bool().unwrap(), "{file}");
        if let Some(text) = text {
            let read = transcript::parse_file(text.as_bytes(), None).unwrap();
            assert_eq!(transcript::text(&read), Some(text), "{file}");
        }
    }
}

#[test]
fn the_document_of_a_call_with_times() {
    let records = expected_records();
    let (_, record) = records.iter().find(|(_, record)| record["source_id"] == "call-fx-1").unwrap();
    let turns: Vec<ProviderTurn> = record["segments"].as_array().unwrap().iter().map(turn).collect();
    let json = transcript::render(&transcript::from_turns(&turns, Some("en")), Form::Json).unwrap();
    insta::assert_snapshot!(json, @r#"
    {
      "schema": "aftercall.transcript/1",
      "language": "en",
      "source": "provider",
      "engine": null,
      "speakers": [
        {
          "id": 0,
          "role": "agent",
          "confidence": null,
          "evidence": "provider"
        },
        {
          "id": 1,
          "role": "caller",
          "confidence": null,
          "evidence": "provider"
        }
      ],
      "turns": [
        {
          "speaker": 0,
          "start_ms": 700,
          "end_ms": 1200
        },
        {
          "speaker": 1,
          "start_ms": 1600,
          "end_ms": 1900
        }
      ],
      "utterances": [
        {
          "speaker": 0,
          "start_ms": 700,
          "end_ms": 1200,
          "text": "hi there",
          "confidence": null,
          "heard": null,
          "words": []
        },
        {
          "speaker": 1,
          "start_ms": 1600,
          "end_ms": 1900,
          "text": "hello",
          "confidence": null,
          "heard": null,
          "words": []
        }
      ],
      "redacted": false
    }
    "#);
}
