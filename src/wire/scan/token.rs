//! Bare words, as strict JSON writes them.

use std::borrow::Cow;

/// The length of the bare word at the start of `rest`.
pub(super) fn word_length(rest: &[u8]) -> usize {
    let ends =
        |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']');
    rest.iter().position(ends).unwrap_or(rest.len())
}

/// The strict form of a bare word. None for a word that is no value.
pub(super) fn word(word: &[u8]) -> Option<Cow<'_, [u8]>> {
    if matches!(word, b"true" | b"false" | b"null") {
        return Some(Cow::Borrowed(word));
    }
    let text = std::str::from_utf8(word).ok()?;
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let none = ["nan", "inf", "infinity"].into_iter().any(|name| unsigned.eq_ignore_ascii_case(name));
    if none || text == "undefined" {
        return Some(Cow::Borrowed(b"null"));
    }
    if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    if !number.is_finite() {
        return Some(Cow::Borrowed(b"null"));
    }
    Some(if is_exact(text) { Cow::Borrowed(word) } else { Cow::Owned(format!("\"{text}\"").into_bytes()) })
}

/// True when a number is valid JSON, and reading it loses no digit of a whole number.
fn is_exact(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(unsigned);
    let strict_whole = whole > 0 && (whole == 1 || !unsigned.starts_with('0'));
    let rest = &unsigned[whole..];
    if rest.is_empty() {
        return strict_whole && (text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok());
    }
    // A text that parses as a number is valid, except for the digits that JSON requires around the point.
    let fraction = rest.strip_prefix('.').map(digits);
    strict_whole && fraction != Some(0)
}
