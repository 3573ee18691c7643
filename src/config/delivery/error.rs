//! Why a delivery request cannot be built.

use std::fmt;

use crate::domain::{Classify, Fault, Side};

/// Why the request cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The configuration table is invalid.
    #[error("source.http.{field}: {reason}")]
    Table { field: String, reason: String },
    /// A value of the call cannot be inserted.
    #[error("source.http.{field}: {reason}")]
    Call { field: String, reason: String },
}

impl Classify for RequestError {
    fn fault(&self) -> Fault {
        Fault::Permanent
    }

    fn side(&self) -> Side {
        match self {
            Self::Table { .. } => Side::Configuration,
            Self::Call { .. } => Side::Source,
        }
    }
}

impl RequestError {
    pub(super) fn table(field: &str, reason: impl fmt::Display) -> Self {
        Self::Table { field: field.to_owned(), reason: reason.to_string() }
    }

    pub(super) fn call(field: &str, reason: impl fmt::Display) -> Self {
        Self::Call { field: field.to_owned(), reason: reason.to_string() }
    }

    /// The error with the key of the file's `index`-th source.
    pub(in crate::config) fn in_source(&self, index: usize) -> String {
        let (Self::Table { field, reason } | Self::Call { field, reason }) = self;
        format!("source[{index}].http.{field}: {reason}")
    }
}
