//! Neural diarization with the crate `polyvoice`: segmentation with overlap, speaker embeddings and clustering.
//! Compiled only with the feature `diarizer`. The models are installed by `aftercall models pull diarizer`.

use std::path::Path;
use std::sync::LazyLock;

use polyvoice::ModelRegistry;
use polyvoice::Pipeline;
use polyvoice::PipelineConfig;
use polyvoice::models::Manifest;
use polyvoice::models::default_manifest;
use polyvoice::types::Profile;
use polyvoice::types::SampleRate;
use polyvoice::types::SpeakerTurn;

use super::diarization::Diarization;
use super::engine::EngineError;
use super::known_model::KnownModel;
use super::known_model::ModelFile;
use super::numbering::number;
use crate::audio::speech::LegSpeech;
use crate::audio::speech::SPEECH_RATE_HZ;
use crate::domain::Segment;
use crate::domain::transcript::Turn;

/// Its name among the models.
pub const DIARIZER: &str = "diarizer";
/// The longest call for this diarizer, because one hour of samples takes 230 MB of memory.
pub const LONGEST_MS: u64 = 3_600_000;
/// Upper limit of the speakers on one call.
const MOST_VOICES: u8 = 8;
/// The shortest audio for the models, in milliseconds.
const SHORTEST_MS: u64 = 100;

/// The crate pins, hashes and signs its model files, and verifies them at every load.
static MANIFEST: LazyLock<Manifest> = LazyLock::new(default_manifest);
static FILES: LazyLock<Vec<ModelFile>> = LazyLock::new(|| {
    let profile = MANIFEST.profile("balanced");
    let named = profile.into_iter().flat_map(|profile| [&profile.segmenter, &profile.embedder]);
    let file = |entry: &'static polyvoice::models::ModelEntry| ModelFile {
        name: &entry.filename,
        url: &entry.url,
        bytes: entry.size,
        sha256: Some(&entry.sha256),
    };
    named.filter_map(|id| MANIFEST.model(id)).map(file).collect()
});

/// The model that can be pulled.
#[must_use]
pub fn model() -> KnownModel {
    KnownModel {
        name: DIARIZER,
        description: "voices on one channel: pyannote segmentation 3.0 and WeSpeaker ResNet34, in 8 bits",
        languages: &[],
        licence: "MIT and Apache-2.0",
        megabytes: 8,
        files: &FILES,
        source: "https://github.com/ekhodzitsky/polyvoice",
        manifest: "{}",
    }
}

/// The loaded models.
pub struct Diarizer {
    pipeline: Pipeline,
}

impl std::fmt::Debug for Diarizer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Diarizer").finish_non_exhaustive()
    }
}

impl Diarizer {
    /// Loads the models from their folder. Refuses a file other than the pinned one.
    ///
    /// # Errors
    /// [`EngineError`] if a file is missing or wrong.
    pub fn load(dir: &Path) -> Result<Self, EngineError> {
        if !dir.is_dir() {
            return Err(EngineError::NoModel { name: DIARIZER.to_owned() });
        }
        let refused = |reason: String| EngineError::Architecture { path: dir.to_owned(), reason };
        let registry = ModelRegistry::with_local_dir(dir).map_err(|err| refused(err.to_string()))?;
        let built = Pipeline::builder().config(config(Profile::Balanced)).with_models_from(registry).build();
        Ok(Self { pipeline: built.map_err(|err| refused(err.to_string()))? })
    }

    /// Diarizes a leg. Speakers are numbered in the order of their first speech.
    ///
    /// # Errors
    /// [`EngineError`] if the spool cannot be read or the models fail.
    pub fn diarize(&self, leg: &LegSpeech) -> Result<Diarization, EngineError> {
        let failed = |reason: String| EngineError::Inference { reason };
        if leg.regions.is_empty() || leg.samples.duration_ms() < SHORTEST_MS {
            return Ok(assigned(&leg.regions, &[]));
        }
        let samples = leg.samples.read(0, leg.samples.duration_ms()).map_err(|err| failed(err.to_string()))?;
        let rate = SampleRate::new(SPEECH_RATE_HZ).ok_or_else(|| failed("16 kHz".to_owned()))?;
        let result = self.pipeline.run(&samples, rate).map_err(|err| failed(err.to_string()))?;
        Ok(assigned(&leg.regions, &result.turns))
    }
}

/// One recording at a time per pool, because concurrent jobs share the cores.
fn config(profile: Profile) -> PipelineConfig {
    let mut config = PipelineConfig::default();
    config.profile = profile;
    config.max_speakers = MOST_VOICES;
    config.embedder_pool_size = 1;
    config
}

