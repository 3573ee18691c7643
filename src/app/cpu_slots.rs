//! CPU slots. Live calls pre-empt backfill jobs: a live call takes a slot at once, and a backfill job over the limit
//! pauses mid-recording. Backfill jobs run at idle priority, so a live call loses little time to them. Without live
//! calls a backfill uses every core.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::config::BackfillCpu;

/// How often a paused job checks whether its attempt is over.
const LOOK: Duration = Duration::from_millis(100);

/// Priority of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// A live call. Its result is wanted soon.
    Live,
    /// A backfill job. It may wait for all live calls.
    Patient,
}

/// A computation that ended early.
#[derive(Debug, thiserror::Error)]
#[error("it stopped: {0}")]
pub struct ComputeStopped(String);

/// On systems without thread priorities, backfill jobs pause by their slots only.
fn leave_the_cores_to_others() {
    // `SCHED_IDLE` (sched(7)). Threads that this thread starts inherit it. A higher nice
    // value is not enough: a thread that wakes up beside such a thread waits some milliseconds for the end of its time
    // slice, and a call wakes up about fifty times. A failed call changes nothing, so the result is ignored.
    #[cfg(target_os = "linux")]
    let _ = thread_priority::set_thread_priority_and_policy(
        thread_priority::thread_native_id(),
        thread_priority::ThreadPriority::Min,
        thread_priority::ThreadSchedulePolicy::Normal(thread_priority::NormalThreadSchedulePolicy::Idle),
    );
}

/// Slots of one kind. Clones share them.
#[derive(Debug, Clone)]
pub struct CpuSlots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    count: usize,
    patient: BackfillCpu,
    taken: Mutex<Taken>,
    /// Wakes tasks that wait for their first slot.
    given_back: Notify,
    /// Wakes threads that paused and wait to get their slot back.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    live: usize,
    patient: usize,
}

impl Inner {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        // The counts are valid even after a panic of the lock holder.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, urgency: Urgency) {
        *self.taken().of(urgency) -= 1;
        self.given_back.notify_waiters();
        self.changed.notify_all();
    }

    /// Live calls count other live calls only, so a backfill job never delays them.
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

impl CpuSlots {
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

    /// Waits for a slot.
    pub async fn take(&self, urgency: Urgency) -> CpuSlot {
        let inner = &*self.0;
        loop {
            let mut given_back = pin!(inner.given_back.notified());
            // After this line no notification is lost.
            given_back.as_mut().enable();
            if inner.take(urgency) {
                return CpuSlot { inner: self.0.clone(), urgency, held: AtomicBool::new(true) };
            }
            given_back.await;
        }
    }
}

/// A slot. Drop releases it.
#[derive(Debug)]
pub struct CpuSlot {
    inner: Arc<Inner>,
    urgency: Urgency,
    held: AtomicBool,
}

