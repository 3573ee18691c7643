//! The command `keys`. It makes, lists and revokes API keys. A name and scopes go in. A new key goes to stdout once.

use std::sync::Arc;

use anyhow::{Result, bail};
use rand::RngCore;
use serde_json::json;

use super::{Ended, Purpose, out};
use crate::app::App;
use crate::store::Scope;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a key. It is shown once and stored hashed
    #[command(
        after_help = "Examples:\n  aftercall keys add dashboard --scope calls:read --scope transcripts:read\n  aftercall keys add platform --scope calls:write --org org-789"
    )]
    Add {
        name: String,
        /// A scope of the key, given once or more: calls:read, transcripts:read, recordings:read, calls:write,
        /// calls:hangup, calls:delete, holds:write, erase, admin
        #[arg(long = "scope", required = true)]
        scopes: Vec<Scope>,
        /// Limit the key to the calls of one organisation (the platform's id)
        #[arg(long)]
        org: Option<String>,
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// List all keys, including revoked ones
    List {
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key by id or name
    Revoke { id: String },
}

impl Command {
    pub(super) const fn purpose(&self) -> Purpose {
        if matches!(self, Self::List { .. }) { Purpose::Look } else { Purpose::Change }
    }
}

/// Runs the subcommand.
pub(super) async fn run(app: &Arc<App>, command: Command) -> Result<Ended> {
    match command {
        Command::Add { name, scopes, org, json } => {
            let mut random = [0; 32];
            rand::rng().fill_bytes(&mut random);
            let secret = format!("ac_{}", hex::encode(random));
            let id = app.store.add_key(&name, &secret, &scopes, org.as_deref(), app.now()).await?;
            if json {
                out::json(&json!({ "id": id, "name": name, "key": secret }))?;
            } else {
                out::line(&secret);
                out::note("this is the only time the key is shown");
            }
        }
        Command::List { json } => list(app, json).await?,
        Command::Revoke { id } => {
            if app.store.revoke_key(&id, app.now()).await? == 0 {
                bail!("there is no live key `{id}`");
            }
            out::line(&format!("key {id} revoked"));
        }
    }
    Ok(Ended::Well)
}

async fn list(app: &App, json: bool) -> Result<()> {
    let keys = app.store.keys().await?;
    let scopes = |scopes: &[Scope]| scopes.iter().map(ToString::to_string).collect::<Vec<_>>();
    if json {
        let rows: Vec<_> = keys
            .iter()
            .map(|key| {
                json!({ "id": key.id, "name": key.name, "scopes": scopes(&key.scopes), "org_id": key.org_id,
                        "created_at": key.created_at, "revoked_at": key.revoked_at })
            })
            .collect();
        return out::json(&rows);
    }
    let rows = keys.iter().map(|key| {
        vec![
            key.id.clone(),
            key.name.clone(),
            scopes(&key.scopes).join(" "),
            out::or_dash(key.org_id.as_deref()),
            key.revoked_at.map_or_else(|| "live".to_owned(), |at| format!("revoked {at}")),
        ]
    });
    let columns = [
        out::Column::kept("id"),
        out::Column::kept("name"),
        out::Column::spare("scopes", 1),
        out::Column::spare("organisation", 2),
        out::Column::kept("state"),
    ];
    out::table(&columns, rows, "no key; `aftercall keys add NAME --scope calls:read` makes one");
    Ok(())
}
