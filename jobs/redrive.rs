//! Dead letters whose cause is gone go back to work: a key that was mended, a platform or a bucket that answers again.

use jiff::SignedDuration;

use super::{At, Stop};
use crate::app::App;
use crate::domain::{CallUid, Side, Stage};
use crate::queue::{Failure, JobState, Kind};

/// A poll leaves a dead letter alone for so long: whether a host that has failed for hours answers again, only the next
/// attempts tell.
const PAUSE: SignedDuration = SignedDuration::from_hours(1);
/// So begins what builds before this one said of a refused key; they made dead letters of it.
const WRONG_KEY: &str = "wrong key: ";

/// Who wants dead letters to be taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// At once.
    ByPerson,
    BySchedule,
}

/// The call's last `process_call`, where it is a dead letter whose cause is gone. Asked while the source answers.
pub(super) async fn revivable(app: &App, call: Option<CallUid>, asked: Asked) -> Result<Option<i64>, Stop> {
    let Some(call) = call else { return Ok(None) };
    let jobs = app.queue.jobs_about(&call.to_string()).await.at(Stage::Reconcile)?;
    let last = jobs.into_iter().find(|job| job.known_kind() == Some(Kind::ProcessCall));
    let Some(dead) = last.filter(|job| job.state == JobState::DeadLetter) else { return Ok(None) };
    let rested = dead.finished_at.is_none_or(|at| app.now().duration_since(at) >= PAUSE);
    if asked == Asked::BySchedule && !rested {
        return Ok(None);
    }
    match dead.failure {
        Some(failure) if is_gone(app, &failure).await => Ok(Some(dead.id)),
        _ => Ok(None),
    }
}

/// Whether what made the dead letter is gone, as far as that can be known without trying.
async fn is_gone(app: &App, failure: &Failure) -> bool {
    match (failure.fault.as_str(), failure.side) {
        ("permanent", Side::Source) => failure.cause.contains(WRONG_KEY),
        ("transient", Side::ObjectStore) => app.objects.check().await.is_ok(),
        // A source that was not in the configuration is there now.
        (_, Side::Configuration) | ("transient", _) => true,
        _ => false,
    }
}
