//! A finished call that somebody asks about once more: it may have opted out of storage since.

use super::{At, Stop, admit, named};
use crate::app::App;
use crate::domain::{CallUid, Outcome, RetentionState, Stage};
use crate::queue;

/// Whether a call that ended like this may hold something that an opt-out takes away.
pub(super) const fn concerns(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::OptedOut | Outcome::PastRetention | Outcome::Erased)
}

/// Asks the source, and condemns what is stored where the call has opted out and no hold keeps it.
pub(super) async fn run(app: &App, job: &queue::Job, call: CallUid) -> Result<&'static str, Stop> {
    let record = app.store.call(call).await.at(Stage::Source)?;
    let record = record.filter(|record| record.retention_state == RetentionState::Active);
    if let Some(record) = &record {
        named(record);
    }
    let platform = record.as_ref().and_then(|record| app.platform(&record.source));
    let told = match (&record, platform) {
        // Without what was known: the mark may stand where only a fresh look finds it.
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
