//! Lists: where to go on, when to stop, what lies inside a window of time.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use serde_json::Value;

use super::WireError;
use super::fields;
use super::record;
use super::scan::{Names, Row};
use crate::domain::SourceCall;

/// Pages after the total should have been reached: rows move while a list is read.
const PAGES_PAST_TOTAL: u64 = 2;
/// Pages after a total that was less than what came. A server that makes up rows for ever is left in the end.
const PAGES_PAST_DISBELIEVED: u64 = 10_000;

/// Where to go on in a list. Can be stored and taken up again; its inside is the dialect's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Pages before this one. Each dialect adds its own base: 0 for Zudu, 1 for Cockpit and Atoms.
    pub(super) page: u32,
    /// Rows before this one, counted as they came.
    pub(super) offset: u64,
    /// Rows asked for; always sent, because the documented defaults are 5, 10, 20, 50 and "all".
    pub(super) limit: u64,
    /// First id of the page before: a server that ignores paging repeats it for ever.
    #[serde(default)]
    first_id: Option<String>,
    /// Rows on the first page: what the server really gives, clamped or not.
    #[serde(default)]
    page_rows: Option<u64>,
    /// Only calls made at this moment or later, where the server obeys.
    #[serde(default)]
    pub(super) since: Option<Timestamp>,
}

/// What an answer says of its place in the list.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// Rows in the answer, those that cannot be read counted.
    pub rows: u64,
    pub first_id: Option<String>,
    pub total: Option<u64>,
    pub has_more: Option<bool>,
}

impl Cursor {
    pub(super) const fn first(limit: u64) -> Self {
        Self { page: 0, offset: 0, limit, first_id: None, page_rows: None, since: None }
    }

    /// The same, of calls made at this moment or later.
    pub(super) const fn since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    /// The number of this page where the first one has the number `base`.
    pub(super) fn number(&self, base: u64) -> u64 {
        base + u64::from(self.page)
    }

    /// The place after `place`, unless that was the end. Ends at an empty page, at a page that repeats the one
    /// before it, and two pages after the total should have been reached; goes on when either the total or the
    /// server's own word says there is more, and when neither says anything. A total is no reason to stop at a full
    /// page, and one that is less than what came is not believed: some servers say how many rows the page has.
    pub(super) fn after(&self, place: Place) -> Option<Self> {
        let repeats = self.first_id.is_some() && self.first_id == place.first_id;
        if place.rows == 0 || repeats {
            return None;
        }
        let (page, offset) = (self.page.checked_add(1)?, self.offset.saturating_add(place.rows));
        let page_rows = self.page_rows.unwrap_or(place.rows).max(1);
        let total = place.total.filter(|total| offset <= *total);
        let most = if total.is_some() { PAGES_PAST_TOTAL } else { PAGES_PAST_DISBELIEVED };
        let pages = place.total.map(|total| total.div_ceil(page_rows).saturating_add(most));
        if pages.is_some_and(|pages| u64::from(page) >= pages) {
            return None;
        }
        let full = place.rows >= self.limit || (self.page > 0 && place.rows >= page_rows);
        let more = match (place.has_more, place.total) {
            (None, None) => true,
            (None, Some(_)) => full || total.is_some_and(|total| offset < total),
            (Some(more), _) => more || total.is_some_and(|total| offset < total),
        };
        let (limit, first_id, page_rows) = (self.limit, place.first_id, Some(page_rows));
        more.then_some(Self { page, offset, limit, first_id, page_rows, since: self.since })
    }

    /// The same place with pages half as long, for answers too big to take in. `None` when they cannot be halved
    /// without changing where a page begins.
    #[must_use]
    pub fn halved(&self) -> Option<Self> {
        let even = self.limit > 1 && self.limit.is_multiple_of(2);
        let page = self.page.checked_mul(2).filter(|_| even)?;
        let first_id = self.first_id.clone();
        Some(Self { page, offset: self.offset, limit: self.limit / 2, first_id, page_rows: None, since: self.since })
    }
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page {
    pub calls: Vec<SourceCall>,
    /// `None` at the end.
    pub next: Option<Cursor>,
    /// How many calls there are, where the platform says so.
    pub total: Option<u64>,
    /// Rows that cannot be read, or whose id nobody can ask for. They can only be counted and named.
    pub unreadable: Vec<UnreadableRow>,
}

/// A row of a list that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableRow {
    /// The call's id as far as it can be seen, for people; nothing can be asked for with it.
    pub id: Option<String>,
}

/// The rows of an answer's list.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Each call once.
    pub calls: Vec<SourceCall>,
    pub unreadable: Vec<UnreadableRow>,
    pub rows: u64,
}

