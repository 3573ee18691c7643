//! The command `process`. Recordings from files, folders or URLs go in. Measured audio, quality documents and
//! transcripts come out as files in a folder. The command needs no server and no database.

mod files;
mod inputs;
mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{Ended, leftovers, out};
use crate::audio;
use crate::audio::speech::{Speech, SpeechSink};
use crate::audio::waveform::ColouredTurn;
use crate::audio::{AudioError, CancelFlag, probe};
use crate::config::{self, Config, EngineChoice};
use crate::domain::quality::ConversationMethod;
use crate::domain::{Container, DualChannels, Network, Outcome, Quality, RecordingState, Transcript};
use crate::quality;
use crate::transcript;
use crate::transcript::engines::Engines;
use crate::transcript::{Attributed, Hints};
use files::{Files, open_to_all};
use inputs::Task;
use words::Came;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Writes original.*, audio.wav (48 kHz mono), quality.json, transcript.{json,txt,vtt}, turns.rttm, waveform.{json,png} and manifest.json.\n\nExamples:\n  aftercall process call.mp3 --out call/\n  aftercall process recordings/ --out measured/ --json\n  aftercall process https://host/call.mp3 --transcript call.txt"
)]
pub(super) struct Args {
    /// Files, folders of recordings, or https URLs
    #[arg(required = true, value_name = "FILE|DIR|URL")]
    inputs: Vec<String>,
    /// The output folder. Each of several recordings gets its own folder in it
    #[arg(long, default_value = "aftercall-out", value_name = "DIR")]
    out: PathBuf,
    /// Known text to label: a transcript with or without labels, captions (vtt, srt), or JSON turns
    #[arg(long, value_name = "FILE", conflicts_with = "no_transcript")]
    transcript: Option<PathBuf>,
    /// Measure the audio only
    #[arg(long)]
    no_transcript: bool,
    /// The engine for recordings without known words, one of auto, embedded and off
    #[arg(long, value_name = "NAME", conflicts_with = "no_transcript")]
    engine: Option<String>,
    /// The model that recognises words or aligns known ones, by name or folder. It is used for every language
    #[arg(long, value_name = "NAME|DIR", conflicts_with = "no_transcript")]
    model: Option<String>,
    /// The spoken language (en, yo, …). Recognition needs it, unless --model names a model
    #[arg(long, value_name = "TAG", conflicts_with = "no_transcript")]
    language: Option<String>,
    /// The channel of the caller in recordings with two legs
    #[arg(long, value_name = "left|right", conflicts_with = "no_transcript")]
    caller_channel: Option<Side>,
    /// Known text of the agent, such as its greeting or prompt. It helps to tell the agent from the caller
    #[arg(long, value_name = "FILE", conflicts_with = "no_transcript")]
    agent_text: Option<PathBuf>,
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Side {
    Left,
    Right,
}

/// The result of one recording.
struct Done {
    task: Task,
    result: Result<Quality, Without>,
    /// The result for its words. `None` where no words were wanted.
    words: Option<Came>,
    files: Vec<String>,
}

/// Why a recording has no quality document.
enum Without {
    /// The bytes are no recording, or the recording cannot be decoded.
    Damaged(String),
    /// The recording has a codec or a format that is not supported.
    Unsupported(String),
    /// The processing stopped before its end, for example because of a full disk.
    Stopped(String),
}

impl Without {
    fn reason(&self) -> &str {
        match self {
            Self::Damaged(reason) | Self::Unsupported(reason) | Self::Stopped(reason) => reason,
        }
    }
}

/// Whether words are wanted, and the settings for them.
#[derive(Clone)]
enum Words {
    Skipped,
    Wanted(Arc<Wanted>),
}

/// The known facts about a recording, and the recogniser for its words.
struct Wanted {
    known: Option<Transcript>,
    ears: Recognizer,
    channels: DualChannels,
    agent_text: Option<String>,
}

impl Wanted {
    fn words(&self, speech: &Speech) -> Result<Attributed> {
        let words = match &self.known {
            Some(known) => self.ears.place(&transcript::within(known, speech), speech)?,
            None => self.ears.words(speech)?,
        };
        let engines = Some(&self.ears.engines);
        let (channels, agent_text) = (self.channels, self.agent_text.as_deref());
        let hints = Hints { engines, channels, agent_text, agent_voice: None };
        Ok(transcript::attribute(words, speech, hints)?)
    }
}

/// The recogniser for recordings without known words. It also aligns known words.
struct Recognizer {
    engines: Engines,
    model: Option<String>,
    language: Option<String>,
}

impl Recognizer {
    /// Known words with their times. Words without usable times are aligned if an engine knows the language.
    fn place(&self, known: &Transcript, speech: &Speech) -> Result<Transcript> {
        let language = self.language.as_deref().or(known.language.as_deref());
        Ok(match &self.model {
            Some(model) if transcript::wants_engine(known) && !known.utterances.is_empty() => {
                transcript::fit(&*self.engines.named(model)?, known, speech)?
            }
            _ => transcript::from_audio(&self.engines, known, speech, language)?,
        })
    }

