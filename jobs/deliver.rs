//! Delivery of an outbox row to its receiver: the platform's metadata, or an HTTP request that the operator configured.
//!
//! All tries use the same idempotency key, so that a retry after a lost answer is harmless. `If-Match` prevents the
//! loss of another writer's change. For a receiver without idempotency keys, a read before the write detects an earlier
//! write.

mod receiver;

use serde_json::{Value, json};

use self::receiver::{Receiver, WriteResult};
use super::{At, Job, Stop, Trouble, named};
use crate::app::App;
use crate::domain::{CallUid, Fault, RecordFlag, RetentionState, Side, Stage};
use crate::queue;
use crate::queue::Lane;
use crate::source::SourceError;
use crate::store::{CallRecord, OutboxRow, Tx};
use crate::telemetry;

/// Writes a pending delivery of one transcript version, in the caller's transaction.
pub(super) async fn add_pending(
    app: &App,
    tx: &mut Tx,
    target: &'static str,
    (call, version): (CallUid, u32),
    lane: Lane,
) -> Result<(), Stop> {
    let delivery = app.store.add_pending_delivery(tx, call, target, version, app.now()).await.at(Stage::Writeback)?;
    let job = Job::Deliver { delivery, call };
    app.queue.enqueue(tx, job.queued(app, lane)).await.at(Stage::Writeback).map(drop)
}

pub(super) async fn run(app: &App, job: &queue::JobAttempt, id: &str) -> Result<&'static str, Stop> {
    let (ended, written) = match pending(app, id).await? {
        None => ("nothing_to_do", None),
        Some((row, record)) => {
            let sent = let_in(app, &row, &record).await;
            if matches!(sent, Err(Stop::Trouble(_) | Stop::Barred(_))) {
                metrics::counter!(telemetry::DELIVERY_FAILURES_TOTAL, "source" => record.source.to_string())
                    .increment(1);
            }
            ("delivered", Some((sent?, record)))
        }
    };
    let mut tx = app.store.begin().await.at(Stage::Deliver)?;
    if let Some((written, record)) = &written {
        flag(app, &mut tx, record, *written).await?;
    }
    if !app.queue.complete(&mut tx, job).await.at(Stage::Deliver)? {
        return Err(Stop::Fenced);
    }
    app.store.delivered(&mut tx, id, app.now()).await.at(Stage::Deliver)?;
    tx.commit().await.at(Stage::Deliver)?;
    Ok(ended)
}

/// Flags the record if it was written without the configured `If-Match`. Lock order: the record before the job.
async fn flag(app: &App, tx: &mut Tx, record: &CallRecord, written: WriteResult) -> Result<(), Stop> {
    let flagged = record.has_flag(RecordFlag::Unconditional);
    let changed = match written {
        WriteResult::Unconditionally if !flagged => {
            app.store.set_flag(tx, record.uid, RecordFlag::Unconditional).await.at(Stage::Deliver)?
        }
        WriteResult::AsOrdered if flagged => {
            app.store.clear_flag(tx, record.uid, RecordFlag::Unconditional).await.at(Stage::Deliver)?
        }
        _ => false,
    };
    if changed && !flagged {
        tracing::warn!(call.id = %record.uid, source = %record.source, "written without If-Match: no strong ETag");
    }
    Ok(())
}

/// Sends the delivery if the receiver accepts our key. After a refusal the deliveries wait, and one of them tests the
/// key once a minute.
async fn let_in(app: &App, row: &OutboxRow, record: &CallRecord) -> Result<WriteResult, Stop> {
    let source = &record.source;
    let gauge = || metrics::gauge!(telemetry::RECEIVER_KEY_REFUSED, "source" => source.to_string());
    if !app.barred.may_ask(source, app.now()) {
        return Err(Stop::Barred(Trouble {
            stage: Some(Stage::Deliver),
            fault: Fault::Transient,
            side: Side::Receiver,
            cause: format!("the receiver of source `{source}` refuses our key, its deliveries wait; check its headers"),
        }));
    }
    let sent = send(app, row, record).await;
    match &sent {
        Err(Stop::Barred(trouble)) => {
            if app.barred.refused(source, app.now()) {
                let cause = trouble.cause.as_str();
                tracing::warn!(source = %source, cause, "the receiver refuses our key; it is tried again every minute");
            }
            gauge().set(1.0);
        }
        Ok(_) => {
            if app.barred.accepted(source) {
                tracing::info!(source = %source, "the receiver accepts our key again");
            }
            gauge().set(0.0);
        }
        Err(_) => {}
    }
    sent
}

