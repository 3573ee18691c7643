//! A private PostgreSQL for the suites that run on every backend: one cluster for the test process, started from the
//! installed server binaries, gone when the process is gone, however it ends.

use std::env;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use sqlx::AssertSqlSafe;
use sqlx::Connection;
use sqlx::Executor;
use sqlx::PgConnection;

/// Set by CI: a machine without PostgreSQL is then a failure instead of a skipped suite.
const REQUIRED: &str = "AFTERCALL_REQUIRE_POSTGRES";

/// Makes a cluster, says `ready`, waits until the test process is gone (its end of stdin closes, whatever killed it),
/// then stops the server and takes the directory along. It never asks the test process for anything, so a SIGKILL is
/// as good an end as any.
const WATCHDOG: &str = r#"
set -e
trap 'pg_ctl -D "$PGROOT/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$PGROOT"' EXIT
trap '' INT HUP TERM
initdb -D "$PGROOT/data" -U postgres -A trust -E UTF8 --locale=C --no-sync --no-instructions >"$PGROOT/initdb.log" 2>&1 ||
    { cat "$PGROOT/initdb.log"; exit 1; }
pg_ctl -D "$PGROOT/data" -l "$PGROOT/server.log" -w -t 60 -o "$PGOPTS" start >"$PGROOT/start.log" 2>&1 ||
    { cat "$PGROOT/start.log" "$PGROOT/server.log"; exit 1; }
echo ready
exec >/dev/null 2>&1
cat
"#;

/// Durability is of no use to a cluster that never outlives its process.
const SETTINGS: &str = "-c listen_addresses='' -c fsync=off -c full_page_writes=off -c max_connections=200 \
                        -c timezone=UTC -c log_min_messages=fatal -c unix_socket_permissions=0777";

/// A running private cluster.
#[derive(Debug)]
pub struct Cluster {
    root: PathBuf,
    databases: AtomicU32,
    /// Holds the pipe whose end tells the watchdog that this process is gone.
    watchdog: Mutex<Child>,
}

/// The cluster of this test process, started at the first call; `None`, and a line saying so, where no server is
/// installed. Panics instead when `AFTERCALL_REQUIRE_POSTGRES=1`.
pub fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let started = CLUSTER.get_or_init(|| {
        let binaries = binaries();
        if binaries.is_none() {
            assert!(env::var(REQUIRED).as_deref() != Ok("1"), "{REQUIRED}=1 but no PostgreSQL server is installed");
            // Not `eprintln!`, which the test harness hides when the test then passes.
            let note = "no PostgreSQL server binaries on this machine: the PostgreSQL suites are skipped";
            let _ = writeln!(std::io::stderr(), "{note}");
        }
        binaries.map(|folder| Cluster::start(&folder))
    });
    started.as_ref()
}

/// A cluster of the caller's own, which it may ill-treat.
pub fn own() -> Option<Cluster> {
    cluster()?;
    binaries().map(|folder| Cluster::start(&folder))
}

impl Cluster {
    /// Stops the server (`fast`: connections are cut; `immediate`: as if it had crashed) and starts it again.
    pub fn restart(&self, mode: &str) {
        self.control("restart", mode);
    }

    /// Stops the server, cutting its connections. [`Cluster::restart`] has it back.
    pub fn stop(&self) {
        self.control("stop", "fast");
    }

    fn control(&self, what: &str, mode: &str) {
        let mut command = as_server_user(&self.root);
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", binaries().unwrap().display());
        let (data, log) = (self.root.join("data"), self.root.join("server.log"));
        command.args(["pg_ctl", what, "-D"]).arg(data).arg("-l").arg(log).args(["-w", "-t", "60", "-m", mode]);
        if what == "restart" {
            command.arg("-o").arg(format!("{SETTINGS} -k {}", self.root.display()));
        }
        command.env_clear().env("PATH", path).env("LC_ALL", "C").current_dir(&self.root);
        let said = self.root.join("restart.log");
        let out = fs::File::create(&said).unwrap();
        let err = out.try_clone().unwrap();
        let done = command.stdin(Stdio::null()).stdout(out).stderr(err).status().unwrap();
        let said = || fs::read_to_string(&said).unwrap_or_default();
        assert!(done.success(), "the server did not {what}: {}", said());
    }