    fn words(&self, speech: &Speech) -> Result<Transcript> {
        let language = self.language.as_deref();
        Ok(match &self.model {
            Some(model) => transcript::recognise_with(&*self.engines.named(model)?, speech, language)?,
            None => transcript::recognise(&self.engines, speech, language)?,
        })
    }
}

/// Processes all inputs. The command fails when one recording has no quality document.
pub(super) async fn run(config: Config, args: Args) -> Result<Ended> {
    let words = if args.no_transcript { Words::Skipped } else { Words::Wanted(Arc::new(wanted(&config, &args)?)) };
    std::fs::create_dir_all(&args.out).with_context(|| format!("--out: cannot create {}", args.out.display()))?;
    let downloads = tempfile::tempdir_in(&args.out).context("--out: cannot write there")?;
    let tasks = inputs::tasks(&config, &args.inputs, &args.out, downloads.path()).await?;
    if tasks.len() > 1 && args.transcript.is_some() {
        bail!("--transcript belongs to one recording, but {} were named", tasks.len());
    }
    let inputs: Vec<&Path> = tasks.iter().map(|task| task.file.as_path()).chain(args.transcript.as_deref()).collect();
    for task in &tasks {
        leftovers::clear(&task.out, &inputs)?;
    }
    let done = process_all(&config, tasks, words).await?;
    if args.json {
        out::json(&done.iter().map(Done::json).collect::<Vec<_>>())?;
    } else {
        table(&done);
    }
    words::say(done.iter().filter_map(|done| Some((done.task.name.as_str(), done.words.as_ref()?))));
    Ok(if done.iter().all(|done| done.result.is_ok()) { Ended::Well } else { Ended::Failed })
}

fn wanted(config: &Config, args: &Args) -> Result<Wanted> {
    let read = |option: &str, path: &Path| {
        std::fs::read(path).with_context(|| format!("{option}: cannot read {}", path.display()))
    };
    let known = args.transcript.as_ref().map(|path| {
        let known = transcript::parse_file(&read("--transcript", path)?, None);
        known.with_context(|| format!("--transcript: {}", path.display()))
    });
    let agent_text = args.agent_text.as_ref().map(|path| {
        String::from_utf8(read("--agent-text", path)?)
            .with_context(|| format!("--agent-text: {} is not UTF-8", path.display()))
    });
    let channels = match args.caller_channel {
        Some(Side::Left) => DualChannels::CallerLeft,
        Some(Side::Right) => DualChannels::AgentLeft,
        None => DualChannels::Auto,
    };
    Ok(Wanted { known: known.transpose()?, ears: ears(config, args)?, channels, agent_text: agent_text.transpose()? })
}

fn ears(config: &Config, args: &Args) -> Result<Recognizer> {
    let mut config = config.clone();
    if let Some(name) = &args.engine {
        config.transcript.engine = match name.as_str() {
            "auto" => EngineChoice::Auto,
            "embedded" => EngineChoice::Embedded,
            "off" => EngineChoice::Off,
            other => bail!("--engine {other}: is none of auto, embedded, off"),
        };
    }
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let engines = Engines::new(&config, jobs);
    if let Some(model) = &args.model {
        engines.named(model).context("--model")?;
    }
    Ok(Recognizer { engines, model: args.model.clone(), language: args.language.clone() })
}

/// Processes one recording per core at a time. The results have the order of the inputs.
async fn process_all(config: &Config, tasks: Vec<Task>, words: Words) -> Result<Vec<Done>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = Arc::new(Semaphore::new(cores));
    let bar = out::bar(tasks.len() as u64, "processing");
    let mut running = Vec::new();
    for task in tasks {
        let (slots, settings, words, bar) = (slots.clone(), config.audio.clone(), words.clone(), bar.clone());
        let named = task.clone();
        let run = tokio::spawn(async move {
            let _slot = slots.acquire_owned().await;
            let done = tokio::task::spawn_blocking(move || process(task, &settings, &words)).await;
            bar.inc(1);
            done
        });
        running.push((named, run));
    }
    let mut all = Vec::new();
    let alone = running.len() == 1;
    for (task, run) in running {
        let done = run
            .await
            .context("a recording's task stopped")
            .and_then(|done| done.context("a recording's task stopped")?);
        all.push(match done {
            // With several recordings, the failure of one still leaves a table of the others.
            Err(err) if !alone => without(task, Without::Stopped(format!("{err:#}")), Vec::new()),
            done => done?,
        });
    }
    bar.finish_and_clear();
    Ok(all)
}

