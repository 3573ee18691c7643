//! Words from audio, by the model that is part of the program, on the sample calls: recognised, laid onto the
//! recording, cut off in mid-sentence. Truth is the sheet that stands beside the recordings.

use std::path::{Path, PathBuf};

use aftercall::audio::speech::{Speech, SpeechSink};
use aftercall::audio::{self, CancelFlag, NormalizeRequest, probe};
use aftercall::config::Config;
use aftercall::domain::transcript::{Utterance, Word};
use aftercall::domain::{ProviderTurn, Role, Segment, Transcript};
use aftercall::transcript::engine::{Recogniser, Samples, Search};
use aftercall::transcript::engines::Engines;
use aftercall::transcript::{
    LANGUAGE_UNKNOWN, NO_ENGINE, TEXT_MISFIT, fit, from_audio, from_turns, recognise_with, without_text,
};
use serde_json::Value;

const CALLS: [(&str, &str); 5] = [
    ("delivery", "delivery.mp3"),
    ("reminder", "reminder.mp3"),
    ("booking", "booking.mp4"),
    ("late", "late.mp3"),
    ("wordless", "wordless.mp3"),
];

pub fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo/recordings").join(name)
}

fn engine() -> Recogniser {
    Recogniser::sample(Search::Greedy, 1).unwrap()
}

/// The engines of a machine that has the sample model.
fn engines() -> Engines {
    Engines::new(&Config::from_toml("[transcript]\nmodel = \"sample\"").unwrap(), 1)
}

pub fn listen(input: &Path) -> Speech {
    let spool = tempfile::tempdir().unwrap();
    let settings = Config::from_toml("").unwrap().audio;
    let probe::Sniffed::Audio(container) = probe::sniff(input).unwrap() else { panic!("no audio") };
    let request =
        NormalizeRequest { input, container, settings: &settings, spool: spool.path(), wav: None, flac: None };
    let mut sink = SpeechSink::new(&settings, spool.path());
    audio::normalize(&request, &mut [&mut sink], &CancelFlag::default()).unwrap();
    sink.finish().unwrap()
}

/// A word as the sheet has it.
struct Spoken {
    text: String,
    start_ms: u64,
    end_ms: u64,
}

/// Every turn of a sample call: who, what, and its words.
fn sheet(name: &str) -> Vec<(Role, String, Vec<Spoken>)> {
    let text = std::fs::read_to_string(recording("sheet.json")).unwrap();
    let sheet: Value = serde_json::from_str(&text).unwrap();
    let turns = sheet[name]["turns"].as_array().unwrap();
    turns
        .iter()
        .map(|turn| {
            let words = turn["words"].as_array().unwrap().iter().map(|word| Spoken {
                text: word[0].as_str().unwrap().to_owned(),
                start_ms: word[1].as_u64().unwrap(),
                end_ms: word[2].as_u64().unwrap(),
            });
            let role = Role::from_word(turn["role"].as_str().unwrap()).unwrap();
            (role, turn["text"].as_str().unwrap().to_owned(), words.collect())
        })
        .collect()
}

/// What a platform without times gives.
fn untimed<'a>(turns: impl IntoIterator<Item = (Role, &'a str)>) -> Transcript {
    let turn = |(role, text): (Role, &str)| ProviderTurn {
        role,
        text: text.to_owned(),
        start_ms: None,
        end_ms: None,
        words: Vec::new(),
        approximate: false,
    };
    from_turns(&turns.into_iter().map(turn).collect::<Vec<_>>(), Some("en"))
}

fn plain(text: &str) -> Vec<String> {
    let kept: String = text.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " '".contains(*c)).collect();
    kept.split_whitespace().map(str::to_owned).collect()
}

