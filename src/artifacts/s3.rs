//! The requests of an S3-compatible service. All use of the AWS SDK is in this file and under `s3/`; what is done with
//! these requests is in `bucket.rs`.

mod listing;

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, ConfigBag, Credentials, Intercept, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    RuntimeComponents, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, ByteStreamError};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use bytes::Bytes;
use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::digest::{Sending, base64, md5_of};
use super::error::ObjectError;
use super::{Body, ObjectHead, Result};
use crate::config::{Objects, Sse};
use crate::domain::Sha256;

/// Tries of one request inside the SDK, pauses between them doubling.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest pause a service can ask for, in seconds.
const LONGEST_RETRY_AFTER: f64 = 3600.0;
/// User metadata that holds our own digest (`x-amz-meta-sha256`).
const SHA256_METADATA: &str = "sha256";

/// A bucket and how to ask it.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    client: Client,
    bucket: String,
    pub place: String,
    sse: Option<ServerSideEncryption>,
    timeout: Duration,
}

/// What the service says of a write.
#[derive(Debug)]
pub(super) struct Sent {
    pub version: Option<String>,
    /// `x-amz-server-side-encryption` of the answer.
    pub encryption: Option<String>,
}

/// What the service says of an object.
#[derive(Debug)]
pub(super) struct Stored {
    pub head: ObjectHead,
    pub sent: Sent,
}

/// A part that has arrived.
#[derive(Debug)]
pub(super) struct Part(CompletedPart);

/// A body on its way here.
pub(super) struct Incoming<'a> {
    requests: &'a Requests,
    pub size_bytes: Option<u64>,
    body: ByteStream,
}

impl Incoming<'_> {
    /// The next block; a body that stops coming is an error, not a wait.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        let next = tokio::time::timeout(self.requests.timeout, self.body.try_next()).await;
        let next = next.map_err(|_| self.requests.unavailable("a read", "the body stopped coming"))?;
        next.map_err(|err| self.requests.unavailable("a read", chain(&err)))
    }
}

