//! What can go wrong at an S3 service.

use std::time::Duration;

use hyper::StatusCode;
use hyper::http::{HeaderMap, HeaderValue};
use s3s::{S3Error, S3ErrorCode};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 503 before anything is done.
    Busy,
    /// 503 with `Retry-After: 1.5`.
    Pause,
    /// 403.
    Denied,
    /// 501.
    Absent,
    /// The work is done and the answer is 500.
    FailAfterCommit,
    /// The connection ends in the middle of the body.
    ResetMidBody,
    /// A shorter body with the shorter length declared.
    Truncated,
    /// One bit is wrong.
    Flipped,
    /// Success without the deed.
    Lie,
    /// Only half of the body is kept.
    Halve,
    /// A listing from before anything was written.
    Stale,
    /// A page that promises another one, for ever.
    Circle,
    /// 507 as `MinIO` says it: the disks are full.
    Full,
    /// 403 as Ceph says it: the quota is used up.
    Quota,
    /// 413 as Swift, or a proxy in front of any store, says it.
    TooLarge,
    /// The body is not what was sent when it arrives.
    Damaged,
    /// The work is done, and the answer takes its time.
    Slow,
}

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_millis(400);

impl Fault {
    /// The refusal that this fault is; none where the operation itself plays it.
    pub fn refusal(self) -> Option<S3Error> {
        let custom = |code: &'static str, status: StatusCode| {
            let mut err = S3Error::new(S3ErrorCode::Custom(code.into()));
            err.set_status_code(status);
            err
        };
        Some(match self {
            Self::Busy => S3ErrorCode::SlowDown.into(),
            Self::Pause => {
                let mut err = S3Error::new(S3ErrorCode::SlowDown);
                let mut headers = HeaderMap::new();
                headers.insert("retry-after", HeaderValue::from_static("1.5"));
                err.set_headers(headers);
                err
            }
            Self::Denied => S3ErrorCode::AccessDenied.into(),
            Self::Absent => S3ErrorCode::NotImplemented.into(),
            Self::Full => custom("XMinioStorageFull", StatusCode::INSUFFICIENT_STORAGE),
            Self::Quota => custom("QuotaExceeded", StatusCode::FORBIDDEN),
            Self::TooLarge => custom("EntityTooLarge", StatusCode::PAYLOAD_TOO_LARGE),
            _ => return None,
        })
    }

    /// Takes the time that a slow answer takes.
    pub async fn linger(fault: Option<Self>) {
        if fault == Some(Self::Slow) {
            tokio::time::sleep(SLOW).await;
        }
    }
}
