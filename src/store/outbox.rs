//! The outbox of deliveries to external receivers. A row is written in the transaction that finishes the call. A
//! finished call therefore always has its delivery, and a rolled-back call has none.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Store, StoreError, Tx, corrupt, on_pool, on_tx, to_ms};
use crate::domain::CallUid;

/// A pending or completed delivery.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    /// Also the idempotency key for the receiver.
    pub id: String,
    pub call_uid: CallUid,
    /// `metadata` or `http`.
    pub target: String,
    /// The delivered transcript version; 0 if the call has none.
    pub version: u32,
    pub delivered: bool,
}

#[derive(Debug, FromRow)]
struct DeliveryRow {
    id: String,
    call_uid: String,
    target: String,
    version: i64,
    delivered_at: Option<i64>,
}

impl Store {
    /// Writes a pending delivery and returns its id.
    pub async fn add_pending_delivery(
        &self,
        tx: &mut Tx,
        uid: CallUid,
        target: &str,
        version: u32,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let id = uuid::Uuid::now_v7().to_string();
        on_tx!(tx, |conn| sqlx::query(
            "INSERT INTO outbox (id, call_uid, target, version, created_at) VALUES ($1, $2, $3, $4, $5)"
        )
        .bind(&id)
        .bind(uid.to_string())
        .bind(target)
        .bind(i64::from(version))
        .bind(to_ms(now))
        .execute(conn)
        .await
        .map(drop)?);
        Ok(id)
    }

    /// The delivery with this id. `None` if retention scrubbed it.
    pub async fn delivery(&self, id: &str) -> Result<Option<OutboxRow>, StoreError> {
        let row: Option<DeliveryRow> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT id, call_uid, target, version, delivered_at FROM outbox WHERE id = $1"
        )
        .bind(id)
        .fetch_optional(pool)
        .await?);
        row.map(DeliveryRow::read).transpose()
    }

    /// Every delivery of a call, oldest first.
    pub async fn deliveries(&self, uid: CallUid) -> Result<Vec<OutboxRow>, StoreError> {
        let rows: Vec<DeliveryRow> = on_pool!(&self.db, |pool| sqlx::query_as(
            "SELECT id, call_uid, target, version, delivered_at FROM outbox WHERE call_uid = $1 ORDER BY id"
        )
        .bind(uid.to_string())
        .fetch_all(pool)
        .await?);
        rows.into_iter().map(DeliveryRow::read).collect()
    }

    /// Notes a completed delivery.
    pub async fn delivered(&self, tx: &mut Tx, id: &str, now: Timestamp) -> Result<(), StoreError> {
        on_tx!(tx, |conn| sqlx::query("UPDATE outbox SET delivered_at = $2 WHERE id = $1")
            .bind(id)
            .bind(to_ms(now))
            .execute(conn)
            .await
            .map(drop)?);
        Ok(())
    }
}

impl DeliveryRow {
    fn read(self) -> Result<OutboxRow, StoreError> {
        Ok(OutboxRow {
            call_uid: CallUid::parse(&self.call_uid).map_err(|err| corrupt("outbox", &self.id, err))?,
            id: self.id,
            target: self.target,
            version: self.version as u32,
            delivered: self.delivered_at.is_some(),
        })
    }
}
