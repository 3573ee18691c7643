//! One call that one attempt of `process_call` processes, and what all its steps share: urgency, boundaries, snoozes for
//! a recording that is not there yet, and CPU slots.

use std::time::Duration;

use jiff::Timestamp;

use crate::app::{App, Platform, Urgency};
use crate::artifacts::CallPrefix;
use crate::domain::{RetentionState, SourceCall, Stage};
use crate::jobs::{At, Stop};
use crate::queue;
use crate::queue::Lane;
use crate::store::CallRecord;
use crate::transcript::engine::EngineError;

/// Checks of a missing or invalid recording before the worker accepts the result.
const LEAST_SNOOZES: u32 = 3;
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// Three checks with these pauses end within a minute.
const LONGEST_LATE_PAUSE: Duration = Duration::from_secs(20);
/// Upper limit for the end of a call, counted from the time at which the call was first seen.
const LONGEST_CALL: Duration = Duration::from_secs(86_400);

/// One call that one attempt processes.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub app: &'a App,
    pub job: &'a queue::JobAttempt,
    pub platform: &'a Platform,
    pub record: CallRecord,
}

impl Work<'_> {
    /// Calls of a backfill wait for live calls, because a live call's result is wanted at once.
    pub(super) fn urgency(&self) -> Urgency {
        match self.job.lane {
            Lane::Backfill => Urgency::Patient,
            Lane::Live | Lane::Maintenance => Urgency::Live,
        }
    }

    /// A boundary between two steps. Crash-recovery tests halt the process here.
    pub(super) async fn boundary(&self, name: &str) {
        if self.app.config.worker.park_at == name {
            tracing::warn!(boundary = name, "parked");
            std::future::pending::<()>().await;
        }
    }

    /// The end of the grace period for a missing recording. The period starts at the end of the call, or at the time at
    /// which the call was first seen if the end is unknown.
    fn grace_ends(&self, call: Option<&SourceCall>) -> Timestamp {
        let seen = self.record.first_seen_at;
        let latest = seen.checked_add(LONGEST_CALL).unwrap_or(seen);
        // An end far after the first sight is a wrong value. The limit keeps the wait finite.
        let from = call.and_then(|call| call.ended_at).map_or(seen, |ended| ended.min(latest));
        from.checked_add(self.platform.settings.recording_grace.0).unwrap_or(from)
    }

    /// The snooze for a call or a recording that is missing or invalid, which may be an incident at the host. Within
    /// the grace period it is the snooze of `too_early`. After it, the job snoozes until it has checked [`LEAST_SNOOZES`]
    /// times, within a minute. Returns `None` after that.
    pub(super) fn not_yet(&self, call: Option<&SourceCall>) -> Option<Stop> {
        if let Some(stop) = self.too_early(call) {
            return Some(stop);
        }
        // A short grace period also shortens these pauses.
        let shortest = self.platform.settings.recording_grace.0 / 10;
        let after = self.app.config.fetch.not_ready_pause.0.min(shortest.max(SHORTEST_PAUSE)).min(LONGEST_LATE_PAUSE);
        (self.job.snoozes + 1 < LEAST_SNOOZES).then_some(Stop::Snooze { after })
    }

    /// The snooze within the grace period; the pauses grow with the elapsed time. Returns `None` after the period.
    pub(super) fn too_early(&self, call: Option<&SourceCall>) -> Option<Stop> {
        let (now, until) = (self.app.now(), self.grace_ends(call));
        if now >= until {
            return None;
        }
        let grace = self.platform.settings.recording_grace.0;
        let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        let waited = grace.saturating_sub(left);
        let pause = self.app.config.fetch.not_ready_pause.0.max(waited / 2);
        Some(Stop::Snooze { after: pause.min(left) })
    }

    /// Reports durable progress to the queue: later attempts do not repeat it.
    pub(super) async fn advance(&self) -> Result<(), Stop> {
        // A first attempt has no earlier attempts to give back.
        if self.job.attempts_used() < 2 {
            return Ok(());
        }
        self.app.queue.advance(self.job).await.at(Stage::Source)
    }

    /// Runs a computation in a CPU slot.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let slot = self.app.cpu.take(self.urgency()).await;
        let result = slot.compute(|_| what()).await;
        result.map_err(|stopped| EngineError::Inference { reason: stopped.to_string() })
    }

    /// Removes all objects of a call that retention condemned meanwhile, because this attempt may have uploaded some.
    /// They stay if only the ownership changed, because the new owner uses the same keys.
    pub(super) async fn withdraw(&self) {
        let record = match self.app.store.call(self.record.uid).await {
            Ok(Some(record)) if record.retention_state != RetentionState::Active => record,
            _ => return,
        };
        let prefix = CallPrefix::new(record.org_uid, record.uid);
        if let Err(err) = self.app.objects.delete_prefix(&prefix, &[]).await {
            tracing::error!(error = %err, "could not delete the uploads of an erased call; the retention sweep will");
        }
        self.drop_spool().await;
    }

    /// Removes the call's files from the spool.
    pub(super) async fn drop_spool(&self) {
        let spool = self.app.spool_of(self.record.uid);
        match tokio::fs::remove_dir_all(&spool).await {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                tracing::error!(path = %spool.display(), error = %err, "could not empty the spool; the next start will");
            }
            _ => {}
        }
    }
}
