//! Reads a list of calls row by row. An error in one row affects only that row.
//!
//! A row with a broken structure has no countable end, because quotes and brackets after the break are unreliable. The
//! next row starts at an object with a row's names from which everything fits: rows, the end of the list, and the rest
//! of the answer to its last byte. A truncated answer has no such end and is not JSON.

use serde_json::Value;

use super::machine::{Machine, Member};
use super::search::{Behind, Chain};
use super::state::{Names, Scan};
use super::{not_json, strict, whole};
use crate::wire::WireError;

/// A row of a list.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::wire) enum ScannedRow {
    Read(Value),
    /// Not JSON, too deep, or not an object; with its id where visible.
    Unread {
        id: Option<String>,
    },
}

/// An answer with its lists removed.
#[derive(Debug)]
pub(in crate::wire) struct Answer {
    /// Everything else. An empty list replaces each removed list.
    pub envelope: Value,
    /// The requested lists in their order. `None` for a missing one.
    pub lists: Vec<Option<Vec<ScannedRow>>>,
}

/// Search budget: bytes that may be scanned in vain, or again, per byte of the answer. It is enough for a page of a
/// hundred rows without closing brackets.
const SEARCH_PER_BYTE: usize = 256;
/// Upper limit of the search budget for any length. It corresponds to seconds.
const LONGEST_SEARCH: usize = 1 << 30;

/// Removes the lists at these paths from an answer and reads them row by row.
pub(in crate::wire) fn page(body: &[u8], paths: &[&[&str]], names: Names) -> Result<Answer, WireError> {
    if body.first() != Some(&b'{') {
        return Ok(Answer { envelope: whole(body)?, lists: vec![None; paths.len()] });
    }
    let mut scan = Scan {
        body,
        names,
        search_left: body.len().saturating_mul(SEARCH_PER_BYTE).min(LONGEST_SEARCH),
        ran_out: false,
        cut_off: false,
        furthest: 0,
    };
    let mut lists = vec![None; paths.len()];
    match scan.envelope(paths, &mut lists) {
        Ok(text) => Ok(Answer { envelope: strict(&text)?, lists }),
        Err(Unreadable::Structure) => Err(not_json(body, scan.furthest)),
        Err(Unreadable::TooDeep) => Err(WireError::TooDeep),
    }
}

/// Why nothing of the answer can be read.
#[derive(Debug, Clone, Copy)]
enum Unreadable {
    Structure,
    TooDeep,
}

/// A scanned value.
struct Passed {
    text: Vec<u8>,
    end: usize,
    too_deep: bool,
}

fn shallow(passed: Passed) -> Result<Vec<u8>, Unreadable> {
    if passed.too_deep { Err(Unreadable::TooDeep) } else { Ok(passed.text) }
}

