//! Spoken text: line breaks and redaction marks.

use super::transcript::Role;

/// The text on one line. Every line break becomes one space, together with the white space around it. Other characters
/// do not change.
#[must_use]
pub fn folded(text: &str) -> String {
    let parts: Vec<&str> = text.split(is_line_break).map(str::trim).filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

/// True for every character that a reader may treat as the end of a line (classes BK, CR, LF and NL of Unicode line
/// breaking, UAX #14).
#[must_use]
pub const fn is_line_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// First words of bracketed capitals that describe a sound and redact nothing.
const SOUNDS: &str = "APPLAUSE BEEP BLANK COUGH CROSSTALK INAUDIBLE LAUGHTER MUSIC NOISE PAUSE SILENCE SPEAKER SPEECH \
                      UNINTELLIGIBLE";

/// True when a platform removed something from this text: `[ACCOUNTNUMBER_1]`, `<SSN>`, `[redacted]`, `****`. Such a
/// text is never transcribed again from the audio, because the audio still contains what was removed. So an uncertain
/// mark counts as a redaction.
#[must_use]
pub fn has_redaction_tags(text: &str) -> bool {
    text.contains("***") || bracketed(text, '[', ']') || bracketed(text, '<', '>')
}

fn bracketed(text: &str, open: char, close: char) -> bool {
    text.split(open).skip(1).any(|rest| rest.split_once(close).is_some_and(|(tag, _)| is_redaction(tag)))
}

fn is_redaction(tag: &str) -> bool {
    if tag.eq_ignore_ascii_case("redacted") {
        return true;
    }
    let in_capitals =
        tag.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b' '));
    let letters = tag.bytes().filter(u8::is_ascii_uppercase).count();
    let first_word = tag.split(['_', '-', ' ']).next().unwrap_or_default();
    let names_a_sound = SOUNDS.split(' ').any(|sound| sound == first_word);
    in_capitals && letters >= 2 && !names_a_sound && Role::from_word(first_word).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaks_become_one_space_and_nothing_else_changes() {
        assert_eq!(folded(" a  b \r\n\n c\u{2028}d "), "a  b c d");
        assert_eq!(folded("\n"), "");
    }

    #[test]
    fn marks_of_removed_text_are_seen() {
        for text in [
            "my account is [ACCOUNTNUMBER_1] thanks",
            "[SSN]",
            "it is [CREDIT_CARD_NUMBER_12].",
            "<PHONE-NUMBER>",
            "[redacted]",
            "[Redacted]",
            "call **** now",
            "[open and [NAME_1]",
            "[MUSIC] then [EMAIL_2]",
        ] {
            assert!(has_redaction_tags(text), "{text}");
        }
    }

    #[test]
    fn sounds_and_plain_brackets_are_not() {
        for text in [
            "",
            "hello",
            "[LAUGHTER]",
            "[BLANK_AUDIO]",
            "[Agent]: hi",
            "[AGENT]: hi",
            "[TRANSFER_TARGET]",
            "[SPEAKER_1]",
            "[1]",
            "[A]",
            "[",
            "a [b] c",
            "**bold**",
            "x < y > z",
        ] {
            assert!(!has_redaction_tags(text), "{text}");
        }
    }
}
