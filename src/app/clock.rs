//! The clock of a run: the machine's clock plus a correction to the database's clock. Stored times are compared by the
//! database's clock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

use super::App;
use crate::store::StoreError;

/// Largest accepted difference between the machine's clock and the database's clock.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(30);

/// Source of the current time. Tests use an adjustable clock.
#[derive(Clone)]
pub struct Clock {
    machine: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Offset that tests add to the database's clock, milliseconds.
    turned: Arc<AtomicI64>,
    /// Correction from the machine's time to the database's time, milliseconds. All clones share it.
    correction: Arc<AtomicI64>,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self { machine: Arc::new(machine_time), turned: Arc::default(), correction: Arc::default() }
    }

    /// For tests: both clocks are moved by `offset` milliseconds.
    #[must_use]
    pub fn offset_by(offset: Arc<AtomicI64>) -> Self {
        Self::skewed(offset, Arc::default())
    }

    /// For tests: as [`offset_by`](Self::offset_by), and the machine's clock is `ahead` milliseconds ahead of the
    /// database's clock.
    #[must_use]
    pub fn skewed(offset: Arc<AtomicI64>, ahead: Arc<AtomicI64>) -> Self {
        let turned = offset.clone();
        let machine = move || {
            let ms = offset.load(Ordering::SeqCst).saturating_add(ahead.load(Ordering::SeqCst));
            machine_time().checked_add(SignedDuration::from_millis(ms)).unwrap_or(Timestamp::MAX)
        };
        Self { machine: Arc::new(machine), turned, correction: Arc::default() }
    }

    /// The current time by the database's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let correction = SignedDuration::from_millis(self.correction.load(Ordering::SeqCst));
        let machine = (self.machine)();
        machine.checked_add(correction).unwrap_or(machine)
    }

    /// How far the machine's clock is ahead of the database's clock. Negative when it is behind.
    #[must_use]
    pub fn ahead(&self) -> SignedDuration {
        SignedDuration::from_millis(self.correction.load(Ordering::SeqCst).saturating_neg())
    }

    /// True when the two clocks differ by more than [`CLOCK_TOLERANCE`].
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.ahead().abs() > CLOCK_TOLERANCE
    }

    /// Updates the correction from a database time that was requested at `asked` and has arrived now. A difference
    /// within half the round trip plus [`LEAST_MS`] is ignored, so that network delay does not make the clock jump.
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

/// Differences up to this count as zero, milliseconds. Machines with time synchronisation agree about that closely.
const LEAST_MS: i64 = 100;

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl App {
    /// Compares this machine's clock with the database's clock and updates the correction. SQLite has no clock of its
    /// own, so nothing is compared there.
    pub async fn compare_clocks(&self) -> Result<SignedDuration, StoreError> {
        let turned = self.clock.turned.load(Ordering::SeqCst);
        let asked = (self.clock.machine)();
        if let Some(database_ms) = self.store.database_time().await? {
            self.clock.heed(asked, database_ms, turned);
        }
        Ok(self.clock.ahead())
    }
}

/// The time of this machine.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn machine_time() -> Timestamp {
    Timestamp::now()
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
            clock.heed(asked, machine_time().as_millisecond() + late_ms, turned);
        };
        let apart = || (clock.now().as_millisecond() - machine_time().as_millisecond()).abs();
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
        // A shift of both clocks is no difference between them.
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
        clock.heed(asked, machine_time().as_millisecond(), turned);
        assert!(!clock.is_wrong());
    }
}
