//! What a service's refusal means, and what of its words is kept.

use std::error::Error;
use std::time::Duration;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::Requests;
use crate::artifacts::error::ObjectError;
use crate::domain::chain;

/// The longest pause a service can ask for, in seconds.
const LONGEST_RETRY_AFTER: f64 = 3600.0;
/// Characters of a service's sentence that are kept.
const LONGEST_SENTENCE: usize = 300;

impl Requests {
    /// Sorts an SDK error. Only its words are kept: the SDK's own types carry whole requests and answers.
    pub(super) fn failed<E>(&self, action: &'static str, err: &SdkError<E>) -> ObjectError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let place = self.place.clone();
        let (status, retry_after) = match err.raw_response() {
            Some(answer) => (answer.status().as_u16(), answer.headers().get("retry-after")),
            None => (0, None),
        };
        let (known, message) = match err {
            SdkError::ServiceError(service) => (service.err().code(), service.err().message()),
            // No request could be made of the settings.
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
            // The bytes were damaged or held up on their way; sending them again is the remedy.
            (400, "BadDigest" | "IncompleteBody" | "RequestTimeout" | "XAmzContentSHA256Mismatch") | (408 | 409, _) => {
                self.unavailable(action, said)
            }
            _ if is_full(status, &code) => ObjectError::Full { place, action, said },
            (401 | 403, _) | (_, "ExpiredToken" | "InvalidToken") => ObjectError::Denied { place, action, said },
            (501, _) => ObjectError::Rejected { place, action, said },
            (429 | 500.., _) => match retry_after.and_then(|text| text.trim().parse::<f64>().ok()) {
                Some(seconds) if seconds.is_finite() && (0.0..=LONGEST_RETRY_AFTER).contains(&seconds) => {
                    ObjectError::Throttled { place, retry_after: Duration::from_secs_f64(seconds), said }
                }
                _ => self.unavailable(action, said),
            },
            (_, "NoSuchBucket") => {
                ObjectError::NoBucket { place, action, said: format!("{said}; make the bucket or mend objects.bucket") }
            }
            (301 | 307, _) => {
                ObjectError::NoBucket { place, action, said: format!("{said}; check objects.region and endpoint") }
            }
            _ => ObjectError::Rejected { place, action, said },
        }
    }
}

/// The code and the sentence of a refusal, on one line and of bounded length.
fn told(code: &str, message: Option<&str>) -> String {
    let words: Vec<&str> = message.unwrap_or_default().split_whitespace().collect();
    let sentence: String = words.join(" ").chars().filter(|c| !c.is_control()).take(LONGEST_SENTENCE).collect();
    if sentence.is_empty() || sentence == code { code.to_owned() } else { format!("{code}: {sentence}") }
}

/// Whether a service says that there is no room. 507 is `MinIO`'s, as is its quota's code; Ceph answers 403 with
/// `QuotaExceeded`; Swift, and proxies in front of any, 413. No object of ours is near S3's own limit of 5 GiB a request.
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
