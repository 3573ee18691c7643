//! A database and a directory of one test, and the settings that name them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aftercall::config::Config;
use sqlx::Connection;
use tempfile::TempDir;

use super::Backend;
use crate::postgres;

/// Fast polls and short pauses; everything else as it is shipped.
const SETTINGS: &str = r#"
[worker]
concurrency = 4
cpu_concurrency = 2
poll = "20ms"
cooldown = "1ms"
drain_grace = "30s"
max_attempts = 4
backoff_base = "200ms"
backoff_max = "1h"
[fetch]
not_ready_pause = "200ms"
connect_timeout = "5s"
"#;

/// Where an app lives. The last one to let go of it looks for jobs left over.
#[derive(Debug)]
pub struct Space {
    dir: TempDir,
    url: String,
    text: String,
    leave: AtomicBool,
}

impl Space {
    pub fn new(backend: Backend, extra: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("aftercall-it-").tempdir().unwrap();
        let url = match backend {
            Backend::Sqlite => format!("sqlite://{}", dir.path().join("aftercall.db").display()),
            Backend::Postgres => postgres::cluster().unwrap().database(),
        };
        let mut table: toml::Table = SETTINGS.parse().unwrap();
        let (data, objects) = (dir.path().display(), dir.path().join("objects"));
        let objects = objects.display();
        let places = format!("data_dir = \"{data}\"\n[store]\nurl = \"{url}\"\n[objects]\npath = \"{objects}\"\n");
        lay_over(&mut table, places.parse().unwrap());
        lay_over(&mut table, extra.parse().unwrap());
        Self { text: table.to_string(), dir, url, leave: AtomicBool::new(false) }
    }

    pub fn config(&self) -> Config {
        Config::from_toml(&self.text).unwrap()
    }

    /// The configuration as a child process reads it.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn leave_queue(&self) {
        self.leave.store(true, Ordering::Relaxed);
    }

    /// What is unfinished, seen by a connection of its own: the test's runtime is on its way out.
    fn unfinished(url: String) -> Vec<(i64, String, String)> {
        const SQL: &str = "SELECT id, kind, CAST(state AS TEXT) FROM river_job WHERE finalized_at IS NULL ORDER BY id";
        let looked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                if url.starts_with("sqlite:") {
                    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
                    sqlx::query("PRAGMA busy_timeout = 10000").execute(&mut connection).await.unwrap();
                    sqlx::query_as(SQL).fetch_all(&mut connection).await.unwrap()
                } else {
                    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
                    sqlx::query_as(SQL).fetch_all(&mut connection).await.unwrap()
                }
            })
        });
        looked.join().unwrap()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if std::thread::panicking() || self.leave.load(Ordering::Relaxed) {
            return;
        }
        // A worker that was just told to stop writes its last answers within moments.
        let mut left = Vec::new();
        for _ in 0..20 {
            left = Self::unfinished(self.url.clone());
            if left.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the test ended with unfinished jobs: {left:?}");
    }
}

/// Lays one configuration over another, table by table.
fn lay_over(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => lay_over(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}