/// Substitutions, insertions and deletions (Levenshtein).
fn errors(reference: &[String], heard: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (i, word) in reference.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in heard.iter().enumerate() {
            let best = (row[j] + 1).min(row[j + 1] + 1).min(diagonal + usize::from(word != other));
            diagonal = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[heard.len()]
}

fn words(transcript: &Transcript) -> impl Iterator<Item = &Word> {
    transcript.utterances.iter().flat_map(|utterance| &utterance.words)
}

#[test]
fn the_sample_calls_are_recognised() {
    let engine = engine();
    let (mut wrong, mut all) = (0, 0);
    for (name, file) in CALLS {
        let heard = recognise_with(&engine, &listen(&recording(file)), Some("en")).unwrap();
        let reference: Vec<String> = sheet(name).iter().flat_map(|(_, text, _)| plain(text)).collect();
        let said: Vec<String> = heard.utterances.iter().flat_map(|utterance| plain(&utterance.text)).collect();
        let (missed, whole) = (errors(&reference, &said), reference.len());
        println!("{name}: {missed} of {whole} words wrong: {said:?}");
        (wrong, all) = (wrong + missed, all + whole);
        assert_eq!(heard.engine.as_ref().and_then(|engine| engine.model.as_deref()), Some("sample"));
        assert!(heard.engine.unwrap().model_sha256.is_some_and(|hash| hash.len() == 64));
    }
    println!("WER {:.2} %", 100.0 * wrong as f64 / all as f64);
    assert!(wrong * 40 <= all, "{wrong} of {all}: more than 2.5 %");
}

#[test]
fn known_text_finds_its_places_and_stays_as_it_is() {
    let engine = engine();
    let mut apart: Vec<u64> = Vec::new();
    for (name, file) in CALLS {
        let truth = sheet(name);
        let given = untimed(truth.iter().map(|(role, text, _)| (*role, text.as_str())));
        let fitted = fit(&engine, &given, &listen(&recording(file))).unwrap();
        assert_eq!(fitted.reason, None, "{name}");
        let texts = |transcript: &Transcript| transcript.utterances.iter().map(|u| u.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&fitted), texts(&given), "{name}");
        let spoken: Vec<&Spoken> = truth.iter().flat_map(|(_, _, words)| words).collect();
        assert_eq!(words(&fitted).count(), spoken.len());
        for (word, truth) in words(&fitted).zip(spoken) {
            assert_eq!(word.text, truth.text);
            apart.push(word.start_ms.map_or(u64::MAX, |start| start.abs_diff(truth.start_ms)));
        }
    }
    apart.sort_unstable();
    let (median, p95) = (apart[apart.len() / 2], apart[apart.len() * 95 / 100]);
    println!("{} words: start off by {median} ms in the median, {p95} ms at p95", apart.len());
    assert!(median <= 60 && p95 <= 200, "{median} {p95}");
}

/// The call with this turn cut off after some of its words: the next speaker comes at once.
fn cut(speech: &Speech, truth: &[(Role, String, Vec<Spoken>)], turn: usize, kept: usize) -> tempfile::NamedTempFile {
    let leg = &speech.legs[0].samples;
    let at = truth[turn].2[kept - 1].end_ms;
    let on = truth[turn + 1].2[0].start_ms.saturating_sub(60);
    let mut samples = leg.read(0, at).unwrap();
    samples.extend(leg.read(on, leg.duration_ms()).unwrap());
    let file = tempfile::Builder::new().suffix(".wav").tempfile().unwrap();
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::create(file.path(), spec).unwrap();
    for sample in samples {
        wav.write_sample((sample * 32_767.0) as i16).unwrap();
    }
    wav.finalize().unwrap();
    file
}

#[test]
fn words_that_an_interrupted_turn_did_not_get_to_say_are_unheard() {
    let engine = engine();
    let (mut right, mut all) = (0, 0);
    for (name, file) in [CALLS[0], CALLS[2]] {
        let truth = sheet(name);
        let speech = listen(&recording(file));
        let given = untimed(truth.iter().map(|(role, text, _)| (*role, text.as_str())));
        let long = |turn: &usize| truth[*turn].0 == Role::Agent && truth[*turn].2.len() >= 6 && *turn + 1 < truth.len();
        for turn in (0..truth.len()).filter(long) {
            let kept = truth[turn].2.len() / 2;
            let fitted = fit(&engine, &given, &listen(cut(&speech, &truth, turn, kept).path())).unwrap();
            let Utterance { words, heard, .. } = &fitted.utterances[turn];
            right += words.iter().enumerate().filter(|(n, word)| word.heard == Some(*n < kept)).count();
            all += words.len();
            let marks: Vec<_> = words.iter().map(|word| (word.text.as_str(), word.heard)).collect();
            println!("{name} turn {turn}, {kept} words kept: {marks:?}");
            assert_eq!(*heard, Some(false), "{name} {turn}");
        }
    }
    println!("{right} of {all} words right");
    assert!(right * 100 >= all * 95, "{right} of {all}");
}

