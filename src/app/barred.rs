//! Delivery receivers that refuse our key (401, 403). Retrying every delivery could get the key locked. While a
//! receiver is barred, one delivery per minute tries it. All other deliveries wait for the result.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::SourceName;

/// Time between two tries of a barred receiver.
pub const ASK_AGAIN: Duration = Duration::from_secs(60);

/// The barred receivers by source, with the time of the next try.
#[derive(Debug, Default)]
pub struct Barred(Mutex<HashMap<SourceName, Timestamp>>);

impl Barred {
    fn all(&self) -> MutexGuard<'_, HashMap<SourceName, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when a delivery may be sent now. A barred receiver allows one delivery when its next try is due.
    #[must_use]
    pub fn may_ask(&self, receiver: &SourceName, now: Timestamp) -> bool {
        match self.all().get_mut(receiver) {
            None => true,
            Some(next) if *next <= now => {
                *next = later(now);
                true
            }
            Some(_) => false,
        }
    }

    /// Records that a receiver refused our key. True when it was not barred before.
    pub fn refused(&self, receiver: &SourceName, now: Timestamp) -> bool {
        self.all().insert(receiver.clone(), later(now)).is_none()
    }

    /// Records that a receiver accepted our key. True when it was barred before.
    pub fn accepted(&self, receiver: &SourceName) -> bool {
        self.all().remove(receiver).is_some()
    }
}

fn later(now: Timestamp) -> Timestamp {
    now.checked_add(ASK_AGAIN).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_delivery_a_minute_asks_a_receiver_that_is_barred() {
        let (barred, one) = (Barred::default(), SourceName::parse("one").unwrap());
        let other = SourceName::parse("other").unwrap();
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        assert!(barred.may_ask(&one, at(0)));
        assert!(barred.refused(&one, at(0)) && !barred.refused(&one, at(1)), "told once");
        assert!(!barred.may_ask(&one, at(2)) && barred.may_ask(&other, at(2)));
        assert!(barred.may_ask(&one, at(61)));
        assert!(!barred.may_ask(&one, at(62)), "somebody is asking");
        assert!(barred.accepted(&one) && !barred.accepted(&one));
        assert!(barred.may_ask(&one, at(63)) && barred.may_ask(&one, at(63)));
    }
}
