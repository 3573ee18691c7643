//! Answers with one invalid member still give all words.

use serde_json::Value;
use serde_json::json;

use super::*;

/// Text, start and end of each word, in milliseconds.
fn heard(answer: &Value) -> Vec<(String, Option<u64>, Option<u64>)> {
    heard_bytes(answer.to_string().as_bytes())
}

fn heard_bytes(body: &[u8]) -> Vec<(String, Option<u64>, Option<u64>)> {
    let words = read(body, 12_000).unwrap();
    words.into_iter().map(|word| (word.text, word.start_ms, word.end_ms)).collect()
}

fn texts(answer: &Value) -> String {
    let words: Vec<String> = heard(answer).into_iter().map(|(text, ..)| text).collect();
    words.join(" ")
}

fn word(text: &str, start: f64) -> Value {
    json!({ "word": text, "start": start, "end": start + 0.3 })
}

#[test]
fn a_word_without_times_is_kept_between_its_neighbours() {
    let answer = json!({ "text": "room 504 please",
                         "words": [word("room", 1.0), { "word": "504" }, word("please", 1.8)] });
    let at = |text: &str, start, end| (text.to_owned(), Some(start), Some(end));
    assert_eq!(heard(&answer), [at("room", 1000, 1300), at("504", 1300, 1500), at("please", 1800, 2100)]);
    let nulls = json!({ "words": [null, { "word": "504", "start": null, "end": null }, word("please", 1.8), 7, null] });
    assert_eq!(heard(&nulls), [at("504", 1600, 1800), at("please", 1800, 2100)]);
}

#[test]
fn numbers_as_text_and_numbers_that_are_none_are_read_as_far_as_they_can_be() {
    let body = br#"{"text": "one two three", "duration": "12.0", "words": [
        {"word": "one", "start": "1.0", "end": "1.3"}, {"word": "two", "start": NaN, "end": NaN},
        {"word": 3, "start": 2.0, "end": Infinity}],
        "segments": [{"start": 0, "end": 3, "text": "one two three", "avg_logprob": NaN, "no_speech_prob": "0.1"}]}"#;
    let at = |text: &str, start, end| (text.to_owned(), Some(start), Some(end));
    assert_eq!(heard_bytes(body), [at("one", 1000, 1300), at("two", 1300, 1500), at("3", 2000, 2067)]);
    assert!(read(body, 12_000).unwrap().iter().all(|word| word.confidence.is_none()));
}

#[test]
fn segments_stand_in_for_words_that_are_missing_whole() {
    let segments = json!([
        { "start": 0.0, "end": 1.0, "text": "Good morning." },
        { "start": 5.0, "end": 6.0, "text": "Two seats." },
    ]);
    for words in [json!(null), json!([]), json!([null, {}]), json!("none"), json!({ "0": 1 })] {
        assert_eq!(texts(&json!({ "words": words, "segments": segments })), "Good morning. Two seats.", "{words}");
    }
    // Only the words of the second segment are missing.
    let half = json!({ "words": [word("Good", 0.0), word("morning.", 0.4)], "segments": segments });
    assert_eq!(texts(&half), "Good morning. Two seats.");
    assert_eq!(heard(&half)[2].1, Some(5000));
    let half = json!({ "words": [word("Two", 5.0), word("seats.", 5.4)], "segments": segments });
    assert_eq!(texts(&half), "Good morning. Two seats.");
    // The words are listed without times.
    let there = json!({ "words": [word("Good", 0.0), word("morning.", 0.4), { "word": "Two" }, { "word": "seats." }],
                        "segments": segments });
    assert_eq!(texts(&there), "Good morning. Two seats.");
    let nested = json!({ "segments": [{ "start": 1.0, "end": 2.0, "words": [{ "word": "room" }, { "word": "504", "score": NAN_TEXT }] }] });
    assert_eq!(texts(&nested), "room 504");
    assert_eq!((heard(&nested)[0].1, heard(&nested)[1].2), (Some(1000), Some(2000)));
}

const NAN_TEXT: &str = "NaN";

#[test]
fn segments_without_text_or_times_cost_nothing_beside_them() {
    let answer = json!({ "text": "Good morning", "words": [word("Good", 0.0), word("morning", 0.4)],
                         "segments": [{ "start": 0.0, "end": 1.0 }, { "text": null }, null, { "start": "x", "text": "Hm" }] });
    assert_eq!(texts(&answer), "Good morning");
    let textless = json!({ "text": "Good morning", "segments": [{ "start": 0.0, "end": 1.0 }] });
    assert_eq!(heard(&textless), [("Good".to_owned(), None, None), ("morning".to_owned(), None, None)]);
    let timeless = json!({ "segments": [{ "start": 0.0, "end": 1.0, "text": "Good" }, { "text": "morning" }] });
    assert_eq!(heard(&timeless)[1], ("morning".to_owned(), Some(1000), Some(1467)));
}

#[test]
fn a_loop_that_whisper_marks_as_such_keeps_what_was_heard() {
    let looped = "Please hold the line. ".repeat(12);
    let segment =
        |text: &str| json!({ "start": 0.0, "end": 11.0, "text": text, "avg_logprob": -0.1, "compression_ratio": 9.0 });
    let sure =
        |text: &str| read(json!({ "segments": [segment(text)] }).to_string().as_bytes(), 12_000).unwrap()[0].confidence;
    assert_eq!(sure(&looped), Some(0.905));
    assert_eq!(sure("ha ha hi ho ha hi ha ho ho"), Some(0.0));
}

#[test]
fn what_is_no_transcription_is_refused_and_silence_is_not() {
    for other in [
        json!({ "object": "list", "data": [] }),
        json!({ "error": { "message": "overloaded" } }),
        json!([]),
        json!("hi"),
    ] {
        assert!(read(other.to_string().as_bytes(), 12_000).is_err(), "{other}");
    }
    assert!(heard(&json!({ "text": "" })).is_empty());
    assert!(heard(&json!({ "words": [] })).is_empty());
}

#[test]
fn what_is_billed_is_read_even_beside_words_that_are_not() {
    let billed = |body: &str| billed_ms(body.as_bytes());
    assert_eq!(billed(r#"{"usage": {"seconds": 14}, "words": NaN}"#), Some(14_000));
    assert_eq!(billed(r#"{"usage": {"seconds": "14"}}"#), Some(14_000));
    assert_eq!(billed(r#"{"usage": {"seconds": NaN}}"#), None);
    assert_eq!(billed(r#"{"usage": {"total_tokens": 5}}"#), None);
}
