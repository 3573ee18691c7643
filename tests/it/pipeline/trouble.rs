//! A platform and a recording host that misbehave: the call ends done, or with a reason that says what was wrong.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aftercall::demo::{Api, FaultAnswer, RequestKind, SampleCall, recordings};
use aftercall::domain::{Outcome, Side, Stage};
use aftercall::queue::JobState;
use jiff::SignedDuration;

use super::{done, objects, short};
use crate::harness::{Backend, Fixture, Plan, on_every_backend};

on_every_backend!(
    an_expired_link_is_refreshed_once,
    an_asked_pause_is_kept_and_costs_no_attempt,
    a_page_instead_of_audio_is_not_a_recording,
    an_incident_at_the_host_does_not_end_an_old_call,
    a_broken_transfer_is_continued,
    a_storm_of_server_errors_passes,
    a_later_failure_never_costs_a_second_download,
    a_recording_at_a_forbidden_address_is_refused,
    a_recording_url_that_leads_nowhere_is_refused_with_its_reason,
    an_oversized_recording_is_refused,
);

const ID: &str = "call_000001";

async fn one_call(backend: Backend) -> Fixture {
    Fixture::start(backend, |now| vec![short(Api::KrosaiV1, 1, now)]).await
}

async fn an_expired_link_is_refreshed_once(backend: Backend) {
    let fixture = one_call(backend).await;
    fixture
        .platform
        .set_faults(|asked| (asked.kind == RequestKind::Recording && asked.nth == 1).then(|| FaultAnswer::status(403)));
    fixture.trigger(Api::KrosaiV1, ID).await;
    fixture.run_pending().await;
    done(&fixture, &fixture.record(Api::KrosaiV1, ID).await).await;
    assert_eq!(fixture.asked(RequestKind::Recording, ID), 2);
    assert!(fixture.jobs().await.iter().all(|job| job.attempt == 1), "a link that expired is no failure");

    // A host that refuses every link ends it, after the grace, as what it is.
    let fixture = one_call(backend).await;
    fixture.platform.set_faults(|asked| (asked.kind == RequestKind::Recording).then(|| FaultAnswer::status(410)));
    fixture.trigger(Api::KrosaiV1, ID).await;
    fixture.run_pending().await;
    let record = fixture.record(Api::KrosaiV1, ID).await;
    assert_eq!(record.outcome, Some(Outcome::SourceExpired));
}

async fn an_asked_pause_is_kept_and_costs_no_attempt(backend: Backend) {
    let fixture = one_call(backend).await;
    let asked_at: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let seen = asked_at.clone();
    fixture.platform.set_faults(move |asked| {
        if asked.kind != RequestKind::Detail {
            return None;
        }
        seen.lock().unwrap().push(Instant::now());
        (asked.nth == 1).then(|| FaultAnswer::throttled(Api::KrosaiV1, 1.5))
    });
    fixture.trigger(Api::KrosaiV1, ID).await;
    fixture.run_pending().await;
    done(&fixture, &fixture.record(Api::KrosaiV1, ID).await).await;
    let pause = {
        let asked_at = asked_at.lock().unwrap();
        asked_at[1] - asked_at[0]
    };
    assert!(pause >= Duration::from_millis(1500), "asked again after {pause:?}");
    assert!(fixture.jobs().await.iter().all(|job| job.attempt == 1));
}

async fn a_page_instead_of_audio_is_not_a_recording(backend: Backend) {
    let fixture = one_call(backend).await;
    fixture.platform.set_faults(|asked| (asked.kind == RequestKind::Recording).then_some(FaultAnswer::Html));
    fixture.trigger(Api::KrosaiV1, ID).await;
    fixture.run_pending().await;
    let record = fixture.record(Api::KrosaiV1, ID).await;
    assert_eq!(record.outcome, Some(Outcome::NotARecording));
    assert!(record.outcome_reason.is_some());
    assert!(fixture.asked(RequestKind::Recording, ID) >= 3, "one page is no proof");
    // The words that came with the call are kept, the page is not.
    let names: Vec<&str> = record.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    assert!(!names.iter().any(|name| name.starts_with("original")), "{names:?}");
    // Nothing at all is no recording either.
    let fixture = one_call(backend).await;
    fixture.platform.set_faults(|asked| (asked.kind == RequestKind::Recording).then_some(FaultAnswer::Empty));
    fixture.trigger(Api::KrosaiV1, ID).await;
    fixture.run_pending().await;
    assert_eq!(fixture.record(Api::KrosaiV1, ID).await.outcome, Some(Outcome::NoRecording));
}

async fn an_incident_at_the_host_does_not_end_an_old_call(backend: Backend) {
    // The grace has passed before the first look, as in any backlog.
    let fixture = Fixture::start(backend, |now| {
        vec![SampleCall { ended_at: now - SignedDuration::from_hours(30), ..short(Api::KrosaiV1, 1, now) }]
    })
    .await;
    fixture.platform.set_faults(|asked| match (asked.kind, asked.nth) {
        (RequestKind::Recording, 1) => Some(FaultAnswer::Html),
        (RequestKind::Recording, 2) => Some(FaultAnswer::Empty),
        _ => None,
    });
    fixture.trigger(Api::KrosaiV1, ID).await;
    fixture.advance(Duration::from_secs(3600)).await;
    fixture.run_pending().await;
    done(&fixture, &fixture.record(Api::KrosaiV1, ID).await).await;
    assert_eq!(fixture.asked(RequestKind::Recording, ID), 3);
}

