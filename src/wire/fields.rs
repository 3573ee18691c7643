//! Reads members of JSON. The platforms' documents contradict each other, so every member is optional. A member of the
//! wrong type counts as absent and does not invalidate the record.

use serde_json::Value;

use super::WireError;
use super::scan::{self, Answer, Names};

/// Parses a body. It reports a web page and a truncated answer as different errors.
pub(super) fn json(body: &[u8]) -> Result<Value, WireError> {
    scan::whole(bare(body)?)
}

/// Parses an answer and reads the lists at these paths row by row.
pub(super) fn page(body: &[u8], paths: &[&[&str]], names: Names) -> Result<Answer, WireError> {
    scan::page(bare(body)?, paths, names)
}

/// The body without its byte order mark and surrounding white space.
fn bare(body: &[u8]) -> Result<&[u8], WireError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    match body.first() {
        None => Err(WireError::Empty),
        Some(b'<') => Err(WireError::Html),
        Some(_) => Ok(body),
    }
}

/// The member at the end of `path`. `null` counts as absent.
pub(super) fn member<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |at, key| at.get(key)).filter(|found| !found.is_null())
}

/// A text that is not empty. Ids may also be numbers, or a list with one item.
pub(super) fn text(value: &Value, path: &[&str]) -> Option<String> {
    let found = match member(value, path)? {
        Value::Array(items) => items.first()?,
        found => found,
    };
    match found {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// An id without any change. Ids are opaque, including white space.
pub(super) fn id(value: &Value, path: &[&str]) -> Option<String> {
    match member(value, path)? {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        _ => text(value, path),
    }
}

/// A finite number, also as text.
pub(super) fn number(value: &Value, path: &[&str]) -> Option<f64> {
    as_number(member(value, path)?)
}

/// As [`number`], for a given value.
pub(super) fn as_number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// A count: a whole number of at least 0.
pub(super) fn count(value: &Value, path: &[&str]) -> Option<u64> {
    number(value, path).filter(|number| (0.0..1e15).contains(number)).map(|number| number as u64)
}

/// A boolean, also as text or number.
pub(super) fn flag(value: &Value, path: &[&str]) -> Option<bool> {
    match member(value, path)? {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => Some(number.as_f64() != Some(0.0)),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Some(true),
            "false" | "no" | "0" | "" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A list.
pub(super) fn list<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Vec<Value>> {
    member(value, path)?.as_array()
}

/// An object.
pub(super) fn object<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    member(value, path).filter(|found| found.is_object())
}

/// A length in seconds, possibly with a fraction, as whole milliseconds. Lengths beyond 30 years are refused.
pub(super) fn seconds_as_ms(seconds: f64) -> Option<u64> {
    whole_ms(seconds * 1000.0)
}

/// Milliseconds with a fraction, rounded.
pub(super) fn whole_ms(ms: f64) -> Option<u64> {
    (0.0..1e12).contains(&ms).then(|| ms.round() as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pages_empty_bodies_and_broken_json_are_told_apart() {
        assert_eq!(json(b" \n<!DOCTYPE html><html>"), Err(WireError::Html));
        assert_eq!(json(b"  "), Err(WireError::Empty));
        assert!(matches!(json(b"{\"calls\": ["), Err(WireError::NotJson { line: 1, .. })));
        assert_eq!(json(b"\xef\xbb\xbf{}"), Ok(json!({})));
    }

    #[test]
    fn wrong_types_count_as_absent() {
        let value = json!({"a": {"b": []}, "n": "12.5", "s": "  ", "f": "false", "id": 7, "list": ["x", "y"]});
        assert_eq!(text(&value, &["a", "b", "c"]), None);
        assert_eq!(text(&value, &["s"]), None);
        assert_eq!(text(&value, &["id"]).as_deref(), Some("7"));
        assert_eq!(text(&value, &["list"]).as_deref(), Some("x"));
        assert_eq!(number(&value, &["n"]), Some(12.5));
        assert_eq!(number(&value, &["a"]), None);
        assert_eq!(flag(&value, &["f"]), Some(false));
        assert_eq!(count(&json!({"total": -1}), &["total"]), None);
    }

    #[test]
    fn lengths_are_rounded_and_bounded() {
        assert_eq!(seconds_as_ms(49.350_622), Some(49_351));
        assert_eq!(seconds_as_ms(-1.0), None);
        assert_eq!(seconds_as_ms(f64::MAX), None);
    }
}
