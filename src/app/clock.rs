//! What time it is: the machine's clock, put right by the database's, by which every stored moment is compared.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

use super::App;
use crate::store::StoreError;

/// A machine whose clock differs from the database's by more than this is wrong, or the database's is.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(30);

/// What time it is. Tests turn theirs by hand.
#[derive(Clone)]
pub struct Clock {
    machine: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// How far tests have turned the database's clock, milliseconds.
    turned: Arc<AtomicI64>,
    /// What makes the database's time of the machine's, milliseconds. Shared by all clones.
    correction: Arc<AtomicI64>,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self { machine: Arc::new(Timestamp::now), turned: Arc::default(), correction: Arc::default() }
    }

    /// The machine's clock and the database's, both moved by as many milliseconds as `offset` holds at the moment.
    #[must_use]
    pub fn offset_by(offset: Arc<AtomicI64>) -> Self {
        Self::skewed(offset, Arc::default())
    }

    /// The same, with the machine's clock as many milliseconds ahead of the database's as `ahead` holds.
    #[must_use]
    pub fn skewed(offset: Arc<AtomicI64>, ahead: Arc<AtomicI64>) -> Self {
        let turned = offset.clone();
        let machine = move || {
            let ms = offset.load(Ordering::SeqCst).saturating_add(ahead.load(Ordering::SeqCst));
            Timestamp::now().checked_add(SignedDuration::from_millis(ms)).unwrap_or(Timestamp::MAX)
        };
        Self { machine: Arc::new(machine), turned, correction: Arc::default() }
    }

    /// The moment, by the database's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let correction = SignedDuration::from_millis(self.correction.load(Ordering::SeqCst));
        let machine = (self.machine)();
        machine.checked_add(correction).unwrap_or(machine)
    }

    /// How far the machine's clock is ahead of the database's; negative where it is behind.
    #[must_use]
    pub fn ahead(&self) -> SignedDuration {
        SignedDuration::from_millis(self.correction.load(Ordering::SeqCst).saturating_neg())
    }

    /// Whether the machine's clock and the database's differ by more than [`CLOCK_TOLERANCE`].
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.ahead().abs() > CLOCK_TOLERANCE
    }

    /// Takes in what the database's clock said to a question that was on its way from `asked` until now. A difference
    /// that may be the way's own changes nothing: a clock that jumps about is of no use.
    fn heed(&self, asked: Timestamp, database_ms: i64, turned: i64) {
        let answered = (self.machine)();
        if self.turned.load(Ordering::SeqCst) != turned {
            return;
        }
        let way_ms = answered.as_millisecond().saturating_sub(asked.as_millisecond()).max(0);
        let middle_ms = asked.as_millisecond().saturating_add(way_ms / 2);
        let measured = database_ms.saturating_add(turned).saturating_sub(middle_ms);
        let held = self.correction.load(Ordering::SeqCst);
        if measured.saturating_sub(held).abs() > way_ms / 2 + LEAST_MS {
            self.correction.store(if measured.abs() <= LEAST_MS { 0 } else { measured }, Ordering::SeqCst);
        }
    }
}

/// Differences up to this are none, milliseconds: as good as machines that keep time agree.
const LEAST_MS: i64 = 100;

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl App {
    /// Compares this machine's clock with the database's and goes by that from now on. SQLite has no clock but this
    /// machine's: nothing to compare there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn compare_clocks(&self) -> Result<SignedDuration, StoreError> {
        let turned = self.clock.turned.load(Ordering::SeqCst);
        let asked = (self.clock.machine)();
        if let Some(database_ms) = self.store.database_time().await? {
            self.clock.heed(asked, database_ms, turned);
        }
        Ok(self.clock.ahead())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_databases_time_is_gone_by_and_noise_is_not() {
        let (offset, ahead) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let clock = Clock::skewed(offset.clone(), ahead.clone());
        let told = |late_ms: i64| {
            let asked = (clock.machine)();
            let turned = offset.load(Ordering::SeqCst);
            clock.heed(asked, Timestamp::now().as_millisecond() + late_ms, turned);
        };
        let apart = || (clock.now().as_millisecond() - Timestamp::now().as_millisecond()).abs();
        for (skew_ms, wrong) in [(0, false), (29_000, false), (31_000, true), (-31_000, true), (864_000_000, true)] {
            ahead.store(skew_ms, Ordering::SeqCst);
            told(0);
            assert!(apart() < 1000, "{skew_ms}: {}", apart());
            assert_eq!(clock.is_wrong(), wrong, "{skew_ms}");
            assert!((clock.ahead().as_millis() - i128::from(skew_ms)).abs() < 1000, "{skew_ms}");
        }
        ahead.store(0, Ordering::SeqCst);
        told(0);
        let before = clock.ahead();
        told(LEAST_MS / 2);
        assert_eq!(clock.ahead(), before);
        // A clock that is turned for both at once stays right.
        offset.store(5_000_000, Ordering::SeqCst);
        assert!(!clock.is_wrong());
        assert!(apart() > 4_900_000);
    }

    #[test]
    fn an_answer_that_came_while_a_test_turned_the_clock_is_not_heeded() {
        let offset = Arc::new(AtomicI64::new(0));
        let clock = Clock::offset_by(offset.clone());
        let (asked, turned) = ((clock.machine)(), 0);
        offset.store(9_000_000, Ordering::SeqCst);
        clock.heed(asked, Timestamp::now().as_millisecond(), turned);
        assert!(!clock.is_wrong());
    }
}