/// The row and its call. `None` if the row was delivered, replaced by a newer version, or scrubbed.
async fn pending(app: &App, id: &str) -> Result<Option<(OutboxRow, CallRecord)>, Stop> {
    let Some(row) = app.store.delivery(id).await.at(Stage::Deliver)? else { return Ok(None) };
    let Some(record) = app.store.call(row.call_uid).await.at(Stage::Deliver)? else { return Ok(None) };
    named(&record);
    let stale = row.delivered || row.version < record.transcript_version;
    Ok((!stale && record.retention_state == RetentionState::Active).then_some((row, record)))
}

async fn send(app: &App, row: &OutboxRow, record: &CallRecord) -> Result<WriteResult, Stop> {
    let Some(platform) = app.platform(&record.source) else {
        return Err(misconfigured(format!("source `{}` is not in the configuration", record.source)));
    };
    if row.target == "metadata" {
        let outcome = platform_metadata(record);
        let written = platform.source.write_metadata(&record.call_id, &outcome, &row.id).await;
        let barred = matches!(written, Err(SourceError::WrongKey { .. }));
        return match written.at(Stage::Deliver) {
            Ok(()) => Ok(WriteResult::AsOrdered),
            Err(Stop::Trouble(trouble)) if barred => Err(Stop::Barred(trouble)),
            Err(stop) => Err(stop),
        };
    }
    let Some(settings) = &platform.settings.http else {
        return Err(misconfigured(format!("source `{}` no longer has a [source.http] table", record.source)));
    };
    let document = document(app, row, record).await?;
    let receiver = Receiver::of(app, settings, &document).at(Stage::Deliver)?;
    receiver.bring(&document, &row.id).await
}

/// The metadata for the platform: a reference and figures, without the words.
fn platform_metadata(record: &CallRecord) -> Value {
    let transcript = record.artifacts.iter().find(|artifact| artifact.name == "transcript.json");
    json!({
        "status": record.outcome.map(crate::domain::Outcome::as_str),
        "transcript_ref": transcript.map(|artifact| artifact.key.as_str()),
        "transcript_version": record.transcript_version,
        "mos": record.quality.as_ref().map(|quality| quality["mos"]["mos_cqe"].clone()),
        "retention_until": record.retain_until.to_string(),
    })
}

/// All values that a template may use.
async fn document(app: &App, row: &OutboxRow, record: &CallRecord) -> Result<Value, Stop> {
    let versions = app.store.transcripts(record.uid).await.at(Stage::Deliver)?;
    Ok(json!({
        "call": {
            "id": record.call_id,
            "uid": record.uid,
            "source": record.source,
            "org_id": record.org_id,
            "direction": record.direction,
            "duration_ms": record.duration_ms,
            "ended_at": record.ended_at.map(|at| at.to_string()),
        },
        "outcome": record.outcome.map(crate::domain::Outcome::as_str),
        "transcript": versions.last().map(|version| version.text.as_str()),
        "transcript_version": record.transcript_version,
        "quality_metrics": record.quality,
        "flags": record.flags,
        "artifacts": record.artifacts,
        "retain_until": record.retain_until.to_string(),
        "idempotency_key": row.id,
    }))
}

fn misconfigured(cause: String) -> Stop {
    Stop::trouble(Stage::Deliver, Fault::Permanent, Side::Configuration, cause)
}
