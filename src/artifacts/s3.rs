//! Requests to an S3-compatible service. Only this file and `s3/` use the AWS SDK. `bucket.rs` builds the store from
//! these requests.

mod listing;
mod refusal;
mod write;

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
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedPart, ServerSideEncryption};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use bytes::Bytes;
use jiff::Timestamp;
use secrecy::ExposeSecret;

use self::write::Digests;
use super::error::ObjectError;
use super::{ObjectHead, Result};
use crate::config::{Objects, Sse};
use crate::domain::{Sha256, chain};

/// Tries of one request inside the SDK. The pause doubles after each.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// User metadata with our own digest (`x-amz-meta-sha256`).
const SHA256_METADATA: &str = "sha256";

/// A client for one bucket.
#[derive(Debug, Clone)]
pub(super) struct S3Requests {
    client: Client,
    bucket: String,
    pub place: String,
    sse: Option<ServerSideEncryption>,
    timeout: Duration,
    /// The digests that this service accepts for a whole body. Clones share the result of the first try.
    digests: Arc<Digests>,
}

/// The service's answer to a write.
#[derive(Debug)]
pub(super) struct Sent {
    pub version: Option<String>,
    /// `x-amz-server-side-encryption` of the answer.
    pub encryption: Option<String>,
}

/// The service's answer about a stored object.
#[derive(Debug)]
pub(super) struct Stored {
    pub head: ObjectHead,
    pub sent: Sent,
}

/// An uploaded part.
#[derive(Debug)]
pub(super) struct UploadPart(CompletedPart);

/// A body that is being received.
pub(super) struct Incoming<'a> {
    requests: &'a S3Requests,
    pub size_bytes: Option<u64>,
    body: ByteStream,
}

impl Incoming<'_> {
    /// The next block. A stalled body is an error after the timeout.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        let next = tokio::time::timeout(self.requests.timeout, self.body.try_next()).await;
        let next =
            next.map_err(|_| self.requests.unavailable("a read", "the body stalled; no data came within the timeout"))?;
        next.map_err(|err| self.requests.unavailable("a read", chain(&err)))
    }
}

impl S3Requests {
    /// A client for the configured bucket. It makes no request.
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
        // Plain http works on a machine without CA certificates.
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
            // The SDK's defaults are refused by B2, GCS, R2, OSS, Ceph RGW 16 and others. With these defaults every
            // write has a checksum of the SDK's choice as a trailer of an aws-chunked body, and every read has
            // `x-amz-checksum-mode`. Here every body carries our own digests, and every read is checked against the
            // record's.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
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
        Ok(Self {
            client: Client::from_conf(settings.build()),
            bucket: config.bucket.clone(),
            place,
            sse,
            timeout,
            digests: Arc::default(),
        })
    }

    pub(super) fn unavailable(
        &self,
        action: &'static str,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> ObjectError {
        ObjectError::Unavailable { place: self.place.clone(), action, cause: cause.into() }
    }

    /// `None` where the object does not exist.
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

    /// `None` where the object does not exist.
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

    /// Deletes this version for good. A missing version is no error.
    pub(super) async fn delete(&self, key: &str, version: Option<&str>) -> Result<()> {
        let asked = self.client.delete_object().bucket(&self.bucket).key(key);
        match asked.set_version_id(version.map(str::to_owned)).send().await {
            Ok(_) => Ok(()),
            Err(err) if matches!(err.code(), Some("NoSuchKey" | "NoSuchVersion")) => Ok(()),
            Err(err) => Err(self.failed("a delete", &err)),
        }
    }

    /// The service's clock. A refusal carries it too.
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

/// Interceptor that keeps the `Date` header of the latest answer.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_with_credentials_is_refused_without_repeating_them() {
        let text = checked_endpoint("https://user:hunter2@s3.test").unwrap_err().to_string();
        assert!(text.contains("objects.endpoint") && !text.contains("hunter2"), "{text}");
    }
}
