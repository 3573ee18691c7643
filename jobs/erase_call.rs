//! Erasure of a condemned call. Its objects are deleted and proven absent, its record is reduced to a tombstone, and
//! the erasure is audited. Every step is idempotent, so that a crash at any point leads to the same end.

use std::time::Duration;

use super::{At, Stop, named};
use crate::app::App;
use crate::artifacts::{CallPrefix, ObjectError};
use crate::domain::{Artifact, ArtifactKey, CallUid, Fault, RetentionState, Side, Stage};
use crate::queue;
use crate::store::{AuditEntry, CallRecord};
use crate::telemetry;

/// Readers hold the log only for short times.
const WAL_TRIES: u32 = 40;
const WAL_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn run(app: &App, job: &queue::JobAttempt, call: CallUid) -> Result<&'static str, Stop> {
    let Some(record) = app.store.call(call).await.at(Stage::Erase)? else {
        return Err(Stop::permanent(format!("there is no call record {call}")));
    };
    named(&record);
    if !app.config.retention.enabled {
        return Err(Stop::Snooze { after: Duration::from_secs(60) });
    }
    boundary(app, "erase_start").await;
    match record.retention_state {
        RetentionState::Active => return finish(app, job, "not_condemned").await,
        RetentionState::Condemned | RetentionState::Blocked => {
            delete(app, &record).await?;
            boundary(app, "erase_deleted").await;
            prove_empty(app, &record).await?;
            drop_spool(app, call).await?;
            boundary(app, "erase_verified").await;
            scrub(app, job, &record).await?;
            boundary(app, "erase_scrubbed").await;
        }
        RetentionState::Erased => {}
    }
    empty_the_log(app).await?;
    boundary(app, "erase_log_emptied").await;
    finish(app, job, "erased").await
}

fn known_keys(record: &CallRecord) -> Vec<ArtifactKey> {
    let artifacts: &[Artifact] = &record.artifacts;
    record.original.iter().chain(artifacts).map(|artifact| artifact.key.clone()).collect()
}

async fn delete(app: &App, record: &CallRecord) -> Result<(), Stop> {
    let prefix = CallPrefix::new(record.org_uid, record.uid);
    let erased = app.objects.delete_prefix(&prefix, &known_keys(record)).await.at(Stage::Erase)?;
    tracing::info!(objects = erased.objects, versions = erased.versions, "objects deleted");
    Ok(())
}

/// Blocks the erasure, visibly to operators, while the store still shows an object after deletion.
async fn prove_empty(app: &App, record: &CallRecord) -> Result<(), Stop> {
    let prefix = CallPrefix::new(record.org_uid, record.uid);
    match app.objects.verify_empty(&prefix, &known_keys(record)).await {
        Ok(()) => Ok(()),
        Err(err @ ObjectError::StillThere { .. }) => {
            let reason = err.to_string();
            app.store.block_erasure(record.uid, &reason).await.at(Stage::Erase)?;
            Err(Stop::trouble(Stage::Erase, Fault::Transient, Side::ObjectStore, reason))
        }
        Err(err) => Err(err).at(Stage::Erase),
    }
}

async fn drop_spool(app: &App, call: CallUid) -> Result<(), Stop> {
    let spool = app.spool_of(call);
    match tokio::fs::remove_dir_all(&spool).await {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            let cause = format!("cannot empty the spool at {}: {err}", spool.display());
            Err(Stop::trouble(Stage::Erase, Fault::Transient, Side::Worker, cause))
        }
        _ => Ok(()),
    }
}

async fn scrub(app: &App, job: &queue::JobAttempt, record: &CallRecord) -> Result<(), Stop> {
    let mut tx = app.store.begin().await.at(Stage::Erase)?;
    app.store.scrub(&mut tx, record.uid, app.now()).await.at(Stage::Erase)?;
    app.queue.forget(&mut tx, &record.uid.to_string(), job.id).await.at(Stage::Erase)?;
    let entry = AuditEntry {
        at: app.now(),
        actor: "retention".to_owned(),
        action: "erased".to_owned(),
        subject: record.uid.to_string(),
        detail: format!("due {}, objects proven gone", record.retain_until),
    };
    app.store.audit(&mut tx, &entry).await.at(Stage::Erase)?;
    tx.commit().await.at(Stage::Erase)?;
    metrics::counter!(telemetry::ERASED_TOTAL).increment(1);
    Ok(())
}

/// Removes the scrubbed bytes from SQLite's write-ahead log too.
async fn empty_the_log(app: &App) -> Result<(), Stop> {
    for _ in 0..WAL_TRIES {
        if app.store.truncate_wal().await.at(Stage::Erase)? {
            return Ok(());
        }
        tokio::time::sleep(WAL_PAUSE).await;
    }
    let cause = "readers kept the write-ahead log from being emptied".to_owned();
    Err(Stop::trouble(Stage::Erase, Fault::Transient, Side::Database, cause))
}

async fn finish(app: &App, job: &queue::JobAttempt, ended: &'static str) -> Result<&'static str, Stop> {
    let mut tx = app.store.begin().await.at(Stage::Erase)?;
    if !app.queue.complete(&mut tx, job).await.at(Stage::Erase)? {
        return Err(Stop::Fenced);
    }
    tx.commit().await.at(Stage::Erase)?;
    tracing::info!(ended, "erasure ended");
    Ok(ended)
}

async fn boundary(app: &App, name: &str) {
    if app.config.worker.park_at == name {
        tracing::warn!(boundary = name, "parked");
        std::future::pending::<()>().await;
    }
}
