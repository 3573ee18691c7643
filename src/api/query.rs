//! The parameters of `GET /v1/calls` in both of the platform's forms. Every error names its parameter.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use url::form_urlencoded;

use super::keys::Caller;
use super::problem::Problem;
use crate::domain::quality::Flag;
use crate::domain::{CallStatus, Outcome, SourceName};
use crate::store::Listing;
use crate::wire::krosai::{KrosaiForm, OrganizationHeader, form_asked};

/// Largest page size. The platform has the same limit.
const MOST: u64 = 100;

/// A parsed list request.
#[derive(Debug)]
pub(super) struct ListRequest {
    pub(super) form: KrosaiForm,
    pub(super) limit: u64,
    pub(super) offset: u64,
    /// Page number from 1. The Cockpit form uses it instead of the offset.
    pub(super) page: u64,
    pub(super) listing: Listing,
}

/// The pairs of a query string. The first value of a repeated name counts. An empty value counts as missing.
struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn read(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    /// A whole number of at least `least`. An empty value is an error.
    fn count(&self, name: &str, least: u64) -> Result<Option<u64>, Problem> {
        let Some((_, value)) = self.0.iter().find(|(key, _)| key == name) else { return Ok(None) };
        let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        // A number that is too large for u64 is valid and counts as the largest one.
        let count = digits.then(|| value.parse().unwrap_or(u64::MAX)).filter(|count| *count >= least);
        count.map(Some).ok_or_else(|| Problem::parameter(name, &format!("a whole number of at least {least}")))
    }

    fn either<'a>(&self, names: [&'a str; 2]) -> Option<(&'a str, &str)> {
        names.into_iter().find_map(|name| Some((name, self.text(name)?)))
    }
}

/// Parameters of a list request, in both forms.
const KNOWN: [&str; 15] = [
    "limit",
    "offset",
    "page",
    "action",
    "status",
    "direction",
    "endpoint_id",
    "phone_number_id",
    "from_date",
    "to_date",
    "start_date",
    "end_date",
    "source",
    "outcome",
    "flag",
];

/// Refuses parameters that are not in `known`.
///
/// # Errors
/// `invalid_parameter` with the first unknown name.
pub(super) fn only(query: Option<&str>, known: &[&str]) -> Result<(), Problem> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    match pairs.into_iter().find(|(name, _)| !known.contains(&name.as_ref())) {
        Some((name, _)) => Err(Problem::unknown_parameter(&name, known)),
        None => Ok(()),
    }
}

/// Extractor of a route without parameters. It must follow `Caller`, so that a missing key is reported first.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoQuery;

impl<S: Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        only(parts.uri.query(), &[]).map(|()| Self)
    }
}

/// Reads the query of a list request.
///
/// # Errors
/// `invalid_parameter` with the parameter's name.
pub(super) fn read(query: &str, caller: &Caller, now: Timestamp) -> Result<ListRequest, Problem> {
    only(Some(query), &KNOWN)?;
    let pairs = Pairs::read(query);
    if pairs.text("action").is_some() {
        return Err(Problem::parameter("action", "left out: only the list is served"));
    }
    let header = if caller.names_organization() { OrganizationHeader::Present } else { OrganizationHeader::Absent };
    let form = form_asked(pairs.0.iter().map(|(key, _)| key.as_str()), header).unwrap_or(KrosaiForm::CallLogs);
    let usual = match form {
        KrosaiForm::CallLogs => 50,
        KrosaiForm::Cockpit => 20,
    };
    let limit = pairs.count("limit", 1)?.unwrap_or(usual).min(MOST);
    let page = pairs.count("page", 1)?.unwrap_or(1);
    let offset = pairs.count("offset", 0)?.unwrap_or(0);
    let offset = match form {
        KrosaiForm::CallLogs => offset,
        KrosaiForm::Cockpit => (page - 1).saturating_mul(limit),
    };
    let listing = Listing {
        organizations: caller.organizations(),
        unexpired_at: (!caller.sees_past_term()).then_some(now),
        status: pairs.text("status").map(status).transpose()?,
        direction: pairs.text("direction").map(direction).transpose()?,
        agent_id: pairs.text("endpoint_id").map(str::to_owned),
        phone_number_id: pairs.text("phone_number_id").map(str::to_owned),
        source: pairs.text("source").map(source).transpose()?,
        outcome: pairs.text("outcome").map(outcome).transpose()?,
        flag: pairs.text("flag").map(flag).transpose()?,
        from: pairs.either(["from_date", "start_date"]).map(|(name, text)| from(name, text)).transpose()?,
        to: pairs.either(["to_date", "end_date"]).map(|(name, text)| to(name, text)).transpose()?,
    };
    Ok(ListRequest { form, limit, offset, page, listing })
}

