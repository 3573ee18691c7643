//! A PostgreSQL server: its URL, one connection or a pool, and the cause of a failed connection.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgConnection, PgPool};

use super::StoreError;
use crate::config;

/// A server without a connection within this time counts as away.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// The wait for a connection of a busy pool is longer, because its transactions end soon.
pub(super) const POOL_PATIENCE: Duration = Duration::from_secs(30);

/// A PostgreSQL server, by its URL.
pub(super) struct Server {
    options: PgConnectOptions,
    /// The URL without its password.
    pub(super) shown: String,
}

impl Server {
    pub(super) fn of(url: &str) -> Result<Self, StoreError> {
        let shown = url::Url::parse(url).map_or_else(
            |_| "postgres://…".to_owned(),
            |mut url| {
                let _ = url.set_password(None);
                url.to_string()
            },
        );
        match PgConnectOptions::from_str(url) {
            Ok(options) => Ok(Self { options, shown }),
            Err(err) => Err(StoreError::BadUrl { url: shown, reason: err.to_string() }),
        }
    }

    /// One connection outside of any pool, or the cause of the failure, within seconds.
    pub(super) async fn reach(&self) -> Result<PgConnection, StoreError> {
        let away = |reason: String| StoreError::Away { url: self.shown.clone(), reason };
        match tokio::time::timeout(ANSWERS_WITHIN, self.options.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(err)) if speaks_like_a_pooler(&err) => Err(StoreError::Pooled {
                url: self.shown.clone(),
                mode: format!(
                    "a mode that refuses the connection ({err}; in session mode it needs ignore_startup_parameters = extra_float_digits)"
                ),
            }),
            Ok(Err(err)) if passes(&err) => Err(away(err.to_string())),
            Ok(Err(err)) => Err(StoreError::BadUrl { url: self.shown.clone(), reason: err.to_string() }),
            Err(_) => Err(away(format!("no connection within {} s", ANSWERS_WITHIN.as_secs()))),
        }
    }

    pub(super) fn pool(&self, settings: &config::StoreSettings) -> PgPool {
        PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .acquire_timeout(POOL_PATIENCE)
            .connect_lazy_with(self.options.clone())
    }
}

/// Whether a failed connection may succeed later: no listener, or a server that starts, stops or is full.
fn passes(err: &sqlx::Error) -> bool {
    match err {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(err) => {
            err.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08") || code == "53300")
        }
        _ => false,
    }
}

/// Whether only a pooler returns this error.
pub(super) fn speaks_like_a_pooler(err: &sqlx::Error) -> bool {
    let said = err.to_string();
    ["unsupported startup parameter", "statement pooling mode", "prepared statement \"sqlx_s_"]
        .iter()
        .any(|word| said.contains(word))
}
