//! The cost ledger: the resource use of every attempt, by call, organisation and engine. Priced, free and unpriced work
//! is counted separately, because a sum over all three has no meaning.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Store, StoreError, Tx, from_ms, on_pool, on_tx, to_ms};
use crate::domain::{CallUid, OrgUid, SourceName};
use crate::telemetry::{Use, Used};

const DAY_MS: i64 = 86_400_000;

/// The pricing of an engine's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pricing {
    /// No engine, or a local engine.
    Free,
    /// A remote engine without a configured price.
    Unpriced,
    /// Cost in millionths of the currency unit.
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

/// One ledger entry of an attempt.
#[derive(Debug, Clone)]
pub struct LedgerEntry<'a> {
    pub at: Timestamp,
    pub source: &'a SourceName,
    pub org: OrgUid,
    pub call: CallUid,
    /// An outcome or `failed`. `heard` marks a remote STT answer, which is not an attempt of its own.
    pub ended: &'a str,
    pub used: &'a Used,
    pub audio_ms: u64,
    pub engine: Option<&'a str>,
    pub pricing: Pricing,
}

/// The key of a sum.
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
    /// The value of the key: source name, our id of the organisation or call, engine, or day.
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
    /// Attempts by pricing: free, unpriced and priced.
    pub free: i64,
    pub unpriced: i64,
    pub priced: i64,
    pub cost_micros: i64,
}

/// The additive columns of both tables.
macro_rules! added_up {
    () => {
        "CAST(SUM(platform_requests) AS BIGINT) AS platform_requests, \
         CAST(SUM(object_writes) AS BIGINT) AS object_writes, CAST(SUM(bytes_fetched) AS BIGINT) AS bytes_fetched, \
         CAST(SUM(bytes_stored) AS BIGINT) AS bytes_stored, CAST(SUM(audio_ms) AS BIGINT) AS audio_ms, \
         CAST(SUM(engine_ms) AS BIGINT) AS engine_ms, CAST(SUM(billed_ms) AS BIGINT) AS billed_ms, \
         CAST(SUM(cost_micros) AS BIGINT) AS cost_micros"
    };
}

/// Counts of attempts by pricing, in the table of attempts. A remote STT answer has its own row and is not an attempt.
macro_rules! by_pricing {
    () => {
        "CAST(SUM(CASE ended WHEN 'heard' THEN 0 ELSE 1 END) AS BIGINT) AS attempts, \
         CAST(SUM(CASE WHEN pricing = 'free' AND ended <> 'heard' THEN 1 ELSE 0 END) AS BIGINT) AS free, \
         CAST(SUM(CASE WHEN pricing = 'unpriced' AND ended <> 'heard' THEN 1 ELSE 0 END) AS BIGINT) AS unpriced, \
         CAST(SUM(CASE WHEN pricing = 'cost' AND ended <> 'heard' THEN 1 ELSE 0 END) AS BIGINT) AS priced"
    };
}

/// Sums of single attempts by `$key`.
macro_rules! of_attempts {
    ($key:literal) => {
        concat!(
            "SELECT CAST(",
            $key,
            " AS TEXT) AS of, COUNT(DISTINCT call_uid) AS calls, ",
            by_pricing!(),
            ", ",
            added_up!(),
            " FROM ledger WHERE at >= $1 AND at < $2 GROUP BY 1"
        )
    };
}

/// Sums over attempts and over rolled-up days. A day is included if it overlaps the interval.
macro_rules! sums {
    ($key:literal, $key_of_day:literal, $calls_of_day:literal) => {
        concat!(
            "SELECT of, CAST(SUM(calls) AS BIGINT) AS calls, CAST(SUM(attempts) AS BIGINT) AS attempts, \
             CAST(SUM(free) AS BIGINT) AS free, CAST(SUM(unpriced) AS BIGINT) AS unpriced, \
             CAST(SUM(priced) AS BIGINT) AS priced, ",
            added_up!(),
            " FROM (",
            of_attempts!($key),
            " UNION ALL SELECT CAST(",
            $key_of_day,
            " AS TEXT) AS of, CAST(SUM(",
            $calls_of_day,
            ") AS BIGINT) AS calls, CAST(SUM(attempts) AS BIGINT) AS attempts, CAST(SUM(free) AS BIGINT) AS free, \
             CAST(SUM(unpriced) AS BIGINT) AS unpriced, CAST(SUM(priced) AS BIGINT) AS priced, ",
            added_up!(),
            " FROM ledger_day WHERE day >= $1 / 86400000 AND day * 86400000 < $2 GROUP BY 1\
             ) AS both_kinds GROUP BY 1 ORDER BY 1 LIMIT 10000"
        )
    };
}