impl Requests {
    /// A client for the configured bucket; no request is made.
    pub(super) fn new(config: &Objects) -> Result<Self> {
        let missing = |key| ObjectError::Configuration { key, reason: "must be set for objects.kind = \"s3\"".into() };
        let secret = config.secret_access_key.as_ref().ok_or_else(|| missing("objects.secret_access_key"))?;
        if config.access_key_id.is_empty() {
            return Err(missing("objects.access_key_id"));
        }
        if config.bucket.is_empty() {
            return Err(missing("objects.bucket"));
        }
        let credentials =
            Credentials::new(&config.access_key_id, secret.expose_secret(), None, None, "aftercall configuration");
        // The SDK's default of a checksum in a streaming trailer is refused by Ceph RGW 16, R2 and others; towards a
        // custom endpoint only the digests we compute ourselves are sent.
        let (checksums, validation) = if config.endpoint.is_empty() {
            (RequestChecksumCalculation::WhenSupported, ResponseChecksumValidation::WhenSupported)
        } else {
            (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired)
        };
        let timeout = config.timeout.0;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(timeout)
            .operation_attempt_timeout(timeout)
            .operation_timeout(timeout * ATTEMPTS + LONGEST_PAUSE * ATTEMPTS)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS)
            .with_initial_backoff(FIRST_PAUSE)
            .with_max_backoff(LONGEST_PAUSE);
        // Plain http needs no CA certificates and must not ask for them.
        let http = if config.endpoint.starts_with("http://") {
            aws_smithy_http_client::Builder::new().build_http()
        } else {
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
        };
        let mut settings = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(config.region.clone()))
            .credentials_provider(credentials)
            .http_client(http)
            .timeout_config(timeouts)
            .retry_config(retries)
            .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(timeout).build())
            .request_checksum_calculation(checksums)
            .response_checksum_validation(validation);
        let mut place = format!("bucket {}", config.bucket);
        if !config.endpoint.is_empty() {
            settings = settings.endpoint_url(checked_endpoint(&config.endpoint)?).force_path_style(true);
            place = format!("{place} at {}", config.endpoint);
        }
        let sse = match config.sse {
            Sse::None => None,
            Sse::Aes256 => Some(ServerSideEncryption::Aes256),
            Sse::AwsKms => Some(ServerSideEncryption::AwsKms),
        };
        Ok(Self { client: Client::from_conf(settings.build()), bucket: config.bucket.clone(), place, sse, timeout })
    }

    pub(super) fn unavailable(
        &self,
        action: &'static str,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> ObjectError {
        ObjectError::Unavailable { place: self.place.clone(), action, cause: cause.into() }
    }

    /// Sorts an SDK error. Only its words are kept: the SDK's own types carry whole requests and answers.
    fn failed<E>(&self, action: &'static str, err: &SdkError<E>) -> ObjectError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let place = self.place.clone();
        let (status, retry_after) = match err.raw_response() {
            Some(answer) => (answer.status().as_u16(), answer.headers().get("retry-after")),
            None => (0, None),
        };
        let known = match err {
            SdkError::ServiceError(service) => service.err().code(),
            SdkError::ConstructionFailure(_) => {
                return ObjectError::Rejected { place, action, code: chain(err) };
            }
            _ => return self.unavailable(action, chain(err)),
        };
        let code = known.map_or_else(|| format!("status {status}"), str::to_owned);
        match (status, code.as_str()) {
            (_, "RequestTimeTooSkewed") => {
                self.unavailable(action, "RequestTimeTooSkewed: this machine's clock and the store's disagree")
            }
            // The bytes were damaged or held up on their way; sending them again is the remedy.
            (400, "BadDigest" | "IncompleteBody" | "RequestTimeout" | "XAmzContentSHA256Mismatch") | (408 | 409, _) => {
                self.unavailable(action, code)
            }
            _ if is_full(status, &code) => ObjectError::Full { place, action, code },
            (401 | 403, _) | (_, "ExpiredToken" | "InvalidToken") => ObjectError::Denied { place, action, code },
            (501, _) => ObjectError::Rejected { place, action, code },
            (429 | 500.., _) => match retry_after.and_then(|text| text.trim().parse::<f64>().ok()) {
                Some(seconds) if seconds.is_finite() && (0.0..=LONGEST_RETRY_AFTER).contains(&seconds) => {
                    ObjectError::Throttled { place, retry_after: Duration::from_secs_f64(seconds) }
                }
                _ => self.unavailable(action, code),
            },
            (_, "NoSuchBucket") => {
                ObjectError::NoBucket { place, action, code: format!("{code}; make the bucket or mend objects.bucket") }
            }
            (301 | 307, _) => {
                ObjectError::NoBucket { place, action, code: format!("{code}; check objects.region and endpoint") }
            }
            _ => ObjectError::Rejected { place, action, code },
        }
    }

    /// One request for a whole body. It carries both digests; the service refuses bytes that do not match.
    pub(super) async fn put(&self, key: &str, content_type: &str, body: &Body, sending: &Sending) -> Result<Sent> {
        let body = match body {
            Body::Bytes(bytes) => ByteStream::from(bytes.clone()),
            Body::File(path) | Body::Made(path) => {
                let unreadable = |err: ByteStreamError| ObjectError::from_io("read", path, std::io::Error::other(err));
                ByteStream::from_path(path).await.map_err(unreadable)?
            }
        };
        let asked = self.client.put_object().bucket(&self.bucket).key(key).content_type(content_type);
        let sent = asked
            .content_length(sending.digest.size_bytes as i64)
            .content_md5(base64(&sending.md5))
            .checksum_sha256(base64(sending.digest.sha256.as_bytes()))
            .metadata(SHA256_METADATA, sending.digest.sha256.to_string())
            .set_server_side_encryption(self.sse.clone())
            .body(body)
            .send()
            .await
            .map_err(|err| self.failed("a write", &err))?;
        let encryption = sent.server_side_encryption.map(|sse| sse.as_str().to_owned());
        Ok(Sent { version: sent.version_id, encryption })
    }

    /// The id of a new multipart upload.
    pub(super) async fn begin_upload(&self, key: &str, content_type: &str, sha256: &Sha256) -> Result<String> {
        let asked = self.client.create_multipart_upload().bucket(&self.bucket).key(key).content_type(content_type);
        let begun = asked
            .metadata(SHA256_METADATA, sha256.to_string())
            .set_server_side_encryption(self.sse.clone())
            .send()
            .await
            .map_err(|err| self.failed("the start of an upload", &err))?;
        begun.upload_id.ok_or_else(|| self.unavailable("the start of an upload", "no upload id in the answer"))
    }

    pub(super) async fn put_part(&self, key: &str, upload: &str, number: i32, bytes: Bytes) -> Result<Part> {
        let asked = self.client.upload_part().bucket(&self.bucket).key(key).upload_id(upload).part_number(number);
        let sent = asked
            .content_md5(base64(&md5_of(&bytes)))
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map_err(|err| self.failed("a part of a write", &err))?;
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(sent.e_tag)
            .set_checksum_crc32(sent.checksum_crc32)
            .set_checksum_crc32_c(sent.checksum_crc32_c)
            .set_checksum_crc64_nvme(sent.checksum_crc64_nvme);
        Ok(Part(part.build()))
    }

    /// Makes the parts an object. `None` when the service does not know the upload: an earlier try, whose answer was
    /// lost, may have ended it.
    pub(super) async fn end_upload(&self, key: &str, upload: &str, parts: Vec<Part>) -> Result<Option<Sent>> {
        let parts = parts.into_iter().map(|part| part.0).collect();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let asked = self.client.complete_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload);
        match asked.multipart_upload(parts).send().await {
            Ok(done) => {
                let encryption = done.server_side_encryption.map(|sse| sse.as_str().to_owned());
                Ok(Some(Sent { version: done.version_id, encryption }))
            }
            Err(err) if err.code() == Some("NoSuchUpload") => Ok(None),
            Err(err) => Err(self.failed("the end of an upload", &err)),
        }
    }

    pub(super) async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        let asked = self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload);
        match asked.send().await {
            Ok(_) => Ok(()),
            Err(err) if err.code() == Some("NoSuchUpload") => Ok(()),
            Err(err) => Err(self.failed("the end of an unfinished upload", &err)),
        }
    }

    /// `None` where there is no such object.
    pub(super) async fn look_at(&self, key: &str) -> Result<Option<Stored>> {
        let answer = match self.client.head_object().bucket(&self.bucket).key(key).send().await {
            Ok(answer) => answer,
            Err(err) if err.raw_response().is_some_and(|answer| answer.status().as_u16() == 404) => return Ok(None),
            Err(err) => return Err(self.failed("a look at an object", &err)),
        };
        let recorded = answer.metadata().and_then(|all| all.get(SHA256_METADATA));
        let head = ObjectHead {
            size_bytes: unsigned(answer.content_length),
            sha256: recorded.and_then(|text| Sha256::parse(text).ok()),
            content_type: answer.content_type,
        };
        let encryption = answer.server_side_encryption.map(|sse| sse.as_str().to_owned());
        Ok(Some(Stored { head, sent: Sent { version: answer.version_id, encryption } }))
    }

    /// `None` where there is no such object.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Incoming<'_>>> {
        match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(answer) => {
                let size_bytes = answer.content_length.and_then(|size| u64::try_from(size).ok());
                Ok(Some(Incoming { requests: self, size_bytes, body: answer.body }))
            }
            Err(err) if err.code() == Some("NoSuchKey") => Ok(None),
            Err(err) => Err(self.failed("a read", &err)),
        }
    }

    /// Deletes this version for good; one that is not there is deleted already.
    pub(super) async fn delete(&self, key: &str, version: Option<&str>) -> Result<()> {
        let asked = self.client.delete_object().bucket(&self.bucket).key(key);
        match asked.set_version_id(version.map(str::to_owned)).send().await {
            Ok(_) => Ok(()),
            Err(err) if matches!(err.code(), Some("NoSuchKey" | "NoSuchVersion")) => Ok(()),
            Err(err) => Err(self.failed("a delete", &err)),
        }
    }

    /// The service's clock, told even by a refusal.
    pub(super) async fn date(&self) -> Result<Option<Timestamp>> {
        let date = DateHeader::default();
        let asked = self.client.head_bucket().bucket(&self.bucket).customize().interceptor(date.clone());
        let answered = asked.send().await;
        let date = date.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match answered {
            Err(err) if date.is_none() => Err(self.failed("a look at the bucket", &err)),
            _ => Ok(date),
        }
    }
}

