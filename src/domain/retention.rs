//! Retention of a call: its term, the start of the term, and the state of its erasure.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::call::SourceCall;
use super::id::ParseError;
use super::times::LONGEST_CALL;
use super::words;

/// How long content is kept, in whole days of 86,400 s in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct RetentionTerm {
    days: i64,
}

impl RetentionTerm {
    /// The default term.
    pub const DEFAULT: Self = Self { days: 90 };

    /// Accepts 0 (content is never stored) to 36,500 days.
    ///
    /// # Errors
    /// [`ParseError`] outside that range.
    pub const fn parse(days: i64) -> Result<Self, ParseError> {
        if days < 0 || days > 36_500 {
            return Err(ParseError::new("retention term", "must be 0 to 36500 days"));
        }
        Ok(Self { days })
    }

    /// The term in days.
    #[must_use]
    pub const fn days(self) -> i64 {
        self.days
    }

    /// True when content must never be stored.
    #[must_use]
    pub const fn stores_nothing(self) -> bool {
        self.days == 0
    }
}

impl TryFrom<i64> for RetentionTerm {
    type Error = ParseError;
    fn try_from(days: i64) -> Result<Self, ParseError> {
        Self::parse(days)
    }
}

impl From<RetentionTerm> for i64 {
    fn from(term: RetentionTerm) -> Self {
        term.days
    }
}

words! {
    /// The moment at which a term starts.
    pub enum RetentionBasis {
        Ended = "ended",
        /// Answered plus duration.
        AnsweredPlusDuration = "answered_plus_duration",
        Created = "created",
        FirstSeen = "first_seen",
    }
}

/// When a call's content must be erased, and from which moment the term counts. Every call has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainUntil {
    pub at: Timestamp,
    pub basis: RetentionBasis,
}

impl RetainUntil {
    /// The start is the call's end, else answer + duration, else creation, else `first_seen`. The term is added to it.
    #[must_use]
    pub fn of(call: &SourceCall, first_seen: Timestamp, term: RetentionTerm) -> Self {
        let (from, basis) = Self::basis(call, first_seen);
        let span = SignedDuration::from_hours(24 * term.days);
        Self { at: from.checked_add(span).unwrap_or(Timestamp::MAX), basis }
    }

    fn basis(call: &SourceCall, first_seen: Timestamp) -> (Timestamp, RetentionBasis) {
        // A moment far after the call was first seen would keep the call forever. Some platforms write the end of the
        // year 9998 for "never".
        let told = |at: &Timestamp| at.duration_since(first_seen) <= LONGEST_CALL;
        let (ended_at, created_at) = (call.ended_at.filter(told), call.created_at.filter(told));
        if let Some(ended) = ended_at.filter(|_| !call.ended_at_estimated) {
            return (ended, RetentionBasis::Ended);
        }
        let duration = SignedDuration::from_millis(call.duration_ms.unwrap_or(0).try_into().unwrap_or(0));
        let answered = call.answered_at.filter(|_| call.duration_ms.is_some());
        if let Some(end) = answered.and_then(|at| at.checked_add(duration).ok()).filter(told) {
            return (end, RetentionBasis::AnsweredPlusDuration);
        }
        match (ended_at, created_at) {
            (Some(ended), _) => (ended, RetentionBasis::Created),
            (None, Some(created)) => (created, RetentionBasis::Created),
            (None, None) => (first_seen, RetentionBasis::FirstSeen),
        }
    }
}

words! {
    /// Erasure state of a call. It only moves down this list.
    pub enum RetentionState {
        Active = "active",
        /// Decided: the API no longer shows the content, and its objects will be deleted.
        Condemned = "condemned",
        /// The object store still shows something after deletion.
        Blocked = "blocked",
        /// The objects are proven to be gone and the record is scrubbed. A tombstone prevents a new import of the call.
        Erased = "erased",
    }
}

impl RetentionState {
    /// Reads the word.
    ///
    /// # Errors
    /// [`ParseError`] for another word.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::named(text).ok_or(ParseError::new("retention state", Self::NONE_OF_THEM))
    }
}