/// Maps a status word of the platform to the word of our records.
fn status(word: &str) -> Result<String, Problem> {
    let word = if word == "initiated" { "queued" } else { word };
    let known = serde_json::from_value::<CallStatus>(word.into()).is_ok();
    let expected = "one of initiated, ringing, in_progress, completed, failed, busy, no_answer, cancelled, unknown";
    if known { Ok(word.to_owned()) } else { Err(Problem::parameter("status", expected)) }
}

fn source(name: &str) -> Result<SourceName, Problem> {
    SourceName::parse(name).map_err(|_| Problem::parameter("source", "the name of a source"))
}

fn outcome(word: &str) -> Result<Outcome, Problem> {
    let words = || Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect::<Vec<_>>().join(", ");
    word.parse().map_err(|_| Problem::parameter("outcome", &format!("one of {}", words())))
}

fn flag(word: &str) -> Result<Flag, Problem> {
    let read: Result<Flag, serde_json::Error> = serde_json::from_value(word.into());
    read.map_err(|err| {
        // The serde error lists the allowed words. The received value is cut off, because it must not be repeated.
        let said = err.to_string();
        let expected = said.split_once("expected ").map_or("a flag", |(_, expected)| expected);
        Problem::parameter("flag", expected)
    })
}

fn direction(word: &str) -> Result<String, Problem> {
    match word {
        "inbound" | "outbound" => Ok(word.to_owned()),
        _ => Err(Problem::parameter("direction", "inbound or outbound")),
    }
}

/// A day in UTC, or a moment.
enum When {
    Day(Date),
    Moment(Timestamp),
}

fn when(name: &str, text: &str) -> Result<When, Problem> {
    let utc = |at: DateTime| at.to_zoned(TimeZone::UTC).ok().map(|at| When::Moment(at.timestamp()));
    let read = if text.len() <= "2025-01-01".len() {
        text.parse().ok().map(When::Day)
    } else {
        text.parse().ok().map(When::Moment).or_else(|| text.parse().ok().and_then(utc))
    };
    read.ok_or_else(|| Problem::parameter(name, "an ISO 8601 date or time such as 2025-01-31 or 2025-01-31T12:00:00Z"))
}

fn midnight(name: &str, day: Date) -> Result<Timestamp, Problem> {
    let midnight = day.to_zoned(TimeZone::UTC).map(|at| at.timestamp());
    midnight.map_err(|_| Problem::parameter(name, "a date within the calendar"))
}

fn from(name: &str, text: &str) -> Result<Timestamp, Problem> {
    match when(name, text)? {
        When::Day(day) => midnight(name, day),
        When::Moment(at) => Ok(at),
    }
}

/// The end of the time range. A day is included completely; a moment is exclusive.
fn to(name: &str, text: &str) -> Result<Timestamp, Problem> {
    match when(name, text)? {
        When::Day(day) => midnight(name, day.tomorrow().unwrap_or(day)),
        When::Moment(at) => Ok(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_day_counts_whole_and_a_moment_ends_the_period() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(from("from_date", "2025-01-31").unwrap(), at("2025-01-31T00:00:00Z"));
        assert_eq!(to("to_date", "2025-01-31").unwrap(), at("2025-02-01T00:00:00Z"));
        assert_eq!(to("to_date", "2025-01-31T10:00:00+01:00").unwrap(), at("2025-01-31T09:00:00Z"));
        assert_eq!(from("from_date", "2025-01-31T10:00:00").unwrap(), at("2025-01-31T10:00:00Z"));
        for garbage in ["yesterday", "2025-13-01", "2025-01-31T", "20", "1736503200", "2025-01-31T10:00:00Zzz"] {
            assert!(from("from_date", garbage).is_err(), "{garbage}");
        }
    }

    #[test]
    fn numbers_are_whole_and_in_range() {
        let pairs = Pairs::read("a=5&b=0&c=-1&d=&e=1e3&f=99999999999999999999999&g=%205");
        assert_eq!(pairs.count("a", 1).unwrap(), Some(5));
        assert_eq!(pairs.count("b", 0).unwrap(), Some(0));
        assert_eq!(pairs.count("f", 1).unwrap(), Some(u64::MAX));
        assert_eq!(pairs.count("absent", 1).unwrap(), None);
        for (name, least) in [("b", 1), ("c", 0), ("d", 0), ("e", 0), ("g", 0)] {
            assert!(pairs.count(name, least).is_err(), "{name}");
        }
    }

    #[test]
    fn statuses_are_the_platforms_words() {
        assert_eq!(status("initiated").unwrap(), "queued");
        assert_eq!(status("no_answer").unwrap(), "no_answer");
        assert!(status("COMPLETED'--").is_err());
    }
}
