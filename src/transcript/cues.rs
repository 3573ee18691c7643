//! Parser for WebVTT (W3C Recommendation) and SubRip, both our own files and those of other tools. Cues become turns
//! with their times. The speaker comes from a voice span (`<v Agent>`) or a label (`[Agent]:`). Styles, notes and
//! positions are dropped.

use crate::domain::ProviderTurn;
use crate::domain::Transcript;
use crate::domain::spoken::folded;

use super::numbering::number;
use super::provider::from_voices;
use super::text::opening;
use super::text::turn;
use super::voice::Voice;

/// The separator between the times of a cue.
const ARROW: &str = "-->";
/// WebVTT blocks that are not cues.
const NO_CUES: [&str; 3] = ["NOTE", "STYLE", "REGION"];
/// The tags of SubRip files. Any other `<` is text.
const SRT_TAGS: [&str; 5] = ["b", "i", "u", "s", "font"];

/// Reads captions. `None` if the text is not in a caption format.
#[must_use]
pub(super) fn parse(text: &str, language: Option<&str>) -> Option<Transcript> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let first = text.lines().next().unwrap_or_default();
    let signed = first.strip_prefix("WEBVTT").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
    let cues = if signed { vtt(&text) } else { srt(&text)? };
    Some(from_voices(spoken(cues), language))
}

/// The speaker of a cue.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Speaker {
    Known(Voice),
    /// A name without a role. Each name is a different speaker.
    Named(String),
}

/// Start and end in milliseconds.
type Times = (Option<u64>, Option<u64>);

/// Text with its times and speaker.
#[derive(Debug)]
struct Said {
    times: Times,
    speaker: Speaker,
    text: String,
}

/// The turns of all cues. Names without a role become numbers.
fn spoken(said: Vec<Said>) -> Vec<(Voice, ProviderTurn)> {
    let taken = said.iter().filter_map(|said| match said.speaker {
        Speaker::Known(Voice::Numbered(number)) => Some(number),
        _ => None,
    });
    let first = taken.max().map_or(1, |most| most.saturating_add(1));
    let mut names: Vec<String> = Vec::new();
    let turn = |Said { times, speaker, text }: Said| {
        let voice = match speaker {
            Speaker::Known(voice) => voice,
            Speaker::Named(name) => Voice::Numbered(first.saturating_add(number(&mut names, name) as u32)),
        };
        (voice, ProviderTurn { start_ms: times.0, end_ms: times.1, ..turn(&folded(&text)) })
    };
    said.into_iter().map(turn).collect()
}

/// Reads WebVTT. A block without times is not a cue (section 6.1 of the Recommendation).
fn vtt(text: &str) -> Vec<Said> {
    let mut said = Vec::new();
    let mut blocks = blocks(text);
    // Skips the header block with the signature.
    if blocks.first().is_some_and(|header| !header.iter().any(|line| line.contains(ARROW))) {
        blocks.remove(0);
    }
    for block in blocks {
        let kind = block[0].split([' ', '\t']).next().unwrap_or_default();
        if NO_CUES.contains(&kind) && !block[0].contains(ARROW) {
            continue;
        }
        let Some(at) = block.iter().position(|line| line.contains(ARROW)) else { continue };
        said.extend(voices(&block[at + 1..].join("\n"), times(block[at]).unwrap_or_default()));
    }
    said
}

/// Groups of lines between blank lines.
fn blocks(text: &str) -> Vec<Vec<&str>> {
    let mut all: Vec<Vec<&str>> = vec![Vec::new()];
    for line in text.lines() {
        match all.last_mut() {
            _ if line.trim().is_empty() => all.push(Vec::new()),
            Some(open) => open.push(line),
            None => {}
        }
    }
    all.retain(|block| !block.is_empty());
    all
}

/// Splits a cue's text into its voice spans (section 3.3). A span ends at its end tag or at the next span.
fn voices(text: &str, times: Times) -> Vec<Said> {
    let mut said: Vec<Said> = Vec::new();
    let mut speaker = None;
    let mut open = String::new();
    let mut rest = text;
    let mut close = |speaker: &Option<Speaker>, open: &mut String| {
        let text = entities(&std::mem::take(open));
        match speaker {
            Some(speaker) if !text.trim().is_empty() => said.push(Said { times, speaker: speaker.clone(), text }),
            Some(_) => {}
            None => said.extend(labelled(&text, times)),
        }
    };
    while let Some((before, tag)) = rest.split_once('<') {
        open.push_str(before);
        // A `<` without `>` is text.
        let Some((tag, after)) = tag.split_once('>') else {
            open.push('<');
            rest = tag;
            break;
        };
        rest = after;
        let (name, annotation) = tag.split_once([' ', '\t', '\n']).unwrap_or((tag, ""));
        match name.split('.').next().unwrap_or_default() {
            "v" => {
                // A dash before the first voice span is not text.
                if speaker.is_none() && !open.contains(char::is_alphanumeric) {
                    open.clear();
                }
                close(&speaker, &mut open);
                let name = entities(annotation.trim());
                let named =
                    (!name.is_empty()).then(|| Voice::from_label(&name).map_or(Speaker::Named(name), Speaker::Known));
                speaker = named;
            }
            "/v" => {
                close(&speaker, &mut open);
                speaker = None;
            }
            // Other tags contain only style or timestamps.
            _ => {}
        }
    }
    open.push_str(rest);
    close(&speaker, &mut open);
    said
}

