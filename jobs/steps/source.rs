//! Step 1: requests the call from its source and decides whether it may be processed.

use std::time::Duration;

use crate::domain::{CallStatus, Outcome, RetainUntil, SourceCall, Stage};
use crate::jobs::admit;
use crate::jobs::work::Work;
use crate::jobs::{At, Stop};

/// Interval between requests for a call that is still in progress. The job stops after a day.
const STILL_GOING: Duration = Duration::from_secs(30);
const GOING_FOR_EVER: Duration = Duration::from_secs(86_400);

/// The source's current data of a call.
pub(crate) enum Fresh {
    /// The call must be processed.
    Call(Box<SourceCall>),
    /// The call ends here with this outcome and reason.
    Ends(Outcome, Option<String>),
    /// The call opted out after content was stored. Its erasure is enqueued, and this job is complete.
    Withdrawn,
}

/// Requests the call from the source and writes its data into the record.
pub(crate) async fn fresh(work: &mut Work<'_>) -> Result<Fresh, Stop> {
    if work.record.call.is_some() && work.record.retain_until <= work.app.now() {
        return Ok(Fresh::Ends(Outcome::PastRetention, None));
    }
    let known = work.record.call.clone();
    let answer = work.platform.source.call_for_processing(&work.record.call_id, known).await.at(Stage::Source)?;
    let Some(call) = answer else { return vanished(work) };
    if let Some(stop) = not_over(work, &call) {
        return stop;
    }
    let now = work.app.now();
    let past = RetainUntil::of(&call, work.record.first_seen_at, work.record.retention_term).at <= now;
    let bare = (past || call.opt_out).then(|| admit::bare(&call));
    let mut tx = work.app.store.begin().await.at(Stage::Source)?;
    work.record =
        work.app.store.refresh(&mut tx, &work.record, bare.as_ref().unwrap_or(&call), now).await.at(Stage::Source)?;
    if call.opt_out && work.record.holds_content() {
        admit::withdraw(work.app, &mut tx, &work.record).await.at(Stage::Source)?;
        if !work.app.queue.complete(&mut tx, work.job).await.at(Stage::Source)? {
            return Err(Stop::Fenced);
        }
        tx.commit().await.at(Stage::Source)?;
        return Ok(Fresh::Withdrawn);
    }
    tx.commit().await.at(Stage::Source)?;
    work.boundary("source").await;
    if call.opt_out {
        return Ok(Fresh::Ends(Outcome::OptedOut, None));
    }
    if past {
        let (until, basis) = (work.record.retain_until, &work.record.retention_basis);
        return Ok(Fresh::Ends(Outcome::PastRetention, Some(format!("its term ended {until} ({basis})"))));
    }
    if !call.eligible() {
        return Ok(Fresh::Ends(Outcome::NotEligible, Some("the call is text only and has no recording".to_owned())));
    }
    Ok(Fresh::Call(Box::new(call)))
}

/// A platform may answer 404 for a call that ended a moment ago. The call counts as vanished only after the grace
/// period.
fn vanished(work: &Work<'_>) -> Result<Fresh, Stop> {
    match work.not_yet(work.record.call.as_ref()) {
        Some(snooze) => Err(snooze),
        None => Ok(Fresh::Ends(Outcome::Vanished, Some("the source does not know this call".to_owned()))),
    }
}

fn not_over(work: &Work<'_>, call: &SourceCall) -> Option<Result<Fresh, Stop>> {
    match call.status {
        CallStatus::Completed => None,
        CallStatus::Queued | CallStatus::Ringing | CallStatus::InProgress => {
            let since = work.app.now().duration_since(work.record.first_seen_at);
            if Duration::try_from(since).unwrap_or_default() < GOING_FOR_EVER {
                return Some(Err(Stop::Snooze { after: STILL_GOING }));
            }
            Some(Ok(Fresh::Ends(Outcome::NotEligible, Some("the call has not ended after a day".to_owned()))))
        }
        CallStatus::Failed | CallStatus::Busy | CallStatus::NoAnswer | CallStatus::Cancelled | CallStatus::Unknown => {
            let word = call.status_raw.as_deref().unwrap_or("none");
            Some(Ok(Fresh::Ends(Outcome::NotEligible, Some(format!("status at the source: {word}")))))
        }
    }
}
