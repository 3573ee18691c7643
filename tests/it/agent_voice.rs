//! The voices of synthetic agents: enrolled where somebody said who spoke, known again where nobody does, and gone when asked.

use std::ops::Deref;
use std::time::Duration;

use aftercall::demo::{Api, SampleCall, SampleText, recordings};
use aftercall::domain::transcript::{Evidence, Speaker};
use aftercall::domain::{CallUid, DualChannels, Enrolled, Role, SpeakerEmbedding, Transcript};
use aftercall::jobs::correct::{Corrected, correct};
use aftercall::jobs::retention_sweep::{Consent, sweep};
use aftercall::store::{AgentVoiceRow, ErasedVoice, NewHold};
use aftercall::transcript::diarization::embedding;
use aftercall::transcript::{
    AgentVoice, Attributed, Correction, Hints, VOICE_VERSION, attribute, enroll, without_text,
};

use jiff::SignedDuration;
use serde_json::json;

use crate::harness::{Backend, Fixture, Plan, on_every_backend, source, source_call};
use crate::process;
use crate::store::admit;
use crate::words::{listen, recording};

on_every_backend!(
    a_synthetic_agent_is_known_again_by_its_voice,
    of_an_agent_that_may_be_a_person_nothing_is_kept,
    a_call_takes_what_it_taught_with_it,
    a_correction_takes_back_what_was_enrolled,
);

const API: Api = Api::Atoms;
const AGENT: &str = "agent-sample";

/// What the source's table says of its agents, put into it.
type Declared = &'static [(&'static str, &'static str)];
const DECLARED: Declared =
    &[("name = \"atoms\"", "agent = [{ id = \"agent-sample\", synthetic = true }]\nname = \"atoms\"")];
const UNDECLARED: Declared =
    &[("name = \"atoms\"", "agent = [{ id = \"agent-other\", synthetic = true }]\nname = \"atoms\"")];

struct Site {
    fixture: Fixture,
    ids: Vec<String>,
}

impl Deref for Site {
    type Target = Fixture;
    fn deref(&self) -> &Fixture {
        &self.fixture
    }
}

/// A call whose two channels its platform gives roles, and one of one channel without any text.
async fn taught(backend: Backend, sources: Declared) -> Site {
    let plan = Plan { settings: "[transcript]\nmodel = \"sample\"", sources, ..Plan::default() };
    let mut ids = Vec::new();
    let fixture = Fixture::planned(backend, plan, |now| {
        let sheet = recordings::Sheet::read().unwrap();
        let call = |n: u32, name: &'static str, text| {
            let spoken = sheet.dialogue(name).unwrap();
            let (duration_ms, turns) = (spoken.duration_ms, spoken.turns);
            let call = SampleCall::numbered(API, n, now - Duration::from_secs(600));
            SampleCall { duration_ms, turns, text, ..call }
        };
        let dual = |n| SampleCall {
            audio: Some(recordings::clinic()),
            dual_audio: Some(recordings::clinic_dual()),
            ..call(n, "clinic", SampleText::Turns)
        };
        let mixed = SampleCall { audio: Some(recordings::delivery()), ..call(2, "delivery", SampleText::Turns) };
        let wordless = |n| SampleCall { audio: Some(recordings::wordless()), ..call(n, "wordless", SampleText::None) };
        let strange = SampleCall { agent: "agent-stranger".to_owned(), ..wordless(4) };
        let calls = vec![dual(0), dual(1), mixed, wordless(3), strange];
        ids = calls.iter().map(|call| call.id.clone()).collect();
        calls
    })
    .await;
    for id in &ids {
        fixture.platform.register_record(id, json!({}));
    }
    Site { fixture, ids }
}

impl Site {
    fn id(&self, n: usize) -> &str {
        &self.ids[n]
    }
}

/// Runs the call whose number this is.
async fn run(site: &Site, n: usize) -> Transcript {
    site.trigger_again(API, site.id(n)).await;
    site.run_pending().await;
    let record = site.record(API, site.id(n)).await;
    site.store.transcripts(record.uid).await.unwrap().pop().unwrap().transcript
}

async fn kept(site: &Site) -> Vec<AgentVoiceRow> {
    site.store.agent_voices().await.unwrap()
}

async fn stored(site: &Site) -> Vec<SpeakerEmbedding> {
    let nobody = CallUid::new();
    site.store.agent_voice(&source(API), AGENT, VOICE_VERSION, nobody).await.unwrap()
}

