//! PgBouncer between the program and its database, in every mode it has.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};

use aftercall::config;
use aftercall::store::{Store, StoreError};
use tempfile::TempDir;

use crate::harness::eventually;
use crate::postgres;
use crate::process::Site;

/// A running PgBouncer; it ends with the test.
struct Pooler {
    child: Child,
    place: TempDir,
    url: String,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the program is; CI installs it.
fn installed() -> Option<&'static str> {
    let found =
        ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| std::path::Path::new(path).exists());
    if found.is_none() {
        let required = std::env::var("AFTERCALL_REQUIRE_POSTGRES").as_deref() == Ok("1");
        assert!(!required, "AFTERCALL_REQUIRE_POSTGRES=1 but no PgBouncer is installed");
        eprintln!("no PgBouncer on this machine: its modes are not tried");
    }
    found
}

impl Pooler {
    /// One in this mode in front of a new database.
    async fn start(mode: &str, more: &str) -> Option<Self> {
        let (program, cluster) = (installed()?, postgres::cluster()?);
        let url = cluster.database();
        let database = url.split('?').next()?.rsplit('/').next()?.to_owned();
        let place = tempfile::Builder::new().prefix("aftercall-pooler-").tempdir_in("/tmp").unwrap();
        let socket = place.path().display();
        let mut text = String::new();
        writeln!(text, "[databases]\n{database} = host={} dbname={database}", cluster.root().display()).unwrap();
        writeln!(text, "[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {socket}").unwrap();
        writeln!(text, "auth_type = any\nlogfile = {socket}/log\npool_mode = {mode}\n{more}").unwrap();
        text = text.replace("dbname=", "user=postgres dbname=");
        let config = place.path().join("pgbouncer.ini");
        std::fs::write(&config, text).unwrap();
        let mut command: Command = postgres::as_server_user(place.path());
        command.arg(program).arg("-q").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let url = format!("postgres://postgres@localhost:6432/{database}?host={socket}");
        eventually("PgBouncer to listen", async || place.path().join(".s.PGSQL.6432").exists().then_some(())).await;
        Some(Self { child, place, url })
    }

    fn settings(&self) -> config::StoreSettings {
        let text = format!("data_dir = \"{}\"\n[store]\nurl = \"{}\"", self.place.path().display(), self.url);
        config::Config::from_toml(&text).unwrap().store
    }
}

const LETS_US_IN: &str = "ignore_startup_parameters = extra_float_digits";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transaction_pooling_is_refused_however_its_servers_are_handed_out() {
    for more in
        ["", "server_round_robin = 1", "default_pool_size = 1", "server_reset_query_always = 1", "min_pool_size = 5"]
    {
        let Some(pooler) = Pooler::start("transaction", &format!("{LETS_US_IN}\n{more}")).await else { return };
        for _ in 0..3 {
            let refused = Store::connect(&pooler.settings()).await.unwrap_err();
            assert!(matches!(&refused, StoreError::Pooled { .. }), "{more}: {refused}");
            let refused = Store::look(&pooler.settings()).await.unwrap_err();
            assert!(matches!(&refused, StoreError::Pooled { .. }), "{more}: {refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statement_pooling_and_a_pooler_that_refuses_us_are_named_too() {
    let Some(pooler) = Pooler::start("statement", LETS_US_IN).await else { return };
    let refused = Store::connect(&pooler.settings()).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Pooled { .. }), "{refused}");
    let Some(pooler) = Pooler::start("session", "").await else { return };
    match Store::connect(&pooler.settings()).await {
        // Newer ones let these parameters pass.
        Ok(_) => {}
        Err(refused) => {
            assert!(matches!(&refused, StoreError::Pooled { .. }), "{refused}");
            assert!(refused.to_string().contains("ignore_startup_parameters"), "{refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_pooling_and_the_servers_own_port_are_worked_with() {
    let Some(pooler) = Pooler::start("session", LETS_US_IN).await else { return };
    let store = Store::connect(&pooler.settings()).await.unwrap();
    assert_eq!(store.fact("ready").await.unwrap(), None);
    let own = postgres::cluster().unwrap().database();
    let text = format!("data_dir = \"{}\"\n[store]\nurl = \"{own}\"", pooler.place.path().display());
    for _ in 0..5 {
        Store::connect(&config::Config::from_toml(&text).unwrap().store).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_end_with_64_and_doctor_says_so() {
    let Some(pooler) = Pooler::start("transaction", LETS_US_IN).await else { return };
    let site = Site::start(Vec::new(), &format!("[store]\nurl = \"{}\"", pooler.url)).await;
    for args in [vec!["work"], vec!["serve"], vec!["calls", "list"], vec!["trigger", "c", "--source", "krosai"]] {
        let said = site.run_with(&args, &[("AFTERCALL__API__LISTEN", "127.0.0.1:0")]).await;
        assert_eq!(said.code(), Some(64), "{args:?}: {said:?}");
        assert!(said.stderr.contains("use session mode or the server's own port"), "{}", said.stderr);
    }
    let said = site.run(&["doctor"]).await;
    assert_eq!(said.code(), Some(1));
    assert!(said.stdout.contains("FAIL database") && said.stdout.contains("transaction mode"), "{}", said.stdout);
}
