//! The state of a scan: the answer, the names of a row, and what is left of the search budget.

use super::machine::Member;

/// The members that identify a row: its id and its status.
#[derive(Debug, Clone, Copy)]
pub(in crate::wire) struct Names {
    pub id: &'static str,
    pub status: &'static str,
}

/// A scan of an answer.
pub(super) struct Scan<'a> {
    pub(super) body: &'a [u8],
    pub(super) names: Names,
    /// Remaining search budget in bytes.
    pub(super) search_left: usize,
    /// True when a scan reached the end of the body.
    pub(super) ran_out: bool,
    /// True when the current row or the list's end reached the end of the body. Then the answer may be truncated.
    pub(super) cut_off: bool,
    /// The last position at which the structure broke.
    pub(super) furthest: usize,
}

impl Scan<'_> {
    pub(super) fn byte(&self, at: usize) -> Option<u8> {
        self.body.get(at).copied()
    }

    pub(super) fn skip_space(&self, mut at: usize) -> usize {
        while matches!(self.byte(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            at += 1;
        }
        at
    }

    pub(super) fn searched(&mut self, bytes: usize) {
        self.search_left = self.search_left.saturating_sub(bytes);
    }

    pub(super) fn is_named(&self, member: &Member, name: &str) -> bool {
        self.body.get(member.name.0..member.name.1) == Some(name.as_bytes())
    }
}
