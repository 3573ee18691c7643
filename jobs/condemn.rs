//! The decision to erase a call, shared by all code that makes it.

use super::Job;
use crate::app::App;
use crate::domain::CallUid;
use crate::queue::{Lane, QueueError};
use crate::store::{AuditEntry, Tx};

/// Condemns a call and enqueues its erasure, in the caller's transaction. Returns false if there is nothing to condemn
/// or a hold keeps the call. This checks the holds again, because one may have been placed since the decision was
/// prepared.
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

/// Enqueues the erasure of a condemned call. An unfinished job of the call makes it a duplicate.
pub(super) async fn enqueue_erasure(app: &App, tx: &mut Tx, call: CallUid) -> Result<(), QueueError> {
    let job = Job::EraseCall { call };
    app.queue.enqueue(tx, job.queued(app, Lane::Maintenance)).await.map(drop)
}
