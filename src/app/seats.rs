//! The right to compute: so many jobs at once, live calls before a backfill's. A live call never waits for a backfill: it
//! takes its seat at once, and a backfill's job that is one too many then gives way in the middle of its recording. What
//! it still does until it gets there, and beside the live call on other seats, it does on a thread that gets what the
//! others leave. So a backfill has every core while nobody else wants one, and a live call hardly feels it.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::config::BackfillCpu;

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

/// A computation that did not come to its end.
#[derive(Debug, thiserror::Error)]
#[error("it stopped: {0}")]
pub struct Stopped(String);

/// Where a thread cannot be told apart from its process, patient work gives way by its seats alone.
fn leave_the_cores_to_others() {
    // `SCHED_IDLE` (sched(7)), and what the thread starts has it too. A mere niceness is not enough: whoever wakes up
    // beside such a thread waits for the end of its slice, some milliseconds, each of the fifty times that a call does.
    // Refused, it is no worse than without.
    #[cfg(target_os = "linux")]
    let _ = thread_priority::set_thread_priority_and_policy(
        thread_priority::thread_native_id(),
        thread_priority::ThreadPriority::Min,
        thread_priority::ThreadSchedulePolicy::Normal(thread_priority::NormalThreadSchedulePolicy::Idle),
    );
}

/// Seats of one kind. Clones share them.
#[derive(Debug, Clone)]
pub struct Seats(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    count: usize,
    patient: BackfillCpu,
    taken: Mutex<Taken>,
    /// For those who wait for their first seat.
    given_back: Notify,
    /// For those who gave theirs away.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    live: usize,
    patient: usize,
}

impl Inner {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        // A count is right whatever its holder was about to do.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, urgency: Urgency) {
        *self.taken().of(urgency) -= 1;
        self.given_back.notify_waiters();
        self.changed.notify_all();
    }

    /// Live work minds live work alone.
    fn take(&self, urgency: Urgency) -> bool {
        let mut taken = self.taken();
        let may = match urgency {
            Urgency::Live => taken.live < self.count,
            Urgency::Patient => taken.all() < self.count,
        };
        *taken.of(urgency) += usize::from(may);
        may
    }
}

impl Taken {
    const fn of(&mut self, urgency: Urgency) -> &mut usize {
        match urgency {
            Urgency::Live => &mut self.live,
            Urgency::Patient => &mut self.patient,
        }
    }

    const fn all(&self) -> usize {
        self.live + self.patient
    }
}

impl Seats {
    #[must_use]
    pub fn new(count: usize, patient: BackfillCpu) -> Self {
        Self(Arc::new(Inner {
            count: count.max(1),
            patient,
            taken: Mutex::default(),
            given_back: Notify::new(),
            changed: Condvar::new(),
        }))
    }

    /// Waits for a seat.
    pub async fn take(&self, urgency: Urgency) -> Seat {
        let inner = &*self.0;
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
    /// Runs what takes a core where it may block, with the seat. A thread that leaves the cores to others is a new one
    /// each time: what it has left it may not take back.
    ///
    /// # Errors
    /// [`Stopped`] when it panicked, or no thread can be had.
    pub async fn compute<T: Send + 'static>(self, work: impl FnOnce(Self) -> T + Send + 'static) -> Result<T, Stopped> {
        if self.urgency == Urgency::Live || self.inner.patient == BackfillCpu::Normal {
            let span = tracing::Span::current();
            let at_work = tokio::task::spawn_blocking(move || span.in_scope(|| work(self)));
            return at_work.await.map_err(|err| Stopped(err.to_string()));
        }
        let (done, result) = oneshot::channel();
        let thread = std::thread::Builder::new().name("patient".to_owned()).spawn(move || {
            leave_the_cores_to_others();
            // Nobody listens any more when the attempt has been dropped.
            let _ = done.send(work(self));
        });
        thread.map_err(|err| Stopped(format!("no thread: {err}")))?;
        result.await.map_err(|_| Stopped("it panicked".to_owned()))
    }

