//! The command `check`. Defaults, file and environment go in. The effective configuration and warnings come out.

use std::path::Path;

use anyhow::Result;

use super::{BadConfiguration, Ended, out};
use crate::config::{Config, Remark};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Prints the effective configuration and its warnings. An unusable setting is an error. Nothing is changed.
pub(super) fn run(file: Option<&Path>, args: &Args) -> Result<Ended> {
    let effective = Config::effective(file).map_err(BadConfiguration)?;
    if args.json {
        out::json(&effective)?;
    } else {
        out::raw(&toml::to_string_pretty(&effective)?);
    }
    for notice in Config::load(file).map_err(BadConfiguration)?.notices() {
        out::note(&format!("warning: {notice}"));
    }
    let mut unusable = None;
    for remark in Config::remarks(file).map_err(BadConfiguration)? {
        match remark {
            Remark::Doubtful(said) => out::note(&format!("warning: {said}")),
            Remark::Unusable(said) => unusable = unusable.or(Some(said)),
        }
    }
    match unusable {
        Some(said) => Err(BadConfiguration(anyhow::anyhow!(said)).into()),
        None => Ok(Ended::Well),
    }
}
