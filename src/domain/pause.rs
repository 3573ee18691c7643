//! How long a server asks to be left alone.

use std::time::{Duration, SystemTime};

/// No pause is longer: a mistyped answer must not park a source for years.
const LONGEST: Duration = Duration::from_secs(86_400);

/// What a `Retry-After` asks for (RFC 9110 section 10.2.3): seconds, which may have a fraction, or a date, counted from
/// the `Date` of the same answer, so that no clock of ours matters.
#[must_use]
pub fn retry_after(asked: &str, date: Option<&str>) -> Option<Duration> {
    match asked.trim().parse() {
        Ok(seconds) => pause_of(seconds),
        Err(_) => pause_until(http_date(asked)?, date),
    }
}

/// A pause in seconds.
#[must_use]
pub fn pause_of(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST))
}

/// A pause that ends at a moment, counted from the `Date` of the same answer.
#[must_use]
pub fn pause_until(end: SystemTime, date: Option<&str>) -> Option<Duration> {
    Some(end.duration_since(http_date(date?)?).unwrap_or_default().min(LONGEST))
}

/// An HTTP date in any of its three forms (RFC 9110 section 5.6.7).
#[must_use]
pub fn http_date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(asked: &str) -> Option<Duration> {
        retry_after(asked, Some("Sun, 06 Nov 1994 08:49:37 GMT"))
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
        assert_eq!(retry_after(dates[0], None), None);
    }

    #[test]
    fn nonsense_is_bounded() {
        assert_eq!(header("1e300"), Some(LONGEST));
        assert_eq!(header("inf"), Some(LONGEST));
        for nonsense in ["-1", "NaN", "soon", ""] {
            assert_eq!(header(nonsense), None, "{nonsense}");
        }
    }
}
