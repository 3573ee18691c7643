//! Where a row ends that does not say so, and the next one begins.

use std::ops::Range;

use super::machine::Machine;
use super::rows::Scan;

/// What stands behind a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// A comma and an object, whose place this is.
    Object(usize),
    /// A comma and something else.
    Comma(usize),
    /// The end of a list, maybe of this one.
    End(usize),
    /// Nothing that may stand behind a row.
    Other,
}

/// What comes of reading on from where a row may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    /// Items to the end of the list, and the rest of the answer.
    Fits,
    /// Whole items, then one that breaks off: another row that cannot be read.
    BreaksLater,
    BreaksAtOnce,
    /// Items to the end of a list that is not this one: its bracket is here.
    OtherList(usize),
}

impl Scan<'_> {
    /// What stands behind the value that ends here.
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

    /// Whether the list ends with the bracket at `at`: all that follows fits, and holds no rows. Where it does, the bracket
    /// belongs to a list inside a row that lacks another.
    pub(super) fn ends_at(&mut self, at: usize, outer: usize) -> bool {
        self.closes_at(at, outer) && self.fitting_row(at + 1..self.body.len(), outer).is_none()
    }

    /// Whether all that follows the bracket at `at` fits, to the last byte.
    fn closes_at(&mut self, at: usize, outer: usize) -> bool {
        let mut members = Vec::new();
        let mut machine = Machine::looking(self.body, at + 1).noting(&mut members);
        let left = machine.out_of(outer);
        machine.skip_space();
        let end = machine.at();
        self.searched(end - at);
        self.furthest = self.furthest.max(end);
        self.ran_out |= left.is_err() && end >= self.body.len();
        // What has the id of a call is none of the answer's own members but a row without its bracket.
        let of_a_row = members.iter().any(|member| self.is_named(member, self.names.id));
        left.is_ok() && end == self.body.len() && !of_a_row
    }

    /// The first row in a stretch from which on everything fits.
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

    /// Whether a bracket that could end the list may as well be one of a row that was cut off: brackets alone follow.
    fn may_be_cut_off(&self, at: usize) -> bool {
        let rest = self.body.get(at + 1..).unwrap_or_default();
        self.cut_off && rest.iter().all(|byte| matches!(byte, b'}' | b' ' | b'\t' | b'\n' | b'\r'))
    }

    /// Where the next row begins, or the list ends, behind a row that cannot be read.
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
                            // A list inside the row: none of its items is the next row.
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

    /// Whether the object at `at` has the names of a row.
    fn looks_like_a_row(&mut self, at: usize) -> bool {
        let mut members = Vec::new();
        let mut machine = Machine::looking(self.body, at).noting(&mut members);
        let passed = machine.value().is_ok();
        let end = machine.at();
        self.searched(end - at);
        let has = |name: &str| members.iter().any(|member| self.is_named(member, name));
        passed && has(self.names.id) && has(self.names.status)
    }

    /// What comes of reading the items from `at` on.
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
