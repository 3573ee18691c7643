//! Errors of a download. No variant contains a URL, because its query is a secret.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::{Classify, Fault, Side};

/// Why there is no spooled recording.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// This host must not be contacted, or the URL names none. Nothing was sent.
    #[error("{} refused: {reason}", refused(host.as_deref()))]
    RefusedUrl { host: Option<String>, reason: &'static str },
    /// 400, 401 or 403, the typical answers to an expired signature. The job may request a fresh URL once.
    #[error("recording host `{host}` denied the download with status {status}; the URL may have expired")]
    Denied { host: String, status: u16 },
    /// 404 or 410: not available yet, or deleted. The job requests a fresh URL once. Then the call's age decides which.
    #[error("recording host `{host}` has no such recording (status {status})")]
    Gone { host: String, status: u16 },
    /// An answer without a body: not available yet.
    #[error("recording host `{host}` answered with an empty body")]
    Empty { host: String },
    /// The body is something else, such as an error page.
    #[error("recording host `{host}` sent {what} of {size_bytes} bytes, not a recording")]
    NotARecording { host: String, what: &'static str, size_bytes: u64 },
    #[error("the recording is larger than fetch.max_bytes = {limit_bytes} (at least {size_bytes} bytes)")]
    TooLarge { limit_bytes: u64, size_bytes: u64 },
    /// No data, or slower than `fetch.min_bytes_per_second`.
    #[error("recording host `{host}` sent only {received_bytes} bytes in {} s", window.as_secs_f64())]
    TooSlow { host: String, received_bytes: u64, window: Duration },
    #[error("the download did not end within fetch.total_timeout = {} s", limit.as_secs())]
    TimedOut { limit: Duration },
    /// The body ended early several times. A partial download that can be resumed is kept for the next attempt.
    #[error("the download from `{host}` broke off after {received_bytes} of {} bytes: {cause}", expected(*expected_bytes))]
    Interrupted { host: String, received_bytes: u64, expected_bytes: Option<u64>, cause: String },
    #[error("recording host `{host}` asked for a pause (status {status})")]
    Throttled { host: String, status: u16, retry_after: Option<Duration> },
    #[error("recording host `{host}` failed with status {status}")]
    ServerError { host: String, status: u16 },
    /// No connection: name not found, refused, or TLS failure.
    #[error("recording host `{host}` cannot be reached: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("more than {limit} redirects on the way to the recording")]
    TooManyRedirects { limit: u8 },
    #[error("recording host `{host}` gave an unexpected answer (status {status})")]
    Unexpected { host: String, status: u16 },
    /// The spool file cannot be written.
    #[error("cannot write {} ({source}); {}", path.display(), remedy(source))]
    Spool { path: PathBuf, source: io::Error },
    /// No client can be built, usually because the system has no CA certificates.
    #[error("no https client: {0}; install the system's CA certificates (package ca-certificates)")]
    Client(String),
}

fn refused(host: Option<&str>) -> String {
    host.map_or_else(|| "the recording's URL is".to_owned(), |host| format!("recording host `{host}`"))
}

fn expected(size: Option<u64>) -> String {
    size.map_or_else(|| "an unknown number of".to_owned(), |size| size.to_string())
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on that disk",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "check its owner and mode, and that it is not mounted read-only"
        }
        _ => "check the spool directory",
    }
}

impl FetchError {
    /// True when the partial download should be kept for the next attempt.
    pub(super) const fn keeps_partial(&self) -> bool {
        matches!(
            self,
            Self::TooSlow { .. }
                | Self::TimedOut { .. }
                | Self::Interrupted { .. }
                | Self::Throttled { .. }
                | Self::ServerError { .. }
                | Self::Unreachable { .. }
                | Self::Denied { .. }
        )
    }
}

impl Classify for FetchError {
    /// [`Self::Empty`] and [`Self::Gone`] are transient here. The job knows the call's age and turns them into "not
    /// ready yet" or an outcome. On [`Self::Denied`] and [`Self::Gone`] it requests a fresh URL once.
    fn fault(&self) -> Fault {
        match self {
            Self::Throttled { retry_after: Some(retry_after), .. } => Fault::Throttled { retry_after: *retry_after },
            Self::Throttled { .. }
            | Self::Gone { .. }
            | Self::Empty { .. }
            | Self::TooSlow { .. }
            | Self::TimedOut { .. }
            | Self::Interrupted { .. }
            | Self::ServerError { .. }
            | Self::Unreachable { .. }
            | Self::Spool { .. }
            | Self::Client(_) => Fault::Transient,
            Self::RefusedUrl { .. }
            | Self::Denied { .. }
            | Self::NotARecording { .. }
            | Self::TooLarge { .. }
            | Self::TooManyRedirects { .. }
            | Self::Unexpected { .. } => Fault::Permanent,
        }
    }

    fn side(&self) -> Side {
        match self {
            Self::Spool { .. } | Self::Client(_) => Side::Worker,
            _ => Side::RecordingHost,
        }
    }
}
