//! A call and a transcript with something in every field. Whatever is somebody's own holds the word `canary`, so that
//! it can be looked for where it must not be.

use aftercall::domain::call::{Cost, CostUnit, EndReason};
use aftercall::domain::transcript::{
    EngineInfo, Evidence, Speaker, TRANSCRIPT_SCHEMA, TextSource, Turn, Utterance, Word,
};
use aftercall::domain::{
    CallChannel, CallId, CallStatus, Direction, Network, PhoneNumber, ProviderTurn, ProviderWord, RecordingUrl, Role,
    SourceCall, Transcript,
};
use jiff::Timestamp;
use serde_json::json;

/// A completed call that ended on the first of February 2026, every field filled.
pub fn source_call(id: &str) -> SourceCall {
    let moment = |text: &str| Some(text.parse::<Timestamp>().unwrap());
    SourceCall {
        id: CallId::parse(id).unwrap(),
        org_id: Some("org-1".to_owned()),
        agent_id: Some("canary-agent".to_owned()),
        phone_number_id: Some("canary-number-id".to_owned()),
        direction: Some(Direction::Inbound),
        channel: CallChannel::Phone,
        from_number: Some(PhoneNumber::parse("+1canary555").unwrap()),
        to_number: Some(PhoneNumber::parse("+2canary555").unwrap()),
        status: CallStatus::Completed,
        status_raw: Some("completed".to_owned()),
        end_reason: Some(EndReason::Normal),
        created_at: moment("2026-02-01T10:00:00Z"),
        created_at_derived: false,
        answered_at: moment("2026-02-01T10:00:05Z"),
        ended_at: moment("2026-02-01T10:01:07Z"),
        ended_at_estimated: false,
        duration_ms: Some(61_500),
        cost: Some(Cost { amount: 1.25, unit: CostUnit::Cents }),
        recording_url: Some(RecordingUrl::parse("https://recordings.test/canary.mp3?sig=canary").unwrap()),
        dual_url: Some(RecordingUrl::parse("https://recordings.test/canary-dual.mp3?sig=canary").unwrap()),
        turns: vec![ProviderTurn {
            role: Role::Caller,
            text: "canary words".to_owned(),
            start_ms: Some(0),
            end_ms: Some(900),
            words: vec![ProviderWord { text: "canary".to_owned(), start_ms: Some(0), end_ms: Some(400) }],
            approximate: false,
        }],
        language: Some("en".to_owned()),
        opt_out: false,
        network: Network { latency_ms: Some(80.0), codec: Some("canary-codec".to_owned()), ..Network::default() },
        metadata: Some(json!({ "note": "canary metadata" })),
        analysis: Some(json!({ "summary": "canary summary" })),
        etag: Some("canary-etag".to_owned()),
        raw: json!({ "transcript": "canary raw", "caller": "+1canary555" }),
    }
}

/// A transcript that says `text`.
pub fn transcript(text: &str) -> Transcript {
    let word = Word { text: text.to_owned(), start_ms: Some(0), end_ms: Some(400), confidence: Some(0.9), heard: None };
    Transcript {
        schema: TRANSCRIPT_SCHEMA.to_owned(),
        language: Some("en".to_owned()),
        source: TextSource::Provider,
        engine: Some(EngineInfo {
            name: "none".to_owned(),
            model: None,
            model_sha256: None,
            parameters: serde_json::Value::Null,
        }),
        speakers: vec![Speaker { role: Role::Caller, evidence: Some(Evidence::Provider), ..Speaker::nameless(0) }],
        turns: vec![Turn { speaker: 0, start_ms: 0, end_ms: 400 }],
        utterances: vec![Utterance {
            speaker: 0,
            start_ms: Some(0),
            end_ms: Some(400),
            text: text.to_owned(),
            confidence: None,
            heard: None,
            words: vec![word],
            by: None,
        }],
        redacted: false,
        reason: None,
    }
}
