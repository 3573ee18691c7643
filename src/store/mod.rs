//! The record store: the only SQL of our own tables. One schema and one set of statements serve SQLite and
//! PostgreSQL (`store.url` is the only difference); both engines read `$1` placeholders, `ON CONFLICT` and `RETURNING`.

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
mod keys;
mod ledger;
mod listing;
mod migrate;
pub mod operations;
mod outbox;
mod pace;
mod pooling;
mod private_files;
mod reconciliation;
mod record;
mod reopening;
mod schedules;
mod schema;
mod transcripts;

pub use agent_voices::{AgentVoiceRow, ErasedVoice};
pub use audit::AuditEntry;
pub use backfill_fed::Fed;
pub use backfill_orders::OurCalls;
pub use backfills::{Backfill, BackfillItem, BackfillState, NewBackfill, NewItem, Orders, Origin, Steering};
pub use calls::{Admitted, CallFilter, Finished};
pub use claim::Claim;
pub use figures::Progress;
pub use flags::StoredCall;
pub use holds::{Hold, NewHold};
pub use keys::{ApiKey, Scope};
pub use ledger::{By, LedgerEntry, Pricing, Sum};
pub use listing::{EXCERPT, Listed, Listing};
pub use migrate::Moved;
pub use operations::Unfetched;
pub use outbox::OutboxRow;
pub use pace::PaceRow;
pub use reconciliation::{Known, ReconcileState};
pub use record::{CallRecord, Earlier};
pub use schedules::ScheduleRow;
pub use transcripts::TranscriptRow;

use std::path::PathBuf;

use jiff::Timestamp;
use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, Transaction};

use crate::config;
use crate::domain::{Classify, Fault, Side};

/// Runs `$body` with `$conn` bound to the pool of whichever engine `$db` is.
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

/// A store failure, with what to do about it.
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
            // A full disk, a lock, a restart of the server, a schema that a worker is about to change: all pass.
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

/// An open transaction; dropping it rolls it back.
#[derive(Debug)]
pub enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    /// Makes everything done in it last.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing of it lasts, or the answer was lost and the caller must look again.
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
    /// The database file, where it is one.
    file: Option<PathBuf>,
}

impl Store {
    /// Connects and brings the schema up to date: our tables and the queue's, under one lock. Of several processes that
    /// start together one does it, the others wait for it.
    ///
    /// # Errors
    /// [`StoreError`] naming the database without its password.
    pub async fn connect(settings: &config::Store) -> Result<Self, StoreError> {
        connect::to_write(settings).await
    }

    /// Connects to look only. Nothing is changed, so that a replica or a file that cannot be written will do.
    ///
    /// # Errors
    /// [`StoreError`]; an older schema than this build's is refused.
    pub async fn look(settings: &config::Store) -> Result<Self, StoreError> {
        connect::to_read(settings).await
    }

    /// The pool, for the queue, which lives in the same database.
    #[must_use]
    pub const fn db(&self) -> &Db {
        &self.db
    }

    /// Whether the database is a file of this machine, which one worker process owns.
    #[must_use]
    pub const fn is_embedded(&self) -> bool {
        matches!(self.db, Db::Sqlite(_))
    }

    /// Opens a transaction that may write. On SQLite it takes the write lock at once, so that it cannot fail later.
    ///
    /// # Errors
    /// [`StoreError`] when the lock or a connection is not to be had in time.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match &self.db {
            Db::Sqlite(pool) => {
                let begun = riverqueue::database::begin_sqlite_write(pool).await;
                Tx::Sqlite(begun.map_err(|err| busy::named(err, pool.connect_options().get_filename()))?)
            }
            Db::Postgres(pool) => Tx::Postgres(riverqueue::database::begin_postgres(pool).await?),
        })
    }

    /// Writes the whole write-ahead log into the database file and empties it, so that scrubbed bytes are gone
    /// from both. Nothing to do on PostgreSQL, whose log is its own.
    ///
    /// # Errors
    /// [`StoreError`]. Returns false when readers were in the way.
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

/// A moment as the database holds it.
pub(crate) fn to_ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// A moment out of the database; what cannot be read is the far past, which no rule mistakes for the future.
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