const ROLL_UP: &str = concat!(
    "INSERT INTO ledger_day (day, source, org_uid, engine, calls, calls_of_engine, calls_of_day, attempts, free, \
     unpriced, priced, platform_requests, object_writes, bytes_fetched, bytes_stored, audio_ms, engine_ms, billed_ms, \
     cost_micros) SELECT CAST($1 AS BIGINT), source, org_uid, COALESCE(engine, ''), \
     SUM(CASE WHEN EXISTS (SELECT 1 FROM ledger l WHERE l.call_uid = r.call_uid \
     AND (l.at > r.at OR (l.at = r.at AND l.id > r.id))) THEN 0 ELSE 1 END), \
     SUM(CASE WHEN EXISTS (SELECT 1 FROM ledger l WHERE l.call_uid = r.call_uid \
     AND (l.at > r.at OR (l.at = r.at AND l.id > r.id)) AND COALESCE(l.engine, '') = COALESCE(r.engine, '')) \
     THEN 0 ELSE 1 END), \
     SUM(CASE WHEN EXISTS (SELECT 1 FROM ledger l WHERE l.call_uid = r.call_uid \
     AND (l.at > r.at OR (l.at = r.at AND l.id > r.id)) AND l.at < $3) THEN 0 ELSE 1 END), ",
    by_pricing!(),
    ", ",
    added_up!(),
    " FROM ledger r WHERE at >= $2 AND at < $3 GROUP BY source, org_uid, COALESCE(engine, '') \
     ON CONFLICT (day, source, org_uid, engine) DO UPDATE SET calls = ledger_day.calls + excluded.calls, \
     calls_of_engine = ledger_day.calls_of_engine + excluded.calls_of_engine, \
     calls_of_day = ledger_day.calls_of_day + excluded.calls_of_day, \
     attempts = ledger_day.attempts + excluded.attempts, free = ledger_day.free + excluded.free, \
     unpriced = ledger_day.unpriced + excluded.unpriced, priced = ledger_day.priced + excluded.priced, \
     platform_requests = ledger_day.platform_requests + excluded.platform_requests, \
     object_writes = ledger_day.object_writes + excluded.object_writes, \
     bytes_fetched = ledger_day.bytes_fetched + excluded.bytes_fetched, \
     bytes_stored = ledger_day.bytes_stored + excluded.bytes_stored, \
     audio_ms = ledger_day.audio_ms + excluded.audio_ms, engine_ms = ledger_day.engine_ms + excluded.engine_ms, \
     billed_ms = ledger_day.billed_ms + excluded.billed_ms, cost_micros = ledger_day.cost_micros + excluded.cost_micros"
);

impl Store {
    /// Enters an attempt, in the caller's transaction.
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

    /// Sums over an interval, at most 10,000 rows.
    pub async fn ledger(&self, by: By, (from, to): (Timestamp, Timestamp)) -> Result<Vec<Sum>, StoreError> {
        let sql = match by {
            By::Source => sums!("source", "source", "calls"),
            By::Organization => sums!("org_uid", "org_uid", "calls"),
            By::Engine => sums!("engine", "NULLIF(engine, '')", "calls_of_engine"),
            By::Call => concat!(of_attempts!("call_uid"), " ORDER BY 1 LIMIT 10000"),
            By::Day => sums!("at / 86400000", "day", "calls_of_day"),
        };
        let mut sums: Vec<Sum> =
            on_pool!(&self.db, |pool| sqlx::query_as(sql).bind(to_ms(from)).bind(to_ms(to)).fetch_all(pool).await?);
        if by == By::Day {
            for sum in &mut sums {
                let day = sum.of.as_deref().and_then(|days| days.parse::<i64>().ok());
                sum.of = day.map(|day| from_ms(day * DAY_MS).strftime("%Y-%m-%d").to_string());
            }
        }
        Ok(sums)
    }

    /// Cost of engines since this time, in millionths of the currency unit.
    pub async fn spent_since(&self, from: Timestamp) -> Result<u64, StoreError> {
        let sum: i64 = on_pool!(&self.db, |pool| sqlx::query_scalar(
            "SELECT CAST(COALESCE(SUM(cost_micros), 0) AS BIGINT) FROM (\
             SELECT cost_micros FROM ledger WHERE at >= $1 \
             UNION ALL SELECT cost_micros FROM ledger_day WHERE day >= $1 / 86400000) AS both_kinds"
        )
        .bind(to_ms(from))
        .fetch_one(pool)
        .await?);
        Ok(sum as u64)
    }

    /// Replaces the attempts of the oldest day that is completely before this time by sums. Returns the number of
    /// replaced attempts; 0 if there is no such day.
    pub async fn roll_up_ledger_day(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let oldest: Option<i64> =
            on_tx!(&mut tx, |conn| sqlx::query_scalar("SELECT MIN(at) FROM ledger").fetch_one(conn).await?);
        let Some(day) = oldest.map(|at| at.div_euclid(DAY_MS)) else { return Ok(0) };
        let (from, to) = (day * DAY_MS, (day + 1) * DAY_MS);
        if to > to_ms(before) {
            return Ok(0);
        }
        on_tx!(&mut tx, |conn| sqlx::query(ROLL_UP).bind(day).bind(from).bind(to).execute(conn).await.map(drop)?);
        let rows = on_tx!(&mut tx, |conn| sqlx::query("DELETE FROM ledger WHERE at >= $1 AND at < $2")
            .bind(from)
            .bind(to)
            .execute(conn)
            .await?
            .rows_affected());
        tx.commit().await?;
        Ok(rows)
    }

    /// The number of attempts of a source that ended with an outcome since this time.
    pub async fn ended_since(&self, source: &SourceName, since: Timestamp) -> Result<u64, StoreError> {
        let count: i64 = on_pool!(&self.db, |pool| sqlx::query_scalar(
            "SELECT COUNT(*) FROM ledger WHERE at >= $2 AND source = $1 AND ended NOT IN ('failed', 'heard')"
        )
        .bind(source.as_str())
        .bind(to_ms(since))
        .fetch_one(pool)
        .await?);
        Ok(count as u64)
    }
}
