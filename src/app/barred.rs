//! Receivers that do not take our key (401, 403). Asking with every delivery would only get the key locked: while a receiver
//! is barred one delivery asks now and then, and all the others wait for what it is told.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::SourceName;

/// Between two questions to a receiver that is barred.
pub const ASK_AGAIN: Duration = Duration::from_secs(60);

/// The receivers that are barred, by their source, and when each is asked again.
#[derive(Debug, Default)]
pub struct Barred(Mutex<HashMap<SourceName, Timestamp>>);

impl Barred {
    fn all(&self) -> MutexGuard<'_, HashMap<SourceName, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a delivery may ask now. Of a receiver that is barred, one may when its moment has come.
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

    /// Notes that a receiver has refused our key; true where that is news.
    pub fn refused(&self, receiver: &SourceName, now: Timestamp) -> bool {
        self.all().insert(receiver.clone(), later(now)).is_none()
    }

    /// Notes that a receiver has taken our key; true where that is news.
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
