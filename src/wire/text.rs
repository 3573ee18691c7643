//! Reads platforms' transcripts into turns and writes them back.
//!
//! The labelled form has one turn per line, `[Agent]: text`. Text without any label is kept unchanged under
//! [`Role::Unknown`], because a guessed speaker is worse than none.

use serde_json::Value;

use super::fields::{as_number, list, member, seconds_as_ms, text};
use crate::domain::spoken::folded;
use crate::domain::{ProviderTurn, ProviderWord, Role};

/// The meaning of a platform's role word.
enum Spoken {
    By(Role),
    /// Tool calls, system prompts and key presses. They were not spoken.
    ByNobody,
}

fn role(word: &str) -> Option<Spoken> {
    match word.trim().to_ascii_lowercase().replace(['-', ' '], "_").as_str() {
        "system" | "developer" | "tool" | "function" | "node_transition" | "dtmf" | "sms" | "injected" => {
            Some(Spoken::ByNobody)
        }
        tool if tool.starts_with("tool_") || tool.starts_with("function_") => Some(Spoken::ByNobody),
        _ => Role::from_word(word).filter(|role| *role != Role::Unknown).map(Spoken::By),
    }
}

fn turn(role: Role, text: &str) -> ProviderTurn {
    ProviderTurn { role, text: folded(text), start_ms: None, end_ms: None, words: Vec::new(), approximate: false }
}

/// `[Agent]: text`, `Agent: text`: the role and the text.
fn labelled(line: &str) -> Option<(Role, &str)> {
    let (head, rest) = line.trim_start().split_once(':')?;
    let head = head.trim_end();
    let bracketed = head.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    let word = bracketed.unwrap_or(head);
    // A line with the label `System` is an announcement in the audio. A system message in a list of roles is not.
    if word.eq_ignore_ascii_case("system") {
        return Some((Role::System, rest));
    }
    match role(word)? {
        Spoken::By(role) => Some((role, rest)),
        Spoken::ByNobody => None,
    }
}

/// Reads a transcript in one text. A line without a label continues the turn before it.
#[must_use]
pub fn read(text: &str) -> Vec<ProviderTurn> {
    let mut turns: Vec<(Role, String)> = Vec::new();
    for line in text.lines() {
        match (labelled(line), turns.last_mut()) {
            (Some((role, rest)), Some((last, said))) if *last == role => said.extend(["\n", rest]),
            (Some((role, rest)), _) => turns.push((role, rest.to_owned())),
            (None, Some((_, said))) => said.extend(["\n", line]),
            (None, None) => turns.push((Role::Unknown, line.to_owned())),
        }
    }
    joined(turns.iter().map(|(role, said)| settled(*role, said)).filter(|turn| !turn.text.is_empty()))
}

/// A label that was broken over two lines becomes visible once the turn is on one line.
fn settled(role: Role, said: &str) -> ProviderTurn {
    let read = turn(role, said);
    match labelled(&read.text).filter(|_| role == Role::Unknown) {
        Some((role, rest)) => settled(role, rest),
        None => read,
    }
}

/// Writes turns in the labelled form. Turns of unknown speakers have no label. There is no newline at the end.
#[must_use]
pub fn write(turns: &[ProviderTurn]) -> String {
    let mut out = String::new();
    let mut before = None;
    for turn in turns {
        let joins_unlabelled = turn.role == Role::Unknown && before == Some(Role::Unknown);
        if before.is_some() {
            out.push_str(if joins_unlabelled { " " } else { "\n" });
        }
        if let Some(label) = turn.role.label() {
            out.extend(["[", label, "]: "]);
        }
        out.push_str(&turn.text);
        before = Some(turn.role);
    }
    out
}

/// Reads a transcript in a list: turns with roles (`content` or `text`, words with seconds), or plain texts.
pub(super) fn read_list(items: &[Value]) -> Vec<ProviderTurn> {
    read_timed_list(items, |_| None)
}

/// As [`read_list`]. A turn without a time of its own gets the approximate start of `start`.
pub(super) fn read_timed_list(items: &[Value], start: impl Fn(&Value) -> Option<u64>) -> Vec<ProviderTurn> {
    let plain: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
    if !plain.is_empty() && plain.iter().any(|line| labelled(line).is_some()) {
        return read(&plain.join("\n"));
    }
    joined(items.iter().filter_map(|item| {
        let mut turn = read_item(item)?;
        if turn.start_ms.is_none() {
            turn.start_ms = start(item);
            turn.approximate = turn.start_ms.is_some();
        }
        Some(turn)
    }))
}

