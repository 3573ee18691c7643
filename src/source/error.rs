//! Errors of requests to a platform.

use std::time::Duration;

use crate::domain::{Classify, Fault, Side, SourceName};
use crate::wire::WireError;

/// Pause after "too many requests" without a named pause.
const UNNAMED_PAUSE: Duration = Duration::from_secs(30);
/// Pause after a platform refused the key.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// A request to a source without a usable answer. It never contains a URL's query, a key or a body.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("source `{source_name}`: {key}: {reason}")]
    Configuration { source_name: SourceName, key: &'static str, reason: String },
    #[error("source `{source_name}`: cannot reach {host}")]
    Unreachable {
        source_name: SourceName,
        host: String,
        #[source]
        cause: reqwest::Error,
    },
    #[error(
        "source `{source_name}`: wrong key: {host} answers {status}; check api_key (api_secret, organization_id) of \
         [[source]] `{source_name}`"
    )]
    WrongKey { source_name: SourceName, host: String, status: u16 },
    #[error(
        "source `{source_name}`: {path} answers {status}: the key is refused, or may not be used for this call; check \
         api_key (api_secret, organization_id) of [[source]] `{source_name}`"
    )]
    Forbidden { source_name: SourceName, path: String, status: u16 },
    #[error("source `{source_name}`: asked to wait ({status})")]
    Throttled { source_name: SourceName, status: u16, retry_after: Option<Duration> },
    #[error("source `{source_name}`: not asked: {reason}")]
    Held { source_name: SourceName, reason: &'static str, pause: Duration },
    #[error("source `{source_name}`: {path} answers {status}; the platform is in trouble")]
    Unavailable { source_name: SourceName, path: String, status: u16 },
    #[error(
        "source `{source_name}`: {path} answers an HTML page instead of JSON ({status}); check base_url and \
         any proxy in between"
    )]
    NotTheApi { source_name: SourceName, path: String, status: u16 },
    #[error("source `{source_name}`: {path} is not there (404); check base_url")]
    NoSuchPath { source_name: SourceName, path: String },
    #[error(
        "source `{source_name}`: {path} answers a redirect ({status}); keys are not sent on, write the final address \
         into base_url"
    )]
    Redirected { source_name: SourceName, path: String, status: u16 },
    #[error("source `{source_name}`: {path} answers {status}: {said}")]
    Rejected { source_name: SourceName, path: String, status: u16, said: String },
    #[error("source `{source_name}`: the answer to {path} is longer than {limit} bytes")]
    TooLarge { source_name: SourceName, path: String, limit: usize },
    #[error("source `{source_name}`: cannot read the answer to {path}")]
    Unreadable {
        source_name: SourceName,
        path: String,
        #[source]
        cause: WireError,
    },
    #[error("source `{source_name}`: the id of this call cannot be used in a request")]
    Unaskable {
        source_name: SourceName,
        #[source]
        cause: WireError,
    },
    /// A key of several organisations answers for the wrong one when a proxy drops the header.
    #[error(
        "source `{source_name}`: the platform answered for another organisation than organization_id names; check \
         organization_id and organization_in"
    )]
    WrongOrganization { source_name: SourceName },
    #[error("source `{source_name}`: this platform has no call record to write to; set write_back = \"record\"")]
    NothingToWriteTo { source_name: SourceName },
}

impl Classify for SourceError {
    fn fault(&self) -> Fault {
        match self {
            Self::Throttled { retry_after, .. } => {
                Fault::Throttled { retry_after: retry_after.unwrap_or(UNNAMED_PAUSE) }
            }
            Self::Held { pause, .. } => Fault::Throttled { retry_after: *pause },
            // An operator must fix the key. Jobs that need it wait and use no attempts meanwhile.
            Self::WrongKey { .. } => Fault::Throttled { retry_after: REFUSED_PAUSE },
            Self::Unreachable { .. } | Self::Unavailable { .. } | Self::NotTheApi { .. } | Self::Forbidden { .. } => {
                Fault::Transient
            }
            Self::Unreadable { cause, .. } => match cause {
                WireError::OtherCall { .. } | WireError::NotFound | WireError::UnusableId => Fault::Permanent,
                WireError::Html
                | WireError::Empty
                | WireError::NotJson { .. }
                | WireError::TooDeep
                | WireError::Shape { .. }
                | WireError::Refused { .. } => Fault::Transient,
            },
            Self::Configuration { .. }
            | Self::NoSuchPath { .. }
            | Self::Redirected { .. }
            | Self::Rejected { .. }
            | Self::TooLarge { .. }
            | Self::Unaskable { .. }
            | Self::WrongOrganization { .. }
            | Self::NothingToWriteTo { .. } => Fault::Permanent,
        }
    }

    fn side(&self) -> Side {
        Side::Source
    }
}

/// The message of an error body for a log: short, on one line, without words that may be a number or a key.
pub(super) fn said(body: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else { return "no reason given".to_owned() };
    let member = |key: &str| match body.get(key) {
        Some(serde_json::Value::Array(items)) => items.first().and_then(|item| item.as_str()),
        Some(found) => found.as_str(),
        None => None,
    };
    let said = ["code", "error", "message", "errors"].into_iter().find_map(member).unwrap_or("no reason given");
    let masked = said.split_whitespace().map(|word| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        if digits >= 5 || word.len() > 40 { "…" } else { word }
    });
    masked.collect::<Vec<_>>().join(" ").chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_holds_no_numbers_and_no_keys() {
        assert_eq!(said(br#"{"error":"number +14155550101 is\nbarred"}"#), "number … is barred");
        assert_eq!(said(br#"{"error":"bad key kros_live_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#), "bad key …");
        assert_eq!(said(br#"{"status":false,"errors":["callId is required"]}"#), "callId is required");
        assert_eq!(said(b"<html>"), "no reason given");
        assert!(said(format!(r#"{{"error":"{}"}}"#, "ab ".repeat(500)).as_bytes()).chars().count() <= 160);
    }
}
