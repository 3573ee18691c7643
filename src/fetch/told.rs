//! A host's headers about a recording: size, version, part of the body, and the meaning of an error answer.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED,
    RETRY_AFTER,
};
use serde::{Deserialize, Serialize};

use super::error::FetchError;
use crate::domain::pause::{http_date, retry_after};

/// The longest accepted pause of a recording host.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// A `Last-Modified` this many seconds older than `Date` cannot hide a second change within the same second (RFC 9110
/// section 8.8.2.2).
const STRONG_DATE: Duration = Duration::from_secs(60);

/// A host's data about a recording at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The size as sent, packed or not.
    pub size_bytes: Option<u64>,
    /// Entity tag, or else the time of the last change.
    pub tag: Option<String>,
}

/// The comparison of two answers about one recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Same,
    Longer,
    Shorter,
    /// The headers do not decide it. Only another download can.
    Untold,
}

impl Told {
    /// Compares this earlier answer with a newer one.
    #[must_use]
    pub fn since(&self, now: &Self) -> Change {
        match (self.size_bytes, now.size_bytes) {
            (Some(before), Some(now)) if now > before => Change::Longer,
            (Some(before), Some(now)) if now < before => Change::Shorter,
            (Some(_), Some(_)) => Change::Same,
            _ if self.tag.is_some() && self.tag == now.tag => Change::Same,
            _ => Change::Untold,
        }
    }

    /// Reads the answer to a request for one byte.
    pub(super) fn of_size(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        let size_bytes = match status {
            StatusCode::PARTIAL_CONTENT => part(headers).and_then(|part| part.total),
            StatusCode::RANGE_NOT_SATISFIABLE => {
                text(headers, CONTENT_RANGE).and_then(|range| range.trim().strip_prefix("bytes */")?.parse().ok())
            }
            status if status.is_success() => length(headers),
            _ => return None,
        };
        Some(Self { size_bytes, tag: tag(headers) })
    }
}

/// The part of a body in an answer (`Content-Range: bytes 100-199/200`, RFC 9110 section 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub first: u64,
    /// The position after the last byte.
    pub end: u64,
    pub total: Option<u64>,
}

pub(super) fn part(headers: &HeaderMap) -> Option<Part> {
    let range = text(headers, CONTENT_RANGE)?.trim().strip_prefix("bytes ")?;
    let (range, total) = range.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse::<u64>().ok()?);
    Some(Part { first, end: last.checked_add(1)?, total: total.trim().parse().ok() })
}

pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, CONTENT_LENGTH).and_then(|length| length.trim().parse().ok())
}

pub(super) fn content_type(headers: &HeaderMap) -> Option<String> {
    text(headers, CONTENT_TYPE).map(str::to_owned)
}

