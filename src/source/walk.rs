//! A pass over a platform's whole list. It does not rely on the list's order, filters or paging.

use std::collections::HashMap;
use std::collections::HashSet;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use jiff::{SignedDuration, Timestamp};

use super::{Precedence, Source, SourceError};
use crate::domain::{CallId, Classify, Fault, SourceCall};
use crate::wire::{Cursor, Page, UnreadableRow, Window};

/// A list in descending order must reach this far before the window before its rest counts as older.
const MARGIN: SignedDuration = SignedDuration::from_hours(24);
/// Steps back in time that are needed before a descending order is assumed.
const STEPS_TO_BELIEVE: usize = 10;
/// Consecutive pages of older calls after which a poll of the newest calls stops. It applies to lists that descend
/// mostly but not strictly (Atoms lists by last change). The next full pass finds what the poll missed.
const OLD_PAGES: usize = 3;

/// Retries of one page. What a pass has seen is not durable, so a pass of a hundred pages would never end if each
/// transient error restarted it. It waits a short time itself; for a longer wait the job is snoozed.
const TRIES_AFTER_THE_FIRST: usize = 4;
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

enum ListPlace {
    At(Cursor),
    /// From the top again, for rows that were added or moved up while the pages were read.
    Again(Cursor),
    End,
}

/// Checks whether creation times have only descended so far.
#[derive(Default)]
struct ReadOrder {
    last: Option<Timestamp>,
    steps: usize,
    rises: usize,
    broken: bool,
    /// Consecutive pages that lie completely before the window.
    old_pages: usize,
}

/// Ids remembered from the top of a list, to recognise it at the end of a pass.
const TOP: usize = 10_000;
/// Ids remembered from the latest rows. New calls shift rows while pages are read. At most twice as many are kept, so
/// the memory does not grow with the number of calls.
const RECENT: usize = 20_000;

/// Consecutive pages with only unreadable rows after which the pass stops. A server that repeats such a page forever
/// cannot be recognised otherwise.
const BARREN_PAGES: usize = 20;

/// The calls that a pass has seen, and their status ranks, as far as they can matter.
#[derive(Default)]
struct SeenCalls {
    top: HashMap<CallId, u8>,
    recent: HashMap<CallId, u8>,
    before: HashMap<CallId, u8>,
    count: u64,
}

/// What is new in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// A new call.
    Call,
    /// A known call with a later status.
    Further,
    Nothing,
}

