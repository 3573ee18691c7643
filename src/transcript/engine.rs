//! Local speech recognition: CTC networks in ONNX, run inside this program.
//!
//! ```text
//! speech regions ─► segments (≤ 30 s) ─► log-mel ─► network (rten) ─► token probabilities ─┬─► words with times
//!                                                                                          └─► alignment of known text
//! ```
//!
//! Only speech is processed, so that the cost grows with the speech time.

pub mod acoustic;
pub mod align;
pub mod alphabet;
pub mod decode;
pub mod error;
pub mod features;
pub mod manifest;
pub mod phrases;
pub mod regions;
mod sample;

use std::path::Path;

pub use acoustic::Posteriors;
pub use decode::{HeardWord, Search};
pub use error::EngineError;
pub use features::RATE_HZ;
pub use sample::{SAMPLE, sample_sentence};

use self::acoustic::Acoustic;
use self::alphabet::Alphabet;
use self::decode::Decoder;
use self::manifest::ModelManifest;
use crate::digest;
use crate::domain::Segment;
use crate::domain::transcript::EngineInfo;

/// The name of the local engine in configuration and provenance.
const EMBEDDED: &str = "embedded";

/// 16 kHz samples of one leg, read in segments so that memory never holds a complete long call.
pub trait Samples {
    /// The samples from `start_ms` to `end_ms`, fewer at the end of the leg.
    fn read(&mut self, start_ms: u64, end_ms: u64) -> std::io::Result<Vec<f32>>;
}

impl Samples for &[f32] {
    fn read(&mut self, start_ms: u64, end_ms: u64) -> std::io::Result<Vec<f32>> {
        let at = |ms: u64| ((ms * u64::from(RATE_HZ) / 1000) as usize).min(self.len());
        Ok(self[at(start_ms)..at(end_ms).max(at(start_ms))].to_vec())
    }
}

/// A loaded model, shared by all jobs of the process.
#[derive(Debug)]
pub struct Recogniser {
    manifest: ModelManifest,
    sha256: String,
    decoder: Decoder,
    acoustic: Acoustic,
    search: Search,
}

impl Recogniser {
    /// Loads the model in this folder. Each recognition uses `threads` threads.
    ///
    /// # Errors
    /// [`EngineError`] if the model is incomplete, does not match its description or cannot be run.
    pub fn load(dir: &Path, search: Search, threads: usize) -> Result<Self, EngineError> {
        let manifest = ModelManifest::read(dir)?;
        let path = dir.join("model.onnx");
        // Hash and network are read in parallel. A wrong hash is reported before an error of the network.
        let (hashed, acoustic) = std::thread::scope(|scope| {
            let hashing = scope.spawn(|| digest::of_file(&path));
            let acoustic = Acoustic::load(&path, &manifest, threads);
            (hashing.join().unwrap_or_else(|_| Err(std::io::Error::other("the hash thread stopped"))), acoustic)
        });
        let digest = hashed.map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => EngineError::Missing { path: path.clone() },
            _ => EngineError::Unreadable { path: path.clone(), source },
        })?;
        let sha256 = digest.sha256.to_string();
        verify(&path, &manifest, &sha256)?;
        let acoustic = acoustic?;
        Ok(Self { decoder: Decoder::of(&manifest), acoustic, sha256, manifest, search })
    }

    /// The compiled-in model: see [`SAMPLE`].
    pub fn sample(search: Search, threads: usize) -> Result<Self, EngineError> {
        let (path, manifest, bytes) = sample::parts()?;
        let sha256 = digest::of_bytes(bytes).sha256.to_string();
        verify(path, &manifest, &sha256)?;
        let acoustic = Acoustic::from_static(path, bytes, &manifest, threads)?;
        Ok(Self { decoder: Decoder::of(&manifest), acoustic, sha256, manifest, search })
    }

    #[must_use]
    pub const fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    #[must_use]
    pub const fn alphabet(&self) -> &Alphabet {
        self.decoder.alphabet()
    }

    /// The origin of the words, for the transcript.
    #[must_use]
    pub fn provenance(&self) -> EngineInfo {
        let search = match self.search {
            Search::Greedy => serde_json::json!("greedy"),
            Search::Beam(width) => serde_json::json!({ "beam": width }),
        };
        EngineInfo {
            name: EMBEDDED.to_owned(),
            model: Some(self.manifest.name.clone()),
            model_sha256: Some(self.sha256.clone()),
            parameters: serde_json::json!({
                "search": search,
                "step_ms": self.manifest.step_ms(),
                "time_offset_ms": self.manifest.time_offset_ms,
                "phrases": self.manifest.phrases.len(),
            }),
        }
    }

    /// Token log probabilities of one segment.
    pub fn posteriors(&self, samples: &[f32]) -> Result<Posteriors, EngineError> {
        self.acoustic.posteriors(samples)
    }

    /// The words of one leg, by speech region, with times from the start of the leg.
    ///
    /// # Errors
    /// [`EngineError`] if the samples cannot be read or the network fails.
    pub fn recognise(
        &self,
        leg: &mut dyn Samples,
        speech: &[Segment],
        duration_ms: u64,
    ) -> Result<Vec<HeardWord>, EngineError> {
        let mut words = Vec::new();
        for segment in self.segments(leg, speech, duration_ms)? {
            let samples = read(leg, &segment)?;
            let heard = self.decoder.words(&self.posteriors(&samples)?, self.search);
            let from = segment.start_ms as f64;
            words.extend(heard.into_iter().map(|word| HeardWord {
                start_ms: word.start_ms + from,
                end_ms: (word.end_ms + from).min(segment.end_ms as f64),
                ..word
            }));
        }
        Ok(words)
    }

    /// The segments of a leg to recognise, in milliseconds.
    pub fn segments(
        &self,
        leg: &mut dyn Samples,
        speech: &[Segment],
        duration_ms: u64,
    ) -> Result<Vec<Segment>, EngineError> {
        let mut failed = None;
        let planned = regions::segments(speech, duration_ms, |span| match read(leg, &span) {
            Ok(samples) => span.start_ms + regions::quietest(&samples),
            Err(err) => {
                failed = Some(err);
                span.end_ms
            }
        });
        failed.map_or(Ok(planned), Err)
    }
}

/// Refuses a file with another hash than the described one.
fn verify(path: &Path, manifest: &ModelManifest, found: &str) -> Result<(), EngineError> {
    match &manifest.sha256 {
        Some(expected) if expected != found => {
            Err(EngineError::WrongHash { path: path.to_owned(), expected: expected.clone(), found: found.to_owned() })
        }
        _ => Ok(()),
    }
}

/// The samples of a segment.
pub fn read(leg: &mut dyn Samples, segment: &Segment) -> Result<Vec<f32>, EngineError> {
    leg.read(segment.start_ms, segment.end_ms)
        .map_err(|err| EngineError::Inference { reason: format!("its samples cannot be read back: {err}") })
}
