//! The pause that a platform asks for. It may be a number of seconds with a fraction (RFC 9110 does not allow it,
//! KrosAI sends it), an HTTP date, a member of the body, or the end of a rate window.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::fields::{json, number};
use super::time::instant;

/// Longest accepted pause. A mistyped answer must not stop a source for years.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Header values about pauses.
#[derive(Debug, Clone, Copy, Default)]
pub struct PauseHeaders<'a> {
    /// `Retry-After`.
    pub retry_after: Option<&'a str>,
    /// `X-RateLimit-Reset`, epoch seconds.
    pub rate_limit_reset: Option<&'a str>,
    /// `Date`: the platform's own time. The two dates are compared with it, so our clock does not matter.
    pub date: Option<&'a str>,
}

/// The requested pause, counted from the answer. `None` where none can be read.
#[must_use]
pub fn pause(headers: PauseHeaders<'_>, body: &[u8]) -> Option<Duration> {
    let now = headers.date.and_then(http_date);
    let until = |at: Timestamp| Some(Duration::try_from(at.duration_since(now?)).unwrap_or(Duration::ZERO));
    let header = headers.retry_after.map(str::trim);
    header
        .and_then(|text| text.parse().ok())
        .and_then(seconds)
        .or_else(|| header.and_then(http_date).and_then(until))
        .or_else(|| number(&json(body).ok()?, &["retry_after"]).and_then(seconds))
        .or_else(|| instant(&Value::from(headers.rate_limit_reset?)).and_then(until))
        .map(|pause| pause.min(LONGEST))
}

fn seconds(seconds: f64) -> Option<Duration> {
    if seconds.is_nan() || seconds < 0.0 {
        return None;
    }
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST))
}

/// An HTTP date in any of its three forms (RFC 9110 section 5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let utc = |format| DateTime::strptime(format, text).ok()?.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    DateTimeParser::new()
        .parse_timestamp(text)
        .ok()
        .or_else(|| utc("%A, %d-%b-%y %H:%M:%S GMT"))
        .or_else(|| utc("%a %b %e %H:%M:%S %Y"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn header(retry_after: &str) -> Option<Duration> {
        pause(PauseHeaders { retry_after: Some(retry_after), date: Some(DATE), ..PauseHeaders::default() }, b"")
    }

    #[test]
    fn seconds_may_have_a_fraction() {
        assert_eq!(header("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(header(" 60 "), Some(Duration::from_secs(60)));
        assert_eq!(header("0"), Some(Duration::ZERO));
    }

    #[test]
    fn all_three_date_forms_count_from_the_answers_own_date() {
        let dates = ["Sun, 06 Nov 1994 08:50:07 GMT", "Sunday, 06-Nov-94 08:50:07 GMT", "Sun Nov  6 08:50:07 1994"];
        for date in dates {
            assert_eq!(header(date), Some(Duration::from_secs(30)), "{date}");
        }
        assert_eq!(header("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        let undated = PauseHeaders { retry_after: Some(dates[0]), ..PauseHeaders::default() };
        assert_eq!(pause(undated, b""), None);
    }

    #[test]
    fn the_body_speaks_where_the_header_does_not() {
        assert_eq!(pause(PauseHeaders::default(), br#"{"retry_after": 60}"#), Some(Duration::from_secs(60)));
        let nonsense = PauseHeaders { retry_after: Some("soon"), ..PauseHeaders::default() };
        assert_eq!(pause(nonsense, br#"{"retry_after": "2.5"}"#), Some(Duration::from_millis(2500)));
        let reset = PauseHeaders { rate_limit_reset: Some("784111787"), date: Some(DATE), ..PauseHeaders::default() };
        assert_eq!(pause(reset, b"<html>"), Some(Duration::from_secs(10)));
    }

    #[test]
    fn nonsense_is_bounded() {
        assert_eq!(header("1e300"), Some(LONGEST));
        assert_eq!(header("inf"), Some(LONGEST));
        assert_eq!(header("-1"), None);
        assert_eq!(header("NaN"), None);
    }
}