    /// Where its socket and its log are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn start(binaries: &Path) -> Self {
        // The path of a Unix socket may have 107 bytes at most: too few for what TMPDIR can be.
        let root = tempfile::Builder::new().prefix("aftercall-pg-").tempdir_in("/tmp").unwrap().keep();
        let mut shell = as_server_user(&root);
        shell.args(["sh", "-c", WATCHDOG]).env_clear();
        shell.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", binaries.display())).env("LC_ALL", "C");
        shell.env("PGROOT", &root).env("PGOPTS", format!("{SETTINGS} -k {}", root.display()));
        // Its own process group: an interrupt at the terminal is for the tests, not for the watchdog.
        shell.current_dir(&root).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut watchdog = shell.spawn().unwrap();

        let mut answer = String::new();
        let mut stdout = BufReader::new(watchdog.stdout.take().unwrap());
        stdout.read_line(&mut answer).unwrap();
        if answer.trim_end() != "ready" {
            stdout.read_to_string(&mut answer).unwrap();
            watchdog.stderr.take().unwrap().read_to_string(&mut answer).unwrap();
            panic!("the private PostgreSQL cluster did not start:\n{answer}");
        }
        Self { root, databases: AtomicU32::new(0), watchdog: Mutex::new(watchdog) }
    }

    /// The URL of a new, empty database. Blocks for the tens of milliseconds that takes.
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let (admin, create) = (self.url("postgres"), format!("CREATE DATABASE {name}"));
        // On a thread of its own: a test may call this from inside its runtime, where blocking on another is refused.
        let created = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&admin).await?;
                connection.execute(AssertSqlSafe(create)).await?;
                connection.close().await
            })
        });
        created.join().unwrap().unwrap();
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.root.display())
    }
}

/// Where `initdb`, `pg_ctl` and `postgres` are: on PATH, else the newest of Debian's versioned folders.
fn binaries() -> Option<PathBuf> {
    let complete = |folder: &PathBuf| ["initdb", "pg_ctl", "postgres"].iter().all(|name| folder.join(name).is_file());
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).find(complete);
    on_path.or_else(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let number = |folder: &PathBuf| folder.file_name()?.to_str()?.parse::<u32>().ok();
        let mut versions: Vec<(Option<u32>, PathBuf)> =
            versions.map(|path| (number(&path), path.join("bin"))).collect();
        versions.sort();
        versions.into_iter().rev().map(|(_, folder)| folder).find(complete)
    })
}

/// A command that runs its arguments as a user the server accepts: PostgreSQL refuses to run as root. `root` is that
/// user's from then on.
pub fn as_server_user(root: &Path) -> Command {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Command::new("env");
    }
    let (uid, gid) = user("postgres").or_else(|| user("nobody")).expect("a user to run PostgreSQL as");
    chown(root, Some(uid), Some(gid)).unwrap();
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned(), "--".to_owned()]);
    command
}

/// User and group id of an account.
fn user(name: &str) -> Option<(u32, u32)> {
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    accounts.lines().find_map(|line| match line.split(':').collect::<Vec<_>>().as_slice() {
        [account, _, uid, gid, ..] if *account == name => Some((uid.parse().ok()?, gid.parse().ok()?)),
        _ => None,
    })
}

mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn every_test_gets_a_database_of_its_own() {
        let Some(cluster) = cluster() else { return };
        let (one, other) = (cluster.database(), cluster.database());
        assert_ne!(one, other);
        let mut here = PgConnection::connect(&one).await.unwrap();
        here.execute("CREATE TABLE note (text TEXT)").await.unwrap();
        let mut there = PgConnection::connect(&other).await.unwrap();
        let tables = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'note'";
        assert_eq!(sqlx::query_scalar::<_, i64>(tables).fetch_one(&mut here).await.unwrap(), 1);
        assert_eq!(sqlx::query_scalar::<_, i64>(tables).fetch_one(&mut there).await.unwrap(), 0);
        let limit: String = sqlx::query_scalar("SHOW max_connections").fetch_one(&mut here).await.unwrap();
        assert_eq!(limit, "200");
    }

    #[test]
    fn the_server_does_not_outlive_its_process() {
        let Some(folder) = binaries() else { return };
        let cluster = Cluster::start(&folder);
        let mut connection = UnixStream::connect(cluster.root.join(".s.PGSQL.5432")).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();

        // What the kernel does to the pipe of a process that ends, whatever ended it.
        let mut watchdog = cluster.watchdog.into_inner().unwrap();
        drop(watchdog.stdin.take());
        watchdog.wait().unwrap();

        assert!(!cluster.root.exists(), "the data directory is still there");
        // The server says nothing before it is spoken to: the read ends only because the server does.
        let ended = match connection.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        assert!(ended, "the server still runs");
    }
}
