//! Flags of a call record: properties of its recording, and the state of its objects and deliveries.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::quality::Flag;
use super::words;

words! {
    /// Flags about a call's objects and deliveries.
    pub enum RecordFlag {
        /// An object of the record is missing in the object store, or it has another size there.
        MissingObject = "missing_object",
        /// The delivery was sent without `If-Match`, because the receiver's record has no strong `ETag`.
        Unconditional = "unconditional",
    }
}

/// Any flag of a record, as `--flag` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CallFlag {
    Record(RecordFlag),
    Quality(Flag),
}

impl CallFlag {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Record(flag) => flag.as_str(),
            Self::Quality(flag) => flag.as_str(),
        }
    }
}

impl fmt::Display for CallFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An unknown flag. The message lists the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no flag `{word}`; there are {known}")]
pub struct UnknownFlag {
    word: String,
    known: String,
}

impl FromStr for CallFlag {
    type Err = UnknownFlag;

    fn from_str(word: &str) -> Result<Self, UnknownFlag> {
        let record = RecordFlag::named(word).map(Self::Record);
        let quality = Flag::named(word).map(Self::Quality);
        record.or(quality).ok_or_else(|| {
            let known =
                RecordFlag::ALL.iter().map(|flag| flag.as_str()).chain(Flag::ALL.iter().map(|flag| flag.as_str()));
            UnknownFlag { word: word.to_owned(), known: known.collect::<Vec<_>>().join(", ") }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_known_by_its_word_and_others_are_told() {
        for word in ["missing_object", "unconditional", "clipped", "text_misfit", "he_aac_core"] {
            let flag: CallFlag = word.parse().unwrap();
            assert_eq!((flag.as_str(), serde_json::to_value(flag).unwrap()), (word, word.into()));
        }
        let words: Vec<&str> = Flag::ALL.iter().map(|flag| flag.as_str()).collect();
        for (flag, word) in Flag::ALL.iter().zip(&words) {
            assert_eq!(serde_json::to_value(flag).unwrap(), *word);
            assert_eq!(words.iter().filter(|other| *other == word).count(), 1, "{word}");
        }
        let said = "lost".parse::<CallFlag>().unwrap_err().to_string();
        assert!(said.contains("`lost`") && said.contains("missing_object") && said.contains("clipped"), "{said}");
    }
}
