//! Speaker labels of a source: a role, a number, or none.

use crate::domain::Role;
use crate::domain::Transcript;
use crate::domain::transcript::Evidence;
use crate::domain::transcript::Speaker;
use crate::domain::transcript::Utterance;

/// The source's label for the speaker of some words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    Role(Role),
    /// A speaker number without a role.
    Numbered(u32),
    Unlabelled,
}

impl Voice {
    pub(super) const fn of(role: Role) -> Self {
        match role {
            Role::Unknown => Self::Unlabelled,
            known => Self::Role(known),
        }
    }

    /// Reads a label such as `Agent`, `user` or `Speaker 2`. `None` for an unknown word.
    pub(super) fn from_label(label: &str) -> Option<Self> {
        if let Some(role) = Role::from_word(label) {
            return Some(Self::of(role));
        }
        let (word, number) = label.trim().split_once([' ', '_'])?;
        let number = number.parse().ok()?;
        word.eq_ignore_ascii_case("speaker").then_some(Self::Numbered(number))
    }

    const fn role(self) -> Role {
        match self {
            Self::Role(role) => role,
            Self::Numbered(_) | Self::Unlabelled => Role::Unknown,
        }
    }

    /// Known roles sort by appearance, then nameless speakers by number. `Speaker 1` therefore stays `Speaker 1` after
    /// writing and reading.
    const fn rank(self) -> (bool, u32) {
        match self {
            Self::Role(_) => (false, 0),
            Self::Unlabelled => (true, 0),
            Self::Numbered(number) => (true, number),
        }
    }
}

/// The speakers table, and the speaker id for each of `voices`.
pub(super) fn speakers(voices: &[Voice]) -> (Vec<Speaker>, Vec<u32>) {
    let mut distinct: Vec<Voice> = Vec::new();
    for voice in voices {
        if !distinct.contains(voice) {
            distinct.push(*voice);
        }
    }
    distinct.sort_by_key(|voice| voice.rank());
    let table = (0..).zip(&distinct).map(|(id, voice)| Speaker {
        id,
        role: voice.role(),
        confidence: None,
        evidence: (voice.role() != Role::Unknown).then_some(Evidence::Provider),
        channel: None,
    });
    let ids = voices.iter().map(|voice| distinct.iter().position(|known| known == voice).unwrap_or_default() as u32);
    (table.collect(), ids.collect())
}

/// The label of each speaker in the written forms.
#[derive(Debug)]
pub(super) struct Labels {
    named: Vec<(u32, String)>,
    /// The label for words of an uncertain speaker.
    anybody: String,
}

impl Labels {
    pub(super) fn of(transcript: &Transcript) -> Self {
        let mut known: Vec<(u32, Role)> = transcript.speakers.iter().map(|s| (s.id, s.role)).collect();
        for utterance in &transcript.utterances {
            if !known.iter().any(|(id, _)| *id == utterance.speaker) {
                known.push((utterance.speaker, Role::Unknown));
            }
        }
        // A single nameless speaker gets no label, because it may be several.
        if matches!(known.as_slice(), [(_, Role::Unknown)]) {
            return Self { named: Vec::new(), anybody: String::new() };
        }
        let mut nameless = 0_u32;
        let labels = known.into_iter().map(|(id, role)| {
            let label = role.label().map_or_else(
                || {
                    nameless += 1;
                    format!("Speaker {nameless}")
                },
                str::to_owned,
            );
            (id, label)
        });
        let named = labels.collect();
        Self { named, anybody: format!("Speaker {}", nameless + 1) }
    }

    pub(super) fn get(&self, speaker: u32) -> Option<&str> {
        self.named.iter().find(|(id, _)| *id == speaker).map(|(_, label)| label.as_str())
    }

    /// The label of an utterance: its speaker's label, or a neutral one if the speaker has a role and the attribution
    /// is doubtful.
    pub(super) fn of_words(&self, utterance: &Utterance, role: Role) -> Option<&str> {
        let doubtful = role != Role::Unknown && utterance.by.is_some_and(|by| by.is_doubtful());
        if doubtful { Some(&self.anybody) } else { self.get(utterance.speaker) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_every_platform_are_read() {
        for (label, voice) in [
            ("Agent", Voice::Role(Role::Agent)),
            ("ASSISTANT", Voice::Role(Role::Agent)),
            ("bot", Voice::Role(Role::Agent)),
            ("User", Voice::Role(Role::Caller)),
            ("customer", Voice::Role(Role::Caller)),
            ("human", Voice::Role(Role::Caller)),
            (" Caller ", Voice::Role(Role::Caller)),
            ("transfer_target", Voice::Role(Role::Transfer)),
            ("Transfer Target", Voice::Role(Role::Transfer)),
            ("System", Voice::Role(Role::System)),
            ("Unknown", Voice::Unlabelled),
            ("Speaker 2", Voice::Numbered(2)),
            ("speaker_11", Voice::Numbered(11)),
        ] {
            assert_eq!(Voice::from_label(label), Some(voice), "{label}");
        }
        for word in ["", "Note", "agents", "Speaker", "Speaker x", "Speaker -1", "the agent"] {
            assert_eq!(Voice::from_label(word), None, "{word}");
        }
    }

    #[test]
    fn one_speaker_per_role_and_the_nameless_last() {
        let voices = [
            Voice::Numbered(2),
            Voice::Role(Role::Caller),
            Voice::Role(Role::Agent),
            Voice::Numbered(1),
            Voice::Role(Role::Caller),
        ];
        let (table, ids) = speakers(&voices);
        assert_eq!(ids, [3, 0, 1, 2, 0]);
        let roles: Vec<Role> = table.iter().map(|speaker| speaker.role).collect();
        assert_eq!(roles, [Role::Caller, Role::Agent, Role::Unknown, Role::Unknown]);
        assert_eq!(table[0].evidence, Some(Evidence::Provider));
        assert_eq!(table[2].evidence, None);
    }
}