fn read_item(item: &Value) -> Option<ProviderTurn> {
    if let Some(text) = item.as_str() {
        return Some(turn(Role::Unknown, text)).filter(|turn| !turn.text.is_empty());
    }
    let role = match text(item, &["role"]).as_deref().and_then(role) {
        Some(Spoken::By(role)) => role,
        Some(Spoken::ByNobody) => return None,
        None => Role::Unknown,
    };
    let said = member(item, &["content"]).and_then(Value::as_str).or_else(|| item.get("text")?.as_str())?;
    let mut turn = turn(role, said);
    turn.words = list(item, &["words"]).map(|words| words.iter().filter_map(read_word).collect()).unwrap_or_default();
    let given = |key| member(item, &[key]).and_then(as_number).and_then(seconds_as_ms);
    turn.start_ms = turn.words.first().and_then(|word| word.start_ms).or_else(|| given("start"));
    turn.end_ms = turn.words.last().and_then(|word| word.end_ms).or_else(|| given("end"));
    Some(turn).filter(|turn| !turn.text.is_empty())
}

fn read_word(word: &Value) -> Option<ProviderWord> {
    let at = |key| member(word, &[key]).and_then(as_number).and_then(seconds_as_ms);
    let text = text(word, &["word"]).or_else(|| text(word, &["text"]))?;
    Some(ProviderWord { text, start_ms: at("start"), end_ms: at("end") })
}

/// Merges consecutive turns of the same known speaker. Turns of unknown speakers are not merged, because they may be
/// different people.
pub(super) fn joined(turns: impl IntoIterator<Item = ProviderTurn>) -> Vec<ProviderTurn> {
    let mut out: Vec<ProviderTurn> = Vec::new();
    for turn in turns {
        match out.last_mut() {
            Some(last) if last.role == turn.role && turn.role != Role::Unknown => {
                last.text.extend([" ", &turn.text]);
                // Words for only one part of a merged turn would look like the whole turn.
                if last.words.is_empty() || turn.words.is_empty() {
                    last.words.clear();
                } else {
                    last.words.extend(turn.words);
                }
                last.end_ms = turn.end_ms;
                last.approximate |= turn.approximate;
            }
            _ => out.push(turn),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn short(turns: &[ProviderTurn]) -> Vec<(Role, &str)> {
        turns.iter().map(|turn| (turn.role, turn.text.as_str())).collect()
    }

    #[test]
    fn labels_continuations_and_repeats() {
        let text = "[Agent]: Hello\nthere\r\n\nAgent : again\nUser: hi\n[caller]:\nyes: exactly\nTransfer: desk";
        let expected =
            [(Role::Agent, "Hello there again"), (Role::Caller, "hi yes: exactly"), (Role::Transfer, "desk")];
        assert_eq!(short(&read(text)), expected);
    }

    #[test]
    fn text_without_labels_stays_word_for_word() {
        let text = "Note: we close at 5: sharp.\nI'm  here…";
        assert_eq!(short(&read(text)), [(Role::Unknown, "Note: we close at 5: sharp. I'm  here…")]);
        assert!(read(" \n ").is_empty());
    }

    #[test]
    fn text_before_the_first_label_is_nobodys() {
        let turns = read("Recording started\nAgent: hi");
        assert_eq!(short(&turns), [(Role::Unknown, "Recording started"), (Role::Agent, "hi")]);
    }

    #[test]
    fn tools_and_system_messages_are_dropped_and_speakers_joined() {
        let items = json!([
            {"role": "system", "content": "You are a helpful agent"},
            {"role": "agent", "content": "Let me\nlook.", "words": [{"word": "Let", "start": 0.1, "end": 0.25}]},
            {"role": "tool_call_invocation", "content": "{}"},
            {"role": "assistant", "text": "Found it."},
            {"role": "martian", "content": "?"},
            {"role": "user"},
            7
        ]);
        let turns = read_list(items.as_array().unwrap());
        assert_eq!(short(&turns), [(Role::Agent, "Let me look. Found it."), (Role::Unknown, "?")]);
        assert!(turns[0].words.is_empty(), "half of the words would pass for all");
        assert_eq!(turns[0].start_ms, Some(100));
    }

    #[test]
    fn lists_of_texts_are_read_by_their_labels_if_they_have_any() {
        assert_eq!(
            short(&read_list(&[json!("agent: Hi"), json!("user: Yes")])),
            [(Role::Agent, "Hi"), (Role::Caller, "Yes")]
        );
        let plain = read_list(&[json!("Hello"), json!("I need help")]);
        assert_eq!(short(&plain), [(Role::Unknown, "Hello"), (Role::Unknown, "I need help")]);
        assert_eq!(write(&plain), "Hello I need help");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_and_what_is_written_reads_the_same(text in "(\\[?(Agent|User|X)\\]?: ?|[a-z:\\[\\] \n])*") {
            let turns = read(&text);
            let again = read(&write(&turns));
            proptest::prop_assert_eq!(short(&again), short(&turns));
        }
    }
}
