//! Reads a value token by token. Its stack of open brackets needs one bit per level.

use super::token::{word, word_length};
use crate::json::string;
use crate::wire::error::DEEPEST;

/// The structure breaks here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped;

/// An open bracket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    List,
    Object,
}

#[derive(Debug, Clone, Copy)]
enum Expect {
    /// A value, at the start or of a member.
    Value,
    /// An item of a list, or the list's end.
    Item,
    /// A member name of an object, or the object's end.
    Name,
    /// A comma or a closing bracket.
    After,
}

/// Open brackets, one bit each. A body of only brackets needs an eighth of its size.
#[derive(Debug, Default)]
struct OpenBrackets {
    bits: Vec<u64>,
    levels: usize,
}

impl OpenBrackets {
    fn push(&mut self, bracket: Bracket) {
        let (word, bit) = (self.levels / 64, self.levels % 64);
        if word == self.bits.len() {
            self.bits.push(0);
        }
        let mark = u64::from(bracket == Bracket::Object) << bit;
        if let Some(bits) = self.bits.get_mut(word) {
            *bits = (*bits & !(1 << bit)) | mark;
        }
        self.levels += 1;
    }

    fn pop(&mut self) {
        self.levels = self.levels.saturating_sub(1);
    }

    fn top(&self) -> Option<Bracket> {
        let last = self.levels.checked_sub(1)?;
        let object = self.bits.get(last / 64)? >> (last % 64) & 1 == 1;
        Some(if object { Bracket::Object } else { Bracket::List })
    }
}

/// A scan of a body from one position.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    body: &'a [u8],
    at: usize,
    /// Output of the strict form.
    out: Option<&'a mut Vec<u8>>,
    open: OpenBrackets,
    /// A comma that was read and is not yet written. A comma before a closing bracket is never written.
    comma: bool,
    too_deep: bool,
    /// Members of the `noted` outermost objects.
    members: Option<&'a mut Vec<Member>>,
    noted: usize,
}

/// A member of an object: the position of its name without quotes, and the start of its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub name: (usize, usize),
    pub value: usize,
}

/// Largest number of recorded members per object. No platform's record has half as many.
const MOST_MEMBERS: usize = 512;

impl<'a> Machine<'a> {
    /// A scan without output.
    pub(super) fn looking(body: &'a [u8], at: usize) -> Self {
        Self {
            body,
            at,
            out: None,
            open: OpenBrackets::default(),
            comma: false,
            too_deep: false,
            members: None,
            noted: 1,
        }
    }

    /// A scan that writes the strict form.
    pub(super) fn writing(body: &'a [u8], at: usize, out: &'a mut Vec<u8>) -> Self {
        Self { out: Some(out), ..Self::looking(body, at) }
    }

    /// Also records the members of the outermost object.
    pub(super) fn noting(mut self, members: &'a mut Vec<Member>) -> Self {
        self.members = Some(members);
        self
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// True when the value is nested too deeply. Then the output is incomplete.
    pub(super) const fn too_deep(&self) -> bool {
        self.too_deep
    }

    pub(super) fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    /// Reads one value.
    pub(super) fn value(&mut self) -> Result<(), Stopped> {
        self.run(Expect::Value)
    }

    /// Continues after a value inside this many objects, to the end of the outermost one. It records the members of all
    /// of them.
    pub(super) fn out_of(&mut self, objects: usize) -> Result<(), Stopped> {
        self.noted = objects;
        for _ in 0..objects {
            self.open.push(Bracket::Object);
        }
        if objects == 0 { Ok(()) } else { self.run(Expect::After) }
    }

    fn run(&mut self, mut expect: Expect) -> Result<(), Stopped> {
        loop {
            self.skip_space();
            let byte = self.peek().ok_or(Stopped)?;
            expect = match (expect, byte) {
                (Expect::Value | Expect::Item, b'{') => self.opened(Bracket::Object),
                (Expect::Value | Expect::Item, b'[') => self.opened(Bracket::List),
                (Expect::Item | Expect::After, b']') => self.closed(Bracket::List)?,
                (Expect::Name | Expect::After, b'}') => self.closed(Bracket::Object)?,
                (Expect::Value | Expect::Item, b'"') => {
                    self.string()?;
                    Expect::After
                }
                (Expect::Value | Expect::Item, _) => {
                    self.word()?;
                    Expect::After
                }
                (Expect::Name, b'"') => {
                    self.name()?;
                    Expect::Value
                }
                (Expect::After, b',') => {
                    (self.at, self.comma) = (self.at + 1, true);
                    if self.open.top() == Some(Bracket::Object) { Expect::Name } else { Expect::Item }
                }
                _ => return Err(Stopped),
            };
            if matches!(expect, Expect::After) && self.open.levels == 0 {
                return Ok(());
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(out) = self.out.as_mut().filter(|_| !self.too_deep) {
            out.extend_from_slice(bytes);
        }
    }

    fn put_comma(&mut self) {
        if std::mem::take(&mut self.comma) {
            self.put(b",");
        }
    }

    fn opened(&mut self, bracket: Bracket) -> Expect {
        self.put_comma();
        self.open.push(bracket);
        self.too_deep |= self.open.levels > DEEPEST;
        self.at += 1;
        match bracket {
            Bracket::Object => {
                self.put(b"{");
                Expect::Name
            }
            Bracket::List => {
                self.put(b"[");
                Expect::Item
            }
        }
    }

    fn closed(&mut self, bracket: Bracket) -> Result<Expect, Stopped> {
        if self.open.top() != Some(bracket) {
            return Err(Stopped);
        }
        self.comma = false;
        self.open.pop();
        self.at += 1;
        self.put(if bracket == Bracket::Object { b"}" } else { b"]" });
        Ok(Expect::After)
    }

    fn string(&mut self) -> Result<(), Stopped> {
        self.put_comma();
        let mut out = self.out.as_mut().filter(|_| !self.too_deep);
        let put = |bytes: &[u8]| {
            if let Some(out) = &mut out {
                out.extend_from_slice(bytes);
            }
        };
        let end = string(self.body, self.at + 1, put);
        self.at = end.unwrap_or(self.body.len());
        end.map(drop).ok_or(Stopped)
    }

    fn word(&mut self) -> Result<(), Stopped> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let written = rest.get(..word_length(rest)).ok_or(Stopped)?;
        let strict = word(written).ok_or(Stopped)?;
        self.put_comma();
        self.put(&strict);
        self.at += written.len();
        Ok(())
    }

    fn name(&mut self) -> Result<(), Stopped> {
        let start = self.at + 1;
        self.string()?;
        let end = self.at - 1;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(Stopped);
        }
        self.at += 1;
        self.put(b":");
        self.skip_space();
        let value = self.at;
        if self.open.levels <= self.noted
            && let Some(members) = self.members.as_mut().filter(|members| members.len() < MOST_MEMBERS)
        {
            members.push(Member { name: (start, end), value });
        }
        Ok(())
    }
}
