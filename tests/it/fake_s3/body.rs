//! Bodies as they arrive, checked against their digests.

use bytes::Bytes;
use futures::TryStreamExt;
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::faults::Fault;

/// The whole body, damaged on its way where that is the fault.
pub async fn collect(body: Option<StreamingBlob>, content_md5: Option<&str>, fault: Option<Fault>) -> S3Result<Bytes> {
    let Some(body) = body else { return Ok(Bytes::new()) };
    let parts: Vec<Bytes> = body.try_collect().await.map_err(|_| S3Error::new(S3ErrorCode::IncompleteBody))?;
    let mut whole = parts.concat();
    if let (Some(Fault::Damaged), Some(byte)) = (fault, whole.first_mut()) {
        *byte ^= 1;
    }
    let whole = Bytes::from(whole);
    // A client that stops sending digests must not pass unnoticed.
    let wanted = content_md5.ok_or_else(|| S3Error::new(S3ErrorCode::InvalidDigest))?;
    let md5: [u8; 16] = <md5::Md5 as md5::Digest>::digest(&whole).into();
    if decode64(wanted) != md5 {
        return Err(S3ErrorCode::BadDigest.into());
    }
    Ok(whole)
}

/// Written apart from the code under test, and the other way round.
fn decode64(text: &str) -> Vec<u8> {
    let value =
        |c: u8| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|&d| d == c);
    let digits: Vec<usize> = text.bytes().filter_map(value).collect();
    let bits: Vec<bool> = digits.iter().flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1 == 1)).collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit))).collect()
}
