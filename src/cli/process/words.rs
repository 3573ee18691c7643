//! The transcript files of a recording. A transcript goes in. JSON, text, captions and turns come out. For a transcript
//! without words the reason and a helpful command come out, too.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::files::Files;
use crate::cli::out;
use crate::domain::Transcript;
use crate::transcript;
use crate::transcript::{Form, TranscriptError};

/// The result for a recording's words.
#[derive(Debug)]
pub(super) struct Came {
    count: usize,
    /// The reason for a transcript without words.
    missing: Option<Missing>,
    /// The reason for missing captions.
    no_captions: Option<String>,
}

/// The reason for a transcript without words.
#[derive(Debug)]
struct Missing {
    reason: String,
    /// The reason as a phrase, for the table and for stderr.
    why: &'static str,
    /// Advice with the command that brings words. `None` where no command helps.
    help: Option<&'static str>,
}

const PULL: &str = "`aftercall models list` shows the models, `aftercall models pull NAME` fetches one, and `--language en` \
                    (or the language spoken) lets it speak; `--transcript FILE` labels a text that you have. An [[engine]] of the \
                    configuration is asked by `aftercall work`, not here.";
const LANGUAGE: &str = "`--language en` (or the language spoken), or `--model NAME`, lets the installed model speak; \
                        `--transcript FILE` labels a text that you have.";

impl Missing {
    fn of(transcript: &Transcript) -> Option<Self> {
        if !transcript.utterances.is_empty() {
            return None;
        }
        let reason = transcript.reason.clone().unwrap_or_else(|| transcript::NO_ENGINE.to_owned());
        let (why, help) = match reason.as_str() {
            transcript::NO_SPEECH => ("nobody speaks", None),
            transcript::LANGUAGE_UNKNOWN => ("the language is not known", Some(LANGUAGE)),
            _ => ("no speech-to-text model", Some(PULL)),
        };
        Some(Self { reason, why, help })
    }

    fn sentence(&self) -> String {
        let Self { reason, why, help } = self;
        format!("no words ({reason}): {why}{}{}", if help.is_some() { "; " } else { "" }, help.unwrap_or_default())
    }
}

impl Came {
    /// The result as a table cell.
    pub(super) fn briefly(&self) -> String {
        match &self.missing {
            None => self.count.to_string(),
            Some(Missing { why, help: Some(help), .. }) => format!("none: {why}; {}", first_command(help)),
            Some(Missing { why, .. }) => format!("none: {why}"),
        }
    }

    pub(super) fn json(&self) -> Value {
        let missing = self.missing.as_ref();
        json!({
            "count": self.count,
            "reason": missing.map(|missing| &missing.reason),
            "help": missing.map(Missing::sentence),
            "no_captions": self.no_captions,
        })
    }
}

/// The first command in backticks.
fn first_command(help: &str) -> &str {
    help.split('`').nth(1).unwrap_or(help)
}

/// The transcript, with advice where it has no words.
#[derive(serde::Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    transcript: &'a Transcript,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

/// Writes the transcript files. Captions are written only where the transcript can be rendered as captions.
pub(super) fn write(written: &mut Files, name: &str, transcript: &Transcript) -> Result<Came> {
    let missing = Missing::of(transcript);
    let help = missing.as_ref().map(Missing::sentence);
    written.json("transcript.json", &Document { transcript, help })?;
    let text = transcript::text(transcript).unwrap_or_default();
    written.bytes("transcript.txt", "text/plain; charset=utf-8", text.as_bytes())?;
    let no_captions = match transcript::render(transcript, Form::Vtt) {
        Ok(captions) => {
            written.bytes("transcript.vtt", "text/vtt", captions.as_bytes())?;
            None
        }
        Err(TranscriptError::Omitted { reason, .. }) => Some(transcript.reason.clone().unwrap_or(reason)),
        Err(err) => return Err(err.into()),
    };
    let recording = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or("recording");
    written.bytes("turns.rttm", "text/plain; charset=utf-8", transcript::rttm(transcript, recording).as_bytes())?;
    let count = text_words(transcript);
    Ok(Came { count, missing, no_captions })
}

fn text_words(transcript: &Transcript) -> usize {
    transcript.utterances.iter().map(|utterance| utterance.text.split_whitespace().count()).sum()
}

/// Prints one note on stderr for each kind of missing words or captions.
pub(super) fn say<'a>(all: impl Iterator<Item = (&'a str, &'a Came)>) {
    let mut said: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, came) in all {
        let what = match (&came.missing, &came.no_captions) {
            (Some(missing), _) => missing.sentence(),
            (None, Some(reason)) => format!("no captions ({reason}): not every word has its time in the recording"),
            (None, None) => continue,
        };
        said.entry(what).or_default().push(name);
    }
    for (what, names) in said {
        match names.as_slice() {
            [one] => out::note(&format!("{one}: {what}")),
            many => out::note(&format!("{} recordings: {what}", many.len())),
        }
    }
}