fn said_by(words: &Transcript, text: &str) -> (Role, Option<Evidence>) {
    let by = words.utterances.iter().find(|utterance| utterance.text.contains(text)).unwrap().by.unwrap();
    (by.role, by.evidence)
}

async fn a_synthetic_agent_is_known_again_by_its_voice(backend: Backend) {
    let site = taught(backend, DECLARED).await;
    // Before anything is known of it, and after one call, which may have been an odd one.
    for taught in [&[][..], &[0]] {
        for n in taught {
            run(&site, *n).await;
        }
        assert_eq!(said_by(&run(&site, 3).await, "ticket office"), (Role::Unknown, None));
    }
    for n in [1, 2] {
        run(&site, n).await;
    }
    let rows = kept(&site).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0].source.as_str(), rows[0].agent_id.as_str(), rows[0].version), ("atoms", AGENT, VOICE_VERSION));
    assert_eq!(rows[0].calls, 3, "two channels, and the turns of a mixed one");
    let words = run(&site, 3).await;
    let by_voice = |role| (role, Some(Evidence::Voice));
    assert_eq!(said_by(&words, "ticket office"), by_voice(Role::Agent));
    assert_eq!(said_by(&words, "late show"), by_voice(Role::Caller));
    assert!(words.speakers.iter().all(|speaker| speaker.confidence.is_some_and(|confidence| confidence >= 0.95)));
    // A role that was estimated teaches nothing.
    assert_eq!(kept(&site).await, rows);
    // The same call of an agent of whom nobody said that it is no person.
    assert_eq!(said_by(&run(&site, 4).await, "ticket office"), (Role::Unknown, None));
    let audit = site.store.audit_entries(Some("atoms/agent-sample")).await.unwrap();
    assert_eq!(audit.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(), ["agent_voice_learnt"]);
    // What is kept is the agent's voice and not the caller's.
    let speech = listen(&recording("clinic-dual.mp3"));
    let of = |leg: usize| embedding(&speech.legs[leg].samples, &speech.legs[leg].regions).unwrap().unwrap().embedding;
    let (caller, agent) = (of(0), of(1));
    for embedding in stored(&site).await {
        assert!(distance(&embedding, &agent) < distance(&embedding, &caller), "{embedding:?}");
    }
}

fn distance(a: &SpeakerEmbedding, b: &SpeakerEmbedding) -> f64 {
    a.at.iter().zip(&b.at).map(|(a, b)| (a - b).powi(2)).sum()
}

async fn of_an_agent_that_may_be_a_person_nothing_is_kept(backend: Backend) {
    let site = taught(backend, UNDECLARED).await;
    for n in 0..3 {
        run(&site, n).await;
    }
    assert_eq!(kept(&site).await, []);
    assert_eq!(said_by(&run(&site, 3).await, "ticket office"), (Role::Unknown, None));
}