impl Listed {
    /// Reads the rows, each by itself.
    pub fn read(rows: Vec<Row>, names: Names, read: impl Fn(&Value) -> Result<SourceCall, WireError>) -> Self {
        let mut listed = Self { rows: rows.len() as u64, ..Self::default() };
        let mut calls = Vec::new();
        for row in rows {
            match row {
                Row::Unread { id } => listed.unreadable.push(UnreadableRow { id }),
                Row::Read(row) => {
                    if let Ok(call) = read(&row) {
                        calls.push(call);
                    } else {
                        let id = fields::id(&row, &[names.id]).map(|id| shown(&id));
                        listed.unreadable.push(UnreadableRow { id });
                    }
                }
            }
        }
        listed.calls = record::one_each(calls);
        listed
    }

    /// The page they make.
    pub fn page(self, at: &Cursor, total: Option<u64>, has_more: Option<bool>) -> Page {
        let first_id = self.calls.first().map(|call| call.id.to_string());
        let place = Place { rows: self.rows, first_id, total, has_more };
        Page { calls: self.calls, next: at.after(place), total, unreadable: self.unreadable }
    }
}

/// An id that cannot be used, fit for a line of a log.
fn shown(id: &str) -> String {
    id.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A stretch of time, its end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Window {
    /// All of time.
    pub const ALWAYS: Self = Self { from: Timestamp::MIN, to: Timestamp::MAX };

    /// Whether the call was made or ended inside. One without any time counts as inside: leaving it out would lose it.
    #[must_use]
    pub fn contains(&self, call: &SourceCall) -> bool {
        let mut times = [call.created_at, call.answered_at, call.ended_at].into_iter().flatten().peekable();
        times.peek().is_none() || times.any(|at| self.from <= at && at < self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(first: &str, rows: u64, total: Option<u64>) -> Place {
        Place { rows, first_id: Some(first.to_owned()), total, has_more: None }
    }

    #[test]
    fn pages_advance_by_what_came_not_by_what_was_asked() {
        let second = Cursor::first(100).after(place("a", 50, Some(120))).unwrap();
        assert_eq!((second.page, second.offset, second.limit), (1, 50, 100));
        let third = second.after(place("b", 50, Some(120))).unwrap();
        assert_eq!((third.page, third.offset), (2, 100));
        assert_eq!(third.after(place("c", 20, Some(120))), None);
    }

    #[test]
    fn a_total_that_lies_does_not_end_a_list() {
        // The total is that of the page, every time, or nothing at all.
        for total in [Some(100), Some(0)] {
            let second = Cursor::first(100).after(place("a", 100, total)).unwrap();
            let third = second.after(place("b", 100, total)).unwrap();
            assert_eq!(third.offset, 200);
            assert_eq!(third.after(place("c", 50, total)), None);
        }
        // Neither does one that is merely too small, however many pages there are.
        let mut cursor = Cursor::first(100);
        for page in 0..20 {
            cursor = cursor.after(place(&page.to_string(), 100, Some(150))).unwrap();
        }
        // A short page that is all there is ends it without another question.
        assert_eq!(Cursor::first(100).after(place("a", 3, Some(3))), None);
    }

    #[test]
    fn a_server_that_ignores_paging_is_left_after_its_first_repeat() {
        let second = Cursor::first(100).after(place("a", 100, None)).unwrap();
        assert_eq!(second.after(place("a", 100, None)), None);
    }

    #[test]
    fn a_server_that_makes_up_rows_for_ever_is_left_in_the_end() {
        let mut cursor = Cursor::first(10);
        let mut pages = 1;
        while let Some(next) =
            cursor.after(Place { has_more: Some(true), ..place(&format!("id{pages}"), 10, Some(35)) })
        {
            cursor = next;
            pages += 1;
        }
        assert_eq!(pages, 35_u64.div_ceil(10) + PAGES_PAST_DISBELIEVED);
    }

    #[test]
    fn either_word_for_more_is_believed() {
        let says = |has_more, total| Cursor::first(10).after(Place { has_more, ..place("a", 10, total) }).is_some();
        assert!(says(Some(true), Some(10)));
        assert!(says(Some(false), Some(11)));
        assert!(!says(Some(false), Some(10)));
        assert!(!says(Some(false), None));
        assert_eq!(Cursor::first(10).after(Place::default()), None);
    }

    #[test]
    fn halving_keeps_the_place() {
        let second = Cursor::first(100).after(place("a", 100, Some(1000))).unwrap();
        let half = second.halved().unwrap();
        assert_eq!((half.page, half.offset, half.limit), (2, 100, 50));
        assert_eq!(half.halved().unwrap().halved(), None);
        assert_eq!(Cursor::first(1).halved(), None);
    }

    #[test]
    fn a_cursor_survives_being_stored() {
        let second = Cursor::first(100).after(place("a", 100, Some(1000))).unwrap();
        let stored = serde_json::to_string(&second).unwrap();
        assert_eq!(serde_json::from_str::<Cursor>(&stored).unwrap(), second);
    }
}
