//! Runs a CTC network in ONNX with `rten`. Input: the samples of one segment. Output: log probabilities of tokens.

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
use super::manifest::ModelManifest;

/// Log probabilities of the tokens by step, the blank first.
#[derive(Debug, Clone)]
pub struct Posteriors {
    /// Shape `[steps, tokens]`.
    pub log_probs: NdTensor<f32, 2>,
    pub step_ms: f64,
}

impl Posteriors {
    #[must_use]
    pub fn steps(&self) -> usize {
        self.log_probs.size(0)
    }

    /// Log probabilities of one step, the blank first.
    #[must_use]
    pub fn step(&self, step: usize) -> &[f32] {
        let tokens = self.log_probs.size(1);
        self.log_probs.data().map_or(&[], |all| &all[step * tokens..(step + 1) * tokens])
    }
}

/// A loaded network, shared by all jobs of the process.
pub struct Acoustic {
    path: PathBuf,
    model: Model,
    front: LogMel,
    features: Features,
    bins: usize,
    step_ms: f64,
    tokens: usize,
    blank: usize,
    /// Audio input, optional input of its length in feature frames, and output of log probabilities.
    nodes: (NodeId, Option<NodeId>, NodeId),
    threads: usize,
}

impl std::fmt::Debug for Acoustic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Acoustic({})", self.path.display())
    }
}

impl Acoustic {
    /// Loads this file. Each recognition uses `threads` threads. The file is parsed while it is read, so that memory
    /// holds the weights only once.
    ///
    /// # Errors
    /// [`EngineError`] if the file does not match its description or cannot be run.
    pub fn load(path: &Path, manifest: &ModelManifest, threads: usize) -> Result<Self, EngineError> {
        let model = ModelOptions::with_all_ops().load_file(path);
        Self::of(model.map_err(|err| wrong(path, err.to_string()))?, path, manifest, threads)
    }

    /// Like [`Acoustic::load`], from memory. Errors name `path`.
    pub fn from_static(
        path: &Path,
        bytes: &'static [u8],
        manifest: &ModelManifest,
        threads: usize,
    ) -> Result<Self, EngineError> {
        let model = ModelOptions::with_all_ops().load_static_slice(bytes);
        Self::of(model.map_err(|err| wrong(path, err.to_string()))?, path, manifest, threads)
    }

    fn of(model: Model, path: &Path, manifest: &ModelManifest, threads: usize) -> Result<Self, EngineError> {
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

    /// Log probabilities for one segment of 16 kHz samples. They have no steps if the segment is too short for a sound.
    ///
    /// # Errors
    /// [`EngineError`] if the network rejects this input, or its output does not match the number of tokens.
    pub fn posteriors(&self, samples: &[f32]) -> Result<Posteriors, EngineError> {
        let frames = match self.features {
            Features::NemoLogMel => LogMel::frames(samples.len()),
            Features::Waveform => samples.len(),
        };
        let step_ms = self.step_ms;
        if samples.len() < 8 * super::features::HOP {
            return Ok(Posteriors { log_probs: NdTensor::zeros([0, self.tokens]), step_ms });
        }
        // A new pool per run: its threads inherit the priority of the calling thread, and their cost is small against
        // the run.
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

    /// Moves the blank to the front, as the decoder expects, and normalises the scores to log probabilities.
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

/// Finds the network's ports: a three-dimensional spectrogram or two-dimensional samples, an optional length, and the
/// output.
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

/// Normalises to zero mean and unit variance.
fn level(samples: &[f32]) -> Vec<f32> {
    let count = samples.len().max(1) as f64;
    let mean = samples.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let variance = samples.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
    let scale = 1.0 / (variance + 1e-5).sqrt();
    samples.iter().map(|x| ((f64::from(*x) - mean) * scale) as f32).collect()
}