    /// Where more seats are taken than there are, patient work gives its own up: this blocks the thread until there is
    /// one to spare, or until `over`. To be called now and then by patient work; costs next to nothing.
    pub fn give_way(&self, over: impl Fn() -> bool) {
        if self.urgency == Urgency::Live || !self.held.load(Ordering::SeqCst) {
            return;
        }
        let mut taken = self.inner.taken();
        if taken.all() <= self.inner.count {
            return;
        }
        taken.patient -= 1;
        self.held.store(false, Ordering::SeqCst);
        while taken.all() >= self.inner.count {
            if over() {
                return;
            }
            taken = self.inner.changed.wait_timeout(taken, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        taken.patient += 1;
        self.held.store(true, Ordering::SeqCst);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if *self.held.get_mut() {
            self.inner.give_back(self.urgency);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use futures::FutureExt;

    use super::{BackfillCpu, Seats, Urgency};

    #[tokio::test]
    async fn there_are_as_many_seats_as_said_and_one_given_back_is_taken() {
        for urgency in [Urgency::Patient, Urgency::Live] {
            let seats = Seats::new(2, BackfillCpu::Idle);
            let (first, _second) = (seats.take(urgency).await, seats.take(urgency).await);
            let third = tokio::spawn({
                let seats = seats.clone();
                async move { drop(seats.take(urgency).await) }
            });
            tokio::task::yield_now().await;
            assert!(!third.is_finished());
            drop(first);
            third.await.unwrap();
        }
    }

    #[tokio::test]
    async fn live_work_never_waits_for_patient_work_but_patient_work_for_live() {
        let seats = Seats::new(1, BackfillCpu::Idle);
        let patient = seats.take(Urgency::Patient).await;
        let live = seats.take(Urgency::Live).now_or_never().expect("it waits");
        drop(patient);
        let mut next = Box::pin(seats.take(Urgency::Patient));
        assert!(next.as_mut().now_or_never().is_none(), "beside a live call");
        drop(live);
        drop(next.await);
    }

    #[tokio::test]
    async fn patient_work_gives_way_in_its_middle_and_goes_on_after() {
        let seats = Seats::new(1, BackfillCpu::Idle);
        let patient = seats.take(Urgency::Patient).await;
        let (ended, end) = mpsc::channel();
        let (working, gone) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let at_work = std::thread::spawn({
            let (working, gone) = (working.clone(), gone.clone());
            move || {
                while working.load(Ordering::SeqCst) {
                    // It asks only while it has given its seat away.
                    patient.give_way(|| {
                        gone.store(true, Ordering::SeqCst);
                        false
                    });
                    std::thread::yield_now();
                }
                ended.send(()).unwrap();
            }
        });
        let live = seats.take(Urgency::Live).await;
        while !gone.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        working.store(false, Ordering::SeqCst);
        assert!(end.recv_timeout(Duration::from_millis(300)).is_err(), "it works on beside the live call");
        drop(live);
        end.recv().unwrap();
        at_work.join().unwrap();
        drop(seats.take(Urgency::Patient).await);
    }

    #[tokio::test]
    async fn patient_work_goes_on_beside_live_work_where_there_is_room() {
        let seats = Seats::new(2, BackfillCpu::Idle);
        let patient = seats.take(Urgency::Patient).await;
        let _live = seats.take(Urgency::Live).await;
        patient.give_way(|| panic!("it gives way"));
    }

    #[tokio::test]
    async fn work_that_is_over_while_it_gives_way_leaves_its_seat_to_others() {
        let seats = Seats::new(1, BackfillCpu::Idle);
        let patient = seats.take(Urgency::Patient).await;
        let live = seats.take(Urgency::Live).await;
        patient.give_way(|| true);
        assert!(!patient.held.load(Ordering::SeqCst));
        drop(patient);
        let mut next = Box::pin(seats.take(Urgency::Patient));
        assert!(next.as_mut().now_or_never().is_none(), "one seat, two holders");
        drop(live);
        drop(next.await);
    }

    #[tokio::test]
    async fn what_panics_is_a_failure_and_what_does_not_gives_its_result() {
        let seats = Seats::new(1, BackfillCpu::Idle);
        for urgency in [Urgency::Patient, Urgency::Live] {
            assert_eq!(seats.take(urgency).await.compute(|_| 7).await.unwrap(), 7);
            let panics = |_| assert!(std::hint::black_box(false), "on purpose");
            let stopped = seats.take(urgency).await.compute(panics).await;
            assert!(stopped.unwrap_err().to_string().starts_with("it stopped: "));
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn patient_work_has_what_others_leave_and_threads_it_starts_too_unless_told_otherwise() {
        let policy = || thread_priority::thread_schedule_policy().unwrap();
        let idle = thread_priority::ThreadSchedulePolicy::Normal(thread_priority::NormalThreadSchedulePolicy::Idle);
        let own = policy();
        for (patient, urgency, expected) in [
            (BackfillCpu::Idle, Urgency::Patient, idle),
            (BackfillCpu::Idle, Urgency::Live, own),
            (BackfillCpu::Normal, Urgency::Patient, own),
        ] {
            let seat = Seats::new(1, patient).take(urgency).await;
            let seen = seat.compute(move |_| (policy(), std::thread::spawn(policy).join().unwrap())).await;
            assert_eq!(seen.unwrap(), (expected, expected), "{patient:?} {urgency:?}");
        }
    }
}
