//! The command `evaluate`. Recordings and references with their words, speakers and roles go in. The program
//! transcribes the recordings and compares the results with the references. Error rates come out.

mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Ended, out};
use crate::audio;
use crate::audio::speech::{Speech, SpeechSink};
use crate::audio::{CancelFlag, probe};
use crate::config::{self, Config};
use crate::domain::transcript::{EngineInfo, Speaker};
use crate::domain::{Container, DualChannels, Role, SpeakerEmbedding, Transcript};
use crate::transcript;
use crate::transcript::engine::HeardWord;
use crate::transcript::engines::Engines;
use crate::transcript::score::{Reference, Score, judge, read};
use crate::transcript::{AgentVoice, HeardLeg, Hints};
use report::{Judged, Report};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A reference is NAME.json (a transcript.json corrected by hand will do), NAME.stm or NAME.ctm beside the recording NAME.*, with NAME.rttm for the speech segments where there is one; a JSON reference may name its recording in `file`.\n\nExamples:\n  aftercall evaluate --refs calls/ --language en\n  aftercall evaluate --refs calls/ --given words,agent-text --json > figures.json\n  aftercall evaluate --refs calls/ --language en --baseline figures.json"
)]
pub(super) struct Args {
    /// Folder of recordings and their references
    #[arg(long, value_name = "DIR")]
    refs: PathBuf,
    /// Facts to take from the references instead of finding them
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    given: Vec<Given>,
    /// The model to use, by name or folder
    #[arg(long, value_name = "NAME|DIR")]
    model: Option<String>,
    /// The spoken language, for references that name none
    #[arg(long, value_name = "TAG")]
    language: Option<String>,
    /// The --json output of an earlier run. The command fails when a figure is worse now
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Show every recording in the table, before the sum
    #[arg(long)]
    each: bool,
    /// JSON on stdout
    #[arg(long)]
    json: bool,
}

/// A fact that may be taken from the references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Given {
    /// The words and their times. Only speakers and roles are scored then
    Words,
    /// The known text of the agent (`agent_text`)
    AgentText,
    /// The channels of agent and caller (`dual_channels`)
    Channels,
    /// The voice of the agent (`agent_id`), enrolled from its other two-channel recordings in the folder
    AgentVoice,
}

/// The recogniser of the recordings, with its settings.
struct Recognizer {
    engines: Engines,
    model: Option<String>,
    language: Option<String>,
    given: Vec<Given>,
    settings: config::Audio,
    voices: Vec<Taught>,
}

/// The voice of an agent, enrolled from one two-channel recording.
struct Taught {
    by: PathBuf,
    agent_id: String,
    figures: SpeakerEmbedding,
}

/// Scores every reference in the folder and prints the report.
pub(super) async fn run(config: Config, args: Args) -> Result<Ended> {
    let earlier = args.baseline.as_deref().map(report::earlier).transpose()?;
    let refs = references(&args.refs)?;
    let mut ears = Recognizer {
        engines: Engines::new(&config, 1),
        model: args.model.clone(),
        language: args.language.clone(),
        given: args.given.clone(),
        settings: config.audio.clone(),
        voices: Vec::new(),
    };
    if let Some(model) = &ears.model {
        ears.engines.named(model).context("--model")?;
    }
    let bar = out::bar(refs.len() as u64, "judging");
    let progress = bar.clone();
    let judging = tokio::task::spawn_blocking(move || -> Result<Report> {
        let mut report = Report::default();
        if ears.has(Given::AgentVoice) {
            ears.voices = ears.agents_of(&refs)?;
        }
        for path in &refs {
            let judged = ears.judge(path).with_context(|| path.display().to_string())?;
            report.add(judged);
            progress.inc(1);
        }
        Ok(report)
    });
    let report = judging.await.context("the evaluation stopped")??;
    bar.finish_and_clear();
    if args.json {
        out::json(&report.json())?;
    } else {
        report.table(args.each);
    }
    let worse = earlier.map(|earlier| report.worse_than(&earlier)).unwrap_or_default();
    for line in &worse {
        out::note(&format!("worse than the baseline: {line}"));
    }
    Ok(if worse.is_empty() { Ended::Well } else { Ended::Failed })
}

