//! The cost ledger: what every attempt at a call used, by call, organisation and engine. What costs money, what is free
//! and what nobody has priced are kept apart: a sum over all three would mean nothing.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Store, StoreError, Tx, from_ms, on_pool, on_tx, to_ms};
use crate::domain::{CallUid, OrgUid, SourceName};
use crate::telemetry::{Use, Used};

/// What an engine's work costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pricing {
    /// No engine, or one of our own.
    Free,
    /// A foreign engine whose price the configuration does not name.
    Unpriced,
    /// Millionths of the currency unit.
    Cost { micros: u64 },
}

impl Pricing {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Unpriced => "unpriced",
            Self::Cost { .. } => "cost",
        }
    }
}

/// One attempt.
#[derive(Debug, Clone)]
pub struct LedgerEntry<'a> {
    pub at: Timestamp,
    pub source: &'a SourceName,
    pub org: OrgUid,
    pub call: CallUid,
    /// An outcome, or `failed`; `heard` for an answer of an engine elsewhere, which is no attempt of its own.
    pub ended: &'a str,
    pub used: &'a Used,
    pub audio_ms: u64,
    pub engine: Option<&'a str>,
    pub pricing: Pricing,
}

/// What a sum is by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Source,
    Organization,
    Engine,
    Call,
    Day,
}

/// A sum of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct Sum {
    /// What it is of: the source's name, our id of the organisation or call, the engine, the day.
    pub of: Option<String>,
    pub calls: i64,
    pub attempts: i64,
    pub platform_requests: i64,
    pub object_writes: i64,
    pub bytes_fetched: i64,
    pub bytes_stored: i64,
    pub audio_ms: i64,
    pub engine_ms: i64,
    pub billed_ms: i64,
    /// Attempts by what they cost.
    pub free: i64,
    pub unpriced: i64,
    pub priced: i64,
    pub cost_micros: i64,
}

macro_rules! sums {
    ($key:literal) => {
        concat!(
            "SELECT CAST(",
            $key,
            " AS TEXT) AS of, COUNT(DISTINCT call_uid) AS calls, \
             CAST(SUM(CASE ended WHEN 'heard' THEN 0 ELSE 1 END) AS BIGINT) AS attempts, \
             CAST(SUM(platform_requests) AS BIGINT) AS platform_requests, \
             CAST(SUM(object_writes) AS BIGINT) AS object_writes, \
             CAST(SUM(bytes_fetched) AS BIGINT) AS bytes_fetched, \
             CAST(SUM(bytes_stored) AS BIGINT) AS bytes_stored, CAST(SUM(audio_ms) AS BIGINT) AS audio_ms, \
             CAST(SUM(engine_ms) AS BIGINT) AS engine_ms, CAST(SUM(billed_ms) AS BIGINT) AS billed_ms, \
             CAST(SUM(CASE WHEN pricing = 'free' AND ended <> 'heard' THEN 1 ELSE 0 END) AS BIGINT) AS free, \
             CAST(SUM(CASE WHEN pricing = 'unpriced' AND ended <> 'heard' THEN 1 ELSE 0 END) AS BIGINT) AS unpriced, \
             CAST(SUM(CASE WHEN pricing = 'cost' AND ended <> 'heard' THEN 1 ELSE 0 END) AS BIGINT) AS priced, \
             CAST(SUM(cost_micros) AS BIGINT) AS cost_micros \
             FROM ledger WHERE at >= $1 AND at < $2 GROUP BY 1 ORDER BY 1 LIMIT 10000"
        )
    };
}

impl Store {
    /// Enters an attempt, in the caller's transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn enter_ledger(&self, tx: &mut Tx, entry: &LedgerEntry<'_>) -> Result<(), StoreError> {
        let cost = match entry.pricing {
            Pricing::Cost { micros } => micros,
            Pricing::Free | Pricing::Unpriced => 0,
        };
        on_tx!(tx, |conn| sqlx::query(
            "INSERT INTO ledger (id, at, source, org_uid, call_uid, ended, platform_requests, object_writes, \
             bytes_fetched, bytes_stored, audio_ms, engine, engine_ms, billed_ms, pricing, cost_micros) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
        )
        .bind(uuid::Uuid::now_v7().to_string())
        .bind(to_ms(entry.at))
        .bind(entry.source.as_str())
        .bind(entry.org.to_string())
        .bind(entry.call.to_string())
        .bind(entry.ended)
        .bind(entry.used.of(Use::PlatformRequests) as i64)
        .bind(entry.used.of(Use::ObjectWrites) as i64)
        .bind(entry.used.of(Use::BytesFetched) as i64)
        .bind(entry.used.of(Use::BytesStored) as i64)
        .bind(entry.audio_ms as i64)
        .bind(entry.engine)
        .bind(entry.used.of(Use::EngineMs) as i64)
        .bind(entry.used.of(Use::BilledMs) as i64)
        .bind(entry.pricing.as_str())
        .bind(cost as i64)
        .execute(conn)
        .await
        .map(drop)?);
        Ok(())
    }

    /// Sums over a stretch of time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ledger(&self, by: By, (from, to): (Timestamp, Timestamp)) -> Result<Vec<Sum>, StoreError> {
        let sql = match by {
            By::Source => sums!("source"),
            By::Organization => sums!("org_uid"),
            By::Engine => sums!("engine"),
            By::Call => sums!("call_uid"),
            By::Day => sums!("at / 86400000"),
        };
        let mut sums: Vec<Sum> =
            on_pool!(&self.db, |pool| sqlx::query_as(sql).bind(to_ms(from)).bind(to_ms(to)).fetch_all(pool).await?);
        if by == By::Day {
            for sum in &mut sums {
                let day = sum.of.as_deref().and_then(|days| days.parse::<i64>().ok());
                sum.of = day.map(|day| from_ms(day * 86_400_000).strftime("%Y-%m-%d").to_string());
            }
        }
        Ok(sums)
    }

    /// What engines have cost since a moment, in millionths of the currency unit.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn spent_since(&self, from: Timestamp) -> Result<u64, StoreError> {
        let sum: i64 = on_pool!(&self.db, |pool| sqlx::query_scalar(
            "SELECT CAST(COALESCE(SUM(cost_micros), 0) AS BIGINT) FROM ledger WHERE at >= $1"
        )
        .bind(to_ms(from))
        .fetch_one(pool)
        .await?);
        Ok(sum as u64)
    }
}
