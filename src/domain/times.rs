//! Plausibility of the times that a platform reports.
//!
//! Platforms send times of clocks that were never set, of empty fields, and of records that were made later. A time
//! that contradicts the others would decide how long a call is kept, so it is dropped.

use jiff::{SignedDuration, Timestamp};

use super::call::{CallStatus, SourceCall};

/// The first moment of the year 2000. An earlier time is the zero of a clock.
const FIRST: Timestamp = Timestamp::constant(946_684_800, 0);

/// Longest time between the answer and the end of a call (from creation, where no answer is reported). Calls last
/// hours. The rest covers clocks that are wrong by a day, and the time until the answer.
pub const LONGEST_CALL: SignedDuration = SignedDuration::from_hours(48);

/// A record is created at most this long after the start of its call. Some platforms create it after the call.
const RECORDED_WITHIN: SignedDuration = SignedDuration::from_hours(48);

/// True when a moment is not the zero of a clock.
#[must_use]
pub fn is_set(at: Timestamp) -> bool {
    at >= FIRST
}

impl SourceCall {
    /// The same call with plausible times only. A missing or implausible end is estimated from start and duration,
    /// where both are known and the call is over.
    #[must_use]
    pub fn with_believable_times(mut self) -> Self {
        self.created_at = self.created_at.filter(|at| is_set(*at));
        self.created_at_derived &= self.created_at.is_some();
        let told = self.created_at.filter(|_| !self.created_at_derived);
        let recorded = |at: Timestamp| told.is_none_or(|told| told.duration_since(at) <= RECORDED_WITHIN);
        self.answered_at = self.answered_at.filter(|at| is_set(*at) && recorded(*at));
        let start = self.answered_at.or(if self.ended_at_estimated { self.created_at } else { told });
        let follows =
            |end: Timestamp| start.is_none_or(|start| start <= end && end.duration_since(start) <= LONGEST_CALL);
        self.ended_at = self.ended_at.filter(|end| is_set(*end) && recorded(*end) && follows(*end));
        if self.ended_at.is_none() {
            self.ended_at = self.estimated_end();
            self.ended_at_estimated = self.ended_at.is_some();
        }
        self
    }

    fn estimated_end(&self) -> Option<Timestamp> {
        use CallStatus::{InProgress, Queued, Ringing, Unknown};
        let going_on = matches!(self.status, Queued | Ringing | InProgress | Unknown);
        let duration = self.duration_ms.filter(|ms| *ms > 0 && !going_on)?;
        let duration = SignedDuration::from_millis(i64::try_from(duration).ok()?);
        let start = self.answered_at.or(self.created_at).filter(|_| duration <= LONGEST_CALL)?;
        start.checked_add(duration).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CallId;

    #[allow(clippy::unnecessary_wraps, reason = "the members it fills are optional")]
    fn at(text: &str) -> Option<Timestamp> {
        Some(text.parse().unwrap())
    }

    /// A call of three minutes, answered after five seconds.
    fn call() -> SourceCall {
        SourceCall {
            status: CallStatus::Completed,
            created_at: at("2026-11-01T10:00:00Z"),
            answered_at: at("2026-11-01T10:00:05Z"),
            ended_at: at("2026-11-01T10:03:05Z"),
            duration_ms: Some(180_000),
            ..SourceCall::named(CallId::parse("c").unwrap())
        }
    }

    fn end(call: SourceCall) -> (Option<Timestamp>, bool) {
        let call = call.with_believable_times();
        (call.ended_at, call.ended_at_estimated)
    }

    #[test]
    fn times_that_agree_are_left_alone() {
        assert_eq!(call().with_believable_times(), call());
        let scheduled = SourceCall { created_at: at("2026-10-01T08:00:00Z"), ..call() };
        assert_eq!(scheduled.clone().with_believable_times(), scheduled);
        let recorded_after = SourceCall { created_at: at("2026-11-01T10:04:00Z"), ..call() };
        assert_eq!(recorded_after.clone().with_believable_times(), recorded_after);
        let bare = SourceCall { created_at: None, answered_at: None, ..call() };
        assert_eq!(bare.clone().with_believable_times(), bare);
    }

    #[test]
    fn an_end_that_contradicts_the_start_is_estimated() {
        for told in [
            "0001-01-01T00:00:00Z",
            "1899-12-31T00:00:00Z",
            "1970-01-01T00:00:00Z",
            "2000-01-01T00:00:00Z",
            "2026-11-01T10:00:04Z",
            "2026-11-03T10:00:06Z",
            "2036-11-01T10:03:05Z",
            "9998-12-31T23:59:59Z",
        ] {
            let told = SourceCall { ended_at: at(told), ..call() };
            assert_eq!(end(told.clone()), (call().ended_at, true), "{told:?}");
            let unanswered = SourceCall { answered_at: None, ..told };
            if unanswered.ended_at > call().created_at && unanswered.ended_at < at("2026-11-03T10:00:00Z") {
                assert_eq!(end(unanswered.clone()), (unanswered.ended_at, false));
            } else {
                assert_eq!(end(unanswered), (at("2026-11-01T10:03:00Z"), true));
            }
        }
    }

    #[test]
    fn an_answer_that_was_never_set_says_nothing_of_the_end() {
        for zero in ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2000-01-01T00:00:00Z"] {
            let told = SourceCall { answered_at: at(zero), ..call() };
            assert_eq!((end(told.clone()), told.with_believable_times().answered_at), ((call().ended_at, false), None));
            let both = SourceCall { answered_at: at(zero), ended_at: at(zero), ..call() };
            assert_eq!(end(both), (at("2026-11-01T10:03:00Z"), true));
        }
    }

    #[test]
    fn where_nothing_can_be_estimated_there_is_no_end() {
        let zero = SourceCall { ended_at: at("1970-01-01T00:00:00Z"), ..call() };
        assert_eq!(end(SourceCall { duration_ms: None, ..zero.clone() }), (None, false));
        assert_eq!(end(SourceCall { duration_ms: Some(0), ..zero.clone() }), (None, false));
        assert_eq!(end(SourceCall { duration_ms: Some(u64::MAX), ..zero.clone() }), (None, false));
        assert_eq!(end(SourceCall { status: CallStatus::InProgress, ..zero.clone() }), (None, false));
        assert_eq!(end(SourceCall { created_at: None, answered_at: None, ..zero }), (None, false));
    }

    #[test]
    fn a_time_read_out_of_an_id_disputes_no_end_that_is_told() {
        let derived = SourceCall {
            created_at: at("2005-03-18T01:58:31Z"),
            created_at_derived: true,
            answered_at: None,
            ..call()
        };
        assert_eq!(end(derived), (call().ended_at, false));
    }
}