async fn a_call_takes_what_it_taught_with_it(backend: Backend) {
    let site = taught(backend, DECLARED).await;
    for n in [0, 1] {
        run(&site, n).await;
    }
    // Once more is not twice.
    run(&site, 1).await;
    assert_eq!(kept(&site).await[0].calls, 2);
    let first = site.record(API, site.id(0)).await;
    let embedding = stored(&site).await.remove(0);
    let mut tx = site.store.begin().await.unwrap();
    site.store.scrub(&mut tx, first.uid, site.now()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(kept(&site).await[0].calls, 1);
    // A build that does not know of voices leaves what the call taught; the next sweep does not.
    let mut tx = site.store.begin().await.unwrap();
    let enrolled = Enrolled { agent_id: AGENT.to_owned(), embedding };
    site.store.enroll_agent_voice(&mut tx, first.uid, &source(API), &enrolled, site.now()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(kept(&site).await[0].calls, 2);
    assert_eq!(sweep(&site, Consent::Scheduled).await.unwrap().refused, None);
    assert_eq!(kept(&site).await[0].calls, 1);
    let mut tx = site.store.begin().await.unwrap();
    let erased = site.store.erase_agent_voice(&mut tx, &source(API), AGENT).await.unwrap();
    assert_eq!(erased, ErasedVoice::Erased { calls: 1 });
    tx.commit().await.unwrap();
    assert_eq!(kept(&site).await, []);
}

async fn a_correction_takes_back_what_was_enrolled(backend: Backend) {
    let site = taught(backend, DECLARED).await;
    run(&site, 2).await;
    let before = stored(&site).await;
    assert_eq!(before.len(), 1);
    let record = site.record(API, site.id(2)).await;
    let corrected = correct(&site.app.app, record.uid, Correction::Swap, "ada").await.unwrap();
    assert!(matches!(corrected, Corrected::Version(2, _)));
    assert_eq!(kept(&site).await, [], "it may have been the caller's");
    site.run_pending().await;
    // Whom a person calls the agent is enrolled by the next run.
    run(&site, 2).await;
    let after = stored(&site).await;
    assert!(after.len() == 1 && after != before, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn voices_are_listed_and_erased_by_hand() {
    let site = process::Site::start(Vec::new(), "").await;
    let app = site.app().await;
    let record = admit(&app.store, &source_call("c-1"), app.now()).await;
    let embedding = SpeakerEmbedding { version: VOICE_VERSION, at: vec![0.5; 24], speech_ms: 9_000 };
    let enrolled = Enrolled { agent_id: AGENT.to_owned(), embedding };
    let mut tx = app.store.begin().await.unwrap();
    app.store.enroll_agent_voice(&mut tx, record.uid, &record.source, &enrolled, app.now()).await.unwrap();
    let review_by = app.now() + SignedDuration::from_hours(24 * 30);
    let hold = NewHold { call_uid: record.uid, matter: "M-1", placed_by: "legal", now: app.now(), review_by };
    let hold = app.store.place_hold(&mut tx, hold).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    let listed = site.well(&["voices", "list", "--json"]).await.json();
    assert_eq!(
        (&listed[0]["agent_id"], &listed[0]["calls"], &listed[0]["speech_ms"]),
        (&json!(AGENT), &json!(1), &json!(9_000))
    );
    let listed = site.well(&["voices", "list"]).await;
    assert!(listed.stdout.contains("not declared synthetic"), "{listed:?}");
    let erase = ["voices", "erase", AGENT, "--source", record.source.as_str(), "--by", "ada"];
    let refused = site.run(&erase).await;
    assert!(refused.code() == Some(1) && refused.stderr.contains("legal_hold"), "{refused:?}");
    let mut tx = app.store.begin().await.unwrap();
    assert!(app.store.release_hold(&mut tx, &hold, "legal", app.now()).await.unwrap());
    tx.commit().await.unwrap();
    site.well(&erase).await;
    assert_eq!(site.well(&["voices", "list", "--json"]).await.json(), json!([]));
    let nothing = site.run(&erase).await;
    assert!(nothing.code() == Some(1) && nothing.stderr.contains("nothing is known"), "{nothing:?}");
    let audit = app.store.audit_entries(Some(&format!("{}/{AGENT}", record.source))).await.unwrap();
    assert_eq!(audit.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(), ["agent_voice_erased"]);
}

/// Without an agent there is nothing to learn; nor from roles that are estimates, nor from a leg that is no agent's.
#[test]
fn only_the_known_turns_of_an_agent_teach() {
    let speech = listen(&recording("clinic-dual.mp3"));
    let placed = |channels| {
        let hints = Hints { channels, ..Hints::default() };
        attribute(without_text(None), &speech, hints).unwrap()
    };
    let known = || placed(DualChannels::CallerLeft);
    let agent = enroll(&known(), &speech).unwrap().unwrap();
    let on = |leg: usize| embedding(&speech.legs[leg].samples, &speech.legs[leg].regions).unwrap().unwrap().embedding;
    assert_eq!(agent, on(1));
    assert_eq!(enroll(&placed(DualChannels::Auto), &speech).unwrap(), None, "nobody said whose channel is whose");
    let mut estimated = known();
    for speaker in &mut estimated.transcript.speakers {
        (speaker.evidence, speaker.confidence) = (Some(Evidence::Text), Some(0.99));
    }
    assert_eq!(enroll(&estimated, &speech).unwrap(), None);
    let mut handed_on = known();
    handed_on.transcript.speakers.push(Speaker { role: Role::Transfer, ..Speaker::nameless(9) });
    assert_eq!(enroll(&handed_on, &speech).unwrap(), None, "another person may be on the agent's leg");
    let doubtful = Attributed { legs_sure: 0.9, ..known() };
    assert_eq!(enroll(&doubtful, &speech).unwrap(), None, "the legs may be the other way round");
    // And two channels of which nobody says whose they are get their roles by the voice.
    let voice = AgentVoice::of(&[agent.clone(), agent]).unwrap();
    let hints = Hints { agent_voice: Some(&voice), ..Hints::default() };
    assert_eq!(attribute(without_text(None), &speech, hints).unwrap().legs, [Role::Caller, Role::Agent]);
}
