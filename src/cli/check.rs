//! `check`: the effective configuration.

use std::path::Path;

use anyhow::Result;

use super::{BadConfiguration, Ended, out};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Prints what defaults, file and environment come to. Touches nothing else.
pub fn run(file: Option<&Path>, args: &Args) -> Result<Ended> {
    let effective = Config::effective(file).map_err(BadConfiguration)?;
    if args.json {
        out::json(&effective)?;
    } else {
        out::raw(&toml::to_string_pretty(&effective)?);
    }
    Ok(Ended::Well)
}
