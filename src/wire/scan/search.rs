//! Finds the end of a broken row and the start of the next one.

use std::ops::Range;

use super::machine::Machine;
use super::state::Scan;

/// What follows a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// A comma and an object at this position.
    Object(usize),
    /// A comma and something else.
    Comma(usize),
    /// The end of a list, possibly of this one.
    End(usize),
    /// Nothing that may follow a row.
    Other,
}

/// Result of reading on from a possible row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    /// Items to the end of the list, and the rest of the answer.
    Fits,
    /// Complete items, then a broken one: another unreadable row.
    BreaksLater,
    BreaksAtOnce,
    /// Items to the end of another list. Its bracket is at this position.
    OtherList(usize),
}

impl Scan<'_> {
    /// What follows the value that ends here.
    pub(super) fn behind(&self, end: usize) -> Behind {
        let at = self.skip_space(end);
        match self.byte(at) {
            Some(b']') => Behind::End(at),
            Some(b',') => {
                let next = self.skip_space(at + 1);
                match self.byte(next) {
                    Some(b'{') => Behind::Object(next),
                    Some(b']') => Behind::End(next),
                    _ => Behind::Comma(next),
                }
            }
            _ => Behind::Other,
        }
    }

    /// True when the list ends with the bracket at `at`: everything after it fits and contains no rows. If rows follow,
    /// the bracket closes a list inside a broken row.
    pub(super) fn ends_at(&mut self, at: usize, outer: usize) -> bool {
        self.closes_at(at, outer) && self.fitting_row(at + 1..self.body.len(), outer).is_none()
    }

    /// True when everything after the bracket at `at` fits, to the last byte.
    fn closes_at(&mut self, at: usize, outer: usize) -> bool {
        let mut members = Vec::new();
        let mut machine = Machine::looking(self.body, at + 1).noting(&mut members);
        let left = machine.out_of(outer);
        machine.skip_space();
        let end = machine.at();
        self.searched(end - at);
        self.furthest = self.furthest.max(end);
        self.ran_out |= left.is_err() && end >= self.body.len();
        // A member with the name of a call's id belongs to a row with a missing bracket, not to the answer.
        let of_a_row = members.iter().any(|member| self.is_named(member, self.names.id));
        left.is_ok() && end == self.body.len() && !of_a_row
    }

    /// The first row in a range from which everything fits.
    fn fitting_row(&mut self, within: Range<usize>, outer: usize) -> Option<usize> {
        let mut at = within.start;
        while at < within.end && self.search_left > 0 {
            self.searched(1);
            let next = self.skip_space(at + 1);
            let may_begin = self.byte(at) == Some(b',') && self.byte(next) == Some(b'{');
            at += 1;
            if may_begin && self.looks_like_a_row(next) {
                match self.goes_on(next, outer) {
                    Chain::Fits => return Some(next),
                    Chain::OtherList(bracket) => at = at.max(bracket),
                    Chain::BreaksLater | Chain::BreaksAtOnce => {}
                }
            }
        }
        None
    }

    /// True when a bracket that could end the list may belong to a truncated row, because only brackets follow.
    fn may_be_cut_off(&self, at: usize) -> bool {
        let rest = self.body.get(at + 1..).unwrap_or_default();
        self.cut_off && rest.iter().all(|byte| matches!(byte, b'}' | b' ' | b'\t' | b'\n' | b'\r'))
    }

    /// The start of the next row, or the end of the list, after an unreadable row.
    pub(super) fn next_row(&mut self, within: Range<usize>, outer: usize) -> Option<usize> {
        let mut at = within.start;
        while at < within.end && self.search_left > 0 {
            self.searched(1);
            match self.byte(at)? {
                b',' => {
                    let next = self.skip_space(at + 1);
                    at += 1;
                    if self.byte(next) == Some(b'{') && self.looks_like_a_row(next) {
                        match self.goes_on(next, outer) {
                            Chain::Fits | Chain::BreaksLater => return Some(next),
                            Chain::BreaksAtOnce => {}
                            // A list inside the row. None of its items is the next row.
                            Chain::OtherList(bracket) => at = at.max(bracket),
                        }
                    }
                }
                b']' if !self.may_be_cut_off(at) && self.ends_at(at, outer) => return Some(at),
                _ => at += 1,
            }
        }
        None
    }

    /// True when the object at `at` has the members of a row.
    fn looks_like_a_row(&mut self, at: usize) -> bool {
        let mut members = Vec::new();
        let mut machine = Machine::looking(self.body, at).noting(&mut members);
        let passed = machine.value().is_ok();
        let end = machine.at();
        self.searched(end - at);
        let has = |name: &str| members.iter().any(|member| self.is_named(member, name));
        passed && has(self.names.id) && has(self.names.status)
    }

    /// Reads the items from `at` on.
    pub(super) fn goes_on(&mut self, mut at: usize, outer: usize) -> Chain {
        let mut items = 0_u64;
        loop {
            let mut machine = Machine::looking(self.body, at);
            let passed = machine.value();
            let end = machine.at();
            self.searched(end - at);
            if passed.is_err() {
                return if items > 0 { Chain::BreaksLater } else { Chain::BreaksAtOnce };
            }
            items += 1;
            match self.behind(end) {
                Behind::Object(next) | Behind::Comma(next) => at = next,
                Behind::End(end) if self.closes_at(end, outer) => return Chain::Fits,
                Behind::End(end) => return Chain::OtherList(end),
                Behind::Other if items > 1 => return Chain::BreaksLater,
                Behind::Other => return Chain::BreaksAtOnce,
            }
            if self.search_left == 0 {
                return Chain::BreaksAtOnce;
            }
        }
    }
}
