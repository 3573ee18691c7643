//! Detects connection poolers such as PgBouncer. With transaction pooling, two statements of one connection may run on
//! two server sessions. Prepared statements, session locks and LISTEN do not work then.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::StoreError;
use super::server::{Server, speaks_like_a_pooler};

/// Time limit of the check, because a pool without a free server does not answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Checks per connection. One is enough behind a pooler without other users.
const LOOKS: u32 = 3;

/// Refuses a server that is a pooler in transaction or statement mode.
///
/// The check sets a session variable on `first`. It reads the variable in a transaction of a second connection, and
/// again on `first` during that transaction. The variable appears on the second connection, or is missing on the first,
/// only if sessions are shared.
pub(super) async fn refuse(first: &mut PgConnection, server: &Server) -> Result<(), StoreError> {
    let pooled = |mode: &str| StoreError::Pooled { url: server.shown.clone(), mode: mode.to_owned() };
    let looks = async {
        for _ in 0..LOOKS {
            if shares_sessions(first, server).await? {
                return Err(pooled("transaction mode"));
            }
        }
        Ok(())
    };
    match tokio::time::timeout(PATIENCE, looks).await {
        Ok(Err(StoreError::Database(err))) if speaks_like_a_pooler(&err) => Err(pooled("statement mode")),
        Ok(Err(err)) => Err(err),
        // The next query will report a server that is too busy to answer.
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

async fn shares_sessions(first: &mut PgConnection, server: &Server) -> Result<bool, StoreError> {
    let mark = uuid::Uuid::now_v7().to_string();
    // Uses the simple protocol, because a pooler mixes up prepared statements.
    let set = format!("SELECT set_config('aftercall.session', '{mark}', false)");
    sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut *first).await?;
    // A pooler that rotates its servers runs the next statement on another one.
    if session_mark(first).await? != mark {
        return Ok(true);
    }
    let mut second = server.reach().await?;
    sqlx::raw_sql("BEGIN").execute(&mut second).await?;
    let shared = session_mark(&mut second).await? == mark || session_mark(first).await? != mark;
    sqlx::raw_sql("ROLLBACK").execute(&mut second).await?;
    let _ = second.close().await;
    Ok(shared)
}

async fn session_mark(connection: &mut PgConnection) -> Result<String, StoreError> {
    let row =
        sqlx::raw_sql("SELECT coalesce(current_setting('aftercall.session', true), '')").fetch_one(connection).await?;
    Ok(row.try_get(0)?)
}