#[test]
fn the_text_of_another_call_is_not_forced_onto_this_one() {
    let other = sheet("booking");
    let given = untimed(other.iter().map(|(role, text, _)| (*role, text.as_str())));
    let fitted = fit(&engine(), &given, &listen(&recording("wordless.mp3"))).unwrap();
    assert_eq!(fitted.reason.as_deref(), Some(TEXT_MISFIT));
    assert_eq!(fitted.utterances, given.utterances);
    assert!(fitted.engine.is_none());
}

#[test]
fn a_text_with_redaction_tags_is_laid_down_and_never_replaced() {
    let truth = sheet("wordless");
    let hidden = |text: &str| text.replace("ticket", "[PRODUCT_1]").replace("six", "[NUMBER_1]");
    let texts: Vec<(Role, String)> = truth.iter().map(|(role, text, _)| (*role, hidden(text))).collect();
    let given = untimed(texts.iter().map(|(role, text)| (*role, text.as_str())));
    assert!(given.redacted);
    let made = from_audio(&engines(), &given, &listen(&recording("wordless.mp3")), Some("en")).unwrap();
    let said: Vec<&str> = made.utterances.iter().map(|utterance| utterance.text.as_str()).collect();
    assert_eq!(said, texts.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>());
    assert!(made.redacted && made.utterances.iter().all(|utterance| utterance.start_ms.is_some()));
}

#[test]
fn an_empty_text_is_none_and_an_unknown_language_makes_no_words() {
    let speech = listen(&recording("wordless.mp3"));
    let empty = untimed([(Role::Agent, ""), (Role::Caller, " \n ")]);
    assert!(empty.utterances.is_empty());
    for given in [empty, without_text(None)] {
        let heard = |language| from_audio(&engines(), &given, &speech, language).unwrap();
        for (language, reason) in [(None, LANGUAGE_UNKNOWN), (Some("yo"), NO_ENGINE), (Some("tlh-Latn"), NO_ENGINE)] {
            let made = heard(language);
            assert_eq!((made.utterances.len(), made.reason.as_deref()), (0, Some(reason)), "{language:?}");
        }
        let words: usize = heard(Some("en-NG")).utterances.iter().map(|utterance| utterance.words.len()).sum();
        assert!(words >= 20, "{words} words of the model's own language");
    }
}

/// Counts what is read at once of a leg that never falls silent.
struct Monologue {
    longest_ms: u64,
}

impl Samples for Monologue {
    fn read(&mut self, start_ms: u64, end_ms: u64) -> std::io::Result<Vec<f32>> {
        self.longest_ms = self.longest_ms.max(end_ms - start_ms);
        Ok(vec![0.1; ((end_ms - start_ms) * 16) as usize])
    }
}

#[test]
fn forty_minutes_without_a_pause_are_heard_in_segments_of_30_s() {
    const LENGTH: u64 = 40 * 60_000;
    let mut leg = Monologue { longest_ms: 0 };
    let planned = engine().segments(&mut leg, &[Segment::new(0, LENGTH)], LENGTH).unwrap();
    assert_eq!((planned[0].start_ms, planned.last().unwrap().end_ms), (0, LENGTH));
    assert!(planned.windows(2).all(|pair| pair[0].end_ms == pair[1].start_ms), "nothing is left out or heard twice");
    assert!(planned.iter().all(|segment| segment.duration_ms() <= 30_000) && leg.longest_ms <= 30_000);
    assert!(planned.len() <= 2 * LENGTH as usize / 30_000);
}
