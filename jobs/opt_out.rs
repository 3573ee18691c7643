//! Opt-out check of a finished call, started by a new trigger. The call may have opted out of storage since.

use super::{At, Stop, admit, named};
use crate::app::App;
use crate::domain::{CallUid, Outcome, RetentionState, Stage};
use crate::queue;

/// Whether a call with this outcome may hold content that an opt-out removes.
pub(super) const fn concerns(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::OptedOut | Outcome::PastRetention | Outcome::Erased)
}

/// Requests the call from the source. Condemns its content if it has opted out and no hold keeps it.
pub(super) async fn run(app: &App, job: &queue::JobAttempt, call: CallUid) -> Result<&'static str, Stop> {
    let record = app.store.call(call).await.at(Stage::Source)?;
    let record = record.filter(|record| record.retention_state == RetentionState::Active);
    if let Some(record) = &record {
        named(record);
    }
    let platform = record.as_ref().and_then(|record| app.platform(&record.source));
    let told = match (&record, platform) {
        // The known call is not passed, because only a new request to the platform may show the opt-out.
        (Some(record), Some(platform)) => {
            platform.source.call_for_processing(&record.call_id, None).await.at(Stage::Source)?
        }
        _ => None,
    };
    let mut ended = "nothing_to_do";
    let mut tx = app.store.begin().await.at(Stage::Source)?;
    if let (Some(record), Some(told)) = (record, told.filter(|told| told.opt_out)) {
        let record = app.store.refresh(&mut tx, &record, &admit::bare(&told), app.now()).await.at(Stage::Source)?;
        ended = "opted_out";
        if record.holds_content() && admit::withdraw(app, &mut tx, &record).await.at(Stage::Source)? {
            ended = "withdrawn";
        }
    }
    if !app.queue.complete(&mut tx, job).await.at(Stage::Source)? {
        return Err(Stop::Fenced);
    }
    tx.commit().await.at(Stage::Source)?;
    Ok(ended)
}
