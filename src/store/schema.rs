//! The schema: our tables and the queue's. Both migrators run under one lock of ours, because the lock of one migrator
//! does not protect the other's tables.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use riverqueue::migrate::{PostgresMigrator, SqliteMigrator};
use sqlx::PgConnection;
use sqlx::migrate::Migrator;

use super::{Db, StoreError, on_pool};

/// PostgreSQL advisory lock for schema changes: "aftercal" in ASCII.
const SCHEMA_LOCK: i64 = 0x6166_7465_7263_616c;
/// Pause between tries to get a lock.
const LOOK: Duration = Duration::from_millis(50);

static OURS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("src/store/migrations");
    // During a rolling upgrade, a newer build may have migrated the database already.
    migrator.set_ignore_missing(true);
    migrator
});

/// Our indexes on the queue's table: name, and columns for SQLite and PostgreSQL.
const QUEUE_INDEXES: [(&str, &str, &str); 2] = [
    ("aftercall_job_subject", "(json_extract(args, '$.subject'))", "((args->>'subject'))"),
    (
        "aftercall_job_tenant",
        "(json_extract(args, '$.tenant'), queue, priority) WHERE finalized_at IS NULL",
        "((args->>'tenant'), queue, priority) WHERE finalized_at IS NULL",
    ),
];

/// The applied schema steps of a database, or those that this build needs.
struct SchemaVersion {
    ours: BTreeSet<i64>,
    queue: BTreeSet<i64>,
    indexes: usize,
}

impl SchemaVersion {
    async fn of(db: &Db) -> Result<Self, StoreError> {
        let (ours, indexes, queue) = match db {
            Db::Sqlite(pool) => {
                let there = "SELECT COUNT(*) > 0 FROM sqlite_schema WHERE name = '_sqlx_migrations'";
                let ours: bool = sqlx::query_scalar(there).fetch_one(pool).await?;
                let indexes = "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'index' AND name LIKE 'aftercall\\_job\\_%' ESCAPE '\\'";
                let indexes: i64 = sqlx::query_scalar(indexes).fetch_one(pool).await?;
                (ours, indexes, SqliteMigrator::new(pool.clone()).existing_versions().await?)
            }
            Db::Postgres(pool) => {
                let there = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
                let ours: bool = sqlx::query_scalar(there).fetch_one(pool).await?;
                let indexes = "SELECT COUNT(*) FROM pg_indexes WHERE schemaname = current_schema() \
                               AND indexname LIKE 'aftercall\\_job\\_%'";
                let indexes: i64 = sqlx::query_scalar(indexes).fetch_one(pool).await?;
                (ours, indexes, PostgresMigrator::new(pool.clone()).existing_versions().await?)
            }
        };
        let ours: Vec<i64> = if ours {
            let done = "SELECT version FROM _sqlx_migrations WHERE success";
            on_pool!(db, |pool| sqlx::query_scalar(done).fetch_all(pool).await?)
        } else {
            Vec::new()
        };
        let indexes = usize::try_from(indexes).unwrap_or(0);
        Ok(Self { ours: ours.into_iter().collect(), queue: queue.into_iter().collect(), indexes })
    }

    /// The steps that this build needs.
    fn needed(db: &Db) -> Self {
        let queue = match db {
            Db::Sqlite(_) => SqliteMigrator::all_versions(),
            Db::Postgres(_) => PostgresMigrator::all_versions(),
        };
        let queue = queue.iter().map(|step| step.version).collect();
        Self { ours: our_steps(), queue, indexes: QUEUE_INDEXES.len() }
    }

    fn has_tables_of(&self, other: &Self) -> bool {
        self.ours.is_superset(&other.ours) && self.queue.is_superset(&other.queue)
    }

    /// The last step of each schema, as shown to people.
    fn name(&self) -> String {
        let last = |steps: &BTreeSet<i64>| steps.last().copied().unwrap_or(0);
        format!("{} (queue {})", last(&self.ours), last(&self.queue))
    }
}

