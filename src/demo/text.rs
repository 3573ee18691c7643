//! Shared parts of the dialects' JSON: transcripts as text, times as text, page counts.

use jiff::Timestamp;

use crate::domain::{ProviderTurn, Role};

use super::sample::{SampleCall, SampleText};

/// The transcript as one text, where the call has one.
pub(super) fn transcript(call: &SampleCall) -> Option<String> {
    match call.text {
        SampleText::None => None,
        SampleText::Unlabelled => Some(joined(call, " ", |turn| turn.text.clone())),
        SampleText::Labelled | SampleText::Turns => {
            Some(joined(call, "\n", |turn| format!("[{}]: {}", label(turn.role), turn.text)))
        }
    }
}

/// The text of all turns.
pub(super) fn joined(call: &SampleCall, between: &str, line: impl Fn(&ProviderTurn) -> String) -> String {
    call.turns.iter().map(line).collect::<Vec<_>>().join(between)
}

const fn label(role: Role) -> &'static str {
    match role {
        Role::Agent => "Agent",
        Role::Caller => "Caller",
        Role::Transfer => "Transfer",
        Role::System => "System",
        Role::Unknown => "Speaker",
    }
}

/// The role words of Zudu and Atoms.
pub(super) const fn role(role: Role) -> &'static str {
    match role {
        Role::Agent => "agent",
        Role::Caller => "user",
        Role::Transfer => "transfer_target",
        Role::System | Role::Unknown => "system",
    }
}

/// RFC 3339 in UTC with milliseconds.
pub(super) fn millis(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// RFC 3339 in UTC, whole seconds.
pub(super) fn seconds(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// Number of pages of `limit` for `total` rows.
pub(super) const fn pages(total: usize, limit: usize) -> usize {
    total.div_ceil(limit)
}
