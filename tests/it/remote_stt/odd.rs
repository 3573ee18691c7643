//! Answers that are not quite what a service's document says: the words are kept, and what was paid is booked.

use aftercall::domain::Outcome;
use aftercall::transcript::APPROXIMATE_TIMES;
use serde_json::{Value, json};

use super::*;

/// The call, processed with a service that answers so; its text, the ledger, and how often it was asked.
async fn answered(
    kind: &str,
    answer: impl Fn(&SttRequest) -> Value + Send + Sync + 'static,
) -> (String, (i64, i64, i64)) {
    let service = Service::start(answer).await;
    let more = "price_per_minute = 6.0\n";
    let fixture = app(Backend::Sqlite, &service, kind, ORG, more, recordings::wordless()).await;
    let record = run(&fixture).await;
    assert_eq!((record.outcome, record.outcome_reason.as_deref()), (Some(Outcome::Done), None));
    assert_eq!(service.asked().len(), 1);
    (transcript(&fixture, &record).await.0, ledger(&fixture).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_odd_member_costs_no_words_and_the_answer_is_booked() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 8] = [
        ("a word without times", |answer| {
            let word = answer["words"][1].as_object_mut().unwrap();
            word.remove("start");
            word.remove("end");
        }),
        ("a word with null times", |answer| {
            answer["words"][2]["start"] = Value::Null;
            answer["words"][2]["end"] = Value::Null;
        }),
        ("numbers as text", |answer| {
            for word in answer["words"].as_array_mut().unwrap() {
                word["start"] = json!(word["start"].to_string());
                word["end"] = json!(word["end"].to_string());
            }
            answer["usage"]["seconds"] = json!(answer["usage"]["seconds"].to_string());
        }),
        ("null words", |answer| answer["words"].as_array_mut().unwrap().insert(1, Value::Null)),
        ("no words at all", |answer| answer["words"] = Value::Null),
        ("segments without text", |answer| answer["segments"] = json!([{ "start": 0.0, "end": 14.0 }, null])),
        ("figures of another kind", |answer| {
            answer["segments"][0]["avg_logprob"] = json!("NaN");
            answer["segments"][0]["no_speech_prob"] = json!([]);
        }),
        ("text alone", |answer| {
            answer["words"] = json!([]);
            answer["segments"] = json!([]);
        }),
    ];
    for (name, change) in changes {
        let (text, (billed, cost, _)) = answered("openai", move |asked| {
            let mut answer = verbose(asked, TEXT);
            change(&mut answer);
            answer
        })
        .await;
        assert!(text.ends_with(TEXT), "{name}: {text}");
        assert!((5_000..15_000).contains(&billed) && cost == billed * 100, "{name}: {billed} {cost}");
    }
    let (text, (billed, cost, _)) = answered("deepgram", |asked| {
        let mut answer = listened(asked, &[(0, 0, 0.4, TEXT)]);
        let word = answer["results"]["utterances"][0]["words"][1].as_object_mut().unwrap();
        word.remove("start");
        word.insert("confidence".to_owned(), json!("high"));
        answer["results"]["channels"] = Value::Null;
        answer
    })
    .await;
    assert!(text.ends_with(TEXT), "{text}");
    assert!(billed > 5_000 && cost == billed * 100, "{billed} {cost}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_are_none_do_not_spoil_an_answer() {
    let service = Service::start(says(TEXT)).await;
    let body = r#"{"text": "Thank you for calling.", "words": [
        {"word": "Thank", "start": 0.4, "end": 0.6}, {"word": "you", "start": NaN, "end": NaN},
        {"word": "for", "start": 1.0, "end": Infinity}, {"word": "calling.", "start": 1.3, "end": 1.6, "p": 1e999}],
        "segments": [{"start": 0.0, "end": 2.0, "text": "Thank you for calling.", "avg_logprob": -Infinity}],
        "usage": {"seconds": 14}}"#;
    service.trouble(move |_| Some(Trouble::Body(body)));
    let more = "price_per_minute = 6.0\n";
    let fixture = app(Backend::Sqlite, &service, "openai", ORG, more, recordings::wordless()).await;
    let record = run(&fixture).await;
    let (text, document) = transcript(&fixture, &record).await;
    assert!(text.ends_with(TEXT), "{text}");
    assert_eq!(document.reason, None);
    assert_eq!(ledger(&fixture).await, (14_000, 1_400_000, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_without_any_times_lie_on_the_speech_and_say_so() {
    let service =
        Service::start(|_: &SttRequest| json!({ "text": "Thank you for calling.", "usage": { "seconds": 14 } })).await;
    let fixture = app(Backend::Sqlite, &service, "openai", ORG, "", recordings::wordless()).await;
    let record = run(&fixture).await;
    let (text, document) = transcript(&fixture, &record).await;
    assert!(text.ends_with(TEXT), "{text}");
    assert_eq!(document.reason.as_deref(), Some(APPROXIMATE_TIMES));
    let ends = document.utterances.iter().filter_map(|utterance| utterance.end_ms).max();
    assert!(ends.is_some_and(|end| end <= 15_000), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_cannot_be_read_is_paid_for_all_the_same() {
    for trouble in [Trouble::OtherJson, Trouble::Body("<html>busy</html>")] {
        let service = Service::start(says(TEXT)).await;
        let first = trouble.clone();
        service.trouble(move |number| (number == 1).then(|| first.clone()));
        let more = "price_per_minute = 6.0\n";
        let fixture = app(Backend::Sqlite, &service, "openai", ORG, more, recordings::wordless()).await;
        run(&fixture).await;
        let (billed, cost, _) = ledger(&fixture).await;
        assert!(billed > 5_000 && cost == billed * 100, "{trouble:?}: {billed} {cost}");
        fixture.advance(Duration::from_secs(400)).await;
        fixture.run_pending().await;
        assert_eq!(service.asked().len(), 1, "{trouble:?}");
        // Asked again after all, it is paid again, and booked again.
        assert_eq!(fixture.record(API, ID).await.outcome, Some(Outcome::NoEngine), "{trouble:?}");
        fixture.trigger_again(API, ID).await;
        fixture.run_pending().await;
        assert_eq!(fixture.record(API, ID).await.outcome, Some(Outcome::Done), "{trouble:?}");
        assert_eq!(service.asked().len(), 2, "{trouble:?}");
        assert!(ledger(&fixture).await.0 > billed + 5_000, "{trouble:?}");
    }
}

/// Half an answer is asked for again at once, and both answers are paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_an_answer_is_booked_beside_the_whole_one() {
    let mut booked = Vec::new();
    for requests in [1, 2] {
        let service = Service::start(says(TEXT)).await;
        service.trouble(move |number| (number < requests).then_some(Trouble::HalfJson));
        let fixture = app(Backend::Sqlite, &service, "openai", ORG, "price_per_minute = 6.0\n", recordings::wordless());
        let fixture = fixture.await;
        run(&fixture).await;
        fixture.advance(Duration::from_secs(400)).await;
        fixture.run_pending().await;
        assert_eq!(fixture.record(API, ID).await.outcome, Some(Outcome::Done));
        assert_eq!(service.asked().len(), requests);
        booked.push(ledger(&fixture).await.0);
    }
    // The half answer does not tell its length: the length that was sent counts.
    assert!(booked[0] > 5_000 && booked[1] > booked[0] + 5_000, "{booked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentence_said_over_and_over_is_said_once() {
    let looped = |asked: &SttRequest| {
        let sentence = "Two seats for the evening show please. ".repeat(12);
        let text = format!("Thank you for calling. {sentence}Two seats for the evening");
        let mut answer = verbose(asked, &text);
        for (n, word) in answer["words"].as_array_mut().unwrap().iter_mut().enumerate() {
            let start = 0.4 + n as f64 * 0.12;
            (word["start"], word["end"]) = (json!(start), json!(start + 0.1));
        }
        answer["segments"][0]["compression_ratio"] = json!(9.5);
        answer
    };
    let (text, _) = answered("openai", looped).await;
    let said: Vec<&str> = text.lines().map(|line| line.rsplit("]: ").next().unwrap()).collect();
    assert_eq!(said.join(" "), "Thank you for calling. Two seats for the evening show please.", "{text}");
}
