//! Errors of a speech engine.

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::Classify;
use crate::domain::Fault;
use crate::domain::Side;

/// A failure of a speech engine. No message contains a word of a call or a key.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(
        "no model `{name}`: `aftercall models list` shows what there is, `aftercall models pull {name}` fetches it"
    )]
    NoModel { name: String },
    #[error("{} is not there: the model is not complete; pull it again", .path.display())]
    Missing { path: PathBuf },
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} has sha256 {found}, not {expected}: it is truncated, changed, or another file", .path.display())]
    WrongHash { path: PathBuf, expected: String, found: String },
    #[error("{} is not a model this program can run: {reason}", .path.display())]
    Architecture { path: PathBuf, reason: String },
    #[error("the model's description {} cannot be read: {reason}", .path.display())]
    Manifest { path: PathBuf, reason: String },
    #[error("the model failed on this audio: {reason}")]
    Inference { reason: String },
    #[error("the engine at {url} does not accept the key (HTTP {status}): set a valid one")]
    Key { url: String, status: u16 },
    #[error("the engine at {url} asks to wait")]
    Busy { url: String, retry_after: Duration },
    #[error("the engine at {url} failed: {reason}")]
    Remote { url: String, reason: String },
    #[error("the engine at {url} refused the request (HTTP {status}): {reason}")]
    Refused { url: String, status: u16, reason: String },
    #[error("the engine at {url} has no credit left for this key (HTTP {status})")]
    Credit { url: String, status: u16 },
    #[error("the engine at {url} gave an answer that its documentation does not describe: {reason}")]
    Answer { url: String, reason: String },
    #[error("this segment of {bytes} bytes is more than the engine's limit of {limit}")]
    TooLarge { bytes: u64, limit: u64 },
}

impl Classify for EngineError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreadable { .. } | Self::Remote { .. } => Fault::Transient,
            Self::Busy { retry_after, .. } => Fault::Throttled { retry_after: *retry_after },
            _ => Fault::Permanent,
        }
    }

    fn side(&self) -> Side {
        match self {
            Self::NoModel { .. }
            | Self::Missing { .. }
            | Self::WrongHash { .. }
            | Self::Architecture { .. }
            | Self::Manifest { .. }
            | Self::Key { .. }
            | Self::Credit { .. } => Side::Configuration,
            Self::Unreadable { .. } => Side::Worker,
            _ => Side::Engine,
        }
    }
}
