//! Selection of the local engine for a call. Each model is loaded once per process, at its first use.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use super::diarization;
use super::diarization::Diarization;
#[cfg(feature = "diarizer")]
use super::diarizer::DIARIZER;
#[cfg(feature = "diarizer")]
use super::diarizer::Diarizer;
#[cfg(feature = "diarizer")]
use super::diarizer::LONGEST_MS;
use super::engine::EngineError;
use super::engine::Recogniser;
use super::engine::SAMPLE;
use super::engine::Search;
use super::engine::manifest::ModelManifest;
use super::provider::LANGUAGE_UNKNOWN;
use super::provider::NO_ENGINE;
use crate::audio::AudioError;
use crate::audio::speech::LegSpeech;
use crate::config::Config;
#[cfg(feature = "diarizer")]
use crate::config::DiarizerChoice;
use crate::config::EngineChoice;

/// The engines that the configuration allows.
#[derive(Debug)]
pub struct Engines {
    choice: EngineChoice,
    /// A name, a folder, or empty.
    model: String,
    models_dir: PathBuf,
    search: Search,
    threads: usize,
    loaded: Mutex<BTreeMap<PathBuf, Arc<Recogniser>>>,
    #[cfg(feature = "diarizer")]
    diarizer: NeuralDiarizer,
}

/// An engine, or the reason word for its absence.
pub type Chosen = Result<Arc<Recogniser>, &'static str>;

impl Engines {
    /// At most `jobs` recognitions run at the same time and share the cores.
    #[must_use]
    pub fn new(config: &Config, jobs: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            choice: config.transcript.engine,
            model: config.transcript.model.clone(),
            models_dir: config.models_dir(),
            search: match config.transcript.beam {
                0 => Search::Greedy,
                width => Search::Beam(width),
            },
            threads: (cores / jobs.max(1)).max(1),
            loaded: Mutex::default(),
            #[cfg(feature = "diarizer")]
            diarizer: NeuralDiarizer::new(config),
        }
    }

    /// Diarizes one channel with the configured diarizer. If its models cannot be used, the error is logged and our own
    /// diarizer runs.
    ///
    /// # Errors
    /// [`AudioError`] if the spool cannot be read.
    pub fn diarize(&self, leg: &LegSpeech) -> Result<Diarization, AudioError> {
        #[cfg(feature = "diarizer")]
        if let Some(voices) = self.diarizer.diarize(leg) {
            return Ok(voices);
        }
        diarization::diarize(leg)
    }

    /// Whether the configured neural diarizer can be used. `None` if our own is configured.
    #[must_use]
    pub fn diarizer_check(&self) -> Option<Result<(), EngineError>> {
        #[cfg(feature = "diarizer")]
        return self.diarizer.check();
        #[cfg(not(feature = "diarizer"))]
        None
    }

    /// The engine for a call in this language. Without a known language no engine is chosen, because words in the wrong
    /// language are worse than none.
    ///
    /// # Errors
    /// [`EngineError`] if a named model cannot be used.
    pub fn choose(&self, language: Option<&str>) -> Result<Chosen, EngineError> {
        if self.choice == EngineChoice::Off {
            return Ok(Err(NO_ENGINE));
        }
        let found = if self.model.is_empty() {
            installed(&self.models_dir).into_iter().find(|dir| {
                let speaks = |manifest: ModelManifest| language.is_none_or(|language| manifest.speaks(language));
                ModelManifest::read(dir).is_ok_and(speaks)
            })
        } else {
            Some(self.place(&self.model))
        };
        let Some(dir) = found else { return Ok(Err(NO_ENGINE)) };
        let Some(language) = language else { return Ok(Err(LANGUAGE_UNKNOWN)) };
        let recogniser = self.load(&dir)?;
        Ok(if recogniser.manifest().speaks(language) { Ok(recogniser) } else { Err(NO_ENGINE) })
    }

    /// The model of this name or folder, for any language.
    ///
    /// # Errors
    /// See [`Recogniser::load`].
    pub fn named(&self, model: &str) -> Result<Arc<Recogniser>, EngineError> {
        self.load(&self.place(model))
    }

    fn place(&self, model: &str) -> PathBuf {
        let path = Path::new(model);
        if model == SAMPLE || path.components().count() > 1 || path.is_dir() {
            return path.to_owned();
        }
        self.models_dir.join(model)
    }

    fn load(&self, dir: &Path) -> Result<Arc<Recogniser>, EngineError> {
        // The lock is held during loading, so that concurrent jobs load a model once.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = loaded.get(dir) {
            return Ok(known.clone());
        }
        let fresh = if dir == Path::new(SAMPLE) {
            Recogniser::sample(self.search, self.threads)?
        } else if dir.is_dir() {
            Recogniser::load(dir, self.search, self.threads)?
        } else {
            return Err(EngineError::NoModel { name: dir.display().to_string() });
        };
        let fresh = Arc::new(fresh);
        loaded.insert(dir.to_owned(), fresh.clone());
        Ok(fresh)
    }
}

/// The neural diarizer, loaded at its first use.
#[cfg(feature = "diarizer")]
#[derive(Debug)]
struct NeuralDiarizer {
    wanted: bool,
    dir: PathBuf,
    loaded: Mutex<Option<Arc<Diarizer>>>,
}

#[cfg(feature = "diarizer")]
impl NeuralDiarizer {
    fn new(config: &Config) -> Self {
        let wanted = config.transcript.diarizer == DiarizerChoice::Neural;
        Self { wanted, dir: config.models_dir().join(DIARIZER), loaded: Mutex::default() }
    }

    fn load(&self) -> Result<Arc<Diarizer>, EngineError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*loaded {
            return Ok(known.clone());
        }
        Ok(loaded.insert(Arc::new(Diarizer::load(&self.dir)?)).clone())
    }

    fn check(&self) -> Option<Result<(), EngineError>> {
        self.wanted.then(|| self.load().map(|_| ()))
    }

    fn diarize(&self, leg: &LegSpeech) -> Option<Diarization> {
        if !self.wanted || leg.samples.duration_ms() > LONGEST_MS {
            return None;
        }
        let told = self.load().and_then(|diarizer| diarizer.diarize(leg));
        told.inspect_err(|err| tracing::error!(error = %err, "the neural diarizer cannot be used")).ok()
    }
}

/// The folders of the installed models, by name.
#[must_use]
pub fn installed(models_dir: &Path) -> Vec<PathBuf> {
    let inside = std::fs::read_dir(models_dir).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> =
        inside.map(|entry| entry.path()).filter(|path| path.join("model.onnx").is_file()).collect();
    all.sort();
    all
}
