//! The right to compute: so many jobs at once, live calls before a backfill's. A backfill's job gives way in the middle
//! of its recording, so that it may have every core while nobody else wants one, and a live call finds one free at once.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// How often one that gives way looks whether it is wanted at all any more.
const LOOK: Duration = Duration::from_millis(100);

/// Whose work it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits for the result.
    Live,
    /// It may wait for all that is live.
    Patient,
}

/// Seats of one kind. Clones share them.
#[derive(Debug, Clone)]
pub struct Seats(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    free: Mutex<usize>,
    /// Live work that waits for a seat.
    urgent: AtomicUsize,
    /// For those who wait for their first seat.
    given_back: Notify,
    /// For those who gave theirs away.
    changed: Condvar,
}

impl Inner {
    fn free(&self) -> MutexGuard<'_, usize> {
        // A count is right whatever its holder was about to do.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self) {
        *self.free() += 1;
        self.tell();
    }

    fn tell(&self) {
        self.given_back.notify_waiters();
        self.changed.notify_all();
    }

    fn urgent(&self) -> bool {
        self.urgent.load(Ordering::SeqCst) > 0
    }

    fn take(&self, urgency: Urgency) -> bool {
        let mut free = self.free();
        let may = *free > 0 && (urgency == Urgency::Live || !self.urgent());
        *free -= usize::from(may);
        may
    }
}

/// Counts live work while it waits.
struct Waiting<'a>(&'a Inner);

impl<'a> Waiting<'a> {
    fn announce(inner: &'a Inner) -> Self {
        inner.urgent.fetch_add(1, Ordering::SeqCst);
        Self(inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.urgent.fetch_sub(1, Ordering::SeqCst);
        self.0.tell();
    }
}

impl Seats {
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Inner {
            free: Mutex::new(count.max(1)),
            urgent: AtomicUsize::new(0),
            given_back: Notify::new(),
            changed: Condvar::new(),
        }))
    }

    /// Waits for a seat.
    pub async fn take(&self, urgency: Urgency) -> Seat {
        let inner = &*self.0;
        let _waiting = (urgency == Urgency::Live).then(|| Waiting::announce(inner));
        loop {
            let mut given_back = pin!(inner.given_back.notified());
            // From here on nothing given back is missed.
            given_back.as_mut().enable();
            if inner.take(urgency) {
                return Seat { inner: self.0.clone(), urgency, held: AtomicBool::new(true) };
            }
            given_back.await;
        }
    }
}

/// A seat; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    inner: Arc<Inner>,
    urgency: Urgency,
    held: AtomicBool,
}

impl Seat {
    /// Lets live work go first, if there is any that has no seat: blocks the thread until it has had its turn, or until
    /// `over`. To be called now and then by patient work; costs next to nothing where nobody waits.
    pub fn give_way(&self, over: impl Fn() -> bool) {
        if self.urgency == Urgency::Live || !self.inner.urgent() || !self.held.load(Ordering::SeqCst) {
            return;
        }
        self.held.store(false, Ordering::SeqCst);
        self.inner.give_back();
        let mut free = self.inner.free();
        while *free == 0 || self.inner.urgent() {
            if over() {
                return;
            }
            free = self.inner.changed.wait_timeout(free, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        self.held.store(true, Ordering::SeqCst);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if *self.held.get_mut() {
            self.inner.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use futures::FutureExt;

    use super::{Seats, Urgency};

    #[tokio::test]
    async fn there_are_as_many_seats_as_said_and_one_given_back_is_taken() {
        let seats = Seats::new(2);
        let (first, _second) = (seats.take(Urgency::Patient).await, seats.take(Urgency::Patient).await);
        let third = tokio::spawn({
            let seats = seats.clone();
            async move { drop(seats.take(Urgency::Patient).await) }
        });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        drop(first);
        third.await.unwrap();
    }

    #[tokio::test]
    async fn a_seat_goes_to_live_work_first_whoever_came_first() {
        let seats = Seats::new(1);
        let held = seats.take(Urgency::Live).await;
        let (mut patient, mut live) = (Box::pin(seats.take(Urgency::Patient)), Box::pin(seats.take(Urgency::Live)));
        assert!(patient.as_mut().now_or_never().is_none());
        assert!(live.as_mut().now_or_never().is_none());
        drop(held);
        assert!(patient.as_mut().now_or_never().is_none());
        let live = live.await;
        assert!(patient.as_mut().now_or_never().is_none());
        drop(live);
        drop(patient.await);
    }

    #[tokio::test]
    async fn patient_work_gives_way_in_its_middle_and_goes_on_after() {
        let seats = Seats::new(1);
        let patient = seats.take(Urgency::Patient).await;
        let (ended, end) = mpsc::channel();
        let working = Arc::new(AtomicBool::new(true));
        let at_work = std::thread::spawn({
            let working = working.clone();
            move || {
                while working.load(Ordering::SeqCst) {
                    patient.give_way(|| false);
                    std::thread::yield_now();
                }
                ended.send(()).unwrap();
            }
        });
        let live = seats.take(Urgency::Live).await;
        working.store(false, Ordering::SeqCst);
        assert!(end.recv_timeout(Duration::from_millis(300)).is_err(), "it works on beside the live call");
        drop(live);
        end.recv().unwrap();
        at_work.join().unwrap();
        drop(seats.take(Urgency::Patient).await);
    }

    #[tokio::test]
    async fn work_that_is_over_while_it_gives_way_leaves_its_seat_to_others() {
        let seats = Seats::new(1);
        let patient = seats.take(Urgency::Patient).await;
        let at_work = std::thread::spawn(move || {
            while patient.held.load(Ordering::SeqCst) {
                patient.give_way(|| true);
                std::thread::yield_now();
            }
        });
        let live = seats.take(Urgency::Live).await;
        at_work.join().unwrap();
        let mut next = Box::pin(seats.take(Urgency::Patient));
        assert!(next.as_mut().now_or_never().is_none(), "one seat, two holders");
        drop(live);
        drop(next.await);
    }

    #[tokio::test]
    async fn live_work_that_no_longer_wants_a_seat_holds_nobody_up() {
        let seats = Seats::new(1);
        let held = seats.take(Urgency::Patient).await;
        let mut live = Box::pin(seats.take(Urgency::Live));
        assert!(live.as_mut().now_or_never().is_none());
        drop(live);
        drop(held);
        drop(seats.take(Urgency::Patient).await);
    }
}
