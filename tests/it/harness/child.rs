//! A worker in a process of its own, so that it can really die: this very test binary, started again for one test.

use std::io::BufRead;
use std::io::BufReader;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};

use super::TestApp;

/// Carries the configuration and the orders to the child.
const ORDERS: &str = "AFTERCALL_IT_CHILD";

/// What a child is to do, read by the child itself.
#[derive(Debug)]
pub struct Orders {
    pub what: String,
    pub config: String,
}

impl Orders {
    /// None when this process is no child: then the test that asks has nothing to do.
    pub fn read() -> Option<Self> {
        let text = std::env::var(ORDERS).ok()?;
        let (what, config) = text.split_once('\n')?;
        Some(Self { what: what.to_owned(), config: config.to_owned() })
    }

    /// Tells the parent something.
    #[expect(clippy::print_stdout, reason = "the pipe to the parent")]
    pub fn say(word: &str) {
        println!("\n@{word}");
    }
}

/// A running child.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    lines: Option<std::io::Lines<BufReader<ChildStdout>>>,
}

impl Child {
    /// Starts the ignored test `test` of this binary over the database and directory of `app`.
    pub fn start(app: &TestApp, test: &str, what: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
            .env(ORDERS, format!("{what}\n{}", app.space.text()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = process.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Self { process, lines }
    }

    /// Waits until the child says so, or fails when it ends without.
    pub async fn hear(&mut self, word: &str) {
        let mut lines = self.lines.take().unwrap();
        let wanted = format!("@{word}");
        let (lines, heard) = tokio::task::spawn_blocking(move || {
            let heard = lines.by_ref().map_while(Result::ok).any(|line| line == wanted);
            (lines, heard)
        })
        .await
        .unwrap();
        self.lines = Some(lines);
        assert!(heard, "the child ended without saying `{word}`");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits for its own end.
    pub async fn end(mut self) -> ExitStatus {
        tokio::task::spawn_blocking(move || self.process.wait().unwrap()).await.unwrap()
    }
}