/// Cuts our speech regions at the speaker changes that the models found. Speech of the models outside of our regions is
/// dropped. A region without a speaker gets the speaker nearest in time.
fn assigned(regions: &[Segment], turns: &[SpeakerTurn]) -> Diarization {
    let ms = |seconds: f64| (seconds.max(0.0) * 1000.0).round() as u64;
    let mut heard: Vec<(u32, Segment)> =
        turns.iter().map(|turn| (turn.speaker.0, Segment::new(ms(turn.time.start), ms(turn.time.end)))).collect();
    heard.sort_by_key(|(_, segment)| *segment);
    let mut numbers: Vec<u32> = Vec::new();
    let mut assigned = Vec::new();
    for region in regions {
        let inside = heard.iter().filter_map(|(speaker, segment)| Some((*speaker, region.overlap(segment)?)));
        let mut inside: Vec<(u32, Segment)> = inside.collect();
        if inside.is_empty() {
            let nearest = heard.iter().min_by_key(|(_, segment)| region.distance_ms(segment));
            inside.push((nearest.map_or(0, |(speaker, _)| *speaker), *region));
        }
        close_gaps(region, &mut inside);
        assigned.extend(
            inside.into_iter().map(|(speaker, segment)| Turn::new(number(&mut numbers, speaker) as u32, segment)),
        );
    }
    let count = numbers.len() as u32;
    // With more than two speakers, the diarization is too weak a base for roles.
    Diarization { count, turns: assigned, sure: count < 3 }
}

/// Assigns a gap to the previous speaker, and a gap at the start of a region to the next one.
fn close_gaps(region: &Segment, inside: &mut [(u32, Segment)]) {
    if let Some((_, first)) = inside.first_mut() {
        first.start_ms = region.start_ms;
    }
    // The segment with the latest end so far.
    let mut last = 0;
    for at in 1..inside.len() {
        let start_ms = inside[at].1.start_ms;
        inside[last].1.end_ms = inside[last].1.end_ms.max(start_ms.min(region.end_ms));
        if inside[at].1.end_ms >= inside[last].1.end_ms {
            last = at;
        }
    }
    if let Some((_, last)) = inside.get_mut(last) {
        last.end_ms = region.end_ms;
    }
}

#[cfg(test)]
mod tests {
    use polyvoice::types::SpeakerId;
    use polyvoice::types::TimeRange;

    use super::*;

    fn turn(speaker: u32, start: f64, end: f64) -> SpeakerTurn {
        SpeakerTurn::new(SpeakerId(speaker), TimeRange { start, end })
    }

    const fn region(start_ms: u64, end_ms: u64) -> Segment {
        Segment::new(start_ms, end_ms)
    }

    fn segments(voices: &Diarization) -> Vec<(u32, u64, u64)> {
        voices.turns.iter().map(|turn| (turn.speaker, turn.start_ms, turn.end_ms)).collect()
    }

    #[test]
    fn regions_are_cut_where_the_voice_changes_and_voices_are_numbered_as_heard() {
        let regions = [region(1000, 4000), region(6000, 7000)];
        let voices = assigned(&regions, &[turn(5, 0.9, 2.5), turn(2, 2.6, 4.2), turn(5, 5.9, 7.5)]);
        assert_eq!(voices.count, 2);
        assert_eq!(segments(&voices), [(0, 1000, 2600), (1, 2600, 4000), (0, 6000, 7000)]);
    }

    #[test]
    fn a_pause_after_an_interruption_belongs_to_whom_it_interrupted() {
        let turns = [turn(0, 0.0, 5.0), turn(1, 2.0, 3.0), turn(0, 6.0, 7.0)];
        let voices = assigned(&[region(0, 8000)], &turns);
        assert_eq!(segments(&voices), [(0, 0, 6000), (1, 2000, 3000), (0, 6000, 8000)]);
    }

    #[test]
    fn both_voices_keep_what_they_say_at_once() {
        let voices = assigned(&[region(0, 5000)], &[turn(0, 0.0, 5.0), turn(1, 2.0, 3.0)]);
        assert_eq!(segments(&voices), [(0, 0, 5000), (1, 2000, 3000)]);
    }

    #[test]
    fn speech_that_nobody_was_given_goes_to_the_nearest() {
        let voices = assigned(&[region(0, 500), region(9000, 9500)], &[turn(3, 0.0, 0.5), turn(4, 8.0, 8.9)]);
        assert_eq!(segments(&voices), [(0, 0, 500), (1, 9000, 9500)]);
        let nobody = assigned(&[region(0, 500)], &[]);
        assert_eq!((nobody.count, segments(&nobody)), (1, vec![(0, 0, 500)]));
        assert_eq!(assigned(&[], &[]).count, 0);
    }

    #[test]
    fn what_can_be_pulled_is_pinned() {
        let files = model().files;
        assert_eq!(files.len(), 2);
        for file in files {
            assert!(file.url.starts_with("https://") && file.url.ends_with(file.name), "{file:?}");
            assert!(file.sha256.is_some_and(|hash| hash.len() == 64) && file.bytes > Some(1_000_000), "{file:?}");
        }
    }

    #[test]
    fn a_folder_without_the_pinned_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Diarizer::load(&dir.path().join("none")), Err(EngineError::NoModel { .. })));
        for file in model().files {
            std::fs::write(dir.path().join(file.name), "not a model").unwrap();
        }
        let refused = Diarizer::load(dir.path()).unwrap_err();
        assert!(matches!(refused, EngineError::Architecture { .. }), "{refused}");
    }
}
