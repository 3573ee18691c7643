//! The record store: all SQL for our own tables. SQLite and PostgreSQL share one schema and one set of statements,
//! because both support `$1` placeholders, `ON CONFLICT` and `RETURNING`. Only `store.url` selects the engine.

mod agent_voices;
mod audit;
mod backfill_fed;
mod backfill_orders;
mod backfills;
mod busy;
mod calls;
mod claim;
mod connect;
mod figures;
mod flags;
mod holds;
mod job_table;
mod keys;
mod ledger;
mod listing;
mod migrate;
pub mod operations;
mod our_calls;
mod outbox;
mod pooling;
mod private_files;
mod rate_limits;
mod reconciliation;
mod record;
mod reopening;
mod schedules;
mod schema;
mod server;
mod transcripts;

pub use agent_voices::{AgentVoiceRow, ErasedVoice};
pub use audit::AuditEntry;
pub use backfill_fed::Fed;
pub use backfills::{Backfill, BackfillItem, BackfillState, NewBackfill, NewItem, Orders, Origin, Steering};
pub use calls::{Admitted, CallFilter, FinishedCall};
pub use claim::Claim;
pub use figures::BackfillProgress;
pub use flags::StoredCall;
pub use holds::{Hold, NewHold};
pub(crate) use job_table::{job_sql, job_table, last_worker};
pub use keys::{ApiKey, Scope};
pub use ledger::{By, LedgerEntry, Pricing, Sum};
pub use listing::{EXCERPT, Listed, Listing};
pub use migrate::Moved;
pub use operations::Unfetched;
pub use our_calls::OurCalls;
pub use outbox::OutboxRow;
pub use rate_limits::RateLimitRow;
pub use reconciliation::{KnownCall, ReconcileState};
pub use record::{CallRecord, Earlier};
pub use schedules::ScheduleRow;
pub use transcripts::TranscriptRow;

use std::path::PathBuf;

use jiff::Timestamp;
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};

use crate::config;
use crate::domain::{Classify, Fault, Side};

/// Runs `$body` with `$conn` bound to the pool of `$db`, for either engine.
macro_rules! on_pool {
    ($db:expr, |$conn:ident| $body:expr) => {
        match $db {
            $crate::store::Db::Sqlite($conn) => $body,
            $crate::store::Db::Postgres($conn) => $body,
        }
    };
}

/// Runs `$body` with `$conn` bound to the connection of an open transaction.
macro_rules! on_tx {
    ($tx:expr, |$conn:ident| $body:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(tx) => {
                let $conn = &mut **tx;
                $body
            }
            $crate::store::Tx::Postgres(tx) => {
                let $conn = &mut **tx;
                $body
            }
        }
    };
}
pub(crate) use {on_pool, on_tx};

/// A store failure, with a hint for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("database: the schema could not be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("database: the queue's schema could not be brought up to date: {0}")]
    QueueMigrate(#[from] riverqueue::migrate::Error),
    #[error("database: another process is changing the schema; waited {waited_s} s for it (store.schema_wait)")]
    SchemaBusy { waited_s: u64 },
    #[error(
        "database: it has no tables yet, this command needs schema {need}; `aftercall work`, `run` or `serve` makes them"
    )]
    NoSchema { need: String },
    #[error(
        "database: its schema is {have}, this command needs {need}; start `aftercall work`, `run` or `serve` of this build, which brings it up to date"
    )]
    OldSchema { have: String, need: String },
    #[error("database: {url} does not answer: {reason}")]
    Away { url: String, reason: String },
    #[error(
        "database: {url} is a connection pooler in {mode}, which this program cannot work behind; use session mode or the server's own port"
    )]
    Pooled { url: String, mode: String },
    #[error(
        "database: another aftercall process runs jobs on {file}; stop it first, or use a database of its own (lock file {lock})"
    )]
    Claimed { file: String, lock: String },
    #[error("database: {path} is locked by {holder}; try again when that is done")]
    Locked { path: String, holder: String },
    #[error("database: {what} of {id} cannot be read: {reason}")]
    Corrupt { what: &'static str, id: String, reason: String },
    #[error("database: cannot use {url}: {reason}")]
    BadUrl { url: String, reason: String },
}

