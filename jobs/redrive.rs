//! Redrives dead letters after the end of their cause, such as a refused key or an outage of a platform or bucket.

use jiff::SignedDuration;

use super::{At, Stop};
use crate::app::App;
use crate::domain::{CallUid, Side, Stage};
use crate::queue::{Failure, JobState, Kind};

/// A poll does not redrive a younger dead letter, because only new attempts show whether the host has recovered.
const PAUSE: SignedDuration = SignedDuration::from_hours(1);
/// The prefix of the cause of a refused key in earlier builds, which made such jobs dead letters.
const WRONG_KEY: &str = "wrong key: ";

/// The origin of a redrive request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RedriveTrigger {
    /// Redrives without a pause.
    ByPerson,
    BySchedule,
}

/// The job id of the call's last `process_call`, if it is a dead letter and its cause has ended. Called while the
/// source answers.
pub(super) async fn revivable(app: &App, call: Option<CallUid>, asked: RedriveTrigger) -> Result<Option<i64>, Stop> {
    let Some(call) = call else { return Ok(None) };
    let jobs = app.queue.jobs_about(&call.to_string()).await.at(Stage::Reconcile)?;
    let last = jobs.into_iter().find(|job| job.known_kind() == Some(Kind::ProcessCall));
    let Some(dead) = last.filter(|job| job.state == JobState::DeadLetter) else { return Ok(None) };
    let rested = dead.finished_at.is_none_or(|at| app.now().duration_since(at) >= PAUSE);
    if asked == RedriveTrigger::BySchedule && !rested {
        return Ok(None);
    }
    match dead.failure {
        Some(failure) if is_gone(app, &failure).await => Ok(Some(dead.id)),
        _ => Ok(None),
    }
}

/// Whether the cause of the dead letter has ended, as far as this is known without an attempt.
async fn is_gone(app: &App, failure: &Failure) -> bool {
    match (failure.fault.as_str(), failure.side) {
        ("permanent", Side::Source) => failure.cause.contains(WRONG_KEY),
        ("transient", Side::ObjectStore) => app.objects.check().await.is_ok(),
        // A source that was missing is in the configuration now.
        (_, Side::Configuration) | ("transient", _) => true,
        _ => false,
    }
}
