//! Counts the unreadable rows in a range, and finds their probable ids.

use std::ops::Range;

use serde_json::Value;

use super::machine::{Machine, Member};
use super::rows::ScannedRow;
use super::state::Scan;
use super::strict;

/// The longest shown id of a row, in characters.
const LONGEST_ID: usize = 200;

impl Scan<'_> {
    /// Records a range with one unreadable row, or with several where its brackets show them.
    pub(super) fn unread(&self, range: Range<usize>, members: &[Member], rows: &mut Vec<ScannedRow>) {
        let parts = self.parts(range.clone());
        if let [_, _, ..] = parts.as_slice() {
            rows.extend(parts.into_iter().map(|part| ScannedRow::Unread { id: self.visible_id(part) }));
        } else {
            let id = self.noted_id(members).or_else(|| self.visible_id(range));
            rows.push(ScannedRow::Unread { id });
        }
    }

    /// The range's objects by counting quotes and brackets. One part where the count is not even.
    fn parts(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let (mut parts, mut level, mut begun, mut quoted, mut escaped) = (Vec::new(), 0_i64, None, false, false);
        for at in range.clone() {
            let byte = self.byte(at).unwrap_or_default();
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ if quoted => {}
                b'{' | b'[' => {
                    begun = begun.or(Some(at));
                    level += 1;
                }
                b'}' | b']' => {
                    level -= 1;
                    if level == 0
                        && let Some(from) = begun.take()
                    {
                        parts.push(from..at + 1);
                    }
                }
                b',' | b' ' | b'\t' | b'\n' | b'\r' => {}
                // Other bytes between two rows.
                _ if level == 0 => return vec![range],
                _ => {}
            }
            if level < 0 {
                return vec![range];
            }
        }
        if level == 0 && !quoted { parts } else { vec![range] }
    }

    /// The id among the members that were read before the row broke.
    pub(super) fn noted_id(&self, members: &[Member]) -> Option<String> {
        let member = members.iter().find(|member| self.is_named(member, self.names.id))?;
        self.id_at(member.value)
    }

    /// The first member in a range with the name of an id.
    fn visible_id(&self, range: Range<usize>) -> Option<String> {
        let wanted = format!("\"{}\"", self.names.id);
        let text = self.body.get(range.clone())?;
        let found = text.windows(wanted.len()).position(|window| window == wanted.as_bytes())?;
        let colon = self.skip_space(range.start + found + wanted.len());
        if self.byte(colon) != Some(b':') {
            return None;
        }
        self.id_at(self.skip_space(colon + 1))
    }

    fn id_at(&self, at: usize) -> Option<String> {
        if matches!(self.byte(at), Some(b'{' | b'[')) {
            return None;
        }
        let mut text = Vec::new();
        Machine::writing(self.body, at, &mut text).value().ok()?;
        let id = match strict(&text).ok()? {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        let shown = id.chars().take(LONGEST_ID).map(|c| if c.is_control() { '\u{fffd}' } else { c });
        Some(shown.collect()).filter(|id: &String| !id.is_empty())
    }
}