impl Classify for StoreError {
    fn fault(&self) -> Fault {
        match self {
            Self::Corrupt { .. } | Self::BadUrl { .. } | Self::Pooled { .. } => Fault::Permanent,
            Self::Database(sqlx::Error::Database(err)) if err.is_unique_violation() || err.is_check_violation() => {
                Fault::Permanent
            }
            // Transient: a full disk, a lock, a restart of the server, a schema that a worker is about to update.
            Self::Database(_)
            | Self::Migrate(_)
            | Self::QueueMigrate(_)
            | Self::SchemaBusy { .. }
            | Self::NoSchema { .. }
            | Self::OldSchema { .. }
            | Self::Away { .. }
            | Self::Locked { .. }
            | Self::Claimed { .. } => Fault::Transient,
        }
    }

    fn side(&self) -> Side {
        Side::Database
    }
}

/// The connection pool of the configured engine.
#[derive(Debug, Clone)]
pub enum Db {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Db {
    /// The text of a statement for this engine.
    pub(crate) const fn sql(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self {
            Self::Sqlite(_) => sqlite,
            Self::Postgres(_) => postgres,
        }
    }
}

/// An open transaction. Dropping it rolls it back.
#[derive(Debug)]
pub enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    /// The text of a statement for this engine.
    pub(crate) const fn sql(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self {
            Self::Sqlite(_) => sqlite,
            Self::Postgres(_) => postgres,
        }
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// [`StoreError`]. Either nothing was committed, or the answer was lost and the caller must check.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }
}

/// All reads and writes of our records.
#[derive(Debug, Clone)]
pub struct Store {
    db: Db,
    /// The database file; `None` for PostgreSQL.
    file: Option<PathBuf>,
}

impl Store {
    /// Connects with write access and updates the schema, our tables and the queue's, under one lock. If several
    /// processes start together, one updates and the others wait.
    ///
    /// # Errors
    /// [`StoreError`], which names the database without its password.
    pub async fn connect(settings: &config::StoreSettings) -> Result<Self, StoreError> {
        connect::to_write(settings).await
    }

    /// Connects read-only. A replica or a read-only file is sufficient.
    ///
    /// # Errors
    /// [`StoreError`]. A schema older than this build's is refused.
    pub async fn look(settings: &config::StoreSettings) -> Result<Self, StoreError> {
        connect::to_read(settings).await
    }

    /// The pool, for the queue in the same database.
    #[must_use]
    pub const fn db(&self) -> &Db {
        &self.db
    }

    /// Whether the database is a file on this machine, which one worker process owns.
    #[must_use]
    pub const fn is_embedded(&self) -> bool {
        matches!(self.db, Db::Sqlite(_))
    }

    /// Opens a write transaction. On SQLite it takes the write lock at once, so that a later statement cannot fail to
    /// get it.
    ///
    /// # Errors
    /// [`StoreError`] if the lock or a connection is not available in time.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match &self.db {
            Db::Sqlite(pool) => {
                let begun = riverqueue::database::begin_sqlite_write(pool).await;
                Tx::Sqlite(begun.map_err(|err| busy::named(err, pool.connect_options().get_filename()))?)
            }
            Db::Postgres(pool) => Tx::Postgres(riverqueue::database::begin_postgres(pool).await?),
        })
    }

    /// Writes the complete write-ahead log into the database file and truncates it, so that scrubbed bytes are gone
    /// from both. Returns false if readers prevented this. Does nothing on PostgreSQL.
    pub async fn truncate_wal(&self) -> Result<bool, StoreError> {
        let Db::Sqlite(pool) = &self.db else { return Ok(true) };
        let (busy, _, _): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(pool).await?;
        Ok(busy == 0)
    }

    /// Closes all connections.
    pub async fn close(&self) {
        on_pool!(&self.db, |pool| pool.close().await);
    }
}

/// A time as stored: milliseconds since 1970.
pub(crate) fn to_ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// A stored time. An invalid value becomes 1970, so that no rule treats it as a future time.
pub(crate) fn from_ms(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(crate) fn corrupt(what: &'static str, id: &str, reason: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { what, id: id.to_owned(), reason: reason.to_string() }
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(
    what: &'static str,
    id: &str,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|err| corrupt(what, id, err))
}

pub(crate) fn write_json<T: serde::Serialize>(what: &'static str, id: &str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|err| corrupt(what, id, err))
}
