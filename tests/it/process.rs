//! The real program as processes of its own, beside a sample platform that outlives them; and the same place seen by
//! an `App` in the test's own process, whose clock can be turned.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aftercall::app::{App, Clock};
use aftercall::config::Config;
use aftercall::demo::{self, Api, Builder, RunningPlatform, SampleCall, SamplePlatform};
use aftercall::domain::{CallId, SourceName};
use aftercall::store::{CallRecord, Db};
use aftercall::worker::{self, DataLock, Signals, Until};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// How long anything that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Fast polls and short pauses, nothing fires by itself; everything else as it is shipped.
const SETTINGS: &str = r#"
[worker]
concurrency = 4
cpu_concurrency = 2
poll = "20ms"
cooldown = "1ms"
backoff_base = "100ms"
backoff_max = "1s"
[fetch]
not_ready_pause = "200ms"
[schedule]
enabled = false
[log]
level = "warn"
"#;

/// A data directory, its configuration file, and the platform it asks.
pub struct Site {
    dir: TempDir,
    pub platform: SamplePlatform,
    pub serving: RunningPlatform,
    text: String,
    offset: Arc<AtomicI64>,
}

/// How a process ended and what it said.
#[derive(Debug)]
pub struct Said {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The JSON document on stdout.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|err| panic!("{err}: {self:?}"))
    }
}

/// The moment this long ago.
pub fn ago(span: SignedDuration) -> Timestamp {
    Timestamp::now() - span
}

/// Days, as retention counts them.
pub const fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

pub fn source(api: Api) -> SourceName {
    SourceName::parse(demo::source_name(api)).unwrap()
}

impl Site {
    /// A site whose platform holds these calls, with `more` (TOML) laid over the tests' settings.
    pub async fn start(calls: Vec<SampleCall>, more: &str) -> Self {
        Self::with(calls, more, |builder| builder).await
    }

    /// The same with a platform of the caller's making.
    pub async fn with(calls: Vec<SampleCall>, more: &str, make: impl FnOnce(Builder) -> Builder) -> Self {
        let offset = Arc::new(AtomicI64::new(0));
        let clock = Clock::offset_by(offset.clone());
        let platform = make(SamplePlatform::builder(Arc::new(move || clock.now())).calls(calls)).build();
        let serving = platform.serve(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
        let dir = tempfile::Builder::new().prefix("aftercall-site-").tempdir().unwrap();
        let mut site = Self { dir, platform, serving, text: String::new(), offset };
        site.configure(more);
        site
    }

    /// Writes the configuration anew.
    pub fn configure(&mut self, more: &str) {
        let data = self.data_dir();
        let mut table: toml::Table = SETTINGS.parse().unwrap();
        let place = data.display();
        let places = format!(
            "data_dir = \"{place}\"\n[store]\nurl = \"sqlite://{place}/aftercall.db\"\n[objects]\npath = \"{place}/objects\"\n"
        );
        lay_over(&mut table, places.parse().unwrap());
        lay_over(&mut table, demo::sources_toml(&self.serving.base_url()).parse().unwrap());
        lay_over(&mut table, more.parse().unwrap());
        self.text = table.to_string();
        std::fs::write(self.config_file(), &self.text).unwrap();
    }

    /// Replaces a setting in the text of the configuration, wherever it stands: for those of the sources.
    pub fn replace(&mut self, from: &str, to: &str) {
        assert!(self.text.contains(from), "{from} is not in {}", self.text);
        self.text = self.text.replace(from, to);
        std::fs::write(self.config_file(), &self.text).unwrap();
    }

    /// Holds database, objects, spool and lock; the configuration file lies outside.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn objects_dir(&self) -> PathBuf {
        self.data_dir().join("objects")
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("aftercall.toml")
    }

    /// The folder around the data directory.
    pub fn place(&self) -> &Path {
        self.dir.path()
    }

    /// The same database and objects in the test's own process, under the clock of [`Site::turn`].
    pub async fn app(&self) -> Arc<App> {
        App::build(Config::from_toml(&self.text).unwrap(), Clock::offset_by(self.offset.clone())).await.unwrap()
    }

    /// Turns the clock of the test's own process and of the platform.
    pub fn turn(&self, by: SignedDuration) {
        self.offset.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aftercall"));
        command.env_clear().current_dir(self.dir.path()).arg("--config").arg(self.config_file()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs the program to its end.
    pub async fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, &[]).await
    }

