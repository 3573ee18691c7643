//! The inputs of `process`. Files, folders and URLs go in. One task for each recording comes out.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::super::out;
use crate::audio::probe;
use crate::config::Config;
use crate::domain::RecordingUrl;
use crate::fetch::{Fetcher, HostPolicy};

/// A recording to process.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// The file or URL as the user named it.
    pub name: String,
    pub file: PathBuf,
    pub out: PathBuf,
}

/// One task for each recording of `inputs`. A recording from a URL is downloaded into `downloads`.
pub(super) async fn tasks(config: &Config, inputs: &[String], out: &Path, downloads: &Path) -> Result<Vec<Task>> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for input in inputs {
        if input.starts_with("https://") || input.starts_with("http://") {
            found.push((input.clone(), download(config, input, &downloads.join(found.len().to_string())).await?));
        } else {
            found.extend(files(Path::new(input))?);
        }
    }
    let alone = found.len() == 1;
    let mut taken = std::collections::HashSet::new();
    let mut tasks = Vec::new();
    for (name, file) in found {
        let stem = Path::new(name.split('?').next().unwrap_or(&name)).file_stem().and_then(|stem| stem.to_str());
        let mut folder = stem.unwrap_or("recording").to_owned();
        // `a.mp3` and `a.wav` need two output folders.
        while !taken.insert(folder.clone()) {
            folder.push('_');
        }
        let out = if alone { out.to_owned() } else { out.join(folder) };
        tasks.push(Task { name, file, out });
    }
    Ok(tasks)
}

async fn download(config: &Config, input: &str, dest: &Path) -> Result<PathBuf> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = RecordingUrl::parse(input)?;
    let fetcher = Fetcher::new(&config.fetch, probe::looks_like_audio);
    let fetched = fetcher.fetch(&url, &HostPolicy::public_only(), dest).await;
    Ok(fetched.with_context(|| format!("{url:?}"))?.path)
}

/// The file itself, or the recordings directly in a folder, sorted by name. Other entries are skipped with a note.
fn files(path: &Path) -> Result<Vec<(String, PathBuf)>> {
    let shown = path.display();
    let meta = std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?;
    if meta.is_file() {
        return Ok(vec![(shown.to_string(), path.to_owned())]);
    }
    let mut inside = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| format!("cannot read {shown}"))? {
        let file = entry?.path();
        let why = if file.is_dir() {
            "a folder, passed over".to_owned()
        } else {
            match probe::sniff(&file) {
                Ok(probe::Sniffed::Audio(_)) => {
                    inside.push((file.display().to_string(), file));
                    continue;
                }
                Ok(_) => "no audio, passed over".to_owned(),
                Err(err) => format!("cannot be read, passed over: {err}"),
            }
        };
        out::note(&format!("{}: {why}", file.display()));
    }
    if inside.is_empty() {
        bail!("{shown} holds no recording");
    }
    inside.sort();
    Ok(inside)
}