impl Scan<'_> {
    fn expect(&mut self, at: usize, byte: u8) -> Result<usize, Unreadable> {
        let at = self.skip_space(at);
        if self.byte(at) == Some(byte) { Ok(at + 1) } else { self.broken(at) }
    }

    fn broken<T>(&mut self, at: usize) -> Result<T, Unreadable> {
        self.furthest = self.furthest.max(at);
        Err(Unreadable::Structure)
    }

    /// Reads one value and writes its strict form.
    fn value(&mut self, at: usize, members: Option<&mut Vec<Member>>) -> Result<Passed, Unreadable> {
        let mut text = Vec::new();
        let mut machine = Machine::writing(self.body, at, &mut text);
        if let Some(members) = members {
            machine = machine.noting(members);
        }
        let passed = machine.value();
        let (end, too_deep) = (machine.at(), machine.too_deep());
        if passed.is_err() {
            self.searched(end - at);
            self.ran_out |= end >= self.body.len();
            return self.broken(end);
        }
        Ok(Passed { text, end, too_deep })
    }

    /// Reads the answer's outermost object and the objects on the path to a list. Returns the strict form without the
    /// lists.
    fn envelope(&mut self, paths: &[&[&str]], lists: &mut [Option<Vec<ScannedRow>>]) -> Result<Vec<u8>, Unreadable> {
        let mut text = b"{".to_vec();
        let mut path: Vec<String> = Vec::new();
        let (mut at, mut first) = (1, true);
        loop {
            at = self.skip_space(at);
            if self.byte(at) == Some(b'}') {
                (at, first) = (at + 1, false);
                text.push(b'}');
                if path.pop().is_none() {
                    break;
                }
            } else {
                if !std::mem::take(&mut first) {
                    text.push(b',');
                }
                path.push(self.name(&mut at, &mut text)?);
                let is_at = |wanted: &&[&str]| wanted.iter().copied().eq(path.iter().map(String::as_str));
                let leads =
                    |wanted: &&[&str]| wanted.len() > path.len() && wanted.iter().zip(&path).all(|(w, p)| *w == p);
                let byte = self.byte(at);
                let list = paths.iter().position(is_at).filter(|_| byte == Some(b'['));
                if let Some(slot) = list.and_then(|index| lists.get_mut(index)) {
                    let rows = self.rows(&mut at, path.len())?;
                    *slot = Some(rows);
                    text.extend(b"[]");
                    path.pop();
                } else if byte == Some(b'{') && paths.iter().any(leads) {
                    (at, first) = (at + 1, true);
                    text.push(b'{');
                    continue;
                } else {
                    let passed = self.value(at, None)?;
                    at = passed.end;
                    text.extend(shallow(passed)?);
                    path.pop();
                }
            }
            at = self.skip_space(at);
            match self.byte(at) {
                Some(b',') => at += 1,
                Some(b'}') => {}
                _ => return self.broken(at),
            }
        }
        at = self.skip_space(at);
        if at < self.body.len() { self.broken(at) } else { Ok(text) }
    }

    /// Reads a member's name and its colon. `at` moves to the start of the value.
    fn name(&mut self, at: &mut usize, text: &mut Vec<u8>) -> Result<String, Unreadable> {
        if self.byte(*at) != Some(b'"') {
            return self.broken(*at);
        }
        let passed = self.value(*at, None)?;
        let colon = self.expect(passed.end, b':')?;
        *at = self.skip_space(colon);
        text.extend_from_slice(&passed.text);
        text.push(b':');
        match strict(&passed.text) {
            Ok(Value::String(name)) => Ok(name),
            _ => self.broken(*at),
        }
    }

    /// Reads a list inside this many objects, from its bracket to the position after its end.
    fn rows(&mut self, at: &mut usize, outer: usize) -> Result<Vec<ScannedRow>, Unreadable> {
        let mut rows = Vec::new();
        *at += 1;
        loop {
            let start = self.skip_space(*at);
            self.ran_out = false;
            if self.byte(start) == Some(b']') && self.ends_at(start, outer) {
                *at = start + 1;
                return Ok(rows);
            }
            let mut members = Vec::new();
            let passed = self.value(start, Some(&mut members)).ok();
            let at_end = passed.as_ref().is_some_and(|passed| self.skip_space(passed.end) >= self.body.len());
            self.cut_off = self.ran_out || at_end;
            let behind = passed.as_ref().map_or(Behind::Other, |passed| self.behind(passed.end));
            let whole = match (&passed, behind) {
                (Some(_), Behind::Object(next)) => Some(next),
                (Some(passed), Behind::Comma(next) | Behind::End(next)) => {
                    // A row without its closing bracket contains the next rows and the end of the list.
                    let fits = match behind {
                        Behind::End(end) => self.ends_at(end, outer),
                        _ => self.goes_on(next, outer) == Chain::Fits,
                    };
                    let other = if fits { None } else { self.next_row(start + 1..self.body.len(), outer) };
                    let swallowed = other.is_some_and(|other| other < passed.end);
                    if swallowed {
                        self.searched(passed.end - start);
                    }
                    (!swallowed).then_some(next)
                }
                _ => None,
            };
            if let (Some(passed), Some(next)) = (passed, whole) {
                rows.push(self.row(&passed, &members));
                *at = next;
            } else {
                let Some(next) = self.next_row(start..self.body.len(), outer) else { return self.broken(start) };
                self.unread(start..next, &members, &mut rows);
                *at = next;
            }
        }
    }

    fn row(&self, passed: &Passed, members: &[Member]) -> ScannedRow {
        let value = if passed.too_deep { None } else { strict(&passed.text).ok().filter(Value::is_object) };
        value.map_or_else(|| ScannedRow::Unread { id: self.noted_id(members) }, ScannedRow::Read)
    }
}