/// A pass over a source's list. It returns each call once, and again when another row has a later status. The pass ends
/// at a page without anything new.
pub struct Walk<'a> {
    source: &'a Source,
    precedence: Precedence,
    reach: Reach,
    window: Window,
    margin: SignedDuration,
    first: Cursor,
    seen: SeenCalls,
    place: ListPlace,
    order: ReadOrder,
    pages: u64,
    /// Data of the latest page: calls that were returned before, and unreadable rows.
    again: HashSet<CallId>,
    unreadable: Vec<UnreadableRow>,
    barren: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(source: &'a Source, window: Window) -> Self {
        let first = source.dialect.first_page();
        Self {
            source,
            precedence: Precedence::Rest,
            reach: Reach::Whole,
            window,
            margin: MARGIN,
            place: ListPlace::At(first.clone()),
            first,
            seen: SeenCalls::default(),
            order: ReadOrder::default(),
            pages: 0,
            again: HashSet::new(),
            unreadable: Vec::new(),
            barren: 0,
        }
    }

    /// A poll of the newest calls. Its requests precede those of other passes, and it stops earlier in a descending
    /// list.
    #[must_use]
    pub fn tail(self) -> Self {
        Self { reach: Reach::Tail, margin: SignedDuration::ZERO, ..self }.urgent()
    }

    /// A pass whose requests precede those of other passes.
    #[must_use]
    pub const fn urgent(mut self) -> Self {
        self.precedence = Precedence::First;
        self
    }

    /// Leaves out calls that were created before the window and its margin. Only for a source that was seen to obey
    /// date filters.
    #[must_use]
    pub fn filtered(mut self) -> Self {
        let since = self.window.from.checked_sub(self.margin).ok();
        if let Some(first) = since.and_then(|since| self.source.dialect.first_page_since(since)) {
            (self.place, self.first) = (ListPlace::At(first.clone()), first);
        }
        self
    }

    /// Resumes where an earlier pass stopped.
    #[must_use]
    pub fn resumed(mut self, at: Cursor) -> Self {
        self.place = ListPlace::At(at);
        self
    }

    /// The position of this pass, to resume it later. `None` at its end, because the rest is read quickly.
    #[must_use]
    pub const fn place(&self) -> Option<&Cursor> {
        match &self.place {
            ListPlace::At(cursor) => Some(cursor),
            ListPlace::Again(_) | ListPlace::End => None,
        }
    }

    /// The next calls inside the window, or unreadable rows. `None` at the end. Transient errors are retried for some
    /// seconds. After an error the position is kept and can be tried again.
    ///
    /// # Errors
    /// As [`Source::list_page`].
    pub async fn next(&mut self) -> Result<Option<Vec<SourceCall>>, SourceError> {
        while let Some(calls) = self.step().await? {
            if !calls.is_empty() || !self.unreadable.is_empty() {
                return Ok(Some(calls));
            }
        }
        Ok(None)
    }

    /// The calls of the next page inside the window, possibly none. `None` at the end.
    ///
    /// # Errors
    /// As [`Source::list_page`].
    pub async fn step(&mut self) -> Result<Option<Vec<SourceCall>>, SourceError> {
        let page = self.next_page().await?;
        Ok(page.map(|calls| calls.into_iter().filter(|call| self.window.contains(call)).collect()))
    }

    /// The new calls of the next page, at any time.
    pub(super) async fn next_page(&mut self) -> Result<Option<Vec<SourceCall>>, SourceError> {
        let (cursor, again) = match &self.place {
            ListPlace::At(cursor) => (cursor.clone(), false),
            ListPlace::Again(cursor) => (cursor.clone(), true),
            ListPlace::End => return Ok(None),
        };
        let page = self.page(cursor).await?;
        self.pages += 1;
        let rows = page.calls.len();
        let order = self.order.take_in(&page.calls, self.window, self.margin);
        let passed = !again
            && match (order, self.reach) {
                (Past::Surely, _) => self.source.dialect.lists_by_creation() || self.reach == Reach::Tail,
                (Past::Probably, Reach::Tail) => true,
                _ => false,
            };
        let mut calls = page.calls;
        self.again.clear();
        calls.retain(|call| {
            let news = self.seen.look_at(call);
            if news == News::Further {
                self.again.insert(call.id.clone());
            }
            news != News::Nothing
        });
        // The top of the list was counted on the first read.
        self.unreadable = if again { Vec::new() } else { page.unreadable };
        self.barren = if rows == 0 && !self.unreadable.is_empty() { self.barren + 1 } else { 0 };
        let goes_on = !calls.is_empty() || (1..BARREN_PAGES).contains(&self.barren);
        let first = || self.first.clone();
        self.place = match page.next {
            Some(next) if !again && goes_on && !passed => ListPlace::At(next),
            _ if !again && self.pages > 1 => ListPlace::Again(first()),
            // A page of only new calls: there may be more of them than fit on one page.
            Some(next) if again && !calls.is_empty() && calls.len() == rows => ListPlace::Again(next),
            _ => ListPlace::End,
        };
        Ok(Some(calls))
    }

    async fn page(&self, cursor: Cursor) -> Result<Page, SourceError> {
        let once = || self.source.page_of(Some(cursor.clone()), self.precedence);
        let pauses = ExponentialBuilder::default()
            .with_min_delay(SHORTEST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_max_times(TRIES_AFTER_THE_FIRST)
            .with_jitter();
        once.retry(pauses)
            .when(|err: &SourceError| matches!(err.fault(), Fault::Transient | Fault::Throttled { .. }))
            .adjust(|err, planned| match err.fault() {
                Fault::Throttled { retry_after } => {
                    planned.map(|_| retry_after).filter(|pause| *pause <= LONGEST_PAUSE)
                }
                _ => planned,
            })
            .await
    }

    /// The number of different calls seen so far, inside the window or not.
    #[must_use]
    pub const fn listed(&self) -> u64 {
        self.seen.count
    }

    /// True when a call of the latest page was returned before with an earlier status.
    #[must_use]
    pub fn came_before(&self, id: &CallId) -> bool {
        self.again.contains(id)
    }

    /// The unreadable rows of the latest page.
    #[must_use]
    pub fn unreadable(&self) -> &[UnreadableRow] {
        &self.unreadable
    }

    /// The number of pages requested so far.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }
}

impl SeenCalls {
    fn look_at(&mut self, call: &SourceCall) -> News {
        let (id, reached) = (&call.id, call.status.reached());
        let known = [&mut self.top, &mut self.recent, &mut self.before].into_iter().find_map(|seen| seen.get_mut(id));
        if let Some(before) = known {
            let news = if reached > *before { News::Further } else { News::Nothing };
            *before = reached.max(*before);
            return news;
        }
        self.count += 1;
        if self.top.len() < TOP {
            self.top.insert(id.clone(), reached);
            return News::Call;
        }
        if self.recent.len() >= RECENT {
            self.before = std::mem::take(&mut self.recent);
        }
        self.recent.insert(id.clone(), reached);
        News::Call
    }
}

impl ReadOrder {
    /// Adds a page. Returns whether the list is past the window.
    fn take_in(&mut self, calls: &[SourceCall], window: Window, margin: SignedDuration) -> Past {
        for call in calls {
            match (call.created_at, self.last) {
                (None, _) => self.broken = true,
                (Some(at), Some(last)) if at > last => (self.broken, self.rises) = (true, self.rises + 1),
                (Some(at), Some(last)) if at < last => self.steps += 1,
                _ => {}
            }
            self.last = call.created_at.or(self.last);
        }
        let Ok(before) = window.from.checked_sub(margin) else { return Past::NotYet };
        let old = |call: &SourceCall| [call.created_at, call.ended_at].into_iter().flatten().all(|at| at < before);
        let all_old = !calls.is_empty() && calls.iter().all(old);
        self.old_pages = if all_old { self.old_pages + 1 } else { 0 };
        if all_old && !self.broken && self.steps >= STEPS_TO_BELIEVE {
            Past::Surely
        } else if self.old_pages >= OLD_PAGES && self.steps > 2 * self.rises {
            Past::Probably
        } else {
            Past::NotYet
        }
    }
}

/// Whether a list is past the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Past {
    NotYet,
    /// Pages with only older calls, in an order that mostly descends.
    Probably,
    /// Creation times have only descended, and the latest page lies well before the window.
    Surely,
}

/// How much of a list a pass reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Whole,
    Tail,
}