/// Keeps the `Date` of the last answer.
#[derive(Debug, Clone, Default)]
struct DateHeader(Arc<Mutex<Option<Timestamp>>>);

impl Intercept for DateHeader {
    fn name(&self) -> &'static str {
        "date header"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _settings: &mut ConfigBag,
    ) -> Result<(), aws_sdk_s3::error::BoxError> {
        let date = context.response().headers().get("date").and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date.map(|date| date.timestamp());
        Ok(())
    }
}

/// Whether a service says that there is no room. 507 is `MinIO`'s, as is its quota's code; Ceph answers 403 with
/// `QuotaExceeded`; Swift, and proxies in front of any, 413. No object of ours is near S3's own limit of 5 GiB a request.
fn is_full(status: u16, code: &str) -> bool {
    matches!(status, 413 | 507)
        || matches!(code, "QuotaExceeded" | "EntityTooLarge" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded")
}

fn checked_endpoint(text: &str) -> Result<&str> {
    let wrong = |reason: &str| ObjectError::Configuration { key: "objects.endpoint", reason: reason.to_owned() };
    let url = url::Url::parse(text).map_err(|_| wrong("must be a URL such as https://s3.example.com"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("must start with http:// or https:// and name a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not carry credentials; use objects.access_key_id and objects.secret_access_key"));
    }
    Ok(text)
}

fn unsigned(size: Option<i64>) -> u64 {
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default()
}

/// An error with all its causes on one line.
fn chain(err: &(dyn Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_with_credentials_is_refused_without_repeating_them() {
        let text = checked_endpoint("https://user:hunter2@s3.test").unwrap_err().to_string();
        assert!(text.contains("objects.endpoint") && !text.contains("hunter2"), "{text}");
    }
}