/// Decodes the named character references of WebVTT (section 3.3), and the numeric ones of other tools.
fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, entity)) = rest.split_once('&') {
        out.push_str(before);
        let known = entity.split_once(';').and_then(|(name, after)| Some((character(name)?, after)));
        if let Some((character, after)) = known {
            out.push_str(character.to_string().as_str());
            rest = after;
        } else {
            out.push('&');
            rest = entity;
        }
    }
    out.push_str(rest);
    out
}

fn character(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "nbsp" => ' ',
        "quot" => '"',
        "apos" => '\'',
        "lrm" => '\u{200e}',
        "rlm" => '\u{200f}',
        _ => {
            let number = name.strip_prefix('#')?;
            let hex = number.strip_prefix(['x', 'X']).map(|hex| u32::from_str_radix(hex, 16));
            char::from_u32(hex.unwrap_or_else(|| number.parse()).ok()?)?
        }
    })
}

/// Reads SubRip, which has no signature. `None` if the text does not begin with a cue.
fn srt(text: &str) -> Option<Vec<Said>> {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |at: usize| {
        let numbered = lines.get(at).is_some_and(|line| line.trim().parse::<u64>().is_ok());
        let timed = |at: usize| lines.get(at).and_then(|line| times(line));
        timed(at).map(|times| (1, times)).or_else(|| Some((2, timed(at + 1).filter(|_| numbered)?)))
    };
    let first = lines.iter().position(|line| !line.trim().is_empty())?;
    begins(first)?;
    let mut cues: Vec<(Times, Vec<&str>)> = Vec::new();
    let (mut at, mut after_blank) = (first, true);
    while at < lines.len() {
        // A blank line ends a cue only before the next cue, because some tools write blank lines within a cue.
        if let Some((taken, times)) = begins(at).filter(|_| after_blank) {
            cues.push((times, Vec::new()));
            at += taken;
            after_blank = false;
        } else {
            after_blank = lines[at].trim().is_empty();
            if let Some((_, text)) = cues.last_mut() {
                text.push(lines[at]);
            }
            at += 1;
        }
    }
    Some(cues.into_iter().flat_map(|(times, text)| labelled(&untagged(&text.join("\n")), times)).collect())
}

/// Removes the tags of SubRip (`<i>`, `{\an8}`).
fn untagged(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['<', '{']) {
        out.push_str(&rest[..at]);
        let tag = &rest[at..];
        let end = if tag.starts_with('<') { tag.find('>') } else { tag.find('}') };
        let inner = end.map(|end| &tag[1..end]);
        let is_tag = inner.is_some_and(|inner| {
            let name = inner.trim_start_matches('/').split([' ', '\t', '.']).next().unwrap_or_default();
            if tag.starts_with('<') {
                SRT_TAGS.iter().any(|known| known.eq_ignore_ascii_case(name))
            } else {
                inner.starts_with('\\')
            }
        });
        let taken = if is_tag { end.unwrap_or(0) + 1 } else { 1 };
        if !is_tag {
            out.push_str(&tag[..1]);
        }
        rest = &tag[taken..];
    }
    out.push_str(rest);
    out
}

/// Splits a cue into labelled lines. A line without a label continues the previous one.
fn labelled(text: &str, times: Times) -> Vec<Said> {
    let mut said: Vec<Said> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match (opening(line), said.last_mut()) {
            (Some((voice, words)), _) => {
                said.push(Said { times, speaker: Speaker::Known(voice), text: words.to_owned() });
            }
            (None, Some(open)) => {
                open.text.push('\n');
                open.text.push_str(line);
            }
            (None, None) => {
                said.push(Said { times, speaker: Speaker::Known(Voice::Unlabelled), text: line.to_owned() });
            }
        }
    }
    said
}

/// The times of `00:01.000 --> 00:02.000 line:0`. `None` without two valid times.
fn times(line: &str) -> Option<Times> {
    let (start, end) = line.split_once(ARROW)?;
    let end = end.trim_start().split([' ', '\t']).next().unwrap_or_default();
    Some((Some(moment(start.trim())?), Some(moment(end)?)))
}

/// Milliseconds of `hh:mm:ss.mmm`. Hours are optional, and the fraction follows a point or a comma.
fn moment(text: &str) -> Option<u64> {
    let number = |digits: &str| {
        let whole = !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit());
        whole.then(|| digits.parse::<u64>().ok()).flatten()
    };
    let (clock, fraction) = text.split_once(['.', ',']).unwrap_or((text, "0"));
    number(fraction)?;
    // The fraction may have any number of digits.
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    let parts: Vec<&str> = clock.split(':').collect();
    let (hours, minutes, seconds) = match parts.as_slice() {
        [hours, minutes, seconds] => (number(hours)?, number(minutes)?, number(seconds)?),
        [minutes, seconds] => (0, number(minutes)?, number(seconds)?),
        _ => return None,
    };
    Some((hours * 3600 + minutes * 60 + seconds) * 1000 + number(&thousandths)?)
}

#[cfg(test)]
mod tests;
