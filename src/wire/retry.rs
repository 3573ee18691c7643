//! How long a platform asks to be left alone: by a header (KrosAI sends seconds with a fraction, which RFC 9110 does not
//! allow), a member of the body, or the end of a rate window.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::fields::{json, number};
use super::time::instant;
use crate::domain::pause::{pause_of, pause_until, retry_after};

/// Header values about pauses.
#[derive(Debug, Clone, Copy, Default)]
pub struct PauseHeaders<'a> {
    /// `Retry-After`.
    pub retry_after: Option<&'a str>,
    /// `X-RateLimit-Reset`, epoch seconds.
    pub rate_limit_reset: Option<&'a str>,
    /// `Date`: the platform's own now.
    pub date: Option<&'a str>,
}

impl<'a> PauseHeaders<'a> {
    /// Those that `text` has.
    pub fn of(text: impl Fn(&'static str) -> Option<&'a str>) -> Self {
        Self { retry_after: text("retry-after"), rate_limit_reset: text("x-ratelimit-reset"), date: text("date") }
    }
}

/// The requested pause, counted from the answer. `None` where none can be read.
#[must_use]
pub fn pause(headers: PauseHeaders<'_>, body: &[u8]) -> Option<Duration> {
    let reset = || instant(&Value::from(headers.rate_limit_reset?)).map(SystemTime::from);
    headers
        .retry_after
        .and_then(|asked| retry_after(asked, headers.date))
        .or_else(|| number(&json(body).ok()?, &["retry_after"]).and_then(pause_of))
        .or_else(|| pause_until(reset()?, headers.date))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_speaks_where_the_header_does_not() {
        assert_eq!(pause(PauseHeaders::default(), br#"{"retry_after": 60}"#), Some(Duration::from_secs(60)));
        let nonsense = PauseHeaders { retry_after: Some("soon"), ..PauseHeaders::default() };
        assert_eq!(pause(nonsense, br#"{"retry_after": "2.5"}"#), Some(Duration::from_millis(2500)));
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        let reset = PauseHeaders { rate_limit_reset: Some("784111787"), date, ..PauseHeaders::default() };
        assert_eq!(pause(reset, b"<html>"), Some(Duration::from_secs(10)));
    }
}
