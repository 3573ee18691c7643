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
    /// 400 for a reason of the store's own.
    Odd,
}

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_millis(400);

impl Fault {
    /// The refusal that this fault is; none where the operation itself plays it.
    pub fn refusal(self) -> Option<S3Error> {
        let said = |code: S3ErrorCode| S3Error::with_message(code, "what the store says");
        let custom = |code: &'static str, status: StatusCode| {
            let mut err = said(S3ErrorCode::Custom(code.into()));
            err.set_status_code(status);
            err
        };
        Some(match self {
            Self::Busy => said(S3ErrorCode::SlowDown),
            Self::Pause => {
                let mut err = S3Error::new(S3ErrorCode::SlowDown);
                let mut headers = HeaderMap::new();
                headers.insert("retry-after", HeaderValue::from_static("1.5"));
                err.set_headers(headers);
                err
            }
            Self::Denied => said(S3ErrorCode::AccessDenied),
            Self::Odd => {
                S3Error::with_message(S3ErrorCode::InvalidRequest, "Objects of this tier are written on Tuesdays.")
            }
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

/// A store that does not know the checksum headers and encodings of newer SDKs, and answers them as is on public record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strict {
    /// Backblaze B2 (exfilac#35, cyberduck#16107, zipline#746).
    B2,
    /// Google Cloud Storage (milvus-storage#480).
    Gcs,
    /// Cloudflare R2 (cloudflare-docs#4508, cloudflare-r2#12).
    R2,
    /// Aliyun OSS (memos#4511, karakeep#2191).
    Oss,
    /// s3proxy and Wasabi (s3proxy#847, rclone#2798).
    S3Proxy,
    /// A store behind a proxy that drops headers it does not know: the signature no longer fits.
    Stripping,
}

impl Strict {
    pub const ALL: [Self; 6] = [Self::B2, Self::Gcs, Self::R2, Self::Oss, Self::S3Proxy, Self::Stripping];

    /// The answer to a request with these headers, where it holds something that the store does not know.
    pub fn refusal(self, headers: &HeaderMap) -> Option<S3Error> {
        let known = |name: &str, value: &str| match name {
            "content-encoding" => !value.contains("aws-chunked"),
            "x-amz-content-sha256" => !value.starts_with("STREAMING"),
            "x-amz-sdk-checksum-algorithm" | "x-amz-trailer" => false,
            _ => !name.starts_with("x-amz-checksum-"),
        };
        let mut headers = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()));
        let (name, value) = headers.find(|(name, value)| !known(name, value))?;
        let answer = |status: u16, code: &'static str, message: String| {
            let mut err = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
            err.set_status_code(StatusCode::from_u16(status).unwrap());
            err
        };
        Some(match self {
            Self::B2 => {
                answer(400, "InvalidArgument", format!("Unsupported header '{name}' received for this API call."))
            }
            Self::Gcs => answer(
                400,
                "ExcessHeaderValues",
                "Multiple values for a header were provided where only one was expected.".to_owned(),
            ),
            Self::R2 => answer(501, "NotImplemented", format!("Header '{name}' with value '{value}' not implemented")),
            Self::Oss => answer(
                400,
                "InvalidArgument",
                "aws-chunked encoding is not supported with the specified x-amz-content-sha256 value.".to_owned(),
            ),
            Self::S3Proxy => answer(
                501,
                "NotImplemented",
                "A header you provided implies functionality that is not implemented.".to_owned(),
            ),
            Self::Stripping => answer(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.".to_owned(),
            ),
        })
    }
}
