//! A tolerant JSON reader. It turns the JSON that platforms really send into strict JSON.
//!
//! It repairs single characters and numbers, where the meaning is clear. Invalid UTF-8, lone surrogates, NUL and raw
//! control bytes become U+FFFD; raw tabs and line ends are kept. NaN, infinities, numbers beyond a double and
//! `undefined` become null. A number that JSON cannot represent exactly becomes a text. A comma before a closing
//! bracket is removed. The structure is never repaired, because a guess would invent data.
//!
//! The work is linear in the number of bytes, and no input causes recursion.

mod machine;
mod rows;
mod search;
mod state;
mod token;
mod unread;

pub(super) use rows::{Answer, ScannedRow, page};
pub(super) use state::Names;

use serde_json::Value;

use self::machine::{Machine, Stopped};
use super::WireError;

/// Reads a body that must be exactly one value.
pub(super) fn whole(body: &[u8]) -> Result<Value, WireError> {
    let mut text = Vec::with_capacity(body.len());
    let mut machine = Machine::writing(body, 0, &mut text);
    machine.value().map_err(|Stopped| not_json(body, machine.at()))?;
    machine.skip_space();
    let (end, too_deep) = (machine.at(), machine.too_deep());
    if end < body.len() {
        return Err(not_json(body, end));
    }
    if too_deep {
        return Err(WireError::TooDeep);
    }
    strict(&text)
}

/// Parses our own output, which is strict JSON.
fn strict(text: &[u8]) -> Result<Value, WireError> {
    serde_json::from_slice(text).map_err(|err| WireError::NotJson { line: err.line(), column: err.column() })
}