/// Processes one recording and writes its files. A bad recording is a result. A failure of the disk is an error.
fn process(task: Task, settings: &config::Audio, words: &Words) -> Result<Done> {
    std::fs::create_dir_all(&task.out).with_context(|| format!("--out: cannot create {}", task.out.display()))?;
    let mut written = Files::in_folder(&task.out);
    let container = match probe::sniff(&task.file).with_context(|| format!("cannot read {}", task.name))? {
        probe::Sniffed::Audio(container) => container,
        probe::Sniffed::Empty => return Ok(refused(task, "the file is empty")),
        probe::Sniffed::Text => return Ok(refused(task, "the file is text, not audio")),
        probe::Sniffed::Unknown => Container::Other,
    };
    let original = std::fs::File::open(&task.file).with_context(|| format!("cannot read {}", task.name))?;
    written.copy(original, &format!("original.{}", container.extension()), container.content_type())?;
    let spool = tempfile::tempdir_in(&task.out).context("--out: cannot write there")?;
    let mut meter = quality::signal::SignalMeter::new();
    let wav = task.out.join("audio.wav");
    let request = audio::NormalizeRequest {
        input: &task.file,
        container,
        settings,
        spool: spool.path(),
        wav: Some(&wav),
        flac: None,
    };
    let mut speech = matches!(words, Words::Wanted(_)).then(|| SpeechSink::new(settings, spool.path()));
    let mut sinks: Vec<&mut dyn audio::BlockSink> = vec![&mut meter];
    sinks.extend(speech.as_mut().map(|sink| sink as &mut dyn audio::BlockSink));
    let normalized = match audio::normalize(&request, &mut sinks, &CancelFlag::default()) {
        Ok(normalized) => normalized,
        Err(err) if err.outcome().is_none() => return Err(err).with_context(|| task.name.clone()),
        Err(err) => return Ok(unusable(task, &written, &err)),
    };
    if let Some(wav) = &normalized.wav {
        open_to_all(&wav.path)?;
        written.note("audio.wav", "audio/wav", wav.size_bytes, &wav.sha256.to_string());
    }
    let speech = speech.map(SpeechSink::finish).transpose().with_context(|| task.name.clone())?;
    let attributed = match (words, &speech) {
        (Words::Wanted(wanted), Some(speech)) => Some(wanted.words(speech).with_context(|| task.name.clone())?),
        _ => None,
    };
    let transcript = attributed.as_ref().map(|attributed| &attributed.transcript);
    let network = Network::default();
    let quality = quality::assemble(&quality::Inputs {
        normalized: &normalized,
        signal: &meter.finish(),
        network: &network,
        leg: None,
        record_duration_ms: None,
        transcript,
        method: attributed.as_ref().map_or(ConversationMethod::ProviderTurns, |attributed| attributed.method),
        speech: speech.as_ref().zip(attributed.as_ref().map(|attributed| attributed.legs.as_slice())),
    });
    written.json("quality.json", &quality::document(&quality))?;
    let words = transcript.map(|transcript| words::write(&mut written, &task.name, transcript)).transpose()?;
    let turns = transcript.map(ColouredTurn::of).unwrap_or_default();
    written.bytes("waveform.json", "application/json", &normalized.waveform.json())?;
    written.bytes("waveform.png", "image/png", &normalized.waveform.png(&turns)?)?;
    let files = written.manifest(settings, transcript.and_then(|transcript| transcript.engine.as_ref()))?;
    for warning in &normalized.warnings {
        out::note(&format!("{}: {warning}", task.name));
    }
    Ok(Done { task, result: Ok(quality), words, files })
}