    /// The same with variables in the environment.
    pub async fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Said {
        let mut command = self.command(args);
        command.envs(env.iter().copied());
        said(command, args).await
    }

    /// Runs the program where no file may grow beyond two megabytes or four, as on a disk that is nearly full: the shell
    /// sets the limit (in blocks of half a kilobyte or a whole one) and has the kernel answer with an error.
    pub async fn run_cramped(&self, args: &[&str]) -> Said {
        let mut command = Command::new("sh");
        command.args(["-c", r#"trap "" XFSZ; ulimit -f 4096; exec "$0" "$@""#, env!("CARGO_BIN_EXE_aftercall")]);
        command.env_clear().current_dir(self.dir.path()).arg("--config").arg(self.config_file()).args(args);
        said(command, args).await
    }

    /// Runs the program and expects exit code 0.
    pub async fn well(&self, args: &[&str]) -> Said {
        let said = self.run(args).await;
        assert_eq!(said.code(), Some(0), "{args:?}: {said:?}");
        said
    }

    /// Starts a process and leaves it running.
    pub fn spawn(&self, args: &[&str], env: &[(&str, &str)]) -> Process {
        let mut child = self.command(args).stdout(Stdio::null()).envs(env.iter().copied()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let (send, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Process { child, lines, heard: Vec::new() }
    }

    /// A worker that stops dead at this boundary.
    pub fn parking_worker(&self, boundary: &str) -> Process {
        self.spawn(&["work"], &[("AFTERCALL__WORKER__PARK_AT", boundary)])
    }

    /// Makes a call's term end now, as if it had been stored long ago: for processes, whose clock cannot be turned.
    pub async fn age(&self, call_id: &str) {
        let app = self.app().await;
        let Db::Sqlite(pool) = app.store.db() else { unreachable!("sites stand on SQLite") };
        let changed = sqlx::query("UPDATE call_record SET retain_until = $2 WHERE call_id = $1")
            .bind(call_id)
            .bind(ago(SignedDuration::from_secs(1)).as_millisecond())
            .execute(pool)
            .await
            .unwrap();
        assert_eq!(changed.rows_affected(), 1, "{call_id}");
        app.store.close().await;
    }
}

/// Runs a command to its end.
async fn said(mut command: Command, args: &[&str]) -> Said {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.unwrap_or_else(|_| panic!("{args:?} hangs")).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A process that runs on until it is told to end.
pub struct Process {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    heard: Vec<String>,
}

impl Process {
    /// Waits for a line on stderr that holds `word`.
    pub async fn hear(&mut self, word: &str) {
        self.hear_line(word).await;
    }

    /// The same, and what the line says.
    pub async fn hear_line(&mut self, word: &str) -> String {
        let listen = async {
            while let Some(line) = self.lines.recv().await {
                self.heard.push(line);
                if let Some(line) = self.heard.last().filter(|line| line.contains(word)) {
                    return Some(line.clone());
                }
            }
            None
        };
        let heard = tokio::time::timeout(PATIENCE, listen).await.unwrap_or(None);
        heard.unwrap_or_else(|| panic!("the process never said `{word}`: {:?}", self.heard))
    }

    /// SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Waits for its own end; returns how it ended and everything it said.
    pub async fn end(mut self) -> (ExitStatus, Vec<String>) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("the process hangs").unwrap();
        while let Some(line) = self.lines.recv().await {
            self.heard.push(line);
        }
        (status, self.heard)
    }
}

/// SIGTERM. The standard library has no word for it, every shell has.
pub fn terminate(process: u32) {
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -TERM {process}")]).status().unwrap();
    assert!(sent.success(), "process {process} is gone");
}

/// Runs a worker in the test's own process until nothing is due.
pub async fn run_pending(app: &Arc<App>) {
    let lock = DataLock::take(&app.config.data_dir).unwrap();
    worker::run(app.clone(), &lock, Until::Idle, Signals::default()).await.unwrap();
}

/// The record of a call.
pub async fn record(app: &App, call_id: &str) -> CallRecord {
    let mut found = app.store.calls_by_id(&CallId::parse(call_id).unwrap(), None).await.unwrap();
    assert_eq!(found.len(), 1, "{call_id}");
    found.remove(0)
}

/// Every file below a folder.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The files below a folder that hold these bytes.
pub fn holding(dir: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(needle.len()).any(|window| window == needle)
    };
    files_below(dir).into_iter().filter(holds).collect()
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