/// The position where the structure breaks. Lines and columns count from 1.
fn not_json(body: &[u8], at: usize) -> WireError {
    let before = body.get(..at).unwrap_or(body);
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let line = before.split(|byte| *byte == b'\n').count();
    WireError::NotJson { line, column: before.len() - line_start + 1 }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::error::DEEPEST;

    fn read(text: impl AsRef<[u8]>) -> Result<Value, WireError> {
        whole(text.as_ref())
    }

    #[test]
    fn bad_characters_become_the_replacement_character() {
        for (sent, read_as) in [
            (&br#""a\ud83db""#[..], "a\u{fffd}b"),
            (br#""\udc00x""#, "\u{fffd}x"),
            (br#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
            (br#""\ud83d\n""#, "\u{fffd}\n"),
            (br#""\ud83d\u0041""#, "\u{fffd}A"),
            (br#""\ud83d""#, "\u{fffd}"),
            (b"\"Andr\xe9 x\"", "Andr\u{fffd} x"),
            (b"\"Andr\xe9\"", "Andr\u{fffd}"),
            (b"\"\xc0\xaf\"", "\u{fffd}\u{fffd}"),
            (b"\"\xed\xa0\xbd\"", "\u{fffd}\u{fffd}\u{fffd}"),
            (b"\"a\x01b\x00c\x1f\"", "a\u{fffd}b\u{fffd}c\u{fffd}"),
            (b"\"a\tb\r\nc\"", "a\tb\r\nc"),
            (br#""a\u0000b""#, "a\u{fffd}b"),
            (br#""a\u0001b""#, "a\u{1}b"),
            (br#""it\'s \x41 \uZZ""#, "it's \u{fffd}x41 \u{fffd}uZZ"),
            (br#""\u00e9 \/ \" \\""#, "é / \" \\"),
        ] {
            assert_eq!(read(sent), Ok(json!(read_as)), "{}", String::from_utf8_lossy(sent));
        }
    }

    #[test]
    fn numbers_that_are_none_are_null_and_others_keep_their_digits() {
        for (sent, read_as) in [
            ("NaN", Value::Null),
            ("-nan", Value::Null),
            ("Infinity", Value::Null),
            ("-Infinity", Value::Null),
            ("inf", Value::Null),
            ("1e999", Value::Null),
            ("-1E999", Value::Null),
            ("undefined", Value::Null),
            ("123456789012345678901234567890", json!("123456789012345678901234567890")),
            ("007", json!("007")),
            ("+14155550123", json!("+14155550123")),
            (".5", json!(".5")),
            ("18446744073709551615", json!(u64::MAX)),
            ("-0.5e2", json!(-50.0)),
            ("1e-999", json!(0.0)),
        ] {
            assert_eq!(read(sent), Ok(read_as), "{sent}");
            assert!(read(format!("{{\"a\":[{sent},{sent}]}}")).is_ok(), "{sent}");
        }
    }

    #[test]
    fn a_comma_too_many_is_left_out_and_nothing_else_is_guessed() {
        assert_eq!(read(r#"{"a":[1,2,],"b":{"c":3,},}"#), Ok(json!({"a": [1, 2], "b": {"c": 3}})));
        for broken in [
            "{'a':1}",
            "{a:1}",
            r#"{"a":b}"#,
            r#"{"a":completed}"#,
            r#"{"a":}"#,
            r#"{"a":,"b":1}"#,
            "[,1]",
            "[1,,2]",
            "{,}",
            r#"{"a" 1}"#,
            r#"{"a":1 "b":2}"#,
            "[1 2]",
            r#"{"a":1]"#,
            "[1}",
            r#"{"a":1}}"#,
            "[1] x",
            "{} {}",
            r#""a"#,
            r#"{"a":"b}"#,
            r#"{"a":1"#,
            "[[1]",
            "1-2",
            "2026-01-01",
            "True",
            "nul",
            "// x\n1",
            "{\"a\"",
            "\"\\",
            "\"\\u12",
            "\u{feff}{}",
            "-",
            "+",
            ".",
            "e5",
        ] {
            assert!(matches!(read(broken), Err(WireError::NotJson { .. })), "{broken}: {:?}", read(broken));
        }
    }

    #[test]
    fn of_two_members_with_one_name_the_last_counts_as_everywhere() {
        assert_eq!(read(r#"{"a":1,"a":2}"#), Ok(json!({"a": 2})));
    }

    #[test]
    fn nesting_is_bounded_and_never_recursed_into() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(nested(DEEPEST)).is_ok());
        assert_eq!(read(nested(DEEPEST + 1)), Err(WireError::TooDeep));
        assert_eq!(read(nested(1_000_000)), Err(WireError::TooDeep));
        assert!(matches!(read("[".repeat(1_000_000)), Err(WireError::NotJson { .. })));
        let objects = format!("{}1{}", r#"{"a":"#.repeat(300), "}".repeat(300));
        assert_eq!(read(objects), Err(WireError::TooDeep));
    }

    #[test]
    fn a_page_of_nothing_but_broken_rows_is_counted_in_bounded_time() {
        let names = Names { id: "id", status: "status" };
        let read = |row: &str, rows: usize| {
            let body = format!("{{\"calls\":[{}],\"total\":{rows}}}", vec![row; rows].join(","));
            page(body.as_bytes(), &[&["calls"]], names).map(|answer| answer.lists[0].as_ref().unwrap().len())
        };
        assert_eq!(read(r#"{"id":"a","status":"x","y":'z'}"#, 100), Ok(100));
        assert_eq!(read(r#"{"id":"a","status":"x","y":[1"#, 100), Ok(1));
        // Above the search limit the whole answer is refused.
        assert!(read(r#"{"id":"a","status":"x","y":[1"#, 3_000).is_err());
    }

    #[test]
    fn the_place_of_a_break_is_told() {
        assert_eq!(read("{\n  \"a\": 1,\n  \"b\" 2\n}"), Err(WireError::NotJson { line: 3, column: 7 }));
        assert_eq!(read(r#"{"calls": ["#), Err(WireError::NotJson { line: 1, column: 12 }));
    }
}