/// The references of a folder, sorted by name. Of several for one recording, JSON comes before STM and STM before CTM.
fn references(dir: &Path) -> Result<Vec<PathBuf>> {
    let inside = std::fs::read_dir(dir).with_context(|| format!("--refs: cannot read {}", dir.display()))?;
    let mut found: Vec<PathBuf> = inside.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let rank = |path: &Path| match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => Some(0),
        Some("stm") => Some(1),
        Some("ctm") => Some(2),
        _ => None,
    };
    found.retain(|path| rank(path).is_some());
    found.sort_by_key(|path| (path.with_extension(""), rank(path)));
    found.dedup_by_key(|path| path.with_extension(""));
    let mut judged = Vec::new();
    for path in found {
        let named = read(&path)?.file.is_some();
        if named || beside(&path)?.is_some() {
            judged.push(path);
        } else {
            out::note(&format!("{}: no recording beside it, passed over", path.display()));
        }
    }
    if judged.is_empty() {
        bail!("--refs: {} holds no recording with a reference (NAME.json, NAME.stm or NAME.ctm)", dir.display());
    }
    Ok(judged)
}

/// The recording beside a reference, with the same name.
fn beside(reference: &Path) -> Result<Option<PathBuf>> {
    let Some(dir) = reference.parent() else { return Ok(None) };
    let mut inside: Vec<PathBuf> = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    inside.sort();
    for path in inside.into_iter().filter(|path| path.file_stem() == reference.file_stem() && path != reference) {
        if matches!(probe::sniff(&path)?, probe::Sniffed::Audio(_)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The recording that a reference names, or else the one beside it.
fn recording_of(path: &Path, reference: &Reference) -> Result<PathBuf> {
    match &reference.file {
        Some(file) => Ok(path.parent().unwrap_or(Path::new("")).join(file)),
        None => beside(path)?.context("no recording beside it"),
    }
}

impl Recognizer {
    fn judge(&self, path: &Path) -> Result<Judged> {
        let reference = read(path)?;
        let before = cpu_time();
        let (speech, audio_ms) = self.listen(&recording_of(path, &reference)?)?;
        let words = self.words(&reference, &speech)?;
        let text = reference.agent_text.as_deref().filter(|_| self.has(Given::AgentText));
        let channels = reference.dual_channels.filter(|_| self.has(Given::Channels)).unwrap_or_default();
        let voice = self.agent_voice(path, &reference);
        let hints = Hints { engines: Some(&self.engines), channels, agent_text: text, agent_voice: voice.as_ref() };
        let attributed = transcript::attribute(words, &speech, hints)?;
        let cpu = cpu_time().zip(before).map(|(after, before)| after.saturating_sub(before));
        let found = attributed.transcript;
        let score: Score = judge(&reference, &found, audio_ms);
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let speakers = (reference.speakers.len(), found.speakers.len());
        Ok(Judged { name, score, speakers, roles: found.speakers, cpu })
    }

    /// Enrolls the voices of the named agents from all two-channel recordings.
    fn agents_of(&self, refs: &[PathBuf]) -> Result<Vec<Taught>> {
        let mut taught = Vec::new();
        for path in refs {
            let reference = read(path)?;
            let (Some(agent_id), Some(channels)) = (&reference.agent_id, reference.dual_channels) else { continue };
            let (speech, _) = self.listen(&recording_of(path, &reference)?)?;
            let hints = Hints { channels, ..Hints::default() };
            let placed = transcript::attribute(transcript::without_text(None), &speech, hints)?;
            let enrolled = transcript::enroll(&placed, &speech)?;
            let by = |figures| Taught { by: path.clone(), agent_id: agent_id.clone(), figures };
            taught.extend(enrolled.map(by));
        }
        Ok(taught)
    }

    /// The voice of a recording's agent, enrolled from the agent's other recordings.
    fn agent_voice(&self, path: &Path, reference: &Reference) -> Option<AgentVoice> {
        let own = |taught: &&Taught| Some(&taught.agent_id) == reference.agent_id.as_ref() && taught.by != path;
        let figures: Vec<SpeakerEmbedding> =
            self.voices.iter().filter(own).map(|taught| taught.figures.clone()).collect();
        AgentVoice::of(&figures)
    }

    fn has(&self, what: Given) -> bool {
        self.given.contains(&what)
    }

    fn listen(&self, recording: &Path) -> Result<(Speech, u64)> {
        let shown = recording.display();
        let container = match probe::sniff(recording).with_context(|| format!("cannot read {shown}"))? {
            probe::Sniffed::Audio(container) => container,
            probe::Sniffed::Empty | probe::Sniffed::Text => bail!("{shown} is no recording"),
            probe::Sniffed::Unknown => Container::Other,
        };
        let spool = tempfile::tempdir().context("no room for temporary files")?;
        let settings = &self.settings;
        let request = audio::NormalizeRequest {
            input: recording,
            container,
            settings,
            spool: spool.path(),
            wav: None,
            flac: None,
        };
        let mut sink = SpeechSink::new(settings, spool.path());
        let normalized = audio::normalize(&request, &mut [&mut sink], &CancelFlag::default())?;
        Ok((sink.finish()?, normalized.duration_ms))
    }

    fn words(&self, reference: &Reference, speech: &Speech) -> Result<Transcript> {
        if self.has(Given::Words) {
            return Ok(given(reference, speech));
        }
        let language = reference.language.as_deref().or(self.language.as_deref());
        Ok(match &self.model {
            Some(model) => transcript::recognise_with(&*self.engines.named(model)?, speech, language)?,
            None => transcript::recognise(&self.engines, speech, language)?,
        })
    }
}

/// The words of the reference in the form of an engine's result. With one leg the words have no speaker. With two legs
/// each word is on its speaker's leg where the reference names the channels.
fn given(reference: &Reference, speech: &Speech) -> Transcript {
    let two = speech.legs.len() == 2;
    let agent = match reference.dual_channels {
        Some(DualChannels::AgentLeft) => Some(0),
        Some(DualChannels::CallerLeft) => Some(1),
        _ => None,
    };
    let leg = |speaker: usize| match (two, agent, reference.speakers.get(speaker)) {
        (true, Some(agent), Some(Role::Agent)) => agent,
        (true, Some(agent), _) => 1 - agent,
        _ => 0,
    };
    let placed = two && agent.is_some();
    let legs = [0, 1].map(|id| HeardLeg {
        speaker: Some(id),
        words: reference.words.iter().filter(|word| leg(word.speaker) == id).filter_map(heard).collect(),
    });
    let speaker = |id: u8| Speaker { channel: placed.then_some(id), ..Speaker::nameless(id.into()) };
    let speakers = (0..=u8::from(placed)).map(speaker).collect();
    let engine = EngineInfo {
        name: "reference".to_owned(),
        model: None,
        model_sha256: None,
        parameters: serde_json::Value::Null,
    };
    transcript::from_engine(legs.into(), speakers, Vec::new(), reference.language.as_deref(), engine)
}

fn heard(word: &transcript::score::SpokenWord) -> Option<HeardWord> {
    let (start, end) = word.start_ms.zip(word.end_ms)?;
    Some(HeardWord { text: word.text.clone(), start_ms: start as f64, end_ms: end as f64, confidence: 1.0 })
}

/// The processor time of this process so far. `None` on a system without `/proc`.
fn cpu_time() -> Option<Duration> {
    /// Clock ticks per second in `/proc` (`USER_HZ`, 100 on every Linux since 2.6).
    const TICKS: u64 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program name in brackets and may hold spaces. utime and stime are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS))
}
