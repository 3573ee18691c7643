//! Strings of JSON as services really send them, turned into strict ones. Invalid UTF-8, lone surrogates, NUL and raw
//! control bytes become U+FFFD; raw tabs and line ends stay what they are.

use std::borrow::Cow;

const REPLACEMENT: &str = "\u{fffd}";

/// Writes the string whose opening quote stands before `at`; returns where the byte after its closing quote is, or
/// nothing where none closes it.
pub(crate) fn string(body: &[u8], mut at: usize, mut put: impl FnMut(&[u8])) -> Option<usize> {
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

/// The escape at the start of `rest`: how many bytes it takes up, and what is written for it.
fn escape(rest: &[u8]) -> (usize, Cow<'_, [u8]>) {
    let bad = |length| (length, Cow::Borrowed(REPLACEMENT.as_bytes()));
    match rest.get(1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => (2, Cow::Borrowed(&rest[..2])),
        // JavaScript's way to write an apostrophe.
        Some(b'\'') => (2, Cow::Borrowed(b"'")),
        Some(b'u') => match unit(rest) {
            Some(0xd800..=0xdbff) => match rest.get(6..).and_then(unit) {
                Some(0xdc00..=0xdfff) => (12, Cow::Borrowed(&rest[..12])),
                _ => bad(6),
            },
            // A lone half of a pair is no character; databases cannot keep a NUL in a text.
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