impl CpuSlot {
    /// Runs blocking work with the slot. Backfill work gets a new thread each time, because a thread cannot leave idle
    /// priority again.
    ///
    /// # Errors
    /// [`ComputeStopped`] when the work panicked, or when no thread could be started.
    pub async fn compute<T: Send + 'static>(
        self,
        work: impl FnOnce(Self) -> T + Send + 'static,
    ) -> Result<T, ComputeStopped> {
        if self.urgency == Urgency::Live || self.inner.patient == BackfillCpu::Normal {
            let span = tracing::Span::current();
            let at_work = tokio::task::spawn_blocking(move || span.in_scope(|| work(self)));
            return at_work.await.map_err(|err| ComputeStopped(err.to_string()));
        }
        let (done, result) = oneshot::channel();
        let thread = std::thread::Builder::new().name("patient".to_owned()).spawn(move || {
            leave_the_cores_to_others();
            // The receiver is gone when the attempt was dropped.
            let _ = done.send(work(self));
        });
        thread.map_err(|err| ComputeStopped(format!("no thread: {err}")))?;
        result.await.map_err(|_| ComputeStopped("it panicked".to_owned()))
    }

    /// When more slots are taken than exist, a backfill job releases its slot. This call then blocks the thread until a
    /// slot is free or `over` returns true. Backfill work must call it regularly; it costs almost nothing.
    pub fn yield_if_preempted(&self, over: impl Fn() -> bool) {
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

impl Drop for CpuSlot {
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

    use super::{BackfillCpu, CpuSlots, Urgency};

    #[tokio::test]
    async fn there_are_as_many_slots_as_said_and_one_given_back_is_taken() {
        for urgency in [Urgency::Patient, Urgency::Live] {
            let slots = CpuSlots::new(2, BackfillCpu::Idle);
            let (first, _second) = (slots.take(urgency).await, slots.take(urgency).await);
            let third = tokio::spawn({
                let slots = slots.clone();
                async move { drop(slots.take(urgency).await) }
            });
            tokio::task::yield_now().await;
            assert!(!third.is_finished());
            drop(first);
            third.await.unwrap();
        }
    }

    #[tokio::test]
    async fn live_work_never_waits_for_patient_work_but_patient_work_for_live() {
        let slots = CpuSlots::new(1, BackfillCpu::Idle);
        let patient = slots.take(Urgency::Patient).await;
        let live = slots.take(Urgency::Live).now_or_never().expect("it waits");
        drop(patient);
        let mut next = Box::pin(slots.take(Urgency::Patient));
        assert!(next.as_mut().now_or_never().is_none(), "beside a live call");
        drop(live);
        drop(next.await);
    }

    #[tokio::test]
    async fn patient_work_is_preempted_in_its_middle_and_goes_on_after() {
        let slots = CpuSlots::new(1, BackfillCpu::Idle);
        let patient = slots.take(Urgency::Patient).await;
        let (ended, end) = mpsc::channel();
        let (working, gone) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let at_work = std::thread::spawn({
            let (working, gone) = (working.clone(), gone.clone());
            move || {
                while working.load(Ordering::SeqCst) {
                    // `over` is only called while the job is paused.
                    patient.yield_if_preempted(|| {
                        gone.store(true, Ordering::SeqCst);
                        false
                    });
                    std::thread::yield_now();
                }
                ended.send(()).unwrap();
            }
        });
        let live = slots.take(Urgency::Live).await;
        while !gone.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        working.store(false, Ordering::SeqCst);
        assert!(end.recv_timeout(Duration::from_millis(300)).is_err(), "it works on beside the live call");
        drop(live);
        end.recv().unwrap();
        at_work.join().unwrap();
        drop(slots.take(Urgency::Patient).await);
    }

    #[tokio::test]
    async fn patient_work_goes_on_beside_live_work_where_there_is_room() {
        let slots = CpuSlots::new(2, BackfillCpu::Idle);
        let patient = slots.take(Urgency::Patient).await;
        let _live = slots.take(Urgency::Live).await;
        patient.yield_if_preempted(|| panic!("it is preempted"));
    }

    #[tokio::test]
    async fn work_that_is_over_while_it_gives_way_leaves_its_slot_to_others() {
        let slots = CpuSlots::new(1, BackfillCpu::Idle);
        let patient = slots.take(Urgency::Patient).await;
        let live = slots.take(Urgency::Live).await;
        patient.yield_if_preempted(|| true);
        assert!(!patient.held.load(Ordering::SeqCst));
        drop(patient);
        let mut next = Box::pin(slots.take(Urgency::Patient));
        assert!(next.as_mut().now_or_never().is_none(), "one slot, two holders");
        drop(live);
        drop(next.await);
    }

    #[tokio::test]
    async fn what_panics_is_a_failure_and_what_does_not_gives_its_result() {
        let slots = CpuSlots::new(1, BackfillCpu::Idle);
        for urgency in [Urgency::Patient, Urgency::Live] {
            assert_eq!(slots.take(urgency).await.compute(|_| 7).await.unwrap(), 7);
            let panics = |_| assert!(std::hint::black_box(false), "on purpose");
            let stopped = slots.take(urgency).await.compute(panics).await;
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
            let slot = CpuSlots::new(1, patient).take(urgency).await;
            let seen = slot.compute(move |_| (policy(), std::thread::spawn(policy).join().unwrap())).await;
            assert_eq!(seen.unwrap(), (expected, expected), "{patient:?} {urgency:?}");
        }
    }
}
