//! Writes: a whole body in one request, or in parts. Every body carries our own digests, so the service refuses bytes
//! that do not match.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::{ByteStream, ByteStreamError};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::{S3Requests, SHA256_METADATA, Sent, UploadPart};
use crate::artifacts::digest::{Sending, md5_of};
use crate::artifacts::error::ObjectError;
use crate::artifacts::{Body, Result};
use crate::domain::Sha256;

/// True when the service has refused `x-amz-checksum-sha256`. B2, GCS, R2 and others do not know it. All services know
/// `Content-MD5` (RFC 1864). The value lasts as long as the process.
#[derive(Debug, Default)]
pub(super) struct Digests {
    md5_alone: AtomicBool,
}

/// The digests of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum With {
    Sha256AndMd5,
    Md5,
}

impl S3Requests {
    /// Sends a whole body in one request. A refusal is retried once with `Content-MD5` only. Services have no special
    /// code for an unknown checksum header.
    pub(in crate::artifacts) async fn put(
        &self,
        key: &str,
        content_type: &str,
        body: &Body,
        sending: &Sending,
    ) -> Result<Sent> {
        if self.digests.md5_alone.load(Ordering::Relaxed) {
            return self.put_with(With::Md5, (key, content_type), body, sending).await;
        }
        let refusal = match self.put_with(With::Sha256AndMd5, (key, content_type), body, sending).await {
            Err(refusal) if may_be_of_a_header(&refusal) => refusal,
            answer => return answer,
        };
        let sent = self.put_with(With::Md5, (key, content_type), body, sending).await?;
        if !self.digests.md5_alone.swap(true, Ordering::Relaxed) {
            let place = self.place.as_str();
            tracing::info!(place, %refusal, "this store needs Content-MD5; x-amz-checksum-sha256 is not sent again");
        }
        Ok(sent)
    }

    async fn put_with(
        &self,
        with: With,
        (key, content_type): (&str, &str),
        body: &Body,
        sending: &Sending,
    ) -> Result<Sent> {
        let body = match body {
            Body::Bytes(bytes) => ByteStream::from(bytes.clone()),
            Body::File(path) | Body::Made(path) => {
                let unreadable = |err: ByteStreamError| ObjectError::from_io("read", path, std::io::Error::other(err));
                ByteStream::from_path(path).await.map_err(unreadable)?
            }
        };
        let asked = self.client.put_object().bucket(&self.bucket).key(key).content_type(content_type);
        let sha256 = (with == With::Sha256AndMd5).then(|| STANDARD.encode(sending.digest.sha256.as_bytes()));
        let sent = asked
            .content_length(sending.digest.size_bytes as i64)
            .content_md5(STANDARD.encode(sending.md5))
            .set_checksum_sha256(sha256)
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
    pub(in crate::artifacts) async fn begin_upload(
        &self,
        key: &str,
        content_type: &str,
        sha256: &Sha256,
    ) -> Result<String> {
        let asked = self.client.create_multipart_upload().bucket(&self.bucket).key(key).content_type(content_type);
        let begun = asked
            .metadata(SHA256_METADATA, sha256.to_string())
            .set_server_side_encryption(self.sse.clone())
            .send()
            .await
            .map_err(|err| self.failed("the start of an upload", &err))?;
        begun.upload_id.ok_or_else(|| self.unavailable("the start of an upload", "no upload id in the answer"))
    }

    pub(in crate::artifacts) async fn put_part(
        &self,
        key: &str,
        upload: &str,
        number: i32,
        bytes: Bytes,
    ) -> Result<UploadPart> {
        let asked = self.client.upload_part().bucket(&self.bucket).key(key).upload_id(upload).part_number(number);
        let sent = asked
            .content_md5(STANDARD.encode(md5_of(&bytes)))
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map_err(|err| self.failed("a part of a write", &err))?;
        let part = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag);
        Ok(UploadPart(part.build()))
    }

    /// Completes the upload. `None` when the service does not know the upload: an earlier try with a lost answer may
    /// have completed it.
    pub(in crate::artifacts) async fn end_upload(
        &self,
        key: &str,
        upload: &str,
        parts: Vec<UploadPart>,
    ) -> Result<Option<Sent>> {
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

    pub(in crate::artifacts) async fn abort_upload(&self, key: &str, upload: &str) -> Result<()> {
        let asked = self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload);
        match asked.send().await {
            Ok(_) => Ok(()),
            Err(err) if err.code() == Some("NoSuchUpload") => Ok(()),
            Err(err) => Err(self.failed("the end of an unfinished upload", &err)),
        }
    }
}

/// True when an unknown header may have caused the refusal. Either the request was refused as invalid, or the service
/// computed the signature without the header.
fn may_be_of_a_header(refusal: &ObjectError) -> bool {
    match refusal {
        ObjectError::Rejected { .. } => true,
        ObjectError::Denied { said, .. } => said.starts_with("SignatureDoesNotMatch"),
        _ => false,
    }
}
