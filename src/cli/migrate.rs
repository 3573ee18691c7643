//! The command `migrate`. A SQLite database and the URL of an empty PostgreSQL database go in. All jobs and records
//! move to the new database.

use anyhow::{Context, Result, bail};
use secrecy::SecretString;
use serde_json::json;

use super::{Ended, out};
use crate::config::Config;
use crate::store::Store;
use crate::worker::DataLock;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Stop the worker first. The new database must be empty. Objects stay where they are.\n\nExamples:\n  aftercall migrate --to-file /run/secrets/database-url\n  aftercall migrate --to postgres://aftercall:secret@db/aftercall"
)]
pub(super) struct Args {
    /// The new database, postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(long, value_name = "URL", required_unless_present = "to_file")]
    to: Option<String>,
    /// A file with the URL, which keeps the password out of the process list
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    to_file: Option<std::path::PathBuf>,
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Moves all tables, then prints the next step.
pub(super) async fn run(config: Config, args: Args) -> Result<Ended> {
    // The lock keeps a worker from running jobs on this database during the move.
    let _lock = DataLock::take(&config.data_dir)?;
    let url = match (&args.to, &args.to_file) {
        (Some(url), _) => url.clone(),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("--to-file: {}", path.display()))?;
            text.trim().to_owned()
        }
        (None, None) => bail!("--to or --to-file is needed"),
    };
    let name = url::Url::parse(&url)
        .map(|url| format!("{}{}", url.host_str().unwrap_or("localhost"), url.path()))
        .context("--to: is no URL")?;
    let from = Store::connect(&config.store).await?;
    if let Some(place) = from.moved_to().await? {
        bail!("this database was moved to {place} before");
    }
    let _claim = from.claim()?;
    let settings =
        crate::config::StoreSettings { url: SecretString::from(url), url_file: None, ..config.store.clone() };
    let to = Store::connect(&settings).await?;
    if !from.can_move_to(&to) {
        bail!("store.url must be a sqlite:// database and --to a postgres:// one");
    }
    let moved = from.move_to(&to, &name).await?;
    if args.json {
        out::json(&json!({ "to": name, "tables": moved }))?;
    } else {
        let rows = moved.iter().map(|moved| vec![moved.table.clone(), moved.rows.to_string()]);
        out::table(&[out::Column::kept("table"), out::Column::kept("rows")], rows, "no table was moved");
        out::note("now set store.url (or store.url_file) to the new database; this one refuses to be worked on");
    }
    Ok(Ended::Well)
}