/// The words of the `Content-Encoding` headers, for the resume note.
pub(super) fn content_encoding(headers: &HeaderMap) -> String {
    let words = headers.get_all(CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    words.collect::<Vec<_>>().join(",")
}

/// A version tag, weak or strong.
pub(super) fn tag(headers: &HeaderMap) -> Option<String> {
    let tag = text(headers, ETAG).map(|tag| tag.trim().trim_start_matches("W/"));
    tag.or_else(|| text(headers, LAST_MODIFIED)).map(str::to_owned)
}

/// A validator that is strong enough for `If-Range`.
pub(super) fn validator(headers: &HeaderMap) -> Option<String> {
    if let Some(tag) = text(headers, ETAG) {
        return tag.starts_with('"').then(|| tag.to_owned());
    }
    let modified = text(headers, LAST_MODIFIED)?;
    let age = http_date(text(headers, DATE)?)?.duration_since(http_date(modified)?).ok()?;
    (age >= STRONG_DATE).then(|| modified.to_owned())
}

/// The error for an answer without a recording.
pub(super) fn refusal(host: String, status: StatusCode, headers: &HeaderMap) -> FetchError {
    let retry_after = pause_asked_for(headers);
    let status = status.as_u16();
    match status {
        204 | 205 => FetchError::Empty { host },
        400 | 401 | 403 => FetchError::Denied { host, status },
        404 | 410 => FetchError::Gone { host, status },
        429 => FetchError::Throttled { host, status, retry_after },
        503 if retry_after.is_some() => FetchError::Throttled { host, status, retry_after },
        408 | 425 | 500..=599 => FetchError::ServerError { host, status },
        _ => FetchError::Unexpected { host, status },
    }
}

fn pause_asked_for(headers: &HeaderMap) -> Option<Duration> {
    retry_after(text(headers, RETRY_AFTER)?, text(headers, DATE)).map(|pause| pause.min(LONGEST_PAUSE))
}

pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_pause_is_bounded() {
        let asked = |text| pause_asked_for(&headers(&[(RETRY_AFTER, text), (DATE, "Sun, 06 Nov 1994 08:49:37 GMT")]));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(asked("99999999"), Some(LONGEST_PAUSE));
    }

    #[test]
    fn only_strong_validators_allow_resuming() {
        let old = "Sun, 06 Nov 1994 08:00:00 GMT";
        let new = "Sun, 06 Nov 1994 08:49:30 GMT";
        let date = (DATE, "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(validator(&headers(&[(ETAG, "\"abc\"")])).as_deref(), Some("\"abc\""));
        assert_eq!(validator(&headers(&[(ETAG, "W/\"abc\""), (LAST_MODIFIED, old), date.clone()])), None);
        assert_eq!(validator(&headers(&[(LAST_MODIFIED, old), date.clone()])).as_deref(), Some(old));
        assert_eq!(validator(&headers(&[(LAST_MODIFIED, new), date])), None);
    }

    #[test]
    fn the_size_is_told_by_whatever_header_has_it() {
        let size = |status, pairs: &[(HeaderName, &'static str)]| {
            Told::of_size(StatusCode::from_u16(status).unwrap(), &headers(pairs)).map(|told| told.size_bytes)
        };
        assert_eq!(size(206, &[(CONTENT_RANGE, "bytes 0-0/1234"), (CONTENT_LENGTH, "1")]), Some(Some(1234)));
        assert_eq!(size(206, &[(CONTENT_RANGE, "bytes 0-0/*"), (CONTENT_LENGTH, "1")]), Some(None));
        assert_eq!(size(206, &[(CONTENT_LENGTH, "1")]), Some(None));
        assert_eq!(size(416, &[(CONTENT_RANGE, "bytes */0")]), Some(Some(0)));
        assert_eq!(size(200, &[(CONTENT_LENGTH, "77")]), Some(Some(77)));
        assert_eq!(size(203, &[(CONTENT_LENGTH, "77")]), Some(Some(77)));
        assert_eq!(size(200, &[]), Some(None));
        assert_eq!(size(403, &[(CONTENT_LENGTH, "77")]), None);
    }

    #[test]
    fn two_answers_are_compared_by_size_and_else_by_tag() {
        let told = |size_bytes, tag: Option<&str>| Told { size_bytes, tag: tag.map(str::to_owned) };
        assert_eq!(told(Some(1), None).since(&told(Some(2), None)), Change::Longer);
        assert_eq!(told(Some(2), Some("\"a\"")).since(&told(Some(1), Some("\"b\""))), Change::Shorter);
        assert_eq!(told(Some(2), Some("\"a\"")).since(&told(Some(2), Some("\"b\""))), Change::Same);
        assert_eq!(told(None, Some("\"a\"")).since(&told(Some(2), Some("\"a\""))), Change::Same);
        assert_eq!(told(Some(2), Some("\"a\"")).since(&told(None, Some("\"b\""))), Change::Untold);
        assert_eq!(told(None, None).since(&told(None, None)), Change::Untold);
        assert_eq!(tag(&headers(&[(ETAG, "W/\"a\"")])), tag(&headers(&[(ETAG, "\"a\"")])));
    }
}
