//! The calls of ours that a backfill repeats.

use crate::domain::flag::UnknownFlag;
use crate::domain::{CallFlag, Outcome, ParseError};

/// The filter for our own calls that a backfill repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OurCalls {
    /// Calls with this outcome.
    Outcome(Outcome),
    /// Calls with this flag.
    Flag(CallFlag),
}

impl OurCalls {
    pub(super) const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Outcome(outcome) => Some(outcome),
            Self::Flag(_) => None,
        }
    }

    pub(super) const fn flag(self) -> Option<CallFlag> {
        match self {
            Self::Outcome(_) => None,
            Self::Flag(flag) => Some(flag),
        }
    }

    /// Reads the filter from its two columns.
    pub(super) fn read(outcome: Option<&str>, flag: Option<&str>) -> Result<Option<Self>, String> {
        Ok(match (outcome, flag) {
            (Some(word), _) => Some(Self::Outcome(word.parse().map_err(|err: ParseError| err.to_string())?)),
            (None, Some(word)) => Some(Self::Flag(word.parse().map_err(|err: UnknownFlag| err.to_string())?)),
            (None, None) => None,
        })
    }
}