fn without(task: Task, why: Without, files: Vec<String>) -> Done {
    Done { task, result: Err(why), words: None, files }
}

fn refused(task: Task, why: &str) -> Done {
    without(task, Without::Damaged(why.to_owned()), Vec::new())
}

fn unusable(task: Task, written: &Files, err: &AudioError) -> Done {
    let why = match err.outcome() {
        Some(Outcome::UnsupportedMedia) => Without::Unsupported,
        _ => Without::Damaged,
    };
    without(task, why(err.to_string()), written.names())
}

impl Done {
    fn json(&self) -> Value {
        let (state, reason) = match &self.result {
            Ok(quality) => (json!(quality.source.state), None),
            Err(without @ Without::Damaged(_)) => (json!(RecordingState::Damaged), Some(without.reason())),
            Err(without @ Without::Unsupported(_)) => {
                (json!(Outcome::UnsupportedMedia.as_str()), Some(without.reason()))
            }
            Err(without @ Without::Stopped(_)) => (Value::Null, Some(without.reason())),
        };
        json!({
            "input": self.task.name,
            "out": self.task.out,
            "state": state,
            "reason": reason,
            "quality": self.result.as_ref().ok(),
            "words": self.words.as_ref().map(Came::json),
            "files": self.files,
        })
    }
}

fn table(all: &[Done]) {
    let decibels = |value: Option<f64>, unit: &str| out::or_dash(value.map(|value| format!("{value:.1} {unit}")));
    let rows = all.iter().map(|done| match &done.result {
        Ok(quality) => vec![
            done.task.name.clone(),
            out::minutes(quality.duration_ms),
            format!("{:?}", quality.source.state).to_lowercase(),
            decibels(quality.loudness.integrated_lufs, "LUFS"),
            decibels(quality.loudness.true_peak_dbtp, "dBTP"),
            format!("{:+.1} dB", quality.normalization.gain_db),
            decibels(quality.signal.snr_db, "dB"),
            quality.flags.iter().map(|flag| flag.as_str()).collect::<Vec<_>>().join(" "),
            out::or_dash(done.words.as_ref().map(Came::briefly)),
        ],
        Err(without) => {
            let mut row = vec![done.task.name.clone(), "–".to_owned(), "failed".to_owned()];
            row.extend(["–", "–", "–", "–"].map(str::to_owned));
            row.extend([without.reason().to_owned(), "–".to_owned()]);
            row
        }
    });
    let columns = [
        out::Column::kept("recording"),
        out::Column::kept("length"),
        out::Column::kept("state"),
        out::Column::spare("loudness", 1),
        out::Column::spare("true peak", 3),
        out::Column::spare("gain", 4),
        out::Column::spare("SNR", 5),
        out::Column::spare("flags", 2),
        out::Column::kept("words"),
    ];
    out::table(&columns, rows, "no recording");
    for done in all.iter().filter(|done| !done.files.is_empty()) {
        out::line(&format!("{} -> {}", done.task.name, done.task.out.display()));
    }
}
