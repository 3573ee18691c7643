//! The list of known models, and their installation. A download resumes after an interruption and is verified. A model
//! is installed completely or not at all.

use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use super::known_model::KnownModel;
use super::known_model::ModelFile;
use super::known_model::TOKENS;
use super::known_model::WEIGHTS;
use crate::digest;
use crate::domain::Classify;
use crate::domain::Fault;
use crate::domain::Side;
use reqwest::StatusCode;
use reqwest::header::RANGE;

/// The known models of the speech engine. Every hash here was computed from the file itself.
pub const KNOWN: [KnownModel; 4] = [
    KnownModel {
        name: "parakeet-110m",
        description: "English with punctuation and case; NVIDIA parakeet-tdt_ctc-110m, CTC branch, fp32",
        languages: &["en"],
        licence: "CC-BY-4.0",
        megabytes: 458,
        files: &[
            ModelFile {
                name: "model.onnx",
                url: "https://huggingface.co/csukuangfj/sherpa-onnx-nemo-parakeet_tdt_ctc_110m-en-36000/resolve/e2afb0492ac94a41d53bff86135d6d124282324e/model.onnx",
                bytes: None,
                sha256: None,
            },
            ModelFile {
                name: "tokens.txt",
                url: "https://huggingface.co/csukuangfj/sherpa-onnx-nemo-parakeet_tdt_ctc_110m-en-36000/resolve/e2afb0492ac94a41d53bff86135d6d124282324e/tokens.txt",
                bytes: None,
                sha256: None,
            },
        ],
        source: "https://huggingface.co/csukuangfj/sherpa-onnx-nemo-parakeet_tdt_ctc_110m-en-36000",
        manifest: r#"{"name":"parakeet-110m","languages":["en"],"licence":"CC-BY-4.0","features":"nemo_log_mel","bins":80,"subsampling":8}"#,
    },
    KnownModel {
        name: "parakeet-110m-int8",
        description: "The same, weights in 8 bits: quicker on processors with AVX512-VNNI",
        languages: &["en"],
        licence: "CC-BY-4.0",
        megabytes: 126,
        files: &[],
        source: "https://github.com/k2-fsa/sherpa-onnx/releases/download/asr-models/sherpa-onnx-nemo-parakeet_tdt_ctc_110m-en-36000-int8.tar.bz2",
        manifest: r#"{"name":"parakeet-110m-int8","languages":["en"],"licence":"CC-BY-4.0","features":"nemo_log_mel","bins":80,"subsampling":8}"#,
    },
    KnownModel {
        name: "parakeet-ctc-0.6b",
        description: "English, larger; NVIDIA parakeet-ctc-0.6b, exported from NeMo as one ONNX file (fp32 is above 2 GB: in 8 bits)",
        languages: &["en"],
        licence: "CC-BY-4.0",
        megabytes: 650,
        files: &[],
        source: "https://huggingface.co/nvidia/parakeet-ctc-0.6b",
        manifest: r#"{"name":"parakeet-ctc-0.6b","languages":["en"],"licence":"CC-BY-4.0","features":"nemo_log_mel","bins":80,"subsampling":8}"#,
    },
    KnownModel {
        name: "omnilingual-300m-int8",
        description: "1,600 languages, among them Yoruba, Igbo and Hausa; Meta Omnilingual ASR CTC 300M",
        languages: &[],
        licence: "Apache-2.0",
        megabytes: 348,
        files: &[],
        source: "https://github.com/k2-fsa/sherpa-onnx/releases/download/asr-models/sherpa-onnx-omnilingual-asr-1600-languages-300M-ctc-int8-2025-11-12.tar.bz2",
        manifest: r#"{"name":"omnilingual-300m-int8","licence":"Apache-2.0","features":"waveform","subsampling":320,"blank":0}"#,
    },
];

/// All known models, including the diarizer's if it is compiled in.
#[must_use]
pub fn all() -> Vec<KnownModel> {
    let engines = KNOWN.to_vec();
    #[cfg(feature = "diarizer")]
    let engines = [engines, vec![super::diarizer::model()]].concat();
    engines
}

