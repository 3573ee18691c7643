//! The audit log: actor, action and record. It contains only our own ids, so that it can outlive the record.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Store, StoreError, Tx, from_ms, on_pool, on_tx, to_ms};

/// One audit entry.
#[derive(Debug, Clone, serde::Serialize)]
pub struct AuditEntry {
    pub at: Timestamp,
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub detail: String,
}

#[derive(Debug, FromRow)]
struct AuditRow {
    at: i64,
    actor: String,
    action: String,
    subject: String,
    detail: String,
}

impl Store {
    /// Writes an entry in the transaction of the audited change.
    pub async fn audit(&self, tx: &mut Tx, entry: &AuditEntry) -> Result<(), StoreError> {
        on_tx!(tx, |conn| sqlx::query(
            "INSERT INTO audit (id, at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)"
        )
        .bind(uuid::Uuid::now_v7().to_string())
        .bind(to_ms(entry.at))
        .bind(&entry.actor)
        .bind(&entry.action)
        .bind(&entry.subject)
        .bind(&entry.detail)
        .execute(conn)
        .await
        .map(drop)?);
        Ok(())
    }

    /// The entries of a subject, or all entries, oldest first.
    pub async fn audit_entries(&self, subject: Option<&str>) -> Result<Vec<AuditEntry>, StoreError> {
        let rows: Vec<AuditRow> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT at, actor, action, subject, detail FROM audit WHERE $1 IS NULL OR subject = $1 ORDER BY id"
        )
        .bind(subject)
        .fetch_all(pool)
        .await?);
        let read = |row: AuditRow| AuditEntry {
            at: from_ms(row.at),
            actor: row.actor,
            action: row.action,
            subject: row.subject,
            detail: row.detail,
        };
        Ok(rows.into_iter().map(read).collect())
    }
}
