//! The command `models`. It lists the speech-to-text models, fetches one into the models folder and prints its path.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{Ended, out};
use crate::config::Config;
use crate::transcript::engine::SAMPLE;
use crate::transcript::engine::manifest::ModelManifest;
use crate::transcript::engines::installed;
use crate::transcript::known_model::KnownModel;
use crate::transcript::models::{self, known, pull, take};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the models that can be pulled and the installed ones
    List {
        /// JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Fetch a model, verify it, and put it where engines look
    #[command(
        after_help = "Examples:\n  aftercall models pull parakeet-110m --sha256 model.onnx=HEX --sha256 tokens.txt=HEX\n  aftercall models pull parakeet-110m-int8 --from unpacked/ --sha256 model.onnx=HEX --sha256 tokens.txt=HEX"
    )]
    Pull {
        name: String,
        /// Take the model from a folder with its files, or from its model.onnx, instead of the network
        #[arg(long, value_name = "FILE|DIR")]
        from: Option<PathBuf>,
        /// The SHA-256 of a file, needed when this program does not know it
        #[arg(long, value_name = "FILE=HEX", value_parser = said)]
        sha256: Vec<(String, String)>,
        /// Fetch BASE/NAME/FILE instead of the published URL
        #[arg(long, value_name = "BASE")]
        mirror: Option<String>,
    },
    /// Print the folder of a model. The command fails when the model is not installed
    Path { name: String },
}

fn said(text: &str) -> Result<(String, String), String> {
    let (file, hash) = text.split_once('=').ok_or("write it as FILE=HEX")?;
    let hex = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex { Ok((file.to_owned(), hash.to_owned())) } else { Err("a sha256 has 64 hexadecimal digits".to_owned()) }
}

pub(super) async fn run(config: Config, command: Command) -> Result<Ended> {
    let dir = config.models_dir();
    match command {
        Command::List { json: false } => table(&dir),
        Command::List { json: true } => list(&dir)?,
        Command::Path { name } => {
            let place = dir.join(&name);
            let here = known(&name).map_or_else(|| place.join("model.onnx").is_file(), |model| model.is_in(&dir));
            if !here {
                bail!("{name} is not in {}", dir.display());
            }
            out::line(&place.display().to_string());
        }
        Command::Pull { name, from, sha256, mirror } => {
            let names = || models::all().iter().map(|model| model.name).collect::<Vec<_>>().join(", ");
            let model = known(&name).with_context(|| format!("no model {name}; there are {}", names()))?;
            let mirror = mirror.unwrap_or_else(|| config.transcript.mirror.clone());
            let place = match from {
                Some(from) => take(&model, &from, &dir, &sha256)?,
                None => fetch(&model, &dir, &mirror, &sha256).await?,
            };
            out::line(&place.display().to_string());
        }
    }
    Ok(Ended::Well)
}

async fn fetch(model: &KnownModel, dir: &Path, mirror: &str, said: &[(String, String)]) -> Result<PathBuf> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .connect_timeout(std::time::Duration::from_secs(15))
        .read_timeout(std::time::Duration::from_secs(60))
        .user_agent(concat!("aftercall/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("HTTP client")?;
    let bar = out::bar(u64::from(model.megabytes) * 1_000_000, model.name);
    let place = pull(&client, model, dir, mirror, said, &|bytes| bar.inc(bytes)).await;
    bar.finish_and_clear();
    Ok(place?)
}

fn table(dir: &Path) {
    let here = |model: &KnownModel| if model.is_in(dir) { "installed" } else { "–" };
    let mut rows = vec![vec![
        SAMPLE.to_owned(),
        "built in".to_owned(),
        "en".to_owned(),
        "MIT OR Apache-2.0".to_owned(),
        "2 MB".to_owned(),
        "knows the sample calls' sentences only; for demo, doctor and tests, never chosen by itself".to_owned(),
    ]];
    for model in models::all() {
        let languages = if model.languages.is_empty() { "many".to_owned() } else { model.languages.join(" ") };
        rows.push(vec![
            model.name.to_owned(),
            here(&model).to_owned(),
            languages,
            model.licence.to_owned(),
            format!("{} MB", model.megabytes),
            model.description.to_owned(),
        ]);
    }
    let own = installed(dir)
        .into_iter()
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| known(name).is_none()));
    for path in own {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let about = ModelManifest::read(&path).ok();
        let described = about.as_ref().map_or("cannot be read", |manifest| manifest.description.as_str());
        let languages = about.as_ref().map_or_else(String::new, |manifest| manifest.languages.join(" "));
        let licence = about.as_ref().map_or_else(String::new, |manifest| manifest.licence.clone());
        rows.push(vec![name, "installed".to_owned(), languages, licence, "–".to_owned(), described.to_owned()]);
    }
    let columns = [
        out::Column::kept("model"),
        out::Column::kept("here"),
        out::Column::spare("languages", 2),
        out::Column::spare("licence", 3),
        out::Column::spare("size", 4),
        out::Column::spare("what it is", 1),
    ];
    out::table(&columns, rows, "");
}

fn list(dir: &Path) -> Result<()> {
    let mut all = vec![json!({
        "name": SAMPLE, "installed": true, "built_in": true, "languages": ["en"], "licence": "MIT OR Apache-2.0",
        "description": "knows the sample calls' sentences only", "files": [],
    })];
    for model in models::all() {
        let files: Vec<_> = model
            .files
            .iter()
            .map(|file| json!({ "name": file.name, "url": file.url, "bytes": file.bytes, "sha256": file.sha256 }))
            .collect();
        all.push(json!({
            "name": model.name,
            "installed": model.is_in(dir),
            "languages": model.languages,
            "licence": model.licence,
            "megabytes": model.megabytes,
            "description": model.description,
            "source": model.source,
            "files": files,
        }));
    }
    for path in installed(dir) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if known(&name).is_none() {
            all.push(json!({ "name": name, "installed": true, "path": path }));
        }
    }
    out::json(&all)
}
