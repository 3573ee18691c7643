//! Commands that only read: they change nothing, not even the schema.

use std::path::Path;
use std::process::Stdio;

use aftercall::demo::{Api, SampleCall};
use jiff::SignedDuration;
use sqlx::{Connection, Executor};

use crate::postgres;
use crate::process::{Site, ago};

const READERS: [&[&str]; 9] = [
    &["calls", "list", "--json"],
    &["calls", "show", "call_000001", "--json"],
    &["jobs", "list", "--json"],
    &["backfill", "list", "--json"],
    &["retention", "plan", "--json"],
    &["hold", "list", "--json"],
    &["keys", "list", "--json"],
    &["voices", "list", "--json"],
    &["costs", "--json"],
];

/// A site with one call that is done.
async fn with_a_call(more: &str) -> Site {
    let call = SampleCall::numbered(Api::KrosaiV1, 1, ago(SignedDuration::from_mins(5)));
    let site = Site::start(vec![call], more).await;
    site.well(&["trigger", "call_000001", "--source", "krosai"]).await;
    site.well(&["work", "--until-idle"]).await;
    site
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_leave_an_older_schema_as_it_is_and_say_which_they_need() {
    let site = with_a_call("").await;
    let file = format!("sqlite://{}", site.data_dir().join("aftercall.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&file).await.unwrap();
    let last: i64 =
        sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(&mut connection).await.unwrap();
    // The last step was never taken: what it made does not matter here.
    let forget = "DELETE FROM _sqlx_migrations WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)";
    connection.execute(forget).await.unwrap();
    for args in [READERS[0], READERS[2], READERS[6]] {
        let said = site.run(args).await;
        assert_eq!(said.code(), Some(75), "{said:?}");
        assert!(said.stderr.contains(&format!("needs {last} (queue")), "{}", said.stderr);
        assert!(said.stderr.contains("older") || said.stderr.contains("aftercall work"), "{}", said.stderr);
    }
    let doctor = site.run(&["doctor"]).await;
    assert!(doctor.stdout.contains("FAIL database") && doctor.stdout.contains("needs"), "{}", doctor.stdout);
    let steps: i64 =
        sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(&mut connection).await.unwrap();
    assert!(steps < last, "a reader has changed the schema");
    // A newer one will do.
    let newer = "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
                 SELECT step, 'later', installed_on, success, checksum, execution_time FROM _sqlx_migrations, \
                 (SELECT 9000 AS step UNION SELECT $1) WHERE version = 1";
    sqlx::query(newer).bind(last).execute(&mut connection).await.unwrap();
    let said = site.well(READERS[0]).await;
    assert!(said.stderr.contains("newer build") && said.stderr.contains("9000"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_make_no_database() {
    let site = Site::start(Vec::new(), "").await;
    for args in [READERS[0], READERS[4], READERS[8]] {
        let said = site.run(args).await;
        assert_eq!(said.code(), Some(75), "{said:?}");
        assert!(said.stderr.contains("no tables yet") && said.stderr.contains("aftercall work"), "{}", said.stderr);
        assert!(!site.data_dir().join("aftercall.db").exists(), "{args:?} has made a database");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_written_is_read() {
    let mut site = with_a_call("").await;
    // A copy on a medium that this user may only read.
    let medium = site.place().join("medium");
    std::fs::create_dir(&medium).unwrap();
    let file = format!("sqlite://{}", site.data_dir().join("aftercall.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&file).await.unwrap();
    // What the processes wrote may still be in the write-ahead log, which is not copied.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
    connection.close().await.unwrap();
    std::fs::copy(site.data_dir().join("aftercall.db"), medium.join("aftercall.db")).unwrap();
    site.configure(&format!("[store]\nurl = \"sqlite://{}/aftercall.db\"", medium.display()));
    readable_to_all(site.place());
    // The build's own directory may be closed to other users.
    // A process of another test that forks while this one writes the copy would keep it from being run.
    let mut copy = std::process::Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_aftercall")).arg(site.place().join("aftercall"));
    assert!(copy.status().unwrap().success());
    let mode =
        |path: &Path, mode: u32| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode));
    mode(&medium.join("aftercall.db"), 0o444).unwrap();
    mode(&medium, 0o555).unwrap();
    for args in READERS {
        let (code, stdout, stderr) = as_somebody(&site, args).await;
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
        assert!(serde_json::from_str::<serde_json::Value>(&stdout).is_ok(), "{args:?}: {stdout}");
    }
    let (code, _, stderr) = as_somebody(&site, &["keys", "add", "x", "--scope", "calls:read"]).await;
    assert!(code != Some(0) && stderr.contains("belongs to another user"), "{code:?}: {stderr}");
    let left: Vec<_> = std::fs::read_dir(&medium).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["aftercall.db"], "something was written");
    mode(&medium, 0o755).unwrap();
}

fn readable_to_all(place: &Path) {
    for path in [place.to_owned(), place.join("aftercall.toml"), place.join("data")] {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
}

/// Runs the program as a user who owns nothing of the site: root may write everywhere.
async fn as_somebody(site: &Site, args: &[&str]) -> (Option<i32>, String, String) {
    let root = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::from(postgres::as_server_user(root.path()));
    command.arg(site.place().join("aftercall")).arg("--config").arg(site.config_file()).args(args);
    let output = command.current_dir("/").stdin(Stdio::null()).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_writes_is_read() {
    let Some(cluster) = postgres::cluster() else { return };
    let url = cluster.database();
    let site = with_a_call(&format!("[store]\nurl = \"{url}\"")).await;
    let mut admin = sqlx::PgConnection::connect(&url).await.unwrap();
    let database: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&mut admin).await.unwrap();
    let set = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    admin.execute(sqlx::AssertSqlSafe(set)).await.unwrap();
    for args in READERS {
        site.well(args).await;
    }
    let said = site.run(&["trigger", "call_000002", "--source", "krosai"]).await;
    assert_eq!(said.code(), Some(75), "{said:?}");
    assert!(said.stderr.contains("read-only"), "{}", said.stderr);
}