/// The model with this name.
#[must_use]
pub fn known(name: &str) -> Option<KnownModel> {
    all().into_iter().find(|model| model.name == name)
}

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("{url} answers {status}")]
    Answer { url: String, status: StatusCode },
    #[error("{url} cannot be reached or the download broke off; pull again to continue from there")]
    Transfer { url: String, source: reqwest::Error },
    #[error("no space left for {}; free space and pull again to continue from there", .path.display())]
    NoRoom { path: PathBuf },
    #[error("cannot write {}: {source}", .path.display())]
    Disk { path: PathBuf, source: std::io::Error },
    #[error("{} has sha256 {found}, not {expected}; it was not installed", .path.display())]
    WrongHash { path: PathBuf, expected: String, found: String },
    #[error("{} has {found} bytes, not {expected}; it was not installed", .path.display())]
    WrongSize { path: PathBuf, expected: u64, found: u64 },
    #[error(
        "the sha256 of {file} is not known to this program: look it up at {source_page}, and pull with --sha256 {file}=HEX"
    )]
    HashUnknown { file: &'static str, source_page: &'static str },
    #[error("{name} is not published file by file: unpack or export {url} and pull with --from its folder")]
    NotByFile { name: &'static str, url: &'static str },
    #[error("{} holds no {file}", .dir.display())]
    NotInFolder { dir: PathBuf, file: &'static str },
}

impl Classify for PullError {
    fn fault(&self) -> Fault {
        match self {
            Self::Transfer { .. } | Self::Disk { .. } | Self::NoRoom { .. } => Fault::Transient,
            Self::Answer { status, .. } if status.is_server_error() || status.as_u16() == 429 => Fault::Transient,
            _ => Fault::Permanent,
        }
    }

    fn side(&self) -> Side {
        match self {
            Self::Disk { .. } | Self::NoRoom { .. } => Side::Worker,
            Self::HashUnknown { .. } | Self::NotByFile { .. } | Self::NotInFolder { .. } => Side::Configuration,
            _ => Side::Engine,
        }
    }
}

/// A file's name and the hash that the user confirmed.
pub type SaidHash = (String, String);

/// Downloads every file of a model into `models_dir/NAME`. The folder appears only when it is complete. `progress`
/// receives the number of new bytes.
///
/// # Errors
/// See [`PullError`]. Downloaded bytes stay, and the next pull resumes.
pub async fn pull(
    client: &reqwest::Client,
    model: &KnownModel,
    models_dir: &Path,
    mirror: &str,
    said: &[SaidHash],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<PathBuf, PullError> {
    if model.files.is_empty() {
        return Err(PullError::NotByFile { name: model.name, url: model.source });
    }
    // The hashes are checked before the download, because a large file without a hash cannot be installed.
    let mut hashes = Vec::new();
    for file in model.files {
        hashes.push(expected(file.name, file.sha256, said, model.source)?);
    }
    let place = staging(models_dir, model.name)?;
    for (file, hash) in model.files.iter().zip(hashes) {
        let url = match mirror.trim_end_matches('/') {
            "" => file.url.to_owned(),
            base => format!("{base}/{}/{}", model.name, file.name),
        };
        let path = place.join(file.name);
        let part = place.join(format!("{}.part", file.name));
        if !path.exists() {
            download(client, &url, &part, progress).await?;
            verify(&part, file.bytes, &hash)?;
            std::fs::rename(&part, &path).map_err(disk(&path))?;
        }
    }
    install(model, &place, models_dir)
}

/// Copies a model's files from a folder (or from the folder of a file) instead of downloading them.
///
/// # Errors
/// See [`pull`].
pub fn take(model: &KnownModel, from: &Path, models_dir: &Path, said: &[SaidHash]) -> Result<PathBuf, PullError> {
    let dir = if from.is_dir() { from } else { from.parent().unwrap_or(Path::new(".")) };
    let place = staging(models_dir, model.name)?;
    for name in model.names() {
        // Exports use different file names.
        let other = match name {
            TOKENS => "vocab.txt",
            WEIGHTS => "model.int8.onnx",
            name => name,
        };
        let named = [dir.join(name), dir.join(other)];
        let given = if from.is_file() && name == WEIGHTS { from.to_owned() } else { named[0].clone() };
        let found = [given, named[1].clone()].into_iter().find(|path| path.is_file());
        let found = found.ok_or(PullError::NotInFolder { dir: dir.to_owned(), file: name })?;
        let file = model.files.iter().find(|file| file.name == name);
        let hash = expected(name, file.and_then(|file| file.sha256), said, model.source)?;
        let path = place.join(name);
        std::fs::copy(&found, &path).map_err(disk(&path))?;
        verify(&path, file.and_then(|file| file.bytes), &hash)?;
    }
    install(model, &place, models_dir)
}

fn expected(
    name: &'static str,
    known: Option<&str>,
    said: &[SaidHash],
    source_page: &'static str,
) -> Result<String, PullError> {
    let said = said.iter().find(|(file, _)| file == name).map(|(_, hash)| hash.to_ascii_lowercase());
    known.map(str::to_owned).or(said).ok_or(PullError::HashUnknown { file: name, source_page })
}

fn disk(path: &Path) -> impl Fn(std::io::Error) -> PullError + '_ {
    |source| match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            PullError::NoRoom { path: path.to_owned() }
        }
        _ => PullError::Disk { path: path.to_owned(), source },
    }
}

