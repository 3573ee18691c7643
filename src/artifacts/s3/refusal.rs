//! Classifies the error answers of a service, and keeps a short part of their text.

use std::error::Error;
use std::time::Duration;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::S3Requests;
use crate::artifacts::error::ObjectError;
use crate::domain::{chain, retry_after};

/// The longest pause a service can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Characters of a service's message that are kept.
const LONGEST_SENTENCE: usize = 300;

impl S3Requests {
    /// Classifies an SDK error. Only its text is kept, because the SDK's types hold whole requests and answers.
    pub(super) fn failed<E>(&self, action: &'static str, err: &SdkError<E>) -> ObjectError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let place = self.place.clone();
        let status = err.raw_response().map_or(0, |answer| answer.status().as_u16());
        let pause = || {
            let headers = err.raw_response()?.headers();
            retry_after(headers.get("retry-after")?, headers.get("date"))
        };
        let (known, message) = match err {
            SdkError::ServiceError(service) => (service.err().code(), service.err().message()),
            // The settings do not make a valid request.
            SdkError::ConstructionFailure(_) => {
                return ObjectError::Configuration { key: "objects", reason: chain(err) };
            }
            _ => return self.unavailable(action, chain(err)),
        };
        let code = known.map_or_else(|| format!("status {status}"), str::to_owned);
        let said = told(&code, message);
        match (status, code.as_str()) {
            (_, "RequestTimeTooSkewed") => {
                self.unavailable(action, "RequestTimeTooSkewed: this machine's clock and the store's disagree")
            }
            // The bytes were damaged or delayed in transit. A retry is the remedy.
            (400, "BadDigest" | "IncompleteBody" | "RequestTimeout" | "XAmzContentSHA256Mismatch") | (408 | 409, _) => {
                self.unavailable(action, said)
            }
            _ if is_full(status, &code) => ObjectError::Full { place, action, said },
            (401 | 403, _) | (_, "ExpiredToken" | "InvalidToken") => ObjectError::Denied { place, action, said },
            (501, _) => ObjectError::Rejected { place, action, said },
            (429 | 500.., _) => match pause().filter(|pause| *pause <= LONGEST_PAUSE) {
                Some(retry_after) => ObjectError::Throttled { place, retry_after, said },
                None => self.unavailable(action, said),
            },
            (_, "NoSuchBucket") => {
                ObjectError::NoBucket { place, action, said: format!("{said}; make the bucket or fix objects.bucket") }
            }
            (301 | 307, _) => {
                ObjectError::NoBucket { place, action, said: format!("{said}; check objects.region and endpoint") }
            }
            _ => ObjectError::Rejected { place, action, said },
        }
    }
}

/// Code and message of a refusal, on one line and of limited length.
fn told(code: &str, message: Option<&str>) -> String {
    let words: Vec<&str> = message.unwrap_or_default().split_whitespace().collect();
    let sentence: String = words.join(" ").chars().filter(|c| !c.is_control()).take(LONGEST_SENTENCE).collect();
    if sentence.is_empty() || sentence == code { code.to_owned() } else { format!("{code}: {sentence}") }
}

/// True when the service reports that it is full. `MinIO` answers 507 and has its own quota code. Ceph answers 403 with
/// `QuotaExceeded`. Swift, and proxies in front of any service, answer 413. None of our objects is near S3's own limit
/// of 5 GiB per request.
fn is_full(status: u16, code: &str) -> bool {
    matches!(status, 413 | 507)
        || matches!(code, "QuotaExceeded" | "EntityTooLarge" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_code_and_its_sentence_on_one_line_of_bounded_length() {
        assert_eq!(
            told("InvalidArgument", Some("Unsupported\n header  'x'.")),
            "InvalidArgument: Unsupported header 'x'."
        );
        assert_eq!(told("status 403", None), "status 403");
        assert_eq!(told("AccessDenied", Some(" ")), "AccessDenied");
        assert_eq!(told("a", Some(&"b".repeat(5000))).chars().count(), "a: ".len() + LONGEST_SENTENCE);
    }
}
