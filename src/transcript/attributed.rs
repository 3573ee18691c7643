//! A transcript whose speakers are assigned to the legs of the recording.

use crate::domain::Role;
use crate::domain::Transcript;
use crate::domain::quality::ConversationMethod;

/// A transcript with its speakers assigned to the audio.
#[derive(Debug)]
pub struct Attributed {
    pub transcript: Transcript,
    /// The role on each leg of the recording. A single leg has one entry, which is unknown.
    pub legs: Vec<Role>,
    /// The source of the speakers in `transcript.turns`.
    pub method: ConversationMethod,
    /// Confidence of the assignment of roles to legs, from 0 to 1. It is 1 with one leg.
    pub legs_sure: f64,
}

impl Attributed {
    /// The same recording with another transcript.
    #[must_use]
    pub fn with(self, transcript: Transcript) -> Self {
        let legs = roles_on_legs(&transcript, self.legs.len());
        Self { transcript, legs, ..self }
    }
}

/// The role on each leg. A single leg may have several speakers, so its role is unknown.
pub(super) fn roles_on_legs(words: &Transcript, legs: usize) -> Vec<Role> {
    let role = |leg: u8| {
        let here = words.speakers.iter().filter(|speaker| speaker.channel == Some(leg));
        // A person's leg keeps that person's role, even with announcements on it.
        here.map(|speaker| speaker.role).min_by_key(|role| *role == Role::System).unwrap_or(Role::Unknown)
    };
    if legs == 2 { vec![role(0), role(1)] } else { vec![Role::Unknown; legs] }
}
