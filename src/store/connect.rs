//! Connections to the database: with write access and a schema update, or read-only.

use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlitePool};

use super::schema::{self, FileLock};
use super::server::{POOL_PATIENCE, Server};
use super::{Db, Store, StoreError, busy, pooling, private_files};
use crate::config;

/// A read-only command waits this long for another process to create or update the tables.
const SCHEMA_WITHIN: Duration = Duration::from_secs(3);
const SCHEMA_LOOK: Duration = Duration::from_millis(100);

pub(super) async fn to_write(settings: &config::StoreSettings) -> Result<Store, StoreError> {
    let url = settings.url.expose_secret();
    if !url.starts_with("sqlite:") {
        let server = Server::of(url)?;
        let mut first = server.reach().await?;
        pooling::refuse(&mut first, &server).await?;
        let db = Db::Postgres(server.pool(settings));
        schema::update_under_lock(&db, &mut first, settings.schema_wait.0).await?;
        let _ = first.close().await;
        return Ok(Store { db, file: None });
    }
    let options = sqlite_options(url)?;
    let file = options.get_filename().to_owned();
    if let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        config::private_dir(dir).map_err(|err| bad(url, format!("cannot create {}: {err}", dir.display())))?;
    }
    // The lock also covers the creation of the file: two connections that enable the write-ahead log at once block each
    // other.
    let lock = FileLock::wait(&file, settings.schema_wait.0).await?;
    private_files::tighten(&file).map_err(|err| bad(url, err.to_string()))?;
    let options = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(settings.busy_timeout.0)
        .synchronous(SqliteSynchronous::Full)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .foreign_keys(true)
        .pragma("secure_delete", "ON");
    let pool = sqlite_pool(settings, options).await.map_err(|err| match busy::named(err, &file) {
        StoreError::Database(err) => {
            bad(url, format!("{err} (is the directory writable, and is there room on the disk?)"))
        }
        locked => locked,
    })?;
    assert_sqlite_settings(&pool, url).await?;
    let db = Db::Sqlite(pool);
    schema::update(&db).await?;
    drop(lock);
    Ok(Store { db, file: Some(file) })
}

/// A read-only command may start before the worker that creates the tables, so that it waits for a short time.
pub(super) async fn to_read(settings: &config::StoreSettings) -> Result<Store, StoreError> {
    let since = Instant::now();
    loop {
        match look(settings).await {
            Err(StoreError::NoSchema { .. } | StoreError::OldSchema { .. }) if since.elapsed() < SCHEMA_WITHIN => {}
            looked => return looked,
        }
        tokio::time::sleep(SCHEMA_LOOK).await;
    }
}

async fn look(settings: &config::StoreSettings) -> Result<Store, StoreError> {
    let url = settings.url.expose_secret();
    if !url.starts_with("sqlite:") {
        let server = Server::of(url)?;
        let mut first = server.reach().await?;
        pooling::refuse(&mut first, &server).await?;
        let _ = first.close().await;
        let db = Db::Postgres(server.pool(settings));
        schema::require(&db).await?;
        return Ok(Store { db, file: None });
    }
    let options = sqlite_options(url)?;
    let file = options.get_filename().to_owned();
    if !file.exists() {
        return Err(schema::missing());
    }
    let options = options.read_only(true).create_if_missing(false).busy_timeout(settings.busy_timeout.0);
    let db = Db::Sqlite(match open_to_read(settings, options.clone()).await {
        Ok(pool) => pool,
        // SQLite cannot create the files of a write-ahead log on a read-only medium. Without a log, the database file
        // alone is complete.
        Err(_) if !has_log(&file) => {
            open_to_read(settings, options.immutable(true)).await.map_err(|err| bad(url, err.to_string()))?
        }
        Err(err) => return Err(bad(url, err.to_string())),
    });
    schema::require(&db).await?;
    Ok(Store { db, file: Some(file) })
}

fn bad(url: &str, reason: String) -> StoreError {
    StoreError::BadUrl { url: url.to_owned(), reason }
}

fn sqlite_options(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    SqliteConnectOptions::from_str(url).map_err(|err| bad(url, err.to_string()))
}

async fn sqlite_pool(
    settings: &config::StoreSettings,
    options: SqliteConnectOptions,
) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(POOL_PATIENCE)
        .connect_with(options)
        .await
}

/// The query is needed because SQLite reads the file only at the first statement.
async fn open_to_read(
    settings: &config::StoreSettings,
    options: SqliteConnectOptions,
) -> Result<SqlitePool, sqlx::Error> {
    let pool = sqlite_pool(settings, options).await?;
    sqlx::query("SELECT COUNT(*) FROM sqlite_schema").execute(&pool).await?;
    Ok(pool)
}

fn has_log(file: &Path) -> bool {
    std::fs::metadata(schema::beside(file, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// Erasure and durability depend on these settings. A build or a file that ignores them is refused.
async fn assert_sqlite_settings(pool: &SqlitePool, url: &str) -> Result<(), StoreError> {
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(pool).await?;
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(pool).await?;
    let secure_delete: i64 = sqlx::query_scalar("PRAGMA secure_delete").fetch_one(pool).await?;
    if (journal.as_str(), synchronous, secure_delete) != ("wal", 2, 1) {
        let got = format!("journal_mode={journal} synchronous={synchronous} secure_delete={secure_delete}");
        return Err(bad(url, format!("SQLite refused its settings: {got}")));
    }
    Ok(())
}

impl Store {
    /// Whether a PostgreSQL server accepts a connection within `patience`, independent of the pool. A database file
    /// always does.
    ///
    /// # Errors
    /// [`StoreError::Away`].
    pub async fn answers(&self, patience: Duration) -> Result<(), StoreError> {
        let Db::Postgres(pool) = &self.db else { return Ok(()) };
        let options = pool.connect_options();
        let url = format!("{}:{}", options.get_host(), options.get_port());
        let asked = async {
            let mut connection = options.connect().await?;
            connection.ping().await?;
            connection.close().await
        };
        match tokio::time::timeout(patience, asked).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(err)) => Err(StoreError::Away { url, reason: err.to_string() }),
            Err(_) => Err(StoreError::Away { url, reason: format!("no answer within {} s", patience.as_secs_f64()) }),
        }
    }

    /// The database's clock in milliseconds since 1970. `None` for SQLite, which uses this machine's clock.
    pub async fn database_time(&self) -> Result<Option<i64>, StoreError> {
        let Db::Postgres(pool) = &self.db else { return Ok(None) };
        let now = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";
        Ok(Some(sqlx::query_scalar(now).fetch_one(pool).await?))
    }
}
