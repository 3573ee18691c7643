//! Going through a platform's whole list without trusting its order, its filters or its paging.

use std::collections::HashSet;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use jiff::{SignedDuration, Timestamp};

use super::{Source, SourceError};
use crate::domain::{CallId, Classify, Fault, SourceCall};
use crate::wire::{Cursor, Page, Window};

/// How far before a window the list must have come, in falling order, before the rest is taken for older.
const MARGIN: SignedDuration = SignedDuration::from_hours(24);
/// Steps back in time that must have been seen before an order is believed.
const STEPS_TO_BELIEVE: usize = 10;

/// Tries of one page. A pass of a hundred pages would never end if each passing fault began it anew, and what it has
/// seen is not durable; so it waits a little itself, and leaves long waits to the job.
const TRIES_AFTER_THE_FIRST: usize = 4;
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

enum Place {
    At(Cursor),
    /// From the top again: what came, or moved up, while the pages were read.
    Again(Cursor),
    End,
}

/// Whether creation times have only ever fallen so far.
#[derive(Default)]
struct Order {
    last: Option<Timestamp>,
    steps: usize,
    broken: bool,
}

/// A pass over a source's list. Each call comes once; the pass ends at a page without any new call.
pub struct Walk<'a> {
    source: &'a Source,
    window: Window,
    seen: HashSet<CallId>,
    place: Place,
    order: Order,
    pages: u64,
    unusable: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(source: &'a Source, window: Window) -> Self {
        Self {
            source,
            window,
            seen: HashSet::new(),
            place: Place::At(source.dialect.first_page()),
            order: Order::default(),
            pages: 0,
            unusable: 0,
        }
    }

    /// The next calls inside the window; `None` at the end. Passing faults are waited out for some seconds; after an
    /// error the place is kept and can be tried again.
    ///
    /// # Errors
    /// As [`Source::list_page`].
    pub async fn next(&mut self) -> Result<Option<Vec<SourceCall>>, SourceError> {
        while let Some(mut calls) = self.next_page().await? {
            calls.retain(|call| self.window.contains(call));
            if !calls.is_empty() {
                return Ok(Some(calls));
            }
        }
        Ok(None)
    }

    /// The calls of the next page that were not seen before, wherever they lie in time.
    pub(super) async fn next_page(&mut self) -> Result<Option<Vec<SourceCall>>, SourceError> {
        let (cursor, again) = match &self.place {
            Place::At(cursor) => (cursor.clone(), false),
            Place::Again(cursor) => (cursor.clone(), true),
            Place::End => return Ok(None),
        };
        let page = self.page(cursor).await?;
        self.pages += 1;
        let rows = page.calls.len();
        let passed = !again && self.source.dialect.lists_by_creation() && self.order.passed(&page.calls, self.window);
        let mut calls = page.calls;
        calls.retain(|call| self.seen.insert(call.id.clone()));
        if !again {
            self.unusable += page.unusable;
        }
        let first = || self.source.dialect.first_page();
        self.place = match page.next {
            Some(next) if !again && !calls.is_empty() && !passed => Place::At(next),
            _ if !again && self.pages > 1 => Place::Again(first()),
            // A page of nothing but new calls: there are more of them than one page holds.
            Some(next) if again && !calls.is_empty() && calls.len() == rows => Place::Again(next),
            _ => Place::End,
        };
        Ok(Some(calls))
    }

    async fn page(&self, cursor: Cursor) -> Result<Page, SourceError> {
        let once = || self.source.list_page(Some(cursor.clone()));
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

    /// Different calls seen so far, inside the window or not.
    #[must_use]
    pub fn listed(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Rows without a usable id, seen on the way.
    #[must_use]
    pub const fn unusable(&self) -> u64 {
        self.unusable
    }

    /// Pages asked for so far.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }
}

impl Order {
    /// Takes in a page; true when the list is past the window: creation times have only fallen, and all of this page
    /// lies well before it.
    fn passed(&mut self, calls: &[SourceCall], window: Window) -> bool {
        for call in calls {
            match (call.created_at, self.last) {
                (None, _) => self.broken = true,
                (Some(at), Some(last)) if at > last => self.broken = true,
                (Some(at), Some(last)) if at < last => self.steps += 1,
                _ => {}
            }
            self.last = call.created_at.or(self.last);
        }
        let Ok(before) = window.from.checked_sub(MARGIN) else { return false };
        let old = |call: &SourceCall| [call.created_at, call.ended_at].into_iter().flatten().all(|at| at < before);
        !self.broken && self.steps >= STEPS_TO_BELIEVE && !calls.is_empty() && calls.iter().all(old)
    }
}
