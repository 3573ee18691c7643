//! The recording host: signed links with an expiry, ranges (RFC 9110 section 14), an entity tag per file.

use std::ops::Range;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::entries::CallEntry;
use super::sample::{Api, SampleCall};
use super::state::Inner;
use crate::domain::address::percent_encoded;

/// Key of the links' signatures. It is not a secret, because the recordings are part of the program.
const SIGNING_KEY: &[u8] = b"sample platform";

#[derive(Deserialize)]
pub(super) struct Signature {
    #[serde(default)]
    sig: String,
    #[serde(default)]
    exp: i64,
}

/// The links of one answer, with the server's address as the client knows it, and the expiry.
pub(super) struct Links<'a> {
    inner: &'a Inner,
    base: String,
    pub expires_at: Timestamp,
}

impl<'a> Links<'a> {
    /// `headers` are the request's headers. Links use its host, because one listener serves everything.
    pub(super) fn new(inner: &'a Inner, headers: &HeaderMap) -> Self {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let base = inner.recording_base.clone().unwrap_or_else(|| format!("http://{host}"));
        Self { inner, base, expires_at: inner.now() + inner.link_ttl }
    }

    /// The link to the mixed recording, where it is visible.
    pub(super) fn mono(&self, call: &SampleCall) -> Option<String> {
        let own = call.audio.as_ref().map(|audio| self.sign(call.api, &call.file(audio)));
        call.recording_url.clone().or(own)
    }

    /// The link to the recording with one leg per channel.
    pub(super) fn dual(&self, call: &SampleCall) -> Option<String> {
        call.dual_audio.as_ref().map(|audio| self.sign(call.api, &call.dual_file(audio)))
    }

    /// [`Links::mono`] in an answer about one call. The answer counts as a request for the call.
    pub(super) fn looked(&self, entry: &CallEntry) -> Option<String> {
        entry.look().then(|| self.mono(&entry.call)).flatten()
    }

    /// [`Links::mono`] in a list, which may not show it yet.
    pub(super) fn listed(&self, entry: &CallEntry) -> Option<String> {
        entry.listed().then(|| self.mono(&entry.call)).flatten()
    }

    fn sign(&self, api: Api, file: &str) -> String {
        let exp = self.expires_at.as_second();
        let sig = signature(api.folder(), file, exp);
        format!("{}/recordings/{}/{}?exp={exp}&sig={sig}", self.base, api.folder(), percent_encoded(file))
    }

    pub(super) fn is_live(&self, exp: i64) -> bool {
        self.inner.now().as_second() < exp
    }
}

pub(super) async fn recording(
    State(inner): State<Arc<Inner>>,
    Path((folder, file)): Path<(String, String)>,
    Query(given): Query<Signature>,
    headers: HeaderMap,
) -> Response {
    let refused = |code| (StatusCode::FORBIDDEN, format!("<Error><Code>{code}</Code></Error>")).into_response();
    if given.sig != signature(&folder, &file, given.exp) {
        return refused("SignatureDoesNotMatch");
    }
    if !Links::new(&inner, &headers).is_live(given.exp) {
        return refused("AccessDenied");
    }
    let audio = Api::of_folder(&folder).and_then(|api| inner.calls().file(api, &file));
    let Some(audio) = audio else {
        return (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>").into_response();
    };
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(&audio.bytes)[..16]));
    let length = audio.bytes.len();
    let fixed = [
        (header::CONTENT_TYPE, audio.container.content_type().to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, tag.clone()),
    ];
    match asked_range(&headers, &tag, length) {
        RequestedRange::Whole => (fixed, audio.bytes).into_response(),
        RequestedRange::Part(range) => {
            let content_range = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            let part = audio.bytes.slice(range);
            (StatusCode::PARTIAL_CONTENT, fixed, [(header::CONTENT_RANGE, content_range)], part).into_response()
        }
        RequestedRange::Nothing => {
            let content_range = format!("bytes */{length}");
            (StatusCode::RANGE_NOT_SATISFIABLE, fixed, [(header::CONTENT_RANGE, content_range)]).into_response()
        }
    }
}

enum RequestedRange {
    Whole,
    Part(Range<usize>),
    /// A range after the end.
    Nothing,
}

/// One valid range is served. Several ranges, malformed ranges and ranges of another version get the whole file.
fn asked_range(headers: &HeaderMap, tag: &str, length: usize) -> RequestedRange {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|wanted| wanted != tag) {
        return RequestedRange::Whole;
    }
    let range =
        text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.split_once('-'));
    let (start, end) = match range {
        Some(("", suffix)) => match suffix.parse::<usize>() {
            Ok(last) => (length.saturating_sub(last), length),
            Err(_) => return RequestedRange::Whole,
        },
        Some((start, end)) => match (start.parse::<usize>(), end.parse::<usize>()) {
            (Ok(start), Ok(end)) => (start, end.saturating_add(1).min(length)),
            (Ok(start), Err(_)) if end.is_empty() => (start, length),
            _ => return RequestedRange::Whole,
        },
        None => return RequestedRange::Whole,
    };
    if start < end { RequestedRange::Part(start..end) } else { RequestedRange::Nothing }
}

fn signature(folder: &str, file: &str, exp: i64) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(SIGNING_KEY) else {
        return String::new();
    };
    mac.update(format!("{folder}/{file}\n{exp}").as_bytes());
    hex::encode(mac.finalize().into_bytes())
}