fn our_steps() -> BTreeSet<i64> {
    OURS.iter().map(|step| step.version).collect()
}

/// The error for a database without our tables.
pub(super) fn missing() -> StoreError {
    StoreError::NoSchema { need: our_steps().last().copied().unwrap_or(0).to_string() }
}

/// Refuses a schema older than this build's. A newer one is accepted, as for an older worker in a rolling upgrade.
pub(super) async fn require(db: &Db) -> Result<(), StoreError> {
    let (have, need) = (SchemaVersion::of(db).await?, SchemaVersion::needed(db));
    if have.ours.is_empty() {
        return Err(StoreError::NoSchema { need: need.name() });
    }
    if !have.has_tables_of(&need) {
        return Err(StoreError::OldSchema { have: have.name(), need: need.name() });
    }
    if have.ours.last() > need.ours.last() {
        tracing::warn!(have = have.name(), need = need.name(), "the database has the schema of a newer build");
    }
    Ok(())
}

/// Updates the schema. The caller holds the lock.
pub(super) async fn update(db: &Db) -> Result<(), StoreError> {
    let (have, need) = (SchemaVersion::of(db).await?, SchemaVersion::needed(db));
    if have.has_tables_of(&need) && have.indexes >= need.indexes {
        return Ok(());
    }
    on_pool!(db, |pool| OURS.run(pool).await)?;
    match db {
        Db::Sqlite(pool) => drop(SqliteMigrator::new(pool.clone()).migrate_up().await?),
        Db::Postgres(pool) => drop(PostgresMigrator::new(pool.clone()).migrate_up().await?),
    }
    for (name, sqlite, postgres) in QUEUE_INDEXES {
        let on = if matches!(db, Db::Sqlite(_)) { sqlite } else { postgres };
        let make = format!("CREATE INDEX IF NOT EXISTS {name} ON river_job {on}");
        on_pool!(db, |pool| sqlx::query(sqlx::AssertSqlSafe(make)).execute(pool).await.map(drop))?;
    }
    Ok(())
}

/// Updates an outdated schema of a server's database under an advisory lock of the session `first`. The lock ends with
/// that connection, also if this process dies.
pub(super) async fn update_under_lock(db: &Db, first: &mut PgConnection, wait: Duration) -> Result<(), StoreError> {
    let (have, need) = (SchemaVersion::of(db).await?, SchemaVersion::needed(db));
    if have.has_tables_of(&need) && have.indexes >= need.indexes {
        return Ok(());
    }
    let since = Instant::now();
    while !sqlx::query_scalar::<_, bool>("SELECT pg_try_advisory_lock($1)")
        .bind(SCHEMA_LOCK)
        .fetch_one(&mut *first)
        .await?
    {
        patient(since, wait)?;
        tokio::time::sleep(LOOK).await;
    }
    update(db).await?;
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(SCHEMA_LOCK).execute(first).await?;
    Ok(())
}

fn patient(since: Instant, wait: Duration) -> Result<(), StoreError> {
    if since.elapsed() < wait { Ok(()) } else { Err(StoreError::SchemaBusy { waited_s: wait.as_secs() }) }
}

/// The file name with `ending` appended.
pub(super) fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(ending);
    PathBuf::from(name)
}

/// Opens a lock file that only this user can open.
pub(super) fn open_lock(path: &Path) -> Result<File, StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = File::options().create(true).truncate(false).write(true).mode(0o600).open(path);
    opened.map_err(|err| StoreError::BadUrl {
        url: path.display().to_string(),
        reason: format!("{err} (is the directory of the database writable?)"),
    })
}

/// The lock for schema changes of a database file. The system releases it at the end of the process.
pub(super) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits for the lock.
    pub(super) async fn wait(database: &Path, wait: Duration) -> Result<Self, StoreError> {
        let file = open_lock(&beside(database, "-schema"))?;
        let since = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => patient(since, wait)?,
                Err(TryLockError::Error(err)) => return Err(StoreError::Database(sqlx::Error::Io(err))),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
