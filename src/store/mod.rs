//! The record store: the only SQL of our own tables. One schema and one set of statements serve SQLite and
//! PostgreSQL (`store.url` is the only difference); both engines read `$1` placeholders, `ON CONFLICT` and `RETURNING`.

mod agent_voices;
mod audit;
mod backfill_orders;
mod backfills;
mod busy;
mod calls;
mod flags;
mod holds;
mod keys;
mod ledger;
mod listing;
mod migrate;
pub mod operations;
mod outbox;
mod pace;
mod reconciliation;
mod record;
mod reopening;
mod transcripts;

pub use agent_voices::{AgentVoiceRow, ErasedVoice};
pub use audit::AuditEntry;
pub use backfill_orders::OurCalls;
pub use backfills::{Backfill, BackfillItem, BackfillState, NewBackfill, NewItem, Orders, Origin, Steering};
pub use calls::{Admitted, CallFilter, Finished};
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
pub use transcripts::TranscriptRow;

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret;
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
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
    QueueMigrate(String),
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
            Self::Corrupt { .. } | Self::BadUrl { .. } | Self::QueueMigrate(_) => Fault::Permanent,
            Self::Database(sqlx::Error::Database(err)) if err.is_unique_violation() || err.is_check_violation() => {
                Fault::Permanent
            }
            // A full disk, a lock, a restart of the server: all pass.
            Self::Database(_) | Self::Migrate(_) | Self::Locked { .. } => Fault::Transient,
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
}

impl Store {
    /// Connects and brings the schema up to date.
    ///
    /// # Errors
    /// [`StoreError`] naming the database without its password.
    pub async fn connect(settings: &config::Store) -> Result<Self, StoreError> {
        let url = settings.url.expose_secret();
        let db = if url.starts_with("sqlite:") {
            Db::Sqlite(connect_sqlite(url, settings).await?)
        } else {
            Db::Postgres(connect_postgres(url, settings).await?)
        };
        // A newer build may have migrated the database already: during a rolling upgrade both work on it.
        let mut migrator = sqlx::migrate!("src/store/migrations");
        migrator.set_ignore_missing(true);
        on_pool!(&db, |pool| migrator.run(pool).await)?;
        Ok(Self { db })
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

async fn connect_sqlite(url: &str, settings: &config::Store) -> Result<SqlitePool, StoreError> {
    let bad = |reason: String| StoreError::BadUrl { url: url.to_owned(), reason };
    let options = SqliteConnectOptions::from_str(url).map_err(|err| bad(err.to_string()))?;
    if let Some(dir) = options.get_filename().parent().filter(|dir| !dir.as_os_str().is_empty()) {
        config::private_dir(dir).map_err(|err| bad(format!("cannot create {}: {err}", dir.display())))?;
    }
    let file = options.get_filename().to_owned();
    let options = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(settings.busy_timeout.0)
        .synchronous(SqliteSynchronous::Full)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .foreign_keys(true)
        .pragma("secure_delete", "ON");
    let pool = SqlitePoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(Duration::from_secs(30))
        .connect_with(options)
        .await
        .map_err(|err| match busy::named(err, &file) {
            StoreError::Database(err) => {
                bad(format!("{err} (is the directory writable, and is there room on the disk?)"))
            }
            locked => locked,
        })?;
    assert_sqlite_settings(&pool, url).await?;
    Ok(pool)
}

/// The promises of erasure and durability rest on these; a build or a file that ignores them is refused.
async fn assert_sqlite_settings(pool: &SqlitePool, url: &str) -> Result<(), StoreError> {
    let bad = |reason: String| StoreError::BadUrl { url: url.to_owned(), reason };
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(pool).await?;
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(pool).await?;
    let secure_delete: i64 = sqlx::query_scalar("PRAGMA secure_delete").fetch_one(pool).await?;
    if (journal.as_str(), synchronous, secure_delete) != ("wal", 2, 1) {
        let got = format!("journal_mode={journal} synchronous={synchronous} secure_delete={secure_delete}");
        return Err(bad(format!("SQLite refused its settings: {got}")));
    }
    Ok(())
}

async fn connect_postgres(url: &str, settings: &config::Store) -> Result<PgPool, StoreError> {
    let shown = url::Url::parse(url).map_or_else(
        |_| "postgres://…".to_owned(),
        |mut url| {
            let _ = url.set_password(None);
            url.to_string()
        },
    );
    sqlx::postgres::PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(Duration::from_secs(30))
        .connect(url)
        .await
        .map_err(|err| StoreError::BadUrl { url: shown, reason: err.to_string() })
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
