//! The sample calls: recording, platform data and expected outcome of each.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::{CallChannel, CallStatus, Direction, Network, Outcome};

use super::audio::SampleAudio;
use super::recordings::{self, Sheet};
use super::sample::{Api, SampleCall, SampleRecording, SampleText, atoms_id};
use super::{DemoError, source_name};

/// A sample call.
#[derive(Debug, Clone)]
pub struct Sample {
    pub call: SampleCall,
    /// The name of its source in [`super::sources_toml`].
    pub source: &'static str,
    /// The expected outcome. `NotEligible` where no job is expected.
    pub expected: Outcome,
}

/// A dialogue of the sheet and its recording.
type Spoken = (&'static str, fn() -> SampleAudio);

struct Line {
    api: Api,
    /// Empty for Atoms: its ids are derived from the call's time.
    id: &'static str,
    /// Minutes since the end of the call.
    ago_min: u64,
    spoken: Option<Spoken>,
    text: SampleText,
    expected: Outcome,
    more: fn(&mut SampleCall),
}

const HOUR: u64 = 60;
const DAY: u64 = 24 * HOUR;

const TABLE: [Line; 14] = [
    Line {
        api: Api::KrosaiV1,
        id: "call_delivery",
        ago_min: 25,
        spoken: Some(("delivery", recordings::delivery)),
        text: SampleText::Labelled,
        expected: Outcome::Done,
        more: |call| call.network = network(85.0, None, 0.4, None),
    },
    Line {
        api: Api::KrosaiV1,
        id: "call_tickets",
        ago_min: 3 * HOUR,
        spoken: Some(("wordless", recordings::wordless)),
        text: SampleText::None,
        expected: Outcome::Done,
        more: |call| call.network = network(120.0, None, 1.2, None),
    },
    Line {
        api: Api::KrosaiV1,
        id: "call_unanswered",
        ago_min: 5 * HOUR,
        spoken: None,
        text: SampleText::None,
        expected: Outcome::NotEligible,
        more: |call| {
            call.status = CallStatus::NoAnswer;
            "no_answer".clone_into(&mut call.end_reason);
            call.direction = Direction::Outbound;
            call.duration_ms = 0;
        },
    },
    Line {
        api: Api::KrosaiV1,
        id: "call_last_quarter",
        ago_min: 100 * DAY,
        spoken: Some(("delivery", recordings::delivery)),
        text: SampleText::Labelled,
        expected: Outcome::PastRetention,
        more: |_| {},
    },
    Line {
        api: Api::KrosaiCockpit,
        id: "0b0f6c0e-0000-4000-8000-000000000001",
        ago_min: 50,
        spoken: Some(("reminder", recordings::reminder)),
        text: SampleText::Unlabelled,
        expected: Outcome::Done,
        more: |call| {
            call.direction = Direction::Outbound;
            call.network = network(140.0, Some(12.0), 0.3, Some(4.2));
        },
    },
    Line {
        api: Api::KrosaiCockpit,
        id: "0b0f6c0e-0000-4000-8000-000000000002",
        ago_min: 2 * DAY,
        spoken: Some(("damaged", recordings::damaged)),
        text: SampleText::Labelled,
        expected: Outcome::Damaged,
        more: |call| call.network = network(210.0, Some(38.0), 4.5, Some(2.9)),
    },
    Line {
        api: Api::Zudu,
        id: "call-booking",
        ago_min: 80,
        spoken: Some(("booking", recordings::booking)),
        text: SampleText::Turns,
        expected: Outcome::Done,
        more: |call| {
            call.network.platform_response_ms = Some(640.0);
            call.metadata.insert("campaign".to_owned(), "summer".into());
        },
    },
    Line {
        api: Api::Zudu,
        id: "call-opted-out",
        ago_min: 6 * HOUR,
        spoken: Some(("wordless", recordings::wordless)),
        text: SampleText::Turns,
        expected: Outcome::OptedOut,
        more: |call| call.opt_out = true,
    },
    Line {
        api: Api::Zudu,
        id: "call-not-picked-up",
        ago_min: 7 * HOUR,
        spoken: None,
        text: SampleText::None,
        expected: Outcome::NotEligible,
        more: |call| {
            call.status = CallStatus::NoAnswer;
            "DIAL_NO_ANSWER".clone_into(&mut call.end_reason);
            call.direction = Direction::Outbound;
            call.duration_ms = 0;
        },
    },
    Line {
        api: Api::Atoms,
        id: "",
        ago_min: 10,
        spoken: Some(("clinic", recordings::clinic)),
        text: SampleText::Turns,
        expected: Outcome::Done,
        more: |call| {
            call.dual_audio = Some(recordings::clinic_dual());
            call.network.platform_response_ms = Some(480.0);
        },
    },
    Line {
        api: Api::Atoms,
        id: "",
        ago_min: 3,
        spoken: Some(("late", recordings::late)),
        text: SampleText::Turns,
        expected: Outcome::Done,
        more: |call| call.recording = SampleRecording::AfterReads(1),
    },
    Line {
        api: Api::Atoms,
        id: "",
        ago_min: DAY,
        spoken: None,
        text: SampleText::None,
        expected: Outcome::NoRecording,
        more: |call| {
            call.direction = Direction::Outbound;
            call.duration_ms = 41_000;
            call.recording = SampleRecording::Never;
        },
    },
    Line {
        api: Api::Atoms,
        id: "",
        ago_min: 4 * DAY,
        spoken: None,
        text: SampleText::Turns,
        expected: Outcome::NotEligible,
        more: |call| call.channel = CallChannel::Chat,
    },
    Line {
        api: Api::Atoms,
        id: "",
        ago_min: 5 * DAY,
        spoken: None,
        text: SampleText::None,
        expected: Outcome::NotEligible,
        more: |call| {
            call.direction = Direction::Outbound;
            call.status = CallStatus::Busy;
            "dial_busy".clone_into(&mut call.end_reason);
            call.duration_ms = 0;
        },
    },
];

/// The sample calls. They ended minutes to days before `now`.
pub fn sample_calls(now: Timestamp) -> Result<Vec<Sample>, DemoError> {
    let sheet = Sheet::read()?;
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    TABLE.iter().zip(1..).map(|(line, n)| line.sample(n, now, &sheet)).collect()
}

impl Line {
    fn sample(&self, n: u32, now: Timestamp, sheet: &Sheet) -> Result<Sample, DemoError> {
        let mut call = SampleCall::new(self.api, self.id, now - Duration::from_secs(60 * self.ago_min));
        if let Some((name, audio)) = self.spoken {
            let dialogue = sheet.dialogue(name)?;
            (call.duration_ms, call.turns) = (dialogue.duration_ms, dialogue.turns);
            call.audio = Some(audio());
        }
        call.text = self.text;
        call.caller_number = format!("+141555501{n:02}");
        (self.more)(&mut call);
        if self.api == Api::Atoms {
            call.id = atoms_id(call.created_at(), n);
        }
        Ok(Sample { source: source_name(self.api), expected: self.expected, call })
    }
}

fn network(latency_ms: f64, jitter_ms: Option<f64>, packet_loss: f64, mos: Option<f64>) -> Network {
    Network {
        latency_ms: Some(latency_ms),
        jitter_ms,
        packet_loss_raw: Some(packet_loss),
        mos,
        codec: Some("opus".to_owned()),
        ..Network::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NOW: &str = "2026-03-01T12:00:00.75Z";

    fn samples() -> Vec<Sample> {
        sample_calls(NOW.parse().unwrap()).unwrap()
    }

    #[test]
    fn every_ending_worth_showing_is_there() {
        let endings: BTreeSet<Outcome> = samples().iter().map(|sample| sample.expected).collect();
        let shown = [
            Outcome::Done,
            Outcome::NoRecording,
            Outcome::PastRetention,
            Outcome::OptedOut,
            Outcome::NotEligible,
            Outcome::Damaged,
        ];
        assert_eq!(endings, BTreeSet::from(shown));
        for api in Api::ALL {
            assert!(
                samples().iter().any(|sample| sample.call.api == api && sample.expected == Outcome::Done),
                "{api:?}"
            );
        }
    }

    #[test]
    fn only_the_call_meant_to_be_is_past_its_term() {
        let now: Timestamp = NOW.parse().unwrap();
        for sample in samples() {
            let days = now.duration_since(sample.call.ended_at).as_hours() / 24;
            assert_eq!(days > 90, sample.expected == Outcome::PastRetention, "{}", sample.call.id);
            assert!(sample.call.ended_at < now);
        }
    }

    #[test]
    fn ids_are_unique_and_those_of_atoms_carry_the_creation_time() {
        let samples = samples();
        let ids: BTreeSet<&str> = samples.iter().map(|sample| sample.call.id.as_str()).collect();
        assert_eq!(ids.len(), samples.len());
        for call in samples.iter().map(|sample| &sample.call).filter(|call| call.api == Api::Atoms) {
            let millis: i64 = call.id[5..18].parse().unwrap();
            assert_eq!(millis, call.created_at().as_millisecond());
        }
    }
}
