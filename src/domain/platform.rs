//! What a source is, and where the documents of its platform leave a choice.

use std::fmt;

use serde::Deserialize;

/// Whose wire contract a source speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vendor {
    /// Both of its documents' forms; each answer shows which.
    Krosai,
    Zudu,
    Atoms,
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Krosai => "krosai",
            Self::Zudu => "zudu",
            Self::Atoms => "atoms",
        })
    }
}

/// How `packet_loss` is to be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossUnit {
    /// Percent where the document says so, unknown elsewhere.
    #[default]
    #[serde(rename = "auto")]
    Documented,
    Percent,
    /// 0 to 1.
    Ratio,
}

/// Which headers carry KrosAI's key: its documents disagree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyHeaders {
    #[default]
    Both,
    XApiKey,
    Bearer,
}
