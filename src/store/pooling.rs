//! Poolers such as PgBouncer: behind transaction pooling two statements of one connection may meet two servers, so that
//! prepared statements, session locks and LISTEN do not hold.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::StoreError;
use super::connect::Server;

/// The look is cut short after this: a pool that has no server free hands none out.
const PATIENCE: Duration = Duration::from_secs(3);
/// Looks. One is enough behind a pooler that nobody else uses.
const LOOKS: u32 = 3;

/// Refuses a server that is a pooler in transaction or statement mode.
///
/// A setting of `first`'s session is looked for in a transaction of another connection, and again on `first` while that
/// transaction is open: it is in the wrong place, or gone from the right one, only where sessions are shared.
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
        // A server too busy to answer is found out about by what is asked of it next.
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

async fn shares_sessions(first: &mut PgConnection, server: &Server) -> Result<bool, StoreError> {
    let mark = uuid::Uuid::now_v7().to_string();
    // The simple protocol: prepared statements are what a pooler mixes up.
    let set = format!("SELECT set_config('aftercall.session', '{mark}', false)");
    sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut *first).await?;
    // Where servers are handed out in turn, the next statement meets another one.
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

/// Whether an error is one that only poolers have.
pub(super) fn speaks_like_a_pooler(err: &sqlx::Error) -> bool {
    let said = err.to_string();
    ["unsupported startup parameter", "statement pooling mode", "prepared statement \"sqlx_s_"]
        .iter()
        .any(|word| said.contains(word))
}