/// Folder for the files of an incomplete model.
fn staging(models_dir: &Path, name: &str) -> Result<PathBuf, PullError> {
    let place = models_dir.join(format!(".{name}.part"));
    std::fs::create_dir_all(&place).map_err(disk(&place))?;
    Ok(place)
}

fn install(model: &KnownModel, place: &Path, models_dir: &Path) -> Result<PathBuf, PullError> {
    let manifest = place.join("model.json");
    std::fs::write(&manifest, model.manifest).map_err(disk(&manifest))?;
    let dir = models_dir.join(model.name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).map_err(disk(&dir))?;
    }
    std::fs::rename(place, &dir).map_err(disk(&dir))?;
    Ok(dir)
}

async fn download(
    client: &reqwest::Client,
    url: &str,
    part: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), PullError> {
    let broke = |source: reqwest::Error| PullError::Transfer { url: url.to_owned(), source };
    let have = std::fs::metadata(part).map_or(0, |meta| meta.len());
    let request = if have > 0 { client.get(url).header(RANGE, format!("bytes={have}-")) } else { client.get(url) };
    let mut answer = request.send().await.map_err(broke)?;
    let mut file = match answer.status() {
        StatusCode::PARTIAL_CONTENT => std::fs::OpenOptions::new().append(true).open(part),
        // The file is already complete.
        StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return Ok(()),
        status if status.is_success() => std::fs::File::create(part),
        status => return Err(PullError::Answer { url: url.to_owned(), status }),
    }
    .map_err(disk(part))?;
    if answer.status() == StatusCode::PARTIAL_CONTENT {
        progress(have);
    }
    while let Some(bytes) = answer.chunk().await.map_err(broke)? {
        file.write_all(&bytes).map_err(disk(part))?;
        progress(bytes.len() as u64);
    }
    file.sync_all().map_err(disk(part))
}

/// Deletes a wrong file, because a resumed download would fail again.
fn verify(path: &Path, bytes: Option<u64>, expected: &str) -> Result<(), PullError> {
    let digest = digest::of_file(path).map_err(disk(path))?;
    let (found, size) = (digest.sha256.to_string(), digest.size_bytes);
    let wrong = match bytes {
        Some(bytes) if bytes != size => PullError::WrongSize { path: path.to_owned(), expected: bytes, found: size },
        _ if found != expected => PullError::WrongHash { path: path.to_owned(), expected: expected.to_owned(), found },
        _ => return Ok(()),
    };
    std::fs::remove_file(path).map_err(disk(path))?;
    Err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::engine::manifest::ModelManifest;

    fn hash_of(bytes: &[u8]) -> String {
        digest::of_bytes(bytes).sha256.to_string()
    }

    #[test]
    fn what_the_table_says_of_a_model_can_be_read() {
        for model in &KNOWN {
            let manifest = ModelManifest::parse(model.manifest, Path::new(model.name)).unwrap();
            assert_eq!(manifest.name, model.name);
            assert!(model.files.iter().all(|file| file.url.starts_with("https://") && file.url.contains(file.name)));
            assert!(model.files.iter().all(|file| file.sha256.is_none_or(|hash| hash.len() == 64)));
        }
    }

    #[test]
    fn a_model_from_a_folder_is_there_whole_or_not_at_all() {
        let (from, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let model = known("parakeet-110m-int8").unwrap();
        std::fs::write(from.path().join("model.int8.onnx"), "weights").unwrap();
        let take = |said: &[SaidHash]| take(&model, from.path(), models.path(), said);
        let said = |weights: &str, tokens: &str| {
            vec![("model.onnx".to_owned(), weights.to_owned()), ("tokens.txt".to_owned(), tokens.to_owned())]
        };
        assert!(matches!(take(&[]), Err(PullError::HashUnknown { file: "model.onnx", .. })));
        let (weights, tokens) = (hash_of(b"weights"), hash_of(b"a 0\n"));
        assert!(matches!(take(&said(&weights, &tokens)), Err(PullError::NotInFolder { file: "tokens.txt", .. })));
        std::fs::write(from.path().join("tokens.txt"), "a 0\n").unwrap();
        assert!(matches!(take(&said(&tokens, &tokens)), Err(PullError::WrongHash { .. })));
        assert!(!models.path().join(model.name).exists());
        assert!(!model.is_in(models.path()));
        let dir = take(&said(&weights.to_uppercase(), &tokens)).unwrap();
        assert!(model.is_in(models.path()));
        assert_eq!(std::fs::read(dir.join("model.onnx")).unwrap(), b"weights");
        assert_eq!(crate::transcript::engines::installed(models.path()), [dir]);
    }
}
