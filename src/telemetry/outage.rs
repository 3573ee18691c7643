//! Outages of the database and the object store. Every request meets the outage, but the log contains one line per
//! minute.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::Side;

/// Time between two lines about the same outage.
const BETWEEN: Duration = Duration::from_secs(60);
/// A success within this time after a failure started before it, so the outage is not over.
const AFTERMATH: Duration = Duration::from_secs(1);

/// A component that may be unavailable.
#[derive(Debug)]
pub struct Outage {
    part: &'static str,
    going: Mutex<Option<Going>>,
}

#[derive(Debug, Clone, Copy)]
struct Going {
    since: Instant,
    said: Instant,
    last: Instant,
    failures: u64,
}

/// What to log about a failure.
#[derive(Debug, PartialEq, Eq)]
enum Say {
    Begins,
    GoesOn { since: Duration, failures: u64 },
    Nothing,
}

static DATABASE: Outage = Outage::new("database");
static OBJECTS: Outage = Outage::new("object store");

/// The outage of a component that all work needs. None for other sides, where failures concern a single job.
#[must_use]
pub fn outage(side: Side) -> Option<&'static Outage> {
    match side {
        Side::Database => Some(&DATABASE),
        Side::ObjectStore => Some(&OBJECTS),
        _ => None,
    }
}

/// Reports a failed use of the database or the object store. One line is logged at the start of an outage and one per
/// minute.
pub fn out_of_reach(side: Side, cause: &str) {
    if let Some(outage) = outage(side) {
        outage.failed(cause);
    }
}

/// Reports a successful use of the database or the object store. One line is logged when an outage ends.
pub fn within_reach(side: Side) {
    if let Some(outage) = outage(side) {
        outage.works();
    }
}

impl Outage {
    /// A component without an outage.
    #[must_use]
    pub const fn new(part: &'static str) -> Self {
        Self { part, going: Mutex::new(None) }
    }

    /// Reports a failed use.
    pub fn failed(&self, cause: &str) {
        let part = self.part;
        match self.fail(Instant::now()) {
            Say::Begins => tracing::error!(part, cause, "out of reach"),
            Say::GoesOn { since, failures } => {
                tracing::error!(part, cause, for_s = since.as_secs(), failures, "still out of reach");
            }
            Say::Nothing => tracing::debug!(part, cause, "out of reach"),
        }
    }

    /// Reports a successful use.
    pub fn works(&self) {
        if let Some((lasted, failures)) = self.end(Instant::now()) {
            tracing::warn!(part = self.part, lasted_s = lasted.as_secs_f64().round(), failures, "within reach again");
        }
    }

    fn fail(&self, now: Instant) -> Say {
        let mut going = self.going.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(outage) = going.as_mut() else {
            *going = Some(Going { since: now, said: now, last: now, failures: 1 });
            return Say::Begins;
        };
        (outage.failures, outage.last) = (outage.failures + 1, now);
        if now.duration_since(outage.said) < BETWEEN {
            return Say::Nothing;
        }
        outage.said = now;
        Say::GoesOn { since: now.duration_since(outage.since), failures: outage.failures }
    }

    fn end(&self, now: Instant) -> Option<(Duration, u64)> {
        let mut going = self.going.lock().unwrap_or_else(PoisonError::into_inner);
        let over = going.take_if(|outage| now.duration_since(outage.last) >= AFTERMATH)?;
        Some((now.duration_since(over.since), over.failures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_when_it_begins_one_a_minute_one_when_it_ends() {
        for (failures, between_ms) in [(236_u32, 250_u32), (8, 1000), (2000, 100)] {
            let outage = Outage::new("database");
            let start = Instant::now();
            let at = |n: u32| start + Duration::from_millis(u64::from(n) * u64::from(between_ms));
            let said: Vec<Say> = (0..failures).map(|n| outage.fail(at(n))).filter(|say| *say != Say::Nothing).collect();
            let minutes = (failures - 1) * between_ms / 60_000;
            assert_eq!(said.len(), 1 + minutes as usize, "{said:?}");
            assert_eq!(said[0], Say::Begins);
            let last = at(failures - 1);
            assert_eq!(outage.end(last + Duration::from_millis(900)), None, "an answer that was on its way");
            let (lasted, counted) = outage.end(last + Duration::from_secs(2)).unwrap();
            assert_eq!((lasted, counted), (last + Duration::from_secs(2) - start, u64::from(failures)));
            assert_eq!(outage.end(last + Duration::from_secs(3)), None, "it is over once");
            assert_eq!(outage.fail(last + Duration::from_secs(4)), Say::Begins);
        }
    }

    #[test]
    fn what_a_single_job_meets_is_no_outage() {
        assert!(outage(Side::Database).is_some() && outage(Side::ObjectStore).is_some());
        for side in [Side::Source, Side::Worker, Side::Configuration] {
            assert!(outage(side).is_none(), "{side:?}");
        }
    }
}
