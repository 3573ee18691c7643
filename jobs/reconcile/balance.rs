//! The balance of a source: every listed call in one of its groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::SourceName;
use crate::wire::UnreadableRow;

/// Ids of unreadable rows in a balance. The log has all of them.
const MOST_NAMED: usize = 20;

/// The balance of a source within a window.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Balance {
    pub source: SourceName,
    /// Calls that the source listed.
    pub listed: u64,
    /// Listed calls that are completed.
    pub completed: u64,
    pub done: u64,
    /// Completed calls with an unfinished job, new or earlier.
    pub running: u64,
    /// Completed calls that ended with an outcome other than done, by outcome.
    pub terminal: BTreeMap<String, u64>,
    /// Completed calls with a dead letter, for a person to check.
    #[serde(default)]
    pub dead_letters: u64,
    /// Unreadable rows of the list. Their calls and status are unknown.
    #[serde(default)]
    pub unreadable: u64,
    /// The ids of the first unreadable rows, if they can be read.
    #[serde(default)]
    pub unreadable_ids: Vec<String>,
    /// Completed calls in none of these groups. Must be 0.
    pub missing: u64,
    /// Jobs that this pass enqueued.
    pub enqueued: u64,
    /// Known calls that the source listed before and no longer lists.
    #[serde(default)]
    pub vanished: u64,
    /// Known calls in the window with missing stored objects. Must be 0.
    #[serde(default)]
    pub missing_objects: u64,
}

impl Balance {
    pub(super) fn new(source: &SourceName) -> Self {
        Self {
            source: source.clone(),
            listed: 0,
            completed: 0,
            done: 0,
            running: 0,
            terminal: BTreeMap::new(),
            dead_letters: 0,
            unreadable: 0,
            unreadable_ids: Vec::new(),
            missing: 0,
            enqueued: 0,
            vanished: 0,
            missing_objects: 0,
        }
    }

    /// Whether every listed call is accounted for and no call needs a person.
    #[must_use]
    pub const fn is_clear(&self) -> bool {
        self.missing == 0 && self.missing_objects == 0 && self.dead_letters == 0 && self.unreadable == 0
    }

    pub(super) fn count_unreadable(&mut self, rows: &[UnreadableRow]) {
        self.listed += rows.len() as u64;
        self.unreadable += rows.len() as u64;
        for id in rows.iter().filter_map(|row| row.id.as_ref()) {
            if self.unreadable_ids.len() < MOST_NAMED && !self.unreadable_ids.contains(id) {
                self.unreadable_ids.push(id.clone());
            }
        }
    }

    /// Logs the balance of a poll or a pass. The level is info if a job was enqueued or a call is missing, else debug.
    pub(super) fn report(&self, what: &str) {
        if self.enqueued == 0 && self.missing == 0 {
            tracing::debug!(source = %self.source, listed = self.listed, completed = self.completed, "{what}");
            return;
        }
        tracing::info!(
            source = %self.source,
            listed = self.listed,
            completed = self.completed,
            done = self.done,
            running = self.running,
            enqueued = self.enqueued,
            dead_letters = self.dead_letters,
            unreadable = self.unreadable,
            missing = self.missing,
            vanished = self.vanished,
            "{what}"
        );
    }
}
