//! Times in the platforms' forms: RFC 3339 with any offset, epoch seconds, epoch milliseconds. A time before the year
//! 2000 is the zero of a clock and means "not set": the year 1 of Go and .NET, 1899, 1970.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::fields::{as_number, member};
use crate::domain::times;

/// Epoch numbers below this are seconds (as seconds: the year 5138). Numbers from this on are milliseconds (as
/// milliseconds: 1973).
const FIRST_MILLISECONDS: f64 = 1e11;

/// The moment at the end of `path`.
pub(super) fn moment(value: &Value, path: &[&str]) -> Option<Timestamp> {
    as_moment(member(value, path)?)
}

/// As [`moment`], for a given value.
pub(super) fn as_moment(value: &Value) -> Option<Timestamp> {
    instant(value).filter(|at| times::is_set(*at))
}

/// The moment as written, also before the year 2000. Zero and negative epochs give None.
pub(super) fn instant(value: &Value) -> Option<Timestamp> {
    if let Some(number) = as_number(value) {
        return epoch(number);
    }
    let text = value.as_str()?.trim();
    // A time without an offset is read as UTC, because all four platforms write UTC where they write an offset.
    text.parse::<Timestamp>()
        .ok()
        .or_else(|| text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp()))
}

fn epoch(number: f64) -> Option<Timestamp> {
    let ms = if number < FIRST_MILLISECONDS { number * 1000.0 } else { number };
    (ms > 0.0).then(|| Timestamp::from_millisecond(ms.round() as i64).ok())?
}

/// Milliseconds from one moment to a later one.
pub(super) fn between_ms(from: Timestamp, to: Timestamp) -> Option<u64> {
    u64::try_from(to.as_millisecond() - from.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Option<String> {
        as_moment(value).map(|at| at.to_string())
    }

    #[test]
    fn seconds_and_milliseconds_are_told_apart_by_size() {
        assert_eq!(read(&json!(1_703_097_600)), read(&json!(1_703_097_600_000_i64)));
        assert_eq!(read(&json!(1_703_097_600)).as_deref(), Some("2023-12-20T18:40:00Z"));
        assert_eq!(read(&json!("1703097600000")).as_deref(), Some("2023-12-20T18:40:00Z"));
        assert_eq!(read(&json!(99_999_999_999_i64)).as_deref(), Some("5138-11-16T09:46:39Z"));
        assert_eq!(instant(&json!(100_000_000_000_i64)).unwrap().to_string(), "1973-03-03T09:46:40Z");
    }

    #[test]
    fn texts_with_and_without_offsets() {
        assert_eq!(read(&json!("2026-02-01T08:00:00.250+01:00")).as_deref(), Some("2026-02-01T07:00:00.25Z"));
        assert_eq!(read(&json!("2025-01-10T10:00:00")).as_deref(), Some("2025-01-10T10:00:00Z"));
        assert_eq!(read(&json!("2025-01-10")).as_deref(), Some("2025-01-10T00:00:00Z"));
    }

    #[test]
    fn the_zeros_of_clocks_are_not_set() {
        for zero in [
            json!("0001-01-01T00:00:00Z"),
            json!("0001-01-01T00:00:00"),
            json!("0001-01-01T00:00:00.000+01:00"),
            json!("0001-01-01 00:00:00-11:00"),
            json!("1970-01-01T00:00:00Z"),
            json!("1970-01-01T01:00:00+01:00"),
            json!("1969-12-31T19:00:00-05:00"),
            json!("1899-12-30"),
            json!("1899-12-31T00:00:00Z"),
            json!("1900-01-01T00:00:00Z"),
            json!("0000-00-00 00:00:00"),
            json!("1999-12-31T23:59:59.999Z"),
            json!("-62135596800"),
            json!(-62_135_596_800_000_i64),
            json!(946_684_799),
        ] {
            assert_eq!(as_moment(&zero), None, "{zero}");
        }
        assert_eq!(read(&json!("2000-01-01T00:00:00Z")).as_deref(), Some("2000-01-01T00:00:00Z"));
        assert_eq!(read(&json!(946_684_800)).as_deref(), Some("2000-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_no_moment_is_absent() {
        for value in [json!(0), json!(-5), json!(""), json!("soon"), json!(1e300), json!(true), json!([])] {
            assert_eq!(as_moment(&value), None, "{value}");
        }
    }
}
