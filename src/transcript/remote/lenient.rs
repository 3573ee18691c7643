//! Lenient parser for answers that do not fully match their documentation. A member of a wrong type counts as absent,
//! so that it does not affect the other members. Values outside of JSON (`NaN`) are read as null.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::DeserializeOwned;
use serde::de::IgnoredAny;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

use crate::json;

/// Upper limit of list entries, above the words of any part.
const MOST_ENTRIES: usize = 50_000;

/// Parses a body. If its syntax is invalid, parses a repaired copy.
///
/// # Errors
/// [`serde_json::Error`] if the body is not JSON, is truncated, or is another document.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    match serde_json::from_slice(body) {
        Err(err) if err.is_syntax() => serde_json::from_slice(&mended(body)),
        read => read,
    }
}

/// The same text with what RFC 8259 does not allow replaced: bare words and numbers beyond every range by null, what cannot
/// stand in a string as [`json::string`] has it.
fn mended(body: &[u8]) -> Vec<u8> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut out = Vec::with_capacity(body.len());
    let mut at = 0;
    while let Some(byte) = body.get(at) {
        match byte {
            b'"' => match json::string(body, at + 1, |part| out.extend_from_slice(part)) {
                Some(end) => at = end,
                // The text ends within the string, and its reader says so.
                None => break,
            },
            byte if is_bare(*byte) => {
                let token = body[at..].iter().take_while(|byte| is_bare(**byte)).count();
                bare(&String::from_utf8_lossy(&body[at..at + token]), &mut out);
                at += token;
            }
            byte => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

const fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_')
}

/// Writes a token outside of strings.
fn bare(token: &str, out: &mut Vec<u8>) {
    let is_json =
        matches!(token, "true" | "false" | "null") || serde_json::from_str::<serde_json::Number>(token).is_ok();
    if is_json {
        out.extend_from_slice(token.as_bytes());
        return;
    }
    match token {
        "True" => out.extend_from_slice(b"true"),
        "False" => out.extend_from_slice(b"false"),
        _ => {
            // `.5`, `+1` and `1.` are numbers in other formats. `NaN`, `Infinity` and `1e999` have no usable value.
            let number = token.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            out.extend_from_slice(number.map_or_else(|| "null".to_owned(), |number| number.to_string()).as_bytes());
        }
    }
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
pub(super) fn maybe<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Ok(Maybe::deserialize(from)?.is())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(serde_json::Number),
    Text(String),
}

/// A finite number, also if written as text.
pub(super) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let number = match Maybe::deserialize(from)?.is() {
        Some(Scalar::Number(number)) => number.as_f64(),
        Some(Scalar::Text(text)) => text.trim().parse::<f64>().ok(),
        None => None,
    };
    Ok(number.filter(|number| number.is_finite()))
}

/// A text, also if written as a number.
pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Maybe::deserialize(from)?.is().map(|scalar| match scalar {
        Scalar::Number(number) => number.to_string(),
        Scalar::Text(text) => text,
    }))
}

/// A list without the entries of a wrong type. `None` if the value is not a list.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Vec<T>>, D::Error> {
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
        parse(body).unwrap_or_else(|err| panic!("{err}: {}", String::from_utf8_lossy(&mended(body))))
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
            json!(["a\u{fffd} b", "\u{fffd}", "😀", "x\u{fffd}q"])
        );
        assert_eq!(mend(b"[\"caf\xe9\", \"a\tb\x01\"]"), json!(["caf\u{fffd}", "a\tb\u{fffd}"]));
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
        fn what_is_json_is_not_touched(text in "[\"\\\\uda1-9{}:,\\[\\] eE+.-]{0,40}") {
            if let Ok(read) = serde_json::from_str::<Value>(&text) {
                proptest::prop_assert_eq!(serde_json::from_slice::<Value>(&mended(text.as_bytes())).ok(), Some(read));
            }
        }
    }
}