async fn a_broken_transfer_is_continued(backend: Backend) {
    let fixture = one_call(backend).await;
    fixture.platform.set_faults(|asked| {
        (asked.kind == RequestKind::Recording && asked.nth == 1).then_some(FaultAnswer::ResetAfter(2000))
    });
    fixture.trigger(Api::KrosaiV1, ID).await;
    fixture.run_pending().await;
    let record = fixture.record(Api::KrosaiV1, ID).await;
    done(&fixture, &record).await;
    let original = fixture.objects.get(&record.original.unwrap()).await.unwrap();
    assert_eq!(original, recordings::tiny().bytes, "the pieces do not make the whole");
}

async fn a_storm_of_server_errors_passes(backend: Backend) {
    let fixture = one_call(backend).await;
    fixture.platform.set_faults(|asked| match (asked.kind, asked.nth) {
        (RequestKind::Detail, 1) => Some(FaultAnswer::status(503)),
        (RequestKind::Detail | RequestKind::Recording, 2) => Some(FaultAnswer::Drop),
        (RequestKind::RecordingLink, 1) => Some(FaultAnswer::status(500)),
        (RequestKind::Recording, 1) => Some(FaultAnswer::status(502)),
        _ => None,
    });
    fixture.trigger(Api::KrosaiV1, ID).await;
    // The pauses between attempts grow: turn the clock instead of waiting.
    for _ in 0..6 {
        fixture.run_pending().await;
        fixture.advance(Duration::from_secs(600)).await;
    }
    done(&fixture, &fixture.record(Api::KrosaiV1, ID).await).await;
}

async fn a_later_failure_never_costs_a_second_download(backend: Backend) {
    let fixture = one_call(backend).await;
    let triggered = fixture.trigger(Api::KrosaiV1, ID).await;
    // Something is in the way of the normalised audio.
    let in_the_way = fixture.spool_of(triggered.id).join("audio.flac");
    std::fs::create_dir_all(in_the_way.join("x")).unwrap();
    for _ in 0..5 {
        fixture.run_pending().await;
        fixture.advance(Duration::from_secs(600)).await;
    }
    let job = triggered.job_id.unwrap();
    let dead = fixture.job(job).await;
    assert_eq!((dead.state, dead.attempt), (JobState::DeadLetter, 4));
    let failure = dead.failure.unwrap();
    assert_eq!((failure.stage, failure.side), (Some(Stage::Audio), Side::Worker), "{failure:?}");
    let record = fixture.record(Api::KrosaiV1, ID).await;
    assert!(record.original.is_some(), "the original was not secured first");

    std::fs::remove_dir_all(&in_the_way).unwrap();
    // A dead letter whose cause may have passed is taken up.
    let balance = fixture.reconcile(Api::KrosaiV1).await;
    assert_eq!((balance.completed, balance.running, balance.dead_letters), (1, 1, 0), "{balance:?}");
    assert!(balance.terminal.is_empty(), "{balance:?}");
    fixture.run_pending().await;
    done(&fixture, &fixture.record(Api::KrosaiV1, ID).await).await;
    assert_eq!(fixture.asked(RequestKind::Recording, ID), 1);
}

async fn a_recording_url_that_leads_nowhere_is_refused_with_its_reason(backend: Backend) {
    let urls = ["file:///srv/s3cret.wav", "not a s3cret", "https://user:s3cret@storage.test/a.mp3"];
    let mut calls = Vec::new();
    let fixture = Fixture::start(backend, |now| {
        let told = |(api, url): (Api, &str)| SampleCall { recording_url: Some(url.to_owned()), ..short(api, 1, now) };
        calls = [Api::KrosaiV1, Api::Zudu, Api::Atoms].into_iter().zip(urls).map(told).collect();
        calls.clone()
    })
    .await;
    for (call, reason) in calls.iter().zip(["http or https", "not an absolute URL", "credentials"]) {
        let (api, id) = (call.api, call.id.clone());
        fixture.trigger(api, &id).await;
        fixture.run_pending().await;
        let record = fixture.record(api, &id).await;
        assert_eq!(record.outcome, Some(Outcome::RefusedUrl), "{api:?}: {:?}", record.outcome_reason);
        let said = record.outcome_reason.unwrap();
        assert!(said.contains(reason) && !said.contains("s3cret"), "{said}");
        assert_eq!(fixture.asked(RequestKind::Recording, &id), 0);
    }
}

async fn a_recording_at_a_forbidden_address_is_refused(backend: Backend) {
    let fixture = Fixture::start(backend, |now| {
        let url = Some("https://169.254.169.254/latest/meta-data".to_owned());
        vec![SampleCall { recording_url: url, ..short(Api::Zudu, 1, now) }]
    })
    .await;
    fixture.trigger(Api::Zudu, "call-000001").await;
    fixture.run_pending().await;
    let record = fixture.record(Api::Zudu, "call-000001").await;
    assert_eq!(record.outcome, Some(Outcome::RefusedUrl), "{:?}", record.outcome_reason);
}

async fn an_oversized_recording_is_refused(backend: Backend) {
    let plan = Plan { settings: "[fetch]\nmax_bytes = 100000", ..Plan::default() };
    let fixture = Fixture::planned(backend, plan, |now| vec![short(Api::KrosaiV1, 1, now)]).await;
    for huge in [FaultAnswer::HugeLength(600 << 20), FaultAnswer::HugeBody(200_000)] {
        let answer = huge.clone();
        fixture.platform.set_faults(move |asked| (asked.kind == RequestKind::Recording).then(|| answer.clone()));
        fixture.trigger_again(Api::KrosaiV1, ID).await;
        fixture.run_pending().await;
        let record = fixture.record(Api::KrosaiV1, ID).await;
        assert_eq!(record.outcome, Some(Outcome::TooLarge), "{huge:?}");
        assert!(!objects(&fixture).await.iter().any(|key| key.contains("original")));
    }
}
