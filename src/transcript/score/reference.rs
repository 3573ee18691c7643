//! References: the true words, speakers and times of a recording, in common file formats.
//!
//! `NAME.json` (our own transcript document, or a subset of its members), `NAME.stm` or `NAME.ctm` (NIST Rich
//! Transcription evaluation plan, 2009) hold the words, `NAME.rttm` the speaker turns.

use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;

use crate::domain::DualChannels;
use crate::domain::Role;
use crate::domain::transcript::Speaker;
use crate::domain::transcript::Turn;
use crate::domain::transcript::Utterance;
use crate::transcript::numbering::number;

/// Why a reference cannot be used, with file, field and reason.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: {field}: {reason}", path.display())]
    Field { path: PathBuf, field: String, reason: String },
}

/// A word with its times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpokenWord {
    pub text: String,
    pub speaker: usize,
    pub start_ms: Option<u64>,
    pub end_ms: Option<u64>,
}

/// The content of one recording.
#[derive(Debug, Clone, Default)]
pub struct Reference {
    /// The role of each speaker; unknown if the reference names none.
    pub speakers: Vec<Role>,
    pub words: Vec<SpokenWord>,
    pub turns: Vec<Turn>,
    /// Whether the file has speakers; a CTM of one channel has none.
    pub diarized: bool,
    /// The recording, if its name differs from the reference's.
    pub file: Option<PathBuf>,
    pub language: Option<String>,
    pub agent_text: Option<String>,
    pub agent_id: Option<String>,
    pub dual_channels: Option<DualChannels>,
}

#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    speakers: Vec<Speaker>,
    #[serde(default)]
    utterances: Vec<Utterance>,
    #[serde(default)]
    turns: Vec<Turn>,
    file: Option<PathBuf>,
    language: Option<String>,
    agent_text: Option<String>,
    agent_id: Option<String>,
    dual_channels: Option<DualChannels>,
}

/// Reads `NAME.json`, `NAME.stm` or `NAME.ctm`, and a `NAME.rttm` beside it if it exists.
///
/// # Errors
/// [`ReferenceError`] with the file, the line or member, and the reason.
pub fn read(path: &Path) -> Result<Reference, ReferenceError> {
    let text = load(path)?;
    let mut reference = match path.extension().and_then(|extension| extension.to_str()) {
        Some("stm") => stm(path, &text)?,
        Some("ctm") => ctm(path, &text)?,
        _ => json(path, &text)?,
    };
    let beside = path.with_extension("rttm");
    if beside.is_file() {
        rttm(&beside, &load(&beside)?, &mut reference)?;
    }
    reference.turns.sort_by_key(|turn| (turn.start_ms, turn.speaker));
    Ok(reference)
}

fn load(path: &Path) -> Result<String, ReferenceError> {
    std::fs::read_to_string(path).map_err(|source| ReferenceError::Unreadable { path: path.to_owned(), source })
}

fn wrong(path: &Path, field: impl Into<String>, reason: impl Into<String>) -> ReferenceError {
    ReferenceError::Field { path: path.to_owned(), field: field.into(), reason: reason.into() }
}

fn json(path: &Path, text: &str) -> Result<Reference, ReferenceError> {
    let reader = &mut serde_json::Deserializer::from_str(text);
    let read: Result<Document, _> = serde_path_to_error::deserialize(reader);
    let document = read.map_err(|err| wrong(path, err.path().to_string(), err.inner().to_string()))?;
    let place = |id: u32, field: String| {
        let known = document.speakers.iter().position(|speaker| speaker.id == id);
        known.ok_or_else(|| wrong(path, field, format!("speaker {id} is not in `speakers`")))
    };
    let mut words = Vec::new();
    for (n, utterance) in document.utterances.iter().enumerate() {
        let speaker = place(utterance.speaker, format!("utterances[{n}].speaker"))?;
        let timed = utterance.words.iter().filter(|word| word.heard != Some(false));
        let mut said: Vec<SpokenWord> = timed
            .map(|word| SpokenWord { text: word.text.clone(), speaker, start_ms: word.start_ms, end_ms: word.end_ms })
            .collect();
        if utterance.words.is_empty() {
            let word = |text: &str| SpokenWord {
                text: text.to_owned(),
                speaker,
                start_ms: utterance.start_ms,
                end_ms: utterance.end_ms,
            };
            said = utterance.text.split_whitespace().map(word).collect();
        }
        // A word without an end ends at the start of the next one, and the last word at the end of its utterance.
        let mut next = utterance.end_ms;
        for word in said.iter_mut().rev() {
            word.end_ms = word.end_ms.or(next.filter(|end| Some(*end) > word.start_ms));
            next = word.start_ms.or(next);
        }
        words.extend(said);
    }
    let mut turns = Vec::new();
    for (n, turn) in document.turns.iter().enumerate() {
        let speaker = place(turn.speaker, format!("turns[{n}].speaker"))?;
        turns.push(Turn { speaker: speaker as u32, ..*turn });
    }
    if document.turns.is_empty() {
        let timed = |utterance: &Utterance| {
            let speaker = document.speakers.iter().position(|speaker| speaker.id == utterance.speaker)?;
            Some(Turn { speaker: speaker as u32, start_ms: utterance.start_ms?, end_ms: utterance.end_ms? })
        };
        turns = document.utterances.iter().filter_map(timed).collect();
    }
    Ok(Reference {
        speakers: document.speakers.iter().map(|speaker| speaker.role).collect(),
        words,
        turns,
        diarized: true,
        file: document.file,
        language: document.language,
        agent_text: document.agent_text,
        agent_id: document.agent_id,
        dual_channels: document.dual_channels,
    })
}

