//! The description of a model: `model.json` beside `model.onnx`. For exports with only `tokens.txt`, the common
//! conventions of those exports apply.

use std::path::Path;

use serde::Deserialize;

use super::error::EngineError;

/// The input of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Features {
    /// See [`super::features`].
    NemoLogMel,
    /// Raw samples, normalised to zero mean and unit variance per segment (wav2vec 2.0 and similar models).
    Waveform,
}

/// The description of a model.
#[derive(Debug, Clone, Deserialize)]
pub struct ModelManifest {
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// BCP 47 primary tags. An empty list allows every language.
    #[serde(default)]
    pub languages: Vec<String>,
    #[serde(default)]
    pub licence: String,
    /// Hash of `model.onnx`, lower-case hexadecimal.
    pub sha256: Option<String>,
    #[serde(default = "log_mel")]
    pub features: Features,
    #[serde(default = "eighty")]
    pub bins: usize,
    /// Feature frames (or samples, for `waveform`) per output step.
    #[serde(default = "eight")]
    pub subsampling: usize,
    /// The model's delay between the start of a word and its first token, in milliseconds.
    #[serde(default)]
    pub time_offset_ms: i64,
    /// Number of the blank token. Default: the token with a usual blank name, else the last token.
    pub blank: Option<usize>,
    /// Phrases that are known beforehand, such as commands, menus or a script. Matching audio is recognised as a
    /// phrase, see [`super::phrases`].
    #[serde(default)]
    pub phrases: Vec<String>,
    /// One text per token. Default: read from `tokens.txt`.
    #[serde(default)]
    pub tokens: Vec<String>,
}

const fn log_mel() -> Features {
    Features::NemoLogMel
}

const fn eighty() -> usize {
    80
}

const fn eight() -> usize {
    8
}

const BLANKS: [&str; 4] = ["<blk>", "<blank>", "<pad>", "<epsilon>"];

impl ModelManifest {
    /// Reads the description of the model in this folder.
    ///
    /// # Errors
    /// [`EngineError`] if the description cannot be read, or both `model.json` and `tokens.txt` are missing.
    pub fn read(dir: &Path) -> Result<Self, EngineError> {
        let path = dir.join("model.json");
        let mut manifest = match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path)?,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                let name = dir.file_name().map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned());
                Self::parse(&serde_json::json!({ "name": name }).to_string(), &path)?
            }
            Err(source) => return Err(EngineError::Unreadable { path, source }),
        };
        if manifest.tokens.is_empty() {
            let path = dir.join("tokens.txt");
            let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => EngineError::Missing { path: path.clone() },
                _ => EngineError::Unreadable { path: path.clone(), source },
            })?;
            manifest.tokens = tokens(&text, &path)?;
        }
        Ok(manifest)
    }

    /// # Errors
    /// [`EngineError::Manifest`], which names `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, EngineError> {
        let broken = |reason: String| EngineError::Manifest { path: path.to_owned(), reason };
        let manifest: Self = serde_json::from_str(text).map_err(|err| broken(err.to_string()))?;
        if manifest.subsampling == 0 || manifest.bins == 0 || manifest.bins > 1024 {
            return Err(broken("subsampling and bins must be positive, bins at most 1024".to_owned()));
        }
        Ok(manifest)
    }

    /// The blank's number among the tokens.
    #[must_use]
    pub fn blank(&self) -> usize {
        let written = || self.tokens.iter().position(|token| BLANKS.contains(&token.as_str()));
        self.blank.or_else(written).unwrap_or(self.tokens.len().saturating_sub(1))
    }

    /// Milliseconds between output steps.
    #[must_use]
    pub fn step_ms(&self) -> f64 {
        let samples = match self.features {
            Features::NemoLogMel => self.subsampling * super::features::HOP,
            Features::Waveform => self.subsampling,
        };
        samples as f64 * 1000.0 / f64::from(super::features::RATE_HZ)
    }

    /// Whether the model supports this language, by the primary part of the BCP 47 tag.
    #[must_use]
    pub fn speaks(&self, language: &str) -> bool {
        let primary = |tag: &str| tag.split(['-', '_']).next().unwrap_or(tag).to_ascii_lowercase();
        self.languages.is_empty() || self.languages.iter().any(|own| primary(own) == primary(language))
    }
}

/// One `piece number` per line. A line with only a number is the space.
fn tokens(text: &str, path: &Path) -> Result<Vec<String>, EngineError> {
    let broken = |line: usize| EngineError::Manifest { path: path.to_owned(), reason: format!("see line {line}") };
    let mut tokens: Vec<String> = Vec::new();
    for (number, line) in (1..).zip(text.lines().filter(|line| !line.is_empty())) {
        let (piece, id) = line.rsplit_once([' ', '\t']).ok_or_else(|| broken(number))?;
        let id: usize = id.trim().parse().map_err(|_| broken(number))?;
        if id != tokens.len() {
            return Err(broken(number));
        }
        tokens.push(if piece.is_empty() { " ".to_owned() } else { piece.to_owned() });
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_without_a_description_are_understood_by_their_tokens() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokens.txt"), "\u{2581}the 0\ns 1\n<blk> 2\n").unwrap();
        let manifest = ModelManifest::read(dir.path()).unwrap();
        assert_eq!((manifest.tokens.len(), manifest.blank(), manifest.step_ms() as u64), (3, 2, 80));
        assert!(manifest.speaks("yo-NG"));
        std::fs::write(dir.path().join("tokens.txt"), "a 0\nb 2\n").unwrap();
        assert!(matches!(ModelManifest::read(dir.path()), Err(EngineError::Manifest { .. })));
        std::fs::remove_file(dir.path().join("tokens.txt")).unwrap();
        assert!(matches!(ModelManifest::read(dir.path()), Err(EngineError::Missing { .. })));
    }

    #[test]
    fn a_language_is_known_by_its_primary_tag() {
        let manifest = ModelManifest::parse(r#"{"name":"x","languages":["en"]}"#, Path::new("x")).unwrap();
        assert!(manifest.speaks("en-NG") && manifest.speaks("EN") && !manifest.speaks("yo"));
    }
}
