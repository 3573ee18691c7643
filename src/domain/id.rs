//! Identifiers from outside. Each type has a `parse` function that validates it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not a valid identifier. It names the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct ParseError {
    what: &'static str,
    reason: &'static str,
}

impl ParseError {
    pub(crate) const fn new(what: &'static str, reason: &'static str) -> Self {
        Self { what, reason }
    }

    /// The reason without the type.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.reason
    }
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl $name {
            /// The text as the platform or the configuration wrote it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = ParseError;
            fn from_str(text: &str) -> Result<Self, ParseError> {
                Self::parse(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = ParseError;
            fn try_from(text: String) -> Result<Self, ParseError> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

/// The platform's own id of a call. It is opaque and never part of a path (object keys use [`CallUid`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CallId(String);
text_newtype!(CallId);

impl CallId {
    /// Accepts 1 to 200 bytes without control characters.
    ///
    /// # Errors
    /// [`ParseError`] for an empty text, a longer one, or one with control characters.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::new("call id", "is empty"));
        }
        if text.len() > 200 {
            return Err(ParseError::new("call id", "is longer than 200 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(ParseError::new("call id", "holds a control character"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a source in the configuration, in `--source` and in the records.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceName(String);
text_newtype!(SourceName);

impl SourceName {
    /// Accepts 1 to 64 of `a-z 0-9 _ -`.
    ///
    /// # Errors
    /// [`ParseError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) {
            return Err(ParseError::new("source name", "must be 1 to 64 of a-z, 0-9, _ and -"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A telephone number as the platform wrote it. `Debug` shows only the last two digits.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PhoneNumber(String);
text_newtype!(PhoneNumber);

impl PhoneNumber {
    /// Accepts 1 to 128 bytes without control characters (platforms also send SIP addresses).
    ///
    /// # Errors
    /// [`ParseError`] for an empty text, a longer one, or one with control characters.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
            return Err(ParseError::new("phone number", "must be 1 to 128 printable characters"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect();
        write!(f, "***{shown}")
    }
}

macro_rules! uuid_newtype {
    ($name:ident, $doc:literal, $what:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, ordered by creation time (UUID version 7, RFC 9562 section 5.7).
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id in 32 hexadecimal digits (W3C Trace Context). All log lines about one call carry it.
            #[must_use]
            pub fn trace_id(self) -> String {
                self.0.simple().to_string()
            }

            /// Reads the hyphenated form.
            ///
            /// # Errors
            /// [`ParseError`] when it is not a UUID.
            pub fn parse(text: &str) -> Result<Self, ParseError> {
                Uuid::parse_str(text).map(Self).map_err(|_| ParseError::new($what, "is not a UUID"))
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_newtype!(CallUid, "Our own id of a call; the only one that appears in object keys.", "call uid");
uuid_newtype!(OrgUid, "Our own id of an organisation; first part of every object key.", "organisation uid");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phone_numbers_are_not_printed_whole() {
        let number = PhoneNumber::parse("+14155550101").unwrap();
        assert_eq!(format!("{number:?}"), "***01");
    }

    #[test]
    fn ids_refuse_what_could_break_a_line_or_a_log() {
        assert!(CallId::parse("").is_err());
        assert!(CallId::parse("a\nb").is_err());
        assert!(CallId::parse(&"x".repeat(201)).is_err());
        assert_eq!(CallId::parse("../../etc/passwd").unwrap().as_str(), "../../etc/passwd");
        assert!(SourceName::parse("KrosAI").is_err());
        assert!(SourceName::parse("krosai-eu_2").is_ok());
    }
}