/// The fields of every line that is neither empty nor a comment, with its number.
fn lines(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let numbered = (1..).zip(text.lines());
    numbered
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with(";;"))
        .map(|(n, line)| (n, line.split_whitespace().collect()))
}

fn milliseconds(path: &Path, line: usize, name: &str, field: Option<&&str>) -> Result<u64, ReferenceError> {
    let at = format!("line {line}, {name}");
    let field = field.ok_or_else(|| wrong(path, &at, "is missing"))?;
    let seconds: f64 = field.parse().map_err(|_| wrong(path, &at, format!("`{field}` is not a number of seconds")))?;
    if !(0.0..1e9).contains(&seconds) {
        return Err(wrong(path, &at, format!("`{field}` is not a time in a recording")));
    }
    Ok((seconds * 1000.0).round() as u64)
}

/// The index of a named speaker, added at its first use. A name that is a role word sets the role.
fn named<'a>(names: &mut Vec<&'a str>, reference: &mut Reference, name: &'a str) -> usize {
    let speaker = number(names, name);
    if speaker == reference.speakers.len() {
        reference.speakers.push(Role::from_word(name).unwrap_or(Role::Unknown));
    }
    speaker
}

/// `file channel speaker start end [<labels>] words…`
fn stm(path: &Path, text: &str) -> Result<Reference, ReferenceError> {
    let mut reference = Reference { diarized: true, ..Reference::default() };
    let mut names = Vec::new();
    for (line, fields) in lines(text) {
        let start_ms = milliseconds(path, line, "start", fields.get(3))?;
        let end_ms = milliseconds(path, line, "end", fields.get(4))?;
        if end_ms < start_ms {
            return Err(wrong(path, format!("line {line}, end"), "lies before the start"));
        }
        let labels = fields.get(5).is_some_and(|field| field.starts_with('<') && field.ends_with('>'));
        let said = fields.get(5 + usize::from(labels)..).unwrap_or_default();
        if said == ["IGNORE_TIME_SEGMENT_IN_SCORING"] {
            continue;
        }
        let speaker = named(&mut names, &mut reference, fields[2]);
        reference.turns.push(Turn { speaker: speaker as u32, start_ms, end_ms });
        // The words are distributed over the segment, because the format has no word times.
        let each = (end_ms - start_ms) as f64 / said.len().max(1) as f64;
        let at = |n: usize| Some(start_ms + (n as f64 * each) as u64);
        let word = |(n, text): (usize, &&str)| SpokenWord {
            text: (*text).to_owned(),
            speaker,
            start_ms: at(n),
            end_ms: at(n + 1),
        };
        reference.words.extend(said.iter().enumerate().map(word));
    }
    Ok(reference)
}

/// `file channel start length word [confidence]`
fn ctm(path: &Path, text: &str) -> Result<Reference, ReferenceError> {
    let mut reference = Reference::default();
    let mut names = Vec::new();
    for (line, fields) in lines(text) {
        let start_ms = milliseconds(path, line, "start", fields.get(2))?;
        let length_ms = milliseconds(path, line, "length", fields.get(3))?;
        let Some(text) = fields.get(4) else { return Err(wrong(path, format!("line {line}, word"), "is missing")) };
        let speaker = named(&mut names, &mut reference, fields[1]);
        let (start, end) = (Some(start_ms), Some(start_ms + length_ms));
        reference.words.push(SpokenWord { text: (*text).to_owned(), speaker, start_ms: start, end_ms: end });
    }
    reference.diarized = names.len() > 1;
    Ok(reference)
}

