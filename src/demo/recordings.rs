//! The sample recordings, compiled in, and the sheet that says who speaks when in them. Both are made by
//! `benches/training/sample_recordings.py`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::domain::{Container, ProviderTurn, ProviderWord, Role};

use super::DemoError;
use super::audio::SampleAudio;

const SHEET: &str = include_str!("recordings/sheet.json");

macro_rules! recordings {
    ($($(#[$doc:meta])* $name:ident = $file:literal $container:ident,)+) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name() -> SampleAudio {
            SampleAudio::embedded(include_bytes!(concat!("recordings/", $file)), Container::$container)
        }
    )+};
}

recordings! {
    /// A late parcel; 34 s.
    delivery = "delivery.mp3" Mp3,
    /// A reminder of an appointment; 22 s.
    reminder = "reminder.mp3" Mp3,
    /// A hotel room; 30 s of AAC at 44.1 kHz in MP4.
    booking = "booking.mp4" Mp4,
    /// A night call to a clinic, mixed; 31 s.
    clinic = "clinic.mp3" Mp3,
    /// The same call with the caller left and the agent right. They overlap once.
    clinic_dual = "clinic-dual.mp3" Mp3,
    /// A meter that shows an error, with a pause of 2.6 s; 22 s.
    late = "late.mp3" Mp3,
    /// Tickets; 14 s.
    wordless = "wordless.mp3" Mp3,
    /// The header declares 21 s. Only the first 4 s decode; the rest contains no frame.
    damaged = "damaged.mp3" Mp3,
    /// One word in 1.2 s, for tests with thousands of calls.
    tiny = "tiny.mp3" Mp3,
}

/// Length of [`tiny`] in milliseconds.
pub const TINY_MS: u64 = 1186;

/// The turns of [`tiny`].
#[must_use]
pub fn tiny_turns() -> Arc<[ProviderTurn]> {
    let words = vec![ProviderWord { text: "Hello.".to_owned(), start_ms: Some(60), end_ms: Some(586) }];
    Arc::from([turn(Role::Agent, "Hello.".to_owned(), (60, 586), words)])
}

/// The turns of one recording with times.
#[derive(Debug, Clone)]
pub struct Dialogue {
    pub duration_ms: u64,
    pub turns: Arc<[ProviderTurn]>,
}

/// All dialogues by name.
#[derive(Debug)]
pub struct Sheet(BTreeMap<String, Dialogue>);

impl Sheet {
    /// Reads the compiled-in sheet.
    pub fn read() -> Result<Self, DemoError> {
        let written: BTreeMap<String, WrittenDialogue> = serde_json::from_str(SHEET).map_err(DemoError::Sheet)?;
        Ok(Self(written.into_iter().map(|(name, dialogue)| (name, dialogue.into())).collect()))
    }

    /// The dialogue of this name.
    pub fn dialogue(&self, name: &'static str) -> Result<Dialogue, DemoError> {
        self.0.get(name).cloned().ok_or(DemoError::NoDialogue(name))
    }
}

#[derive(Deserialize)]
struct WrittenDialogue {
    duration_ms: u64,
    turns: Vec<WrittenTurn>,
}

#[derive(Deserialize)]
struct WrittenTurn {
    role: Role,
    text: String,
    start_ms: u64,
    end_ms: u64,
    words: Vec<(String, u64, u64)>,
}

impl From<WrittenDialogue> for Dialogue {
    fn from(written: WrittenDialogue) -> Self {
        let turns = written.turns.into_iter().map(|written| {
            let words = written.words.into_iter().map(|(text, start, end)| ProviderWord {
                text,
                start_ms: Some(start),
                end_ms: Some(end),
            });
            turn(written.role, written.text, (written.start_ms, written.end_ms), words.collect())
        });
        Self { duration_ms: written.duration_ms, turns: turns.collect() }
    }
}

fn turn(role: Role, text: String, (start_ms, end_ms): (u64, u64), words: Vec<ProviderWord>) -> ProviderTurn {
    ProviderTurn { role, text, start_ms: Some(start_ms), end_ms: Some(end_ms), words, approximate: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sheet_matches_itself() {
        let sheet = Sheet::read().unwrap();
        for (name, dialogue) in &sheet.0 {
            let mut last_start = 0;
            for turn in dialogue.turns.iter() {
                let said: Vec<&str> = turn.words.iter().map(|word| word.text.as_str()).collect();
                assert_eq!(said.join(" "), turn.text, "{name}");
                let (start, end) = (turn.start_ms.unwrap(), turn.end_ms.unwrap());
                assert!(last_start <= start && start < end && end <= dialogue.duration_ms, "{name}: {}", turn.text);
                assert_eq!(turn.words.first().unwrap().start_ms, Some(start), "{name}");
                assert_eq!(turn.words.last().unwrap().end_ms, Some(end), "{name}");
                assert!(turn.words.iter().all(|word| word.start_ms < word.end_ms), "{name}: {}", turn.text);
                last_start = start;
            }
        }
        let overlaps = |name| {
            let turns = sheet.dialogue(name).unwrap().turns;
            turns.windows(2).filter(|pair| pair[1].start_ms < pair[0].end_ms).count()
        };
        assert_eq!((overlaps("clinic"), overlaps("delivery")), (1, 0));
    }

    #[test]
    fn the_shortest_recording_is_described_where_the_sheet_is_not_read() {
        let written = Sheet::read().unwrap().dialogue("tiny").unwrap();
        assert_eq!((written.duration_ms, &*written.turns), (TINY_MS, &*tiny_turns()));
    }
}
