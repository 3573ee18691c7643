//! Paging of lists: the next position, the end, and time windows.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use serde_json::Value;

use super::WireError;
use super::fields;
use super::record;
use super::scan::{Names, ScannedRow};
use crate::domain::SourceCall;

/// Extra pages after the expected end, because rows move while a list is read.
const PAGES_PAST_TOTAL: u64 = 2;
/// Extra pages after a total that was smaller than the number of received rows. It stops a server that generates rows
/// forever.
const PAGES_PAST_DISBELIEVED: u64 = 10_000;

/// A position in a list. It can be stored and resumed. Its content depends on the dialect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Pages before this one. Each dialect adds its own base: 0 for Zudu, 1 for Cockpit and Atoms.
    pub(super) page: u32,
    /// Rows before this one, as received.
    pub(super) offset: u64,
    /// Requested rows. It is always sent, because the documented defaults are 5, 10, 20, 50 and "all".
    pub(super) limit: u64,
    /// First id of the page before. A server that ignores paging repeats that page forever.
    #[serde(default)]
    first_id: Option<String>,
    /// Rows on the first page: the server's real page size, even where it reduces the limit.
    #[serde(default)]
    page_rows: Option<u64>,
    /// Only calls created at this moment or later, where the server obeys.
    #[serde(default)]
    pub(super) since: Option<Timestamp>,
}

/// What an answer says about its position in the list.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// Rows in the answer, including unreadable ones.
    pub rows: u64,
    pub first_id: Option<String>,
    pub total: Option<u64>,
    pub has_more: Option<bool>,
}

impl Cursor {
    pub(super) const fn first(limit: u64) -> Self {
        Self { page: 0, offset: 0, limit, first_id: None, page_rows: None, since: None }
    }

    /// Limits the list to calls created at this moment or later.
    pub(super) const fn since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    /// The number of this page, where the first page has the number `base`.
    pub(super) fn number(&self, base: u64) -> u64 {
        base + u64::from(self.page)
    }

    /// The position after `place`. `None` at the end.
    ///
    /// The list ends at an empty page, at a page that repeats the one before, and two pages after the expected end. It
    /// continues when the total or `has_more` says so, and when the answer says neither. A total never ends the list at
    /// a full page. A total that is smaller than the number of received rows is ignored, because some servers report
    /// the rows of the page as the total.
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

    /// The same position with half the page size, for answers that are too long. `None` when halving would change where
    /// a page begins.
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
    /// The total number of calls, where the platform reports it.
    pub total: Option<u64>,
    /// Unreadable rows, and rows with an unusable id. They can only be counted and named.
    pub unreadable: Vec<UnreadableRow>,
}

/// An unreadable row of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableRow {
    /// The call's id as far as visible, for people. It cannot be used in a request.
    pub id: Option<String>,
}

/// The rows of an answer's list.
#[derive(Debug, Default)]
pub(super) struct PageRows {
    /// Each call once.
    pub calls: Vec<SourceCall>,
    pub unreadable: Vec<UnreadableRow>,
    pub rows: u64,
}

impl PageRows {
    /// Reads each row independently.
    pub(super) fn read(
        rows: Vec<ScannedRow>,
        names: Names,
        read: impl Fn(&Value) -> Result<SourceCall, WireError>,
    ) -> Self {
        let mut listed = Self { rows: rows.len() as u64, ..Self::default() };
        let mut calls = Vec::new();
        for row in rows {
            match row {
                ScannedRow::Unread { id } => listed.unreadable.push(UnreadableRow { id }),
                ScannedRow::Read(row) => {
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

    /// The page of these rows.
    pub(super) fn page(self, at: &Cursor, total: Option<u64>, has_more: Option<bool>) -> Page {
        let first_id = self.calls.first().map(|call| call.id.to_string());
        let place = Place { rows: self.rows, first_id, total, has_more };
        Page { calls: self.calls, next: at.after(place), total, unreadable: self.unreadable }
    }
}

/// An unusable id in a form for log lines.
fn shown(id: &str) -> String {
    id.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A time range. Its end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Window {
    /// All times.
    pub const ALWAYS: Self = Self { from: Timestamp::MIN, to: Timestamp::MAX };

    /// True when the call was created, answered or ended inside the window. A call without any time counts as inside,
    /// because it would be lost otherwise.
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
        // The total is the page's number of rows, or 0.
        for total in [Some(100), Some(0)] {
            let second = Cursor::first(100).after(place("a", 100, total)).unwrap();
            let third = second.after(place("b", 100, total)).unwrap();
            assert_eq!(third.offset, 200);
            assert_eq!(third.after(place("c", 50, total)), None);
        }
        // A total that is too small does not end the list either, for any number of pages.
        let mut cursor = Cursor::first(100);
        for page in 0..20 {
            cursor = cursor.after(place(&page.to_string(), 100, Some(150))).unwrap();
        }
        // A short page with the complete list ends it without another request.
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