/// `SPEAKER file channel start length <NA> <NA> name <NA> <NA>`. Replaces the turns of the words' file.
fn rttm(path: &Path, text: &str, reference: &mut Reference) -> Result<(), ReferenceError> {
    let mut turns = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for (line, fields) in lines(text).filter(|(_, fields)| fields[0] == "SPEAKER") {
        let start_ms = milliseconds(path, line, "start", fields.get(3))?;
        let length_ms = milliseconds(path, line, "length", fields.get(4))?;
        let Some(name) = fields.get(7) else { return Err(wrong(path, format!("line {line}, name"), "is missing")) };
        // Turns are compared only by time, so that a name needs to be unique only within this file.
        let speaker = number(&mut names, *name);
        turns.push(Turn { speaker: speaker as u32, start_ms, end_ms: start_ms + length_ms });
    }
    reference.turns = turns;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn fault(name: &str, text: &str) -> String {
        let (_dir, path) = written(name, text);
        let said = read(&path).unwrap_err().to_string();
        assert!(said.contains(name), "{said}");
        said
    }

    #[test]
    fn json_names_speakers_words_and_segments() {
        let text = r#"{"speakers":[{"id":4,"role":"agent"},{"id":7,"role":"caller"}],"agent_text":"hello",
            "dual_channels":"agent_left","utterances":[{"speaker":7,"start_ms":100,"end_ms":900,"text":"yes please",
            "words":[{"text":"yes","start_ms":100},{"text":"please","start_ms":400}]},{"speaker":4,"text":"good day"}]}"#;
        let (_dir, path) = written("a.json", text);
        let read = read(&path).unwrap();
        assert_eq!(read.speakers, [Role::Agent, Role::Caller]);
        let words: Vec<_> = read.words.iter().map(|w| (w.text.as_str(), w.speaker, w.start_ms, w.end_ms)).collect();
        let expected = [
            ("yes", 1, Some(100), Some(400)),
            ("please", 1, Some(400), Some(900)),
            ("good", 0, None, None),
            ("day", 0, None, None),
        ];
        assert_eq!(words, expected);
        assert_eq!(read.turns, [Turn { speaker: 1, start_ms: 100, end_ms: 900 }]);
        assert_eq!(read.dual_channels, Some(DualChannels::AgentLeft));
    }

    #[test]
    fn nist_files_are_read() {
        let text = ";; remark\ncall 1 Agent 0.5 1.5 <o,f0> how can I\ncall 1 bob 2.0 2.5 fine\ncall 1 x 3 4 IGNORE_TIME_SEGMENT_IN_SCORING\n";
        let (dir, path) = written("a.stm", text);
        std::fs::write(dir.path().join("a.rttm"), "SPEAKER call 1 0.500 0.900 <NA> <NA> agent <NA> <NA>\n").unwrap();
        let stm = read(&path).unwrap();
        assert_eq!((stm.speakers.as_slice(), stm.words.len()), (&[Role::Agent, Role::Unknown][..], 4));
        assert_eq!(stm.turns, [Turn { speaker: 0, start_ms: 500, end_ms: 1_400 }]);
        let (_dir, path) = written("b.ctm", "call A 0.10 0.20 hi 0.9\ncall B 0.50 0.20 you\n");
        let ctm = read(&path).unwrap();
        assert!(ctm.diarized);
        assert_eq!((ctm.words[1].speaker, ctm.words[1].start_ms, ctm.words[1].end_ms), (1, Some(500), Some(700)));
    }

    #[test]
    fn a_fault_names_file_field_and_reason() {
        assert!(fault("a.json", r#"{"utterances":[{"speaker":"x","text":"a"}]}"#).contains("utterances[0].speaker"));
        assert!(fault("a.json", r#"{"utterances":[{"speaker":3,"text":"a"}]}"#).contains("speaker 3 is not in"));
        assert!(fault("a.json", "{").contains("EOF"));
        assert!(fault("a.stm", "call 1 a zero 1 hi").contains("line 1, start: `zero`"));
        assert!(fault("a.stm", "call 1 a 2 1 hi").contains("before the start"));
        assert!(fault("a.ctm", "call 1 0.1 0.2").contains("line 1, word: is missing"));
        assert!(fault("a.ctm", "call 1 -3 0.2 hi").contains("is not a time"));
    }
}
