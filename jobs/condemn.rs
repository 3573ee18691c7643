//! Deciding that a call is to be erased: everybody who decides it does it like this.

use super::Job;
use crate::app::App;
use crate::domain::CallUid;
use crate::queue::{Lane, QueueError};
use crate::store::{AuditEntry, Tx};

/// Condemns a call and enqueues its erasure, in the caller's transaction. False where there is nothing to condemn, and
/// while a hold keeps it: one placed since the decision was prepared wins here.
///
/// # Errors
/// [`QueueError`].
pub(super) async fn condemn(
    app: &App,
    tx: &mut Tx,
    call: CallUid,
    actor: &str,
    why: String,
) -> Result<bool, QueueError> {
    if !app.store.condemn(tx, call, app.now()).await? {
        return Ok(false);
    }
    let entry = AuditEntry {
        at: app.now(),
        actor: actor.to_owned(),
        action: "condemned".to_owned(),
        subject: call.to_string(),
        detail: why,
    };
    app.store.audit(tx, &entry).await?;
    enqueue_erasure(app, tx, call).await?;
    Ok(true)
}

/// The job that erases a condemned call; meets an unfinished one as a duplicate.
///
/// # Errors
/// [`QueueError`].
pub(super) async fn enqueue_erasure(app: &App, tx: &mut Tx, call: CallUid) -> Result<(), QueueError> {
    let job = Job::EraseCall { call };
    app.queue.enqueue(tx, job.queued(app, Lane::Upkeep)).await.map(drop)
}
