//! Lenient parser for answers that do not fully match their documentation. A member of a wrong type counts as absent,
//! so that it does not affect the other members. Values outside of JSON (`NaN`) are read as null.

use std::fmt;
use std::fmt::Write as _;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::DeserializeOwned;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

/// Upper limit of list entries, above the words of any part.
const MOST_ENTRIES: usize = 50_000;

/// Parses a body. If its syntax is invalid, parses a repaired copy.
///
/// # Errors
/// [`serde_json::Error`] if the body is not JSON, is truncated, or is another document.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    match serde_json::from_slice(body) {
        Err(err) if err.is_syntax() => serde_json::from_str(&mended(body)),
        read => read,
    }
}

/// A copy in which everything that RFC 8259 forbids is replaced: bare words and numbers out of range by null, raw
/// control characters by their escapes, lone surrogates and invalid UTF-8 by U+FFFD.
fn mended(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut out = String::with_capacity(rest.len());
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '"' => string(rest, &mut out),
            c if is_bare(c) => {
                let end = rest.find(|c| !is_bare(c)).unwrap_or(rest.len());
                bare(&rest[..end], &mut out);
                &rest[end..]
            }
            c => {
                out.push(c);
                &rest[c.len_utf8()..]
            }
        };
    }
    out
}

const fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_')
}

/// Writes a token outside of strings.
fn bare(token: &str, out: &mut String) {
    let is_json =
        matches!(token, "true" | "false" | "null") || serde_json::from_str::<serde_json::Number>(token).is_ok();
    if is_json {
        out.push_str(token);
        return;
    }
    match token {
        "True" => out.push_str("true"),
        "False" => out.push_str("false"),
        _ => {
            // `.5`, `+1` and `1.` are numbers in other formats. `NaN`, `Infinity` and `1e999` have no usable value.
            let number = token.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            out.push_str(&number.map_or_else(|| "null".to_owned(), |number| number.to_string()));
        }
    }
}

/// Copies the string at the start of `text`. Returns the rest.
fn string<'a>(text: &'a str, out: &mut String) -> &'a str {
    out.push('"');
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                out.push('"');
                return &text[at + 1..];
            }
            '\\' => {
                let escaped = escape(&text[at..], out);
                // The loop has already consumed the backslash.
                for _ in 1..escaped {
                    chars.next();
                }
            }
            c if u32::from(c) < 0x20 => escaped(u32::from(c), out),
            c => out.push(c),
        }
    }
    ""
}

/// Copies the escape at the start of `text`. Returns its length in characters.
fn escape(text: &str, out: &mut String) -> usize {
    match text[1..].chars().next() {
        Some('u') => match unit(text) {
            Some(high @ 0xd800..=0xdbff) => match text.get(6..).and_then(unit) {
                Some(low @ 0xdc00..=0xdfff) => {
                    escaped(high, out);
                    escaped(low, out);
                    12
                }
                _ => lone(out),
            },
            Some(0xdc00..=0xdfff) => lone(out),
            Some(unit) => {
                escaped(unit, out);
                6
            }
            None => {
                out.push_str("\\\\");
                1
            }
        },
        Some(c @ ('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't')) => {
            out.extend(['\\', c]);
            2
        }
        Some(_) => {
            out.push_str("\\\\");
            1
        }
        // The truncated body gives a parser error.
        None => 1,
    }
}

fn escaped(unit: u32, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\u{unit:04x}");
}

fn lone(out: &mut String) -> usize {
    out.push('\u{fffd}');
    6
}

/// The UTF-16 unit of `\uXXXX`.
fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// A value of the expected type or of another type.
#[derive(Deserialize)]
#[serde(untagged)]
enum Maybe<T> {
    Is(T),
    Other(IgnoredAny),
}

impl<T> Maybe<T> {
    fn is(self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Other(_) => None,
        }
    }
}

/// A member, or `None` if its type is wrong.
pub fn maybe<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Ok(Maybe::deserialize(from)?.is())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(serde_json::Number),
    Text(String),
}

/// A finite number, also if written as text.
pub fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let number = match Maybe::deserialize(from)?.is() {
        Some(Scalar::Number(number)) => number.as_f64(),
        Some(Scalar::Text(text)) => text.trim().parse::<f64>().ok(),
        None => None,
    };
    Ok(number.filter(|number| number.is_finite()))
}

/// A text, also if written as a number.
pub fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Maybe::deserialize(from)?.is().map(|scalar| match scalar {
        Scalar::Number(number) => number.to_string(),
        Scalar::Text(text) => text,
    }))
}

/// A list without the entries of a wrong type. `None` if the value is not a list.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Vec<T>>, D::Error> {
    from.deserialize_any(List(PhantomData))
}

struct List<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    // Reads single entries, because a buffered list would be large.
    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(entry) = entries.next_element::<Maybe<T>>()? {
            if all.len() == MOST_ENTRIES {
                return Err(serde::de::Error::custom(format!("a list of it has more than {MOST_ENTRIES} entries")));
            }
            all.extend(entry.is());
        }
        Ok(Some(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn mend(body: &[u8]) -> Value {
        parse(body).unwrap_or_else(|err| panic!("{err}: {}", mended(body)))
    }

    #[test]
    fn what_json_has_no_form_for_is_null_and_the_rest_stays() {
        let body =
            br#"{"a": NaN, "b": [-Infinity, Infinity, 1e999, 2.5, -3], "c": "NaN, \"Infinity\" \u00e9", "d": True}"#;
        let expected = json!({"a": null, "b": [null, null, null, 2.5, -3], "c": "NaN, \"Infinity\" é", "d": true});
        assert_eq!(mend(body), expected);
        assert_eq!(
            mend(b"\xef\xbb\xbf{\"a\": nan, \"b\": .5, \"c\": +1, \"d\": None}"),
            json!({"a": null, "b": 0.5, "c": 1.0, "d": null})
        );
    }

    #[test]
    fn broken_characters_do_not_spoil_their_text() {
        assert_eq!(
            mend(br#"["a\ud83d b", "\udc00", "\ud83d\ude00", "x\q"]"#),
            json!(["a\u{fffd} b", "\u{fffd}", "😀", "x\\q"])
        );
        assert_eq!(mend(b"[\"caf\xe9\", \"a\tb\x01\"]"), json!(["caf\u{fffd}", "a\tb\u{1}"]));
    }

    #[test]
    fn a_body_that_breaks_off_says_so_and_a_page_is_no_json() {
        for body in [&br#"{"a": NaN, "b": "x"#[..], br#"{"a": NaN, "b": "\"#, br#"{"a": [NaN"#] {
            assert!(parse::<Value>(body).unwrap_err().is_eof(), "{}", String::from_utf8_lossy(body));
        }
        assert!(parse::<Value>(b"<html>").unwrap_err().is_syntax());
    }

    proptest::proptest! {
        #[test]
        fn no_body_is_too_strange(body in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = parse::<Value>(&body);
        }

        #[test]
        fn what_is_json_is_not_touched(text in "[\"\\\\uda0-9{}:,\\[\\] eE+.-]{0,40}") {
            if let Ok(read) = serde_json::from_str::<Value>(&text) {
                proptest::prop_assert_eq!(serde_json::from_str::<Value>(&mended(text.as_bytes())).ok(), Some(read));
            }
        }
    }
}
