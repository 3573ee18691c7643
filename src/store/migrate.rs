//! Migration of an installation from SQLite to PostgreSQL. All our tables and all jobs are copied in one transaction of
//! the target. The write lock of the source database keeps other processes out.

use sqlx::{Postgres, Sqlite, SqliteConnection, Transaction};

use super::{Db, Store, StoreError, corrupt};

/// Rows per statement.
const BATCH: i64 = 500;
/// Tables that are not copied: workers register again, and requests in progress end with their process.
const STAY: [&str; 3] = ["worker", "source_request", "_sqlx_migrations"];
/// Fact in the source database, set when the target holds all data.
const MOVED: &str = "moved_to";

/// A copied table and its number of rows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    pub table: String,
    pub rows: u64,
}

impl Store {
    /// The place to which this database was moved. A moved database must not be used any more.
    pub async fn moved_to(&self) -> Result<Option<String>, StoreError> {
        self.fact(MOVED).await
    }

    /// Copies all data into `target`, an empty PostgreSQL database with the current schema. Notes `name` as the new
    /// place of this database. The source is changed only after the target has committed.
    ///
    /// # Errors
    /// [`StoreError`]. A target that holds calls, jobs, keys or holds is refused.
    pub async fn move_to(&self, target: &Self, name: &str) -> Result<Vec<Moved>, StoreError> {
        let (super::Tx::Sqlite(mut from), super::Tx::Postgres(mut to)) = (self.begin().await?, target.begin().await?)
        else {
            let reason = "only an installation on SQLite can be moved, and only to PostgreSQL".to_owned();
            return Err(StoreError::BadUrl { url: name.to_owned(), reason });
        };
        refuse_unless_empty(&mut to, name).await?;
        let mut moved = Vec::new();
        for table in tables(&mut from).await? {
            let rows = copy_table(&mut from, &mut to, &table).await?;
            moved.push(Moved { table, rows });
        }
        moved.push(Moved { table: "river_job".to_owned(), rows: copy_jobs(&mut from, &mut to).await? });
        for Moved { table, rows } in &moved {
            let sql = format!("SELECT COUNT(*) FROM {table}");
            let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut *to).await?;
            if count as u64 != *rows {
                return Err(corrupt("table", table, format!("{rows} rows were sent, {count} arrived")));
            }
        }
        to.commit().await?;
        sqlx::query("INSERT INTO fact (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2")
            .bind(MOVED)
            .bind(name)
            .execute(&mut *from)
            .await?;
        from.commit().await?;
        Ok(moved)
    }

    /// Whether [`Store::move_to`] supports this pair of databases.
    #[must_use]
    pub const fn can_move_to(&self, target: &Self) -> bool {
        matches!((&self.db, &target.db), (Db::Sqlite(_), Db::Postgres(_)))
    }
}

async fn refuse_unless_empty(to: &mut Transaction<'static, Postgres>, name: &str) -> Result<(), StoreError> {
    for table in ["call_record", "river_job", "api_key", "hold"] {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut **to).await?;
        if rows > 0 {
            let reason = format!("it is not empty: {table} holds {rows} rows");
            return Err(StoreError::BadUrl { url: name.to_owned(), reason });
        }
    }
    Ok(())
}

/// Our tables, each after the tables to which it refers.
async fn tables(from: &mut SqliteConnection) -> Result<Vec<String>, StoreError> {
    let all: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'river\\_%' ESCAPE '\\' \
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    )
    .fetch_all(&mut *from)
    .await?;
    let mut waiting: Vec<(String, Vec<String>)> = Vec::new();
    for table in all.into_iter().filter(|table| !STAY.contains(&table.as_str())) {
        let refers: Vec<String> = sqlx::query_scalar("SELECT \"table\" FROM pragma_foreign_key_list($1)")
            .bind(&table)
            .fetch_all(&mut *from)
            .await?;
        waiting.push((table, refers));
    }
    let mut sorted: Vec<String> = Vec::new();
    while !waiting.is_empty() {
        let (ready, rest): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|(table, refers)| refers.iter().all(|other| other == table || sorted.contains(other)));
        if ready.is_empty() {
            return Err(corrupt("schema", "tables", "they refer to each other in a circle"));
        }
        sorted.extend(ready.into_iter().map(|(table, _)| table));
        waiting = rest;
    }
    Ok(sorted)
}

async fn columns(from: &mut SqliteConnection, table: &str) -> Result<Vec<String>, StoreError> {
    let columns = sqlx::query_scalar("SELECT name FROM pragma_table_info($1) ORDER BY cid");
    Ok(columns.bind(table).fetch_all(from).await?)
}

