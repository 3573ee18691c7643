//! Speech-to-text services on other machines: asked as their documents say and only for whom the configuration names,
//! whatever they do the call keeps the rest of its artifacts, and no second of audio is paid for twice.

mod odd;
mod service;

use std::time::Duration;

use aftercall::demo::{Api, SampleAudio, SampleCall, SampleText, recordings};
use aftercall::domain::{Container, Outcome};
use aftercall::queue::JobState;
use aftercall::store::{By, CallRecord};
use aftercall::transcript::engine::sample_sentence;
use jiff::{SignedDuration, Timestamp};

use self::service::{KEY, Service, SttRequest, Trouble, diarized, listened, verbose};
use crate::harness::{Backend, Fixture, Plan, TestApp, on_every_backend};

on_every_backend!(what_was_paid_for_is_kept_and_entered_once);

const API: Api = Api::KrosaiCockpit;
const ID: &str = "0b0f6c0e-0000-4000-9000-000000000001";
/// The sample platform's organisation of this API.
const ORG: &str = "0b0f6c0e-0000-4000-8000-0000000000ff";
const TEXT: &str = "Thank you for calling.";

fn call(audio: SampleAudio) -> impl FnOnce(Timestamp) -> Vec<SampleCall> {
    move |now| {
        let mut call = SampleCall::numbered(API, 1, now - SignedDuration::from_mins(5));
        assert_eq!(call.id, ID);
        (call.audio, call.text, call.duration_ms) = (Some(audio), SampleText::None, 14_000);
        call.turns = std::sync::Arc::from([]);
        vec![call]
    }
}

/// An app that may send the calls of this organisation to the service.
async fn app(
    backend: Backend,
    service: &Service,
    kind: &str,
    organization: &str,
    more: &str,
    audio: SampleAudio,
) -> Fixture {
    let settings = format!(
        "[[engine]]\nname = \"fake\"\nkind = \"{kind}\"\nbase_url = \"{}\"\nmodel = \"m-1\"\napi_key = \"{KEY}\"\n\
         organizations = [\"{organization}\"]\ntimeout = \"5s\"\n{more}",
        service.base_url
    );
    let plan = Plan { settings: Box::leak(settings.into_boxed_str()), ..Plan::default() };
    Fixture::planned(backend, plan, call(audio)).await
}

async fn run(fixture: &Fixture) -> CallRecord {
    fixture.trigger(API, ID).await;
    fixture.run_pending().await;
    fixture.record(API, ID).await
}

fn says(text: &'static str) -> impl Fn(&SttRequest) -> serde_json::Value + Send + Sync {
    move |asked| verbose(asked, text)
}

/// The written form and the document.
async fn transcript(fixture: &Fixture, record: &CallRecord) -> (String, aftercall::domain::Transcript) {
    let stored = fixture.store.transcripts(record.uid).await.unwrap().pop().unwrap();
    (stored.text, stored.transcript)
}

