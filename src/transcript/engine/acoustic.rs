//! A CTC network in ONNX, run by rten: samples of one stretch to log probabilities of tokens.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rten::Model;
use rten::ModelOptions;
use rten::NodeId;
use rten::RunOptions;
use rten::ThreadPool;
use rten_tensor::AsView;
use rten_tensor::Layout;
use rten_tensor::NdTensor;

use super::error::EngineError;
use super::features::LogMel;
use super::manifest::Features;
use super::manifest::Manifest;

/// Steps of token log probabilities, the blank first.
#[derive(Debug, Clone)]
pub struct Posteriors {
    /// `[steps, tokens]`.
    pub log_probs: NdTensor<f32, 2>,
    pub step_ms: f64,
}

impl Posteriors {
    #[must_use]
    pub fn steps(&self) -> usize {
        self.log_probs.size(0)
    }

    /// One step's log probabilities, the blank's first.
    #[must_use]
    pub fn step(&self, step: usize) -> &[f32] {
        let tokens = self.log_probs.size(1);
        self.log_probs.data().map_or(&[], |all| &all[step * tokens..(step + 1) * tokens])
    }
}

/// A loaded network. It is loaded once and shared by every job of the process.
pub struct Acoustic {
    path: PathBuf,
    model: Model,
    front: LogMel,
    features: Features,
    bins: usize,
    step_ms: f64,
    tokens: usize,
    blank: usize,
    /// `(audio, its length in feature frames where the network asks for it, log probabilities)`.
    nodes: (NodeId, Option<NodeId>, NodeId),
    threads: usize,
}

impl std::fmt::Debug for Acoustic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Acoustic({})", self.path.display())
    }
}

impl Acoustic {
    /// Loads this file; each recognition will use `threads` threads. It is read as it is parsed, so that no second copy of
    /// the weights is ever in memory.
    ///
    /// # Errors
    /// A file that is not the network its description promises, or is none that can be run.
    pub fn load(path: &Path, manifest: &Manifest, threads: usize) -> Result<Self, EngineError> {
        let model = ModelOptions::with_all_ops().load_file(path);
        Self::of(model.map_err(|err| wrong(path, err.to_string()))?, path, manifest, threads)
    }

    /// As [`Acoustic::load`], from memory; `path` is what errors call it.
    pub fn from_static(
        path: &Path,
        bytes: &'static [u8],
        manifest: &Manifest,
        threads: usize,
    ) -> Result<Self, EngineError> {
        let model = ModelOptions::with_all_ops().load_static_slice(bytes);
        Self::of(model.map_err(|err| wrong(path, err.to_string()))?, path, manifest, threads)
    }

    fn of(model: Model, path: &Path, manifest: &Manifest, threads: usize) -> Result<Self, EngineError> {
        let nodes = nodes(&model).map_err(|reason| wrong(path, reason))?;
        Ok(Self {
            model,
            front: LogMel::new(manifest.bins),
            features: manifest.features,
            bins: manifest.bins,
            step_ms: manifest.step_ms(),
            tokens: manifest.tokens.len(),
            blank: manifest.blank(),
            nodes,
            threads: threads.max(1),
            path: path.to_owned(),
        })
    }

    /// What the network makes of one stretch of 16 kHz samples; nothing of a stretch too short to hold a sound.
    ///
    /// # Errors
    /// A network that cannot take this input, or whose output is not one of its tokens per step.
    pub fn posteriors(&self, samples: &[f32]) -> Result<Posteriors, EngineError> {
        let frames = match self.features {
            Features::NemoLogMel => LogMel::frames(samples.len()),
            Features::Waveform => samples.len(),
        };
        let step_ms = self.step_ms;
        if samples.len() < 8 * super::features::HOP {
            return Ok(Posteriors { log_probs: NdTensor::zeros([0, self.tokens]), step_ms });
        }
        // New threads each time: they have the priority of the one that asks, and cost nothing beside what they do.
        let pool = Arc::new(ThreadPool::with_num_threads(self.threads));
        let options = RunOptions::default().with_thread_pool(Some(pool));
        let (audio, length, output) = self.nodes;
        let input: rten::Value = match self.features {
            Features::NemoLogMel => NdTensor::from_data([1, self.bins, frames], self.front.picture(samples)).into(),
            Features::Waveform => NdTensor::from_data([1, frames], level(samples)).into(),
        };
        let mut inputs = vec![(audio, input.into())];
        if let Some(length) = length {
            inputs.push((length, rten::Value::from(NdTensor::from_data([1], vec![frames as i32])).into()));
        }
        let failed = |reason: String| EngineError::Inference { reason };
        let run = self.model.run_n(inputs, [output], Some(options));
        let [value] = run.map_err(|err| failed(err.to_string()))?;
        let all: NdTensor<f32, 3> =
            value.try_into().map_err(|_| failed("its output is not three-dimensional".into()))?;
        let [batch, steps, tokens] = all.shape();
        if batch != 1 || tokens != self.tokens {
            let reason = format!("it gives [{batch}, {steps}, {tokens}], but {} tokens are named", self.tokens);
            return Err(EngineError::Architecture { path: self.path.clone(), reason });
        }
        Ok(Posteriors { log_probs: self.blank_first(all.into_data(), steps), step_ms })
    }

    /// Moves the blank to the front (the decoder knows it there) and makes log probabilities of plain scores.
    fn blank_first(&self, mut all: Vec<f32>, steps: usize) -> NdTensor<f32, 2> {
        for step in all.chunks_exact_mut(self.tokens) {
            step[..=self.blank].rotate_right(1);
            let most = step.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = step.iter().map(|x| (x - most).exp()).sum();
            let whole = most + sum.ln();
            for x in step {
                *x -= whole;
            }
        }
        NdTensor::from_data([steps, self.tokens], all)
    }
}

fn wrong(path: &Path, reason: String) -> EngineError {
    EngineError::Architecture { path: path.to_owned(), reason }
}

/// The network's ports: a three-dimensional picture (or two-dimensional samples), perhaps its length, and the output.
fn nodes(model: &Model) -> Result<(NodeId, Option<NodeId>, NodeId), String> {
    let rank = |id: NodeId| model.node_info(id).and_then(|node| node.shape()).map(|shape| shape.len());
    let ids = model.input_ids();
    let audio = ids.iter().copied().find(|id| matches!(rank(*id), Some(2 | 3)));
    let length = ids.iter().copied().find(|id| rank(*id) == Some(1));
    let output = model.output_ids().first().copied();
    match (audio, output) {
        (Some(audio), Some(output)) if ids.len() == 1 + usize::from(length.is_some()) => Ok((audio, length, output)),
        _ => Err(format!(
            "a CTC network takes audio and perhaps its length and gives log probabilities; this one has {} inputs and {} outputs of other shapes",
            ids.len(),
            model.output_ids().len()
        )),
    }
}

/// To zero mean and unit variance.
fn level(samples: &[f32]) -> Vec<f32> {
    let count = samples.len().max(1) as f64;
    let mean = samples.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let variance = samples.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
    let scale = 1.0 / (variance + 1e-5).sqrt();
    samples.iter().map(|x| ((f64::from(*x) - mean) * scale) as f32).collect()
}
