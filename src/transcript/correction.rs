//! Correction of roles by hand. A correction is a separate transcript version. It takes precedence over later results.

use crate::domain::Role;
use crate::domain::Transcript;
use crate::domain::transcript::Evidence;

use super::roles::say;

/// The correction of the roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correction {
    /// Agent and caller are swapped.
    Swap,
    /// The nameless speaker with this number, counted from 1, is the agent.
    Agent(usize),
}

/// Why a correction cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CorrectionError {
    #[error("neither an agent nor a caller is named in it; say which speaker is the agent (1, 2, …)")]
    NobodyNamed,
    #[error("it names an agent already; swap the roles instead")]
    AgentNamed,
    #[error("it has no Speaker {0}")]
    NoSuchSpeaker(usize),
}

/// Whether a person has corrected this transcript.
#[must_use]
pub fn is_corrected(transcript: &Transcript) -> bool {
    transcript.speakers.iter().any(|speaker| speaker.evidence == Some(Evidence::Correction))
}

/// The transcript after the correction.
///
/// # Errors
/// [`CorrectionError`] if the correction does not apply to this transcript.
pub fn corrected(transcript: &Transcript, correction: Correction) -> Result<Transcript, CorrectionError> {
    let mut right = transcript.clone();
    match correction {
        Correction::Swap => swap(&mut right)?,
        Correction::Agent(number) => name_agent(&mut right, number)?,
    }
    say(&mut right);
    Ok(right)
}

fn swap(words: &mut Transcript) -> Result<(), CorrectionError> {
    let mut swapped = false;
    for speaker in &mut words.speakers {
        let role = match speaker.role {
            Role::Agent => Role::Caller,
            Role::Caller => Role::Agent,
            Role::Transfer | Role::System | Role::Unknown => continue,
        };
        (speaker.role, speaker.evidence, speaker.confidence) = (role, Some(Evidence::Correction), None);
        swapped = true;
    }
    if swapped { Ok(()) } else { Err(CorrectionError::NobodyNamed) }
}

fn name_agent(words: &mut Transcript, number: usize) -> Result<(), CorrectionError> {
    if words.speakers.iter().any(|speaker| speaker.role == Role::Agent) {
        return Err(CorrectionError::AgentNamed);
    }
    let callers = words.speakers.iter().filter(|speaker| speaker.role == Role::Caller).count();
    // In the order in which the written forms number them.
    let mut nameless: Vec<_> = words.speakers.iter_mut().filter(|speaker| speaker.role == Role::Unknown).collect();
    if number == 0 || number > nameless.len() {
        return Err(CorrectionError::NoSuchSpeaker(number));
    }
    let agent = nameless.remove(number - 1);
    (agent.role, agent.evidence, agent.confidence) = (Role::Agent, Some(Evidence::Correction), None);
    if let ([caller], 0) = (nameless.as_mut_slice(), callers) {
        (caller.role, caller.evidence, caller.confidence) = (Role::Caller, Some(Evidence::Correction), None);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::parse_text;
    use crate::transcript::text;

    #[test]
    fn a_swap_changes_sides_and_nothing_else() {
        let words = parse_text("[Agent]: my line is dead\n[Caller]: how may I help\n[System]: beep", None);
        assert!(!is_corrected(&words));
        let right = corrected(&words, Correction::Swap).unwrap();
        assert_eq!(text(&right).unwrap(), "[Caller]: my line is dead\n[Agent]: how may I help\n[System]: beep");
        assert!(is_corrected(&right));
        assert_eq!(right.utterances[0].by.unwrap().evidence, Some(Evidence::Correction));
        let back = corrected(&right, Correction::Swap).unwrap();
        assert_eq!(text(&back), text(&words));
    }

    #[test]
    fn a_nameless_speaker_is_named_by_number() {
        let words = parse_text("[Speaker 1]: my line is dead\n[Speaker 2]: how may I help", None);
        assert_eq!(corrected(&words, Correction::Swap), Err(CorrectionError::NobodyNamed));
        let right = corrected(&words, Correction::Agent(2)).unwrap();
        assert_eq!(text(&right).unwrap(), "[Caller]: my line is dead\n[Agent]: how may I help");
        assert_eq!(corrected(&words, Correction::Agent(3)), Err(CorrectionError::NoSuchSpeaker(3)));
        assert_eq!(corrected(&words, Correction::Agent(0)), Err(CorrectionError::NoSuchSpeaker(0)));
        assert_eq!(corrected(&right, Correction::Agent(1)), Err(CorrectionError::AgentNamed));
        // With three speakers, only the agent gets a role.
        let three = parse_text("[Speaker 1]: a\n[Speaker 2]: b\n[Speaker 3]: c", None);
        assert_eq!(
            text(&corrected(&three, Correction::Agent(2)).unwrap()).unwrap(),
            "[Speaker 1]: a\n[Agent]: b\n[Speaker 2]: c"
        );
    }
}