/// Rows are copied as JSON, and PostgreSQL converts its members to the column types.
async fn copy_table(
    from: &mut Transaction<'static, Sqlite>,
    to: &mut Transaction<'static, Postgres>,
    table: &str,
) -> Result<u64, StoreError> {
    let columns = columns(&mut *from, table).await?;
    let members: Vec<String> = columns.iter().map(|column| format!("'{column}', \"{column}\"")).collect();
    let read = format!(
        "SELECT MAX(n), COUNT(*), json_group_array(json_object({})) FROM \
         (SELECT rowid AS n, * FROM \"{table}\" WHERE rowid > $1 ORDER BY rowid LIMIT $2)",
        members.join(", ")
    );
    let names = columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
    let write =
        format!("INSERT INTO {table} ({names}) SELECT {names} FROM json_populate_recordset(NULL::{table}, $1::json)");
    copy(from, to, &read, &write).await
}

/// Copies the jobs. The table is the same on both engines, with different column types. A running job has lost its
/// worker and becomes due at once.
async fn copy_jobs(
    from: &mut Transaction<'static, Sqlite>,
    to: &mut Transaction<'static, Postgres>,
) -> Result<u64, StoreError> {
    const READ: &str = "SELECT MAX(n), COUNT(*), json_group_array(json_object('id', id, 'args', json(args), \
        'attempt', attempt, 'attempted_at', attempted_at, 'attempted_by', json(attempted_by), \
        'created_at', created_at, 'errors', json(errors), 'finalized_at', finalized_at, 'kind', kind, \
        'max_attempts', max_attempts, 'metadata', json(metadata), 'priority', priority, 'queue', queue, \
        'state', CASE state WHEN 'running' THEN 'available' ELSE state END, 'scheduled_at', scheduled_at, \
        'tags', json(tags), 'unique_key', hex(unique_key), 'has_key', unique_key IS NOT NULL, \
        'unique_states', unique_states)) \
        FROM (SELECT id AS n, * FROM river_job WHERE id > $1 ORDER BY id LIMIT $2)";
    const WRITE: &str = "INSERT INTO river_job (id, args, attempt, attempted_at, attempted_by, created_at, errors, \
        finalized_at, kind, max_attempts, metadata, priority, queue, state, scheduled_at, tags, unique_key, \
        unique_states) SELECT id, args, attempt, attempted_at, attempted_by, created_at, \
        (SELECT array_agg(error) FROM jsonb_array_elements(errors) AS error), finalized_at, kind, max_attempts, \
        metadata, priority, queue, state::river_job_state, scheduled_at, COALESCE(tags, '{}'), \
        CASE WHEN has_key = 1 THEN decode(unique_key, 'hex') END, unique_states::int::bit(8) \
        FROM json_to_recordset($1::json) AS row(id bigint, args jsonb, attempt smallint, attempted_at timestamptz, \
        attempted_by text[], created_at timestamptz, errors jsonb, finalized_at timestamptz, kind text, \
        max_attempts smallint, metadata jsonb, priority smallint, queue text, state text, scheduled_at timestamptz, \
        tags varchar[], unique_key text, has_key int, unique_states bigint)";
    // The times in the JSON are in UTC without a zone.
    sqlx::query("SET LOCAL timezone = 'UTC'").execute(&mut **to).await?;
    let rows = copy(from, to, READ, WRITE).await?;
    sqlx::query(
        "SELECT setval(pg_get_serial_sequence('river_job', 'id'), COALESCE(MAX(id), 0) + 1, false) FROM river_job",
    )
    .execute(&mut **to)
    .await?;
    Ok(rows)
}

async fn copy(
    from: &mut Transaction<'static, Sqlite>,
    to: &mut Transaction<'static, Postgres>,
    read: &str,
    write: &str,
) -> Result<u64, StoreError> {
    let (mut after, mut rows) = (i64::MIN, 0_u64);
    loop {
        let read = sqlx::query_as(sqlx::AssertSqlSafe(read.to_owned()));
        let (last, count, json): (Option<i64>, i64, String) =
            read.bind(after).bind(BATCH).fetch_one(&mut **from).await?;
        let Some(last) = last else { return Ok(rows) };
        sqlx::query(sqlx::AssertSqlSafe(write.to_owned())).bind(json).execute(&mut **to).await?;
        rows += count as u64;
        after = last;
    }
}