/// Milliseconds billed, and millionths that cost, as the ledger has them; and its attempts.
async fn ledger(app: &TestApp) -> (i64, i64, i64) {
    let day = SignedDuration::from_hours(72);
    let sums = app.store.ledger(By::Source, (app.now() - day, app.now() + day)).await.unwrap();
    (sums[0].billed_ms, sums[0].cost_micros, sums[0].attempts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_openai_compatible_service_is_asked_as_its_document_says() {
    let service = Service::start(says(TEXT)).await;
    let more = "price_per_minute = 6.0\n";
    let fixture = app(Backend::Sqlite, &service, "openai", ORG, more, recordings::wordless()).await;
    let record = run(&fixture).await;
    assert_eq!((record.outcome, record.outcome_reason.as_deref()), (Some(Outcome::Done), None));
    let (text, document) = transcript(&fixture, &record).await;
    assert!(text.ends_with(TEXT), "{text}");
    let engine = document.engine.unwrap();
    assert_eq!((engine.name.as_str(), engine.model.as_deref()), ("fake", Some("m-1")));
    let asked = service.asked();
    let [SttRequest { uri, headers, body, channels: 1, .. }] = asked.as_slice() else { panic!("{}", asked.len()) };
    assert_eq!(uri, "/v1/audio/transcriptions");
    assert_eq!(headers["authorization"], format!("Bearer {KEY}").as_str());
    assert!(headers["content-type"].to_str().unwrap().starts_with("multipart/form-data; boundary="));
    let sent = String::from_utf8_lossy(body);
    for part in [
        "name=\"model\"\r\n\r\nm-1\r\n",
        "name=\"language\"\r\n\r\nen\r\n",
        "name=\"response_format\"\r\n\r\nverbose_json\r\n",
        "name=\"timestamp_granularities[]\"\r\n\r\nword\r\n",
        "name=\"file\"; filename=\"call.flac\"\r\ncontent-type: audio/flac\r\n\r\nfLaC",
    ] {
        assert!(sent.contains(part), "{part}");
    }
    assert!(!sent.contains("name=\"prompt\""));
    // Whole seconds, as the answer says.
    let seconds = asked[0].milliseconds.div_ceil(1000) as i64;
    assert_eq!(ledger(&fixture).await, (seconds * 1000, seconds * 100_000, 1));
    let by_engine = fixture.store.ledger(By::Engine, (Timestamp::UNIX_EPOCH, Timestamp::MAX)).await.unwrap();
    assert_eq!((by_engine[0].of.as_deref(), by_engine[0].priced, by_engine[0].free), (Some("fake"), 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speakers_of_diarized_answers_are_diarized_and_have_no_roles() {
    let said =
        |_: &SttRequest| diarized(&[("B", 0.4, 1.6, "Thank you for calling."), ("A", 5.5, 6.7, "Two seats please.")]);
    let service = Service::start(said).await;
    let more = "response_format = \"diarized_json\"\n";
    let fixture = app(Backend::Sqlite, &service, "openai", ORG, more, recordings::wordless()).await;
    let record = run(&fixture).await;
    let (text, document) = transcript(&fixture, &record).await;
    assert_eq!(text, "[Speaker 1]: Thank you for calling.\n[Speaker 2]: Two seats please.");
    assert!(document.utterances.iter().all(|utterance| utterance.confidence.is_none()));
    assert_eq!(document.turns.len(), 2);
    let sent = String::from_utf8_lossy(&service.asked()[0].body).into_owned();
    assert!(sent.contains("\r\n\r\ndiarized_json\r\n") && sent.contains("name=\"chunking_strategy\"\r\n\r\nauto\r\n"));
    assert!(!sent.contains("timestamp_granularities"));
    // Nobody named a price.
    let sums = fixture.store.ledger(By::Engine, (Timestamp::UNIX_EPOCH, Timestamp::MAX)).await.unwrap();
    assert_eq!((sums[0].unpriced, sums[0].priced, sums[0].billed_ms), (1, 0, 14_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deepgram_is_asked_as_its_document_says() {
    let mono = |asked: &SttRequest| listened(asked, &[(0, 1, 0.4, "Thank you."), (0, 0, 5.5, "Two seats.")]);
    let service = Service::start(mono).await;
    let fixture = app(Backend::Sqlite, &service, "deepgram", ORG, "", recordings::wordless()).await;
    let record = run(&fixture).await;
    assert_eq!(transcript(&fixture, &record).await.0, "[Speaker 1]: Thank you.\n[Speaker 2]: Two seats.");
    let asked = &service.asked()[0];
    for parameter in ["model=m-1", "language=en", "diarize=true", "utterances=true", "punctuate=true"] {
        assert!(asked.uri.starts_with("/v1/listen?") && asked.uri.contains(parameter), "{parameter}: {}", asked.uri);
    }
    assert!(!asked.uri.contains("multichannel"));
    assert_eq!(asked.headers["authorization"], format!("Token {KEY}").as_str());
    assert_eq!(asked.headers["content-type"], "audio/flac");

    // Both legs at once; each channel is somebody, and each is billed.
    let stereo = |asked: &SttRequest| listened(asked, &[(0, 0, 6.5, "My son."), (1, 0, 0.4, "Riverside Clinic.")]);
    let service = Service::start(stereo).await;
    let fixture = app(Backend::Sqlite, &service, "deepgram", ORG, "", recordings::clinic_dual()).await;
    let record = run(&fixture).await;
    let (text, document) = transcript(&fixture, &record).await;
    assert!(text.contains("Riverside Clinic.") && text.contains("My son."), "{text}");
    assert_ne!(document.utterances[0].speaker, document.utterances[1].speaker);
    let all = service.asked();
    let [asked] = all.as_slice() else { panic!("{}", all.len()) };
    assert_eq!(asked.channels, 2);
    assert!(asked.uri.contains("multichannel=true") && !asked.uri.contains("diarize"));
    assert_eq!(ledger(&fixture).await.0 as u64, 2 * asked.milliseconds);
    assert_eq!(service.billed_ms(), 2 * asked.milliseconds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_misbehaviour_is_the_right_fault_and_the_call_goes_on() {
    // (what the first answer is, how often it is asked in all, how the call ends).
    let quota = "{\"error\": {\"code\": \"insufficient_quota\"}}";
    let done = (Outcome::Done, None);
    let ends = |reason| (Outcome::NoEngine, Some(reason));
    for (trouble, times, (outcome, reason)) in [
        (Trouble::RetryAfter(429, "700"), 2, done),
        (Trouble::RetryAfter(503, "700"), 2, done),
        (Trouble::Status(500, "oops"), 2, done),
        (Trouble::Cut, 2, done),
        (Trouble::HalfJson, 2, done),
        (Trouble::Slow, 2, done),
        (Trouble::Status(401, ""), 1, ends("key_refused")),
        (Trouble::Status(402, "pay"), 1, ends("key_refused")),
        (Trouble::Status(429, quota), 1, ends("key_refused")),
        (Trouble::Status(400, "unsupported format"), 1, ends("engine_failed")),
        (Trouble::OtherJson, 1, ends("engine_failed")),
    ] {
        let service = Service::start(says(TEXT)).await;
        let first = trouble.clone();
        service.trouble(move |number| (number == 1).then(|| first.clone()));
        let fixture = app(Backend::Sqlite, &service, "openai", ORG, "", recordings::wordless()).await;
        run(&fixture).await;
        if let Trouble::RetryAfter(..) = trouble {
            let failure = fixture.jobs().await[0].failure.clone().unwrap();
            assert_eq!((failure.fault.as_str(), failure.side.as_str()), ("throttled", "engine"), "{trouble:?}");
            fixture.advance(Duration::from_secs(500)).await;
            fixture.run_pending().await;
            assert_eq!(service.asked().len(), 1, "{trouble:?}: asked during the pause");
        }
        fixture.advance(Duration::from_secs(400)).await;
        fixture.run_pending().await;
        let record = fixture.record(API, ID).await;
        assert_eq!((record.outcome, record.outcome_reason.as_deref()), (Some(outcome), reason), "{trouble:?}");
        assert_eq!(service.asked().len(), times, "{trouble:?}");
        // Whatever became of the words, the rest is there, and no key stands in a failure.
        assert!(record.original.is_some() && record.quality.is_some() && record.artifacts.len() >= 4, "{trouble:?}");
        let jobs = fixture.jobs().await;
        assert!(jobs.iter().all(|job| job.state == JobState::Completed), "{trouble:?}: {jobs:?}");
        assert!(!format!("{jobs:?}").contains("canary"));
        if outcome == Outcome::NoEngine {
            // Mended, and made up for.
            fixture.trigger_again(API, ID).await;
            fixture.run_pending().await;
            assert_eq!(fixture.record(API, ID).await.outcome, Some(Outcome::Done), "{trouble:?}");
        }
    }
}

/// Two legs are two parts. The second one fails for longer than anybody waits; its worker is gone; the call ends without
/// words and is made up for: the first part is never sent again.
async fn what_was_paid_for_is_kept_and_entered_once(backend: Backend) {
    let service = Service::start(says(TEXT)).await;
    service.trouble(|number| match number {
        1 => None,
        2 => Some(Trouble::RetryAfter(503, "700")),
        _ => Some(Trouble::Status(503, "down")),
    });
    let more = "price_per_minute = 6.0\n";
    let fixture = app(backend, &service, "openai", ORG, more, recordings::clinic_dual()).await;
    run(&fixture).await;
    let first = service.billed_ms().div_ceil(1000) as i64 * 1000;
    assert_eq!((service.asked().len(), ledger(&fixture).await.0), (2, first), "entered before the call is done");
    // Another process goes on, with an empty spool, until its attempts are used up.
    let other = fixture.app.again().await;
    other.advance(Duration::from_secs(800)).await;
    other.run_pending().await;
    let record = fixture.record(API, ID).await;
    assert_eq!((record.outcome, record.outcome_reason.as_deref()), (Some(Outcome::NoEngine), Some("engine_failed")));
    assert_eq!(ledger(&fixture).await.0, first);
    let before = service.asked().len();
    assert!(before > 2, "{before}");
    service.trouble(|_| None);
    fixture.trigger_again(API, ID).await;
    fixture.run_pending().await;
    let record = fixture.record(API, ID).await;
    assert_eq!(record.outcome, Some(Outcome::Done));
    assert_eq!(service.asked().len(), before + 1, "only the part that failed is asked for");
    let (billed, cost, _) = ledger(&fixture).await;
    let at_the_service = service.billed_ms() as i64;
    assert!((at_the_service..at_the_service + 2_000).contains(&billed), "{billed} {at_the_service}");
    assert_eq!(cost, billed * 100);
    assert!(record.progress.is_none());
    let (text, _) = transcript(&fixture, &record).await;
    assert_eq!(text.matches(TEXT).count(), 2, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voices_leave_the_house_only_by_decision() {
    let cases = [
        // Another organisation, another source, only this machine, nothing at all.
        ("org-of-somebody-else", "", ""),
        (ORG, "sources = [\"zudu\"]\n", ""),
        (ORG, "", "[transcript]\nengine = \"embedded\"\n"),
        (ORG, "", "[transcript]\nengine = \"off\"\n"),
    ];
    for (organization, more, transcript) in cases {
        let service = Service::start(says(TEXT)).await;
        let more = format!("{more}{transcript}");
        let fixture = app(Backend::Sqlite, &service, "openai", organization, &more, recordings::wordless()).await;
        let record = run(&fixture).await;
        assert_eq!((record.outcome, service.asked().len()), (Some(Outcome::NoEngine), 0), "{organization} {more}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_budget_only_the_words_are_left_out() {
    let service = Service::start(says(TEXT)).await;
    let more = "price_per_minute = 6.0\n[transcript]\nbudget = 1.0\n";
    let fixture = app(Backend::Sqlite, &service, "openai", ORG, more, recordings::wordless()).await;
    let record = run(&fixture).await;
    assert_eq!((record.outcome, record.outcome_reason.as_deref()), (Some(Outcome::NoEngine), Some("over_budget")));
    assert_eq!(service.asked().len(), 0);
    assert!(record.original.is_some() && record.quality.is_some() && record.artifacts.len() >= 4);

    // Enough for one call of 14 s, not for two; a window later again.
    let more = "price_per_minute = 6.0\n[transcript]\nbudget = 2.0\nbudget_window = \"1h\"\n";
    let fixture = app(Backend::Sqlite, &service, "openai", ORG, more, recordings::wordless()).await;
    assert_eq!(run(&fixture).await.outcome, Some(Outcome::Done));
    for (again, asked) in [(Duration::from_secs(60), 1), (Duration::from_secs(3600), 2)] {
        fixture.advance(again).await;
        fixture.trigger_again(API, ID).await;
        fixture.run_pending().await;
        assert_eq!(service.asked().len(), asked);
        // What is there is not given up for less.
        assert_eq!(fixture.record(API, ID).await.outcome, Some(Outcome::Done));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_service_makes_up_is_left_out() {
    let made_up = |asked: &SttRequest| {
        let mut answer = verbose(asked, "Thank you for calling.");
        let more = "subscribe subscribe subscribe subscribe subscribe subscribe subscribe subscribe subscribe";
        let words = answer["words"].as_array_mut().unwrap();
        words.extend(more.split(' ').enumerate().map(|(n, word)| {
            let start = 2.0 + n as f64 * 0.1;
            serde_json::json!({ "word": word, "start": start, "end": start + 0.1 })
        }));
        // Long after the last sound.
        words.push(serde_json::json!({ "word": "Amen.", "start": 400.0, "end": 401.0 }));
        answer
    };
    let service = Service::start(made_up).await;
    let fixture = app(Backend::Sqlite, &service, "openai", ORG, "", recordings::wordless()).await;
    let record = run(&fixture).await;
    let (text, document) = transcript(&fixture, &record).await;
    assert!(text.contains("Thank you for calling.") && !text.contains("Amen"), "{text}");
    assert_eq!(text.matches("subscribe").count(), 1, "{text}");
    assert_eq!(document.engine.unwrap().parameters["words_taken_out"], 9);
}

/// 26 MB as it was recorded: eight channels that carry the same sentence again and again.
fn large() -> SampleAudio {
    const CHANNELS: u16 = 8;
    let (sentence, _) = sample_sentence();
    let seconds = 34;
    let samples = sentence.iter().cycle().take(16_000 * seconds);
    let frame = |sample: &f32| ((sample * 32_767.0) as i16).to_le_bytes().repeat(3 * usize::from(CHANNELS));
    let data: Vec<u8> = samples.flat_map(frame).collect();
    let mut wav = Vec::with_capacity(data.len() + 44);
    wav.extend(b"RIFF");
    wav.extend((data.len() as u32 + 36).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16u32.to_le_bytes());
    wav.extend([1, CHANNELS].map(u16::to_le_bytes).concat());
    wav.extend([48_000u32, 48_000 * 2 * u32::from(CHANNELS)].map(u32::to_le_bytes).concat());
    wav.extend([2 * CHANNELS, 16].map(u16::to_le_bytes).concat());
    wav.extend(b"data");
    wav.extend((data.len() as u32).to_le_bytes());
    wav.extend(data);
    SampleAudio { bytes: wav.into(), container: Container::Wav }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_of_26_mb_is_sent_as_what_a_service_takes() {
    let audio = large();
    assert!(audio.bytes.len() > 26_000_000);
    let service = Service::start(says(TEXT)).await;
    let fixture = app(Backend::Sqlite, &service, "openai", ORG, "", audio).await;
    let record = run(&fixture).await;
    assert_eq!(record.outcome, Some(Outcome::Done), "{:?}", record.outcome_reason);
    let asked = service.asked();
    assert!(asked.iter().all(|asked| asked.body.len() < 2_000_000));
    assert!(asked.iter().map(|asked| asked.milliseconds).sum::<u64>() > 30_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_tried_without_cost() {
    let service = Service::start(says(TEXT)).await;
    let fixture = app(Backend::Sqlite, &service, "openai", ORG, "", recordings::wordless()).await;
    fixture.remote_stt[0].remote.check().await.unwrap();
    let fixture = app(Backend::Sqlite, &service, "deepgram", ORG, "", recordings::wordless()).await;
    fixture.remote_stt[0].remote.check().await.unwrap();
    let mut settings = fixture.remote_stt[0].remote.settings().clone();
    settings.api_key = Some("another".to_owned().into());
    let remote = aftercall::transcript::remote::Remote::new(settings, reqwest::Client::new());
    assert!(remote.check().await.unwrap_err().to_string().contains("does not accept the key"));
    assert_eq!(service.asked().len(), 0);
}
