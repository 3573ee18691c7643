//! A list of calls, row by row: what is wrong with one row costs that row and no other.
//!
//! A row whose structure breaks off has no end that could be counted to: quotes and brackets behind the break stand for
//! anything. The next row is where an object with a row's names begins from which on everything fits: rows, the
//! end of the list, the rest of the answer to its last byte. An answer that was cut off has no such end and is not JSON.

use serde_json::Value;

use super::machine::{Machine, Member};
use super::search::{Behind, Chain};
use super::{not_json, strict, whole};
use crate::wire::WireError;

/// The members every row has, by which it is known: its id and its status.
#[derive(Debug, Clone, Copy)]
pub(in crate::wire) struct Names {
    pub id: &'static str,
    pub status: &'static str,
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::wire) enum Row {
    Read(Value),
    /// Not JSON, too deep, or no object; its id where one can be seen.
    Unread {
        id: Option<String>,
    },
}

/// An answer with its lists taken out.
#[derive(Debug)]
pub(in crate::wire) struct Answer {
    /// Everything else; where a list was taken out an empty one is left.
    pub envelope: Value,
    /// The lists that were looked for, in their order; `None` for one that is not there.
    pub lists: Vec<Option<Vec<Row>>>,
}

/// Bytes that may be gone through in vain, or again in search of a next row, for each byte of the answer: enough for a page
/// of a hundred rows none of which closes its brackets.
const SEARCH_PER_BYTE: usize = 256;
/// The most of them, whatever the length: seconds.
const LONGEST_SEARCH: usize = 1 << 30;

/// Takes the lists at these paths out of an answer, row by row.
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
        Err(Broken::Structure) => Err(not_json(body, scan.furthest)),
        Err(Broken::TooDeep) => Err(WireError::TooDeep),
    }
}

/// Why nothing can be read of the whole answer.
#[derive(Debug, Clone, Copy)]
enum Broken {
    Structure,
    TooDeep,
}

/// A value that was gone through.
struct Passed {
    text: Vec<u8>,
    end: usize,
    too_deep: bool,
}

fn shallow(passed: Passed) -> Result<Vec<u8>, Broken> {
    if passed.too_deep { Err(Broken::TooDeep) } else { Ok(passed.text) }
}

/// A walk through an answer.
pub(super) struct Scan<'a> {
    pub(super) body: &'a [u8],
    pub(super) names: Names,
    /// Bytes that may still be gone through again.
    pub(super) search_left: usize,
    /// Whether something broke off for want of bytes.
    pub(super) ran_out: bool,
    /// Whether the row at hand, or the list's end, did so: it may have been cut off, and the answer with it.
    pub(super) cut_off: bool,
    /// Where the structure broke off, at the latest.
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

    fn expect(&mut self, at: usize, byte: u8) -> Result<usize, Broken> {
        let at = self.skip_space(at);
        if self.byte(at) == Some(byte) { Ok(at + 1) } else { self.broken(at) }
    }

    fn broken<T>(&mut self, at: usize) -> Result<T, Broken> {
        self.furthest = self.furthest.max(at);
        Err(Broken::Structure)
    }

    /// Goes through one value, writing it.
    fn value(&mut self, at: usize, members: Option<&mut Vec<Member>>) -> Result<Passed, Broken> {
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

    /// Goes through the answer's outermost object and those on the way to a list; the strict form of all but the lists.
    fn envelope(&mut self, paths: &[&[&str]], lists: &mut [Option<Vec<Row>>]) -> Result<Vec<u8>, Broken> {
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

    /// Goes through a member's name and its colon, to where the value begins.
    fn name(&mut self, at: &mut usize, text: &mut Vec<u8>) -> Result<String, Broken> {
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

    /// Goes through a list inside this many objects, from its bracket to behind its end.
    fn rows(&mut self, at: &mut usize, outer: usize) -> Result<Vec<Row>, Broken> {
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
                    // A row that lacks a closing bracket takes in its neighbours and the end of the list.
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

    fn row(&self, passed: &Passed, members: &[Member]) -> Row {
        let value = if passed.too_deep { None } else { strict(&passed.text).ok().filter(Value::is_object) };
        value.map_or_else(|| Row::Unread { id: self.noted_id(members) }, Row::Read)
    }

    pub(super) fn searched(&mut self, bytes: usize) {
        self.search_left = self.search_left.saturating_sub(bytes);
    }

    pub(super) fn is_named(&self, member: &Member, name: &str) -> bool {
        self.body.get(member.name.0..member.name.1) == Some(name.as_bytes())
    }
}
