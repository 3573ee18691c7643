//! Strings and bare words, converted to strict JSON.

use std::borrow::Cow;

const REPLACEMENT: &str = "\u{fffd}";

/// Writes the string whose opening quote is before `at`. Returns the position after its closing quote, or None where
/// there is none.
pub(super) fn string(body: &[u8], mut at: usize, mut put: impl FnMut(&[u8])) -> Option<usize> {
    put(b"\"");
    loop {
        let rest = body.get(at..)?;
        let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))?;
        put(String::from_utf8_lossy(rest.get(..plain)?).as_bytes());
        at += plain;
        match body.get(at)? {
            b'"' => {
                put(b"\"");
                return Some(at + 1);
            }
            b'\\' => {
                let (length, text) = escape(body.get(at..)?);
                put(&text);
                at += length;
            }
            control => {
                put(match control {
                    b'\t' => b"\\t",
                    b'\n' => b"\\n",
                    b'\r' => b"\\r",
                    _ => REPLACEMENT.as_bytes(),
                });
                at += 1;
            }
        }
    }
}

/// The escape at the start of `rest`: its length in bytes, and its strict form.
fn escape(rest: &[u8]) -> (usize, Cow<'_, [u8]>) {
    let bad = |length| (length, Cow::Borrowed(REPLACEMENT.as_bytes()));
    match rest.get(1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => (2, Cow::Borrowed(&rest[..2])),
        // JavaScript's escape of an apostrophe.
        Some(b'\'') => (2, Cow::Borrowed(b"'")),
        Some(b'u') => match unit(rest) {
            Some(0xd800..=0xdbff) => match rest.get(6..).and_then(unit) {
                Some(0xdc00..=0xdfff) => (12, Cow::Borrowed(&rest[..12])),
                _ => bad(6),
            },
            // A lone surrogate is no character. Databases cannot store a NUL in a text.
            Some(0 | 0xdc00..=0xdfff) => bad(6),
            Some(_) => (6, Cow::Borrowed(&rest[..6])),
            None => bad(1),
        },
        _ => bad(1),
    }
}

/// The UTF-16 unit of a `\uXXXX` at the start of `rest`.
fn unit(rest: &[u8]) -> Option<u16> {
    let digits = rest.strip_prefix(b"\\u")?.get(..4)?;
    let plain = digits.iter().all(u8::is_ascii_hexdigit);
    u16::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| plain)?, 16).ok()
}

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
